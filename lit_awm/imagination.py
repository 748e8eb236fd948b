"""Unroll a policy in a world model so that the return can be differentiated.

There are three methods:

* ``"sequential"`` keeps the graph of every step. It serves any world model.
* ``"replay"`` decodes the states without gradient, then recomputes all actions and all predictions in one parallel pass
  with gradient: the same gradient without a graph of steps.
* ``"warm"`` is ``"replay"`` without the decoding: the policy reads given states, for example those of the gradient step
  before. This is one step of the fixed-point iteration ``s <- g(s_1, policy(s))``, of which ``k`` make the first ``k``
  states exact: an approximation until it has converged, ``"replay"`` then. Where no states are given it decodes.

Where a share of the gradient passes through the states that the policy reads, ``"replay"`` and ``"warm"`` solve for it
in the backward pass, see :mod:`lit_awm.costates`.

Shape legend: ``B`` batch, ``H`` horizon, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from lit_awm.actor import Actor
from lit_awm.checks import check_at_least, check_count
from lit_awm.costates import CostateIteration, sweep
from lit_awm.decoding import CompiledDecoder, decode
from lit_awm.models import Policy, Prediction, WorldModel
from lit_awm.models.continuation import while_it_goes_on

Method = Literal["sequential", "replay", "warm"]
PARTS = 4  # of a batch, if memory is to be saved
METHODS: tuple[Method, ...] = get_args(Method)


class Imagined(NamedTuple):
    """A batch of imagined trajectories, in raw units.

    Attributes:
        states: ``(B, H + 1, S)``, from the initial state to the one after the last action.
        actions: ``(B, H, A)``.
        rewards: ``(B, H)``, each weighted by the probability that the episode has not ended before.
        inputs: ``(B, H, S)``, the states that the policy has read, without gradient: the first ``H`` of ``states``, but
            where warm imagination has not converged. Where costates are solved for, the first state of a window is the
            one predicted by the window before.
        survival: ``(B, H + 1)``, the probability that the episode is not over in each of the states.
        passes: Passes through the model, without gradient, that warm imagination refined the inputs by.
        has_decoded: Whether the inputs were decoded, a step at a time.
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    inputs: Tensor
    survival: Tensor
    passes: int = 0
    has_decoded: bool = False


def check_method(
    method: str,
    world_model: WorldModel,
    policy: Policy,
    policy_input_gradient: float,
    checkpoint: bool = False,
    compile_decoding: bool = False,
) -> None:
    """Reject a combination that cannot give what it promises.

    Raises:
        ValueError: If ``method`` is unknown or cannot serve one of the other arguments.
    """
    if method not in METHODS:
        raise ValueError(f"imagination method must be one of {', '.join(METHODS)}, got {method!r}.")
    sizes = ("state_dim", "action_dim")
    ours, theirs = ([getattr(each, size) for size in sizes] for each in (world_model, policy))
    if ours != theirs:
        raise ValueError(f"policy must have {' and '.join(sizes)} of the world model, {ours}, got {theirs}.")
    if policy.reads_history:
        raise ValueError(
            f"policy must act on the state alone to be imagined, got {type(policy).__name__}. Use a "
            "DeterministicPolicy or a TanhNormalPolicy."
        )
    if not 0 <= policy_input_gradient <= 1:
        raise ValueError(f"policy_input_gradient must be between 0 and 1, got {policy_input_gradient}.")
    if method == "sequential":
        if compile_decoding:
            raise ValueError(
                "compile_decoding must be false for method 'sequential', got true: it keeps a graph of every step "
                "instead of decoding. Leave it out, or use 'replay' or 'warm' with a world model that reads no state "
                "but the first."
            )
        return
    if world_model.reads_later_states:
        raise ValueError(
            f"imagination method {method!r} needs a world model that reads no state but the first, like "
            f"ActionsWorldModel, got {type(world_model).__name__}. Use 'sequential', or another world model."
        )
    if method == "warm" and policy.is_stochastic:
        raise ValueError(
            f"imagination method 'warm' needs a deterministic policy, got {type(policy).__name__}: new noise would "
            "move the states that it reuses. Use 'replay'."
        )
    if checkpoint and policy_input_gradient > 0:
        raise ValueError(
            f"checkpoint must be false for method {method!r} with policy_input_gradient {policy_input_gradient}, got "
            "true: the graph is needed more than once. Use 'sequential', or policy_input_gradient 0."
        )


def cheapest_method(
    world_model: WorldModel,
    policy: Policy,
    policy_input_gradient: float = 0.0,
    checkpoint: bool = False,
    compile_decoding: bool = False,
) -> Method:
    """Return the cheapest method that can serve: warm, else replay, else sequential.

    Where gradients pass through the states that the policy reads, replay is not cheaper than a graph of steps, unless
    its decoding is compiled.
    """
    if world_model.reads_later_states or (checkpoint and policy_input_gradient > 0):
        return "sequential"
    if not policy.is_stochastic:
        return "warm"
    return "sequential" if policy_input_gradient > 0 and not compile_decoding else "replay"


def imagine(
    world_model: WorldModel,
    policy: Policy,
    initial_state: Tensor,
    horizon: int,
    *,
    method: Method = "replay",
    policy_input_gradient: float = 0.0,
    previous_states: Tensor | None = None,
    refine: int = 0,
    tolerance: float = 0.0,
    costates: CostateIteration | None = None,
    decoder: CompiledDecoder | None = None,
    checkpoint: bool = False,
    action_noise: Tensor | None = None,
    action_gradient: Tensor | None = None,
) -> Imagined:
    """Let the policy act in the world model for ``horizon`` steps.

    Where the state has a clock (``clock_step``), steps after the end of the episode earn nothing; where the model has
    learned what else ends one (``continuation``), rewards are weighted by the probability that it has not ended.

    Args:
        world_model: Any family for ``"sequential"``; for the others one that reads no state but the first.
        policy: The policy; a stochastic one samples with new noise.
        initial_state: ``(B, S)``.
        horizon: Number ``H`` of steps.
        method: ``"sequential"``, ``"replay"`` or ``"warm"``, see above.
        policy_input_gradient: Share in [0, 1] of the gradient that passes through the states that the policy reads.
        previous_states: ``(B, H, S)`` or longer, what the policy reads if ``method`` is ``"warm"``.
        refine: The most passes by which ``"warm"`` refines the given states; where one does not help, it decodes.
        tolerance: Largest change of a state in a pass, in standard deviations, at which refining ends.
        costates: How ``"replay"`` and ``"warm"`` solve for the gradient through the policy's inputs; None for exactly.
        decoder: Decodes states for ``"replay"`` and ``"warm"`` by a compiled step; None for an ordinary one.
        checkpoint: Whether to save memory by computing predictions once more in the backward pass: of a quarter of the
            batch at a time, or with ``"sequential"`` of ``sqrt(H)`` steps. Refused where costates are solved for.
        action_noise: ``(B, H, A)`` to be added to the policy's actions without clipping, or None.
        action_gradient: ``(B, H, A)``, to which every backward pass adds the gradient of the actions; or None.

    Raises:
        ValueError: If the method cannot serve the other arguments, or a number or a shape does not fit.

    Example:
        >>> from lit_awm.models import ActionsWorldModel, DeterministicPolicy
        >>> model, policy = ActionsWorldModel(state_dim=3, action_dim=1), DeterministicPolicy(state_dim=3, action_dim=1)
        >>> [tuple(each.shape) for each in imagine(model, policy, torch.zeros(2, 3), horizon=5)[:3]]
        [(2, 6, 3), (2, 5, 1), (2, 5)]
    """
    check_method(method, world_model, policy, policy_input_gradient, checkpoint)
    world_model.check_start(initial_state, horizon)
    _check_use(method, refine, tolerance, policy_input_gradient, costates=costates, decoder=decoder)
    shape = (len(initial_state), horizon, policy.action_dim)
    of_actions = {"action_noise": action_noise, "action_gradient": action_gradient}
    _check_shapes(shape, policy.state_dim, method, previous_states, **of_actions)
    noise = initial_state.new_empty(shape).normal_() if policy.is_stochastic else None
    act = Actor(policy, noise, action_noise, action_gradient)
    if method == "sequential":
        return _unroll(world_model, act, initial_state, horizon, policy_input_gradient, checkpoint)
    found = _find_inputs(world_model, act, initial_state, horizon, previous_states, refine, tolerance, decoder)
    return _imagine_from(found, world_model, act, initial_state, policy_input_gradient, costates, checkpoint)


def _imagine_from(
    found: _Inputs,
    world_model: WorldModel,
    act: Actor,
    initial_state: Tensor,
    policy_input_gradient: float,
    costates: CostateIteration | None,
    checkpoint: bool,
) -> Imagined:
    """Take all steps at once, from the states that the policy is to read."""
    states = torch.cat([initial_state.unsqueeze(1), found.states[:, 1:]], dim=1)
    if policy_input_gradient > 0 and torch.is_grad_enabled():
        solver = CostateIteration() if costates is None else costates
        actions, predicted, rewards, read = sweep(world_model, act, states, policy_input_gradient, solver)
    else:
        read = states.detach()
        actions = act(read)
        predicted, rewards = _predict(world_model, states, actions, PARTS if checkpoint else 1)
    everything = torch.cat([states[:, :1], predicted], dim=1)
    rewards, survival = _count_while_it_goes_on(world_model, everything, rewards)
    return Imagined(everything, actions, rewards, read, survival, found.passes, found.has_decoded)


def _predict(world_model: WorldModel, states: Tensor, actions: Tensor, parts: int) -> Prediction:
    """Predict in parallel; with several parts of the batch, each is computed once more in the backward pass."""
    if parts == 1:
        return world_model(states, actions)
    pairs = zip(states.chunk(parts), actions.chunk(parts), strict=True)
    found = [recompute(world_model, *pair, use_reentrant=False) for pair in pairs]
    return Prediction(*(torch.cat(values) for values in zip(*found, strict=True)))


class _Inputs(NamedTuple):
    """States for the policy to read ``(B, H, S)``, and how they were found."""

    states: Tensor
    passes: int
    has_decoded: bool


@torch.no_grad()
def _find_inputs(
    world_model: WorldModel,
    act: Actor,
    initial_state: Tensor,
    horizon: int,
    previous_states: Tensor | None,
    refine: int,
    tolerance: float,
    decoder: CompiledDecoder | None,
) -> _Inputs:
    """Refine the states that are given, or decode them."""
    passes, last = 0, torch.inf
    if previous_states is not None:
        states = torch.cat([initial_state.unsqueeze(1), previous_states[:, 1:horizon]], dim=1)
        while passes < refine:
            predicted, _ = world_model(states, act(states))
            new = torch.cat([states[:, :1], predicted[:, :-1]], dim=1)
            residual = ((new - states) / world_model.state_scaler.scale).abs().amax().item()
            states, passes = new, passes + 1
            if not residual < last:
                break
            if residual <= tolerance:
                return _Inputs(states, passes, has_decoded=False)
            last = residual
        else:
            return _Inputs(states, passes, has_decoded=False)
    states = (decoder or decode)(world_model, act, initial_state, horizon)
    return _Inputs(states, passes, has_decoded=True)


def _check_use(method: str, refine: int, tolerance: float, policy_input_gradient: float, **of_inputs: object) -> None:
    check_count(0, refine=refine)
    check_at_least(0, tolerance=tolerance)
    if refine and method != "warm":
        raise ValueError(f"refine is for method 'warm', got {refine} and method {method!r}. Leave it out.")
    for name, given in of_inputs.items():
        if given is not None and method == "sequential":
            kind = type(given).__name__
            raise ValueError(f"{name} must be None for method 'sequential', got a {kind}. Use 'replay' or 'warm'.")
    if of_inputs["costates"] is not None and policy_input_gradient == 0:
        raise ValueError("costates must be None with policy_input_gradient 0, got a CostateIteration. Leave them out.")


def _check_shapes(
    shape: tuple[int, int, int],
    state_dim: int,
    method: str,
    previous_states: Tensor | None,
    **of_actions: Tensor | None,
) -> None:
    horizon = shape[1]
    if previous_states is not None:
        batch, steps, *size = previous_states.shape
        if method != "warm" or batch != shape[0] or steps < horizon or size != [state_dim]:
            raise ValueError(
                f"previous_states are for method 'warm', of shape {(shape[0], horizon, state_dim)} or with more steps, "
                f"got {tuple(previous_states.shape)} and method {method!r}. Leave them out."
            )
    for name, given in of_actions.items():
        if given is not None and given.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(given.shape)}.")


def _count_while_it_goes_on(world_model: WorldModel, states: Tensor, rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Return rewards ``(B, H)`` weighted by the probability that the episode has not ended, and that probability."""
    survival = world_model.survival(states)
    return while_it_goes_on(rewards, survival[:, :-1]), survival


def _unroll(
    world_model: WorldModel,
    act: Actor,
    state: Tensor,
    horizon: int,
    policy_input_gradient: float,
    checkpoint: bool = False,
) -> Imagined:
    """Take step after step; to save memory, some at a time are computed once more in the backward pass."""

    def advance(carry: Any, state: Tensor, steps: range) -> tuple[Any, Tensor, Tensor, Tensor]:
        states, actions, rewards = [], [], []
        for t in steps:
            seen = state.detach()
            if policy_input_gradient > 0:
                seen = seen + policy_input_gradient * (state - seen)
            action = act.at(t)(seen)
            carry, state, reward = world_model.step(carry, action)
            states.append(state)
            actions.append(action)
            rewards.append(reward)
        return carry, torch.stack(states, 1), torch.stack(actions, 1), torch.stack(rewards, 1)

    initial, carry, parts = state, world_model.start(state, horizon), []
    length = math.ceil(math.sqrt(horizon)) if checkpoint else horizon
    for first in range(0, horizon, length):
        steps = range(first, min(first + length, horizon))
        if checkpoint:
            carry, *part = recompute(advance, carry, state, steps, use_reentrant=False)
        else:
            carry, *part = advance(carry, state, steps)
        state = part[0][:, -1]
        parts.append(part)
    states, actions, rewards = (torch.cat(values, dim=1) for values in zip(*parts, strict=True))
    states = torch.cat([initial.unsqueeze(1), states], dim=1)
    rewards, survival = _count_while_it_goes_on(world_model, states, rewards)
    return Imagined(states, actions, rewards, states[:, :-1].detach(), survival)
