"""The state of all global generators of random numbers."""

from __future__ import annotations

from typing import Any

import torch
from torchrl.checkpoint import GlobalRNGState


def generator_states() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and PyTorch's generators."""
    return GlobalRNGState().state_dict()


def set_generator_states(states: dict[str, Any]) -> None:
    """Go on drawing from where ``generator_states`` was taken; without a GPU, from the CPU's generator alone."""
    states = dict(states)
    if not torch.cuda.is_available():
        states.pop("torch_cuda", None)
    GlobalRNGState().load_state_dict(states)
