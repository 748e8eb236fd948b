"""Rebuild what a checkpoint was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import yaml
from lightning.pytorch import LightningDataModule

from lit_awm.checkpoints import CONFIG_KEY
from lit_awm.checkpoints.files import DamagedFileError, unpack
from lit_awm.data import ExperienceDataModule, TrajectoryDataModule
from lit_awm.modules import AgentModule, AlternatingModule, PolicyModule
from lit_awm.recipes import make_cli
from lit_awm.usage import find_class

Module: TypeAlias = AlternatingModule | PolicyModule | AgentModule


class Run(NamedTuple):
    """A module with the weights of a checkpoint, the data that it was fitted on, and what both were made from."""

    module: Module
    data: ExperienceDataModule
    checkpoint: dict[str, Any]
    recipe: dict[str, Any]


def load_run(path: Path) -> Run:
    """Rebuild a run as :func:`rebuild` does, with the environment that its policy acts in.

    Raises:
        ValueError: As :func:`rebuild`; or if the policy was learned from recordings, which have no environment.
    """
    module, data, checkpoint, recipe = rebuild(path)
    if not isinstance(data, ExperienceDataModule):
        raise ValueError(
            "checkpoint must hold the environment of an ExperienceDataModule, got a "
            f"{recipe['data']['class_path'].rpartition('.')[2]}: what was learned from recordings can be exported, by "
            "`lit-awm export`."
        )
    return Run(module, data, checkpoint, recipe)


def rebuild(path: Path) -> tuple[Module, LightningDataModule | None, dict[str, Any], dict[str, Any]]:
    """Rebuild module and data by the recipe in a checkpoint, and load its weights.

    The file holds no code, but names classes and systems, whose modules are imported: load only what you trust.

    Returns:
        The module, the data, the checkpoint and the recipe. No recording is read: what stands for it knows sizes alone.

    Raises:
        ValueError: If there is no such file, or it holds no recipe of `lit-awm fit`, or no policy.
    """
    if not path.is_file():
        raise ValueError(f"checkpoint must be a file, got {str(path)!r}.")
    try:
        checkpoint = unpack(path)
    except DamagedFileError as error:
        raise ValueError(f"checkpoint must come from `lit-awm fit`; {error}.") from error
    try:
        config = yaml.safe_load(checkpoint[CONFIG_KEY])
        recipe = {key: config[key] for key in ("seed_everything", "model", "data")}
    except (KeyError, TypeError, IndexError, yaml.YAMLError) as error:
        raise ValueError(
            f"checkpoint must come from `lit-awm fit`, which stores its recipe; {path} has none."
        ) from error
    parts = recipe | {"trainer": {"logger": False, "accelerator": "cpu"}, "data": _data_of(recipe, checkpoint)}
    cli = make_cli(parts, run=False)
    if not isinstance(module := cli.model, Module):
        raise ValueError(f"checkpoint must hold a policy, got a {type(module).__name__}.")
    module.load_state_dict(checkpoint["state_dict"])
    return module, cli.datamodule, checkpoint, recipe


def _data_of(recipe: dict[str, Any], checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the data of a recipe without what collects and stores, or what stands for them if they are recorded.

    Recordings may be anywhere by now, and neither the folder of a replay buffer nor a cluster need be here.
    """
    data: dict[str, Any] = recipe["data"]
    if not issubclass(find_class(data["class_path"]), TrajectoryDataModule):
        here = {"storage_dir": None, "collector": "single", "num_collectors": 1}
        own = data.get("init_args") or {}
        return data | {"init_args": own | {name: value for name, value in here.items() if name in own}}
    sizes = {
        f"{kind}_dim": next(
            len(value) for name, value in checkpoint["state_dict"].items() if name.endswith(f"{kind}_scaler.mean")
        )
        for kind in ("state", "action")
    }
    options = {name: data["init_args"].get(name) for name in ("env", "env_options")}
    return {"class_path": "lit_awm.data.absent.AbsentRecording", "init_args": sizes | options}
