"""An actions world model within a LightningModule of somebody else: ``python examples/component.py``.

The module encodes pixels, and learns an actions world model of the codes. It is anybody's: nothing of it needs our
modules, data or command line.
"""

from __future__ import annotations

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_awm.models import ActionsWorldModel, CausalTransformer

PIXELS, CODE, ACTIONS, STEPS = 8, 4, 1, 12


class LatentDynamics(LightningModule):
    """Predict what a camera will see from its first image and what is done."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(2), nn.Linear(PIXELS**2, CODE))
        self.decoder = nn.Sequential(nn.Linear(CODE, PIXELS**2), nn.Sigmoid())
        self.world_model = ActionsWorldModel(CODE, ACTIONS, CausalTransformer(32, 1, 2, max_horizon=STEPS))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, actions = batch  # (B, STEPS + 1, PIXELS, PIXELS), (B, STEPS, ACTIONS)
        codes = self.encoder(images)
        predicted = self.world_model(codes[:, :-1], actions).state  # which reads the first code alone
        loss = nn.functional.mse_loss(self.decoder(predicted), images[:, 1:].flatten(2))
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def film(count: int) -> TensorDataset:
    """Return films of a bright column that actions push to and fro."""
    actions = torch.rand(count, STEPS, ACTIONS) * 2 - 1
    places = torch.cat([torch.zeros(count, 1), actions[..., 0].cumsum(1)], dim=1).clamp(-3, 3) + 3.5
    columns = torch.exp(-((torch.arange(PIXELS) - places.unsqueeze(-1)) ** 2))
    return TensorDataset(columns.unsqueeze(2).expand(-1, -1, PIXELS, -1).clone(), actions)


def main(epochs: int = 20) -> float:
    """Fit, and return the last loss."""
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(LatentDynamics(), DataLoader(film(512), batch_size=64))
    return trainer.callback_metrics["loss"].item()


if __name__ == "__main__":
    print(f"mean squared error of a pixel: {main():.4f}")
