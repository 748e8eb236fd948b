"""Decode the states that a policy goes through in a world model, step by step and without gradient.

Shape legend: ``B`` batch, ``H`` horizon, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lit_awm.actor import Actor
from lit_awm.models import WorldModel

Step = Callable[[WorldModel, Actor, Any, Tensor], tuple[Any, Tensor]]
EAGER = 2  # steps, of which each would be compiled for itself: the memory is empty, then a single token


def _take_step(world_model: WorldModel, act: Actor, carry: Any, state: Tensor) -> tuple[Any, Tensor]:
    return world_model.advance(carry, act(state))


@torch.no_grad()
def decode(world_model: WorldModel, act: Actor, initial_state: Tensor, horizon: int, step: Step = _take_step) -> Tensor:
    """Return the states ``(B, H, S)`` in which the policy acts, from ``(B, S)`` on.

    Args:
        world_model: The model to act in.
        act: The policy.
        initial_state: ``(B, S)``.
        horizon: Number ``H`` of states.
        step: Takes a step; for a compiled one the first steps are taken without it.
    """
    carry, state = world_model.start(initial_state, horizon), initial_state
    states = [state]
    for t in range(horizon - 1):
        if t == EAGER and step is not _take_step:  # whether tensors are views is compiled in
            carry, state = tree_map(_no_view, (carry, state))
        carry, state = (step if t >= EAGER else _take_step)(world_model, act.at(t), carry, state)
        states.append(state)
    return torch.stack(states, 1)


def _no_view(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) and leaf._is_view() else leaf


class CompiledDecoder:
    """Decode by a compiled step (``torch.compile``); on a GPU all steps are one CUDA graph, captured once.

    The first decoding compiles, which takes some twenty seconds and on a CPU needs a C++ compiler. One compilation
    serves every step and mostly every horizon and batch; PyTorch compiles for eight models in a process, and goes on
    without for more. A graph is captured anew when models, shapes or precision change (the last one is kept), and holds
    on to its memory, that of the keys and values included.
    """

    def __init__(self) -> None:
        self._step: Step | None = None
        self._captured: _Captured | None = None

    @torch.no_grad()
    def __call__(self, world_model: WorldModel, act: Actor, initial_state: Tensor, horizon: int) -> Tensor:
        """Do what :func:`decode` does.

        Raises:
            RuntimeError: If the models cannot be captured on a GPU, as where they copy something from the CPU.
        """
        act = act._replace(action_gradient=None)
        if self._step is None:
            self._step = torch.compile(_take_step, dynamic=True)
        if not initial_state.is_cuda:
            return decode(world_model, act, initial_state, horizon, self._step)
        key = _capture_key(world_model, act, initial_state, horizon)
        if self._captured is None or self._captured.key != key:
            self._captured = None  # give back its memory first
            self._captured = _capture(key, world_model, act, initial_state, horizon, self._step)
        return self._captured.replay(initial_state, act)

    def __getstate__(self) -> dict[str, Any]:
        return {"_step": None, "_captured": None}  # a copy compiles and captures for itself


class _Captured(NamedTuple):
    """A CUDA graph with the memory that it reads and writes."""

    key: tuple[Any, ...]
    graph: torch.cuda.CUDAGraph
    initial_state: Tensor
    act: Actor
    states: Tensor

    def replay(self, initial_state: Tensor, act: Actor) -> Tensor:
        self.initial_state.copy_(initial_state)
        for mine, given in ((self.act.noise, act.noise), (self.act.action_noise, act.action_noise)):
            if mine is not None and given is not None:
                mine.copy_(given)
        with torch.cuda.device(initial_state.device):
            self.graph.replay()
            return self.states.clone()


def _capture_key(world_model: WorldModel, act: Actor, initial_state: Tensor, horizon: int) -> tuple[Any, ...]:
    """Return all that a captured graph depends on, but for the values of its inputs and weights."""
    weights = [tensor for model in (world_model, act.policy) for tensor in (*model.parameters(), *model.buffers())]
    given = (initial_state, act.noise, act.action_noise)
    inputs = [None if each is None else (each.shape, each.dtype) for each in given]
    precision = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    where = [tensor.data_ptr() for tensor in weights]
    return (world_model, act.policy, horizon, precision, initial_state.device, *inputs, *where)


@torch.inference_mode(False)
@torch.no_grad()
def _capture(
    key: tuple[Any, ...], world_model: WorldModel, act: Actor, initial_state: Tensor, horizon: int, step: Step
) -> _Captured:
    noise, action_noise = (None if each is None else each.clone() for each in (act.noise, act.action_noise))
    initial_state, act = initial_state.clone(), act._replace(noise=noise, action_noise=action_noise)
    device, graph = initial_state.device, torch.cuda.CUDAGraph()
    precision = torch.autocast(
        # Weights in lower precision must be made within the graph, not taken from what autocast has kept.
        "cuda",
        torch.get_autocast_dtype("cuda"),
        torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    )
    with torch.cuda.device(device), precision:
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):  # compiles, and lets libraries prepare themselves
            decode(world_model, act, initial_state, horizon, step)
        torch.cuda.current_stream(device).wait_stream(stream)
        try:
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                states = decode(world_model, act, initial_state, horizon, step)
        except RuntimeError as error:
            raise RuntimeError(
                f"decoding {type(world_model).__name__} with {type(act.policy).__name__} cannot be captured as a CUDA "
                "graph, as where a reward function copies something from the CPU. Set `compile_decoding: false`."
            ) from error
    return _Captured(key, graph, initial_state, act, states)
