"""What a user can get wrong is named before the first step: the argument, the rule, the value and the way out."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lit_awm
from lit_awm import callbacks, models, modules
from lit_awm.cli import main
from lit_awm.data import ExperienceDataModule
from lit_awm.envs import make_env
from lit_awm.imagination import imagine

WORLD_MODEL = "--model.world_model"
BACKBONE = f"{WORLD_MODEL}.backbone"
POLICY = "--model.policy"
MODULE = "--model.policy_module"
DATA = "--data"
OPTIONS = [  # after `lit-awm fit --config bear_populations`, with words of the error
    ("--trainer.nothing 1", "unrecognized arguments: --trainer.nothing"),
    ("stray", "unrecognized arguments: stray"),
    ("--trainer.max_epochs", "max_epochs: expected one argument"),
    ("--trainer.max_epochs x", "trainer.max_epochs must be a whole number or null, got x"),
    ("--trainer.max_epochs -5", "max_epochs` must be a non-negative integer or -1"),
    ("--trainer.max_epoch=2 --trainer.max_epoch_s=2", "Did you mean 'trainer.max_epochs'?"),
    ("--trainer.accelerator tpus", "invalid accelerator name: `accelerator='tpus'`"),
    ("--trainer.precision 7", "trainer.precision must be one of 64, 32, 16, .* or null, got 7"),
    ("--trainer.precision bf16-mixd", "Did you mean 'bf16-mixed'?"),
    ("--trainer.devices 0", "devices='0'"),
    ("--trainer.gradient_clip_val 0.5", "Automatic gradient clipping is not supported for manual optimization"),
    ("--trainer.limit_train_batches 2.5", "invalid value 2.5 for limit_train_batches"),
    ("--trainer.overfit_batches 1", "overfit_batches must be 0: .*Use limit_train_batches"),
    ("--trainer.callbacks GradientGard", "must name a class, got GradientGard.*mean 'GradientGuard'"),
    ("--trainer.callbacks+=lit_awm.callbacks.GradientGard", "lit_awm.callbacks.GradientGard: .*'GradientGuard'"),
    ("--trainer.logger NoLogger", "trainer.logger must name a class, got NoLogger"),
    ("--trainer.precision 64-true", "trainer.precision must be 32-true, 16-mixed or bf16-mixed, .* got 64-true"),
    ("--trainer.check_val_every_n_epoch 0", "trainer.check_val_every_n_epoch must be above 0, or null, got 0"),
    ("--trainer.val_check_interval 0", "trainer.val_check_interval must be above 0, or null, got 0"),
    ("--trainer.log_every_n_steps -1", "trainer.log_every_n_steps must be above 0, or null, got -1"),
    ("--trainer.strategy fsdp", "`fsdp` requires a GPU accelerator, but received `accelerator='cpu'`"),
    ("--trainer.devices x", "`devices` selected with `CPUAccelerator` should be an int"),
    ("--trainer.callbacks+=GradientGuard", "Found more than one stateful callback of type `GradientGuard`"),
    ("--trainer.callbacks+=HorizonCurriculum", "must be given start, epochs, which .*HorizonCurriculum needs"),
    ("--trainer.callbacks+=AdaptiveHorizon --trainer.callbacks.start x", "callbacks.start must be a whole number, got"),
    ("--trainer.logger [CSVLogger]", "no setting data.init_args.env, to which trainer.logger.0..init_args.name refers"),
    ("--seed_everything -1", "seed_everything must be between 0 and 4294967295, got -1"),
    ("--seed_everything x", "seed_everything must be .*whole number, got x"),
    (f"{DATA} nothing.Data", "module nothing, which is not installed"),
    ("--model.policy_module.action_noise.decay 5", "error: decay must be above 0 and at most 1, got 5"),
    (f"{DATA}.num_env 3", "data.num_env is no argument of .*ExperienceDataModule. Did you mean 'num_envs'?"),
    (f"{DATA}.env bear_population", "env must name a system, got .* Did you mean 'bear_populations'?"),
    (f"{DATA}.env gym/Nothing-v0", "task of gymnasium, got 'gym/Nothing-v0'"),
    (f"{DATA}.env dmc/cheetah-fly", "task of dm_control, got 'dmc/cheetah-fly'"),
    (f"{DATA}.env dmc/lqr-lqr_2_1", "actions with bounds up to 1e\\+06, .* got 'dmc/lqr-lqr_2_1' with 1e\\+10"),
    (f"{DATA}.env_options.nothing 1", "bear_populations has no option 'nothing'. It has: K, "),
    (f"{DATA}.env_options.K x", "K must be a number, got 'x'"),
    (f"{DATA}.env_options.r -1", "r must be at least 0, got -1"),
    (f"{DATA}.seed -1", "seed must be at least 0, got -1"),
    (f"{DATA}.nothing.x 1", "data.nothing.x is no argument of lit_awm.data.ExperienceDataModule"),
    (f"{DATA}.env_options.observation_noise [.1,.2]", "observation_noise must be one number, or 3, one for each"),
    (f"{DATA}.env_options.dt 0", "dt must be positive, got 0"),
    (f"{DATA}.env_options.integrator rk5", "integrator must be one of euler, heun, rk4, got 'rk5'"),
    (f"{DATA}.env_options.substeps 0", "substeps must be at least 1, got 0"),
    (f"{DATA}.env_options.initial_spread -1", "initial_spread must be at least 0 and below 1, got -1"),
    (f"{DATA}.env_options.episode_length 10", "env_options must not hold episode_length"),
    (f"{DATA}.env_options.dtype float64", "env_options must not hold dtype, got 'float64': experience is in single"),
    (f"{DATA}.env_options.observe_time false", "Give the function, or set `known_reward: false`"),
    (f"{DATA}.episode_length 0", "episode_length must be at least 1, got 0"),
    (f"{DATA}.episode_length 1.5", "data.episode_length must be a whole number.*got 1.5"),
    (f"{DATA}.num_envs 0", "num_envs must be at least 1, got 0"),
    (f"{DATA}.num_envs 5", "warmup_episodes must be a multiple of num_envs 5, got 12"),
    (f"{DATA}.warmup_episodes 0", "warmup_episodes must be at least 1, got 0"),
    (f"{DATA}.exploration_noise -0.1", "exploration_noise must be at least 0, got -0.1"),
    (f"{DATA}.exploration_noise nan", "data.exploration_noise must be a number, got nan"),
    (f"{DATA}.mean_hold 0", "mean_hold must be at least 1, got 0"),
    (f"{DATA}.world_model_updates 0", "world_model_updates must be at least 1, got 0"),
    (f"{DATA}.policy_updates 0", "policy_updates must be at least 1, got 0"),
    (f"{DATA}.world_model_batch_size 0", "world_model_batch_size must be at least 1, got 0"),
    (f"{DATA}.policy_batch_size 0", "policy_batch_size must be at least 1, got 0"),
    (f"{DATA}.slice_length 101", "slice_length must be at most episode_length 100, got 101"),
    (f"{DATA}.imagine_from end", "data.imagine_from must be one of start, anywhere, got end"),
    (f"{DATA}.capacity 10", "capacity must hold the warm-up of 1200 steps and a trial of 100, got 10"),
    (f"{DATA}.eval_episodes 0", "eval_episodes must be at least 1, got 0"),
    ("--model lit_awm.modules.AlternatingModul", "Did you mean 'AlternatingModule'?"),
    (f"{WORLD_MODEL} ActionWorldModel", "must name a class, got ActionWorldModel.*mean 'ActionsWorldModel'"),
    (f"{WORLD_MODEL} torch.nn.Linear", "model.world_model must name a WorldModel, got torch.nn.Linear"),
    (f"{WORLD_MODEL} lit_awm.models.MarkovWorldModel {WORLD_MODEL}.num_members 0", "num_members must be at least 1"),
    (f"{WORLD_MODEL} lit_awm.models.HistoryWorldModel {WORLD_MODEL}.predicts all", "one of difference, state, got all"),
    (f"{BACKBONE}.hiden_dim 3", "no argument of lit_awm.models.CausalTransformer. Did you mean 'hidden_dim'?"),
    (f"{BACKBONE}.hidden_dim 0", "hidden_dim must be at least 1, got 0"),
    (f"{BACKBONE}.num_heads 3", "num_heads must divide hidden_dim 64, got 3"),
    (f"{BACKBONE}.num_layers 0", "num_layers must be at least 1, got 0"),
    (f"{BACKBONE}.max_horizon 50", "model's max_horizon 50, got 100. Lower `imagination_horizon`"),
    (f"{BACKBONE}.hidden_dim 8", "matrices of at least 16 by 16 .*Use torch.optim.Adam"),
    (f"{POLICY} lit_awm.models.Nothing", "got lit_awm.models.Nothing: there is none"),
    (f"{POLICY} Critic", "model.policy must name a class, got Critic: this is of another kind"),
    (f"{POLICY}.hidden_dim 0", "hidden_dim must be at least 1, got 0"),
    (f"{POLICY}.num_layers -1", "num_layers must be at least 0, got -1"),
    (f"{POLICY}.num_frequencies -1", "num_frequencies must be at least 0, got -1"),
    (f"{POLICY} TanhNormalPolicy {POLICY}.initial_deviation -1", "initial_deviation must be between 0.001 and 7"),
    (f"{MODULE}.imagination fast", "policy_module.imagination must be one of sequential, .*auto, got fast"),
    (f"{MODULE}.imagination_horizon 0", "horizon must be at least 1, got 0"),
    (f"{MODULE}.imagination_horizon 200", "max_horizon 100, got 200"),
    (f"{MODULE}.policy_input_gradient 1.5", "policy_input_gradient must be between 0 and 1, got 1.5"),
    (f"{MODULE}.tolerance -1", "tolerance must be at least 0, got -1"),
    (f"{MODULE}.refine 1.5", "policy_module.refine must be a whole number, got 1.5"),
    (f"{MODULE}.action_noise -1", "action_noise must be at least 0, got -1"),
    (f"{MODULE}.entropy_weight 0.1", "entropy_weight must be 0 for a deterministic policy, got 0.1. Use a Tanh"),
    (f"{MODULE}.imagination sequential {MODULE}.compile_decoding true", "compile_decoding must be false"),
    (f"{MODULE}.optimizer.lr -1", "Invalid learning rate: -1.0"),
    (f"{MODULE}.optimizer.lrr 1", "no argument of torch.optim.Adam. Did you mean 'lr'?"),
    (f"{MODULE}.optimizer Adan", "optimizer must name a class, got Adan: there is none. Did you mean 'Adam'?"),
    (f"{MODULE}.scheduler ReduceLROnPlateau", "must name one class, got ReduceLROnPlateau, which may be torch.optim"),
    (f"{MODULE}.optimizer.lr inf", "optimizer.lr must be a number, got inf"),
    (f"{MODULE}.optimizer LBFGS", "optimizer must be one that takes a step by dense gradients, got LBFGS"),
    (f"{MODULE}.scheduler StepLR", "must be given step_size, which torch.optim.lr_scheduler.StepLR needs"),
    (f"{MODULE}.scheduler null", "cannot be null on the command line; say so in a file"),
    (f"{MODULE}.scheduler.period 0", "period must be at least 1, got 0"),
    ("--model.world_model_module.optimizer.lr -1", "lr and adam_lr must be positive, got -1.0"),
    ("--model.gradient_clip_val -1", "gradient_clip_val must be positive or null, got -1"),
    ("--model.accumulate 2", "accumulate must be 1 with imagination 'warm', got 2"),
    ("--model.known_reward maybe", "model.known_reward must be true or false, got maybe"),
    ("--ckpt_path nowhere.ckpt", "no checkpoint can be read: nowhere.ckpt is not there"),
    ("--ckpt_path .", "a checkpoint must be a file, got '.'"),
    ("--ckpt_path text.ckpt", "text.ckpt is cut short or damaged"),
]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lit-awm"])
    Path("text.ckpt").write_text("no checkpoint")


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what a command prints that ends with status 2, as one line, having made nothing."""
    try:
        status: Any = main(list(arguments))
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert {path.name for path in Path().rglob("*.ckpt")} == {"text.ckpt"}
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("options", "words"), OPTIONS, ids=[options for options, _ in OPTIONS])
def test_a_wrong_option_is_named(options: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "dmc/" in options:
        pytest.importorskip("dm_control")
    error = error_of(capsys, "fit", "--config", "bear_populations", *options.split())
    assert re.search(words.replace("?", r"\?"), error)
    assert "Union subtypes" not in error


FILES = [  # of a recipe, with words of the error
    ("trainer:\n  max_epochs: [1\n", "mine.yaml:3: this is not YAML: expected ',' or ']'"),
    ("trainer: {a: 1}}\n", "mine.yaml:1: this is not YAML"),
    ("\x00", "mine.yaml: this is not YAML"),
    ("# nothing\n", "mine.yaml: this recipe is empty"),
    ("trainer: null\n", "mine.yaml:1: trainer must be a table of settings"),
    ("seed_everything: 1\ndata: []\n", "mine.yaml:2: data must be a table of settings"),
    (
        "data:\n  init_args:\n    seed: 1\n    num_envs: 2\n    seed: 2\n",
        "mine.yaml:5: seed is given twice, first in line 3",
    ),
    (
        "data:\n  init_args:\n    env: {{env}}\n",
        "mine.yaml:3: a key must be a word. To refer to another setting write ${name}",
    ),
    ("trainer: &x\n  logger: *x\n", "mine.yaml:1: this refers to itself"),
    ("trainer: {callbacks: [3]}\n", "trainer.callbacks must hold each Callback by its class path, got 3"),
    ("- 1\n- 2\n", "mine.yaml:1: a recipe must be a table of settings"),
    ("trainer:\n  max_epoch: 3\n", "mine.yaml:2: trainer.max_epoch is no option. Did you mean 'trainer.max_epochs'?"),
    ("modle:\n  class_path: x\n", "mine.yaml:2: modle.class_path is no option"),
    ("data:\n  init_args:\n\n    num_env: 3\n", "mine.yaml:4: data.num_env is no argument of .*mean 'num_envs'"),
    ("data:\n  init_args:\n    num_envs: x\n", "mine.yaml:3: data.num_envs must be a whole number, got x"),
    ("data:\n  init_args:\n    seed: 1\n    num_envs: 0\n", "mine.yaml:4: num_envs must be at least 1, got 0"),
    ("model: {init_args: {policy: {init_args:\n {hiden_dim: 3}}}}\n", "mine.yaml:2: model.policy.hiden_dim is no arg"),
    ("trainer:\n  callbacks:\n    - class_path: Nothing\n", "mine.yaml:2: trainer.callbacks must name a class"),
    (
        "trainer:\n  callbacks:\n  - class_path: lit_awm.callbacks.GradientGuard\n    init_args: {reaction: jump}\n",
        "mine.yaml:4: trainer.callbacks.reaction must be one of stop, .*, got jump",
    ),
    ("data:\n  init_args:\n    episode_length: ${nothing.here}\n", "no setting nothing.here"),
]


@pytest.mark.parametrize(("text", "words"), FILES)
def test_a_mistake_in_a_recipe_is_named_with_file_and_line(
    text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text(text)
    error = error_of(capsys, "fit", "--config", "bear_populations", "--config", "mine.yaml")
    assert re.search(re.escape(words).replace(r"\.\*", ".*"), error)


def test_a_file_is_not_blamed_for_what_the_command_line_says(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("data: {init_args: {num_envs: 4}}\n")
    error = error_of(capsys, "fit", "--config", "bear_populations", "--config", "mine.yaml", "--data.num_envs", "0")
    assert error.startswith("lit-awm fit: error: num_envs must be at least 1, got 0")


COMMANDS = [  # with words of the error
    ("train", "unknown command 'train'"),
    ("fitt", "unknown command 'fitt'. Did you mean 'fit'?"),
    ("fit --config cancer_tretment", "got 'cancer_tretment'. Did you mean 'cancer_treatment'?"),
    ("fit --config nowhere.yaml", "--config must be a file or the name of a recipe, got 'nowhere.yaml'"),
    ("fit", "a recipe must be given, got none. `--config common` has"),
    ("evaluate", "required: checkpoint"),
    ("evaluate no.ckpt", "checkpoint must be a file, got 'no.ckpt'"),
    ("evaluate text.ckpt", "must come from `lit-awm fit`; text.ckpt is cut short or damaged"),
    ("evaluate other.pt", "must come from `lit-awm fit`"),
    ("export", "required: checkpoint"),
    ("export text.ckpt --out text.ckpt", "out must be a folder that can be written to, got 'text.ckpt'"),
    ("validate --config bear_populations", "validate must be given a checkpoint to score, by --ckpt_path, got none"),
    ("validate --config bear_populations --ckpt_path last", "must mean a run with a checkpoint, got none in runs"),
    (
        "validate --config bear_populations --ckpt_path other.pt",
        "ckpt_path must be a checkpoint of a Lightning trainer",
    ),
    ("doctor --config bear_populations --data.num_envs 0", "num_envs must be at least 1, got 0"),
    ("export no.ckpt", "no.ckpt"),
    ("doctor --config x", "got 'x'"),
    ("envs x", "unrecognized arguments: x"),
    ("reproduce nothing", "invalid choice: 'nothing'"),
    ("reproduce growth --seeds 0", "seeds must be at least 1, got 0"),
    ("benchmark speed", "invalid choice: 'speed'"),
    ("oracle cancer_treatmnt", "Did you mean 'cancer_treatment'?"),
    ("oracle cancer_treatment --episode-length 0", "episode_length must be at least 1, got 0"),
    ("oracle cancer_treatment --exact-target", "exact_target must be false for cancer_treatment"),
    ("oracle cancer_treatment --x_0 -1", "x_0 must lie inside the domain"),
    ("oracle cancer_treatment --starts 0", "starts must be at least 1, got 0"),
    ("oracle cancer_treatment --deltaa 1", "--deltaa"),
    ("oracle cancer_treatment --delta x", 'key "delta": Expected a .*float.*. Got value: x'),
    ("oracle cancer_treatment --dt 0.1 --duration 3", "dt and duration exclude each other"),
    ("oracle harvest --seed -1", "seed must be at least 0, got -1"),
    ("oracle --starts 3 harvest", "SYSTEM comes first"),
    ("oracle gym/Pendulum-v1", "whose dynamics are known, got 'gym/Pendulum-v1'"),
    ("gradients --families actoins", "families must be of .*, got 'actoins'. Did you mean 'actions'?"),
    ("gradients --horizons 5,x", "horizons must be whole numbers with commas between them, got '5,x'"),
    ("gradients --horizons 0,5", "horizons must be at least 1, got 0"),
    ("gradients --states 0", "states must be at least 1, got 0"),
    ("gradients --ckpt no.ckpt", "checkpoint must be a file, got 'no.ckpt'"),
    ("gradients --ckpt no.ckpt --families markov", "brings its own world model; leave out --families"),
    ("gradients --ckpt text.ckpt", "must come from `lit-awm fit`; text.ckpt is cut short or damaged"),
    ("gradients --out text.ckpt", "out must be a folder that can be written to, got 'text.ckpt': .* is a file"),
    ("gradients --trainer.max_epochs 9", "leave out --trainer.max_epochs"),
    ("gradients --data.env one_bounce --horizons 50,100", "horizon 50 makes no task of one_bounce"),
    ("gradients --data.env_options.initial_spread 0 --initial-spread 2", "initial_spread must be .*got 2"),
    ("gradients --initial-spread 2", "initial_spread must be .*got 2"),
    (
        "gradients --data.env gym/Pendulum-v1 --model.known_reward=false --initial-spread 0.1",
        "initial-spread needs a system of the testbed",
    ),
    ("landscape --resolution 4", "resolution must be odd and at least 3, got 4"),
    ("landscape --horizon 0", "horizon must be at least 1, got 0"),
]


@pytest.mark.parametrize(("command", "words"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_wrong_command_is_named(command: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {}}, "other.pt")
    assert re.search(words.replace("?", r"\?"), error_of(capsys, *command.split()))


def _model(**changes: Any) -> models.ActionsWorldModel:
    return models.ActionsWorldModel(2, 1, models.CausalTransformer(16, 1, 1, max_horizon=4), **changes)


def _imagine(*, horizon: int = 4, size: int = 2, **options: Any) -> Any:
    return imagine(_model(), models.DeterministicPolicy(2, 1), torch.zeros(3, size), horizon, **options)


CALLS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: make_env("nothing"), ValueError, "env must name a system, got 'nothing'"),
    (lambda: make_env("harvest", num_envs=0), ValueError, "num_envs must be at least 1, got 0"),
    (lambda: make_env("harvest", nothing=1), ValueError, "harvest has no option 'nothing'"),
    (lambda: make_env("harvest", dtype="int32"), ValueError, "dtype must be a floating type, .* got 'int32'"),
    (lambda: make_env("harvest", initial_spread="a"), ValueError, "initial_spread must be a number, got 'a'"),
    (lambda: make_env("van_der_pol", a=float("nan")), ValueError, "a must be a number, got nan"),
    (lambda: make_env(".Foo"), ValueError, "env must name a system, or a class that can be imported, got '.Foo'"),
    (lambda: ExperienceDataModule("harvest", num_envs="2"), ValueError, "num_envs must be a number, got '2'"),
    (lambda: ExperienceDataModule("harvest", capacity=float("nan")), ValueError, "capacity must "),
    (lambda: models.CausalTransformer(10, 1, 4, 5), ValueError, "num_heads must divide hidden_dim 10, got 4"),
    (lambda: models.RecurrentBackbone(8, cell="gruu"), ValueError, "cell must be one of rnn, gru, lstm, got 'gruu'"),
    (lambda: models.Critic(0), ValueError, "state_dim must be at least 1, got 0"),
    (lambda: models.DeterministicPolicy(2, 1, hidden_dim="8"), ValueError, "hidden_dim must be a number, got '8'"),
    (lambda: _model()(torch.zeros(3, 4, 2), torch.zeros(3, 4, 2)), ValueError, r"actions must have shape .*1\), got"),
    (lambda: _model()(torch.zeros(3, 5, 2), torch.zeros(3, 5, 1)), ValueError, "max_horizon 4, got 5"),
    (lambda: _imagine(horizon=0), ValueError, "horizon must be at least 1, got 0"),
    (lambda: _imagine(horizon=5), ValueError, "max_horizon 4, got 5"),
    (lambda: _imagine(size=3), ValueError, "initial_state must have shape"),
    (
        lambda: imagine(_model(), models.DeterministicPolicy(2, 2), torch.zeros(3, 2), 4),
        ValueError,
        r"policy must have state_dim and action_dim of the world model, \[2, 1\], got \[2, 2\]",
    ),
    (lambda: _imagine(method="fast"), ValueError, "imagination method must be one of .*, got 'fast'"),
    (lambda: _imagine(method="replay", refine=2), ValueError, "refine is for method 'warm', got 2"),
    (lambda: _imagine(policy_input_gradient=-0.1), ValueError, "policy_input_gradient must be between 0 and 1"),
    (
        lambda: _imagine(action_noise=torch.zeros(1)),
        ValueError,
        r"action_noise must have shape \(3, 4, 1\), got \(1,\)",
    ),
    (lambda: modules.LinearSchedule(1, 0, 0), ValueError, "updates must be at least 1, got 0"),
    (lambda: modules.ValueBootstrap(2, discount=1.5), ValueError, "discount must be above 0 and at most 1, got 1.5"),
    (lambda: modules.ValueBootstrap(2, trace=-1), ValueError, "trace must be between 0 and 1, got -1"),
    (lambda: modules.PolicyModule(None, _model(), 5), ValueError, "max_horizon 4, got 5"),
    (lambda: callbacks.GradientGuard("jump"), ValueError, "reaction must be one of stop, .*, got 'jump'"),
    (lambda: callbacks.GradientGuard(largest_ratio=0.5), ValueError, "largest_ratio must be at least 1, got 0.5"),
    (lambda: callbacks.GradientGuard(window=0), ValueError, "window must be at least 1, got 0"),
    (lambda: callbacks.HorizonCurriculum(0, 3), ValueError, "start must be at least 1, got 0"),
    (lambda: callbacks.AdaptiveHorizon(2, growth=1), ValueError, "growth must be above 1 and finite, got 1"),
    (lambda: callbacks.GradientFidelity(states=0), ValueError, "states must be at least 1, got 0"),
    (lambda: callbacks.GradientNormMonitor(positions=0.5), ValueError, "positions must be a whole number, got 0.5"),
    (
        lambda: make_env("harvest", observation_noise=[0.1, 0.2]),
        ValueError,
        "observation_noise must be one number, or 1",
    ),
    (
        lambda: ExperienceDataModule("harvest", policy_batch_size=2.5),
        ValueError,
        "policy_batch_size must be a whole num",
    ),
    (lambda: modules.WorldModelModule(_model(), "adam"), ValueError, "optimizer must be a function of .*, got 'adam'"),
    (lambda: _imagine(horizon=2.5), ValueError, "horizon must be a whole number, got 2.5"),
    (lambda: lit_awm.load_policy("nowhere"), ValueError, "path must be a folder that `lit-awm export` has written"),
    (lambda: lit_awm.load_world_model("text.ckpt"), ValueError, "path must be a folder"),
]


@pytest.mark.parametrize(("call", "kind", "words"), CALLS, ids=[words for *_, words in CALLS])
def test_a_wrong_call_is_named(call: Callable[[], Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call()
