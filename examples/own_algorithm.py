"""Another algorithm on our data: ``python examples/own_algorithm.py``.

``ExperienceDataModule`` brings TorchRL's collector and buffer, evaluation and exact resume to any LightningModule that
has a ``behaviour_policy`` and names its ``phases``. Here: imitate the better half of what has been tried.
"""

from __future__ import annotations

import torch
from lightning import LightningModule, Trainer
from tensordict import TensorDict
from torch import Tensor

from lit_awm.data import ExperienceDataModule
from lit_awm.models import DeterministicPolicy


class BestHalf(LightningModule):
    """Regress actions on states, in those recorded episodes that earned more than the median."""

    phases = ("agent",)  # trajectories, with what they have earned

    def __init__(self, state_dim: int, action_dim: int) -> None:
        super().__init__()
        self.behaviour_policy = DeterministicPolicy(state_dim, action_dim)

    def training_step(self, batch: TensorDict, batch_idx: int) -> Tensor:
        if not self.behaviour_policy.state_scaler.is_fitted:
            self.behaviour_policy.state_scaler.fit(batch["observation"])
        earned = batch["episode_return"][:, 0, 0]
        best = batch[earned >= earned.median()]
        return (self.behaviour_policy(best["observation"]) - best["action"]).square().mean()

    def validation_step(self, batch: TensorDict, batch_idx: int) -> None:
        self.log("cost", batch["cost"].mean(), prog_bar=True, batch_size=len(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def main(epochs: int = 20, updates: int = 100) -> float:
    """Learn to treat cancer, and return what the treatment costs; the optimum is 20.57, random controls cost 35."""
    torch.manual_seed(0)
    sizes = {"agent_updates": updates, "agent_batch_size": 32, "num_envs": 10, "warmup_episodes": 50}
    data = ExperienceDataModule("cancer_treatment", **sizes)
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(BestHalf(data.state_dim, data.action_dim), data)
    return trainer.callback_metrics["cost"].item()


if __name__ == "__main__":
    print(f"cost {main():.2f}")
