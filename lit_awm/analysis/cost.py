"""What a policy gradient through a world model costs, in time and memory, over what it must cost at least.

The *limit* is one parallel forward and backward pass of the world model from given states and actions, to the actions,
with its weights frozen as they are while a policy is optimised. A policy gradient has to do that, and the policy's own
work besides.

Shape legend: ``B`` batch, ``H`` horizon, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lit_awm.analysis.unrolled_env import roll_out_in_environment
from lit_awm.costates import CostateIteration
from lit_awm.decoding import CompiledDecoder
from lit_awm.imagination import imagine
from lit_awm.models import (
    ActionsWorldModel,
    CausalTransformer,
    DeterministicPolicy,
    HistoryWorldModel,
    MarkovWorldModel,
    Policy,
    RecurrentBackbone,
    StateSpaceBackbone,
    WorldModel,
)

Task = Callable[[], None]
STATE_DIM, ACTION_DIM = 4, 1
LONGEST_NAIVE = 100  # steps; its time grows with their square and more


class Size(NamedTuple):
    """How large models and batches are."""

    batch: int = 64
    width: int = 64
    layers: int = 2
    heads: int = 4
    policy_width: int = 64


FAMILIES: dict[str, Callable[[Size, int], WorldModel]] = {
    "actions": lambda size, h: ActionsWorldModel(
        STATE_DIM, ACTION_DIM, CausalTransformer(size.width, size.layers, size.heads, h)
    ),
    "actions_gru": lambda size, h: ActionsWorldModel(
        STATE_DIM, ACTION_DIM, RecurrentBackbone(size.width, num_layers=size.layers)
    ),
    "actions_state_space": lambda size, h: ActionsWorldModel(
        STATE_DIM, ACTION_DIM, StateSpaceBackbone(size.width, size.layers)
    ),
    "history": lambda size, h: HistoryWorldModel(
        STATE_DIM, ACTION_DIM, CausalTransformer(size.width, size.layers, size.heads, h)
    ),
    "markov": lambda size, h: MarkovWorldModel(STATE_DIM, ACTION_DIM, size.width, size.layers),
}


class Cost(NamedTuple):
    """Cost of a policy gradient.

    Attributes:
        family: Of world models.
        method: Of imagination, with ``"_closed"`` behind it where gradients pass through the states that the policy
            reads, and ``"_compiled"`` where decoding is; ``"naive"`` runs the whole sequence again for every step,
            ``"torchrl"`` is a TorchRL environment around the model.
        horizon: The horizon ``H``.
        time_s: Least time of several runs, in seconds.
        time_ratio: Over that of the limit of the same model in the same run.
        memory_mb: Peak of the memory that was reserved meanwhile, in 10^6 bytes.
        memory_ratio: Over that of the limit.
    """

    family: str
    method: str
    horizon: int
    time_s: float
    time_ratio: float
    memory_mb: float
    memory_ratio: float


def make_tasks(
    family: str,
    size: Size,
    horizon: int,
    device: torch.device | str = "cpu",
    autocast: torch.dtype | None = None,
    compiled: bool = False,
) -> dict[str, Task]:
    """Return what is to be measured: ``"limit"``, and a policy gradient by every method that serves the family."""
    model = FAMILIES[family](size, horizon).to(device).requires_grad_(False)
    policy = DeterministicPolicy(STATE_DIM, ACTION_DIM, size.policy_width).to(device)
    states = torch.randn(size.batch, horizon + 1, STATE_DIM, device=device)
    actions = torch.randn(size.batch, horizon, ACTION_DIM, device=device).tanh()

    def limit() -> None:
        leaf = actions.clone().requires_grad_()
        prediction = model(states[:, :-1], leaf)
        (prediction.reward.sum() + prediction.state.sum()).backward()

    def gradient(imagined_return: Callable[[], Tensor]) -> None:
        policy.zero_grad()
        torch.autograd.backward(imagined_return())

    solver = CostateIteration(window=None, max_passes=0)
    options: dict[str, dict[str, Any]] = {
        "warm": {"previous_states": states},
        "warm_closed": {"previous_states": states, "policy_input_gradient": 1.0, "costates": solver},
        "replay": {},
        "replay_closed": {"policy_input_gradient": 1.0},
        "sequential": {},
        "sequential_closed": {"policy_input_gradient": 1.0},
    }
    if compiled:
        torch.compiler.reset()  # or it would refuse to compile for more than a few models
        options["replay_compiled"] = {"decoder": CompiledDecoder()}

    def imagined(name: str) -> Tensor:
        method: Any = name.partition("_")[0]
        rewards = imagine(model, policy, states[:, 0], horizon, method=method, **options[name]).rewards
        return rewards.sum()

    returns: dict[str, Callable[[], Tensor]] = {
        name: partial(imagined, name)
        for name in options
        if name.startswith("sequential") or not model.reads_later_states
    }
    if family == "actions" and horizon <= LONGEST_NAIVE:
        returns["naive"] = partial(_unroll_naively, model, policy, states[:, 0], horizon)
    if family == "markov":
        returns["torchrl"] = partial(roll_out_in_environment, model, policy, states[:, 0], horizon)
    tasks: dict[str, Task] = {"limit": limit} | {name: partial(gradient, each) for name, each in returns.items()}
    if autocast is None:
        return tasks

    def cast(task: Task) -> None:
        with torch.autocast(torch.device(device).type, dtype=autocast):
            task()

    return {name: partial(cast, task) for name, task in tasks.items()}


def _unroll_naively(model: WorldModel, policy: Policy, initial: Tensor, horizon: int) -> Tensor:
    """Return the return by running the model over all actions so far for every new one."""
    state, actions, rewards = initial, list[Tensor](), list[Tensor]()
    for _ in range(horizon):
        actions.append(policy.sample(state.detach()))
        prediction = model(initial.unsqueeze(1).expand(-1, len(actions), -1), torch.stack(actions, 1))
        state = prediction.state[:, -1]
        rewards.append(prediction.reward[:, -1])
    return torch.stack(rewards).sum()


def measure(
    family: str,
    size: Size,
    horizon: int,
    *,
    repeats: int = 5,
    device: torch.device | str = "cpu",
    autocast: torch.dtype | None = None,
    compiled: bool = False,
) -> Iterator[Cost]:
    """Measure every method that serves a family, in turns with the limit.

    Args:
        family: One of ``FAMILIES``.
        size: Of models and batches.
        horizon: The horizon ``H``.
        repeats: Runs of each method, after one that warms up; fewer where one takes many seconds.
        device: Where to measure.
        autocast: Lower precision in which to compute, or None.
        compiled: Whether to measure replay with a compiled decoding too.
    """
    tasks = make_tasks(family, size, horizon, device, autocast, compiled)
    limit = tasks.pop("limit")
    least_memory = peak_memory(limit, device)
    for name, task in tasks.items():
        if name.endswith("_compiled"):
            task()
        memory = peak_memory(task, device)  # warms up as well
        limits, times = [_seconds(limit, device)], [_seconds(task, device)]
        for _ in range(min(repeats, max(2, int(8 / times[0]))) - 1):
            limits.append(_seconds(limit, device))
            times.append(_seconds(task, device))
        ratio = min(times) / min(limits)
        yield Cost(family, name, horizon, min(times), ratio, memory / 1e6, memory / least_memory)


def _seconds(task: Task, device: torch.device | str) -> float:
    _synchronize(device)
    begin = time.perf_counter()
    task()
    _synchronize(device)
    return time.perf_counter() - begin


def _synchronize(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(task: Task, device: torch.device | str = "cpu") -> int:
    """Return by how many bytes the memory in use rises at most while a task runs."""
    gc.collect()  # so that nothing older is given back meanwhile
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        task()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        task()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    in_use = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        in_use += event.nbytes()
        peak = max(peak, in_use)
    return peak
