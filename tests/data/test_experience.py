from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lit_awm.data import ExperienceDataModule, evaluate
from lit_awm.models import ActionsWorldModel, CausalTransformer, DeterministicPolicy, MarkovWorldModel
from lit_awm.modules import SACModule, WorldModelModule

SMALL: dict[str, Any] = {
    "episode_length": 10,
    "num_envs": 2,
    "warmup_episodes": 4,
    "world_model_updates": 2,
    "world_model_batch_size": 3,
    "policy_batch_size": 5,
}


@pytest.fixture
def collected(make_trainer: Callable[..., Trainer]) -> ExperienceDataModule:
    """A datamodule in the middle of a fit, after the warm-up and two more rounds."""
    data = ExperienceDataModule("bear_populations", {"initial_spread": 0.2}, slice_length=6, **SMALL)
    module = WorldModelModule(ActionsWorldModel(data.state_dim, data.action_dim, CausalTransformer(8, 1, 1, 10)))
    trainer = make_trainer(max_epochs=1)
    trainer.strategy.connect(module)
    data.trainer = trainer
    data.setup("fit")
    for _ in range(3):
        data.collect()
    return data


def test_sizes_are_those_of_the_environment() -> None:
    data = ExperienceDataModule("bear_populations", **SMALL)
    assert (data.state_dim, data.action_dim) == (4, 2)
    assert data.clock_step == pytest.approx(0.2)


@pytest.mark.parametrize(("length", "hold"), [(10, 10), (100, 10), (1000, 100)])
def test_random_actions_are_held_for_a_tenth_of_an_episode_and_ten_steps_at_least(length: int, hold: int) -> None:
    data = ExperienceDataModule("bear_populations", episode_length=length)
    assert data.mean_hold == hold


def test_the_warm_up_comes_first_then_one_round_at_a_time(collected: ExperienceDataModule) -> None:
    assert collected.env_steps == (4 + 2 + 2) * 10
    assert len(collected.buffer) == collected.env_steps


def test_a_trial_is_as_precise_as_an_evaluation_and_recorded_as_others_are(
    make_trainer: Callable[..., Trainer],
) -> None:
    data = ExperienceDataModule("glucose", trial=True, **SMALL)  # whose cost controls hardly change
    trainer = make_trainer(max_epochs=1)
    trainer.strategy.connect(WorldModelModule(MarkovWorldModel(data.state_dim, data.action_dim)))
    data.trainer = trainer
    data.setup("fit")
    data.collect()
    data.policy = DeterministicPolicy(data.state_dim, data.action_dim)
    earned = data.try_policy()
    assert earned == evaluate(data.eval_env, data.policy, None)["return"].mean()
    assert data.env_steps == (4 + 1) * 10
    assert {entry.dtype for entry in data.buffer[:].values(True, True) if entry.is_floating_point()} == {torch.float32}


def test_slices_are_consecutive_steps_of_one_episode(collected: ExperienceDataModule) -> None:
    for _ in range(20):
        batch = collected.sample_trajectories()
        assert batch.shape == (3, 6)
        assert torch.equal(batch["next", "observation"][:, :-1], batch["observation"][:, 1:])
        torch.testing.assert_close(batch["observation"][..., -1].diff(dim=1), torch.full((3, 5), 0.2))


def test_recorded_rewards_are_those_of_the_recorded_actions(collected: ExperienceDataModule) -> None:
    batch = collected.sample_trajectories()
    env = collected.env
    state, time = batch["observation"][..., :-1], (batch["observation"][..., -1] + 1) / 2 * env.duration
    next_state, reward = env.step_fn(state, (batch["action"] + 1) / 10, time)  # controls lie in [0, 0.2]
    torch.testing.assert_close(next_state, batch["next", "observation"][..., :-1])
    torch.testing.assert_close(reward, batch["next", "reward"].squeeze(-1))


def test_initial_states_are_recorded_first_states(collected: ExperienceDataModule) -> None:
    states = collected.sample_initial_states()["observation"]
    assert states.shape == (5, 4)
    assert states[:, -1].eq(-1).all()
    assert states[:, 0].std() > 0


def test_a_checkpoint_holds_the_rows_in_use_and_not_the_capacity(collected: ExperienceDataModule) -> None:
    segments = collected.state_dict()["experience"]
    assert sum(len(segment["rows"]["observation"]) for segment in segments) == collected.env_steps
    rows = [value for segment in segments for value in segment["rows"].values()]
    assert all(value.untyped_storage().nbytes() == value.nbytes for value in rows)


def test_a_restored_datamodule_collects_and_samples_the_same(
    collected: ExperienceDataModule, make_trainer: Callable[..., Trainer]
) -> None:
    state = collected.state_dict()
    collected.collect()
    expected = [collected.sample_trajectories(), collected.sample_initial_states()]

    restored = ExperienceDataModule("bear_populations", {"initial_spread": 0.2}, slice_length=6, seed=9, **SMALL)
    restored.trainer = collected.trainer
    restored.setup("fit")
    restored.load_state_dict(state)
    restored.collect()
    for ours, theirs in zip([restored.sample_trajectories(), restored.sample_initial_states()], expected, strict=True):
        assert (ours == theirs).all()


def test_episodes_that_all_leave_the_domain_are_named_before_they_are_learned_from(
    make_trainer: Callable[..., Trainer],
) -> None:
    data = ExperienceDataModule("hiv_treatment", **SMALL)
    with pytest.raises(ValueError, match="slice_length must be at most .*every episode of hiv_treatment ended early"):
        fit_world_model(make_trainer, data)
    assert data.env_steps == 0


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_what_is_not_finite_is_named_with_the_action_that_caused_it(
    collected: ExperienceDataModule, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    env = collected.env.base_env
    step = env.guarded_step

    def broken(state: torch.Tensor, control: torch.Tensor, time: torch.Tensor) -> tuple[torch.Tensor, ...]:
        next_state, reward, is_over = step(state, control, time)
        is_late = time > 1.5
        if what == "reward":
            return next_state, torch.where(is_late, torch.nan, reward), is_over
        return torch.where(is_late.unsqueeze(-1), torch.inf, next_state), reward, is_over

    monkeypatch.setattr(env, "guarded_step", broken)
    steps, before = collected.env_steps, len(collected.buffer)
    value = "reward nan" if what == "reward" else r"observation \[inf, inf"
    with pytest.raises(ValueError, match=rf"bear_populations emitted .*: action \[-?\d.*\] in .* at step \d.*{value}"):
        collected.collect()
    assert (collected.env_steps, len(collected.buffer)) == (steps, before)


def test_episodes_that_end_early_are_filled_up_if_slices_do_not_fit(make_trainer: Callable[..., Trainer]) -> None:
    options = {"bounds": "ignore", "B": 3.0}  # many controls are fatal to the bacteria, not all
    data = ExperienceDataModule("bacteria", options, **(SMALL | {"num_envs": 8, "warmup_episodes": 16}))
    fit_world_model(make_trainer, data)
    assert data.buffer[:]["next", "reward"].min() == -1e4
    batch = torch.cat([each for each in (data.sample_trajectories() for _ in range(10)) if "mask" in each.keys()])
    fatal, ended = batch["next", "reward"] == -1e4, batch["next", "terminated"]
    assert batch.shape[1] == data.slice_length
    assert fatal.any()
    assert torch.equal(fatal & batch["mask"].unsqueeze(-1), fatal.cumsum(1).eq(1) & fatal)  # of an end, the first
    assert ended[fatal].all()


def fit_world_model(make_trainer: Callable[..., Trainer], data: ExperienceDataModule, **options: Any) -> Trainer:
    module = WorldModelModule(ActionsWorldModel(data.state_dim, data.action_dim, CausalTransformer(8, 1, 1, 10)))
    trainer = make_trainer(**({"max_epochs": 1} | options))
    trainer.fit(module, data)
    return trainer


def test_random_streams_of_two_seeds_differ(make_trainer: Callable[..., Trainer]) -> None:
    starts = []
    for seed in (0, 0, 1):
        data = ExperienceDataModule("bear_populations", {"initial_spread": 0.2}, seed=seed, **SMALL)
        fit_world_model(make_trainer, data)
        starts.append(data.buffer[:]["observation"][data.buffer[:]["is_init"].squeeze(-1)])
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_a_further_fit_goes_on_with_the_experience_of_the_first(make_trainer: Callable[..., Trainer]) -> None:
    data = ExperienceDataModule("bear_populations", {"initial_spread": 0.2}, **SMALL)
    fit_world_model(make_trainer, data)
    rows = data.buffer[:]["observation"].clone()
    assert len(rows) == 40
    assert torch.equal(torch.cat([each["rows"]["observation"] for each in data.state_dict()["experience"]]), rows)
    fit_world_model(make_trainer, data)
    assert torch.equal(data.buffer[:]["observation"][:40], rows)
    assert len(data.buffer) == data.env_steps == 60
    assert data.buffer[:]["collector", "traj_ids"].unique().numel() == 6


def test_the_oldest_steps_give_way_when_the_buffer_is_full(collected: ExperienceDataModule) -> None:
    small = ExperienceDataModule("bear_populations", capacity=50, slice_length=6, **SMALL)
    small.trainer = collected.trainer
    small.setup("fit")
    for _ in range(5):
        small.collect()
    assert len(small.buffer) == 50
    assert small.env_steps == 120
    for _ in range(20):
        batch = small.sample_trajectories()
        assert torch.equal(batch["next", "observation"][:, :-1], batch["observation"][:, 1:])
    restored = ExperienceDataModule("bear_populations", capacity=50, slice_length=6, **SMALL)
    restored.trainer = collected.trainer
    restored.setup("fit")
    restored.load_state_dict(small.state_dict())
    for data in (small, restored):
        torch.manual_seed(5)
        data.collect()
    for key in ("observation", "action", ("next", "reward")):
        assert torch.equal(small.buffer[:][key], restored.buffer[:][key])
    assert 50 <= sum(len(segment["rows"]["action"]) for segment in restored.state_dict()["experience"]) <= 70


@pytest.mark.parametrize(("limit", "steps"), [(0.5, 2), (3, 3), (2, 2)])
def test_a_limit_of_the_trainer_is_applied_once(make_trainer: Callable[..., Trainer], limit: float, steps: int) -> None:
    data = ExperienceDataModule("bear_populations", **(SMALL | {"world_model_updates": 4}))
    assert fit_world_model(make_trainer, data, limit_train_batches=limit, max_epochs=2).global_step == 2 * steps


def test_overfitting_a_batch_is_refused(make_trainer: Callable[..., Trainer]) -> None:
    data = ExperienceDataModule("bear_populations", **SMALL)
    with pytest.raises(ValueError, match="overfit_batches must be 0"):
        fit_world_model(make_trainer, data, overfit_batches=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"env": "cancer"}, "Did you mean 'cancer_treatment'"),
        ({"env_options": {"integrater": "euler"}}, "Did you mean 'integrator'"),
        ({"slice_length": 11}, "slice_length must be at most episode_length 10, got 11. Lower"),
        ({"slice_length": 0}, "slice_length must be at least 1, got 0"),
        ({"slice_length": 6, "round_length": 5}, "slice_length must be at most round_length 5, got 6"),
        ({"round_length": 0}, "round_length must be at least 1, got 0"),
        ({"round_length": 11, "slice_length": 5}, "round_length must be at most episode_length 10, got 11"),
        ({"warmup_episodes": 3}, "warmup_episodes must be a multiple of num_envs 2, got 3"),
        ({"warmup_episodes": 0}, "warmup_episodes must be at least 1, got 0"),
        ({"policy_updates": 0}, "policy_updates must be at least 1, got 0"),
        ({"world_model_batch_size": -1}, "world_model_batch_size must be at least 1, got -1"),
        ({"exploration_noise": -0.1}, "exploration_noise must be at least 0"),
        ({"mean_hold": 0.5}, "mean_hold must be at least 1, got 0.5"),
        ({"capacity": 39}, "capacity must hold the warm-up of 40 steps, got 39"),
        ({"capacity": 49, "trial": True}, "capacity must hold the warm-up of 40 steps and a trial of 10, got 49"),
        ({"env_options": {"episode_length": 5}}, "env_options must not hold episode_length"),
        ({"env_options": {"num_envs": 5}}, "env_options must not hold num_envs"),
        ({"episode_length": 0, "slice_length": 1}, "episode_length must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ExperienceDataModule(**(SMALL | options))


def test_a_round_may_be_shorter_than_an_episode(make_trainer: Callable[..., Trainer]) -> None:
    data = ExperienceDataModule("bear_populations", **(SMALL | {"round_length": 4}))
    fit_world_model(make_trainer, data, max_epochs=2)
    assert data.env_steps == (4 + 2) * 4
    assert data.slice_length == 4
    clocks = data.buffer[:]["observation"][:, -1].view(-1, 4)
    torch.testing.assert_close(clocks, torch.tensor([-1.0, -0.8, -0.6, -0.4]).expand(6, 4))  # of 10 steps an episode
    assert not data.buffer[:]["next", "terminated"].any()
    agent = SACModule(data.state_dim, data.action_dim)
    with pytest.raises(ValueError, match="round_length must be None for an agent, which learns from returns, got 4"):
        make_trainer(max_epochs=1).fit(agent, ExperienceDataModule("bear_populations", **(SMALL | {"round_length": 4})))


def test_agents_and_world_models_need_data_of_their_own(make_trainer: Callable[..., Trainer]) -> None:
    data = ExperienceDataModule("bear_populations", **(SMALL | {"slice_length": 2, "agent_updates": 2}))
    model = ActionsWorldModel(data.state_dim, data.action_dim, CausalTransformer(8, 1, 1, 10))
    make_trainer(max_epochs=1).fit(WorldModelModule(model), data)
    with pytest.raises(ValueError, match="a module of the same kind, got SACModule.*Make a new datamodule"):
        make_trainer(max_epochs=1).fit(SACModule(data.state_dim, data.action_dim), data)
