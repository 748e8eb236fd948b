from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from tensordict import TensorDict

from lit_awm.data import TrajectoryDataModule
from lit_awm.data.formats import write_rows
from lit_awm.models import ActionsWorldModel, CausalTransformer, Continuation, DeterministicPolicy, MarkovWorldModel
from lit_awm.modules import AlternatingModule, PolicyModule, SACModule, WorldModelModule

LENGTHS = (12, 3, 10, 9, 11, 8)  # steps of the episodes; a slice has eight


def record(path: Path, scale: float = 1.0) -> str:
    """Write episodes of a point that is pushed around, each in a place of its own; return where."""
    torch.manual_seed(0)
    episodes = []
    for number, length in enumerate(LENGTHS):
        actions = 2 * torch.rand(length, 1) - 1
        states = torch.cat([torch.full((1, 1), 100.0 * number), 100.0 * number + 0.1 * actions.cumsum(0)])
        done = torch.zeros(length, 1, dtype=torch.bool)
        done[-1] = True
        following = {"observation": states[1:], "reward": -states[1:].square(), "done": done, "terminated": done}
        steps = {"observation": states[:-1], "action": scale * actions, "next": following}
        ids = torch.full((length,), number)
        episodes.append(TensorDict(steps | {"collector": {"traj_ids": ids}}, batch_size=length))
    write_rows(path, torch.cat(episodes))
    return str(path)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return record(tmp_path / "steps.npz")


def make_module(data: TrajectoryDataModule) -> WorldModelModule:
    return WorldModelModule(ActionsWorldModel(data.state_dim, data.action_dim, CausalTransformer(8, 1, 1, 8)))


def make_data(path: str, **options: Any) -> TrajectoryDataModule:
    sizes: dict[str, Any] = {"slice_length": 8, "world_model_updates": 4, "world_model_batch_size": 3}
    return TrajectoryDataModule(path, **(sizes | {"teacher_updates": 2, "policy_updates": 4} | options))


def test_slices_lie_within_one_episode_and_short_ones_are_filled_up(
    make_trainer: Callable[..., Trainer], path: str
) -> None:
    data = make_data(path, validation_share=0.0)
    make_trainer(max_epochs=1).fit(make_module(data), data)
    seen = set[int]()
    for _ in range(100):
        batch = data.sample_trajectories()
        assert batch.shape == (3, 8)
        counts = batch.get("mask", torch.ones(3, 8, dtype=torch.bool))
        follows = (batch["next", "observation"][:, :-1] == batch["observation"][:, 1:]).all(-1)
        assert torch.equal(follows, counts[:, 1:])
        assert counts[:, 0].all()
        places = (batch["observation"][..., 0] / 100).round().int()
        assert torch.equal(counts.all(1), places[:, 0] != 1)
        seen |= set(places.flatten().tolist())
    assert seen == {0, 1, 2, 3, 4, 5}


def test_episodes_are_held_out_whole(make_trainer: Callable[..., Trainer], path: str) -> None:
    data = make_data(path, validation_share=0.4, seed=3)
    trained, held_out = (
        set((torch.cat(episodes)["observation"].flatten() / 100).round().int().tolist())
        for episodes in (data.training, data.held_out)
    )
    assert len(held_out) == 2
    assert trained | held_out == {0, 1, 2, 3, 4, 5}
    assert 1 in trained  # shorter than a slice
    assert not trained & held_out
    trainer = make_trainer(max_epochs=1)
    trainer.fit(make_module(data), data)
    assert trainer.callback_metrics["val/loss"].isfinite()
    assert data.buffer is not None
    assert len(data.buffer) == len(torch.cat(data.training))
    again, other = make_data(path, validation_share=0.4, seed=3), make_data(path, validation_share=0.4, seed=4)
    places = [{episode["observation"][0].item() for episode in each.held_out} for each in (data, again, other)]
    assert places[0] == places[1] != places[2]


def test_a_fit_resumes_equal_to_the_bit(make_trainer: Callable[..., Trainer], path: str, tmp_path: Path) -> None:
    def fit(epochs: int, checkpoint: Path | None = None) -> list[torch.Tensor]:
        torch.manual_seed(1)
        data = make_data(path)
        module, trainer = make_module(data), make_trainer(max_epochs=epochs)
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return [parameter.detach() for parameter in module.parameters()]

    whole, _ = fit(3), fit(2)
    resumed = fit(3, tmp_path / "2.ckpt")
    assert all(torch.equal(*pair) for pair in zip(whole, resumed, strict=True))


def make_alternating(data: TrajectoryDataModule, weight: float = 0.0, **options: Any) -> AlternatingModule:
    return AlternatingModule(
        data.state_dim,
        data.action_dim,
        world_model=partial(ActionsWorldModel, backbone=CausalTransformer(8, 1, 1, 8)),
        policy=partial(DeterministicPolicy, hidden_dim=8),
        policy_module=partial(PolicyModule, imagination_horizon=8, disagreement_weight=weight),
        teacher=partial(MarkovWorldModel, hidden_dim=8, **options),
    )


def test_a_policy_is_optimised_and_pays_for_disagreement(make_trainer: Callable[..., Trainer], path: str) -> None:
    data = make_data(path)
    module, trainer = make_alternating(data, weight=0.5, num_members=3), make_trainer(max_epochs=2)
    trainer.fit(module, data)
    assert trainer.callback_metrics["policy/disagreement"] > 0
    assert data.buffer is not None
    assert len(data.buffer) == len(torch.cat(data.training + data.held_out))  # nothing is held out
    assert not any("ensemble" in name for name in module.state_dict())
    module.double()
    batch = data.sample_initial_states().double()
    torch.manual_seed(0)
    paying = module.policy.loss_and_metrics(batch)
    module.policy.disagreement_weight = 0.0
    module.policy.forget()
    free = module.policy.loss_and_metrics(batch)
    torch.testing.assert_close(paying[0] - free[0], 0.5 * 8 * paying[1]["disagreement"], rtol=1e-6, atol=1e-6)


def test_disagreement_without_an_ensemble_is_refused(path: str) -> None:
    data = make_data(path)
    with pytest.raises(ValueError, match="disagreement_weight must be 0 without an ensemble, got 0.5"):
        make_alternating(data, weight=0.5)
    model = ActionsWorldModel(1, 1, CausalTransformer(8, 1, 1, 8))
    module = PolicyModule(DeterministicPolicy(1, 1), model, imagination_horizon=8, disagreement_weight=0.5)
    with pytest.raises(ValueError, match="disagreement_weight must be 0 without an ensemble, got 0.5"):
        module.check_ensemble()


def test_actions_are_scaled_to_those_of_a_policy(tmp_path: Path) -> None:
    path = record(tmp_path / "steps.npz", scale=20.0)
    with pytest.raises(ValueError, match=r"actions must lie in \[-1, 1\].*Give `action_range`"):
        make_data(path)
    data = make_data(path, action_range=[[-20.0, 20.0]])
    assert torch.cat(data.training)["action"].abs().max() <= 1


@pytest.mark.parametrize(
    "action_range",
    [
        [[-20.0, 20.0], [0.0, 1.0]],
        [[20.0, -20.0]],
        [[-float("inf"), float("inf")]],
        [[0.0, float("inf")]],
        [[2.0]],
        "ab",
    ],
)
def test_a_range_of_actions_must_be_finite_for_each_component(tmp_path: Path, action_range: Any) -> None:
    path = record(tmp_path / "steps.npz", scale=20.0)
    with pytest.raises(ValueError, match=r"action_range must hold finite \[low, high\] for each of 1 components"):
        make_data(path, action_range=action_range)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slice_length": 13}, "slice_length must be at most 12, the longest episode of 6, got 13"),
        ({"validation_share": 1.0}, "validation_share must be below 1, got 1.0"),
        ({"imagine_from": "end"}, "imagine_from must be one of start, anywhere, got 'end'"),
        ({"env": "cancer_treatment"}, "env must observe 1 numbers and take 1, as were recorded, got 2 and 1"),
        ({"policy_updates": 0}, "policy_updates must be at least 1, got 0"),
        ({"eval_episodes": 3}, "env must be given with env_options or eval_episodes, got None and 3 without"),
        ({"env_options": {"dt": 1}}, "env must be given with env_options or eval_episodes, got {'dt': 1} and 1"),
        ({"env": "cancer_treatment", "env_options": {"num_envs": 1}}, "env_options must not hold num_envs"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str, path: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_data(path, **options)


def test_an_agent_that_collects_is_refused(make_trainer: Callable[..., Trainer], path: str) -> None:
    data = make_data(path)
    with pytest.raises(ValueError, match="data must be an ExperienceDataModule for an agent"):
        make_trainer(max_epochs=1).fit(SACModule(1, 1, clock_step=None), data)


def test_ends_are_not_learned_from_a_recording_that_has_none(make_trainer: Callable[..., Trainer], path: str) -> None:
    data = make_data(path)
    for episode in [*data.training, *data.held_out]:
        episode["next", "terminated"].zero_()
    model = ActionsWorldModel(data.state_dim, data.action_dim, CausalTransformer(8, 1, 1, 8))
    with pytest.raises(ValueError, match="path must hold steps that are `terminated` for a world model with"):
        make_trainer(max_epochs=1).fit(WorldModelModule(model, continuation=Continuation), data)


def test_episodes_that_a_policy_has_had_are_held_out_again(make_trainer: Callable[..., Trainer], path: str) -> None:
    data = make_data(path)
    make_trainer(max_epochs=1).fit(make_alternating(data), data)
    make_trainer(max_epochs=1).fit(make_module(data), data)
    assert data.buffer is not None
    assert len(data.buffer) == len(torch.cat(data.training))
