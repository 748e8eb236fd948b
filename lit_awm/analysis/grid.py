"""Optimal control of small systems by dynamic programming on a grid of states: a start near the global optimum.

Shape legend: ``N`` control intervals, ``n`` physical state size (1 or 2), ``P`` points of the grid, ``K`` controls.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_awm.envs import ControlEnv

POINTS = {1: 2001, 2: 241}  # along each axis
CONTROLS = 41


def plan_on_grid(env: ControlEnv, lowest: Tensor, highest: Tensor) -> Tensor:
    """Return controls ``(N, 1)`` that are optimal up to the resolution of the grid.

    Args:
        env: A system with one or two states and one control.
        lowest: Lower corner ``(n,)`` of the grid.
        highest: Upper corner ``(n,)``.

    Raises:
        ValueError: If there are more than two states or more than one control.
    """
    size = len(env.initial_state)
    if size not in POINTS or len(env.control_bounds) != 1:
        raise ValueError(f"grid must be false for {env.name}: a grid is for one or two states and one control.")
    axes = [torch.linspace(a, b, POINTS[size], dtype=torch.float64) for a, b in zip(lowest, highest, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 1, size)
    low, high = env.control_bounds[0].tolist()
    controls = torch.linspace(low, high, CONTROLS, dtype=torch.float64).reshape(1, -1, 1)
    states, controls = points.expand(-1, CONTROLS, -1), controls.expand(len(points), -1, -1)

    def interval(step: int) -> tuple[Tensor, Tensor]:
        time = torch.full(states.shape[:-1], step * env.dt, dtype=torch.float64)
        ends, reward, _ = env.guarded_step(states, controls, time)
        return ends, -reward

    with torch.no_grad():
        last = env.episode_length - 1
        (ends, cost), (later_ends, later_cost) = interval(0), interval(last // 2)
        is_alike = torch.equal(ends, later_ends) and torch.equal(cost, later_cost)  # whatever the time
        values = [torch.zeros(len(points), dtype=torch.float64)]  # what is still to be paid, from the end backwards
        for step in reversed(range(env.episode_length)):
            here, price = (ends, cost) if is_alike and step < last else interval(step)
            values.append((price + _interpolate(values[-1], here, axes)).amin(-1))
        values.reverse()
        state, plan = env.initial_state, []
        for step in range(env.episode_length):
            time = torch.full((CONTROLS,), step * env.dt, dtype=torch.float64)
            following, reward, _ = env.guarded_step(state.expand(CONTROLS, -1), controls[0], time)
            best = (_interpolate(values[step + 1], following, axes) - reward).argmin()
            state = following[best]
            plan.append(controls[0, best])
    return torch.stack(plan)


def _interpolate(values: Tensor, states: Tensor, axes: list[Tensor]) -> Tensor:
    """Return the values ``(P,)`` of the grid at states ``(..., n)``, multilinearly; beyond the grid at its edge."""
    table = values.reshape([len(axis) for axis in axes])
    index: list[Tensor] = []
    share: list[Tensor] = []
    for k, axis in enumerate(axes):
        place = ((states[..., k] - axis[0]) / (axis[1] - axis[0])).clamp(0, len(axis) - 1 - 1e-9)
        index.append(place.long())
        share.append(place - index[-1])
    if len(axes) == 1:
        (i,), (a,) = index, share
        return table[i] * (1 - a) + table[i + 1] * a
    (i, j), (a, b) = index, share
    near = table[i, j] * (1 - b) + table[i, j + 1] * b
    return near * (1 - a) + (table[i + 1, j] * (1 - b) + table[i + 1, j + 1] * b) * a
