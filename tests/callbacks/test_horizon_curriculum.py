from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lit_awm.callbacks import AdaptiveHorizon, HorizonCurriculum
from lit_awm.data import ExperienceDataModule
from lit_awm.models import ActionsWorldModel, CausalTransformer, DeterministicPolicy
from lit_awm.modules import PolicyModule, WorldModelModule


class Horizons(Callback):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.seen.append(pl_module.imagination_horizon)


def make(horizon: int = 10) -> tuple[PolicyModule, ExperienceDataModule]:
    data = ExperienceDataModule("bioreactor", episode_length=10, num_envs=1, warmup_episodes=1, policy_updates=2)
    model = ActionsWorldModel(2, 1, CausalTransformer(8, 1, 1, 10))
    model.fit_statistics(torch.rand(4, 10, 2), torch.rand(4, 10, 1), torch.rand(4, 10))
    return PolicyModule(DeterministicPolicy(2, 1), model, horizon), data


def test_the_horizon_grows_linearly_to_the_modules_own(make_trainer: Callable[..., Trainer]) -> None:
    horizons = Horizons()
    module, data = make()
    make_trainer(max_epochs=6, callbacks=[HorizonCurriculum(start=2, epochs=4), horizons]).fit(module, data)
    assert horizons.seen == [2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 10, 10]
    assert module.imagination_horizon == 10


def test_the_horizon_may_grow_in_equal_jumps() -> None:
    curriculum = HorizonCurriculum(start=2, epochs=8, steps=2)
    curriculum.full = 10
    assert [curriculum.horizon(epoch) for epoch in range(10)] == [2, 2, 2, 2, 6, 6, 6, 6, 10, 10]
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        HorizonCurriculum(2, 8, steps=0)


def test_the_horizon_is_not_short_of_a_whole_step_by_rounding() -> None:
    curriculum = HorizonCurriculum(start=1, epochs=22)
    curriculum.full = 23
    assert [curriculum.horizon(epoch) for epoch in range(24)] == [*range(1, 24), 23]
    jumps = HorizonCurriculum(start=1, epochs=4, steps=10)
    jumps.full = 91
    assert [jumps.horizon(epoch) for epoch in range(5)] == [1, 19, 46, 64, 91]


def test_a_start_beyond_the_modules_horizon_is_refused(make_trainer: Callable[..., Trainer]) -> None:
    module, data = make(horizon=5)
    with pytest.raises(ValueError, match="start must not exceed the policy module's imagination_horizon 5, got 6"):
        make_trainer(max_epochs=1, callbacks=[HorizonCurriculum(6, 2)]).fit(module, data)


def test_a_module_without_a_policy_is_refused(make_trainer: Callable[..., Trainer]) -> None:
    _, data = make()
    module = WorldModelModule(ActionsWorldModel(2, 1, CausalTransformer(8, 1, 1, 10)))
    with pytest.raises(ValueError, match="needs a module that optimises a policy, got WorldModelModule"):
        make_trainer(max_epochs=1, callbacks=[HorizonCurriculum(2, 2)]).fit(module, data)


@pytest.mark.parametrize(("start", "epochs"), [(0, 1), (1, 0)])
def test_bad_arguments_are_refused(start: int, epochs: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        HorizonCurriculum(start, epochs)


class Interrupt(Callback):
    def on_train_batch_end(self, *_: Any) -> None:
        raise RuntimeError("interrupted")


@pytest.mark.parametrize("callback", [lambda: HorizonCurriculum(start=2, epochs=4), lambda: AdaptiveHorizon(start=2)])
def test_a_fit_that_is_interrupted_leaves_horizon_and_parameters_as_they_were(
    callback: Callable[[], Callback], make_trainer: Callable[..., Trainer]
) -> None:
    module, data = make()
    frozen = next(module.world_model.parameters()).requires_grad_(False)
    with pytest.raises(RuntimeError, match="interrupted"):
        make_trainer(max_epochs=1, callbacks=[callback(), Interrupt()]).fit(module, data)
    assert module.imagination_horizon == 10
    assert [each for each in module.world_model.parameters() if not each.requires_grad] == [frozen]


def test_a_trainer_may_fit_the_world_model_after_a_policy_in_it(make_trainer: Callable[..., Trainer]) -> None:
    module, data = make()
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, data)
    before = torch.cat([each.detach().flatten() for each in module.world_model.parameters()])
    trainer.fit_loop.max_epochs = 2
    trainer.fit(WorldModelModule(module.world_model), data)
    assert not torch.equal(torch.cat([each.detach().flatten() for each in module.world_model.parameters()]), before)


def test_a_callback_that_is_used_again_takes_the_horizon_of_the_module(
    make_trainer: Callable[..., Trainer],
) -> None:
    curriculum = HorizonCurriculum(start=2, epochs=2)
    for horizon in (5, 10):
        module, data = make(horizon)
        make_trainer(max_epochs=1, callbacks=[curriculum]).fit(module, data)
        assert module.imagination_horizon == horizon
