"""The best control sequence of an environment whose dynamics are known: direct single shooting from several starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torchrl.envs import TransformedEnv
from tqdm import tqdm

from lit_awm.analysis.grid import plan_on_grid
from lit_awm.analysis.shooting import Array, AugmentedLagrangian, Shooting
from lit_awm.checks import check_count
from lit_awm.envs import ControlEnv

CANDIDATES = 4096
CONSTANT_STARTS = (0.05, 0.3, 0.7)  # as shares of the range
TARGET_WEIGHTS = (0.01, 0.1, 1.0)  # of its price in the first descents
REFINED = 2  # starts that go on to meet a target exactly
TOLERANCE = 1e-7  # of a constraint, in units of its scale
MAX_ROUNDS = 25  # of the augmented Lagrangian, and of restarts

Objective: TypeAlias = Callable[[Array], tuple[float, Array]]
"""Maps controls ``(N, m)`` to a value and its gradient."""


@dataclass(frozen=True)
class Solution:
    """What :func:`solve` found.

    Args:
        cost: The lowest cost found, as the environment charges it.
        controls: The controls ``(N, m)`` that cost it, in physical units.
        costs: The cost found from each start, in rising order; their spread tells how hard the problem is.
        violation: The largest violation of a constraint, in units of its scale; 0 where there is none.
        time_s: Wall time.
        target_error: By how much the end state is missed, as a share of the width of the state's bounds; None where
            there is none.
    """

    cost: float
    controls: Tensor
    costs: list[float]
    violation: float
    time_s: float
    target_error: float | None


def solve(
    env: ControlEnv | TransformedEnv,
    *,
    starts: int = 6,
    seed: int = 0,
    exact_target: bool = False,
    constant: bool = False,
    grid: bool = False,
    nearby: Tensor | None = None,
    progress: bool = False,
) -> Solution:
    """Find the control sequence of least cost.

    From each start L-BFGS-B follows the gradient of the cost, in float64; charges for leaving the state bounds, and on
    demand the target, are met as constraints, by an augmented Lagrangian around it. The first start is the solution in
    closed form, where the environment has one; then come three constant controls, and the best of random piecewise
    constant sequences. Where there is a target, it costs little at first; if it is to be met exactly, only the best
    starts go on to that.

    Args:
        env: An environment of the testbed.
        starts: Number of starts, at least 1.
        seed: Seed of the random starts.
        exact_target: Whether the target state is to be met exactly, as published, instead of paid for.
        constant: Whether the control is to be constant over the episode.
        grid: Whether to start from the solution on a grid of states too, by dynamic programming, which finds the best
            of many valleys; for one or two states and one control.
        nearby: Controls ``(N, m)`` in physical units to start from too, such as those of longer steps; None for none.
        progress: Whether to show a progress bar.

    Returns:
        The best solution. No local method can prove that it is the global one.

    Raises:
        ValueError: If ``starts`` is below 1, there is no grid for so many states or controls or for a constant control,
            the target is to be met exactly and there is none, or charges for leaving the state bounds are too low to
            keep the optimum inside.
        RuntimeError: If no start led to a solution that meets the constraints.

    Example:
        >>> from lit_awm.envs.myriad import SimpleCase
        >>> round(solve(SimpleCase(episode_length=20), starts=1).cost, 3)
        -1.354
    """
    check_count(starts=starts)
    if grid and constant:
        raise ValueError("grid must be false for a constant control, got both.")
    begin, shooting = time.perf_counter(), Shooting(env, exact_target)
    descent = _Descent(shooting, constant)
    on_grid = [_grid_start(shooting, seed)] if grid else []
    chosen = _starts(shooting, starts, seed, constant)
    chosen += [] if nearby is None else [_shares(shooting, nearby)]
    finished = REFINED if exact_target else len(chosen) + len(on_grid)
    with tqdm(total=len(chosen) + finished, desc=shooting.env.name, disable=not progress, leave=False) as bar:
        near = [*on_grid, *_approach(descent, chosen, bar)]
        found = _finish(descent, sorted(near, key=descent.cost)[:finished], bar)  # an exact target takes long
    found = sorted((each for each in found if each.violation <= 10 * TOLERANCE), key=lambda each: each.cost)
    if not found:
        raise RuntimeError(f"no start of {len(chosen)} met the constraints of {shooting.env.name}; raise `starts`.")
    return replace(found[0], costs=[each.cost for each in found], time_s=time.perf_counter() - begin)


def _shares(shooting: Shooting, controls: Tensor) -> Array:
    """Return controls ``(N, m)`` as shares of their range."""
    low, high = shooting.env.control_bounds.unbind(-1)
    return ((controls - low) / (high - low)).numpy()


def _approach(descent: _Descent, starts: list[Array], bar: tqdm[Any]) -> list[Array]:
    near = []
    for start in starts:
        near.append(descent.approach(start))
        bar.update()
    return near


def _finish(descent: _Descent, starts: list[Array], bar: tqdm[Any]) -> list[Solution]:
    found = []
    for shares in starts:
        found.append(descent.finish(shares))
        bar.update()
        bar.set_postfix(cost=f"{min(solution.cost for solution in found):.8g}")
    return found


def random_cost(env: ControlEnv | TransformedEnv, sequences: int = 4096, seed: int = 0) -> float:
    """Return the mean cost of uniformly random controls, drawn anew for every interval."""
    shooting = Shooting(env)
    low, high = shooting.env.control_bounds.unbind(-1)
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(sequences, shooting.env.episode_length, len(low), generator=generator, dtype=torch.float64)
    return shooting.costs(low + shares * (high - low)).mean().item()


def _starts(shooting: Shooting, count: int, seed: int, constant: bool) -> list[Array]:
    """Return ``count`` starts ``(N, m)`` as shares of the range of the controls."""
    env, rng = shooting.env, np.random.default_rng(seed)
    shape = (env.episode_length, len(env.control_bounds))
    low, high = env.control_bounds.unbind(-1)
    known = env.solution()
    starts = [] if known is None else [_shares(shooting, known)]
    starts += [np.full(shape, share) for share in CONSTANT_STARTS]
    candidates = _candidates(rng, shape, constant)
    costs = shooting.costs(low + torch.from_numpy(candidates) * (high - low)).numpy()
    for group in np.array_split(np.arange(len(candidates)), max(1, count - len(starts))):
        starts.append(candidates[group[costs[group].argmin()]])
    return starts[:count]


def _grid_start(shooting: Shooting, seed: int) -> Array:
    """Return the solution on a grid, as shares, of states within their bounds that random controls lead to."""
    env = shooting.env
    low, high = env.control_bounds.unbind(-1)
    shape = (env.episode_length, len(low))
    controls = low + torch.from_numpy(_candidates(np.random.default_rng(seed), shape, False)) * (high - low)
    with torch.no_grad():
        states = env.unroll(controls)[0].flatten(0, 1)
    lowest = states.amin(0).maximum(env.state_bounds[:, 0])
    highest = states.amax(0).minimum(env.state_bounds[:, 1])
    margin = (highest - lowest) / 4
    plan = plan_on_grid(env, lowest - margin, highest + margin)
    return _shares(shooting, plan).ravel()


def _candidates(rng: np.random.Generator, shape: tuple[int, int], constant: bool) -> Array:
    """Return random sequences ``(B, N, m)`` of shares: steps of random lengths, some at the ends of the range."""
    length, size = shape
    pieces = np.zeros((CANDIDATES, length), dtype=int)
    if not constant:
        rate = 10 ** rng.uniform(-np.log10(length) - 0.3, 0, (CANDIDATES, 1))
        pieces = (rng.random((CANDIDATES, length)) < rate).cumsum(1)
    levels = rng.random((CANDIDATES, length + 1, size))
    levels[1::2] = levels[1::2].round()  # at the ends
    levels[::4, :, 1:] = levels[::4, :, :1]  # the same for all controls
    levels[1::4, :, 1:] = levels[1::4, :, :1]
    return np.take_along_axis(levels, pieces[..., None], axis=1)


class _Descent:
    """L-BFGS-B through an episode, in shares of the range of the controls."""

    def __init__(self, shooting: Shooting, constant: bool) -> None:
        self.shooting, self.constant = shooting, constant
        self.low, self.high = (bound.numpy() for bound in shooting.env.control_bounds.unbind(-1))

    def approach(self, start: Array) -> Array:
        """Return shares nearer to an optimum, by landscapes with fewer valleys first if there is a target."""
        shares = (start[0] if self.constant else start).ravel().copy()
        if self.shooting.has_target:
            for weight in TARGET_WEIGHTS:
                self.shooting.weigh_target(weight)
                shares = self._descend(shares, self.shooting.cost_and_gradient, max_iterations=300)
        return shares

    def finish(self, shares: Array) -> Solution:
        """Return what descent leads to, within the constraints."""
        begin, shooting = time.perf_counter(), self.shooting
        shooting.weigh_target(0.0 if shooting.exact_target else 1.0)
        shares, violation = self._constrain(shares) if shooting.is_constrained else (self._settle(shares), 0.0)
        controls = torch.from_numpy(self._controls(shares))
        cost = shooting.costs(controls.unsqueeze(0)).item()
        cost -= shooting.target_cost(controls.numpy()) if shooting.exact_target else 0.0  # which rounding left
        error = shooting.target_error(controls.numpy())
        return Solution(cost, controls, [cost], violation, time.perf_counter() - begin, error)

    def _constrain(self, shares: Array) -> tuple[Array, float]:
        """Descend in rounds that press harder and harder against the constraints; return their violation too."""
        shooting = self.shooting
        lagrangian = AugmentedLagrangian(shooting, weight=0.1 * max(1.0, abs(self.cost(shares))))
        for _ in range(MAX_ROUNDS):
            shares = self._descend(shares, lagrangian, max_iterations=1000)
            if lagrangian.update(self._controls(shares)) <= TOLERANCE:
                break
        lagrangian.check_weight()
        return shares, lagrangian.violation

    def _settle(self, shares: Array) -> Array:
        """Descend until nothing is gained any more: at a kink a line search fails before it is at the bottom."""
        cost = np.inf
        for _ in range(MAX_ROUNDS):
            shares = self._descend(shares, self.shooting.cost_and_gradient)
            before, cost = cost, self.cost(shares)
            if before - cost <= 1e-8 * max(1.0, abs(cost)):
                break
        return shares

    def cost(self, shares: Array) -> float:
        """Return the smooth cost of shares."""
        return self.shooting.evaluate(self._controls(shares))[0]

    def _controls(self, shares: Array) -> Array:
        rows = self.low + shares.reshape(-1, len(self.low)) * (self.high - self.low)
        return np.broadcast_to(rows, (self.shooting.env.episode_length, len(self.low))).copy()

    def _descend(self, shares: Array, objective: Objective, max_iterations: int = 3000) -> Array:
        def in_shares(shares: Array) -> tuple[float, Array]:
            cost, gradient = objective(self._controls(shares))
            gradient = gradient * (self.high - self.low)
            return cost, (gradient.sum(0) if self.constant else gradient).ravel()

        options = {"maxiter": max_iterations, "maxfun": 2 * max_iterations, "ftol": 1e-15, "gtol": 1e-10, "maxcor": 30}
        bounds = [(0, 1)] * shares.size
        return minimize(in_shares, shares, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
