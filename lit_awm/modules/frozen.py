"""What a fit uses and leaves as it is."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn


class Frozen(Callback):
    """Keep the parameters of a module from being trained during a fit, however that ends.

    Args:
        module: Whose parameters; those that were frozen before stay so afterwards.
        owner: During whose fit; the same trainer may fit ``module`` itself afterwards.
    """

    def __init__(self, module: nn.Module, owner: LightningModule) -> None:
        self.module, self.owner = module, owner
        self._frozen: list[nn.Parameter] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and pl_module is self.owner:
            self._frozen += [each for each in self.module.parameters() if each.requires_grad]
            self.module.requires_grad_(False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")
