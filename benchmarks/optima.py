"""Find the optimum of every system and write ``lit_awm/envs/myriad/optima.json``: ``python benchmarks/optima.py``.

Direct single shooting through the differentiable environment in float64: all controls of an episode at once, L-BFGS-B
from several starts (needs scipy, part of the ``dev`` extra).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from lit_awm.envs import SYSTEMS, OdeEnv

TARGET = Path(__file__).resolve().parent.parent / "lit_awm" / "envs" / "myriad" / "optima.json"
STARTS = (0.05, 0.3, 0.7)  # constant controls to start from, as shares of the range
RANDOM_SEQUENCES = 4096


def cost(env: OdeEnv, controls: Tensor) -> Tensor:
    """Return the cost ``(B,)`` of control sequences ``(B, N, m)``."""
    state = env.initial_state.expand(len(controls), -1)
    total = controls.new_zeros(len(controls))
    for step in range(env.episode_length):
        time = torch.full_like(total, step * env.dt)
        state, reward = env.step_fn(state, controls[:, step], time)
        total = total - reward
    return total


def shoot(env: OdeEnv, start: float, constant: bool) -> tuple[float, Tensor]:
    """Return the best cost found from one start, and its controls ``(N, m)``."""
    low, high = env.control_bounds.unbind(-1)
    rows = 1 if constant else env.episode_length

    def controls_of(shares: Tensor) -> Tensor:
        return (low + shares.reshape(rows, -1) * (high - low)).expand(env.episode_length, -1)

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        shares = torch.tensor(values, requires_grad=True)
        value = cost(env, controls_of(shares).unsqueeze(0))[0]
        (gradient,) = torch.autograd.grad(value, shares)
        return value.item(), gradient.numpy()

    size = rows * len(low)
    options = {"maxiter": 3000, "maxfun": 6000, "ftol": 1e-15, "gtol": 1e-10}
    found = minimize(
        objective, np.full(size, start), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * size, options=options
    )
    return found.fun, controls_of(torch.tensor(found.x))


def describe(env: OdeEnv) -> dict[str, Any]:
    """Return the record of one system, with the fields of ``lit_awm.envs.Optimum``."""
    best = min((shoot(env, start, constant=False) for start in STARTS), key=lambda found: found[0])
    constant = min((shoot(env, start, constant=True) for start in STARTS), key=lambda found: found[0])
    low, high = env.control_bounds.unbind(-1)
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(RANDOM_SEQUENCES, env.episode_length, len(low), generator=generator, dtype=torch.float64)
    return {
        "cost": min(best[0], constant[0]),
        "random_cost": cost(env, low + shares * (high - low)).mean().item(),
        "constant_cost": constant[0],
        "constant_control": constant[1][0].tolist(),
        "controls": [[float(f"{value:.9g}") for value in row] for row in best[1].tolist()],
    }


def main() -> None:
    """Write the records of all systems."""
    records = {}
    for name, system in sorted(SYSTEMS.items()):
        records[name] = describe(system())
        print(f"{name:<20}{records[name]['cost']:.10g}", flush=True)  # noqa: T201
    TARGET.write_text(json.dumps(records, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
