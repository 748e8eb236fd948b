"""What agents without a world model have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from tensordict import TensorDict
from torch import Tensor, nn

from lit_awm.models import Policy
from lit_awm.models.standardizer import Standardizer
from lit_awm.modules.optimization import build_optimizer, check_optimizer, log_evaluation, prefixed


class AgentModule(LightningModule, ABC):
    """An agent that learns from recorded trajectories and from nothing else, under a stock Trainer.

    A batch is a ``TensorDict`` ``(B, H)`` with ``observation``, ``action`` and ``next``: ``observation``, ``reward``,
    ``terminated``; and with ``return_to_go`` and ``episode_return``, see :func:`~lit_awm.data.returns.add_returns`. The
    first batch ever seen sets the standardisation of states and the unit of rewards.

    Args:
        policy: The policy that collects experience, is optimised and evaluated.
        clock_step: Advance per step of the clock at the end of the state, or None. With a clock the end of an episode
            is a state like any other, after which nothing follows; without one an episode that is cut short counts as
            if it went on (Pardo et al., 2018, arXiv:1712.00378).
    """

    phases = ("agent",)
    updates: Tensor

    def __init__(self, policy: Policy, clock_step: float | None) -> None:
        super().__init__()
        self.policy, self.clock_step = policy, clock_step
        self.reward_scaler = Standardizer(1)
        self.register_buffer("updates", torch.tensor(0))
        self.optimizer: OptimizerCallable
        self.scheduler: LRSchedulerCallable | None

    def take_optimizer(self, optimizer: OptimizerCallable, scheduler: LRSchedulerCallable | None) -> None:
        """Keep what makes optimizer and schedule, after a check; to be called when there are parameters."""
        check_optimizer(self.trained_parameters(), optimizer, scheduler)
        self.optimizer, self.scheduler = optimizer, scheduler

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
            self.policy.state_scaler.fit(batch["observation"])
            self.reward_scaler.fit(batch["next", "reward"])

    def ends(self, batch: TensorDict) -> Tensor:
        """Tell after which transitions nothing follows, ``(B, H, 1)``: the domain was left, or the clock ran out."""
        terminated: Tensor = batch["next", "terminated"]
        if self.clock_step is None:
            return terminated
        return terminated | (batch["next", "observation"][..., -1:] > 1 - self.clock_step / 2)

    def on_train_batch_start(self, batch: TensorDict, batch_idx: int) -> None:
        self.fit_statistics(batch)

    def training_step(self, batch: TensorDict, batch_idx: int) -> Tensor:
        loss, metrics = self.loss_and_metrics(batch)
        self.log_dict(prefixed("agent", metrics), batch_size=len(batch))
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.after_update()

    def validation_step(self, batch: TensorDict, batch_idx: int) -> None:
        log_evaluation(self, batch)
        self.log("agent_updates", self.updates.float(), batch_size=1)

    def configure_optimizers(self) -> Any:
        return build_optimizer(self.trained_parameters(), self.optimizer, self.scheduler)
