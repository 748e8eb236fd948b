"""Error and cost of closed-loop gradients by costates: ``python benchmarks/closed_loop.py [--compile] [SYSTEM ...]``.

For each system a world model and a policy are learned by the common recipe with ``policy_input_gradient: 1`` and
``imagination: warm``, then the gradient of that policy through that model is taken by each method, with one thread. The
error is relative, to the sequential gradient in double precision; the time is over one parallel forward and backward
pass of the same model. Warm imagination is measured as it is used, over the first hundred updates of a new policy and a
hundred further ones of the learned policy: mean time, over that of the limit between them, mean passes, and the median
and the largest error of every tenth. An update that takes a graph of steps counts as no pass; how many do is in the
JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
import timeit
from collections.abc import Callable
from datetime import date
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_awm.costates import CostateIteration
from lit_awm.decoding import CompiledDecoder
from lit_awm.imagination import imagine
from lit_awm.models import DeterministicPolicy, Policy, WorldModel
from lit_awm.modules import PolicyModule
from lit_awm.modules.warm_start import SEQUENTIAL
from lit_awm.recipes import UNTAUGHT, build, fit

BATCH, HORIZON, NOISE, REPEATS = 64, 100, 0.1, 4
WINDOWS, TOLERANCES = (None, 50, 25, 10), (0.3, 0.1, 0.03)
WARM_TOLERANCES, UPDATES, EVERY, LEARNING_RATE = (0.1, 0.03, 0.01), 100, 10, 1e-3


def learn(system: str, epochs: int, progress: bool) -> tuple[WorldModel, Policy, Tensor]:
    """Return a world model, a policy learned in it, and initial states."""
    options = [f"--data.env={system}", "--model.policy_module.policy_input_gradient=1", "--model.policy.least_slope=0"]
    options += ["--model.policy_module.imagination=warm", *UNTAUGHT]
    module, data = build(options)
    fit(module, data, epochs, progress=progress)
    model = module.world_model.world_model.requires_grad_(False)
    return model, module.policy.policy, data.draw_initial_states(BATCH)


def draw_noise(initial: Tensor, horizon: int = HORIZON) -> Tensor:
    """Return always the same noise for the actions, of which there is one."""
    return NOISE * torch.randn(len(initial), horizon, 1, generator=torch.Generator().manual_seed(0)).to(initial)


def follow(
    model: WorldModel, policy: Policy, initial: Tensor, tolerance: float, limit: Callable[[], object]
) -> dict[str, Any]:
    """Update the policy by warm imagination, and return what that costs and how large the errors are."""
    module = PolicyModule(policy, model, HORIZON, "warm", 1.0, tolerance, action_noise=NOISE)
    module.adopt_statistics()
    module.draw_noise = draw_noise  # type: ignore[method-assign]
    optimizer = torch.optim.Adam(policy.parameters(), lr=LEARNING_RATE)
    batch, passes, seconds, errors = TensorDict({"observation": initial}, len(initial)), 0.0, 0.0, []
    limit_s, sequential = 0.0, 0
    for update in range(UPDATES):
        optimizer.zero_grad()
        begin = time.perf_counter()
        loss, metrics = module.loss_and_metrics(batch)
        torch.autograd.backward(loss)
        seconds += time.perf_counter() - begin
        passes += float(metrics.get("costate_passes", 0))
        sequential += int(metrics.get("effort", 0) == SEQUENTIAL)
        if update % EVERY == EVERY - 1:
            got = -torch.cat([parameter.grad.flatten() for parameter in policy.parameters()]).double()  # type: ignore[union-attr]
            doubled = copy.deepcopy(model).double(), copy.deepcopy(policy).double(), initial.double()
            exact = gradient(*doubled, method="sequential")
            errors.append(((got - exact).norm() / exact.norm()).item())
            limit_s += timeit.timeit(limit, number=1)
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    found = {"error": statistics.median(errors), "largest_error": max(errors), "sequential_updates": sequential}
    return {"passes": round(passes / UPDATES, 2), **found, "time_ratio": seconds / UPDATES / (limit_s / len(errors))}


def gradient(model: WorldModel, policy: Policy, initial: Tensor, **options: Any) -> Tensor:
    """Return the policy gradient of the mean imagined return, by a loop that the policy's inputs close."""
    given = {"policy_input_gradient": 1.0, "action_noise": draw_noise(initial)} | options
    value = imagine(model, policy, initial, HORIZON, **given).rewards.sum(1).mean()
    return torch.cat([part.flatten() for part in torch.autograd.grad(value, list(policy.parameters()))])


def time_ratio(task: Callable[[], object], limit: Callable[[], object]) -> float:
    """Return the least time of a task over that of the limit, run in turns."""
    times: dict[Callable[[], object], list[float]] = {task: [], limit: []}
    for _ in range(REPEATS):
        for each, found in times.items():
            begin = time.perf_counter()
            each()
            found.append(time.perf_counter() - begin)
    return min(times[task]) / min(times[limit])


def measure(system: str, epochs: int, progress: bool, decoder: CompiledDecoder | None) -> list[dict[str, Any]]:
    """Return a row for each method."""
    model, policy, initial = learn(system, epochs, progress)
    doubled = copy.deepcopy(model).double(), copy.deepcopy(policy).double(), initial.double()
    exact = gradient(*doubled, method="sequential")
    states = imagine(model, policy, initial, HORIZON).states.detach()
    actions = imagine(model, policy, initial, HORIZON).actions.detach()

    def limit() -> None:
        leaf = actions.clone().requires_grad_()
        model(states[:, :-1], leaf).reward.sum().backward()

    rows = []

    def add(method: str, solver: CostateIteration | None = None, **options: Any) -> None:
        def run() -> Tensor:
            if solver is not None:
                solver.costates = None  # nothing is known from a time before
            return gradient(model, policy, initial, method=method, costates=solver, **options)

        error = ((run().double() - exact).norm() / exact.norm()).item()
        ratio = time_ratio(run, limit)
        passes = None if solver is None else round(solver.passes, 2)
        window, tolerance = (None, None) if solver is None else (solver.window or HORIZON, solver.tolerance)
        found = {"method": method, "window": window, "tolerance": tolerance, "passes": passes}
        rows.append({"system": system, **found, "error": error, "time_ratio": ratio})

    add("sequential")
    for window in WINDOWS:
        for tolerance in TOLERANCES:
            add("replay", CostateIteration(window, tolerance), decoder=decoder)
    for tolerance in WARM_TOLERANCES:
        torch.manual_seed(0)
        new = DeterministicPolicy(model.state_dim, model.action_dim)
        for name, start in {"warm, new policy": new, "warm, learned policy": copy.deepcopy(policy)}.items():
            found = follow(model, start, initial, tolerance, limit)
            rows.append({"system": system, "method": name, "tolerance": tolerance, **found})
    detached = gradient(model, policy, initial, method="replay", policy_input_gradient=0.0).double()
    error = ((detached - exact).norm() / exact.norm()).item()
    return [*rows, {"system": system, "method": "beta = 0", "error": error}]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("systems", nargs="*", default=["cancer_treatment", "van_der_pol"])
    parser.add_argument("--epochs", type=int, default=3, help="outer iterations of learning")
    parser.add_argument("--compile", action="store_true", help="let replay decode by a compiled step")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    decoder = CompiledDecoder() if options.compile else None
    rows = [row for system in options.systems for row in measure(system, options.epochs, not options.json, decoder)]
    if options.json:
        print(json.dumps({"rows": rows}))  # noqa: T201
        return
    print("| system | method | window | tolerance | passes | error | time over the limit |")  # noqa: T201
    print("|---|---|---|---|---|---|---|")  # noqa: T201
    for row in rows:
        cells = [row.get(name) for name in ("system", "method", "window", "tolerance", "passes")]
        largest = f" ({row['largest_error']:.1e})" if "largest_error" in row else ""
        cells += [f"{row['error']:.1e}{largest}", f"{row['time_ratio']:.2f}" if "time_ratio" in row else None]
        print("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")  # noqa: T201
    decoding = "compiled" if options.compile else "ordinary"
    print(  # noqa: T201
        f"\nBatch {BATCH}, H = {HORIZON}, one thread ({platform.machine()}), models learned in {options.epochs} outer "
        f"iterations, {decoding} decoding, torch {torch.__version__}, {date.today():%Y-%m-%d}."
    )


if __name__ == "__main__":
    main()
