from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import Trainer
from tensordict import TensorDict
from torch.utils.data import DataLoader

from lit_awm.data import ExperienceDataModule
from lit_awm.models import (
    ActionsWorldModel,
    CausalTransformer,
    DeterministicPolicy,
    MarkovWorldModel,
    RewardModel,
    WorldModel,
)
from lit_awm.modules import PolicyModule, WorldModelModule


def trajectories(batch: int = 64, horizon: int = 8) -> TensorDict:
    """A linear system ``s' = 0.9 s + a`` with reward ``s[0] + a[0]``, in awkward units."""
    actions = torch.rand(batch, horizon, 2) * 2 - 1
    states = [torch.randn(batch, 2)]
    for action in actions.unbind(1):
        states.append(0.9 * states[-1] + action)
    states = torch.stack(states, 1)
    reward = (states[:, :-1, :1] + actions[..., :1]) * 50
    observation = states * 100 + 1000
    return TensorDict(
        {
            "observation": observation[:, :-1],
            "action": actions,
            "next": {"observation": observation[:, 1:], "reward": reward},
        },
        batch_size=[batch, horizon],
    )


def with_noise() -> TensorDict:
    data = trajectories(64, 20)
    for each in (data, data["next"]):
        each["observation"] = torch.cat([each["observation"], torch.randn(64, 20, 1)], dim=-1)
    return data


def test_it_learns_a_linear_system_under_a_stock_trainer(make_trainer: Callable[..., Trainer]) -> None:
    torch.manual_seed(0)
    data = trajectories(256)
    module = WorldModelModule(
        ActionsWorldModel(2, 2, CausalTransformer(32, 2, 2, max_horizon=8)),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
    )
    module.fit_statistics(data)
    before = module.loss(data).item()
    loader = DataLoader(data, batch_size=64, shuffle=True, collate_fn=lambda batch: batch)
    make_trainer(max_epochs=60).fit(module, loader)
    after = module.loss(data).item()
    assert after < 0.02 * before


def test_what_is_not_explained_of_the_difference_between_twins_is_an_error() -> None:
    data = trajectories(4)
    data["twin_weight"] = torch.tensor([0.0, 4.0, 0.0, 0.0]).unsqueeze(1).repeat(1, 8)
    module = WorldModelModule(ActionsWorldModel(2, 2, CausalTransformer(8, 1, 1, max_horizon=8)), sensitivity_weight=3)
    module.fit_statistics(data)
    model = module.world_model
    predicted = model(data["observation"], data["action"])
    error = torch.cat([predicted.state, predicted.reward.unsqueeze(-1)], -1)
    error = error - torch.cat([data["next", "observation"], data["next", "reward"]], -1)
    target = torch.cat([data["next", "observation"], data["next", "reward"]], -1)
    shares = (error[1] - error[0]).square().sum(0) / (target[1] - target[0]).square().sum(0)
    loss, metrics = module.loss_and_metrics(data)
    torch.testing.assert_close(metrics["sensitivity_error"], shares.mean(), rtol=1e-3, atol=0)
    alone, _ = WorldModelModule(model, sensitivity_weight=0).loss_and_metrics(data)
    torch.testing.assert_close(loss, alone + 3 * shares.mean(), rtol=1e-3, atol=0)
    module.is_guided = True  # so that no more than its derivatives are used
    torch.testing.assert_close(module.loss(data), alone + shares.mean(), rtol=1e-3, atol=0)

    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)  # it thinks that nothing depends on actions: all is left unexplained
    same_start = data.clone()
    same_start["observation"][1, 0] = same_start["observation"][0, 0]
    _, metrics = module.loss_and_metrics(same_start)
    torch.testing.assert_close(metrics["sensitivity_error"], torch.tensor(1.0), rtol=1e-3, atol=0)
    parts = [module.loss_and_metrics(part)[1]["sensitivity_error"] for part in data.chunk(2)]
    torch.testing.assert_close(module.loss_and_metrics(data)[1]["sensitivity_error"], sum(parts) / 2)
    data["twin_weight"][:] = 0
    assert module.loss_and_metrics(data)[1]["sensitivity_error"] == 0


def test_a_model_that_reads_later_states_learns_no_differences() -> None:
    data = with_twins(trajectories(4))
    module = WorldModelModule(MarkovWorldModel(2, 2, hidden_dim=8))
    module.fit_statistics(data)
    _, metrics = module.loss_and_metrics(data)
    assert "sensitivity_error" not in metrics


def with_twins(data: TensorDict) -> TensorDict:
    """Trajectories, each with a twin whose actions are off by a fiftieth."""
    twins, shift = data.clone(), 0.02 * torch.randn_like(data["action"])
    effect = torch.zeros(len(data), 2)
    for step in range(data.shape[1]):
        effect = 0.9 * effect + shift[:, step]
        twins["next", "observation"][:, step] += 100 * effect
    twins["action"] += shift
    both = torch.stack([data, twins], dim=1).flatten(0, 1)
    both["twin_weight"] = 2.0 * (torch.arange(len(both)) % 2).unsqueeze(1).repeat(1, data.shape[1])
    return both


def test_with_twins_it_learns_what_actions_change_from_fewer_trajectories() -> None:
    error = dict[float, float]()
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        data, fresh = with_twins(trajectories(8)), trajectories(64)
        model = ActionsWorldModel(
            2, 2, CausalTransformer(32, 1, 2, 8), reward_fn=lambda state, action, after: after[..., 0]
        )
        module = WorldModelModule(model, sensitivity_weight=weight)
        module.fit_statistics(data)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(400):
            optimizer.zero_grad()
            module.loss(data).backward()
            optimizer.step()
        actions = fresh["action"].requires_grad_()
        last = model(fresh["observation"], actions).state[:, -1, 0]
        (gradient,) = torch.autograd.grad(last.sum(), actions)
        right = 100 * 0.9 ** torch.arange(7, -1, -1.0)
        error[weight] = (gradient[..., 0] - right).square().mean().sqrt().item()
    assert error[1.0] < 0.7 * error[0.0]


def test_it_fits_alone_on_collected_experience(make_trainer: Callable[..., Trainer]) -> None:
    data = ExperienceDataModule("bioreactor", episode_length=10, num_envs=2, warmup_episodes=4, world_model_updates=3)
    module = WorldModelModule(ActionsWorldModel(data.state_dim, data.action_dim, CausalTransformer(8, 1, 1, 10)))
    trainer = make_trainer(max_epochs=2)
    trainer.fit(module, data)
    assert trainer.global_step == 6
    assert data.env_steps == 60
    assert module.world_model.state_scaler.is_fitted


def test_the_loss_is_the_error_in_standard_units() -> None:
    data = trajectories()
    model = ActionsWorldModel(2, 2, CausalTransformer(8, 1, 1, max_horizon=8))
    module = WorldModelModule(model)
    module.fit_statistics(data)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)  # predicts the mean change since the first step, and the mean reward
    moved = data["next", "observation"] - data["observation"][:, :1]
    errors = moved - moved.mean(0)
    expected = (errors / errors.square().mean((0, 1)).sqrt()).square().mean() + 1.0
    torch.testing.assert_close(module.loss(data), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("family", [MarkovWorldModel, ActionsWorldModel])
def test_what_is_far_away_counts_relative_to_its_distance(family: type[WorldModel]) -> None:
    model = family(2, 2)
    batch = trajectories(batch=1).clone()
    model.fit_statistics(torch.randn(50, 9, 2), torch.randn(50, 8, 2), torch.randn(50, 8))
    far = 1000 * model.state_scaler.scale
    batch["observation"][:] = 0
    batch["next", "observation"][:] = far
    batch["next", "reward"][:] = 1000
    with torch.no_grad():
        _, metrics = WorldModelModule(model).loss_and_metrics(batch)
    assert 50 < metrics["state_loss"] < 500  # ten deviations, wherever it is
    assert 50 < metrics["reward_loss"] < 500


def test_a_known_reward_and_a_clock_are_not_learned() -> None:
    data = trajectories()
    model = ActionsWorldModel(
        2, 2, CausalTransformer(8, 1, 1, max_horizon=8), reward_fn=lambda s, a, n: s[..., 0], clock_step=0.1
    )
    module = WorldModelModule(model)
    gradients = torch.autograd.grad(module.loss(data), [model.head.weight])[0]
    assert gradients[0].ne(0).any()
    assert gradients[1].eq(0).all()  # the row of the clock
    assert len(model.head.weight) == 2  # no row for the reward


def test_statistics_are_set_once() -> None:
    module = WorldModelModule(ActionsWorldModel(2, 2, CausalTransformer(8, 1, 1, max_horizon=8)))
    module.fit_statistics(trajectories())
    scale = module.world_model.state_scaler.scale.clone()
    module.fit_statistics(trajectories().apply(lambda value: 5 * value))
    assert torch.equal(module.world_model.state_scaler.scale, scale)


def test_data_longer_than_the_model_are_refused_before_the_first_step(make_trainer: Callable[..., Trainer]) -> None:
    data = ExperienceDataModule("cancer_treatment", episode_length=20)
    module = WorldModelModule(ActionsWorldModel(2, 1, CausalTransformer(8, 1, 1, max_horizon=10)))
    with pytest.raises(ValueError, match="max_horizon 10, got 20. Lower .* `slice_length`"):
        make_trainer(max_epochs=1).fit(module, data)
    assert data.env_steps == 0


@pytest.mark.usefixtures("without_code")
def test_a_compiled_model_is_fitted_alike() -> None:
    data, gradients = trajectories(), list[torch.Tensor]()
    for compile_model in (False, True):
        torch.manual_seed(0)
        model = ActionsWorldModel(2, 2, CausalTransformer(8, 1, 1, max_horizon=8))
        module = WorldModelModule(model, compile_model=compile_model)
        module.fit_statistics(data)
        found = torch.autograd.grad(module.loss(data), list(model.parameters()))
        gradients.append(torch.cat([each.flatten() for each in found]))
    torch.testing.assert_close(gradients[1], gradients[0])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_a_copy_of_a_compiled_module_trains_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    module = WorldModelModule(MarkovWorldModel(2, 1, 8), compile_model=True)
    batch = TensorDict(
        {
            "observation": torch.randn(4, 3, 2),
            "action": torch.rand(4, 3, 1),
            "next": {"observation": torch.randn(4, 3, 2), "reward": torch.randn(4, 3, 1)},
        },
        [4, 3],
    )
    module.fit_statistics(batch)
    module.loss(batch)
    twin = copy.deepcopy(module)
    twin.loss(batch).backward()
    assert all(parameter.grad is None for parameter in module.parameters())
    assert any(parameter.grad is not None for parameter in twin.parameters())


@pytest.mark.parametrize("ignore_noise", [True, False])
def test_noise_is_ignored_by_model_reward_and_policy_and_that_is_said(
    ignore_noise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = with_noise()
    model = ActionsWorldModel(3, 2, CausalTransformer(8, 1, 1, max_horizon=20), reward_fn=RewardModel(3, 2))
    module = WorldModelModule(model, ignore_noise=ignore_noise)
    said: list[str] = []
    monkeypatch.setattr("lit_awm.modules.world_model.rank_zero_info", said.append)
    module.fit_statistics(data)
    assert [message[:55] for message in said] == [
        "ActionsWorldModel takes dimensions 2 of 3 for noise and"
    ] * ignore_noise
    assert model.state_scaler.ignored.tolist() == [False, False, ignore_noise]
    assert isinstance(model.reward_fn, RewardModel)
    assert model.reward_fn.state_scaler.ignored.tolist() == [False, False, ignore_noise]
    policy = PolicyModule(DeterministicPolicy(3, 2), model, imagination_horizon=20)
    policy.adopt_statistics()
    assert policy.policy.state_scaler.ignored.tolist() == [False, False, ignore_noise]
    loss = module.loss(data)
    data["next", "observation"][..., 2] += 100
    assert (module.loss(data) == loss) == ignore_noise


def test_what_a_known_reward_reads_is_not_ignored() -> None:
    for reads, ignored in ((slice(2), True), (slice(3), False)):
        model = MarkovWorldModel(3, 2, 8, reward_fn=lambda state, action, after, reads=reads: after[..., reads].sum(-1))
        WorldModelModule(model).fit_statistics(with_noise())
        assert model.state_scaler.ignored.tolist() == [False, False, ignored]


def test_what_has_been_decided_is_not_decided_again() -> None:
    model = MarkovWorldModel(3, 2, 8)
    WorldModelModule(model).fit_statistics(with_noise(), torch.tensor([False, True, False]))
    assert model.state_scaler.ignored.tolist() == [False, True, False]


def test_where_everything_is_noise_all_of_it_is_read() -> None:
    data = trajectories(64, 20)
    for each in (data, data["next"]):
        each["observation"] = torch.cat([torch.randn(64, 20, 1), torch.arange(20.0).expand(64, -1).unsqueeze(-1)], -1)
    module = WorldModelModule(MarkovWorldModel(2, 2, 8, clock_step=1.0))
    module.fit_statistics(data)
    assert not module.world_model.state_scaler.ignored.any()
    assert module.loss(data).isfinite()


def test_members_that_ignore_some_components_disagree_about_the_others() -> None:
    data, model = with_noise(), MarkovWorldModel(3, 2, 8, num_members=3)
    WorldModelModule(model).fit_statistics(data)
    assert model.state_scaler.ignored.any()
    states, actions = data["observation"], data["action"]
    spread = model.members(states, actions).state.std(dim=0, correction=0) / model.error_scale
    torch.testing.assert_close(model.disagreement(states, actions), spread[..., :2].square().mean(-1).sqrt())
