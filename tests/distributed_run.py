"""A run by several processes, to be started by tests: ``python distributed_run.py KIND OUT PROCESSES [CHECKPOINT]``.

Every process writes ``OUT/rank_R.pt``: of each update its phase, weights and gradients, and at the end the data.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from tensordict import TensorDict
from torch.distributed.tensor import DTensor

from lit_awm.callbacks import AdaptiveHorizon, GradientGuard, GradientNormMonitor
from lit_awm.checkpoints import SafeCheckpointIO
from lit_awm.data import ExperienceDataModule
from lit_awm.distributed import rank
from lit_awm.models import ActionsWorldModel, CausalTransformer, DeterministicPolicy, MarkovWorldModel
from lit_awm.modules import (
    AlternatingModule,
    DecisionTransformerPolicy,
    OnlineDTModule,
    PolicyModule,
    SACModule,
    WorldModelModule,
)

LENGTH, EPOCHS = 8, 3


class Tape(Callback):
    """Record phase, loss, weights and gradients of every update."""

    def __init__(self) -> None:
        self.tape: list[dict[str, Any]] = []
        self.gradients = torch.zeros(0)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        found = [whole(parameter.grad).flatten() for parameter in parameters if parameter.grad is not None]
        self.gradients = torch.cat(found).clone()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        tensors = [*pl_module.parameters(), *pl_module.buffers()]
        weights = torch.cat([whole(tensor.detach()).double().flatten() for tensor in tensors])
        local = [tensor.to_local().numel() for tensor in tensors if isinstance(tensor, DTensor)]
        self.tape.append(
            {
                "step": trainer.global_step,
                "phase": batch["phase"],
                "weights": weights.clone(),
                "local": sum(local),
                "gradients": self.gradients,
                "batch": batch.exclude("phase").clone(),
            }
        )


def make_data(**options: Any) -> ExperienceDataModule:
    defaults: dict[str, Any] = {
        "episode_length": LENGTH,
        "num_envs": 2,
        "warmup_episodes": 4,
        "turns": 2,
        "teacher_updates": 2,
        "world_model_updates": 2,
        "policy_updates": 4,
        "agent_updates": 4,
        "agent_batch_size": 4,
        "world_model_batch_size": 4,
        "policy_batch_size": 3,
        "eval_episodes": 2,
        "imagine_from": "anywhere",
        "trial": True,
    }
    return ExperienceDataModule("bear_populations", {"initial_spread": 0.1}, **(defaults | options))


def make_module(kind: str, data: ExperienceDataModule) -> Any:
    sizes = data.state_dim, data.action_dim
    model = partial(ActionsWorldModel, backbone=CausalTransformer(16, 1, 1, LENGTH))
    policy = partial(DeterministicPolicy, hidden_dim=8)
    imagination: dict[str, Any] = {"imagination_horizon": LENGTH, "imagination": "warm", "action_noise": 0.1}
    if kind in ("world_model", "sharded"):
        return WorldModelModule(model(*sizes))
    if kind == "policy":
        world_model = model(*sizes)
        states = torch.rand(16, LENGTH + 1, data.state_dim)
        world_model.fit_statistics(states, torch.rand(16, LENGTH, data.action_dim), states[:, 1:, 0])
        return PolicyModule(policy(*sizes), world_model, imagination_horizon=LENGTH)
    if kind == "sac":
        return SACModule(*sizes, clock_step=data.clock_step)
    if kind == "online_dt":
        return OnlineDTModule(*sizes, policy=partial(DecisionTransformerPolicy, context_length=LENGTH, hidden_dim=16))
    return AlternatingModule(
        *sizes,
        world_model=model,
        policy=policy,
        policy_module=partial(PolicyModule, **imagination),
        teacher=partial(MarkovWorldModel, hidden_dim=8),
        clock_step=data.clock_step,
    )


def make_strategy(kind: str, processes: int) -> Any:
    if kind == "sharded":
        return ModelParallelStrategy(processes, tensor_parallel_size=1, save_distributed_checkpoint=False)
    return "ddp" if processes > 1 else "auto"


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Put together what is divided between processes."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def main(kind: str, out: Path, processes: int, checkpoint: str | None) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    seed_everything(1 if checkpoint else 0, verbose=False)
    data = make_data(slice_length=1 if kind == "sac" else None)
    module, tape = make_module(kind, data), Tape()
    kept = 1 if kind == "long" else -1
    guards = [AdaptiveHorizon(2, threshold=1e-6, every=2)] if kind == "alternating" else []
    trainer = Trainer(
        max_epochs=10_000 if kind == "long" else EPOCHS,
        accelerator="cpu",
        devices=processes,
        strategy=make_strategy(kind, processes),
        plugins=[] if kind == "sharded" else [SafeCheckpointIO()],
        default_root_dir=out,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[
            GradientNormMonitor(),
            GradientGuard(),
            *guards,
            ModelCheckpoint(out / "checkpoints", "{step}", save_top_k=kept, every_n_train_steps=1),
            tape,
        ],
    )
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    rows: TensorDict = data.buffer[: len(data.buffer)]
    told = {"tape": tape.tape, "observation": rows["observation"], "env_steps": data.env_steps, "rows": len(rows)}
    scores = {name: value.item() for name, value in trainer.callback_metrics.items()}
    torch.save(told | {"scores": scores}, out / f"rank_{rank()}.pt")


if __name__ == "__main__":
    kind, out, processes, *rest = sys.argv[1:]
    main(kind, Path(out), int(processes), rest[0] if rest else None)
