"""Fit a world model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info
from tensordict import TensorDict
from torch import Tensor, nn

from lit_awm.checks import check_at_least
from lit_awm.distributed import gather, shard
from lit_awm.models import Continuation, Prediction, RewardModel, WorldModel, find_noise
from lit_awm.modules.optimization import build_optimizer, check_optimizer, default_optimizer, prefixed

LEAST_DIFFERENCE = 1e-2  # standard deviations between twins, below which a difference need not be right
FAR = 10.0  # standard deviations from the mean, beyond which errors count relative to the distance


class WorldModelModule(LightningModule):
    """Fit a world model to recorded trajectories by teacher forcing.

    A batch is a ``TensorDict`` ``(B, H)`` with ``observation``, ``action`` and ``next``: ``observation``, ``reward``.
    The first batch ever seen sets the model's standardisation. Where ``mask`` ``(B, H)`` is false a step counts for
    nothing: it fills up an episode that was shorter.

    Where ``twin_weight`` tells that a trajectory differs from the one before it by a little noise on the actions alone,
    as a teacher labels them, a model that reads no state but the first learns the difference between the two as well.
    What is used of a world model is its gradients, and a model may be right about where actions lead and wrong about
    what they change. The difference stands for the derivative of Sobolev training (Czarnecki et al., 2017,
    arXiv:1706.04859). It is computed in full precision, whatever the trainer's.

    Args:
        world_model: The model to fit.
        optimizer: Makes the optimizer from the parameters.
        scheduler: Makes the learning-rate schedule, stepped after every update.
        compile_model: Whether the pass through the model is compiled, which takes a minute at first and pays for large
            models and on GPUs. Compiling the whole module by ``torch.compile(module)`` fails in Lightning's logging.
        sensitivity_weight: Weight of the relative error of differences between twins, where a batch has any.
        guided_sensitivity_weight: The same as long as ``is_guided``: no more than the derivatives of the world model
            are used then, and they are what differences stand for.
        continuation: Makes, from ``S``, what learns in which states episodes end (``next``: ``terminated``); None where
            none ends but by the clock.
        ignore_noise: Whether components of the state that are noise, neither predictable nor of any use to predict
            others or the reward, are left out of what is read and predicted, by the policy too; see
            :func:`~lit_awm.models.find_noise`. It is decided from the first batch, and said. Where models alternate
            the teacher decides, and this holds for both.

    Raises:
        ValueError: If a weight is negative, or optimizer or scheduler cannot be made of its arguments; for a batch, if
            it does not tell where episodes were terminated and the model is to learn it.

    Attributes:
        is_guided: Whether the policy goes through the states of a guide by the derivatives of this world model, see
            :class:`~lit_awm.models.GuidedWorldModel`; an :class:`~lit_awm.modules.AlternatingModule` tells.
    """

    phases = ("world_model",)

    def __init__(
        self,
        world_model: WorldModel,
        optimizer: OptimizerCallable = default_optimizer,
        scheduler: LRSchedulerCallable | None = None,
        compile_model: bool = False,
        sensitivity_weight: float = 0.02,
        guided_sensitivity_weight: float = 1.0,
        continuation: Callable[[int], Continuation] | None = None,
        ignore_noise: bool = True,
    ) -> None:
        super().__init__()
        check_at_least(0, sensitivity_weight=sensitivity_weight, guided_sensitivity_weight=guided_sensitivity_weight)
        self.world_model, self.is_guided = world_model, False
        self.sensitivity_weight, self.guided_sensitivity_weight = sensitivity_weight, guided_sensitivity_weight
        self.ignore_noise = ignore_noise
        if continuation is not None:
            world_model.continuation = continuation(world_model.state_dim)
        self.compile_model = compile_model
        self._compiled: Any = None  # as soon as it is called
        self.optimizer, self.scheduler = optimizer, scheduler
        check_optimizer(self.trained_parameters(), optimizer, scheduler)

    @property
    def learns_ends(self) -> bool:
        """Whether the world model learns in which states episodes end."""
        return self.world_model.continuation is not None

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that this module optimises."""
        return list(self.world_model.parameters())

    def loss_and_metrics(self, batch: TensorDict) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean squared error, in units of what the model predicts, and its parts.

        It is the mean over the members of an ensemble. Where a state, a difference or a reward is more than ten
        standard deviations from its mean its error counts relative to that, so that an episode that diverges does not
        outweigh all others. A learned reward adds its own error, that of a :class:`~lit_awm.models.RewardModel` over
        what was recorded; a clock, which is counted, adds none. To learn where episodes end adds the cross entropy of
        it, over what was recorded too. Twins add the ``sensitivity_error``: what share of the squared difference
        between them the model does not explain.
        """
        predicted, target, scale = self._predict(batch)
        errors, mask = ((predicted - target) / scale).square(), batch.get("mask", None)
        if self.world_model.reward_fn is not None:
            parts = {"state_loss": _mean(errors, mask)}
        else:
            parts = {"state_loss": _mean(errors[..., :-1], mask), "reward_loss": _mean(errors[..., -1:], mask)}
        if isinstance(self.world_model.reward_fn, RewardModel):
            parts["reward_loss"] = self._reward_loss(self.world_model.reward_fn, batch)
        if self.world_model.continuation is not None:
            parts["continuation_loss"] = self._continuation_loss(self.world_model.continuation, batch)
        loss = torch.stack(list(parts.values())).sum()
        if self._learns_differences(batch):
            weight = batch["twin_weight"][:, 0]
            parts["sensitivity_error"] = _sensitivity_error(predicted, target, scale, weight)
            loss = loss + self._weight_of_differences * parts["sensitivity_error"]
        return loss, {name: value.detach() for name, value in {"loss": loss, **parts}.items()}

    def _reward_loss(self, reward_fn: RewardModel, batch: TensorDict) -> Tensor:
        """Return the mean squared error, in standard units, of rewards of the steps of a batch that were recorded."""
        following = batch["next"]
        predicted = reward_fn(batch["observation"], batch["action"], following["observation"]).unsqueeze(-1)
        errors = (predicted - following["reward"]) / self._reward_scale(following["reward"])
        return _mean_of_recorded(errors.square().squeeze(-1), batch)

    def _continuation_loss(self, continuation: Continuation, batch: TensorDict) -> Tensor:
        """Return the cross entropy of whether episodes went on after the steps of a batch that were recorded."""
        ended = batch.get(("next", "terminated"), None)
        if ended is None:
            raise ValueError(
                "continuation needs batches that tell where episodes were terminated, as next: terminated, got one "
                f"with {', '.join(map(str, batch.keys(True, True)))}. Record it, or leave `continuation` out."
            )
        odds = continuation(self.world_model.state_scaler(batch["next", "observation"]))
        errors = F.binary_cross_entropy_with_logits(odds, 1 - ended.squeeze(-1).to(odds), reduction="none")
        return _mean_of_recorded(errors, batch)

    @property
    def _weight_of_differences(self) -> float:
        return self.guided_sensitivity_weight if self.is_guided else self.sensitivity_weight

    def _learns_differences(self, batch: TensorDict) -> bool:
        reads_later_states = self.world_model.reads_later_states  # and is told what actions have changed
        return self._weight_of_differences > 0 and not reads_later_states and "twin_weight" in batch.keys()

    def _predict(self, batch: TensorDict) -> tuple[Tensor, Tensor, Tensor]:
        """Return what each member predicts ``(M, B, H, D)``, what is right, and the scale of errors, ``(B, H, D)``.

        These are states without a clock and what is ignored and, unless it is known, the reward.
        """
        model, states, target = self.world_model, batch["observation"], batch["next", "observation"]
        with torch.autocast(states.device.type, enabled=False) if self._learns_differences(batch) else nullcontext():
            prediction = self._members()(states, batch["action"])
        scale = model.error_scale * (model.standard_targets(states, target).abs() / FAR).clamp(min=1)
        predicted, kept = prediction.state, ~model.state_scaler.ignored
        if model.clock_step is not None:
            predicted, target, scale, kept = (each[..., :-1] for each in (predicted, target, scale, kept))
        if not kept.all():
            predicted, target, scale = (each[..., kept] for each in (predicted, target, scale))
        if model.reward_fn is None:
            reward = batch["next", "reward"]
            reward_scale = self._reward_scale(reward)
            predicted = torch.cat([predicted, prediction.reward.unsqueeze(-1)], dim=-1)
            target, scale = torch.cat([target, reward], dim=-1), torch.cat([scale, reward_scale], dim=-1)
        return predicted, target, scale

    def _members(self) -> Callable[[Tensor, Tensor], Prediction]:
        """Return what predicts, compiled if it is to be."""
        if not self.compile_model:
            return self.world_model.members
        if self._compiled is None:
            self._compiled = torch.compile(self.world_model.members)
        compiled: Callable[[Tensor, Tensor], Prediction] = self._compiled
        return compiled

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is compiled, which is bound to this model: a copy compiles its own."""
        return super().__getstate__() | {"_compiled": None}

    def _reward_scale(self, reward: Tensor) -> Tensor:
        """Return what errors of rewards ``(B, H, 1)`` are measured in."""
        scaler = self.world_model.reward_scaler
        return scaler.scale * (scaler(reward).abs() / FAR).clamp(min=1)

    def loss(self, batch: TensorDict) -> Tensor:
        """Return the training loss of a batch, a scalar."""
        return self.loss_and_metrics(batch)[0]

    def fit_statistics(self, batch: TensorDict, noise: Tensor | None = None) -> None:
        """Set the model's standardisation from a batch, of all processes, unless it has been set before.

        Args:
            batch: Trajectories.
            noise: Which components of the state are noise ``(S,)``, if that has been decided; None to find them.
        """
        if not self.world_model.state_scaler.is_fitted:
            following, reward = batch["next", "observation"], batch["next", "reward"].squeeze(-1)
            counts = batch.get("mask", torch.ones_like(reward, dtype=torch.bool))
            ended = batch["next"].get("terminated", torch.zeros_like(batch["next", "reward"])).squeeze(-1).to(reward)
            parts = (gather(each) for each in (batch["observation"], following, batch["action"], reward, ended))
            states, following, actions, reward, ended = _without_filling(gather(counts.float()) > 0, *parts)
            states = torch.cat([states, following[:, -1:]], dim=1)
            self.world_model.fit_statistics(states, actions, reward)
            if self.ignore_noise:
                if noise is None:
                    noise = find_noise(states, actions, torch.stack([reward, ended], dim=-1))
                if noise.any():
                    self._ignore(noise & ~self.world_model.read_by_reward(states, actions))

    def _ignore(self, components: Tensor) -> None:
        """Let the model ignore components ``(S,)``, unless nothing would be left, and say which, if there are any."""
        others = len(components) - (self.world_model.clock_step is not None)
        if components.any() and not components[:others].all():
            self.world_model.ignore(components)
            numbers = ", ".join(map(str, components.nonzero().flatten().tolist()))
            rank_zero_info(
                f"{type(self.world_model).__name__} takes dimensions {numbers} of {len(components)} for noise and "
                "ignores them. Set `ignore_noise: false` of the world model's module to have all of them read."
            )

    def check_slice_length(self, trainer: Trainer) -> None:
        """Reject data whose trajectories the model has no positions for, before the first step."""
        slice_length = getattr(getattr(trainer, "datamodule", None), "slice_length", None)
        if slice_length is not None:
            self.world_model.check_horizon(slice_length)

    def configure_model(self) -> None:
        """Divide the model between processes, if the strategy is ``ModelParallelStrategy`` (FSDP2)."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            if self.compile_model:
                raise ValueError("compile_model must be false with ModelParallelStrategy, got true.")
            if self.world_model.continuation is not None:
                raise ValueError("continuation must be null with ModelParallelStrategy, got one. Use DDP.")
            if isinstance(self.world_model.reward_fn, RewardModel):
                raise ValueError(
                    "reward must be null with ModelParallelStrategy, got a RewardModel. Set `--model.reward null`, or "
                    "use DDP."
                )
            shard(self.world_model, self.trainer.strategy, "members")

    def setup(self, stage: str) -> None:
        self.check_slice_length(self.trainer)

    def on_train_batch_start(self, batch: TensorDict, batch_idx: int) -> None:
        self.fit_statistics(batch)

    def training_step(self, batch: TensorDict, batch_idx: int) -> Tensor:
        loss, metrics = self.loss_and_metrics(batch)
        self.log_dict(prefixed("world_model", metrics), prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: TensorDict, batch_idx: int) -> None:
        _, metrics = self.loss_and_metrics(batch)
        self.log_dict(prefixed("val", metrics), batch_size=len(batch), sync_dist=True)

    def configure_optimizers(self) -> Any:
        if not self.trained_parameters():
            raise ValueError(
                f"world_model must have parameters to fit, got {type(self.world_model).__name__}. Optimise a policy in "
                "it with a PolicyModule or an AlternatingModule."
            )
        return build_optimizer(self.trained_parameters(), self.optimizer, self.scheduler)


def _without_filling(mask: Tensor, *sequences: Tensor) -> list[Tensor]:
    """Return those of the sequences ``(B, H, ...)`` that count for as long as half of them do, and no longer."""
    if mask.all():
        return list(sequences)
    lengths = mask.sum(1)
    length = int(lengths.median())
    return [each[lengths >= length, :length] for each in sequences]


def _mean(errors: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of errors ``(..., B, H, D)`` over the steps ``(B, H)`` that count, all of them without a mask."""
    if mask is None:
        return errors.mean()
    by_step = errors.mean(-1).masked_fill(~mask, 0)
    return by_step.sum() / (mask.sum() * (by_step.numel() // mask.numel())).clamp(min=1)


def _mean_of_recorded(errors: Tensor, batch: TensorDict) -> Tensor:
    """Return the mean of errors ``(B, H)`` over the steps of a batch that count and that no teacher has labelled."""
    if (weight := batch.get("recorded_weight", None)) is not None:
        return (weight * errors.masked_fill(weight == 0, 0)).mean()  # whatever fills up an episode
    return _mean(errors.unsqueeze(-1), batch.get("mask", None))


def _sensitivity_error(predicted: Tensor, target: Tensor, scale: Tensor, twin_weight: Tensor) -> Tensor:
    """Return the share of the squared differences between twins that is not explained, the mean over components.

    Args:
        predicted: ``(M, B, H, D)``, by each of ``M`` members.
        target: ``(B, H, D)``.
        scale: ``(B, H, D)``.
        twin_weight: ``(B,)``, above 0 where a trajectory is a twin of the one before; what the share counts is its
            mean, which is above 1 in a part of a batch that has more of the twins than others.
    """
    are_twins = twin_weight[1:, None, None] > 0
    expected = torch.where(are_twins, target.diff(dim=0) / scale[1:], 0.0)
    unexplained = torch.where(are_twins, (predicted - target).diff(dim=1) / scale[1:], 0.0)
    least = LEAST_DIFFERENCE**2 * target.shape[1] * are_twins.sum().clamp(min=1)
    shares = unexplained.square().sum(dim=(1, 2)) / (expected.square().sum(dim=(0, 1)) + least)
    return twin_weight.mean() * shares.mean()
