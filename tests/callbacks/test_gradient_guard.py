from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision

from lit_awm.callbacks import AdaptiveHorizon, GradientError, GradientGuard, HorizonCurriculum
from lit_awm.data import ExperienceDataModule
from lit_awm.models import ActionsWorldModel, CausalTransformer, DeterministicPolicy
from lit_awm.modules import AlternatingModule, MuonAdam, PolicyModule, WorldModelModule

UPDATES = 6  # of each phase in an epoch


class Fault(Callback):
    """Multiply the gradient of a parameter by a number, in one update or in some."""

    def __init__(self, phase: str, factor: float, steps: set[int]) -> None:
        self.phase, self.factor, self.steps = phase, factor, steps
        self.weights: dict[int, torch.Tensor] = {}

    def _parameter(self, module: Any) -> torch.nn.Parameter:
        model = module.world_model.world_model if self.phase == "world_model" else module.policy.policy
        return list(model.parameters())[2]

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        def spoil(gradient: torch.Tensor) -> torch.Tensor:
            return gradient * self.factor if trainer.global_step in self.steps else gradient

        self._parameter(pl_module).register_hook(spoil)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.weights[trainer.global_step] = self._parameter(pl_module).detach().clone()


def fit(make_trainer: Callable[..., Trainer], fault: Fault, guard: GradientGuard) -> AlternatingModule:
    torch.manual_seed(0)
    data = ExperienceDataModule(
        "bear_populations",
        episode_length=8,
        num_envs=2,
        warmup_episodes=2,
        world_model_updates=UPDATES,
        policy_updates=UPDATES,
        world_model_batch_size=2,
        policy_batch_size=2,
    )
    module = AlternatingModule(
        data.state_dim,
        data.action_dim,
        world_model=lambda s, a, **known: ActionsWorldModel(s, a, CausalTransformer(16, 1, 1, 8), **known),
        policy=partial(DeterministicPolicy, hidden_dim=8),
        world_model_module=partial(WorldModelModule, optimizer=MuonAdam),
        policy_module=partial(PolicyModule, imagination_horizon=8, imagination="warm", policy_input_gradient=0.5),
        known_reward=True,
        known_reward_fn=data.known_reward_fn,
        clock_step=data.clock_step,
    )
    make_trainer(max_epochs=2, callbacks=[fault, guard]).fit(module, data)
    return module


@pytest.mark.parametrize(
    ("phase", "step", "factor", "words"),
    [
        ("world_model", 3, math.nan, r"phase world_model is not finite in update 4 \(step 3\); first in world_model\."),
        ("policy", 8, math.inf, r"phase policy is not finite in update 3 \(step 8\); first in policy\.policy\.network"),
        (
            "policy",
            10,
            1e9,
            r"phase policy of norm .* explodes \(at most .*\) in update 5 .*; largest in policy\.policy",
        ),
        ("policy", 10, 1e9, r"largest at imagined step \d of 8\. The last checkpoint stays"),
    ],
)
def test_bad_gradients_are_named_and_stop_the_run(
    make_trainer: Callable[..., Trainer], phase: str, step: int, factor: float, words: str
) -> None:
    with pytest.raises(GradientError, match=words):
        fit(make_trainer, Fault(phase, factor, {step}), GradientGuard(window=3))


def test_the_scaler_of_half_precision_finds_its_scale_by_itself(make_trainer: Callable[..., Trainer]) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38, backoff_factor=1e-36)
    guard = GradientGuard(window=3)
    model = ActionsWorldModel(2, 1, CausalTransformer(8, 1, 1, 10))
    module = WorldModelModule(model, optimizer=partial(torch.optim.SGD, lr=1e-3))
    data = ExperienceDataModule("bioreactor", episode_length=10, num_envs=1, warmup_episodes=1, world_model_updates=4)
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    make_trainer(max_epochs=1, callbacks=[guard], plugins=[precision]).fit(module, data)
    assert scaler.get_scale() < 1e3
    assert guard.counts == {}
    with pytest.raises(GradientError, match="not finite"):  # where it cannot fall any more
        make_trainer(max_epochs=1, callbacks=[GradientGuard(), Spoil()], plugins=[precision]).fit(module, data)


class Spoil(Callback):
    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        for parameter in pl_module.parameters():
            parameter.register_hook(lambda gradient: gradient * math.nan)


@pytest.mark.parametrize("phase", ["world_model", "policy"])
@pytest.mark.parametrize("factor", [math.nan, 1e9])
@pytest.mark.parametrize("reaction", ["skip", "shrink"])
def test_an_update_that_is_left_out_changes_no_weight(
    make_trainer: Callable[..., Trainer], phase: str, factor: float, reaction: Any
) -> None:
    step = 4 + UPDATES * (phase == "policy")
    fault, guard = Fault(phase, factor, {step}), GradientGuard(reaction, window=3)
    with pytest.warns(UserWarning, match="The update is left out"):
        module = fit(make_trainer, fault, guard)
    assert torch.equal(fault.weights[step + 1], fault.weights[step])
    assert not torch.equal(fault.weights[step + 2], fault.weights[step + 1])
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert guard.counts == {phase: 1}
    assert guard.horizon == (4 if (phase, reaction) == ("policy", "shrink") else None)
    assert module.policy.imagination_horizon == 8  # again


def test_clipping_scales_an_explosion_down_and_goes_on(make_trainer: Callable[..., Trainer]) -> None:
    seen: list[float] = []

    class Norms(Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
            seen.append(torch.nn.utils.get_total_norm([each.grad for each in parameters]).item())

    fault, guard = Fault("world_model", 1e9, {4}), GradientGuard("clip", largest_ratio=10.0, window=3)

    def make(**options: Any) -> Trainer:
        return make_trainer(**options | {"callbacks": [*options["callbacks"], Norms()]})

    with pytest.warns(UserWarning, match="It is scaled down to"):
        fit(make, fault, guard)
    assert seen[4] == pytest.approx(10 * max(sorted(seen[i : i + 3])[1] for i in range(2)), rel=1e-5)
    assert not torch.equal(fault.weights[5], fault.weights[4])


def test_a_run_without_faults_is_the_same_with_and_without_guard(make_trainer: Callable[..., Trainer]) -> None:
    runs = [fit(make_trainer, Fault("policy", 1.0, set()), guard) for guard in (GradientGuard(), GradientGuard("clip"))]
    bare = fit(make_trainer, Fault("policy", 1.0, set()), GradientGuard(window=10**6))
    for run in runs:
        assert all(torch.equal(a, b) for a, b in zip(run.parameters(), bare.parameters(), strict=True))


def test_a_resumed_guard_goes_on_with_its_norms_and_horizon() -> None:
    guard, twin = GradientGuard("shrink", window=3), GradientGuard("shrink", window=3)
    guard.norms["policy"] = deque([1.0, 2.0], 3)
    guard.usual, guard.counts, guard.horizon = {"policy": 3.0}, {"policy": 2}, 25
    twin.load_state_dict(guard.state_dict())
    assert twin.state_dict() == guard.state_dict()
    assert twin.norms["policy"].maxlen == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reaction": "ignore"}, "reaction must be one of stop, skip, clip, shrink, got 'ignore'"),
        ({"largest_ratio": 0.5}, "largest_ratio must be at least 1, got 0.5"),
        ({"largest_ratio": math.nan}, "largest_ratio must be at least 1, got nan"),
        ({"window": 0}, "window must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GradientGuard(**options)


def watch(gradients: list[float]) -> GradientGuard:
    """Return a guard that has seen the gradients of a model with one weight."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter])
    module: Any = SimpleNamespace(phases=("model",), automatic_optimization=True, log_dict=lambda *_, **__: None)
    module.named_parameters = lambda: [("weight", parameter)]
    guard = GradientGuard("skip", window=3)
    for step, gradient in enumerate(gradients):
        parameter.grad = torch.tensor([gradient])
        guard.on_before_optimizer_step(SimpleNamespace(optimizers=[optimizer], global_step=step), module, optimizer)
    return guard


def test_a_first_gradient_after_none_is_no_explosion() -> None:
    assert watch([0.0] * 10 + [1e-6, 1.0]).counts == {}


def test_an_ordinary_gradient_after_the_small_ones_of_what_has_converged_is_no_explosion() -> None:
    assert watch([1.0] * 5 + [1e-6] * 5 + [2.0]).counts == {}


@pytest.mark.filterwarnings("ignore:the gradient of phase model")
def test_an_explosion_is_one_after_small_gradients_too() -> None:
    assert watch([1.0] * 5 + [1e-6] * 5 + [1e5]).counts == {"model": 1}


@pytest.mark.parametrize("schedule", [HorizonCurriculum(2, 3), AdaptiveHorizon(2)])
def test_a_horizon_has_one_master(make_trainer: Callable[..., Trainer], schedule: Callback) -> None:
    trainer = make_trainer(max_epochs=1, callbacks=[schedule, GradientGuard("shrink")])
    with pytest.raises(ValueError, match="reaction must not be 'shrink' beside .*, which sets the horizon itself"):
        trainer.callbacks[1].setup(trainer, SimpleNamespace(), "fit")
