"""Unroll a policy in a world model so that the return can be differentiated.

There are three methods:

* ``"sequential"`` keeps the graph of every step. It serves any world model.
* ``"replay"`` decodes the states without gradient, then recomputes all actions and all predictions in one parallel pass
  with gradient. Where the policy's input carries no gradient this is the same gradient.
* ``"warm"`` is ``"replay"`` without the decoding: the policy reads given states, for example those of the gradient step
  before. This is one step of the fixed-point iteration ``s <- g(s_1, policy(s))``, of which ``k`` make the first ``k``
  states exact: an approximation until it has converged, ``"replay"`` then. Where no states are given it decodes.

Shape legend: ``B`` batch, ``H`` horizon, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lit_awm.models import Policy, WorldModel

Method = Literal["sequential", "replay", "warm"]
METHODS: tuple[Method, ...] = get_args(Method)


class Imagined(NamedTuple):
    """A batch of imagined trajectories, in raw units.

    Attributes:
        states: ``(B, H + 1, S)``, from the initial state to the one after the last action.
        actions: ``(B, H, A)``.
        rewards: ``(B, H)``.
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor


def check_method(method: str, world_model: WorldModel, policy: Policy, policy_input_gradient: float) -> None:
    """Reject a combination that cannot give the gradient that it promises.

    Raises:
        ValueError: If ``method`` is unknown or cannot serve this world model, policy or ``policy_input_gradient``.
    """
    if method not in METHODS:
        raise ValueError(f"imagination method must be one of {', '.join(METHODS)}, got {method!r}.")
    if not 0 <= policy_input_gradient <= 1:
        raise ValueError(f"policy_input_gradient must be between 0 and 1, got {policy_input_gradient}.")
    if method == "sequential":
        return
    if world_model.reads_later_states:
        raise ValueError(
            f"imagination method {method!r} needs a world model that reads no state but the first, like "
            f"ActionsWorldModel, got {type(world_model).__name__}. Use 'sequential', or another world model."
        )
    if policy_input_gradient > 0:
        raise ValueError(
            f"imagination method {method!r} needs policy_input_gradient 0, got {policy_input_gradient}: it makes all "
            "actions from states without gradient. Use 'sequential'."
        )
    if method == "warm" and policy.is_stochastic:
        raise ValueError(
            f"imagination method 'warm' needs a deterministic policy, got {type(policy).__name__}: new noise would "
            "move the states that it reuses. Use 'replay'."
        )


def cheapest_method(world_model: WorldModel, policy: Policy, policy_input_gradient: float) -> Method:
    """Return the cheapest method that can serve a world model and a policy: warm, else replay, else sequential."""
    if world_model.reads_later_states or policy_input_gradient > 0:
        return "sequential"
    return "replay" if policy.is_stochastic else "warm"


def imagine(
    world_model: WorldModel,
    policy: Policy,
    initial_state: Tensor,
    horizon: int,
    *,
    method: Method = "replay",
    policy_input_gradient: float = 0.0,
    previous_states: Tensor | None = None,
    action_noise: Tensor | None = None,
    action_gradient: Tensor | None = None,
) -> Imagined:
    """Let the policy act in the world model for ``horizon`` steps.

    Where the state has a clock (``clock_step``), steps after the end of the episode earn nothing.

    Args:
        world_model: Any family for ``"sequential"``; for the others one that reads no state but the first.
        policy: The policy; a stochastic one samples with new noise.
        initial_state: ``(B, S)``.
        horizon: Number ``H`` of steps.
        method: ``"sequential"``, ``"replay"`` or ``"warm"``, see above.
        policy_input_gradient: Share in [0, 1] of the gradient that passes through the states that the policy reads.
        previous_states: ``(B, H, S)`` or longer, the states that the policy reads if ``method`` is ``"warm"``.
        action_noise: ``(B, H, A)`` to be added to the policy's actions, or None. Nothing is clipped, so that noise of
            mean zero leaves the mean action where it is.
        action_gradient: ``(B, H, A)``, to which every backward pass adds the gradient with respect to the actions, as
            far as it passes through the model; or None.

    Raises:
        ValueError: If the method cannot serve the other arguments (see :func:`check_method`), the horizon is beyond
            the model's, ``previous_states`` are given to another method or are too few, or ``action_noise`` or
            ``action_gradient`` has another shape than the actions.

    Example:
        >>> from lit_awm.models import ActionsWorldModel, DeterministicPolicy
        >>> model, policy = ActionsWorldModel(state_dim=3, action_dim=1), DeterministicPolicy(state_dim=3, action_dim=1)
        >>> imagined = imagine(model, policy, torch.zeros(2, 3), horizon=5)
        >>> imagined.states.shape, imagined.actions.shape, imagined.rewards.shape
        (torch.Size([2, 6, 3]), torch.Size([2, 5, 1]), torch.Size([2, 5]))
    """
    check_method(method, world_model, policy, policy_input_gradient)
    world_model.check_horizon(horizon)
    shape = (len(initial_state), horizon, policy.action_dim)
    _check_shapes(shape, method, previous_states, action_noise=action_noise, action_gradient=action_gradient)
    noise = initial_state.new_empty(shape).normal_() if policy.is_stochastic else None
    act = _Actor(policy, noise, action_noise, action_gradient)
    if method == "sequential":
        imagined = _unroll(world_model, act, initial_state, horizon, policy_input_gradient)
        return _without_rewards_after_the_end(world_model, imagined)
    if previous_states is None:
        with torch.no_grad():
            previous_states = _unroll(world_model, act, initial_state, horizon, 0.0).states
    states = torch.cat([initial_state.unsqueeze(1), previous_states[:, 1:horizon].detach()], dim=1)
    actions = act(states, slice(None))
    prediction = world_model(states, actions)
    imagined = Imagined(torch.cat([states[:, :1], prediction.state], dim=1), actions, prediction.reward)
    return _without_rewards_after_the_end(world_model, imagined)


def _check_shapes(
    shape: tuple[int, int, int], method: str, previous_states: Tensor | None, **of_actions: Tensor | None
) -> None:
    horizon = shape[1]
    if previous_states is not None and (method != "warm" or previous_states.shape[1] < horizon):
        raise ValueError(
            f"previous_states are for method 'warm' and at least {horizon} steps, got {previous_states.shape[1]} "
            f"steps and method {method!r}."
        )
    for name, given in of_actions.items():
        if given is not None and given.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(given.shape)}.")


def _without_rewards_after_the_end(world_model: WorldModel, imagined: Imagined) -> Imagined:
    if world_model.clock_step is None:
        return imagined
    ended = world_model.has_ended(imagined.states[:, :-1])
    return imagined._replace(rewards=imagined.rewards.masked_fill(ended, 0))


class _Actor(NamedTuple):
    """A policy with all the noise of a trajectory, so that it acts the same step by step and all at once."""

    policy: Policy
    noise: Tensor | None
    action_noise: Tensor | None
    action_gradient: Tensor | None

    def __call__(self, states: Tensor, steps: int | slice) -> Tensor:
        actions = self.policy.sample(states, None if self.noise is None else self.noise[:, steps])
        if self.action_noise is not None:
            actions = actions + self.action_noise[:, steps]
        if self.action_gradient is not None and actions.requires_grad:
            target = self.action_gradient[:, steps]
            actions.register_hook(partial(_accumulate, target))  # type: ignore[no-untyped-call]
        return actions


def _accumulate(target: Tensor, gradient: Tensor) -> None:
    target += gradient


def _unroll(
    world_model: WorldModel, act: _Actor, state: Tensor, horizon: int, policy_input_gradient: float
) -> Imagined:
    carry = world_model.start(state, horizon)
    states, actions, rewards = [state], [], []
    for t in range(horizon):
        seen = state.detach()
        if policy_input_gradient > 0:
            seen = seen + policy_input_gradient * (state - seen)
        action = act(seen, t)
        carry, state, reward = world_model.step(carry, action)
        states.append(state)
        actions.append(action)
        rewards.append(reward)
    return Imagined(torch.stack(states, 1), torch.stack(actions, 1), torch.stack(rewards, 1))
