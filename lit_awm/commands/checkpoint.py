"""Rebuild what a checkpoint was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lit_awm.checkpoints import CONFIG_KEY
from lit_awm.checkpoints.files import DamagedFileError, unpack
from lit_awm.data import ExperienceDataModule
from lit_awm.modules import AgentModule, AlternatingModule, PolicyModule
from lit_awm.recipes import make_cli


class Run(NamedTuple):
    """A module with the weights of a checkpoint, the data that it was fitted on, and what both were made from."""

    module: AlternatingModule | PolicyModule | AgentModule
    data: ExperienceDataModule
    checkpoint: dict[str, Any]
    recipe: dict[str, Any]


def load_run(path: Path) -> Run:
    """Rebuild module and data by the recipe in a checkpoint, and load its weights.

    The file holds no code, but names classes and systems, whose modules are imported: load only what you trust.

    Raises:
        ValueError: If there is no such file, it holds no recipe of `lit-awm fit`, or no policy with the environment of
            an ``ExperienceDataModule``.
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
    cli = make_cli(recipe | {"trainer": {"logger": False, "accelerator": "cpu"}}, run=False)
    data, module = cli.datamodule, cli.model
    if not isinstance(data, ExperienceDataModule) or not isinstance(
        module, (AlternatingModule, PolicyModule, AgentModule)
    ):
        raise ValueError(
            "checkpoint must hold a policy and the environment of an ExperienceDataModule, got "
            f"{type(module).__name__} and {type(data).__name__}."
        )
    module.load_state_dict(checkpoint["state_dict"])
    return Run(module, data, checkpoint, recipe)
