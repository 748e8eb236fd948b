"""Build what a recipe describes: module, data and trainer."""

from __future__ import annotations

import contextlib
import gc
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.seed import max_seed_value
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.accelerators import MPSAccelerator
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from omegaconf.errors import OmegaConfBaseException

from lit_awm.checkpoints import (
    CONFIG_KEY,
    RECIPE,
    ResumableCSVLogger,
    check_new,
    check_recipe,
    go_on_with_last_run,
    run_folder,
)
from lit_awm.checkpoints.files import write_beside_log
from lit_awm.checkpoints.last_run import VERSIONS_KEY, forget_run
from lit_awm.checks import check_writable
from lit_awm.cli import COMMON, resolve_recipes
from lit_awm.data import ExperienceDataModule
from lit_awm.distributed import check_strategy
from lit_awm.modules import AgentModule, AlternatingModule, WorldModelModule
from lit_awm.usage import UsageParser, check_yaml, find_class

LOG_KEY = "lit_awm_log"
LINKED = ("state_dim", "action_dim", "known_reward_fn", "known_step_fn", "clock_step")  # what data tell models
ENTRY_POINTS = "lit_awm.models"  # in which other packages offer models, which then go by the names of their classes
NOT_MEANT = r"Expected an? |Import path .+ does not correspond to a subclass of "  # jsonargparse says of such a type
MODELS = "--model.world_model=lit_awm.models."
BACKBONE = "--model.world_model.backbone=lit_awm.models."
POSITIONS = "--model.world_model.backbone.max_horizon={length}"
NO_TEACHER = "--model.teacher=null"
HISTORY = [f"{MODELS}HistoryWorldModel", f"{BACKBONE}CausalTransformer", POSITIONS, "--model.guide_from=null"]
FAMILIES: dict[str, list[str]] = {  # what each one changes in a recipe, see ``options_of``
    "actions": [f"{MODELS}ActionsWorldModel"],
    "actions_gru": [f"{MODELS}ActionsWorldModel", f"{BACKBONE}RecurrentBackbone"],
    "actions_state_space": [f"{MODELS}ActionsWorldModel", f"{BACKBONE}StateSpaceBackbone"],
    "actions_attention": [f"{MODELS}ActionsWorldModel", f"{BACKBONE}AttentionBackbone", POSITIONS],
    "history": HISTORY,
    "history_cut": [*HISTORY, "--model.world_model.cut_paths=true"],
    "markov": [f"{MODELS}MarkovWorldModel", NO_TEACHER],  # which would be a model like it
    "simulator": [f"{MODELS}SimulatorWorldModel"],
}
UNTAUGHT = [NO_TEACHER, "--data.turns=1"]  # the common recipe as close to what was published as its options allow


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep garbage from being collected.

    The parser sets many context variables. Up to Python 3.11 all of them break if a finalizer sets one at that moment
    (https://github.com/python/cpython/issues/148891).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class SaveConfig(SaveConfigCallback):
    """Save the recipe beside the log, in the log, and in every checkpoint, with where the log stood."""

    has_begun = False
    _folder: Path | None = None
    _has_ended: str | None = None  # the update or the epoch of which nothing is written to the log yet

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._folder = run_folder(trainer)  # a collective call
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the recipe into the folder of the run, and hand it to the logger."""
        if trainer.logger is None or stage != "fit":
            return
        if self._folder is not None:
            write_beside_log(self._folder / RECIPE, self._dump().encode())
        trainer.logger.log_hyperparams({"config": self._dump()})

    def on_train_batch_start(self, *_: Any) -> None:
        self.has_begun, self._has_ended = True, None

    def on_train_batch_end(self, *_: Any) -> None:
        self._has_ended = "update"

    def on_train_epoch_end(self, *_: Any) -> None:
        self._has_ended = "epoch"

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self._dump()
        marks = [logger.mark() for logger in trainer.loggers if isinstance(logger, ResumableCSVLogger)]
        checkpoint[LOG_KEY] = {"rows": marks, "pending": self._pending(trainer)}
        checkpoint[VERSIONS_KEY] = [logger.version for logger in trainer.loggers]

    def _pending(self, trainer: Trainer) -> dict[str, float]:
        """Return the row that the trainer will write to the log as soon as the checkpoint is saved."""
        is_update = self._has_ended == "update" and trainer.training
        will_write: bool = trainer._logger_connector.should_update_logs if is_update else self._has_ended == "epoch"
        if not will_write or trainer._results is None:
            return {}
        metrics = trainer._results.metrics(on_step=is_update)["log"]
        if not metrics:
            return {}
        step = trainer.fit_loop.epoch_loop._batches_that_stepped - (not is_update)
        return {name: float(value) for name, value in metrics.items()} | {"epoch": trainer.current_epoch, "step": step}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        log = checkpoint.get(LOG_KEY, {"rows": [], "pending": {}})
        loggers = [logger for logger in trainer.loggers if isinstance(logger, ResumableCSVLogger)]
        for logger, count in zip(loggers, log["rows"], strict=False):
            logger.go_on_from(count, log["pending"])

    def _dump(self) -> str:
        """Return the recipe, without what it goes on from."""
        recipe = self.config.clone()
        forget_run(recipe)
        with _undisturbed():
            return self.parser.dump(recipe, skip_none=False, skip_validation=True)  # it was validated when it was read


class AwmCLI(LightningCLI):
    """Lightning's command line with the sizes of models linked to the data."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the methods of the trainer that are commands, and which of their arguments are not options."""
        shared = {"model", "dataloaders", "datamodule"}
        return {"fit": shared | {"train_dataloaders", "val_dataloaders"}, "validate": shared}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse a command line, and resolve what its recipes refer to."""
        words = sys.argv[1:] if args is None else args
        words = tuple(words) if isinstance(words, list) else ()
        for each in (parser, *getattr(self, "_subcommand_parsers", {}).values()):
            each.words = words
        try:
            for word in words:
                if word.startswith("--config="):
                    check_yaml(Path(word.removeprefix("--config=")))
            with _undisturbed():
                super().parse_arguments(parser, args)
        except (ValueError, OmegaConfBaseException) as error:
            parser.error(str(error))
        command = self.config.get("subcommand")
        seed = (self.config[command] if command else self.config).get("seed_everything")
        if not isinstance(seed, bool | None) and not 0 <= seed <= max_seed_value:
            parser.error(f"seed_everything must be between 0 and {max_seed_value}, got {seed}.")

    def _parse_ckpt_path(self) -> None:
        """Leave the options as given: what has changed since a checkpoint was made is told, not undone."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Let the data say what the models need to know of the environment."""
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.add_argument(
            "--resume",
            action=jsonargparse.ActionYesNo,
            default=False,
            help="go on with the newest run of this name, or begin one if there is none; the same as --ckpt_path last",
        )

    def before_instantiate_classes(self) -> None:
        """Find what to go on with, and load checkpoints without running code from them, unless asked to."""
        config = self.config if self.subcommand is None else self.config[self.subcommand]
        _choose_accelerator(config.trainer)
        if self.subcommand is None:
            return
        is_fit = self.subcommand == "fit"
        _leave_out(config.trainer)
        if config.weights_only is None:
            config.weights_only = True
        try:
            _check_trainer(config.trainer)
            if config.resume or config.ckpt_path == "last":
                go_on_with_last_run(config, self.subcommand)
            if not is_fit:
                if config.ckpt_path is None:
                    raise ValueError("validate must be given a checkpoint to score, by --ckpt_path, got none.")
                config.trainer.logger = False  # scores are printed
            if config.ckpt_path is None:
                check_new(config.trainer)
            else:
                dump = partial(self._parser("fit").dump, config, skip_none=False, skip_validation=True)
                with _undisturbed():
                    recipe = yaml.safe_load(dump()) if is_fit else None
                check_recipe(Path(config.ckpt_path), recipe)
        except ValueError as error:
            self.parser.error(str(error))

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; what they find wrong is an error of usage."""
        try:
            super().instantiate_classes()
            if isinstance(self.model, AlternatingModule | AgentModule):  # before processes are started
                check_strategy(self.trainer, type(self.model).__name__)
        except (ValueError, TypeError, ImportError, RuntimeError, MisconfigurationException) as error:
            self.parser.error(_first_cause(error))

    def _run_subcommand(self, subcommand: str) -> None:
        """Run a command; what is found wrong before the first update is an error of usage."""
        try:
            super()._run_subcommand(subcommand)
        except (ValueError, RuntimeError, MisconfigurationException) as error:
            if any(isinstance(each, SaveConfig) and each.has_begun for each in self.trainer.callbacks):  # type: ignore[attr-defined]
                raise
            self.parser.error(str(error))


def _check_trainer(trainer: Any) -> None:
    """Reject numbers that Lightning divides by, and folders that cannot be written to."""
    for name in ("check_val_every_n_epoch", "log_every_n_steps", "val_check_interval"):
        value = trainer[name]
        if isinstance(value, int | float) and not value > 0:
            raise ValueError(f"trainer.{name} must be above 0, or null, got {value}.")
    folder = getattr(getattr(trainer.logger, "init_args", None), "save_dir", None)
    if folder is not None:
        check_writable(Path(folder), "trainer.logger.save_dir")
    else:
        check_writable(Path(trainer.default_root_dir or "."), "trainer.default_root_dir")


def _leave_out(trainer: Any) -> None:
    """Leave out the callbacks of a recipe that an option of the trainer switches off."""
    switches = {"enable_progress_bar": ProgressBar, "enable_checkpointing": Checkpoint}
    off = tuple(kind for name, kind in switches.items() if trainer[name] is False)
    callbacks = trainer.callbacks if isinstance(trainer.callbacks, list) else []
    if off and callbacks:
        trainer.callbacks = [each for each in callbacks if not issubclass(find_class(each.class_path), off)]


def _choose_accelerator(trainer: Any) -> None:
    """Do not leave it to Lightning where it would take Apple's GPU, which has no double precision."""
    if trainer.accelerator == "auto" and MPSAccelerator.is_available():
        trainer.accelerator = "cpu"
        print("on the CPU: Apple's GPUs have no double precision", file=sys.stderr)  # noqa: T201


def _first_cause(error: BaseException) -> str:
    """Return what was wrong first; jsonargparse wraps it in a list of everything else that it tried."""
    while isinstance(cause := error.__cause__ or error.__context__, ValueError):
        if re.match(NOT_MEANT, str(cause)):  # the first of several types, of which another one was meant
            complaints = [each for each in re.findall(r"(?m)^\s*- (.+)$", str(error)) if not re.match(NOT_MEANT, each)]
            if complaints:
                return complaints[-1]
        error = cause
    return str(error)


def make_cli(arguments: dict[str, Any] | list[str] | None, run: bool) -> AwmCLI:
    """Parse arguments, or ``sys.argv``, and build model, data and trainer; run the subcommand if asked to."""
    _quieten()
    _load_offered()
    jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    return AwmCLI(
        LightningModule,
        LightningDataModule,
        args=arguments,
        run=run,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        parser_class=UsageParser,
        save_config_callback=SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        seed_everything_default=0,
        parser_kwargs={"parser_mode": "omegaconf+"},
    )


def _load_offered() -> None:
    """Import the models of other packages, so that recipes can name them; one that is broken is no reason to stop."""
    for offered in entry_points(group=ENTRY_POINTS):
        try:
            offered.load()
        except Exception as error:  # whatever goes wrong when somebody else's package is imported
            warnings.warn(f"The model {offered.name} ({offered.value}) cannot be loaded: {error!r}.", stacklevel=2)


def _quieten() -> None:
    logging.getLogger("torchrl").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*intended to run from within Python.*")
    warnings.filterwarnings("ignore", message=".*pre-optimization state.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero.*")  # nothing to validate
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_tip)


def _is_no_tip(record: logging.LogRecord) -> bool:
    return "Tip: For seamless cloud" not in record.getMessage()


def options_of(family: str, length: int) -> list[str]:
    """Return the options that put one of ``FAMILIES`` into a recipe with episodes of ``length`` steps."""
    return [word.format(length=length) for word in FAMILIES[family]]


def build(arguments: list[str]) -> tuple[AlternatingModule, ExperienceDataModule]:
    """Build the module and the data of a recipe, the common one by default.

    Args:
        arguments: As for ``lit-awm fit``.

    Raises:
        ValueError: If the recipe does not alternate between experience, world model and policy.
    """
    if not any(word.startswith(("--config", "-c")) for word in arguments):
        arguments = [f"--config={COMMON}", *arguments]
    options = ["--trainer.logger=false", "--trainer.accelerator=cpu"]
    cli = make_cli([*resolve_recipes(arguments), *options], run=False)
    module, data = cli.model, cli.datamodule
    if not isinstance(data, ExperienceDataModule) or not isinstance(module, AlternatingModule):
        raise ValueError(
            "the recipe must have an AlternatingModule and an ExperienceDataModule, got "
            f"{type(module).__name__} and {type(data).__name__}."
        )
    return module, data


def fit(
    module: AlternatingModule | WorldModelModule,
    data: ExperienceDataModule,
    max_epochs: int = 1,
    gradient_clip_val: float | None = None,
    progress: bool = False,
) -> Trainer:
    """Fit on the CPU, writing nothing, and return the trainer.

    The experience depends on the seed of ``data`` alone, not on what was drawn to make the module: all families meet
    the same random episodes.
    """
    torch.manual_seed(data.seed)
    trainer = Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        gradient_clip_val=gradient_clip_val,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=progress,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data)
    return trainer
