"""Errors of usage: which option of which line of which file is wrong, and what it could be instead."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from lit_awm.checks import did_you_mean
from lit_awm.cli import COMMANDS, recipes

OMITTED = ("init_args", "fit", "validate")  # keys that the path of an option leaves out
TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "NoneType": "null"}
NAMESPACES = (  # where classes that are given by name alone come from
    *("lit_awm.callbacks", "lit_awm.data", "lit_awm.models", "lit_awm.modules"),
    *("lightning.pytorch.callbacks", "lightning.pytorch.loggers", "torch.optim", "torch.optim.lr_scheduler"),
)


class UsageParser(LightningArgumentParser):
    """Lightning's parser of arguments with short errors; ``words`` is the command line that it parses."""

    words: tuple[str, ...] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong, and where, and exit with status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        path, text = explain(message)
        command = next((word for word in (*self.words[:1], *sys.argv[1:2]) if word in COMMANDS), "")
        command = f"lit-awm {command}".strip()
        place = locate(path, self.words) if path else None
        print(f"{command}: error: {place + ': ' if place else ''}{text}", file=sys.stderr)  # noqa: T201
        print(f"See `{command} --help`.", file=sys.stderr)  # noqa: T201
        self.exit(2)


def explain(message: str) -> tuple[str | None, str]:
    """Return the option that an error of jsonargparse, or one of our own, is about, and what to do about it.

    Args:
        message: Of the parser, which lists every type that it tried; or of a check, which begins with the argument.
    """
    if unknown := re.match(r"unrecognized arguments: (-*)([\w.]+)", message):
        return None, f"{message}.{did_you_mean(unknown[2], _options()) if unknown[1] else ''}"
    if unknown := re.search(r"does not accept option '(.+)'", message):
        return unknown[1], f"{unknown[1]} is no option.{did_you_mean(unknown[1], _options())}"
    keys = re.findall(r'Parser key "([^"]+)"', message)
    if found := re.search(r"Interpolation key '[.]*(.+?)' not found", message):
        whose = re.search(r"full_key: (?:\w+\.)?(\S+)", message)
        return None, f"there is no setting {found[1]}, to which {whose[1] if whose else 'a setting'} refers."
    if not keys:
        text = re.sub(r"(?s).*Errors:\s+- (.*?)\n.*", r"\1", message)  # of the type that was meant, which is the first
        text = re.sub(r"Problem with given class_path '.+?':\s*", "", text)
        argument = re.match(r"(\w+) (?:must|and \w+ must)", text)
        return argument[1] if argument else None, text
    path, tail = ".".join(keys), message[message.rindex("Parser key") :]
    owners = re.findall(r"class_path[ =]'(.+?)'", message)
    if missing := re.search(r"the following arguments are required: (.+?)(?:\. Got|\n|$)", tail):
        needy = (re.findall(r"class_path[ =]'(.+?)'", tail) or ["it"])[0]
        return path, f"{path} must be given {missing[1]}, which {needy} needs."
    if unknown := re.search(r"unrecognized arguments: --([\w.]+)", tail):
        return f"{path}.{unknown[1]}", f"{path}.{unknown[1]} is no argument of {owners[0]}."
    pattern = r"Option '([^']+)' is not accepted(?:\. Got value: Namespace.*?class_path='(.+?)')?"
    if (unknown := re.search(pattern, tail)) and not re.match(r"[^\n]*\n\s*Expected", tail):
        option, owner = f"{path}.{unknown[1]}", unknown[2] or re.findall(r"class_path '(.+?)'", message)[-1]
        return option, f"{option} is no argument of {owner}.{did_you_mean(unknown[1], _parameters(owner))}"
    return path, f"{path} {_complaint(tail) or 'cannot be read: ' + message}"


def _complaint(tail: str) -> str | None:
    """Return what is wrong with a value, from what follows its key in an error of jsonargparse."""
    if found := re.search(r"module '(.+)' has no attribute '(.+?)'", tail):
        names = [name for name in dir(importlib.import_module(found[1])) if name[0].isupper()]
        return f"must name a class, got {found[1]}.{found[2]}: there is none.{did_you_mean(found[2], names)}"
    if found := re.search(r"No module named '(.+)'", tail):
        return f"must name a class, got one of the module {found[1]}, which is not installed."
    found = re.search(r"Expected a dot import path string: ([^\s]*[^\s.])", tail)
    if found and not re.search("Expected a <class '(int|float)'>", tail):
        names = [name for module in NAMESPACES for name in dir(importlib.import_module(module)) if name[0].isupper()]
        if found[1] == "None":
            return "cannot be null on the command line; say so in a file."
        what = "this is of another kind." if found[1] in names else f"there is none.{did_you_mean(found[1], names)}"
        return f"must name a class, got {found[1]}: {what}"
    if found := re.search(r"Expected '(.+)' to be a subclass of <class '(.+?)'>", tail):
        return f"must name a {found[2]}, got {found[1]}."
    if found := re.search(r"Not a valid subclass of (\w+)\. Got value: (.+)", tail):
        return f"must hold each {found[1]} by its class path, got {found[2]}."
    if found := re.search(r"Multiple subclasses with name (.+?)\. Give the full class path .+?: (.+?)\.\n", tail):
        return f"must name one class, got {found[1]}, which may be {found[2].replace(', ', ' or ')}."
    value = re.search(r"Given value: (.*?)(?:\. Got value|\n|$)", tail)
    single = re.search(r"Expected an? ([^\n]+?)\. Got value: (.*?)(?:\. Got value|\n|$)", tail)
    if single and (value is None or single.start() < value.start()):
        return _wrong_type([single[1]], single[2])
    expected = re.findall(r"- Expected an? (<class[^\n]+|typing[^\n]+)", tail[: value.start()] if value else "")
    return _wrong_type(expected, value[1]) if value and expected else None


def _wrong_type(expected: list[str], value: str) -> str:
    choices = re.findall(r"'([^']+)'|(?<=[\[ ])(\d+)", " ".join(each for each in expected if "Literal" in each))
    names = list(dict.fromkeys(word or number for word, number in choices))
    others = [re.sub(r"^<class '(.+)'>$", r"\1", each) for each in expected if "Literal" not in each]
    words = [*([f"one of {', '.join(names)}"] if names else []), *(TYPES.get(each, each) for each in others)]
    return f"must be {' or '.join(words)}, got {value}.{did_you_mean(value, names)}"


def _options() -> list[str]:
    return [f"trainer.{name}" for name in _parameters(f"{Trainer.__module__}.Trainer")] + [
        *("config", "ckpt_path", "data", "model", "print_config", "resume", "seed_everything", "weights_only"),
    ]


def _parameters(class_path: str) -> Iterable[str]:
    return inspect.signature(find_class(class_path)).parameters


def find_class(class_path: str) -> type:
    """Return the class of a path, ``package.module.Class``."""
    module, _, name = class_path.rpartition(".")
    found: type = getattr(importlib.import_module(module), name)
    return found


def check_yaml(path: Path) -> None:
    """Raise a ``ValueError`` that names the line if a file is not YAML, or not a table of settings."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path}{line}: this is not YAML: {error.problem}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: this is not YAML: {error}.") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    if root is None:
        raise ValueError(f"{path}: this recipe is empty.")
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"{path}:{root.start_mark.line + 1}: a recipe must be a table of settings, as `trainer: ...`.")
    for key, value in root.value:
        is_table = isinstance(value, yaml.MappingNode)
        is_class = isinstance(value, yaml.ScalarNode) and not value.tag.endswith(":null") and key.value != "trainer"
        if key.value in ("trainer", "model", "data") and not is_table and not is_class:
            raise ValueError(f"{path}:{key.start_mark.line + 1}: {key.value} must be a table of settings.")
    _check_keys(root, path, set())


def _check_keys(node: Any, path: Path, above: set[int]) -> None:
    """Reject keys that are given twice in a table, of which YAML would take the last, and tables within themselves."""
    if id(node) in above:
        raise ValueError(f"{path}:{node.start_mark.line + 1}: this refers to itself.")
    above = above | {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _check_keys(each, path, above)
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"{path}:{line}: a key must be a word. To refer to another setting write ${{name}}.")
            if key.value in lines:
                raise ValueError(f"{path}:{line}: {key.value} is given twice, first in line {lines[key.value]}.")
            lines[str(key.value)] = line
            _check_keys(value, path, above)


def locate(path: str, words: Iterable[str]) -> str | None:
    """Return ``FILE:LINE`` of an option, unless the command line itself gives it.

    Args:
        path: Of the option, ``data.num_envs``, or its end.
        words: The command line, with files after ``--config=``; those that are shipped are right by themselves.
    """
    flags = [word.partition("=")[0].rstrip("+") for word in words if word.startswith("--")]
    flags = [".".join(key for key in flag[2:].split(".") if key not in OMITTED) for flag in flags]
    if any(_is_end(path, flag) for flag in flags):
        return None
    shipped = {f"--config={file}" for file in recipes().values()}
    files = [word.removeprefix("--config=") for word in words if word.startswith("--config=") and word not in shipped]
    for file in reversed(files):  # the last one has decided
        root = yaml.compose(Path(file).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        for option, line in _lines(root):
            if _is_end(path, option):
                return f"{file}:{line}"
    return None


def _is_end(path: str, option: str) -> bool:
    return option == path or option.endswith(f".{path}")


def _lines(node: Any, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Yield the path and the line of every option below a node of a YAML file."""
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _lines(each, prefix)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        option = prefix if key.value in OMITTED else f"{prefix}.{key.value}".lstrip(".")
        yield option, key.start_mark.line + 1
        yield from _lines(value, option)
