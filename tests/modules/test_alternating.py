from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from tensordict import TensorDict
from torch.utils.data import DataLoader

from lit_awm.callbacks import GradientNormMonitor
from lit_awm.data import ExperienceDataModule
from lit_awm.imagination import imagine
from lit_awm.models import (
    ActionsWorldModel,
    CausalTransformer,
    Continuation,
    DeterministicPolicy,
    MarkovWorldModel,
    RewardModel,
    SimulatorWorldModel,
)
from lit_awm.modules import AlternatingModule, PolicyModule, WorldModelModule


def make_data(**options: Any) -> ExperienceDataModule:
    defaults: dict[str, Any] = {
        "episode_length": 10,
        "num_envs": 2,
        "warmup_episodes": 4,
        "world_model_updates": 3,
        "policy_updates": 2,
        "world_model_batch_size": 4,
        "policy_batch_size": 4,
    }
    return ExperienceDataModule("bioreactor", **(defaults | options))


def make_module(data: ExperienceDataModule, imagination: Any = "replay", **options: Any) -> AlternatingModule:
    return AlternatingModule(
        data.state_dim,
        data.action_dim,
        world_model=lambda s, a, **known: ActionsWorldModel(s, a, CausalTransformer(8, 1, 1, 10), **known),
        policy=partial(DeterministicPolicy, hidden_dim=8),
        policy_module=partial(PolicyModule, imagination_horizon=10, imagination=imagination),
        known_reward_fn=data.known_reward_fn,
        clock_step=data.clock_step,
        **options,
    )


class Watch(Callback):
    """Record after every batch which of the two models has changed, and the norms of the gradients."""

    def __init__(self) -> None:
        self.changed: list[tuple[str, bool, bool]] = []
        self.norms: list[tuple[float, float]] = []

    @staticmethod
    def weights(module: AlternatingModule) -> tuple[torch.Tensor, torch.Tensor]:
        world_model, policy = module.world_model.world_model, module.policy.policy
        return tuple(
            torch.cat([p.detach().flatten() for p in model.parameters()]).clone() for model in (world_model, policy)
        )

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.before = self.weights(pl_module)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.raw = self.norm(optimizer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        after = self.weights(pl_module)
        moved = [not torch.equal(old, new) for old, new in zip(self.before, after, strict=True)]
        self.changed.append((batch["phase"], *moved))
        optimizer = trainer.optimizers[pl_module.phases.index(batch["phase"])]
        self.norms.append((self.raw, self.norm(optimizer)))

    @staticmethod
    def norm(optimizer: torch.optim.Optimizer) -> float:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients).item()


def test_each_phase_moves_its_own_model_only(make_trainer: Callable[..., Trainer]) -> None:
    data, watch = make_data(), Watch()
    module = make_module(data)
    make_trainer(max_epochs=2, callbacks=[watch]).fit(module, data)
    one_pass = [("world_model", True, False)] * 3 + [("policy", False, True)] * 2
    assert watch.changed == one_pass * 2
    assert (module.model_updates.item(), module.policy_updates.item(), data.env_steps) == (6, 4, 60)


def test_gradients_are_clipped_after_callbacks_have_seen_them(make_trainer: Callable[..., Trainer]) -> None:
    data, watch = make_data(), Watch()
    make_trainer(max_epochs=1, callbacks=[watch]).fit(make_module(data, gradient_clip_val=1e-3), data)
    assert all(raw > 1e-3 for raw, _ in watch.norms)
    assert all(clipped == pytest.approx(1e-3, rel=1e-3) for _, clipped in watch.norms)


@pytest.mark.parametrize("phase", ["world_model", "policy"])
def test_accumulated_parts_have_the_gradient_of_the_whole_batch(
    make_trainer: Callable[..., Trainer], phase: str
) -> None:
    data, moves = make_data(), []
    batch = TensorDict(
        {
            "observation": torch.rand(5, 10, 2) + 0.1,
            "action": torch.rand(5, 10, 1),
            "next": {"observation": torch.rand(5, 10, 2), "reward": torch.rand(5, 10, 1)},
        },
        batch_size=[5, 10],
    )
    if phase == "policy":
        batch = batch[:, 0].select("observation")
    for accumulate in (1, 2, 5):
        torch.manual_seed(0)
        module = make_module(data, accumulate=accumulate, gradient_clip_val=None)
        module.world_model.optimizer = module.policy.optimizer = partial(torch.optim.SGD, lr=1.0)
        before = Watch.weights(module)
        make_trainer(max_epochs=1).fit(
            module, DataLoader([batch.set_non_tensor("phase", phase)], collate_fn=itemgetter(0))
        )
        moves.append([new - old for old, new in zip(before, Watch.weights(module), strict=True)])
    for other in moves[1:]:
        for ours, theirs in zip(other, moves[0], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_reward_is_known_or_learned_as_asked() -> None:
    data = make_data()
    assert make_module(data, known_reward=True).world_model.world_model.reward_fn is not None
    assert make_module(data).world_model.world_model.reward_fn is None
    blind = make_data(env_options={"observe_time": False})
    with pytest.raises(ValueError, match="known_reward needs known_reward_fn, got None.*known_reward: false"):
        make_module(blind, known_reward=True)


def test_a_reward_of_its_own_is_fitted_with_the_world_model_and_lent_to_the_teacher(
    make_trainer: Callable[..., Trainer],
) -> None:
    data = make_data(teacher_updates=2)
    module = make_module(data, teacher=partial(MarkovWorldModel, hidden_dim=8), reward=RewardModel)
    reward_fn, teacher = module.world_model.world_model.reward_fn, module.teacher
    assert isinstance(reward_fn, RewardModel)
    assert teacher is not None
    own = {id(parameter) for parameter in reward_fn.parameters()}
    assert own <= {id(parameter) for parameter in module.world_model.trained_parameters()}
    assert not own & {id(parameter) for parameter in teacher.trained_parameters()}
    before = [parameter.detach().clone() for parameter in reward_fn.parameters()]
    make_trainer(max_epochs=1).fit(module, data)
    assert not any(map(torch.equal, before, reward_fn.parameters()))
    states, actions = torch.rand(3, 5, data.state_dim), torch.rand(3, 5, data.action_dim)
    predicted = teacher.world_model(states, actions)
    assert torch.equal(predicted.reward, reward_fn(states, actions, predicted.state))


@pytest.mark.parametrize("imagination", ["sequential", "replay", "warm"])
def test_from_some_pass_on_a_policy_imagines_what_the_teacher_does(
    make_trainer: Callable[..., Trainer], imagination: str
) -> None:
    data = make_data(teacher_updates=2)
    teacher = partial(MarkovWorldModel, hidden_dim=8)
    module = make_module(data, teacher=teacher, guide_from=1, known_reward=True, imagination=imagination)
    assert not module.policy.guided  # a child can be fitted alone
    make_trainer(max_epochs=1).fit(module, data)
    assert not module.policy.guided
    assert not module.world_model.is_guided
    make_trainer(max_epochs=2).fit(module, data)
    assert module.world_model.is_guided
    (guided,), policy = module.policy.guided, module.policy.policy.eval()
    assert module.teacher is not None
    assert guided.guide is module.teacher.world_model
    assert guided.world_model is module.world_model.world_model
    start = torch.rand(2, data.state_dim)
    start[:, -1] = -1  # the clock
    imagined = imagine(guided, policy, start, 10)
    assert torch.allclose(imagined.rewards.sum(1), module.teacher.judge(start, 10, policy), rtol=1e-5)
    _, metrics = module.policy.loss_and_metrics(TensorDict({"observation": start}, batch_size=[2]))
    assert torch.allclose(metrics["return"], imagined.rewards.sum(1).mean(), rtol=1e-5)
    make_trainer(max_epochs=2).fit(plain := make_module(data, guide_from=0, known_reward=True), data)
    assert not plain.policy.guided  # without a teacher there is none that could guide
    assert not plain.world_model.is_guided


def test_a_guided_policy_decodes_in_every_update_of_warm_imagination(make_trainer: Callable[..., Trainer]) -> None:
    data = make_data(teacher_updates=2)
    teacher = partial(MarkovWorldModel, hidden_dim=8)
    module = make_module(data, teacher=teacher, guide_from=0, known_reward=True, imagination="warm")
    make_trainer(max_epochs=1).fit(module, data)
    batch = TensorDict({"observation": torch.rand(2, data.state_dim)}, batch_size=[2])
    told = [module.policy.loss_and_metrics(batch)[1] for _ in range(2)][1]
    assert told["has_decoded"] == 1
    assert told["residual"] < 1e-5  # the policy reads what the guide goes through


@pytest.mark.parametrize("reward", [None, RewardModel])
@pytest.mark.parametrize("ignore_noise", [True, False])
def test_the_teacher_decides_what_is_noise_if_the_world_model_is_to_ignore_any(
    make_trainer: Callable[..., Trainer],
    monkeypatch: pytest.MonkeyPatch,
    ignore_noise: bool,
    reward: type[RewardModel] | None,
) -> None:
    data = make_data(teacher_updates=2, env_options={"distractors": 2})  # bioreactor, two distractors, clock
    decisions = [torch.tensor([False, True, False, False]), torch.tensor([False, False, True, False])]
    monkeypatch.setattr("lit_awm.modules.world_model.find_noise", lambda *_: decisions.pop(0))
    teacher, options = partial(MarkovWorldModel, hidden_dim=8), {"ignore_noise": ignore_noise}
    module = make_module(data, teacher=teacher, reward=reward, world_model_module=partial(WorldModelModule, **options))
    make_trainer(max_epochs=1).fit(module, data)
    assert module.teacher is not None
    for model in (module.teacher.world_model, module.world_model.world_model, module.policy.policy):
        assert model.state_scaler.ignored.tolist() == [False, ignore_noise, False, False]
    assert len(decisions) == (1 if ignore_noise else 2)


def test_a_reward_of_its_own_is_not_made_where_the_reward_is_known() -> None:
    data = make_data()
    known = make_module(data, known_reward=True, reward=RewardModel)
    assert known.world_model.world_model.knows_reward
    sizes, step_fn = (data.state_dim, data.action_dim), data.known_step_fn
    policy_module = partial(PolicyModule, imagination_horizon=10, imagination="sequential")
    simulator = AlternatingModule(
        *(*sizes, SimulatorWorldModel, DeterministicPolicy),
        policy_module=policy_module,
        reward=RewardModel,
        known_step_fn=step_fn,
    )
    assert simulator.world_model.world_model.reward_fn is None  # its step tells
    assert not simulator.world_model.trained_parameters()


def test_weights_are_loaded_without_a_trainer() -> None:
    saved, fresh = make_module(make_data()), make_module(make_data())
    checkpoint = {"state_dict": saved.state_dict()}
    fresh.on_load_checkpoint(checkpoint)  # as ``load_from_checkpoint`` does
    fresh.load_state_dict(checkpoint["state_dict"])
    pairs = zip(saved.parameters(), fresh.parameters(), strict=True)
    assert all(torch.equal(theirs, ours) for theirs, ours in pairs)


def test_warm_imagination_starts_anew_when_the_model_has_changed(make_trainer: Callable[..., Trainer]) -> None:
    class Residuals(Callback):
        def __init__(self) -> None:
            self.seen: list[bool] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            if batch["phase"] == "policy":
                self.seen.append("policy/residual" in trainer.logged_metrics)

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            trainer.logged_metrics.pop("policy/residual", None)

    data, watch = make_data(policy_updates=3), Residuals()
    trainer = make_trainer(max_epochs=2, callbacks=[watch], log_every_n_steps=1, logger=True)
    trainer.fit(make_module(data, imagination="warm"), data)
    assert watch.seen == [False, True, True] * 2


def test_metrics_of_both_phases_are_logged_whenever_the_trainer_writes(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    data, logger = make_data(world_model_updates=2, policy_updates=3), CSVLogger(tmp_path)
    trainer = make_trainer(max_epochs=2, logger=logger, log_every_n_steps=4, callbacks=[GradientNormMonitor()])
    trainer.fit(make_module(data), data)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file) if row["world_model/loss"]}
    assert sorted(rows) == [3, 7]
    for name in ("world_model/loss", "world_model/grad_norm", "policy/return", "policy/grad_norm"):
        assert rows[3][name], name  # a batch of the policy, after all of the world model
        assert rows[7][name], name


def test_both_phases_survive_a_fractional_limit(make_trainer: Callable[..., Trainer]) -> None:
    data, watch = make_data(world_model_updates=4, policy_updates=4), Watch()
    make_trainer(max_epochs=1, callbacks=[watch], limit_train_batches=0.5).fit(make_module(data), data)
    assert [phase for phase, _, _ in watch.changed] == ["world_model"] * 2 + ["policy"] * 2


def test_a_scheduler_that_waits_for_a_plateau_is_refused(make_trainer: Callable[..., Trainer]) -> None:
    data = make_data()
    module = make_module(data)
    module.policy.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau
    with pytest.raises(ValueError, match="got ReduceLROnPlateau. Use for example"):
        make_trainer(max_epochs=1).fit(module, data)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ({"judge_horizon": 0}, "judge_horizon must be at least 1, got 0"),
        ({"gradient_clip_val": 0.0}, "gradient_clip_val must be positive or null, got 0"),
        ({"gradient_clip_val": float("nan")}, "gradient_clip_val must be positive or null, got nan"),
        ({"accumulate": 2, "imagination": "warm"}, "accumulate must be 1 with imagination 'warm', got 2"),
        ({"guide_from": -1}, "guide_from must be at least 0, got -1"),
        ({"guide_from": 1, "teacher": MarkovWorldModel}, "guide needs a reward that is.*`guide_from: null`"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_module(make_data(), **options)


class Trials(Callback):
    """Make the policy bad in every second pass; record what was tried, and what it does in the same environment after.

    The policy is made bad before its last update, which is too small to mend that.
    """

    def __init__(self) -> None:
        self.tried: list[tuple[float, float]] = []
        self.costs: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.is_last_batch and trainer.current_epoch % 2:
            with torch.no_grad():
                pl_module.policy.policy.network.layers[-1].bias.fill_(3.0 * (-1) ** (trainer.current_epoch // 2))

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch:
            self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        metrics = trainer.callback_metrics
        self.tried.append((metrics["policy/trial_return"].item(), metrics["policy/best_return"].item()))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.costs.append(trainer.callback_metrics["eval/cost"].item())


def test_a_pass_ends_with_a_trial_that_counts_and_with_the_policy_that_has_earned_most(
    make_trainer: Callable[..., Trainer],
) -> None:
    data, trials = make_data(trial=True), Trials()
    module = make_module(data, known_reward=True)
    make_trainer(max_epochs=6, num_sanity_val_steps=0, callbacks=[trials]).fit(module, data)
    assert data.env_steps == (4 + 5 * 2 + 6) * 10
    assert data.buffer is not None
    assert len(data.buffer) == data.env_steps
    tried, best = zip(*trials.tried, strict=True)
    assert any(earned < highest for earned, highest in zip(tried, best, strict=True))
    assert list(best) == [max(tried[: count + 1]) for count in range(6)]
    assert [-cost for cost in trials.costs] == pytest.approx(best, rel=1e-5)
    assert len(data.buffer[:]["collector", "traj_ids"].unique_consecutive()) == 4 + 5 * 2 + 6


def test_a_reward_that_leaves_out_what_an_exit_costs_is_not_joined_by_ends() -> None:
    module = partial(WorldModelModule, continuation=Continuation)
    with pytest.raises(ValueError, match="continuation must be null with the known reward of a system"):
        make_module(make_data(), known_reward=True, world_model_module=module)


def test_a_horizon_that_ends_before_the_episode_is_told_of(make_trainer: Callable[..., Trainer]) -> None:
    data = make_data(episode_length=12, slice_length=10)
    with pytest.warns(UserWarning, match="imagination_horizon 10 is shorter than an episode of 12 steps"):
        make_trainer(max_epochs=1).fit(make_module(data), data)
