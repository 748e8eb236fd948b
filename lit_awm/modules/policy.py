"""Optimise a policy in a world model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from tensordict import TensorDict
from torch import Tensor, nn

from lit_awm.checks import check_at_least, check_count
from lit_awm.decoding import CompiledDecoder
from lit_awm.distributed import load_ranks, save_ranks
from lit_awm.imagination import Imagined, Method, cheapest_method, check_method, imagine
from lit_awm.models import GuidedWorldModel, MarkovWorldModel, Policy, WorldModel
from lit_awm.models.continuation import while_it_goes_on
from lit_awm.modules.bootstrap import ValueBootstrap
from lit_awm.modules.frozen import Frozen
from lit_awm.modules.optimization import build_optimizer, check_optimizer, default_optimizer, log_evaluation, prefixed
from lit_awm.modules.schedules import Schedule, check_least, value_at
from lit_awm.modules.warm_start import WarmStart


class PolicyModule(LightningModule):
    """Maximise the return that a policy earns in a world model, by backpropagation through the imagined trajectory.

    A batch is a ``TensorDict`` ``(B,)`` with ``observation``, the states to imagine from. The world model is held
    fixed.

    Args:
        policy: The policy to optimise.
        world_model: The model to imagine in.
        imagination_horizon: Steps to imagine.
        imagination: How to unroll, see :func:`~lit_awm.imagination.imagine`; ``"warm"`` reuses the states of the
            update before, as long as initial states and world model stay the same; ``"auto"`` is the cheapest method
            that can serve the other arguments, see :func:`~lit_awm.imagination.cheapest_method`.
        policy_input_gradient: Share of the gradient that passes through the states that the policy reads.
        tolerance: If states (in standard deviations) or the gradient through them (relative to its norm) have changed
            by more than this in an update, ``"warm"`` refines or solves for them in the next one; see
            :class:`~lit_awm.modules.warm_start.WarmStart`. Along a guide states are decoded in every update.
        refine: The most passes without gradient by which ``"warm"`` then refines states.
        checkpoint: Whether to save memory by computing predictions once more in the backward pass, see
            :func:`~lit_awm.imagination.imagine`.
        compile_decoding: Whether ``"replay"`` and ``"warm"`` decode by a compiled step, see
            :class:`~lit_awm.decoding.CompiledDecoder`.
        action_noise: Standard deviation of normal noise on the imagined actions: a number, or a schedule over the
            policy's updates, since what is best with noise is not quite what is best without. A policy that is
            optimised on the one trajectory that it would take may react to small deviations in any way; on noisy ones
            it learns how to. The first trajectory of a batch, or of a part of one, is free of noise; over the others,
            if there are several, the noise is shifted to mean zero at every step, so that there is nothing in it to
            learn. That makes it a little smaller: by a fourteenth with seven others.
        entropy_weight: Weight of the entropy bonus per step, in units of reward, for a stochastic policy: a number, or
            a schedule over the policy's updates.
        disagreement_weight: What a step costs, in units of reward, where the standard deviation of what an ensemble
            predicts is as large as a typical step; the cost is proportional to it. It keeps a policy where there are
            data. The ensemble is the world model, or, where models alternate, the teacher.
        bootstrap: Makes, from ``S``, what stands for the rewards after the horizon; None counts none, and discounts
            none. Its critic is fitted by the same optimizer.
        optimizer: Makes the optimizer from the parameters.
        scheduler: Makes the learning-rate schedule, stepped after every update.

    Raises:
        ValueError: If the world model has no positions for ``imagination_horizon``, the arguments do not fit each
            other (see :func:`~lit_awm.imagination.check_method`), ``action_noise``, ``tolerance``, ``refine``,
            ``entropy_weight`` or ``disagreement_weight`` is negative, a deterministic policy is given an entropy bonus,
            there is no ensemble that could disagree, or a fit starts with a world model that was never fitted.

    Attributes:
        action_gradient: Gradient ``(B, H, A)`` of the last loss with respect to the imagined actions, zero until it is
            backpropagated; None before the first loss.
    """

    phases = ("policy",)
    updates: Tensor

    def __init__(
        self,
        policy: Policy,
        world_model: WorldModel,
        imagination_horizon: int = 100,
        imagination: Method | Literal["auto"] = "replay",
        policy_input_gradient: float = 0.0,
        tolerance: float = 0.1,
        refine: int = 4,
        checkpoint: bool = False,
        compile_decoding: bool = False,
        action_noise: float | Schedule = 0.0,
        entropy_weight: float | Schedule = 0.0,
        disagreement_weight: float = 0.0,
        bootstrap: Callable[[int], ValueBootstrap] | None = None,
        optimizer: OptimizerCallable = default_optimizer,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        world_model.check_horizon(imagination_horizon)
        if imagination == "auto":
            imagination = cheapest_method(world_model, policy, policy_input_gradient, checkpoint, compile_decoding)
        check_method(imagination, world_model, policy, policy_input_gradient, checkpoint, compile_decoding)
        check_at_least(0, tolerance=tolerance, disagreement_weight=disagreement_weight)
        check_count(0, refine=refine)
        check_least(0, action_noise=action_noise, entropy_weight=entropy_weight)
        if entropy_weight and not policy.is_stochastic:
            raise ValueError(
                "entropy_weight must be 0 for a deterministic policy, got "
                f"{'a schedule' if isinstance(entropy_weight, Schedule) else entropy_weight}. Use a "
                "TanhNormalPolicy, or leave `entropy_weight` out."
            )
        self.policy, self.world_model = policy, world_model
        self.imagination_horizon, self.imagination = imagination_horizon, imagination
        self.policy_input_gradient, self.checkpoint = policy_input_gradient, checkpoint
        self.action_noise, self.entropy_weight = action_noise, entropy_weight
        self.disagreement_weight = disagreement_weight
        self.ensemble: list[MarkovWorldModel] = []  # in lists, so that they are no part of this module
        self.guided: list[GuidedWorldModel] = []
        self.consult(world_model)
        self.optimizer, self.scheduler = optimizer, scheduler
        self.bootstrap = None if bootstrap is None else bootstrap(policy.state_dim)
        check_optimizer(self.trained_parameters(), optimizer, scheduler)
        self.register_buffer("updates", torch.tensor(0))
        self.action_gradient: Tensor | None = None
        self._warm_start = WarmStart(tolerance, refine)
        self._decoder = CompiledDecoder() if compile_decoding else None

    @property
    def behaviour_policy(self) -> Policy:
        """The policy that collects experience and is evaluated."""
        return self.policy

    @property
    def imagines_in(self) -> WorldModel:
        """What the policy acts in: the world model, or the trajectories of a guide by its derivatives."""
        return self.guided[0] if self.guided else self.world_model

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that this module optimises."""
        critic = [] if self.bootstrap is None else self.bootstrap.trained_parameters()
        return [*self.policy.parameters(), *critic]

    def adopt_statistics(self) -> None:
        """Let policy and critic read states in the world model's standard units, unless they have their own."""
        if not self.policy.state_scaler.is_fitted:
            self.policy.state_scaler.load_state_dict(self.world_model.state_scaler.state_dict())
        if self.bootstrap is not None and not self.bootstrap.critic.state_scaler.is_fitted:
            self.bootstrap.adopt_statistics(self.world_model.state_scaler)

    def consult(self, model: WorldModel) -> None:
        """Let the policy pay for where the members of a model disagree, if it has several."""
        if isinstance(model, MarkovWorldModel) and len(model.networks) > 1:
            self.ensemble = [model]

    def follow(self, guide: WorldModel | None) -> None:
        """Imagine along the trajectories of a guide from now on, or of none.

        Raises:
            ValueError: If :class:`~lit_awm.models.GuidedWorldModel` refuses it or the world model.
        """
        if guide is None:
            self.guided = []
        elif not self.guided or self.guided[0].guide is not guide:
            self.guided = [GuidedWorldModel(self.world_model, guide)]

    def check_ensemble(self) -> None:
        """Reject a penalty for which there is no ensemble, before the first step.

        Raises:
            ValueError: If there is none.
        """
        if self.disagreement_weight and not self.ensemble:
            raise ValueError(
                f"disagreement_weight must be 0 without an ensemble, got {self.disagreement_weight}. Give a "
                "MarkovWorldModel with `num_members` above 1, as the world model or as the teacher."
            )

    def after_update(self) -> None:
        """Count an update; to be called after every step of the optimizer."""
        self.updates += 1
        if self.bootstrap is not None:
            self.bootstrap.follow()

    def forget(self) -> None:
        """Drop what warm imagination would reuse; to be called when the world model has changed."""
        self._warm_start.forget()

    def loss_and_metrics(self, batch: TensorDict) -> tuple[Tensor, dict[str, Tensor]]:
        """Return minus the mean imagined return (and entropy bonus), and what is known about it."""
        model = self.imagines_in
        initial = model.without_ignored(batch["observation"])
        horizon, warm = self.imagination_horizon, self._warm_start
        goes_on = self.imagination == "warm" and warm.fits(initial, horizon)
        if not goes_on:
            warm.forget()
        deviation = self._now(self.action_noise)
        goes_on = goes_on and (deviation > 0) == (warm.noise is not None)
        noise = warm.noise_of(deviation) if goes_on else self.draw_noise(initial, horizon)
        self.action_gradient = initial.new_zeros(len(initial), horizon, self.policy.action_dim)
        method, options = self.imagination, dict[str, Any]()
        if method == "warm":
            method, options = warm.prepare(initial, horizon if self.policy_input_gradient > 0 else None)
            if isinstance(model, GuidedWorldModel) and method == "warm":  # of which a pass corrects one step more
                options |= {"previous_states": None, "refine": 0}
        if method != "sequential":
            options["decoder"] = self._decoder
        imagined = imagine(
            model,
            self.policy,
            initial,
            horizon,
            method=method,
            policy_input_gradient=self.policy_input_gradient,
            checkpoint=self.checkpoint,
            action_noise=None if noise is None else noise[:, :horizon].to(initial),
            action_gradient=self.action_gradient,
            **options,
        )
        loss, metrics = self._objective(imagined)
        if self.imagination == "warm":
            metrics |= warm.take(imagined, noise, deviation, self.world_model.state_scaler.scale)
        return loss, {"loss": loss.detach(), **metrics}

    def _objective(self, imagined: Imagined) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what is minimised, minus the return and the bonus plus the critic's error, and its parts."""
        returns = imagined.rewards.sum(dim=1).mean()
        loss, metrics = -returns, {"return": returns.detach()}
        if self.bootstrap is not None:
            critic_loss = self.bootstrap.loss(imagined)
            value = self.bootstrap.returns(imagined).mean()
            loss = critic_loss - value
            metrics |= {"value": value.detach(), "critic_loss": critic_loss.detach()}
        goes_on = imagined.survival[:, :-1]
        states = imagined.states[:, :-1].masked_fill(goes_on.unsqueeze(-1) == 0, 0)  # of which nothing counts
        if self.disagreement_weight:
            spread = while_it_goes_on(self.ensemble[0].disagreement(states, imagined.actions), goes_on)
            loss = loss + self.disagreement_weight * spread.sum(dim=1).mean()
            metrics |= {"disagreement": (spread.sum() / goes_on.sum()).detach()}
        if self.entropy_weight:
            weight = self._now(self.entropy_weight)
            distribution = self.policy(states.detach())
            entropy = while_it_goes_on(-distribution.log_prob(distribution.rsample()), goes_on.detach())
            loss = loss - weight * entropy.sum(dim=1).mean()
            metrics |= {"entropy": (entropy.sum() / goes_on.sum()).detach(), "entropy_weight": torch.tensor(weight)}
        return loss, metrics

    def _now(self, value: float | Schedule) -> float:
        return value_at(value, int(self.updates))

    def draw_noise(self, initial: Tensor, horizon: int) -> Tensor | None:
        """Return noise ``(B, H, A)`` for the imagined actions, or None if there is to be none."""
        deviation = self._now(self.action_noise)
        if not deviation:
            return None
        noise = deviation * torch.randn(len(initial), horizon, self.policy.action_dim).to(initial)
        noise[0] = 0
        if len(noise) > 2:
            noise[1:] -= noise[1:].mean(dim=0)
        return noise

    def loss(self, batch: TensorDict) -> Tensor:
        """Return the training loss of a batch, a scalar."""
        return self.loss_and_metrics(batch)[0]

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        self.check_ensemble()
        if not self.world_model.state_scaler.is_fitted:
            raise ValueError(
                "world_model must have been fitted to data, got one without statistics. Fit it with a "
                "WorldModelModule, or call its `fit_statistics`."
            )
        self.adopt_statistics()

    def configure_callbacks(self) -> list[Callback]:
        return [Frozen(self.world_model, owner=self)]

    def on_train_batch_start(self, batch: TensorDict, batch_idx: int) -> None:
        if batch_idx == 0:
            self.forget()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and count it: not when the batch ends, since callbacks that save a checkpoint then come first."""
        super().optimizer_step(*args, **kwargs)
        self.after_update()

    def training_step(self, batch: TensorDict, batch_idx: int) -> Tensor:
        loss, metrics = self.loss_and_metrics(batch)
        self.log_dict(prefixed("policy", metrics), prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: TensorDict, batch_idx: int) -> None:
        log_evaluation(self, batch)

    def configure_optimizers(self) -> Any:
        return build_optimizer(self.trained_parameters(), self.optimizer, self.scheduler)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        save_ranks(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        load_ranks(self, checkpoint)

    def get_extra_state(self) -> dict[str, Any]:
        """Return what warm imagination goes on from, so that a resumed run goes on exactly."""
        return self._warm_start.state()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``get_extra_state`` returned."""
        self._warm_start.load(state)
