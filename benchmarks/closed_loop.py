"""Error and cost of closed-loop gradients by costates: ``python benchmarks/closed_loop.py [--json] [SYSTEM ...]``.

For each system a world model and a policy are learned by the common recipe with ``policy_input_gradient: 1`` and
``imagination: warm``, then the gradient of that policy through that model is taken by each method, with one thread. The
error is relative, to the sequential gradient in double precision; the time is over one parallel forward and backward
pass of the same model.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import torch
from torch import Tensor

from lit_awm.costates import CostateIteration
from lit_awm.imagination import imagine
from lit_awm.models import Policy, WorldModel
from lit_awm.recipes import build, fit

BATCH, HORIZON, NOISE, REPEATS = 64, 100, 0.1, 4
WINDOWS, TOLERANCES = (None, 50, 25, 10), (0.3, 0.1, 0.03)


def learn(system: str, epochs: int, progress: bool) -> tuple[WorldModel, Policy, Tensor]:
    """Return a world model, a policy learned in it, and initial states."""
    options = [f"--data.env={system}", "--model.policy_module.policy_input_gradient=1"]
    options += ["--model.policy_module.imagination=warm"]
    module, data = build(options)
    fit(module, data, epochs, progress=progress)
    model = module.world_model.world_model.requires_grad_(False)
    return model, module.policy.policy, data.draw_initial_states(BATCH)


def gradient(model: WorldModel, policy: Policy, initial: Tensor, **options: Any) -> Tensor:
    """Return the policy gradient of the mean imagined return, by a loop that the policy's inputs close."""
    generator = torch.Generator().manual_seed(0)
    noise = NOISE * torch.randn(BATCH, HORIZON, policy.action_dim, generator=generator)
    given = {"policy_input_gradient": 1.0, "action_noise": noise.to(initial)} | options
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


def measure(system: str, epochs: int, progress: bool) -> list[dict[str, Any]]:
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
            add("replay", CostateIteration(window, tolerance))
    detached = gradient(model, policy, initial, method="replay", policy_input_gradient=0.0).double()
    error = ((detached - exact).norm() / exact.norm()).item()
    return [*rows, {"system": system, "method": "beta = 0", "error": error}]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("systems", nargs="*", default=["cancer_treatment", "van_der_pol"])
    parser.add_argument("--epochs", type=int, default=3, help="outer iterations of learning")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for system in options.systems for row in measure(system, options.epochs, not options.json)]
    if options.json:
        print(json.dumps({"rows": rows}))  # noqa: T201
        return
    print("| system | method | window | tolerance | passes | error | time over the limit |")  # noqa: T201
    print("|---|---|---|---|---|---|---|")  # noqa: T201
    for row in rows:
        cells = [row.get(name) for name in ("system", "method", "window", "tolerance", "passes")]
        cells += [f"{row['error']:.1e}", f"{row['time_ratio']:.2f}" if "time_ratio" in row else None]
        print("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")  # noqa: T201
    print(  # noqa: T201
        f"\nBatch {BATCH}, H = {HORIZON}, one thread ({platform.machine()}), models learned in {options.epochs} outer "
        f"iterations, torch {torch.__version__}, {date.today():%Y-%m-%d}."
    )


if __name__ == "__main__":
    main()
