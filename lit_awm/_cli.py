"""The commands that need torch and Lightning; ``lit_awm.cli`` calls them."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from lit_awm.analysis import solve
from lit_awm.data import EVALUATION_SEED, SCORES, ExperienceDataModule, evaluate
from lit_awm.envs import SYSTEMS, load_optimum
from lit_awm.envs.factory import WHAT_IS_SEEN, describe_options, make_system

CONFIG_KEY = "lit_awm_config"
NOT_FOR_ORACLE = ("num_envs", "device", "dtype", "initial_spread", *WHAT_IS_SEEN)


class SaveConfig(SaveConfigCallback):
    """Save the recipe beside the log, in the log, and in every checkpoint, so that a checkpoint explains itself."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.logger is not None:
            trainer.logger.log_hyperparams({"config": self._dump()})

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self._dump()

    def _dump(self) -> str:
        return self.parser.dump(self.config, skip_none=False)


class AwmCLI(LightningCLI):
    """Lightning's command line with the sizes of models linked to the data."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the methods of the trainer that are commands, and which of their arguments are not options."""
        shared = {"model", "dataloaders", "datamodule"}
        return {"fit": shared | {"train_dataloaders", "val_dataloaders"}, "validate": shared}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name in ("state_dim", "action_dim", "known_reward_fn", "known_step_fn", "clock_step"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        if self.subcommand is not None and self.config[self.subcommand].weights_only is None:
            self.config[self.subcommand].weights_only = True  # never run code from a checkpoint unless asked to

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; what they find wrong is an error of usage."""
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            self.parser.error(str(_first_cause(error)))


def _first_cause(error: BaseException) -> BaseException:
    """Return the error that was raised first; jsonargparse wraps it in a list of everything else that it tried."""
    while isinstance(cause := error.__cause__ or error.__context__, ValueError):
        error = cause
    return error


def _make_cli(arguments: dict[str, Any] | None, run: bool) -> AwmCLI:
    _quieten()
    jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    return AwmCLI(
        LightningModule,
        LightningDataModule,
        args=arguments,
        run=run,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        save_config_callback=SaveConfig,
        save_config_kwargs={"overwrite": True, "config_filename": "lit_awm_config.yaml"},
        seed_everything_default=0,
        parser_kwargs={"parser_mode": "omegaconf+"},
    )


def _quieten() -> None:
    logging.getLogger("torchrl").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*intended to run from within Python.*")
    warnings.filterwarnings("ignore", message=".*pre-optimization state.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")


def run_trainer(arguments: list[str]) -> int:
    """Run ``fit`` or ``validate``."""
    sys.argv[1:] = arguments  # which is what LightningCLI parses
    _make_cli(None, run=True)
    return 0


def evaluate_checkpoint(arguments: list[str]) -> int:
    """Score a checkpoint in the environment that its recipe names."""
    parser = argparse.ArgumentParser(prog="lit-awm evaluate", description=evaluate_checkpoint.__doc__)
    parser.add_argument("checkpoint", type=Path, help="file written by `lit-awm fit`")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    if not options.checkpoint.is_file():
        parser.error(f"checkpoint must be a file, got {str(options.checkpoint)!r}.")
    checkpoint = torch.load(options.checkpoint, weights_only=True, map_location="cpu")
    if CONFIG_KEY not in checkpoint:
        parser.error(
            f"checkpoint must come from `lit-awm fit`, which stores its recipe; {options.checkpoint} has none."
        )
    config = yaml.safe_load(checkpoint[CONFIG_KEY])
    recipe = {key: config[key] for key in ("seed_everything", "model", "data")}
    cli = _make_cli(recipe | {"trainer": {"logger": False, "accelerator": "cpu"}}, run=False)
    data, module = cli.datamodule, cli.model
    if not isinstance(data, ExperienceDataModule) or not hasattr(module, "behaviour_policy"):
        parser.error(
            "checkpoint must hold a policy and the environment of an ExperienceDataModule, got "
            f"{type(module).__name__} and {type(data).__name__}."
        )
    module.load_state_dict(checkpoint["state_dict"])
    begin = time.perf_counter()
    scores = evaluate(data.eval_env, module.behaviour_policy, data.optimum, EVALUATION_SEED)
    result = {
        "env": data.env.name,
        **{score: scores[score].mean().item() if score in scores.keys() else None for score in SCORES},
        "optimum": None if data.optimum is None else data.optimum.cost,
        "env_steps": checkpoint.get(type(data).__qualname__, {}).get("env_steps"),
        "seed": config["seed_everything"],
        "training_time_s": checkpoint["callbacks"].get("Throughput", {}).get("elapsed_s"),
        "wall_time_s": time.perf_counter() - begin,
    }
    _print_result(result, options.json)
    return 0


def list_envs(arguments: list[str]) -> int:
    """List the environments with their sizes and what is known about their optimum."""
    parser = argparse.ArgumentParser(
        prog="lit-awm envs",
        description=list_envs.__doc__,
        epilog="Tasks of other packages go by gym/NAME and dmc/DOMAIN-TASK, for example gym/Pendulum-v1.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    rows = {}
    for name in sorted(SYSTEMS):
        env, optimum = SYSTEMS[name](), load_optimum(name)
        rows[name] = {
            "states": len(env.state_names),
            "controls": len(env.control_names),
            "steps": env.episode_length,
            "duration": env.duration,
            "optimal_cost": None if optimum is None else optimum.cost,
            "constant_cost": None if optimum is None else optimum.constant_cost,
            "random_cost": None if optimum is None else optimum.random_cost,
        }
    if options.json:
        print(json.dumps(rows))  # noqa: T201
        return 0
    columns = list(next(iter(rows.values())))
    print(f"{'environment':<25}" + "".join(f"{column:>14}" for column in columns))  # noqa: T201
    for name, row in rows.items():
        cells = ("-" if value is None else f"{value:.6g}" for value in row.values())
        print(f"{name:<25}" + "".join(f"{cell:>14}" for cell in cells))  # noqa: T201
    print(f"\n{parser.epilog}")  # noqa: T201
    return 0


def find_optimum(arguments: list[str]) -> int:
    """Find the best controls of an environment by shooting through its dynamics, and print what they cost."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else "SYSTEM"
    parser = jsonargparse.ArgumentParser(prog=f"lit-awm oracle {name}", description=find_optimum.__doc__)
    parser.add_argument("--starts", type=int, default=6, help="Number of controls from which descent starts.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the random starts.")
    exact_help = "Meet the target state exactly, instead of paying for missing it."
    parser.add_argument("--exact_target", action="store_true", help=exact_help)
    grid_help = "Start from the solution on a grid of states too, if there are at most two of them and one control."
    parser.add_argument("--grid", action="store_true", help=grid_help)
    parser.add_argument("--json", action="store_true", help="Print one JSON object, with the controls.")
    if name == "SYSTEM" and arguments and arguments[0] not in ("-h", "--help"):
        parser.error("SYSTEM comes first, as in `lit-awm oracle harvest --starts 3`.")
    if name == "SYSTEM":
        parser.epilog = f"SYSTEM is one of: {', '.join(sorted(SYSTEMS))}. Each has options of its own."
        parser.print_help()
        return 0 if arguments else 2
    if "/" in name:
        parser.error(f"SYSTEM must be a system of the testbed, whose dynamics are known, got {name!r}.")
    try:
        options_of_system = describe_options(name)
    except ValueError as error:
        parser.error(str(error))
    group = parser.add_argument_group(f"options of {name}")
    for option, (kind, default, text) in options_of_system.items():
        if option not in NOT_FOR_ORACLE:
            group.add_argument(f"--{option}", type=kind, default=default, help=text)
    options = parser.parse_args([_with_underscores(word) for word in arguments[1:]]).as_dict()
    search = {key: options.pop(key) for key in ("starts", "seed", "exact_target", "grid")}
    as_json = options.pop("json")
    try:
        given = {key: value for key, value in options.items() if value != options_of_system[key].default}
        env = make_system(name, **given)
        solution = solve(env, **search, progress=not as_json)
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))
    result = {"env": name, "cost": solution.cost, "steps": env.episode_length, "time_s": round(solution.time_s, 3)}
    if as_json:
        more = {"costs": solution.costs, "violation": solution.violation, "controls": solution.controls.tolist()}
        print(json.dumps(result | more))  # noqa: T201
        return 0
    spread = f"{solution.costs[0]:.10g} to {solution.costs[-1]:.10g}, {len(solution.costs)} starts"
    _print_result(result | {"cost": f"{solution.cost:.10g}", "spread": spread}, as_json=False)
    return 0


def _with_underscores(word: str) -> str:
    """Let options be written with dashes too."""
    flag, equals, value = word.partition("=")
    return f"--{flag[2:].replace('-', '_')}{equals}{value}" if flag.startswith("--") else word


def _print_result(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))  # noqa: T201
        return
    for name, value in result.items():
        shown = "-" if value is None else f"{value:.3%}" if name in ("regret", "gap") else value
        print(f"{name:<18}{shown}", file=sys.stdout)  # noqa: T201
