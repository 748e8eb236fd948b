from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from tensordict import TensorDict
from torch import Tensor

from lit_awm.models import ActionsWorldModel, CausalTransformer, DeterministicPolicy, MarkovWorldModel, RewardModel
from lit_awm.modules import TeacherModule, WorldModelModule


def walks(batch: int = 64, horizon: int = 6) -> TensorDict:
    """Sums of actions, with a reward that jumps where the sum is above 0."""
    actions = torch.rand(batch, horizon, 1) * 2 - 1
    states = torch.cat([torch.rand(batch, 1, 1) - 0.5, actions], dim=1).cumsum(1)
    after = {"observation": states[:, 1:], "reward": (states[:, 1:] > 0).float()}
    rows = {"observation": states[:, :-1], "action": actions, "next": after}
    return TensorDict(rows, batch_size=[batch, horizon])


def make_module(horizon: int = 6, **options: Any) -> WorldModelModule:
    torch.manual_seed(0)
    backbone = CausalTransformer(hidden_dim=8, num_layers=1, num_heads=1, max_horizon=horizon)
    model = ActionsWorldModel(1, 1, backbone, reward_fn=RewardModel(1, 1, hidden_dim=32))
    return WorldModelModule(model, **options)


def gradients(module: WorldModelModule, metric: str, batch: TensorDict) -> dict[str, bool]:
    """Return which parameters a part of the loss depends on."""
    model = module.world_model
    assert isinstance(model.reward_fn, RewardModel)
    loss = module._reward_loss(model.reward_fn, batch) if metric == "reward_loss" else module.loss(batch)
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: gradient is not None for name, gradient in zip(names, found, strict=True)}


def test_a_reward_that_is_learned_by_itself_does_not_touch_what_predicts_states() -> None:
    module, batch = make_module(), walks()
    module.fit_statistics(batch)
    depends = gradients(module, "reward_loss", batch)
    assert all(depends[name] == name.startswith("reward_fn.") for name in depends)
    assert all(gradients(module, "loss", batch).values())
    assert module.world_model.output_dim == 1


def test_an_imagined_reward_is_that_of_the_imagined_step() -> None:
    module, batch = make_module(), walks()
    module.fit_statistics(batch)
    model, reward_fn = module.world_model, module.world_model.reward_fn
    assert isinstance(reward_fn, RewardModel)
    states, rewards = model(batch["observation"], batch["action"])
    before = torch.cat([batch["observation"][:, :1], states[:, :-1]], dim=1)
    torch.testing.assert_close(rewards, reward_fn(before, batch["action"], states))


def test_it_reads_and_writes_the_units_of_the_world_model() -> None:
    module, batch = make_module(), walks()
    batch["next", "reward"] *= 1000
    module.fit_statistics(batch)
    reward_fn = module.world_model.reward_fn
    assert isinstance(reward_fn, RewardModel)
    assert reward_fn.reward_scaler.scale.item() > 100
    assert torch.equal(reward_fn.state_scaler.scale, module.world_model.state_scaler.scale)
    metrics = module.loss_and_metrics(batch)[1]
    assert metrics["reward_loss"] < 10


def test_rewards_are_learned_from_what_was_recorded_alone() -> None:
    torch.manual_seed(0)
    data, policy = walks(8), DeterministicPolicy(1, 1, hidden_dim=8)
    module = make_module()
    module.fit_statistics(data)
    reward_fn = module.world_model.reward_fn
    assert isinstance(reward_fn, RewardModel)
    teacher = TeacherModule(MarkovWorldModel(1, 1, hidden_dim=8, reward_fn=reward_fn.forward))
    teacher.fit_statistics(data)
    assert not any("reward" in name for name, _ in teacher.named_parameters())
    mixed = teacher.add_to(data, policy)
    other = mixed.clone()
    other["next", "reward"][4:] = 100.0
    first, second = (module.loss_and_metrics(each)[1]["reward_loss"] for each in (mixed, other))
    assert first == second
    halves = [module.loss_and_metrics(half)[1]["reward_loss"] for half in mixed.chunk(2)]
    torch.testing.assert_close(sum(halves) / 2, first)  # of `accumulate`


def test_what_fills_up_an_episode_counts_for_nothing_however_absurd() -> None:
    module, batch = make_module(), walks(8)
    batch["mask"] = torch.ones(8, 6, dtype=torch.bool)
    batch["mask"][0, -1] = False
    module.fit_statistics(batch)
    batch["recorded_weight"] = batch["mask"].float() / batch["mask"].float().mean()
    absurd = batch.clone()
    absurd["next", "reward"][0, -1] = torch.nan
    first, second = (module.loss_and_metrics(each)[1]["reward_loss"] for each in (batch, absurd))
    assert first == second


def test_a_jump_is_learned() -> None:
    module = make_module()
    optimizer = torch.optim.Adam(module.trained_parameters(), lr=1e-2)
    module.fit_statistics(walks(256))
    for _ in range(200):
        optimizer.zero_grad()
        module.loss(walks(256)).backward()
        optimizer.step()
    assert module.loss_and_metrics(walks(1024))[1]["reward_loss"] < 0.1


def test_members_of_an_ensemble_share_it() -> None:
    reward_fn = RewardModel(2, 1, hidden_dim=4)
    model = MarkovWorldModel(2, 1, 4, num_members=3, reward_fn=reward_fn)
    states, actions = torch.randn(5, 7, 2), torch.randn(5, 7, 1)
    prediction = model.members(states, actions)
    assert prediction.reward.shape == (3, 5, 7)
    torch.testing.assert_close(prediction.reward[1], reward_fn(states, actions, prediction.state[1]))


def test_it_is_not_divided_between_processes() -> None:
    module = make_module()
    trainer: Any = SimpleNamespace(strategy=ModelParallelStrategy())
    module.trainer = trainer
    with pytest.raises(ValueError, match="reward must be null with ModelParallelStrategy, got a RewardModel"):
        module.configure_model()


@pytest.mark.parametrize("name", ["state_dim", "action_dim", "hidden_dim", "num_layers"])
def test_sizes_are_one_at_least(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        RewardModel(**{"state_dim": 1, "action_dim": 1, name: 0})


def test_it_is_differentiable_twice() -> None:
    reward_fn = RewardModel(2, 1, hidden_dim=4).double()

    def reward(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
        return reward_fn(state, action, after)

    inputs = [torch.randn(3, size, dtype=torch.double, requires_grad=True) for size in (2, 1, 2)]
    assert torch.autograd.gradcheck(reward, inputs)
