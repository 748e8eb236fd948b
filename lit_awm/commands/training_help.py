"""``lit-awm fit --help``: what can be set in a recipe, with what it is set to."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any, NoReturn

import docstring_parser
import yaml

from lit_awm.checks import did_you_mean
from lit_awm.cli import COMMON, resolve_recipes, say
from lit_awm.recipes import LINKED, make_cli
from lit_awm.usage import find_class

FLAGS = ("-h", "--help")
USAGE = """usage: lit-awm {command} --config RECIPE [--config FILE ...] [--OPTION VALUE ...]

{what}.
A recipe holds settings, of which each is an option too; what comes later wins.

  --config NAME|FILE       a recipe by its name (`lit-awm --help` lists them), or a file of yours
{own}  --seed_everything NUMBER
  --print_config           print all settings as a recipe, and stop
  --help SETTING           explain a part and what can be set in it: --help data, --help model.policy_module
  --help_all               all that Lightning's command line tells, in a few hundred lines

Trainer: --help trainer lists all; for example
  --trainer.max_epochs 20, --trainer.accelerator gpu, --trainer.devices 2, --trainer.strategy ddp,
  --trainer.precision bf16-mixed, --trainer.logger WandbLogger, --trainer.callbacks+=GradientFidelity
"""
WHAT = {
    "fit": "Fit a world model and optimise a policy in it, by a recipe",
    "validate": "Score a checkpoint in the real environment, by a recipe",
}
OWN = {
    "fit": "  --resume                 go on with the newest run of this name, or begin one\n"
    "  --ckpt_path FILE         go on from a checkpoint, as a new run\n",
    "validate": "  --ckpt_path FILE         the checkpoint\n",
}
TITLES = (("data", "Data"), ("model", "Model"))
TRAINER = "lightning.pytorch.Trainer"


def wants_help(arguments: list[str]) -> bool:
    """Tell whether a command line asks for this help."""
    return any(flag in arguments for flag in FLAGS)


def print_help(arguments: list[str]) -> None:
    """Print what can be set in the recipe of a command line, or in the part of it that is named after ``--help``.

    Args:
        arguments: The command, ``fit`` or ``validate``, and what follows it.

    Raises:
        SystemExit: If there is no such part; the message says what there is.
    """
    command = arguments[0]
    at = next(position for position, word in enumerate(arguments) if word in FLAGS)
    part = arguments[at + 1] if at + 1 < len(arguments) and not arguments[at + 1].startswith("-") else ""
    rest = [*arguments[1:at], *arguments[at + 1 + bool(part) :]]
    settings = _settings(rest)
    if part:
        text = _explain(part.lstrip("-"), settings)
    else:
        parts = (f"\n{title}: {_class(settings[name])}\n{_overview(name, settings[name])}\n" for name, title in TITLES)
        text = USAGE.format(command=command, what=WHAT[command], own=OWN[command]) + "".join(parts)
    say(text.rstrip())


def _settings(words: list[str]) -> dict[str, Any]:
    """Return the settings of a command line as its recipes and options make them."""
    if not any(word.startswith(("--config", "-c")) for word in words):
        words = [*resolve_recipes([f"--config={COMMON}"]), *words]
    with io.StringIO() as out:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            make_cli(["fit", *words, "--print_config"], run=True)
        settings: dict[str, Any] | None = yaml.safe_load(out.getvalue())
    if settings is None:  # the parser has said what is wrong
        raise SystemExit(2)
    return settings


def _explain(part: str, settings: dict[str, Any]) -> str:
    """Return what a part is, and every option of it in full."""
    owner: Any = None
    found: Any = {"init_args": settings | {"trainer": {"class_path": TRAINER, "init_args": settings["trainer"]}}}
    name = ""
    for name in part.split("."):
        among = found.get("init_args", found) if isinstance(found, dict) else {}
        if name not in among:
            _refuse(part, list(among))
        owner, found = found, among[name]
    if not isinstance(found, dict) or "class_path" not in found:
        told = _told(find_class(owner["class_path"])) if "class_path" in owner else {}
        return "\n".join(_option(f"--{part}", found, _plain(told.get(name, ""))))
    described = docstring_parser.parse(find_class(found["class_path"]).__doc__ or "")
    about = [_wrap(_plain(text), "") for text in (described.short_description, described.long_description) if text]
    return "\n\n".join([f"{part}: {_class(found)}", *about, _overview(part, found, in_full=True)])


def _refuse(part: str, names: list[str]) -> NoReturn:
    hint = did_you_mean(part.rpartition(".")[2], names) or f" There are {', '.join(names)}."
    raise SystemExit(f"lit-awm: --help must be followed by a setting of the recipe, got {part!r}.{hint}")


def _overview(prefix: str, part: dict[str, Any], in_full: bool = False) -> str:
    """Return the options of a part, one below the other."""
    cls: Any = find_class(part["class_path"])
    given = part.get("init_args") or {}
    told, lines = _told(cls), list[str]()
    for name, parameter in inspect.signature(cls).parameters.items():
        is_asked_for = parameter.default is parameter.empty and given.get(name) is None
        if name in LINKED or parameter.kind is parameter.VAR_KEYWORD or (is_asked_for and prefix != "data"):
            continue  # what other parts give
        text = _plain(told.get(name, ""))
        text = text if in_full else re.split(r"(?<=\.) ", text, maxsplit=1)[0]
        lines += _option(f"--{prefix}.{name}", ... if is_asked_for else given.get(name, parameter.default), text)
    return "\n".join(lines)


def _told(cls: Any) -> dict[str, str]:
    """Return what a class says of its arguments."""
    docs = [docstring_parser.parse(doc or "") for doc in (cls.__doc__, cls.__init__.__doc__)]
    return {each.arg_name: each.description or "" for doc in docs for each in doc.params}


def _option(name: str, value: Any, text: str) -> Iterator[str]:
    """Yield the lines of an option."""
    yield f"  {name} {_value(value)}".rstrip()
    if text:
        yield _wrap(text, " " * 6)


def _value(value: Any) -> str:
    if value is ...:
        return "(to be given)"
    if isinstance(value, dict) and "class_path" in value:
        return _class(value).rpartition(".")[2]
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        return "[" + ", ".join(map(_value, value)) + "]"
    return yaml.safe_dump(value, default_flow_style=True, width=1000).partition("\n...")[0].strip()


def _class(part: dict[str, Any]) -> str:
    return str(part["class_path"])


def _plain(text: str) -> str:
    """Return a docstring's words without its markup."""
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", " ".join(text.split())).replace("``", "`")


def _wrap(text: str, indent: str) -> str:
    width = min(shutil.get_terminal_size().columns, 110)
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)
