"""What agents without a world model have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NoReturn

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from tensordict import TensorDict
from torch import Tensor, nn

from lit_awm.distributed import OwnReduction, average_gradients, check_strategy, gather
from lit_awm.models import Policy
from lit_awm.modules.optimization import build_optimizer, log_evaluation, prefixed


class AgentModule(LightningModule, ABC):
    """An agent that learns from recorded trajectories and from nothing else, under a stock Trainer.

    A batch is a ``TensorDict`` ``(B, H)`` with ``observation``, ``action`` and ``next``: ``observation``, ``reward``,
    ``terminated``; and with ``return_to_go`` and ``episode_return``, see :func:`~lit_awm.data.returns.add_returns`. The
    first batch ever seen sets the standardisation of states.

    Args:
        policy: The policy that collects experience, is optimised and evaluated.
        optimizer: Makes the optimizer from the parameters.
        scheduler: Makes the learning-rate schedule, stepped after every update.
    """

    phases = ("agent",)
    updates: Tensor

    def __init__(
        self, policy: Policy, optimizer: OptimizerCallable, scheduler: LRSchedulerCallable | None = None
    ) -> None:
        super().__init__()
        self.policy, self.optimizer, self.scheduler = policy, optimizer, scheduler
        self._reduction = OwnReduction()
        self.register_buffer("updates", torch.tensor(0))

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        """Refuse: in a copy of TorchRL's losses policy and loss would no longer share their parameters."""
        raise TypeError(
            f"{type(self).__name__} must not be copied, as by callbacks that average weights: the loss of the copy "
            "would train parameters that its policy has not. Build another one, and load this one's `state_dict()`."
        )

    @property
    def behaviour_policy(self) -> Policy:
        """The policy that collects experience and is evaluated."""
        return self.policy

    @abstractmethod
    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that this module optimises."""

    @abstractmethod
    def loss_and_metrics(self, batch: TensorDict) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the training loss of a batch, a scalar, and what is known about it."""

    def after_update(self) -> None:
        """Count an update; to be called after every step of the optimizer."""
        self.updates += 1

    def loss(self, batch: TensorDict) -> Tensor:
        """Return the training loss of a batch, a scalar."""
        return self.loss_and_metrics(batch)[0]

    def fit_statistics(self, batch: TensorDict) -> None:
        """Set the standardisation from a batch, unless it has been set before."""
        if not self.policy.state_scaler.is_fitted:
            self.policy.state_scaler.fit(gather(batch["observation"]))

    def setup(self, stage: str) -> None:
        check_strategy(self.trainer, type(self).__name__)

    def on_train_batch_start(self, batch: TensorDict, batch_idx: int) -> None:
        self.fit_statistics(batch)
        self._reduction.begin(self.trainer)

    def on_train_batch_end(self, *_: Any) -> None:
        self._reduction.end()

    def on_after_backward(self) -> None:
        average_gradients(self.trained_parameters())

    def training_step(self, batch: TensorDict, batch_idx: int) -> Tensor:
        loss, metrics = self.loss_and_metrics(batch)
        self.log_dict(prefixed("agent", metrics), batch_size=len(batch))
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then count it and move target networks, before callbacks save a checkpoint."""
        super().optimizer_step(*args, **kwargs)
        self.after_update()

    def validation_step(self, batch: TensorDict, batch_idx: int) -> None:
        log_evaluation(self, batch)
        self.log("agent_updates", self.updates.float(), batch_size=1, sync_dist=True)

    def configure_optimizers(self) -> Any:
        return build_optimizer(self.trained_parameters(), self.optimizer, self.scheduler)
