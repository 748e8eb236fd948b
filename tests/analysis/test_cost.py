from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from lit_awm.analysis.cost import FAMILIES, Size, _unroll_naively, make_tasks, measure, peak_memory
from lit_awm.analysis.unrolled_env import roll_out_in_environment
from lit_awm.imagination import imagine
from lit_awm.models import (
    ActionsWorldModel,
    CausalTransformer,
    DeterministicPolicy,
    MarkovWorldModel,
    Policy,
    WorldModel,
)
from lit_awm.modules import PolicyModule

SMALL = Size(batch=4, width=16, layers=2, heads=2, policy_width=8)
MANY = Size(batch=64, width=32, layers=2, heads=2, policy_width=8)


def test_the_peak_of_a_chain_is_what_it_saves() -> None:
    value = torch.randn(1000, requires_grad=True)

    def chain() -> None:
        result = value
        for _ in range(10):
            result = result.tanh()
        result.sum().backward()

    value.grad = torch.zeros(1000)
    assert 4000 * 10 <= peak_memory(chain) <= 4000 * 13


@pytest.mark.parametrize(
    ("family", "methods"),
    [
        ("actions", {"warm", "replay", "sequential", "naive"}),
        ("actions_state_space", {"warm", "replay", "sequential"}),
        ("history", {"sequential"}),
        ("markov", {"sequential", "torchrl"}),
    ],
)
def test_every_method_that_serves_a_family_is_measured(family: str, methods: set[str]) -> None:
    costs = list(measure(family, SMALL, 5, repeats=1))
    assert {cost.method for cost in costs if not cost.method.endswith("_closed")} == methods
    assert {cost.method.removesuffix("_closed") for cost in costs if cost.method.endswith("_closed")} == methods & {
        *("warm", "replay", "sequential")
    }
    assert all(cost.time_ratio > 0 and cost.memory_ratio > 0 and cost.horizon == 5 for cost in costs)


@pytest.mark.parametrize(
    ("make_model", "other"),
    [
        (lambda: ActionsWorldModel(3, 2, CausalTransformer(16, 1, 2, 6)), _unroll_naively),
        (lambda: MarkovWorldModel(3, 2, 16), roll_out_in_environment),
    ],
)
def test_what_is_compared_with_is_the_same_gradient(
    make_model: Callable[[], WorldModel], other: Callable[[WorldModel, Policy, Tensor, int], Tensor]
) -> None:
    model, policy, initial = make_model(), DeterministicPolicy(3, 2, 8), torch.randn(4, 3)
    expected = imagine(model, policy, initial, 6, method="sequential").rewards.sum()
    value = other(model, policy, initial, 6)
    torch.testing.assert_close(value, expected)
    for got, wanted in zip(
        *(torch.autograd.grad(each, list(policy.parameters())) for each in (value, expected)), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "method", ["warm", "warm_closed", "replay", "replay_closed", "sequential", "sequential_closed"]
)
def test_memory_grows_linearly_with_the_horizon(method: str) -> None:
    short, long = (peak_memory(make_tasks("actions", MANY, horizon)[method]) for horizon in (40, 80))
    assert long < 2.2 * short


@pytest.mark.parametrize("method", ["warm", "warm_closed", "replay"])
def test_the_parallel_methods_need_hardly_more_memory_than_the_limit(method: str) -> None:
    tasks = make_tasks("actions", Size(policy_width=32), 50)
    assert peak_memory(tasks[method]) < 1.2 * peak_memory(tasks["limit"])


@pytest.mark.parametrize("method", ["warm", "replay", "sequential"])
def test_checkpointing_saves_half_of_the_memory(method: Any) -> None:
    model, policy = FAMILIES["actions"](Size(), 50).requires_grad_(False), DeterministicPolicy(4, 1, 64)
    initial = torch.randn(64, 4)

    def gradient(checkpoint: bool) -> None:
        rewards = imagine(model, policy, initial, 50, method=method, checkpoint=checkpoint).rewards
        torch.autograd.backward(rewards.sum())

    limit = peak_memory(make_tasks("actions", Size(), 50)["limit"])
    plain, saving = peak_memory(lambda: gradient(False)), peak_memory(lambda: gradient(True))
    assert plain > limit
    assert saving < (0.6 * plain if method == "sequential" else 0.5 * limit)


@pytest.mark.parametrize("method", ["warm", "replay"])
def test_the_graph_of_a_parallel_method_is_as_large_for_any_horizon(method: Any) -> None:
    def saved_tensors(horizon: int) -> int:
        model, policy = FAMILIES["actions"](SMALL, horizon).requires_grad_(False), DeterministicPolicy(4, 1, 8)
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(1) or tensor, lambda tensor: tensor):
            imagine(model, policy, torch.randn(4, 4), horizon, method=method)
        return len(saved)

    assert saved_tensors(5) == saved_tensors(40)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("method", ["warm", "replay", "sequential"])
def test_memory_does_not_grow_over_updates(method: Any, share: float) -> None:
    model = ActionsWorldModel(3, 2, CausalTransformer(16, 1, 2, 10))
    module = PolicyModule(DeterministicPolicy(3, 2, 8), model, 10, method, policy_input_gradient=share)
    optimizer = torch.optim.SGD(module.policy.parameters(), lr=1e-6)
    initial = TensorDict({"observation": torch.randn(4, 3)}, batch_size=4)

    def update() -> None:
        optimizer.zero_grad()
        module.loss(initial).backward()
        optimizer.step()

    for _ in range(3):
        update()
    early = peak_memory(update)
    for _ in range(5):
        update()
    assert peak_memory(update) < 1.05 * early


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_costs_on_a_gpu() -> None:
    costs = list(measure("actions", SMALL, 20, repeats=2, device="cuda", autocast=torch.bfloat16, compiled=True))
    assert all(cost.time_ratio > 0 and cost.memory_ratio > 0 for cost in costs)
