"""The command line, as a user types it."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

from lit_awm.analysis.shooting import Shooting
from lit_awm.checkpoints import ResumableCSVLogger
from lit_awm.cli import BASES, main, recipes, resolve_recipes
from lit_awm.envs import SYSTEMS, load_optimum
from lit_awm.recipes import CONFIG_KEY, FAMILIES, build, fit, options_of

pytestmark = pytest.mark.program

SMALL = [
    *("--trainer.max_epochs", "2"),
    *("--data.episode_length", "50"),
    *("--data.num_envs", "1"),
    *("--data.warmup_episodes", "2"),
    *("--data.teacher_updates", "3"),
    *("--data.world_model_updates", "3"),
    *("--data.policy_updates", "2"),
]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lit-awm"])


def run(*arguments: str) -> int:
    return main(list(arguments))


def printed_config(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as stop:
        run("fit", *arguments, "--print_config")
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert not list(Path.cwd().rglob("*.ckpt"))
    return capsys.readouterr().err


def is_common(recipe: str) -> bool:
    """Tell whether a recipe is the common one but for its environment."""
    given = yaml.safe_load(recipes()[recipe].read_text(encoding="utf-8"))
    return given == {"data": {"init_args": {"env": recipe}}}


RECIPES = [name for name in recipes() if name != "common"]


def test_most_recipes_are_the_common_one() -> None:
    assert sum(map(is_common, RECIPES)) == 14


@pytest.mark.parametrize("recipe", ["bacteria", *(name for name in RECIPES if not is_common(name))])
def test_every_recipe_runs_a_step_of_each_phase(recipe: str) -> None:
    options = list[str]()
    if recipe == "cartpole_swingup":
        pytest.importorskip("dm_control")  # not to be had for Python 3.13
    if recipe.startswith("offline"):
        assert run("collect", "--config", "bioreactor", "--episodes", "3", "--out", "recording.npz") == 0
        options = ["--data.path", "recording.npz"]
    assert run("fit", "--config", recipe, *options, "--trainer.fast_dev_run", "3") == 0


def test_a_recipe_runs_in_half_precision() -> None:
    options = ["--trainer.precision", "bf16-mixed", "--trainer.accelerator", "cpu", "--trainer.fast_dev_run", "6"]
    assert run("fit", "--config", "bioreactor", "--data.turns", "1", *options) == 0


def test_a_dry_run_leaves_no_file() -> None:
    assert run("fit", "--config", "bioreactor", "--trainer.fast_dev_run", "2") == 0
    assert not list(Path.cwd().iterdir())


def test_families_of_policies_are_swapped_by_one_option() -> None:
    options = ["--model.policy", "lit_awm.models.TanhNormalPolicy", "--model.policy_module.imagination", "replay"]
    assert run("fit", "--config", "bioreactor", *options, "--trainer.fast_dev_run", "2") == 0


@pytest.mark.parametrize(
    "family",
    [
        ["ActionsWorldModel", "--model.world_model.backbone", "lit_awm.models.RecurrentBackbone"],
        ["ActionsWorldModel", "--model.world_model.backbone", "lit_awm.models.StateSpaceBackbone"],
        ["ActionsWorldModel", "--model.world_model.backbone", "lit_awm.models.AttentionBackbone"],
        ["HistoryWorldModel"],
        ["HistoryWorldModel", "--model.world_model.cut_paths", "true"],
        ["MarkovWorldModel"],
        ["MarkovWorldModel", "--model.world_model.num_members", "2"],
        ["SimulatorWorldModel"],
    ],
    ids=lambda family: family[-1].removeprefix("lit_awm.models."),
)
def test_families_of_world_models_are_swapped_by_one_option(family: list[str]) -> None:
    options = ["--model.world_model", f"lit_awm.models.{family[0]}", *family[1:]]
    assert run("fit", "--config", "bioreactor", *options, "--trainer.fast_dev_run", "2") == 0


def test_a_method_that_cannot_serve_a_family_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.world_model", "lit_awm.models.HistoryWorldModel", "--model.policy_module.imagination", "replay"]
    assert "got HistoryWorldModel. Use 'sequential'" in error_of(capsys, "fit", "--config", "bioreactor", *options)


def test_short_imagination_with_a_value_bootstrap_runs_from_the_command_line() -> None:
    options = ["--model.policy_module.bootstrap", "lit_awm.modules.ValueBootstrap", "--data.imagine_from", "anywhere"]
    lengths = ["--data.slice_length", "20", "--model.policy_module.imagination_horizon", "10"]
    assert run("fit", "--config", "bioreactor", *options, *lengths, "--trainer.fast_dev_run", "2") == 0


def test_a_world_model_fits_alone_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", "lit_awm.modules.WorldModelModule", "--model.world_model", "lit_awm.models.ActionsWorldModel"]
    sizes = ["--model.world_model.state_dim", "2", "--model.world_model.action_dim", "1"]
    data = ["--data", "lit_awm.data.ExperienceDataModule", "--data.world_model_updates", "2"]
    assert run("fit", *model, *sizes, *data, "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu") == 0


def test_every_recipe_is_named_by_its_system_or_names_none() -> None:
    for name, path in recipes().items():
        env = yaml.safe_load(path.read_text())["data"]["init_args"].get("env")
        if name in BASES:
            assert env.lower().replace("-", "_").partition("/")[2].startswith(name.partition("_")[0])
        else:
            assert env in ((name, "cancer_treatment") if name in (*SYSTEMS, "common") else (None, "gym/Pendulum-v1"))


def test_an_agent_without_a_world_model_is_scored_and_not_exported(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--data.episode_length", "10", "--data.warmup_episodes", "2", "--data.agent_updates", "3"]
    options = ["--data.env", "bioreactor", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"]
    assert run("fit", "--config", "sac", *options, *sizes) == 0
    checkpoint = "runs/bioreactor/version_0/checkpoints/last.ckpt"
    capsys.readouterr()
    assert run("evaluate", checkpoint, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    with Path("runs/bioreactor/version_0/metrics.csv").open(newline="") as file:
        (*_, logged) = (row["eval/cost"] for row in csv.DictReader(file) if row["eval/cost"])
    assert scores["cost"] == pytest.approx(float(logged), rel=1e-6)
    with pytest.raises(SystemExit):
        run("export", checkpoint)
    assert "must hold a policy with its world model, got SACModule" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["bacteria"],
        ["cartpole"],
        ["credit_assignment", "--data.env_options.noise", "0.3"],
        ["double_pendulum", "--data.env_options.dt", "0.01"],
        ["harvest", "--data.env_options.distractors", "2"],
        ["glucose", "--data.env_options.observation_noise", "0.01"],
        ["invasive_plant", "--data.episode_length", "10"],
        ["one_bounce"],
        ["rocket_landing", "--data.env_options.integrator", "heun"],
    ],
    ids=lambda options: options[0],
)
def test_the_common_recipe_runs_in_any_system(options: list[str]) -> None:
    assert run("fit", "--config", "common", "--data.env", *options, "--trainer.fast_dev_run", "2") == 0


@pytest.mark.skipif(importlib.util.find_spec("gymnasium") is None, reason="needs the extra gym")
def test_a_run_in_a_task_of_another_package_draws_its_states_by_number() -> None:
    options = ["--data.env", "gym/Pendulum-v1", "--model.known_reward", "false", *SMALL]
    assert run("fit", "--config", "common", *options) == 0
    assert list(Path.cwd().rglob("last.ckpt"))
    assert list(Path.cwd().rglob("trajectory.png"))


def test_a_run_leaves_checkpoint_log_figure_and_recipe_and_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "--config", "cancer_treatment", *SMALL, "--trainer.log_every_n_steps", "1") == 0
    folder = Path("runs/cancer_treatment/version_0")
    files = [
        folder / name for name in ("checkpoints/last.ckpt", "metrics.csv", "trajectory.png", "lit_awm_config.yaml")
    ]
    assert all(path.is_file() for path in files)
    out = capsys.readouterr().out
    assert all(str(path) in out for path in files[:3])
    assert "cost " in out
    assert "world model" in out
    header = files[1].read_text().splitlines()[0].split(",")
    names = {"world_model/loss", "world_model/grad_norm", "policy/return", "policy/grad_norm", "eval/return"}
    names |= {"env_steps", "model_updates", "policy_updates", "time/env_steps_per_s"}
    assert names <= set(header)
    told = set(re.findall(r"`([\w./]+)`", (Path(__file__).parents[1] / "docs" / "concepts.md").read_text("utf-8")))
    for name in {*header} - {"epoch"}:
        assert told & {name, f".../{name.partition('/')[2]}", f"PHASE/{name.partition('/')[2]}"}, name


def test_a_checkpoint_is_scored_by_its_own_recipe_as_validation_scored_it(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", "bioreactor", *SMALL, "--data.episode_length", "100"]
    assert run("fit", *options, "--seed_everything", "3") == 0
    checkpoint = "runs/bioreactor/version_0/checkpoints/last.ckpt"
    rows = Path("runs/bioreactor/version_0/metrics.csv").read_text().splitlines()
    capsys.readouterr()
    assert run("evaluate", checkpoint, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["env"] == "bioreactor"
    assert result["seed"] == 3
    assert result["env_steps"] == (2 + 1 + 2) * 100  # random episodes, a noisy one, trials
    assert result["gap"] is None
    assert result["optimum"] == pytest.approx(-1.386294, rel=1e-6)
    assert result["regret"] == pytest.approx(load_optimum("bioreactor").regret(result["cost"]))
    logged = [dict(zip(rows[0].split(","), row.split(","), strict=True))["eval/cost"] for row in rows[1:]]
    assert result["cost"] == pytest.approx(float([cost for cost in logged if cost][-1]), rel=1e-6)
    assert run("evaluate", checkpoint) == 0
    assert "regret" in capsys.readouterr().out
    assert run("validate", *options, "--ckpt_path", checkpoint) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "eval/cost" in line)
    assert float(row.strip("│┃ ").split()[-1]) == pytest.approx(result["cost"], rel=1e-5)
    assert not [path for path in Path().iterdir() if path.is_file()]  # scores are printed alone


def test_a_run_resumes_from_its_checkpoint_under_the_options_that_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", "bear_populations", *SMALL]
    assert run("fit", *options) == 0
    checkpoint = "runs/bear_populations/version_0/checkpoints/last.ckpt"
    assert run("fit", *options, "--trainer.max_epochs", "3", "--ckpt_path", checkpoint) == 0
    again = torch.load("runs/bear_populations/version_1/checkpoints/last.ckpt", weights_only=True)
    assert again["epoch"] == 2
    assert again["ExperienceDataModule"]["env_steps"] == (2 + 2 + 3) * 50
    config = yaml.safe_load(again[CONFIG_KEY])
    assert config["trainer"]["max_epochs"] == 3


def test_the_same_command_with_resume_begins_a_run_and_goes_on_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", "bear_populations", *SMALL, "--resume"]
    assert run("fit", *options) == 0
    assert "nothing to resume in runs/bear_populations: a new run begins" in capsys.readouterr().out
    folder = Path("runs/bear_populations/version_0")
    before = (folder / "metrics.csv").read_text()
    assert "policy/trial_return" in before  # though there were fewer updates than log_every_n_steps
    assert run("fit", *options) == 0  # it had ended
    out = capsys.readouterr().out
    assert f"resuming {folder}/checkpoints/last.ckpt" in out
    assert "the run has ended, after 2 epochs; raise --trainer.max_epochs to go on" in out
    assert (folder / "metrics.csv").read_text() == before
    assert run("fit", *options, "--trainer.max_epochs", "3") == 0
    out = capsys.readouterr().out
    assert "nothing to do" not in out
    assert "changed since the checkpoint was made:\n  trainer.max_epochs: 2 before, 3 now" in out
    assert not (folder.parent / "version_1").exists()
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[: len(before.splitlines())]] == [
        row.split(",")[:2] for row in before.splitlines()
    ]
    assert len(rows) > len(before.splitlines())


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", "bear_populations", *SMALL, "--ckpt_path", "last", "--trainer.max_epochs", "2"]
    assert run("fit", *options) == 0
    last = Path("runs/bear_populations/version_0/checkpoints/last.ckpt")
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="last.ckpt is cut short or damaged .*; going on from the checkpoint before"):
        assert run("fit", *options) == 0
    assert torch.load(last, weights_only=True)["epoch"] == 1
    assert last.with_name("last-damaged.ckpt").stat().st_size == 1000
    for name in ("last.ckpt", "last-previous.ckpt"):
        last.with_name(name).write_bytes(b"")
    with pytest.raises(SystemExit):
        run("fit", *options)
    assert re.search("no checkpoint can be read: .*last.ckpt.*; .*last-previous.ckpt", capsys.readouterr().err)


def test_what_a_checkpoint_has_decided_must_not_change(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--config", "bear_populations", *SMALL, "--resume"]
    assert run("fit", *given) == 0
    for option, value, words in (
        ("--seed_everything", "5", "data.init_args.seed: 0 before, 5 now; .*seed_everything: 0 before, 5 now"),
        ("--data.num_envs", "2", "data.init_args.num_envs: 1 before, 2 now"),
        ("--model.known_reward", "false", "model.init_args.known_reward: True before, False now"),
        ("--model.policy_module.bootstrap", "ValueBootstrap", "policy_module.*bootstrap.*: .* before, .* now"),
        ("--model.teacher", "null", "model.init_args.teacher.*: .* before"),
        ("--model.policy.hidden_dim", "9", "model.init_args.policy.*hidden_dim: .* before, 9 now"),
        ("--model.policy_module.optimizer.lr", "0.5", "optimizer.*lr: .* before, 0.5 now"),
        ("--ckpt_path", "other.ckpt", "ckpt_path must be left out with --resume, got 'other.ckpt'"),
        ("--trainer.logger", "false", "--resume needs a logger with save_dir and name"),
    ):
        with pytest.raises(SystemExit) as raised:
            run("fit", *given, option, value)
        assert raised.value.code == 2
        assert re.search(words, capsys.readouterr().err)


def test_the_last_run_cannot_be_scored_before_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        run("validate", "--config", "bear_populations", *SMALL, "--ckpt_path", "last")
    assert raised.value.code == 2
    assert "must mean a run with a checkpoint, got none in runs/bear_populations" in capsys.readouterr().err


def test_apples_gpus_are_left_alone_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lightning.pytorch.accelerators.MPSAccelerator.is_available", lambda: True)
    assert run("fit", "--config", "bear_populations", *SMALL, "--trainer.accelerator", "auto") == 0
    assert "on the CPU: Apple's GPUs have no double precision" in capsys.readouterr().err


def test_a_run_is_gone_on_with_whatever_other_folders_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", "bear_populations", *SMALL]
    assert run("fit", *options, "--trainer.max_epochs", "1") == 0
    assert run("validate", *options, "--ckpt_path", "last") == 0
    Path("runs/bear_populations/version_7/checkpoints").mkdir(parents=True)
    Path("runs/bear_populations/version_7/checkpoints/exception.ckpt").touch()
    assert run("fit", *options, "--resume") == 0
    out = capsys.readouterr().out
    assert "scoring runs/bear_populations/version_0/checkpoints/last.ckpt" in out
    assert "resuming runs/bear_populations/version_0/checkpoints/last.ckpt" in out
    assert {path.name for path in Path("runs/bear_populations").iterdir()} == {"version_0", "version_7"}


def test_a_new_run_takes_the_place_of_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["fit", "--config", "bear_populations", *SMALL, "--trainer.logger.version", "3"]
    assert run(*options) == 0
    with pytest.raises(SystemExit):
        run(*options)
    assert "trainer.logger.version must be that of a new run, got 3: " in capsys.readouterr().err
    log = Path("runs/bear_populations/version_3/metrics.csv")
    before = log.read_bytes()
    logger = "{class_path: CSVLogger, init_args: {save_dir: runs, name: bear_populations, version: 3}}"
    for others in (["--trainer.logger", f"[{logger}]"], ["--trainer.enable_checkpointing", "false"]):
        assert "trainer.logger.version must be that of a new run, got 3: " in error_of_run(capsys, *options, *others)
    assert log.read_bytes() == before
    assert run("fit", *options[1:-2], "--trainer.logger", "false") == 0
    error = error_of_run(capsys, *options[:-2], "--trainer.logger", "false")
    assert "trainer.default_root_dir must be a folder without checkpoints if there is no logger" in error


def error_of_run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit):
        run(*arguments)
    return capsys.readouterr().err


def test_a_run_of_a_version_is_gone_on_with_and_its_recipe_begins_another(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["fit", "--config", "bear_populations", *SMALL, "--trainer.max_epochs", "1"]
    folder = Path("runs/bear_populations/version_0")
    for _ in range(2):  # the newest is version_1
        assert run(*options) == 0
    recipe = ["fit", "--config", str(folder / "lit_awm_config.yaml"), "--trainer.max_epochs", "2"]
    assert run(*recipe, "--resume", "--trainer.logger.version", "0") == 0
    assert "resuming runs/bear_populations/version_0/checkpoints/last.ckpt" in capsys.readouterr().out
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 1
    assert yaml.safe_load((folder / "lit_awm_config.yaml").read_text())["ckpt_path"] is None
    assert run(*recipe, "--trainer.max_epochs", "1") == 0
    assert folder.with_name("version_2").is_dir()


def test_two_processes_do_not_write_to_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["fit", "--config", "bear_populations", *SMALL, "--resume"]
    assert run(*options) == 0
    before = Path("runs/bear_populations/version_0/checkpoints/last.ckpt").read_bytes()
    other = ResumableCSVLogger("runs", "bear_populations", version=0)
    assert other.experiment is not None
    with pytest.raises(SystemExit):
        run(*options, "--trainer.max_epochs", "3")
    assert "version_0 is being written to by another run" in capsys.readouterr().err
    assert Path("runs/bear_populations/version_0/checkpoints/last.ckpt").read_bytes() == before
    other.finalize("success")
    assert run(*options, "--trainer.max_epochs", "3") == 0


def test_only_a_fit_can_be_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("validate", "--config", "bear_populations", *SMALL, "--resume")
    assert "--resume is for fit, got validate. Give a checkpoint by --ckpt_path" in capsys.readouterr().err


def test_overrides_reach_what_refers_to_them(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", "cancer_treatment", "--data.episode_length", "40", "--seed_everything", "7"]
    assert printed_config(capsys, *options)["data"]["init_args"]["episode_length"] == 40
    module, data = build(list(options))
    assert module.policy.imagination_horizon == 40
    assert module.policy.world_model.max_horizon == 40
    assert module.world_model.world_model.clock_step == pytest.approx(0.05)
    assert data.seed == 7


SWAPS = {
    "actions": ("ActionsWorldModel", "CausalTransformer", False),
    "actions_gru": ("ActionsWorldModel", "RecurrentBackbone", False),
    "actions_state_space": ("ActionsWorldModel", "StateSpaceBackbone", False),
    "actions_attention": ("ActionsWorldModel", "AttentionBackbone", False),
    "history": ("HistoryWorldModel", "CausalTransformer", False),
    "history_cut": ("HistoryWorldModel", "CausalTransformer", True),
    "markov": ("MarkovWorldModel", None, False),
    "simulator": ("SimulatorWorldModel", None, False),
}


def test_all_families_meet_the_same_random_episodes() -> None:
    seen = []
    for family in ("actions", "markov"):
        module, data = build(["--data.world_model_updates=1", "--data.episode_length=20", *options_of(family, 20)])
        fit(module.world_model, data)
        seen.append(data.buffer[:]["action"])
    assert torch.equal(*seen)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_swapped_by_options_for_any_length(family: str) -> None:
    module, data = build(["--data.episode_length=150", *options_of(family, 150)])
    model = module.world_model.world_model
    class_name, backbone, is_cut = SWAPS[family]
    assert type(model).__name__ == class_name
    assert (type(model.backbone).__name__ if hasattr(model, "backbone") else None) == backbone
    assert getattr(model, "cut_paths", False) is is_cut
    assert model.max_horizon is None or model.max_horizon == 150
    assert data.env.episode_length == 150


def test_later_configs_win_over_earlier_ones(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("data: {init_args: {num_envs: 2}}\ntrainer: {max_epochs: 3}\n")
    config = printed_config(capsys, "--config", "hiv_treatment", "--config", "mine.yaml", "--trainer.max_epochs", "4")
    assert config["data"]["init_args"]["env"] == "hiv_treatment"
    assert config["data"]["init_args"]["num_envs"] == 2
    assert config["trainer"]["max_epochs"] == 4


def test_the_common_recipe_comes_once_before_the_first_named_one() -> None:
    files = recipes()
    resolved = resolve_recipes(["fit", "--config", "hiv_treatment", "--config=bioreactor", "--seed_everything", "1"])
    expected = [f"--config={files[name]}" for name in ("common", "hiv_treatment", "bioreactor")]
    assert resolved == ["fit", *expected, "--seed_everything", "1"]


def test_a_recipe_comes_after_what_it_builds_on() -> None:
    files = recipes()
    expected = [f"--config={files[name]}" for name in ("common", "gym", "reacher")]
    assert resolve_recipes(["--config", "reacher"]) == expected
    assert resolve_recipes(["--config", "gym", "--config", "reacher"]) == expected


def test_a_file_goes_before_a_recipe_of_the_same_name() -> None:
    Path("bioreactor").write_text("{}")
    assert resolve_recipes(["--config", "bioreactor"]) == ["--config=bioreactor"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_recipe_runs_on_a_gpu() -> None:
    assert run("fit", "--config", "cancer_treatment", *SMALL, "--trainer.accelerator", "gpu") == 0
    checkpoint = torch.load("runs/cancer_treatment/version_0/checkpoints/last.ckpt", weights_only=True)
    assert next(iter(checkpoint["state_dict"].values())).is_cuda


def test_wandb_without_a_network_has_metrics_recipe_figures_film_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.finish()  # a run of another test in this process
    options = ["--trainer.logger", "WandbLogger", "--trainer.logger.save_dir", "logs"]
    options += ["--trainer.logger.log_model", "true", "--trainer.log_every_n_steps", "1"]
    options += ["--trainer.callbacks+=PolicyVideo", "--trainer.callbacks.frames", "3"]
    assert run("fit", "--config", "bear_populations", *SMALL, *options) == 0
    wandb.finish()
    wandb.teardown()  # `finish` can return before the last records are in the file
    (session,) = Path("logs/wandb").glob("offline-run-*")
    assert list((session / "files" / "media" / "images").glob("trajectory_*.png"))
    assert list((session / "files" / "media" / "videos").glob("policy_*.gif"))
    records = list(wandb_records(session))
    keys = {item.nested_key[0] for each in records for item in each.history.item}
    assert {"eval/cost", "policy/return", "world_model/loss", "env_steps", "trajectory", "policy"} <= keys
    configured = {item.key: item.value_json for each in records for item in each.config.update}
    configured |= {item.key: item.value_json for each in records for item in each.run.config.update}
    assert "bear_populations" in configured["config"]
    assert any(each.artifact.type == "model" for each in records)


def wandb_records(session: Path) -> Iterator[Record]:
    """Return what a run without network has written down to be sent later: protocol buffers in LevelDB's log format."""
    data, position, parts = next(session.glob("*.wandb")).read_bytes(), 7, b""  # after the file's own header
    while position + 7 <= len(data):
        if 2**15 - position % 2**15 < 7:  # the end of a block, too short for a header
            position += 2**15 - position % 2**15
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def test_tensorboard_takes_one_line_and_shows_figures() -> None:
    options = ["--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "logs"]
    assert run("fit", "--config", "bear_populations", *SMALL, *options) == 0
    (file,) = Path("logs").rglob("events.out.tfevents*")
    events = EventAccumulator(str(file)).Reload()
    assert "trajectory" in events.Tags()["images"]
    assert "eval/cost" in events.Tags()["scalars"]


def test_progress_and_checkpoints_can_be_switched_off(capfd: pytest.CaptureFixture[str]) -> None:
    switches = ["--trainer.enable_progress_bar", "false", "--trainer.enable_checkpointing", "false"]
    assert run("fit", "--config", "bear_populations", *SMALL, *switches) == 0
    assert "iteration" not in capfd.readouterr().err
    assert not list(Path.cwd().rglob("*.ckpt"))


def test_envs_lists_every_system(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("envs", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert set(rows) == set(SYSTEMS)
    assert rows["hiv_treatment"]["states"] == 3
    assert run("envs") == 0
    assert "bear_populations" in capsys.readouterr().out


def test_the_oracle_finds_the_optimum_of_a_changed_system(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--episode-length", "20", "--C=2", "--integrator", "heun", "--starts", "2"]
    assert run("oracle", "simple_case", *options, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    env = SYSTEMS["simple_case"](episode_length=20, C=2.0, integrator="heun")
    controls = torch.tensor(result["controls"], dtype=torch.float64)
    assert Shooting(env).costs(controls.unsqueeze(0)).item() == pytest.approx(result["cost"], rel=1e-12)
    assert result["costs"] == pytest.approx([result["cost"]] * 2)
    assert run("oracle", "simple_case", *options) == 0
    out = capsys.readouterr().out
    assert f"{result['cost']:.6g}" in out
    assert "2 starts" in out


def test_the_oracle_explains_the_options_of_a_system(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run("oracle", "tumour", "--help")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for option in ("--xi", "--bound_weight", "--episode_length", "Growth rate of the tumour"):
        assert option in out
    assert "--num_envs" not in out
    assert run("oracle", "--help") == 0
    assert "van_der_pol" in capsys.readouterr().out


def test_help_names_commands_and_recipes_without_loading_torch() -> None:
    code = "import sys; from lit_awm.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cancer_treatment" in done.stdout
    assert "evaluate" in done.stdout


def test_gradients_of_every_family_are_measured_and_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data.env", "van_der_pol", "--horizons", "2,4,8", "--states", "3", "--data.world_model_updates", "3"]
    assert run("gradients", *options, "--data.warmup_episodes", "6", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    seen = {(row["family"], row["fitted"]) for row in result["rows"]}
    families = ("actions", "actions_gru", "history", "history_cut", "markov")
    assert seen == {("simulator", True)} | {(family, fitted) for family in families for fitted in (True, False)}
    assert all(row["cosine"] == pytest.approx(1) for row in result["rows"] if row["family"] == "simulator")
    assert {row["horizon"] for row in result["rows"]} == {2, 4, 8}
    assert json.loads(Path("runs/van_der_pol/gradients.json").read_text()) == result
    assert Path("runs/van_der_pol/gradients.png").is_file()


def test_the_gradients_of_a_checkpoint_and_its_landscape(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "--config", "bear_populations", *SMALL) == 0
    checkpoint = "runs/bear_populations/version_0/checkpoints/last.ckpt"
    capsys.readouterr()
    assert run("gradients", "--ckpt", checkpoint, "--horizons", "5,50", "--states", "2", "--out", "here") == 0
    out = capsys.readouterr().out
    assert "ActionsWorldModel" in out
    assert "here/gradients.png" in out
    options = ["--horizon", "5", "--resolution", "3", "--states", "2", "--json"]
    assert run("landscape", "--ckpt_path", checkpoint, *options) == 0  # as fit calls it
    assert set(json.loads(capsys.readouterr().out)["landscapes"]) == {"simulator", "ActionsWorldModel"}
    assert Path("runs/bear_populations/landscape.png").is_file()


def test_gradients_are_measured_in_tasks_of_other_packages(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gymnasium")
    small = [
        "--horizons",
        "2,3,5",
        "--states",
        "2",
        "--families",
        "markov",
        "--data.world_model_updates",
        "1",
        "--json",
    ]
    small += ["--data.round_length", "50", "--data.slice_length", "20"]  # of longer episodes
    options = ["--data.env", "gym/Pendulum-v1", "--model.known_reward", "false", *small]
    assert run("gradients", *options) == 0
    first = json.loads(capsys.readouterr().out)
    assert {row["family"] for row in first["rows"]} == {"markov"}
    assert run("gradients", *options) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_a_resumed_run_keeps_its_identity_at_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = "{class_path: WandbLogger, init_args: {save_dir: logs, project: mine, offline: true}}"
    options = ["--config", "bear_populations", *SMALL, "--trainer.logger", logger, "--resume"]
    for epochs in (1, 2):
        wandb.finish()  # a run of another test in this process
        assert run("fit", *options, "--trainer.max_epochs", str(epochs)) == 0
    wandb.finish()
    (folder,) = Path("logs/mine").iterdir()
    assert {"checkpoints", "lit_awm_config.yaml", "trajectory.png"} <= {path.name for path in folder.iterdir()}
    assert not [path for path in (*Path().glob("*"), *Path("logs").glob("*")) if path.is_file()]
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 1
    sessions = [path.name for path in Path("logs/wandb").glob("offline-run-*")]
    assert len(sessions) == 2
    assert all(session.endswith(f"-{folder.name}") for session in sessions)


def test_a_package_that_is_missing_is_named_with_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    options = ["--data.env", "gym/Pendulum-v1", "--model.known_reward", "false"]
    error = error_of(capsys, "fit", "--config", "bear_populations", *options)
    assert "env 'gym/Pendulum-v1' needs gymnasium. Install it with: pip install 'lit-awm[gym]'" in error


def test_a_fit_without_a_recipe_names_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "--data.env", "harvest") == 2
    assert "a recipe must be given, got none. `--config common` has" in capsys.readouterr().err


def test_help_may_be_read_in_part() -> None:
    command = f"{sys.executable} -m lit_awm.cli --help | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_summary_tells_how_to_find_an_optimum_that_is_not_stored(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "--config", "bear_populations", *SMALL) == 0
    assert "not stored for these options; `lit-awm oracle bear_populations` with them" in capsys.readouterr().out


def test_the_help_of_fit_tells_what_a_recipe_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "--config", "gym", "--data.turns", "7", "--help") == 0
    out = capsys.readouterr().out
    assert "--data.env gym/Pendulum-v1\n" in out
    assert "--data.turns 7\n" in out
    assert "--model.policy_module PolicyModule\n" in out
    assert "state_dim" not in out
    assert len(out.splitlines()) < 150
    assert run("fit", "--config", "gym", "--help", "model.policy_module.bootstrap") == 0
    out = capsys.readouterr().out
    assert "model.policy_module.bootstrap: lit_awm.modules.ValueBootstrap" in out
    assert re.search(r"--model.policy_module.bootstrap.discount 0.98\n +Factor in \(0, 1\]", out)
    assert run("validate", "--help", "data.turns") == 0
    assert capsys.readouterr().out.startswith("  --data.turns 10\n      Into how many parts")
    assert run("fit", "--help", "trainer.max_epochs") == 0
    assert "Stop training once this number of epochs is reached" in capsys.readouterr().out
    assert run("fit", "--config", "offline_policy", "--help", "data") == 0
    assert "--data.path (to be given)\n" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="got 'model.polic'. Did you mean 'policy'?"):
        run("fit", "--help", "model.polic")
    with pytest.raises(SystemExit) as stop:
        run("fit", "--help_all")
    assert stop.value.code == 0
    assert "--trainer.gradient_clip_algorithm" in capsys.readouterr().out
