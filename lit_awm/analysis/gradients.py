"""Gradients of imagined returns, measured: how large, how noisy, how true, over which distance.

Shape legend: ``B`` initial states, ``H`` horizon, ``S`` state size, ``A`` action size, ``P`` policy parameters.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lit_awm.imagination import imagine
from lit_awm.models import Policy, RewardFn, WorldModel

ROUNDING = 100  # units of the last place, within which gradients count as equal


class Gradients(NamedTuple):
    """Gradients of the imagined return over a horizon, for each initial state.

    Attributes:
        horizon: The horizon ``H``.
        returns: Returns ``(B,)``.
        policy: Gradients with respect to the policy's parameters ``(B, P)``.
        actions: Gradients with respect to the actions ``(B, H, A)``.
        state: Frobenius norms ``(B,)`` of the Jacobian of the last state, over ``state_scale``, with respect to the
            first action; None if not asked for.
    """

    horizon: int
    returns: Tensor
    policy: Tensor
    actions: Tensor
    state: Tensor | None

    @property
    def mean(self) -> Tensor:
        """The policy gradient ``(P,)``: the mean over the initial states."""
        return self.policy.mean(dim=0)

    @property
    def norm(self) -> float:
        """Euclidean norm of the policy gradient."""
        return self.mean.norm().item()

    @property
    def deviation(self) -> float | None:
        """Root of the total variance of a single initial state's gradient; None for one initial state."""
        if len(self.policy) < 2:
            return None
        return (self.policy - self.mean).square().sum().div(len(self.policy) - 1).sqrt().item()

    @property
    def signal_to_noise(self) -> float | None:
        """``norm`` over ``deviation``; None where all initial states have the same gradient, but for rounding."""
        deviation, norm = self.deviation, self.norm
        if deviation is None or deviation <= ROUNDING * torch.finfo(self.policy.dtype).eps * norm:
            return None
        return norm / deviation

    def by_distance(self) -> Tensor:
        """Return the norms ``(H,)`` of the gradients of actions, entry ``d`` that of ``d`` steps before the last.

        They are root mean squares over the initial states.
        """
        return self.actions.square().sum(-1).mean(0).sqrt().flip(0)

    def fidelity(self, truth: Gradients) -> tuple[float, float]:
        """Return cosine and ratio of norms of the policy gradient to the true one; NaN where one of them is zero."""
        ours, theirs = self.mean.double(), truth.mean.double()
        if ours.norm() == 0 or theirs.norm() == 0:
            return math.nan, math.nan
        cosine = (ours / ours.norm()) @ (theirs / theirs.norm())
        return cosine.item(), (ours.norm() / theirs.norm()).item()


class PolicyCopies(Policy):
    """One copy of a policy for each trajectory of a batch, so that one backward pass gives a gradient for each.

    Args:
        policy: The policy.
        weights: Parameters by name, each with a leading dimension ``B``; None for ``count`` copies of the policy's own.
        count: Number ``B`` of copies.
    """

    def __init__(self, policy: Policy, count: int, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(policy.state_dim, policy.action_dim)
        self.is_stochastic = policy.is_stochastic
        self.weights = weights or {
            name: value.detach().expand(count, *value.shape).clone().requires_grad_()
            for name, value in policy.named_parameters()
        }
        sampler = _Sampler(copy.deepcopy(policy)).eval()  # whose derivatives are exact
        self._sampler = (sampler,)  # in a tuple, since its parameters are not this module's

    def sample(self, state: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the actions ``(B, ..., A)``, those of each trajectory by its own copy."""
        (sampler,) = self._sampler

        def act(weights: dict[str, Tensor], state: Tensor, noise: Tensor | None) -> Tensor:
            return functional_call(
                sampler, {f"policy.{name}": value for name, value in weights.items()}, (state, noise)
            )

        return vmap(act, in_dims=(0, 0, None if noise is None else 0))(dict(self.weights), state, noise)


class _Sampler(nn.Module):
    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, state: Tensor, noise: Tensor | None) -> Tensor:
        return self.policy.sample(state, noise)


def measure_gradients(
    world_model: WorldModel,
    policy: Policy,
    initial_state: Tensor,
    horizons: Sequence[int],
    *,
    reward_fns: Mapping[int, RewardFn] | None = None,
    policy_input_gradient: float = 0.0,
    action_noise: Tensor | None = None,
    state_scale: Tensor | None = None,
) -> list[Gradients]:
    """Measure the gradients of the imagined return over each of several horizons.

    The policy is unrolled once, over the longest horizon; a stochastic one with the same noise for all.

    Args:
        world_model: Any family.
        policy: The policy.
        initial_state: ``(B, S)``.
        horizons: The horizons, in any order.
        reward_fns: For each horizon the reward of a step, in place of the world model's; for a task whose reward
            depends on its length.
        policy_input_gradient: Share in [0, 1] of the gradient that passes through the states that the policy reads.
        action_noise: ``(B, H, A)`` to be added to the actions, for the longest horizon, or None.
        state_scale: Units ``(S,)`` in which ``Gradients.state`` is measured; None leaves it out.

    Raises:
        ValueError: If there is no horizon, or the longest is beyond the world model's.

    Example:
        >>> from lit_awm.models import DeterministicPolicy, MarkovWorldModel
        >>> model, policy = MarkovWorldModel(3, 1), DeterministicPolicy(3, 1)
        >>> [gradients.policy.shape[0] for gradients in measure_gradients(model, policy, torch.zeros(2, 3), [5, 10])]
        [2, 2]
    """
    if not horizons:
        raise ValueError("horizons must hold at least one horizon, got none.")
    copies = PolicyCopies(policy, len(initial_state))
    sink = initial_state.new_zeros(len(initial_state), max(horizons), policy.action_dim)
    needs_steps = world_model.reads_later_states or policy_input_gradient > 0  # and no costates for each pass
    options: dict[str, Any] = {"method": "sequential" if needs_steps else "replay", "action_noise": action_noise}
    options |= {"policy_input_gradient": policy_input_gradient, "action_gradient": sink}
    imagined = imagine(world_model, copies, initial_state, max(horizons), **options)
    differentiate = _Differentiator(list(copies.weights.values()), sink)
    measured = []
    for horizon in horizons:
        rewards = imagined.rewards[:, :horizon]
        if reward_fns is not None:
            states, actions = imagined.states[:, : horizon + 1], imagined.actions[:, :horizon]
            rewards = reward_fns[horizon](states[:, :-1], actions, states[:, 1:])
        by_policy = differentiate(rewards.sum(1))
        by_actions = sink[:, :horizon].clone()
        by_state = None if state_scale is None else differentiate.norm_of(imagined.states[:, horizon] / state_scale)
        measured.append(Gradients(horizon, rewards.sum(1).detach(), by_policy, by_actions, by_state))
    return measured


class _Differentiator(NamedTuple):
    """Backward passes to the policies' parameters; after each, ``sink`` holds the gradient of the actions."""

    weights: list[Tensor]
    sink: Tensor

    def __call__(self, value: Tensor) -> Tensor:
        """Return the gradients ``(B, P)`` of ``(B,)``, each with respect to its own policy."""
        self.sink.zero_()
        gradients = torch.autograd.grad(value.sum(), self.weights, retain_graph=True, materialize_grads=True)
        return torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)

    def norm_of(self, state: Tensor) -> Tensor:
        """Return the Frobenius norm ``(B,)`` of the Jacobian of ``(B, S)`` with respect to the first action."""
        squares = torch.zeros_like(state[:, 0])
        for component in state.unbind(-1):
            if component.requires_grad:
                self(component)
                squares = squares + self.sink[:, 0].square().sum(-1)
        return squares.sqrt().detach()
