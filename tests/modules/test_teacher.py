from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from tensordict import TensorDict
from torch import Tensor

from lit_awm.data import ExperienceDataModule
from lit_awm.models import (
    ActionsWorldModel,
    CausalTransformer,
    DeterministicPolicy,
    MarkovWorldModel,
    Policy,
    SimulatorWorldModel,
)
from lit_awm.modules import AlternatingModule, DecaySchedule, PolicyModule, TeacherModule, ValueBootstrap
from lit_awm.modules.teacher import _move_within

BATCH, HORIZON = 6, 8


def trajectories() -> TensorDict:
    """Random walks in two dimensions, under random actions of one."""
    states = torch.randn(BATCH, HORIZON + 1, 2).cumsum(1)
    after = {"observation": states[:, 1:], "reward": torch.randn(BATCH, HORIZON, 1)}
    rows = {"observation": states[:, :-1], "action": torch.rand(BATCH, HORIZON, 1) * 2 - 1, "next": after}
    return TensorDict(rows, batch_size=[BATCH, HORIZON])


def make_teacher(batch: TensorDict, **options: Any) -> TeacherModule:
    teacher = TeacherModule(MarkovWorldModel(2, 1, hidden_dim=8), **options)
    teacher.fit_statistics(batch)
    return teacher


def make_policy() -> DeterministicPolicy:
    policy = DeterministicPolicy(2, 1, hidden_dim=8)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return policy


def test_half_of_a_batch_is_recorded_and_half_labelled_by_the_teacher() -> None:
    batch = trajectories()
    teacher = make_teacher(batch)
    mixed = teacher.add_to(batch, make_policy())
    half = BATCH // 2
    assert mixed.shape == batch.shape
    for name in ("observation", "action", ("next", "observation"), ("next", "reward")):
        assert torch.equal(mixed[name][:half], batch[name][:half])
    labelled = mixed[half:]
    assert not torch.equal(labelled["action"], batch["action"][half:])
    assert torch.equal(labelled["observation"][:, 1:], labelled["next", "observation"][:, :-1])
    prediction = teacher.world_model(labelled["observation"], labelled["action"])
    torch.testing.assert_close(labelled["next", "observation"], prediction.state)
    torch.testing.assert_close(labelled["next", "reward"].squeeze(-1), prediction.reward)


def test_labelled_actions_are_the_policys_or_recorded_ones_but_for_noise_that_is_held() -> None:
    batch, policy = trajectories(), make_policy()
    quiet = {"noise": 0, "twin_noise": 0}
    labelled = torch.cat([make_teacher(batch, **quiet).add_to(batch, policy)[BATCH // 2 :] for _ in range(8)])
    follows = (labelled["action"] - policy(labelled["observation"])).abs().amax((1, 2)) < 1e-6
    repeats = (labelled["action"].unsqueeze(1) == batch["action"]).flatten(2).all(2).any(1)
    assert (follows ^ repeats).all()
    assert follows.any()
    assert repeats.any()

    teacher = make_teacher(batch, noise=0.5, mean_hold=4.0)
    noise = teacher._draw_deviations(500) * teacher._draw_noise(500, 100)
    assert (noise.diff(dim=1) != 0).float().mean().item() == pytest.approx(1 / 4, abs=0.02)
    assert noise.std(dim=(1, 2)).max() > 3 * noise.std(dim=(1, 2)).median() / 2  # each trajectory has its own
    assert noise.square().mean().sqrt().item() == pytest.approx(0.5 / 5**0.5, rel=0.1)
    loud = make_teacher(batch, noise=5.0).add_to(batch, policy)
    assert loud["action"].abs().max() <= 1


@pytest.mark.parametrize(("horizon", "hold"), [(40, 10), (400, 40)])
def test_noise_is_held_for_a_tenth_of_a_trajectory_and_ten_steps_at_least(horizon: int, hold: int) -> None:
    teacher = make_teacher(trajectories())
    changes = teacher._draw_noise(1000, horizon).diff(dim=1) != 0
    assert changes.float().mean().item() == pytest.approx(1 / hold, rel=0.05)


def test_twins_have_the_same_beginning_and_nearly_the_same_actions() -> None:
    batch, policy = torch.cat([trajectories(), trajectories()]), make_policy()  # six labelled ones: three pairs
    mixed = make_teacher(batch, noise=0.5, twin_noise=0.1, mean_hold=2.0).add_to(batch, policy)
    assert mixed["twin_weight"][:, 0].tolist() == [0.0] * 6 + [0.0, 4.0] * 3
    assert (mixed["twin_weight"] == mixed["twin_weight"][:, :1]).all()
    first, second = mixed[6::2], mixed[7::2]
    assert torch.equal(first["observation"][:, 0], second["observation"][:, 0])
    apart = (second["action"] - first["action"]).abs()
    assert apart.max() < 0.5
    assert (apart > 0).all()
    assert second["action"].abs().max() <= 1


def test_labels_come_nearer_to_the_policy_over_the_batches_and_go_on_so_when_resumed() -> None:
    batch, policy = torch.cat([trajectories(), trajectories()]), make_policy()
    options = {name: DecaySchedule(start, 0.1, period=4) for name, start in (("noise", 0.5), ("twin_noise", 0.1))}

    def apart(teacher: TeacherModule) -> float:
        teacher.forget()  # as after every update of it
        torch.manual_seed(0)
        mixed = teacher.add_to(batch, policy)
        return float((mixed[7::2]["action"] - mixed[6::2]["action"]).square().mean().sqrt())

    teacher = make_teacher(batch, **options)
    distances = [apart(teacher) for _ in range(9)]
    assert distances[:8] == [distances[0]] * 4 + [distances[4]] * 4
    assert distances[4] == pytest.approx(distances[0] / 10, rel=0.3)  # some actions are at their bounds
    assert distances[8] == pytest.approx(distances[4] / 10, rel=0.3)
    assert teacher._draw_deviations(500).max() == pytest.approx(0.5 / 100, rel=0.05)
    resumed = make_teacher(batch, **options)
    resumed.load_state_dict(teacher.state_dict())
    assert apart(resumed) == distances[8]


def test_noise_between_twins_turns_round_at_the_bounds() -> None:
    actions, by = torch.tensor([0.5, 0.95, 0.95, -1.0]), torch.tensor([0.1, 0.1, -0.1, -0.2])
    torch.testing.assert_close(_move_within(actions, by), torch.tensor([0.6, 0.85, 0.85, -0.8]))


@pytest.mark.parametrize(("batch_size", "twin_noise"), [(2, 0.1), (6, 0.1), (12, 0.0)])
def test_a_trajectory_whose_twin_is_in_another_batch_is_none(batch_size: int, twin_noise: float) -> None:
    batch = torch.cat([trajectories(), trajectories()])[:batch_size]
    teacher = make_teacher(batch, twin_noise=twin_noise)
    for _ in range(12):  # more than are labelled at once
        mixed = teacher.add_to(batch, make_policy())
        twins = mixed["twin_weight"][:, 0].nonzero().flatten()
        assert len(twins) == (batch_size // 2 // 2 if twin_noise else 0)
        assert torch.equal(mixed["observation"][twins, 0], mixed["observation"][twins - 1, 0])


def test_trajectories_far_from_the_data_are_left_out() -> None:
    batch = trajectories()
    teacher = make_teacher(batch)
    teacher.world_model.difference_scaler.scale.fill_(1e4)
    mixed = teacher.add_to(batch, make_policy())
    repeats = (mixed["next", "observation"].unsqueeze(1) == batch["next", "observation"]).flatten(2).all(2).any(1)
    assert repeats.all()  # recorded ones are in their places
    assert not mixed["twin_weight"].any()


def test_both_of_a_pair_must_be_near_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = torch.cat([trajectories(), trajectories()])
    teacher = make_teacher(batch)
    only_second = torch.arange(10 * 6) % 2 == 1
    monkeypatch.setattr(teacher, "_is_near", lambda *_: only_second)
    mixed = teacher.add_to(batch, make_policy())
    assert not mixed["twin_weight"].any()
    assert not torch.equal(mixed["action"][7], mixed["action"][6])  # it was labelled all the same


def test_the_teacher_learns_single_steps_from_some_of_them() -> None:
    batch = trajectories()
    teacher = make_teacher(batch, transitions=10**6)
    model = teacher.world_model
    errors = (model(batch["observation"], batch["action"]).state - batch["next", "observation"]) / model.error_scale
    rewards = model(batch["observation"], batch["action"]).reward - batch["next", "reward"].squeeze(-1)
    expected = errors.square().mean() + (rewards / model.reward_scaler.scale).square().mean()
    torch.testing.assert_close(teacher.loss(batch), expected)
    few = make_teacher(batch, transitions=3)
    few.world_model.load_state_dict(model.state_dict())
    assert few.loss(batch) != few.loss(batch)  # others, each time


def test_what_has_been_labelled_is_saved_and_dropped_when_the_teacher_changes() -> None:
    batch, policy = trajectories(), make_policy()
    teacher = make_teacher(batch)
    teacher.add_to(batch, policy)
    other = make_teacher(batch)
    other.load_state_dict(teacher.state_dict())
    again, expected = other.add_to(batch, policy), teacher.add_to(batch, policy)
    assert (again == expected).all()
    teacher.forget()
    assert not (teacher.add_to(batch, policy)["action"] == other.add_to(batch, policy)["action"]).all()


def make_run(
    judge: bool = True, judge_horizon: int | None = None, trial: bool = False, **policy_options: Any
) -> tuple[AlternatingModule, ExperienceDataModule]:
    data = ExperienceDataModule(
        "bioreactor",
        episode_length=10,
        num_envs=2,
        warmup_episodes=4,
        turns=2,
        teacher_updates=4,
        world_model_updates=4,
        policy_updates=2,
        trial=trial,
    )
    module = AlternatingModule(
        data.state_dim,
        data.action_dim,
        world_model=lambda s, a, **known: ActionsWorldModel(s, a, CausalTransformer(8, 1, 1, 10), **known),
        policy=partial(DeterministicPolicy, hidden_dim=8),
        policy_module=partial(PolicyModule, **{"imagination_horizon": 10, **policy_options}),
        teacher=partial(MarkovWorldModel, hidden_dim=8),
        judge=judge,
        judge_horizon=judge_horizon,
        clock_step=data.clock_step,
    )
    return module, data


def test_it_teaches_within_a_run(make_trainer: Callable[..., Trainer]) -> None:
    module, data = make_run(judge=False)
    assert module.phases == ("teacher", "world_model", "policy")
    before = {name: value.clone() for name, value in module.named_parameters()}
    trainer = make_trainer(max_epochs=2)
    trainer.fit(module, data)
    moved = {name.split(".")[0] for name, value in module.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"teacher", "world_model", "policy"}
    assert trainer.callback_metrics.keys() >= {"teacher/loss", "world_model/loss", "policy/return"}
    assert "policy/judged_return" not in trainer.callback_metrics
    assert (module.model_updates.item(), module.policy_updates.item()) == (8, 4)


class Tape(Callback):
    """Record how far the policy at the end of each pass is, by the teacher, above the best at its turns' beginnings."""

    def __init__(self) -> None:
        self.returns: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: TensorDict, batch_idx: int) -> None:
        if batch["phase"] == "policy" and (batch_idx == 0 or self.last != "policy"):
            self.initial = batch["observation"]
            self.policies.append(copy.deepcopy(pl_module.policy.policy))
        self.last = batch["phase"]

    def on_train_epoch_start(self, *_: Any) -> None:
        self.policies: list[Policy] = []
        self.last = ""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        ends = [pl_module.teacher.judge(self.initial, 10, policy).mean().item() for policy in self.policies]
        self.returns.append(
            pl_module.teacher.judge(self.initial, 10, pl_module.policy.policy).mean().item() - max(ends)
        )


def test_a_pass_ends_with_a_policy_that_the_teacher_thinks_no_worse_than_any_before(
    make_trainer: Callable[..., Trainer],
) -> None:
    module, data = make_run()
    tape = Tape()
    trainer = make_trainer(max_epochs=4, callbacks=[tape])
    trainer.fit(module, data)
    assert len(tape.policies) == 2  # turns
    assert min(tape.returns) >= -1e-6
    assert trainer.callback_metrics["policy/judged_gain"] >= 0


def test_where_a_critic_stands_for_what_follows_the_teacher_judges_by_a_horizon_of_its_own(
    make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    horizons, judge = [], TeacherModule.judge

    def watch(self: TeacherModule, initial_state: Tensor, horizon: int, *args: Any, **options: Any) -> Tensor:
        horizons.append(horizon)
        return judge(self, initial_state, horizon, *args, **options)

    monkeypatch.setattr(TeacherModule, "judge", watch)
    short = {"imagination_horizon": 3, "bootstrap": partial(ValueBootstrap, hidden_dim=8)}
    module, data = make_run(**short)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, data)
    assert "policy/judged_gain" not in trainer.callback_metrics  # three steps say too little
    module, data = make_run(judge_horizon=10, **short)
    assert not horizons
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, data)
    assert horizons == [10] * 3  # the policies at the beginnings of two turns, and at the end
    assert trainer.callback_metrics["policy/judged_gain"] >= 0


@pytest.mark.parametrize("trial", [True, False])
def test_a_policy_whose_trial_has_been_is_not_chosen_for_another(
    trial: bool, make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge likes the first that it is shown: with trials that of the second turn, or else that of the first."""
    shown: list[Tensor] = []

    def like_the_first(self: TeacherModule, initial_state: Tensor, horizon: int, policy: Policy, **_: Any) -> Tensor:
        shown.append(torch.nn.utils.parameters_to_vector(policy.parameters()))
        return torch.full((len(initial_state),), -float(len(shown)))

    class Beginnings(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
            begun.append(torch.nn.utils.parameters_to_vector(pl_module.policy.policy.parameters()))

    begun: list[Tensor] = []
    monkeypatch.setattr(TeacherModule, "judge", like_the_first)
    module, data = make_run(trial=trial)
    make_trainer(max_epochs=3, callbacks=[Beginnings()]).fit(module, data)
    assert len(shown) == (3 + 2 + 2 if trial else 3 * 3)  # in the first pass there has been no trial
    if trial:
        assert not any(torch.equal(shown[3], policy) for policy in begun)
    else:
        assert torch.equal(shown[3], begun[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise": -1.0}, "noise must be at least 0, got -1"),
        ({"twin_noise": -0.1}, "twin_noise must be at least 0, got -0.1"),
        ({"noise": DecaySchedule(-0.5, 0.8, 300)}, "noise must be at least 0, got -0.5"),
        ({"mean_hold": 0.5}, "mean_hold must be at least 1, got 0.5"),
        ({"transitions": 0}, "transitions must be .*1.*, got 0"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TeacherModule(MarkovWorldModel(2, 1), **options)


def test_only_a_model_of_single_steps_teaches() -> None:
    with pytest.raises(ValueError, match="teacher must be a MarkovWorldModel, .*, got ActionsWorldModel"):
        TeacherModule(ActionsWorldModel(2, 1))


def test_a_batch_that_cannot_be_halved_is_refused_before_the_first_step(make_trainer: Callable[..., Trainer]) -> None:
    data = ExperienceDataModule("bioreactor", episode_length=10, world_model_batch_size=1)
    module = AlternatingModule(
        data.state_dim,
        data.action_dim,
        world_model=lambda s, a, **known: ActionsWorldModel(s, a, CausalTransformer(8, 1, 1, 10), **known),
        policy=DeterministicPolicy,
        policy_module=partial(PolicyModule, imagination_horizon=10),
        teacher=MarkovWorldModel,
    )
    with pytest.raises(ValueError, match="world_model_batch_size must be at least 2 with a teacher"):
        make_trainer(max_epochs=1).fit(module, data)
    assert data.env_steps == 0


def test_a_simulator_is_not_taught() -> None:
    data = ExperienceDataModule("bioreactor", episode_length=10)
    module = AlternatingModule(
        data.state_dim,
        data.action_dim,
        world_model=SimulatorWorldModel,
        policy=DeterministicPolicy,
        policy_module=partial(PolicyModule, imagination="sequential"),
        teacher=MarkovWorldModel,
        known_step_fn=data.known_step_fn,
    )
    assert module.phases == ("world_model", "policy")
    assert module.optimized_phases == ("policy",)
