"""Log the norm of the gradient: by phase, by layer group, by position in the imagined trajectory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_awm.callbacks.policy_module import policy_module
from lit_awm.checks import check_count
from lit_awm.modules.latest_metrics import LatestMetrics
from lit_awm.modules.optimization import gradient_norm, is_written


class GradientNormMonitor(Callback):
    """Log ``PHASE/grad_norm``, such as ``policy/grad_norm``: Euclidean norms, before any clipping by the module.

    For a module with several optimizers (``AlternatingModule``) the name is that of the phase whose optimizer is about
    to step, and norms are logged in the batches in which the trainer writes them and the last of an epoch.

    Args:
        layers: Whether to log the norm of each group of layers too, as ``PHASE/grad_norm/GROUP``; a group is a direct
            child of the world model, the teacher or the policy, for example ``policy/grad_norm/network``, or the
            bootstrap.
        positions: Into how many parts, equal but for rounding, to divide the imagined trajectory; the norm of the
            gradient with respect to the actions of each is logged as ``policy/action_grad_norm/PART``, from 1, the
            beginning. 0 logs none.

    Raises:
        ValueError: If ``positions`` is no whole number from 0 on; or, when training starts, if it is above 0 and the
            module optimises no policy, or splits its batches, so that no trajectory's gradient is there as a whole.
    """

    def __init__(self, layers: bool = False, positions: int = 0) -> None:
        check_count(0, positions=positions)
        self.layers, self.positions = layers, positions
        self._latest = LatestMetrics()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.positions:
            policy_module(pl_module, type(self).__name__)
        if self.positions and getattr(pl_module, "accumulate", 1) > 1:
            raise ValueError(
                f"positions must be 0 where a batch is split into parts, got {self.positions} with accumulate "
                f"{pl_module.accumulate}. Set `accumulate: 1`, or leave `positions` out."
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._latest.clear()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        phases: Any = getattr(pl_module, "optimized_phases", getattr(pl_module, "phases", ("model",)))
        phase = phases[trainer.optimizers.index(optimizer)]
        norms = {f"{phase}/grad_norm": gradient_norm(optimizer, trainer.global_step)}
        if self.layers:
            trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            norms |= {f"{phase}/grad_norm/{name}": norm for name, norm in _by_group(pl_module, trained).items()}
        if self.positions and phase == "policy":
            norms |= {f"policy/action_grad_norm/{part}": norm for part, norm in self._by_position(pl_module)}
        self._latest.update(phase, norms)
        if pl_module.automatic_optimization or is_written(trainer):
            self._latest.log(pl_module, batch_size=1)

    def state_dict(self) -> dict[str, Any]:
        """Return the latest norms, by phase."""
        return self._latest.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self._latest.load_state_dict(state_dict)

    def _by_position(self, pl_module: LightningModule) -> Iterable[tuple[int, Tensor]]:
        gradients = policy_module(pl_module, type(self).__name__).action_gradient
        assert gradients is not None
        for part, gradient in enumerate(gradients.tensor_split(self.positions, dim=1), start=1):
            yield part, gradient.norm()


def _by_group(pl_module: LightningModule, trained: set[int]) -> dict[str, Tensor]:
    """Return the norms by the name of the module that directly holds each group, within its model."""
    groups: dict[str, list[Tensor]] = {}
    for name, parameter in pl_module.named_parameters():
        if id(parameter) in trained:
            words = [word for word in name.split(".")[:-1] if word not in ("world_model", "policy", "teacher")]
            groups.setdefault(words[0] if words else name.split(".")[-1], []).append(parameter)
    return {name: _norm(parameters) for name, parameters in groups.items()}


def _norm(parameters: Iterable[Tensor]) -> Tensor:
    return torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
