from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from tensordict import TensorDict
from torch import Tensor

from lit_awm.data import ExperienceDataModule
from lit_awm.imagination import Imagined, imagine
from lit_awm.models import (
    ActionsWorldModel,
    CausalTransformer,
    Continuation,
    DeterministicPolicy,
    MarkovWorldModel,
    SimulatorWorldModel,
)
from lit_awm.modules import PolicyModule, TeacherModule, ValueBootstrap, WorldModelModule
from lit_awm.modules.world_model import _without_filling

CERTAIN = 50.0


class GoesOn(Continuation):
    """With probability one half everywhere, or as sure as can be below a limit."""

    def __init__(self, limit: float | None = None) -> None:
        super().__init__(1, 4)
        self.limit = limit

    def forward(self, state: Tensor) -> Tensor:
        return 0 * state[..., 0] if self.limit is None else CERTAIN * (self.limit - state[..., 0])


def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    return state + action, torch.ones_like(state[..., 0])


def make_simulator(continuation: Continuation | None) -> SimulatorWorldModel:
    model = SimulatorWorldModel(1, 1, step)
    model.continuation = continuation
    return model


def falls(batch: int = 256, horizon: int = 6) -> TensorDict:
    """Random walks that end where the state is above 1; what comes after is filled up with something absurd."""
    actions = torch.rand(batch, horizon, 1) * 2 - 1
    states = torch.cat([torch.rand(batch, 1, 1) - 0.5, actions], dim=1).cumsum(1)
    ended = states[:, 1:] > 1
    mask = (ended.cumsum(1) - ended.long() == 0).squeeze(-1)
    after = {"observation": states[:, 1:], "reward": torch.ones_like(actions), "terminated": ended}
    rows = {"observation": states[:, :-1], "action": actions, "next": after, "mask": mask}
    return TensorDict(rows, batch_size=[batch, horizon])


def make_module(**options: Any) -> WorldModelModule:
    model = ActionsWorldModel(1, 1, CausalTransformer(8, 1, 1, max_horizon=6))
    return WorldModelModule(model, continuation=partial(Continuation, hidden_dim=32), **options)


def test_rewards_count_as_far_as_an_episode_goes_on() -> None:
    model, policy = make_simulator(GoesOn()), DeterministicPolicy(1, 1)
    imagined = imagine(model, policy, torch.zeros(2, 1), 4, method="sequential")
    halves = 0.5 ** torch.arange(5)
    torch.testing.assert_close(imagined.survival, halves.expand(2, 5))
    torch.testing.assert_close(imagined.rewards, halves[:4].expand(2, 4))
    sure = imagine(make_simulator(None), policy, torch.zeros(2, 1), 4, method="sequential")
    assert sure.survival.eq(1).all()
    assert sure.rewards.eq(1).all()


def test_a_gradient_tells_to_go_on_living_though_each_step_earns_the_same() -> None:
    model, policy = make_simulator(GoesOn(limit=1.0)), DeterministicPolicy(1, 1)
    torch.nn.init.constant_(policy.network.layers[-1].bias, 0.5)  # 0.46 a step: too far after the second
    module = PolicyModule(policy, model, 4, "sequential")
    loss = module.loss(TensorDict({"observation": torch.full((1, 1), 0.07)}, 1))
    assert -loss.item() == pytest.approx(2.5, abs=0.4)  # the second state is just at the limit
    loss.backward()
    assert policy.network.layers[-1].bias.grad > 0  # to be lowered


def test_values_of_an_episode_that_may_end_have_their_closed_form() -> None:
    """Steps that earn 1 and are survived by one half are worth ``1 / (1 - 0.5 * 0.9)`` without end."""
    bootstrap = ValueBootstrap(1, discount=0.9, trace=0.7)
    value = 1 / (1 - 0.5 * 0.9)
    for network in (bootstrap.critic, bootstrap.target):
        torch.nn.init.constant_(network.network[-1].bias, value)
        network.value_scaler.is_fitted.fill_(True)
    survival = (0.5 ** torch.arange(5)).expand(3, 5)
    imagined = Imagined(torch.zeros(3, 5, 1), torch.zeros(3, 4, 1), survival[:, :-1], torch.zeros(3, 4, 1), survival)
    torch.testing.assert_close(bootstrap.returns(imagined), torch.full((3,), value))
    assert bootstrap.loss(imagined).item() == pytest.approx(0, abs=1e-10)


def test_it_learns_where_episodes_end() -> None:
    torch.manual_seed(0)
    data, module = falls(), make_module()
    module.fit_statistics(data)
    optimizer = torch.optim.Adam(module.trained_parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        loss, metrics = module.loss_and_metrics(data)
        loss.backward()
        optimizer.step()
    assert metrics["continuation_loss"] < 0.05
    survival = module.world_model.survival(torch.tensor([[2.0, 0.0, 0.8, 1.3, 0.0]]).unsqueeze(-1))
    torch.testing.assert_close(survival, torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]]), rtol=0, atol=0.1)


def test_steps_that_fill_up_a_slice_count_for_nothing() -> None:
    data, module = falls(), make_module()
    absurd = data.clone()
    for name in ("observation", "reward"):
        absurd["next", name][~data["mask"]] = 1e3
    absurd["next", "terminated"][~data["mask"]] ^= True
    module.fit_statistics(absurd)
    assert module.world_model.state_scaler.scale.item() < 2
    expected = module.loss_and_metrics(data)[1]
    for name, value in module.loss_and_metrics(absurd)[1].items():
        torch.testing.assert_close(value, expected[name])
    alone = data[:1].exclude("mask")
    once = torch.cat([alone, alone]).set("mask", torch.tensor([[True] * 6, [False] * 6]))
    torch.testing.assert_close(module.loss(once), module.loss(alone))
    teacher = TeacherModule(MarkovWorldModel(1, 1, hidden_dim=8), transitions=10_000)
    teacher.fit_statistics(absurd)
    torch.testing.assert_close(teacher.loss(absurd), teacher.loss(data))


def test_statistics_are_of_the_steps_that_half_of_the_sequences_have() -> None:
    mask = torch.tensor([[True] * 4, [True, True, False, False], [True] * 3 + [False]])
    rows = torch.arange(12.0).view(3, 4)
    (kept,) = _without_filling(mask, rows)
    assert torch.equal(kept, rows[[0, 2], :3])


def test_the_end_is_learned_from_what_was_recorded_alone() -> None:
    torch.manual_seed(0)
    data, policy = falls(8), DeterministicPolicy(1, 1, hidden_dim=8)
    data["mask"][0, -1] = False
    teacher = TeacherModule(MarkovWorldModel(1, 1, hidden_dim=8))
    teacher.fit_statistics(data)
    mixed = teacher.add_to(data, policy)
    weight = mixed["recorded_weight"]
    assert torch.equal(weight[:4] > 0, data["mask"][:4])
    assert weight[4:].eq(0).all()
    assert weight.mean().item() == pytest.approx(1)
    assert torch.equal(mixed["next", "terminated"][:4], data["next", "terminated"][:4])
    assert torch.equal(mixed["mask"][:4], data["mask"][:4])
    module = make_module()
    module.fit_statistics(data)
    other = mixed.clone()
    other["next", "terminated"][4:] = True
    losses = [module.loss_and_metrics(each)[1]["continuation_loss"] for each in (mixed, other)]
    assert losses[0] == losses[1]
    halves = [module.loss_and_metrics(half)[1]["continuation_loss"] for half in mixed.chunk(2)]
    torch.testing.assert_close(sum(halves) / 2, losses[0])  # of `accumulate`


def test_nothing_learned_is_that_episodes_go_on() -> None:
    module = make_module()
    assert module.world_model.survival(torch.randn(2, 21, 1))[:, -1].min() > 0.8


def test_few_ends_are_told_in_low_precision_too() -> None:
    model, states = make_module().world_model, torch.randn(2, 101, 1, requires_grad=True)
    torch.nn.init.normal_(model.continuation.network[-1].weight, std=0.1)
    expected = model.survival(states)
    with torch.autocast("cpu", torch.bfloat16):
        survival = model.survival(states)
    torch.testing.assert_close(survival, expected)
    survival[:, -1].sum().backward()
    assert states.grad[:, 1:].ne(0).all()


def test_the_judge_counts_rewards_as_far_as_an_episode_goes_on() -> None:
    data, policy = falls(8), DeterministicPolicy(1, 1, hidden_dim=8)
    teacher = TeacherModule(
        MarkovWorldModel(1, 1, hidden_dim=8, reward_fn=lambda state, *_: torch.ones_like(state[..., 0]))
    )
    teacher.fit_statistics(data)
    start, survival = torch.zeros(2, 1), make_simulator(GoesOn()).survival
    assert teacher.judge(start, 4, policy).tolist() == [4, 4]
    assert teacher.judge(start, 4, policy, survival=survival).tolist() == pytest.approx([1 + 0.5 + 0.25 + 0.125] * 2)


def test_a_batch_that_does_not_tell_where_episodes_ended_is_refused() -> None:
    data, module = falls(4), make_module()
    module.fit_statistics(data)
    del data["next", "terminated"]
    with pytest.raises(ValueError, match="continuation needs batches that tell where episodes were terminated"):
        module.loss(data)


def test_where_ends_are_learned_all_episodes_may_be_shorter_than_a_slice(make_trainer: Callable[..., Trainer]) -> None:
    data = ExperienceDataModule(
        "hiv_treatment", episode_length=10, num_envs=2, warmup_episodes=2, world_model_updates=2, slice_length=10
    )
    model = ActionsWorldModel(data.state_dim, data.action_dim, CausalTransformer(8, 1, 1, max_horizon=10))
    trainer = make_trainer(max_epochs=1)
    trainer.fit(WorldModelModule(model, continuation=partial(Continuation, hidden_dim=8)), data)
    assert data.longest_episode < 10
    assert trainer.callback_metrics["world_model/continuation_loss"].isfinite()
