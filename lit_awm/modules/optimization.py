"""What the modules share: optimizers given as callables, and logging."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from tensordict import TensorDict
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_awm.data import SCORES

_NORMS: WeakKeyDictionary[torch.optim.Optimizer, tuple[Any, Tensor]] = WeakKeyDictionary()


def build_optimizer(
    parameters: Iterable[nn.Parameter], optimizer: OptimizerCallable, scheduler: LRSchedulerCallable | None
) -> dict[str, Any]:
    """Return what ``configure_optimizers`` returns: the optimizer and, if any, a scheduler stepped every update.

    Raises:
        ValueError: If the scheduler waits for a plateau of a metric.
    """
    built = optimizer(parameters)
    if scheduler is None:
        return {"optimizer": built}
    schedule = scheduler(built)
    if isinstance(schedule, ReduceLROnPlateau):
        raise ValueError(
            "scheduler must be one that is stepped after every update, got ReduceLROnPlateau. Use for example "
            "lit_awm.modules.CosineRestarts."
        )
    return {"optimizer": built, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def check_optimizer(
    parameters: list[nn.Parameter], optimizer: OptimizerCallable, scheduler: LRSchedulerCallable | None
) -> None:
    """Build an optimizer and its scheduler once, so that what is wrong with them is known before a fit.

    Raises:
        ValueError: If the optimizer or the scheduler rejects its arguments, or is not one for us.
    """
    if not callable(optimizer):
        raise ValueError(f"optimizer must be a function of the parameters, got {optimizer!r}.")
    if parameters:  # a simulator has none
        built = build_optimizer(parameters, optimizer, scheduler)["optimizer"]
        if isinstance(built, torch.optim.LBFGS | torch.optim.SparseAdam):
            raise ValueError(
                f"optimizer must be one that takes a step by dense gradients, got {type(built).__name__}. Use "
                "for example torch.optim.Adam."
            )


def default_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return Adam with a learning rate of 1e-3."""
    return torch.optim.Adam(parameters, lr=1e-3)


def log_evaluation(module: LightningModule, evaluation: TensorDict) -> None:
    """Log the counters and, as ``eval/...``, the mean scores of an evaluation in the real environment."""
    module.log_dict(
        {name: float(count) for name, count in evaluation["counters"].items()}, batch_size=1, sync_dist=True
    )
    for score in SCORES:
        if score in evaluation.keys():
            module.log(f"eval/{score}", evaluation[score].mean(), batch_size=len(evaluation), sync_dist=True)


def is_written(trainer: Trainer) -> bool:
    """Tell whether the trainer will write what is logged in this batch, or it is the last of an epoch.

    To log in every batch what is written in one of fifty would take as long as a layer of a small model.
    """
    # The trainer's own words, since what it counts depends on how and when a run was resumed.
    will_write: bool = trainer._logger_connector.should_update_logs
    return will_write or trainer.is_last_batch or bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def prefixed(prefix: str, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the metrics under names that begin with ``prefix/``."""
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


def gradient_norm(optimizer: torch.optim.Optimizer, step: int) -> Tensor:
    """Return the Euclidean norm of the gradients that an optimizer is about to use, computed once however often asked.

    Args:
        optimizer: Whose parameters' gradients.
        step: Which of its steps it is.
    """
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    key = step, [(id(gradient), gradient._version) for gradient in gradients]
    known = _NORMS.get(optimizer)
    if known is None or known[0] != key:
        known = _NORMS[optimizer] = key, torch.nn.utils.get_total_norm(gradients)
    return known[1]
