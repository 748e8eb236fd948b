"""The best control sequence of an environment whose dynamics are known: direct single shooting from several starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from tqdm import tqdm

from lit_awm.analysis.shooting import Array, AugmentedLagrangian, Shooting
from lit_awm.checks import check_at_least
from lit_awm.envs import ControlEnv

CANDIDATES = 4096
CONSTANT_STARTS = (0.05, 0.3, 0.7)  # as shares of the range
TARGET_WEIGHTS = (0.01, 0.1, 1.0)  # of its price in the first descents
TOLERANCE = 1e-8  # of a constraint, in units of its scale
MAX_ROUNDS = 25  # of the augmented Lagrangian

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
    """

    cost: float
    controls: Tensor
    costs: list[float]
    violation: float
    time_s: float


def solve(
    env: ControlEnv,
    *,
    starts: int = 6,
    seed: int = 0,
    exact_target: bool = False,
    constant: bool = False,
    progress: bool = False,
) -> Solution:
    """Find the control sequence of least cost.

    From each start L-BFGS-B follows the gradient of the cost, in float64; charges for leaving the state bounds, and on
    demand the target, are met as constraints, by an augmented Lagrangian around it. Three starts are constant
    controls, the others the best of random piecewise constant sequences.

    Args:
        env: An environment of the testbed, without transforms.
        starts: Number of starts, at least 1.
        seed: Seed of the random starts.
        exact_target: Whether the target state is to be met exactly, as published, instead of paid for.
        constant: Whether the control is to be constant over the episode.
        progress: Whether to show a progress bar.

    Returns:
        The best solution. No local method can prove that it is the global one.

    Raises:
        ValueError: If ``starts`` is below 1, or the target is to be met exactly and there is none.
        RuntimeError: If no start led to a solution that meets the constraints.

    Example:
        >>> from lit_awm.envs.myriad import SimpleCase
        >>> round(solve(SimpleCase(episode_length=20), starts=1).cost, 3)
        -1.354
    """
    check_at_least(1, starts=starts)
    begin, shooting = time.perf_counter(), Shooting(env, exact_target)
    chosen = _starts(shooting, starts, seed, constant)
    found: list[tuple[float, Array, float]] = []
    with tqdm(chosen, desc=f"{env.name}: starts", disable=not progress, leave=False) as bar:
        for start in bar:
            controls, violation = _improve(shooting, start, constant)
            if violation <= 100 * TOLERANCE:
                cost = shooting.costs(torch.from_numpy(controls).unsqueeze(0)).item()
                cost -= shooting.target_cost(controls) if exact_target else 0.0  # which rounding left
                found.append((cost, controls, violation))
                bar.set_postfix(cost=f"{min(found, key=lambda f: f[0])[0]:.8g}")
    if not found:
        raise RuntimeError(f"no start of {len(chosen)} met the constraints of {env.name}; raise `starts`.")
    cost, controls, violation = min(found, key=lambda f: f[0])
    costs = sorted(f[0] for f in found)
    return Solution(cost, torch.from_numpy(controls), costs, violation, time.perf_counter() - begin)


def random_cost(env: ControlEnv, sequences: int = 4096, seed: int = 0) -> float:
    """Return the mean cost of uniformly random controls, drawn anew for every interval."""
    low, high = env.control_bounds.unbind(-1)
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(sequences, env.episode_length, len(low), generator=generator, dtype=torch.float64)
    return Shooting(env).costs(low + shares * (high - low)).mean().item()


def _starts(shooting: Shooting, count: int, seed: int, constant: bool) -> list[Array]:
    """Return ``count`` starts ``(N, m)`` as shares of the range of the controls."""
    env, rng = shooting.env, np.random.default_rng(seed)
    shape = (env.episode_length, len(env.control_bounds))
    low, high = env.control_bounds.unbind(-1)
    known = env.solution()
    starts = [] if known is None else [((known - low) / (high - low)).numpy()]
    starts += [np.full(shape, share) for share in CONSTANT_STARTS]
    candidates = _candidates(rng, shape, constant)
    costs = shooting.costs(low + torch.from_numpy(candidates) * (high - low)).numpy()
    for group in np.array_split(np.arange(len(candidates)), max(1, count - len(starts))):
        starts.append(candidates[group[costs[group].argmin()]])
    return starts[:count]


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


def _improve(shooting: Shooting, start: Array, constant: bool) -> tuple[Array, float]:
    """Return the controls that descent from ``start`` leads to, and their violation of the constraints."""
    low, high = (bound.cpu().numpy() for bound in shooting.env.control_bounds.unbind(-1))

    def controls_of(shares: Array) -> Array:
        return np.ascontiguousarray(low + np.broadcast_to(shares.reshape(-1, len(low)), start.shape) * (high - low))

    def descend(shares: Array, objective: Objective, max_iterations: int = 3000) -> Array:
        def in_shares(shares: Array) -> tuple[float, Array]:
            cost, gradient = objective(controls_of(shares))
            gradient = gradient * (high - low)
            return cost, (gradient.sum(0) if constant else gradient).ravel()

        options = {"maxiter": max_iterations, "maxfun": 2 * max_iterations, "ftol": 1e-15, "gtol": 1e-10, "maxcor": 30}
        bounds = [(0, 1)] * shares.size
        return minimize(in_shares, shares, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x

    def cost(controls: Array) -> tuple[float, Array]:
        return shooting.evaluate(controls)[:2]

    shares = (start[0] if constant else start).ravel().copy()
    if shooting.has_target:
        for weight in TARGET_WEIGHTS:  # a landscape with fewer valleys first
            shooting.weigh_target(weight)
            shares = descend(shares, cost, max_iterations=300)
    shooting.weigh_target(0.0 if shooting.exact_target else 1.0)
    if not shooting.is_constrained:
        return controls_of(descend(shares, cost)), 0.0
    scale = max(1.0, abs(cost(controls_of(shares))[0]))
    lagrangian = AugmentedLagrangian(shooting, weight=0.1 * scale)
    for _ in range(MAX_ROUNDS):
        shares = descend(shares, lagrangian, max_iterations=1000)
        if lagrangian.update(controls_of(shares)) <= TOLERANCE:
            break
    return controls_of(shares), lagrangian.violation
