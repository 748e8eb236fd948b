"""Which components of a state are noise: neither predictable, nor of any use to predict.

Shape legend: ``B`` batch, ``H`` horizon, ``S`` state size, ``A`` action size, ``N`` steps, ``F`` features.
"""

from __future__ import annotations

import torch
from torch import Tensor

PREDICTABLE = 0.1  # share of its variance that is explained, from which a component counts as predictable
USEFUL = 0.05  # share of what is left unexplained that a component explains, from which it counts as useful
SURROGATES = 10  # shuffled copies of a component, all of which it has to surpass
MARGIN = 2.0  # by this factor
ROWS_PER_FEATURE = 5  # the fewest, from which anything is concluded
LEAST_SIZE = 1e-12  # of a combination of features, relative to the largest, below which it is rounding
TAILS = (0.05, 0.95)  # quantiles between which most values lie
FARTHEST = 3.0  # times the distance between them, beyond which a value is clipped


def find_noise(states: Tensor, actions: Tensor, outcomes: Tensor) -> Tensor:
    """Tell which components of a state are noise, ``(S,)``.

    A component is noise if a regression on state and action, their squares, and their products with the action,
    explains less than a tenth of the variance of its next value, *and* it is of no use for what follows of the other
    components, nor for an outcome (for which its next value may be of use too): with its products with all others it
    explains less than a twentieth of what they leave unexplained, or not twice as much as each of ten shuffled copies
    do, in one half of the sequences or the other. A component that never varies is none. Where there are less than five
    steps for each feature of the regression nothing is concluded. What tells of something several steps later, as a cue
    does, and of nothing before, is taken for noise.

    Args:
        states: ``(B, H + 1, S)``, in which ``H`` actions were taken, and the last.
        actions: ``(B, H, A)``.
        outcomes: ``(B, H)``, rewards; or ``(B, H, K)``, several such numbers.
    """
    outcomes = outcomes.unsqueeze(-1) if outcomes.ndim == 2 else outcomes
    sizes = [states.shape[-1], states.shape[-1], actions.shape[-1], outcomes.shape[-1]]
    rows, is_noise = _distinct_steps(states, actions, outcomes), torch.zeros(sizes[0], dtype=torch.bool)
    least = ROWS_PER_FEATURE * (1 + (2 + sizes[2]) * (sizes[0] + sizes[2]))
    if len(rows) < least:
        return is_noise.to(states.device)
    now, following, action, outcome = torch.split(_standardise(rows), sizes, dim=1)
    features = torch.cat([_second_order(torch.cat([now, action], dim=1)), _products(now, action)], dim=1)
    varies = following.square().mean(0) > 0
    spare = len(now) / (len(now) - features.shape[1])
    unexplained = spare * _residual(_basis(features), following).square().mean(0)
    suspects = varies & (unexplained > 1 - PREDICTABLE)
    others = torch.cat([now[:, ~suspects], action], dim=1)
    left = _residual(_basis(_second_order(others)), torch.cat([following[:, ~suspects], outcome], dim=1))
    for index in suspects.nonzero().flatten().tolist():
        is_useful = _is_useful(now[:, index, None], others, left)
        is_useful |= _is_useful(following[:, index, None], others, left[:, -sizes[3] :])
        is_noise[index] = not is_useful
    return is_noise.to(states.device)


def _distinct_steps(states: Tensor, actions: Tensor, outcomes: Tensor) -> Tensor:
    """Return the steps of sequences that differ, as far as they are finite, in a row ``(N, ...)`` each.

    These are state, next state, action and outcome, on the CPU; the sequences are shuffled.
    """
    steps = min(actions.shape[1], states.shape[1] - 1)
    parts = [states[:, :steps], states[:, 1 : steps + 1], actions[:, :steps], outcomes[:, :steps]]
    sequences = torch.cat([each.detach().cpu().double() for each in parts], dim=-1)
    if steps > 0:
        size = sequences.shape[-1]
        sequences = torch.unique(sequences.flatten(1), dim=0).unflatten(1, (steps, size))
        sequences = sequences[torch.randperm(len(sequences), generator=torch.Generator().manual_seed(0))]
    rows = sequences.flatten(0, 1)
    return rows[rows.isfinite().all(1)]


def _standardise(rows: Tensor) -> Tensor:
    """Return rows ``(N, D)`` with mean 0 and standard deviation 1 by column, or 0 where nothing varies.

    Values far from most others, as of an episode that diverges, are clipped before.
    """
    low, high = rows.quantile(torch.tensor(TAILS, dtype=rows.dtype), dim=0)
    reach = torch.where(high > low, FARTHEST * (high - low), torch.inf)
    rows = rows.maximum(low - reach).minimum(high + reach)
    std, mean = torch.std_mean(rows, dim=0, correction=0)
    varies = std > 1e-9 * rows.abs().amax(0)
    return torch.where(varies, (rows - mean) / torch.where(varies, std, 1.0), 0.0)


def _second_order(values: Tensor) -> Tensor:
    """Return a constant, values ``(N, D)`` and their squares."""
    return torch.cat([torch.ones_like(values[:, :1]), values, values.square()], dim=1)


def _products(now: Tensor, action: Tensor) -> Tensor:
    """Return the products of states ``(N, S)`` and actions ``(N, A)`` with every action, ``(N, (S + A) A)``."""
    return torch.einsum("ni,nj->nij", torch.cat([now, action], dim=1), action).flatten(1)


def _basis(features: Tensor) -> Tensor:
    """Return an orthonormal basis ``(N, R)`` of what features ``(N, F)`` span."""
    sizes, axes = torch.linalg.eigh(features.T @ features)
    is_spanned = sizes > LEAST_SIZE * sizes[-1].clamp(min=1)
    return features @ axes[:, is_spanned] / sizes[is_spanned].sqrt()


def _residual(basis: Tensor, targets: Tensor) -> Tensor:
    """Return what a regression on what a basis ``(N, R)`` spans leaves of targets ``(N, D)``."""
    return targets - basis @ (basis.T @ targets)


def _is_useful(component: Tensor, others: Tensor, left: Tensor) -> bool:
    """Tell whether a component ``(N, 1)`` explains, in each half of the sequences, some of a target that is ``left``.

    Others ``(N, D)`` have left ``(N, T)`` unexplained.
    """
    generator, halves = torch.Generator().manual_seed(0), list[Tensor]()
    for value, among, target in zip(*(each.chunk(2) for each in (component, others, left)), strict=True):
        known, total = _basis(_second_order(among)), target.square().sum(0)
        orders = [torch.arange(len(value))]  # as it is, and shuffled
        orders += [torch.randperm(len(value), generator=generator) for _ in range(SURROGATES)]
        explained, *by_chance = (total - _unexplained(value[order], among, known, target) for order in orders)
        halves.append((explained > USEFUL * total) & (explained > MARGIN * torch.stack(by_chance).amax(0)))
    return bool((halves[0] & halves[1]).any())


def _unexplained(value: Tensor, others: Tensor, known: Tensor, target: Tensor) -> Tensor:
    """Return the squares of targets ``(N, T)`` that a value ``(N, 1)``, with its products, leaves, ``(T,)``.

    What it has in common with what is ``known``, a basis ``(N, R)``, does not count.
    """
    own = _residual(known, torch.cat([value, value.square(), value * others], dim=1))
    return _residual(_basis(own), target).square().sum(0)
