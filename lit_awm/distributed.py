"""What the processes of a run tell each other. With one process there is nothing to tell."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

RANKS = "ranks"  # in a checkpoint: what differs from process to process, in their order
EXTRA_STATE = "_extra_state"  # how the names of such parts of a module's state end


def process_count() -> int:
    """Return how many processes take part in the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if process_count() > 1 else 0


def gather(tensor: Tensor) -> Tensor:
    """Return the tensors ``(B, ...)`` of all processes, one after the other, in each of them."""
    if process_count() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(process_count())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def gather_objects(value: Any) -> list[Any]:
    """Return what each of the processes has, in their order, in each of them; tensors come to the CPU."""
    if process_count() == 1:
        return [value]
    found = [None] * process_count()
    dist.all_gather_object(found, _to_cpu(value))
    return found


def gather_objects_in_first(value: Any) -> list[Any] | None:
    """Return what each of the processes has in the first of them, and None in the others."""
    found = [None] * process_count() if rank() == 0 else None
    dist.gather_object(_to_cpu(value), found)
    return found


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their means over all processes, in one message.

    Where some processes have no gradient of a parameter it counts as zero; where none has one there is none.
    """
    if process_count() == 1:
        return
    parameters = list(parameters)
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
    is_there = torch.tensor([each.grad is not None for each in parameters]).to(gradients[0])
    flat = torch.cat([is_there, *(gradient.flatten() for gradient in gradients)])
    dist.all_reduce(flat)
    is_there, *parts = (flat / process_count()).split_with_sizes(
        [len(parameters), *(each.numel() for each in gradients)]
    )
    for parameter, gradient, part, found in zip(parameters, gradients, parts, is_there.tolist(), strict=True):
        if found:
            parameter.grad = gradient.copy_(part.view_as(gradient))


class OwnReduction:
    """Let a module average its gradients itself, by :func:`average_gradients`, in place of DDP.

    DDP demands that every parameter has a gradient in every update, or searches for those that have none. Where the
    phases of a loop train one model after the other that is never so; what a phase trains is known.
    """

    def __init__(self) -> None:
        self._quiet = ExitStack()

    def begin(self, trainer: Trainer) -> None:
        """Silence DDP, to be called before a training step: the trainer wakes it after each."""
        if isinstance(trainer.strategy.model, DistributedDataParallel):
            self._quiet.enter_context(trainer.strategy.model.no_sync())

    def end(self) -> None:
        """Let DDP go on, to be called after the training step."""
        self._quiet.close()


def save_ranks(module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Add what differs from process to process to a checkpoint that one of them writes; all must call it."""
    if process_count() > 1:
        own = {name: value for name, value in module.state_dict().items() if name.endswith(EXTRA_STATE)}
        checkpoint[RANKS] = gather_objects(own)


def load_ranks(module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Put what belongs to this process into the state that its module is about to load, to go on with a fit.

    Raises:
        ValueError: If the checkpoint was written by another number of processes.
    """
    trainer = module._trainer  # None where weights are loaded without one
    if trainer is None or trainer.state.fn != "fit":
        return
    found = checkpoint.get(RANKS)
    check_ranks(1 if found is None else len(found))
    if found is not None:
        checkpoint["state_dict"].update(found[rank()])


def check_strategy(trainer: Trainer, name: str) -> None:
    """Reject a strategy that does not leave the whole of each model to every process, and a device without doubles.

    Args:
        trainer: Whose strategy is meant.
        name: Of the module.

    Raises:
        ValueError: If it is neither that of a single device nor DDP; or on Apple's GPUs (MPS).
    """
    strategy = trainer.strategy
    if isinstance(strategy, SingleDeviceStrategy) and strategy.root_device.type == "mps":
        raise ValueError(
            f"trainer.accelerator must be cpu or gpu for {name}, got mps, which has no double precision. Use "
            "`accelerator: cpu`."
        )
    if not isinstance(strategy, SingleDeviceStrategy) and type(strategy) is not DDPStrategy:
        raise ValueError(
            f"trainer.strategy must be auto or ddp for {name}, got {type(strategy).__name__}. To fit a world model "
            "that is too large for one device, fit a WorldModelModule alone."
        )


def shard(model: nn.Module, strategy: ModelParallelStrategy, *methods: str) -> None:
    """Divide the parameters of a model between processes (FSDP2), for one that is too large for a device.

    The entries of each ``ModuleList``, as the blocks of a transformer, are put together one at a time when they are
    computed, and taken apart again.

    Args:
        model: The model.
        strategy: Between how many processes, its ``data_parallel_size``.
        methods: Names of methods of the model that compute something, besides ``forward``.

    Raises:
        ValueError: If the strategy would also split tensors, or is given a checkpoint plugin, with which it would write
            checkpoints but not read them.
    """
    if (count := strategy.device_mesh["tensor_parallel"].size()) != 1:
        raise ValueError(
            f"trainer.strategy.tensor_parallel_size must be 1, got {count}. Give data_parallel_size: the number of "
            "processes."
        )
    if type(strategy.checkpoint_io) is not TorchCheckpointIO:
        raise ValueError(
            f"trainer.plugins must hold no {type(strategy.checkpoint_io).__name__} with ModelParallelStrategy, which "
            "reads checkpoints by itself. Leave it out."
        )
    mesh = strategy.device_mesh["data_parallel"]
    for entries in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        for entry in entries:
            fully_shard(entry, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name in methods:
        register_fsdp_forward_method(model, name)


def _to_cpu(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _to_cpu(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_to_cpu(each) for each in value]
    return value.cpu() if isinstance(value, Tensor) else value


def check_ranks(count: int) -> None:
    """Reject a state of another number of processes.

    Raises:
        ValueError: If it is another one.
    """
    if count != process_count():
        raise ValueError(
            f"trainer.devices, times num_nodes, must be {count} to go on with this run, as it was, got "
            f"{process_count()}: each process has experience of its own."
        )
