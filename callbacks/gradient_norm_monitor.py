"""Log the norm of the gradient, phase by phase."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class GradientNormMonitor(Callback):
    """Log ``world_model/grad_norm`` and ``policy/grad_norm``: Euclidean norms, before any clipping by the module.

    For a module with several optimizers (``AlternatingModule``) the name is that of the phase whose optimizer is about
    to step.
    """

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        phases: Any = getattr(pl_module, "phases", ("model",))
        phase = phases[trainer.optimizers.index(optimizer)]
        pl_module.log(f"{phase}/grad_norm", torch.nn.utils.get_total_norm(gradients), batch_size=1)
