"""Fit a world model and optimise a policy in it, in turns, and a teacher of the world model before them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities import rank_zero_warn
from tensordict import TensorDict
from torch import Tensor

from lit_awm.checks import check_count
from lit_awm.distributed import OwnReduction, average_gradients, check_strategy, load_ranks, save_ranks
from lit_awm.envs import KnownReward
from lit_awm.models import GuidedWorldModel, Policy, RewardFn, RewardModel, SimulatorWorldModel, StepFn, WorldModel
from lit_awm.modules.candidates import Candidates, Champion
from lit_awm.modules.latest_metrics import LatestMetrics
from lit_awm.modules.optimization import gradient_norm, is_written, log_evaluation, prefixed
from lit_awm.modules.policy import PolicyModule
from lit_awm.modules.teacher import TeacherModule
from lit_awm.modules.world_model import WorldModelModule

METRICS_KEY, OUTCOME_KEY = "latest_metrics", "outcome"  # in a checkpoint
CANDIDATES_KEY, CHAMPION_KEY = "candidates", "champion"


class AlternatingModule(LightningModule):
    """Fit a world model and optimise a policy in it within one ``fit``, each with an optimizer of its own.

    The phase that a batch is tagged with decides which of the child modules takes a step; each can be fitted alone
    as well. Models come as factories, since their sizes are the environment's. Metrics are logged, the
    latest of all phases, in the batches in which the trainer writes (``log_every_n_steps``), and the last of an epoch.
    Where the data module lets the policy try itself at the end of a pass (``trial``), the policy that has earned most
    goes on.

    Args:
        state_dim: Size ``S`` of a state; the command line takes it from the data.
        action_dim: Size ``A`` of an action; the command line takes it from the data.
        world_model: Makes the world model from ``S``, ``A`` and the keywords ``reward_fn`` and ``clock_step`` (see
            :class:`~lit_awm.models.WorldModel`).
        policy: Makes the policy from ``S`` and ``A``.
        world_model_module: Makes the module that fits the world model.
        policy_module: Makes the module that optimises the policy in the world model.
        teacher: Makes a model of single steps that labels trajectories for the world model, as ``world_model`` does;
            None for none. A simulator, which learns nothing, has none.
        teacher_module: Makes the module that fits the teacher.
        guide_from: The pass, from 0, from which on the policy is optimised along the trajectories that the teacher
            imagines, by the derivatives of the world model, see :class:`~lit_awm.models.GuidedWorldModel`; None for
            none. Without a teacher it decides nothing.
        judge: Whether a pass ends with the policy, of those at the ends of its turns, that earns most as the teacher
            imagines it; not with the one that it begins with, if a trial has told what that earns. Otherwise, or
            without a teacher, or with a bootstrap but no ``judge_horizon``, it ends with the last one.
        judge_horizon: Number of steps that the teacher imagines to judge, for example an episode; None for the policy's
            horizon.
        reward: Makes, from ``S`` and ``A``, what learns the reward as a function of state, action and next state, for
            the world model and its teacher; None where they predict it as they do states. Where the reward is known it
            decides nothing.
        known_reward: Whether the world model is given the environment's reward function instead of learning it.
        known_reward_fn: That function; the command line takes it from the data.
        known_step_fn: The environment's step, for a :class:`~lit_awm.models.SimulatorWorldModel`; the command line
            takes it from the data.
        clock_step: Advance per step of the clock at the end of the state, or None; the command line takes it from the
            data.
        gradient_clip_val: Largest norm of a gradient, or None.
        accumulate: Number of parts into which a batch is split to save memory, but for the teacher's. The gradient is
            that of the whole batch, except for random draws, twins, whose differences are weighed part by part, and
            slices that are filled up.

    Raises:
        ValueError: If ``accumulate`` or ``judge_horizon`` is below 1, ``guide_from`` below 0, ``accumulate`` above 1
            with warm imagination, ``gradient_clip_val`` is not positive, a reward is to be known of which there is no
            function, or the world model cannot be guided; when training starts, if a strategy other than DDP divides
            the model, or there is a teacher and the batches are too small to be halved.

    Attributes:
        phases: The phases, in their order.
        optimized_phases: The phases whose module has parameters, in the order of their optimizers; a simulator has
            none.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        world_model: Callable[[int, int], WorldModel],
        policy: Callable[[int, int], Policy],
        world_model_module: Callable[[WorldModel], WorldModelModule] = WorldModelModule,
        policy_module: Callable[[Policy, WorldModel], PolicyModule] = PolicyModule,
        teacher: Callable[[int, int], WorldModel] | None = None,
        teacher_module: Callable[[WorldModel], TeacherModule] = TeacherModule,
        guide_from: int | None = None,
        judge: bool = True,
        judge_horizon: int | None = None,
        reward: Callable[[int, int], RewardModel] | None = None,
        known_reward: bool = False,
        known_reward_fn: RewardFn | None = None,
        known_step_fn: StepFn | None = None,
        clock_step: float | None = None,
        gradient_clip_val: float | None = 1.0,
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        check_count(1, accumulate=accumulate, judge_horizon=1 if judge_horizon is None else judge_horizon)
        check_count(0, guide_from=guide_from or 0)
        if gradient_clip_val is not None and not gradient_clip_val > 0:
            raise ValueError(f"gradient_clip_val must be positive or null, got {gradient_clip_val}.")
        known_reward_fn = _known_reward_fn(known_reward, known_reward_fn)
        learned_reward = None if known_reward or reward is None else reward(state_dim, action_dim)
        known: dict[str, Any] = {"reward_fn": learned_reward or known_reward_fn, "clock_step": clock_step}
        model = world_model(state_dim, action_dim, **known)
        if isinstance(model, SimulatorWorldModel):
            model.connect(known_step_fn)
            model.reward_fn, teacher = known_reward_fn, None  # a step tells what it earns
        self.world_model = world_model_module(model)
        _check_ends(model)
        self.policy = policy_module(policy(state_dim, action_dim), model)
        if accumulate > 1 and self.policy.imagination == "warm":
            raise ValueError(
                f"accumulate must be 1 with imagination 'warm', got {accumulate}: the states that it reuses belong to "
                "a whole batch. Use 'replay', or 'sequential' where policy_input_gradient is above 0."
            )
        self.gradient_clip_val, self.accumulate = gradient_clip_val, accumulate
        self.teacher = None
        if teacher is not None:
            if learned_reward is not None:
                known["reward_fn"] = learned_reward.forward  # it is the world model's to fit
            self.teacher = teacher_module(teacher(state_dim, action_dim, **known))
            self.teacher.ignore_noise = self.world_model.ignore_noise
            self.policy.consult(self.teacher.world_model)
            if guide_from is not None:
                GuidedWorldModel(model, self.teacher.world_model)  # which refuses now what it cannot later
        self.policy.check_ensemble()
        self.phases = tuple(self._children())
        self.optimized_phases = tuple(name for name, child in self._children().items() if child.trained_parameters())
        self.automatic_optimization = False
        self.judge, self.judge_horizon, self.guide_from = judge, judge_horizon, guide_from
        self._candidates, self._champion, self._last_phase = Candidates(), Champion(), ""
        self._latest, self._outcome = LatestMetrics(), LatestMetrics()  # of the phases, and of a whole pass
        self._reduction = OwnReduction()
        self.register_buffer("model_updates", torch.tensor(0))

    model_updates: Tensor

    @property
    def policy_updates(self) -> Tensor:
        """How many updates the policy has had."""
        return self.policy.updates

    @property
    def behaviour_policy(self) -> Policy:
        """The policy that collects experience and is evaluated."""
        return self.policy.policy

    @property
    def learns_ends(self) -> bool:
        """Whether the world model learns in which states episodes end."""
        return self.world_model.learns_ends

    def _children(self) -> dict[str, WorldModelModule | PolicyModule]:
        """Return the module of each phase, in the order of the phases."""
        children = {"teacher": self.teacher, "world_model": self.world_model, "policy": self.policy}
        return {phase: child for phase, child in children.items() if child is not None}

    def setup(self, stage: str) -> None:
        check_strategy(self.trainer, type(self).__name__)
        self.world_model.check_slice_length(self.trainer)
        batch_size = getattr(getattr(self.trainer, "datamodule", None), "world_model_batch_size", 2)
        if self.teacher is not None and batch_size < 2:
            raise ValueError(
                f"world_model_batch_size must be at least 2 with a teacher, which labels half of it, got {batch_size}. "
                "Raise it, or set `teacher: null`."
            )
        length = getattr(getattr(getattr(self.trainer, "datamodule", None), "env", None), "episode_length", None)
        horizon = self.policy.imagination_horizon
        if stage == "fit" and length is not None and horizon < length and self.policy.bootstrap is None:
            rank_zero_warn(
                f"imagination_horizon {horizon} is shorter than an episode of {length} steps, and nothing stands for "
                "what comes after: the policy will not care for it. Raise it, or set a `bootstrap`, as `gym` does."
            )

    def on_fit_start(self) -> None:
        if self.trainer.ckpt_path is None:
            self._champion = Champion()  # of a fit before, perhaps in another task

    def on_train_batch_start(self, batch: TensorDict, batch_idx: int) -> None:
        self._reduction.begin(self.trainer)

    def on_train_batch_end(self, *_: Any) -> None:
        self._reduction.end()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[METRICS_KEY] = self._latest.state_dict()
        checkpoint[OUTCOME_KEY] = self._outcome.state_dict()
        checkpoint[CANDIDATES_KEY] = {"copies": self._candidates.state_dict(), "last_phase": self._last_phase}
        checkpoint[CHAMPION_KEY] = self._champion.state_dict()
        save_ranks(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._latest.load_state_dict(checkpoint.get(METRICS_KEY, {}))
        self._outcome.load_state_dict(checkpoint.get(OUTCOME_KEY, {}))
        if (candidates := checkpoint.get(CANDIDATES_KEY)) is not None:
            self._candidates.load_state_dict(candidates["copies"])
            self._last_phase = candidates["last_phase"]
        if (champion := checkpoint.get(CHAMPION_KEY)) is not None:
            self._champion.load_state_dict(champion)
        load_ranks(self, checkpoint)

    def configure_optimizers(self) -> Any:
        children = self._children()
        return tuple(children[phase].configure_optimizers() for phase in self.optimized_phases)

    def on_train_epoch_start(self) -> None:
        self._latest.clear()
        self._outcome.clear()
        self._candidates.clear()  # of a pass that did not end with the policy

    def training_step(self, batch: TensorDict, batch_idx: int) -> Tensor:
        phase = batch["phase"]
        child = self._children()[phase]
        if isinstance(child, WorldModelModule):
            child.fit_statistics(batch, self._noise_of_teacher(child))
        if isinstance(child, TeacherModule):
            child.forget()
        elif phase == "world_model":
            self.policy.adopt_statistics()
            self.policy.forget()
            self.world_model.is_guided = self._guide() is not None
            if self.teacher is not None and self.teacher.has_learned:  # as always but in a dry run of two batches
                batch = self.teacher.add_to(batch, self.policy.policy)
        elif phase != self._last_phase:  # a turn begins
            self._keep_candidate()
        if phase == "policy":
            self.policy.follow(self._guide())
        self._last_phase = phase
        if phase in self.optimized_phases:
            optimizers = self.optimizers()
            optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
            optimizer = optimizers[self.optimized_phases.index(phase)]
            loss, metrics = self._update(optimizer, child, batch)
            self._step_scheduler(optimizer)
        else:
            loss, metrics = child.loss_and_metrics(batch)
        if phase == "world_model":
            self.model_updates += 1
        elif phase == "policy":
            self.policy.after_update()
            self._outcome.update("policy", prefixed("policy", self._choose_policy(batch)))
        self._latest.update(phase, prefixed(phase, metrics))
        if self.trainer.is_last_batch:
            self._outcome.update("policy", prefixed("policy", self._try_policy()))
        if is_written(self.trainer):
            self._latest.log(self, batch_size=len(batch))
        return loss

    def _noise_of_teacher(self, child: WorldModelModule) -> Tensor | None:
        """Return what the teacher has taken for noise, and so labels no trajectories of; None if it is undecided."""
        if child is self.teacher or self.teacher is None or not self.teacher.has_learned:
            return None
        return self.teacher.world_model.state_scaler.ignored

    def _guide(self) -> WorldModel | None:
        """Return what the policy follows in this pass, the teacher or nothing."""
        is_late = self.guide_from is not None and self.trainer.current_epoch >= self.guide_from
        return self.teacher.world_model if is_late and self.teacher is not None and self.teacher.has_learned else None

    def on_train_epoch_end(self) -> None:
        self._outcome.log(self, batch_size=1, sync_dist=True)

    @property
    def _judge(self) -> TeacherModule | None:
        """What chooses a policy; nothing where it would see too little of what a policy earns."""
        sees_enough = self.judge_horizon is not None or self.policy.bootstrap is None
        if not self.judge or not sees_enough or self.teacher is None or not self.teacher.has_learned:
            return None
        return self.teacher

    def _keep_candidate(self) -> None:
        """Keep the policy for the judge, but for the champion, another trial of which would tell nothing."""
        if self._judge is not None and not self._champion.is_same_as(self.policy.policy):
            self._candidates.add(self.policy.policy)

    def _choose_policy(self, batch: TensorDict) -> dict[str, Tensor]:
        """Let the teacher choose a policy at the end of a pass."""
        if self._judge is None or not self.trainer.is_last_batch:
            return {}
        states, weight = batch["observation"], self.policy.disagreement_weight
        horizon = self.judge_horizon or self.policy.imagination_horizon
        self.policy.forget()
        survival = self.world_model.world_model.survival
        judge = partial(self._judge.judge, states, horizon, disagreement_weight=weight, survival=survival)
        with torch.autocast(self.device.type, enabled=False):  # as in trials, and errors of many steps add up
            return self._candidates.choose(self.policy.policy, judge)

    def _try_policy(self) -> dict[str, Tensor]:
        """Let the policy act in the real environment at the end of a pass, and go back to one that has earned more."""
        try_policy = getattr(getattr(self.trainer, "datamodule", None), "try_policy", None)
        with torch.autocast(self.device.type, enabled=False):  # as in collection and evaluation
            earned = None if try_policy is None else try_policy()
        if earned is None:
            return {}
        self.policy.forget()
        return self._champion.meet(self.policy.policy, earned.to(self.device))

    def _update(
        self, optimizer: LightningOptimizer, child: WorldModelModule | PolicyModule, batch: TensorDict
    ) -> tuple[Tensor, dict[str, Tensor]]:
        is_split = self.accumulate > 1 and not isinstance(child, TeacherModule)  # which is fitted to a few of its steps
        parts = batch.chunk(self.accumulate) if is_split else (batch,)
        self.toggle_optimizer(optimizer)
        optimizer.zero_grad()
        total, means = torch.zeros((), device=self.device), dict[str, Tensor]()
        for part in parts:
            loss, metrics = child.loss_and_metrics(part)
            share = len(part) / len(batch)
            self.manual_backward(share * loss)
            total += share * loss.detach()
            for name, value in metrics.items():
                means[name] = means.get(name, 0) + share * value
        average_gradients(child.trained_parameters())
        optimizer.step()
        self.untoggle_optimizer(optimizer)
        return total, means

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.gradient_clip_val is not None:  # here, so that callbacks have seen the gradient as it was
            norm = gradient_norm(optimizer, self.trainer.global_step)
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grads_with_norm_(parameters, self.gradient_clip_val, norm)

    def _step_scheduler(self, optimizer: LightningOptimizer) -> None:
        for config in self.trainer.lr_scheduler_configs:
            if config.scheduler.optimizer is optimizer.optimizer:
                config.scheduler.step()  # type: ignore[call-arg]  # a plateau scheduler has been refused

    def validation_step(self, batch: TensorDict, batch_idx: int) -> None:
        log_evaluation(self, batch)
        counters = {"model_updates": self.model_updates, "policy_updates": self.policy_updates}
        self.log_dict({name: value.float() for name, value in counters.items()}, batch_size=1, sync_dist=True)


def _check_ends(model: WorldModel) -> None:
    """Reject a model that learns where episodes end with a reward that leaves out what that costs."""
    if model.continuation is not None and isinstance(model.reward_fn, KnownReward):
        raise ValueError(
            "continuation must be null with the known reward of a system, got one: what it costs to leave the domain, "
            "which ends an episode there, is not part of that, so that to leave would pay. Leave it out."
        )


def _known_reward_fn(known_reward: bool, known_reward_fn: RewardFn | None) -> RewardFn | None:
    """Return the reward function if it is to be known."""
    if known_reward and known_reward_fn is None:
        raise ValueError(
            "known_reward needs known_reward_fn, got None: the reward is known where a system of the testbed is "
            "observed with a clock. Give the function, or set `known_reward: false`, so that the "
            "reward is learned; the recipe `gym` is for tasks of Gymnasium and the DeepMind Control Suite."
        )
    return known_reward_fn if known_reward else None
