"""The return around a policy: along two random directions, and along the gradient.

Shape legend: ``K`` points, ``R`` resolution, ``S`` state size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lit_awm.analysis.gradients import PolicyCopies, measure_gradients
from lit_awm.imagination import imagine
from lit_awm.models import Policy, RewardFn, WorldModel

Weights = dict[str, Tensor]


class Landscape(NamedTuple):
    """Returns of a policy whose parameters were moved.

    Attributes:
        steps: How far ``(R,)`` along each direction, from -1 to 1; a step of 1 is as long as the parameters are.
        plane: Returns ``(R, R)`` along two random directions, the first one in rows.
        line: Returns ``(R,)`` along the world model's own policy gradient; None where it is zero or not finite.
    """

    steps: Tensor
    plane: Tensor
    line: Tensor | None


def random_direction(policy: Policy, generator: torch.Generator | None = None) -> Weights:
    """Return a normal direction in the space of a policy's parameters, as long as they are."""
    direction = {name: torch.randn(p.shape, generator=generator).to(p) for name, p in policy.named_parameters()}
    return _as_long_as(policy, direction)


def _as_long_as(policy: Policy, direction: Weights) -> Weights:
    length = torch.stack([parameter.detach().norm() for parameter in policy.parameters()]).norm()
    factor = length / torch.stack([value.norm() for value in direction.values()]).norm()
    return {name: factor * value for name, value in direction.items()}


def draw_landscape(
    world_model: WorldModel,
    policy: Policy,
    initial_state: Tensor,
    horizon: int,
    directions: tuple[Weights, Weights],
    resolution: int = 21,
    reward_fn: RewardFn | None = None,
    policy_input_gradient: float = 0.0,
) -> Landscape:
    """Evaluate the mean imagined return over initial states ``(B, S)`` around a policy.

    A stochastic policy draws noise anew at each point, so that the landscape is rough.

    Args:
        world_model: Any family.
        policy: The policy in the middle.
        initial_state: Initial states ``(B, S)``.
        horizon: Steps to imagine.
        directions: Two directions in the space of parameters, see :func:`random_direction`.
        resolution: Number ``R`` of points in each direction, odd so that the policy itself is one.
        reward_fn: The reward of a step, in place of the world model's.
        policy_input_gradient: Share in [0, 1] of the gradient that passes through the states that the policy reads.

    Raises:
        ValueError: If ``resolution`` is even or below 3.
    """
    if resolution < 3 or resolution % 2 == 0:
        raise ValueError(f"resolution must be odd and at least 3, got {resolution}.")
    steps = torch.linspace(-1, 1, resolution, dtype=torch.float64)
    rewards = None if reward_fn is None else {horizon: reward_fn}
    measured = measure_gradients(
        world_model,
        policy,
        initial_state,
        [horizon],
        reward_fns=rewards,
        policy_input_gradient=policy_input_gradient,
    )
    sizes = [parameter.numel() for parameter in policy.parameters()]
    parts = zip(policy.named_parameters(), torch.split(measured[0].mean, sizes), strict=True)
    uphill = {name: part.view_as(parameter) for (name, parameter), part in parts}
    first, second = directions

    def returns(moves: list[Weights]) -> Tensor:
        return _returns(world_model, policy, initial_state, horizon, moves, reward_fn)

    plane = [
        returns([{name: a * first[name] + b * second[name] for name in first} for b in steps.tolist()])
        for a in steps.tolist()
    ]
    line = None
    if 0 < measured[0].norm < math.inf:
        uphill = _as_long_as(policy, uphill)
        line = returns([{name: a * uphill[name] for name in uphill} for a in steps.tolist()])
    return Landscape(steps, torch.stack(plane), line)


@torch.no_grad()
def _returns(
    world_model: WorldModel,
    policy: Policy,
    initial_state: Tensor,
    horizon: int,
    moves: list[Weights],
    reward_fn: RewardFn | None,
) -> Tensor:
    """Return the mean returns ``(K,)`` of ``K`` policies, all of them unrolled at once."""
    weights = {
        name: torch.stack([value + move[name] for move in moves]).repeat_interleave(len(initial_state), dim=0)
        for name, value in policy.named_parameters()
    }
    copies = PolicyCopies(policy, len(moves) * len(initial_state), weights)
    imagined = imagine(world_model, copies, initial_state.repeat(len(moves), 1), horizon, method="sequential")
    rewards = imagined.rewards
    if reward_fn is not None:
        rewards = reward_fn(imagined.states[:, :-1], imagined.actions, imagined.states[:, 1:])
    return rewards.sum(1).view(len(moves), len(initial_state)).mean(1)
