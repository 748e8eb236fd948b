"""Find the run to go on with, and tell whether it can go on as the recipe now says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lit_awm.checkpoints.checkpoint_io import DAMAGED, PREVIOUS, read_checkpoint
from lit_awm.checkpoints.run_folder import RECIPE

CONFIG_KEY = "lit_awm_config"  # of the recipe in a checkpoint
VERSIONS_KEY = "lit_awm_versions"  # of the versions of the loggers
FIXED = [  # settings that a checkpoint has decided, as regular expressions
    r"seed_everything",
    r"data\.class_path",
    r"data\.init_args\.(env|env_options|episode_length|num_envs|warmup_episodes|round_length|capacity|seed)(\..*)?",
    r"model\.class_path",
    r"model\.init_args\.(world_model|policy|teacher|critic|reward|known_reward)(\..*)?",
    r"(.*\.)?(bootstrap|continuation)(\..*)?",
    r"(.*\.)?(optimizer|scheduler)(\..*)?",
]
HONOURED = r"(.*\.)?scheduler\.init_args\.over"  # of what would be fixed: how many restarts a run has
IGNORED = r"(ckpt_path|resume|weights_only|config|trainer\.logger(\..*)?|trainer\.plugins(\..*)?)"


class LastRun(NamedTuple):
    """A run that was interrupted.

    Attributes:
        folder: Where its log is, named after its version.
        checkpoint: What to go on from.
    """

    folder: Path
    checkpoint: Path


def find_last_run(root: Path) -> LastRun | None:
    """Return the newest run in a folder of runs that has saved a checkpoint; None if there is none.

    Its checkpoint is the newest one of its folder ``checkpoints``; of the same age ``last.ckpt``.
    """
    folders = [folder for folder in root.glob("*") if folder.is_dir()] if root.is_dir() else []
    runs = map(_run_of, sorted(folders, key=_age, reverse=True))
    return next((run for run in runs if run is not None), None)


def _run_of(folder: Path) -> LastRun | None:
    """Return the run of a folder if it has saved a checkpoint."""
    last = folder / "checkpoints" / "last.ckpt"
    spare = last.with_stem(last.stem + PREVIOUS)
    aside = f"({PREVIOUS}|{DAMAGED}(-\\d+)?|exception)$"  # what is not to be gone on from
    files = [file for file in last.parent.glob("[!.]*.ckpt") if file == spare or not re.search(aside, file.stem)]
    if not files:
        return None
    newest = max(files, key=lambda file: (file.stat().st_mtime_ns, file == last))
    return LastRun(folder, last if newest == spare else newest)


def _age(folder: Path) -> tuple[int, float]:
    """Return what sorts runs by age: their number, or else when they were last written to."""
    number = folder.name.removeprefix("version_")
    return (int(number), 0.0) if number.isdigit() else (-1, folder.stat().st_mtime)


def go_on_with_last_run(config: Any, command: str) -> None:
    """Let a configuration go on with the newest run of its name, if there is one, and say what it will do.

    Where the first logger is given a version, it is the run of that version.

    Args:
        config: That of Lightning's command line, in which the checkpoint and the versions of the logs are set.
        command: The command that was given.

    Raises:
        ValueError: If the command is not ``fit``, another checkpoint is given, or the run's folder is not known; or if
            there is no run to score.
    """
    if command != "fit" and config.resume:
        raise ValueError(f"--resume is for fit, got {command}. Give a checkpoint by --ckpt_path.")
    if config.ckpt_path not in (None, "last"):
        raise ValueError(f"ckpt_path must be left out with --resume, got {config.ckpt_path!r}.")
    loggers = _loggers(config.trainer)
    options = getattr(loggers[0], "init_args", None) if loggers else None
    if options is None or getattr(options, "save_dir", None) is None:
        raise ValueError("--resume needs a logger with save_dir and name. Give a checkpoint by --ckpt_path instead.")
    root = Path(options.save_dir) / (getattr(options, "project", None) or getattr(options, "name", None) or "")
    version = getattr(options, "version", None)
    found = find_last_run(root) if version is None else _run_of(root / _folder_of(version))
    config.ckpt_path = None if found is None else str(found.checkpoint)
    if found is None:
        if command != "fit":
            raise ValueError(f"ckpt_path last must mean a run with a checkpoint, got none in {root}.")
        print(f"nothing to resume in {root}: a new run begins")  # noqa: T201
        return
    print(f"{'resuming' if command == 'fit' else 'scoring'} {found.checkpoint}")  # noqa: T201
    name = found.folder.name
    number = name.removeprefix("version_")
    versions = [int(number) if number.isdigit() else name, *_versions_in(found.checkpoint)[1:]]
    for logger, kept in zip(loggers, versions, strict=False):
        if "WandbLogger" in logger.class_path:
            logger.init_args.id, logger.init_args.resume = str(kept), "allow"
        elif hasattr(logger, "init_args"):
            logger.init_args.version = kept


def forget_run(config: Any) -> None:
    """Take out of a configuration what run it goes on with, so that it is a recipe again."""
    config.resume, config.ckpt_path = False, None
    for logger in _loggers(config.trainer):
        options: Any = getattr(logger, "init_args", None)
        if "WandbLogger" in logger.class_path and getattr(options, "resume", None) == "allow":
            options.id = options.resume = None
        elif getattr(options, "version", None) is not None:
            options.version = None


def _loggers(trainer: Any) -> list[Any]:
    """Return the configurations of the loggers of a trainer's configuration."""
    loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    return [logger for logger in loggers if hasattr(logger, "class_path")]


def _folder_of(version: int | str) -> str:
    return f"version_{version}" if isinstance(version, int) else version


def _versions_in(checkpoint: Path) -> list[Any]:
    """Return the versions of the loggers with which a checkpoint was written."""
    versions: list[Any] = read_checkpoint(checkpoint)[0].get(VERSIONS_KEY, [])
    return versions


def check_new(trainer: Any) -> None:
    """Reject a new run in the folder of another one.

    Args:
        trainer: The configuration of the trainer.

    Raises:
        ValueError: If a logger is given the version of a run that is there; or there is no logger, and checkpoints
            would take the place of others.
    """
    for logger in _loggers(trainer):
        options: Any = getattr(logger, "init_args", None)
        if (version := getattr(options, "version", None)) is None or getattr(options, "save_dir", None) is None:
            continue
        folder = Path(options.save_dir, getattr(options, "name", None) or "", _folder_of(version))
        kept = [*(folder / "checkpoints").glob("*.ckpt"), *folder.glob(RECIPE), *folder.glob("metrics.csv")]
        if kept:
            raise ValueError(
                f"trainer.logger.version must be that of a new run, got {version!r}: {kept[0]} is there. Leave it out; "
                "or go on with a run by --resume."
            )
    folder = Path(trainer.default_root_dir or ".", "checkpoints")
    writes = trainer.enable_checkpointing is not False and not trainer.fast_dev_run
    if trainer.logger is False and writes and any(folder.glob("*.ckpt")):
        raise ValueError(
            f"trainer.default_root_dir must be a folder without checkpoints if there is no logger, got "
            f"{str(folder.parent)!r}, which has some. Give another, or a logger, or `--trainer.enable_checkpointing "
            "false`."
        )


def check_recipe(checkpoint: Path, now: dict[str, Any] | None) -> None:
    """Print what has changed in a recipe since a checkpoint was made.

    Args:
        checkpoint: To go on from.
        now: The recipe as it is; None if anything may have changed.

    Raises:
        ValueError: If the checkpoint cannot be read, or something has changed that it has decided.
    """
    loaded, _ = read_checkpoint(checkpoint)
    if CONFIG_KEY not in loaded:
        if "state_dict" not in loaded or "loops" not in loaded:
            raise ValueError(f"ckpt_path must be a checkpoint of a Lightning trainer, got {str(checkpoint)!r}.")
        return
    if now is None:
        return
    honoured, refused = compare(yaml.safe_load(loaded[CONFIG_KEY]), now)
    if honoured:
        print("changed since the checkpoint was made:\n  " + "\n  ".join(honoured))  # noqa: T201
    if refused:
        raise ValueError(
            f"these settings are decided by {checkpoint} and must not change: {'; '.join(refused)}. Set them as they "
            "were, or begin a new run without --resume and --ckpt_path."
        )


def compare(before: dict[str, Any], now: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the differences of two recipes, a line each: those that are honoured, and those that cannot be.

    What a checkpoint holds (weights, optimizers with their settings, experience, random states) decides the latter.
    """
    old, new = dict(flatten(before)), dict(flatten(now))
    honoured, refused = list[str](), list[str]()
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name) or re.fullmatch(IGNORED, name):
            continue
        line = f"{name}: {old.get(name)!r} before, {new.get(name)!r} now"
        is_fixed = any(re.fullmatch(pattern, name) for pattern in FIXED) and not re.fullmatch(HONOURED, name)
        (refused if is_fixed else honoured).append(line)
    return honoured, refused


def flatten(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of a recipe with their names, ``data.init_args.env``."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from flatten(value, f"{name}.{key}" if name else str(key))
    elif isinstance(tree, list) and tree and isinstance(tree[0], dict):
        for i, value in enumerate(tree):
            yield from flatten(value, f"{name}.{i}")
    else:
        yield name, tree
