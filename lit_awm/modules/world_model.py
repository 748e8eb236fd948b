"""Fit a world model."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import ModelParallelStrategy
from tensordict import TensorDict
from torch import Tensor, nn

from lit_awm.distributed import gather, shard
from lit_awm.models import WorldModel
from lit_awm.modules.optimization import build_optimizer, check_optimizer, default_optimizer, prefixed

FAR = 10.0  # standard deviations from the mean, beyond which errors count relative to the distance


class WorldModelModule(LightningModule):
    """Fit a world model to recorded trajectories by teacher forcing.

    A batch is a ``TensorDict`` ``(B, H)`` with ``observation``, ``action`` and ``next``: ``observation``, ``reward``.
    The first batch ever seen sets the model's standardisation.

    Args:
        world_model: The model to fit.
        optimizer: Makes the optimizer from the parameters.
        scheduler: Makes the learning-rate schedule, stepped after every update.
        compile_model: Whether the pass through the model is compiled, which takes a minute at first and pays for large
            models and on GPUs. Compiling the whole module by ``torch.compile(module)`` fails in Lightning's logging.

    Raises:
        ValueError: If optimizer or scheduler cannot be made of its arguments.
    """

    phases = ("world_model",)

    def __init__(
        self,
        world_model: WorldModel,
        optimizer: OptimizerCallable = default_optimizer,
        scheduler: LRSchedulerCallable | None = None,
        compile_model: bool = False,
    ) -> None:
        super().__init__()
        self.world_model = world_model
        self._compiled = torch.compile(world_model.members) if compile_model else None
        self.optimizer, self.scheduler = optimizer, scheduler
        check_optimizer(self.trained_parameters(), optimizer, scheduler)

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that this module optimises."""
        return list(self.world_model.parameters())

    def loss_and_metrics(self, batch: TensorDict) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean squared error, in units of what the model predicts, and its parts.

        It is the mean over the members of an ensemble. Where a state, a difference or a reward is more than ten
        standard deviations from its mean its error counts relative to that, so that an episode that diverges does not
        outweigh all others. A learned reward adds its own error; a clock, which is counted, adds none.
        """
        model, states, next_states = self.world_model, batch["observation"], batch["next", "observation"]
        prediction = (self._compiled or model.members)(states, batch["action"])
        distance = model.standard_targets(states, next_states).abs() / FAR
        error = (prediction.state - next_states) / (model.error_scale * distance.clamp(min=1))
        if model.clock_step is not None:
            error = error[..., :-1]
        state_loss = error.square().mean()
        if model.reward_fn is not None:
            return state_loss, {"loss": state_loss.detach()}
        reward = batch["next", "reward"]
        distance = (model.reward_scaler(reward).abs() / FAR).clamp(min=1).squeeze(-1)
        reward_error = (prediction.reward - reward.squeeze(-1)) / (model.reward_scaler.scale * distance)
        reward_loss = reward_error.square().mean()
        loss = state_loss + reward_loss
        return loss, {"loss": loss.detach(), "state_loss": state_loss.detach(), "reward_loss": reward_loss.detach()}

    def loss(self, batch: TensorDict) -> Tensor:
        """Return the training loss of a batch, a scalar."""
        return self.loss_and_metrics(batch)[0]

    def fit_statistics(self, batch: TensorDict) -> None:
        """Set the model's standardisation from a batch, of all processes, unless it has been set before."""
        if not self.world_model.state_scaler.is_fitted:
            last, reward = batch["next", "observation"][:, -1:], batch["next", "reward"].squeeze(-1)
            states = torch.cat([batch["observation"], last], dim=1)
            self.world_model.fit_statistics(gather(states), gather(batch["action"]), gather(reward))

    def check_slice_length(self, trainer: Trainer) -> None:
        """Reject data whose trajectories the model has no positions for, before the first step."""
        slice_length = getattr(getattr(trainer, "datamodule", None), "slice_length", None)
        if slice_length is not None:
            self.world_model.check_horizon(slice_length)

    def configure_model(self) -> None:
        """Divide the model between processes, if the strategy is ``ModelParallelStrategy`` (FSDP2)."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            if self._compiled is not None:
                raise ValueError("compile_model must be false with ModelParallelStrategy, got true.")
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
