"""The closed-loop policy gradient without a graph of steps: states by passes forward, costates by passes backward.

The policy reads states that the model predicts, hence an action changes later actions. With the states at hand, all
actions and predictions are computed in parallel from inputs that are cut off from the predictions. What the cut takes
out of the gradient is put back by *costates*: the gradients ``mu`` of the objective with respect to the states as the
policy reads them. They obey ``mu = P' (g + beta G' mu)``: ``g`` is the gradient of the objective with respect to the
actions at cut inputs, ``P`` the Jacobian of the policy and ``G`` that of the predicted states with respect to the
actions. One backward pass applies the right-hand side once. Since causes come before effects the passes end: each makes
the costate of one more step exact, from the last one backwards, and mostly few are enough.

Where the loop of policy and model is stiff, many would be needed. Then the horizon is cut into *windows*: forward, each
starts from what the one before has ended in; backward, the last window is solved first, and passes within a window cost
its share of the whole only. Windows of one step are the sequential gradient.

Shape legend: ``B`` batch, ``H`` horizon, ``C`` steps of a window, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten

from lit_awm.checks import check_at_least
from lit_awm.models import WorldModel

EXACT_WINDOW = 10
ROUNDING = 100  # units of the last place


class CostateIteration:
    """How costates are solved for, and what came of it.

    Args:
        window: Steps ``C`` of a window; None for one window, the horizon.
        tolerance: Relative change of the costates of a window, in standard units, at which its passes end.
        max_passes: The most passes in a window; None for as many as make it exact, ``C``. With 0 those of the time
            before are used as they are, and the backward pass gives the next ones at no cost.

    Raises:
        ValueError: If ``window`` is below 1, or ``tolerance`` or ``max_passes`` negative.

    Attributes:
        costates: ``(B, H, S)``, those of the last backward pass, from which the next one starts; None before.
        residual: Largest relative change of the costates of a window in the last pass through it.
        passes: Passes that the last solution took, in units of the whole horizon, without the final one.
    """

    def __init__(self, window: int | None = None, tolerance: float = 0.0, max_passes: int | None = None) -> None:
        check_at_least(1, window=1 if window is None else window)
        check_at_least(0, tolerance=tolerance, max_passes=max_passes or 0)
        self.window, self.tolerance, self.max_passes = window, tolerance, max_passes
        self.costates: Tensor | None = None
        self.residual = self.passes = 0.0
        self.is_solving = False
        self._scale = torch.ones(())

    @classmethod
    def exact(cls, dtype: torch.dtype) -> CostateIteration:
        """Return a solver that goes on until nothing but rounding is left, in windows short enough for any loop."""
        return cls(EXACT_WINDOW, tolerance=ROUNDING * torch.finfo(dtype).eps)

    def begin(self, states: Tensor, scale: Tensor) -> None:
        """Prepare for a backward pass over ``(B, H, S)``, in standard units of ``scale`` ``(S,)``."""
        if self.costates is None or self.costates.shape != states.shape or self.costates.device != states.device:
            self.costates = torch.zeros_like(states)
        self.residual, self.passes, self._scale = 0.0, 0.0, scale

    def solve(self, apply: Callable[[Tensor], Tensor], start: int, count: int) -> Tensor:
        """Return the costates ``(B, C, S)`` of a window: the fixed point of ``apply``, from those of the last time."""
        assert self.costates is not None
        costates = self.costates[:, start : start + count].clone()
        residual = 0.0
        self.is_solving = True
        for _ in range(count if self.max_passes is None else self.max_passes):
            new = apply(costates)
            residual, costates = self._change(new, costates), new
            self.passes += count / self.costates.shape[1]
            if residual <= self.tolerance:
                break
        self.is_solving = False
        self._take(residual)
        self.costates[:, start : start + count] = costates
        return costates

    def observe(self, start: int, new: Tensor) -> None:
        """Take in what the final backward pass says about the costates of a window."""
        assert self.costates is not None
        if self.is_solving:
            return
        used = self.costates[:, start : start + new.shape[1]]
        if self.max_passes == 0:
            self._take(self._change(new, used))
        used.copy_(new)

    def _take(self, residual: float) -> None:
        if not residual <= self.residual:  # which is true of NaN as well
            self.residual = residual

    def _change(self, new: Tensor, old: Tensor) -> float:
        size = (new * self._scale).norm()
        change = ((new - old) * self._scale).norm()
        return 0.0 if change == 0 else (change / size).item()


def sweep(
    world_model: WorldModel,
    act: Callable[[Tensor, slice], Tensor],
    states: Tensor,
    beta: float,
    solver: CostateIteration,
) -> tuple[Tensor, Tensor, Tensor]:
    """Predict window by window from given states; the gradient is that of the closed loop.

    Args:
        world_model: A model that reads no state but the first.
        act: The policy, for states and the steps that they belong to.
        states: The states that the policy reads ``(B, H, S)``.
        beta: Share of the gradient that passes through them.
        solver: Solves for the costates in the backward pass.

    Returns:
        Actions ``(B, H, A)``, predicted states ``(B, H, S)`` and rewards ``(B, H)``.
    """
    horizon = states.shape[1]
    solver.begin(states.detach(), world_model.state_scaler.scale)
    window = solver.window or horizon
    carry, boundary = world_model.start(states[:, 0], horizon), states[:, 0]
    parts = []
    for start in range(0, horizon, window):
        steps = slice(start, min(start + window, horizon))
        inputs = torch.cat([boundary.unsqueeze(1), states[:, start + 1 : steps.stop]], dim=1).detach().requires_grad_()
        inputs.register_hook(partial(solver.observe, start))  # type: ignore[no-untyped-call]
        actions = act(inputs, steps)
        carry, predicted, rewards = world_model.extend(carry, actions)
        leaves, tree = tree_flatten(carry)
        where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
        actions, predicted, rewards, *carried = _Feedback.apply(  # type: ignore[no-untyped-call]
            solver, beta, start, inputs, boundary, actions, predicted, rewards, *[leaves[i] for i in where]
        )
        for i, leaf in zip(where, carried, strict=True):
            leaves[i] = leaf
        carry, boundary = tree_unflatten(leaves, tree), predicted[:, -1]
        parts.append((actions, predicted, rewards))
    actions, predicted, rewards = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return actions, predicted, rewards


class _Feedback(torch.autograd.Function):
    """Pass on what a window predicts; backward, add what its states mean to the actions of the policy."""

    @staticmethod
    def forward(
        ctx: Any, solver: CostateIteration, beta: float, start: int, inputs: Tensor, boundary: Tensor, *outputs: Tensor
    ) -> Any:
        ctx.solver, ctx.beta, ctx.start = solver, beta, start
        ctx.inputs, ctx.outputs = inputs, outputs  # not saved, since later windows write to the memory of a cache
        ctx.set_materialize_grads(False)
        return tuple(output.view_as(output) for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        solver, beta, inputs = ctx.solver, ctx.beta, ctx.inputs
        actions, states, *others = grads
        states = torch.zeros_like(ctx.outputs[1]) if states is None else states
        known = [(out, grad) for out, grad in zip(ctx.outputs[2:], others, strict=True) if grad is not None]
        known += [] if actions is None else [(ctx.outputs[0], actions)]

        def with_feedback(costates: Tensor) -> Tensor:
            return torch.cat([states[:, :-1] + beta * costates[:, 1:], states[:, -1:]], dim=1)

        def apply(costates: Tensor) -> Tensor:
            pairs = [*known, (ctx.outputs[1], with_feedback(costates))]
            outputs, seeds = zip(*((out, grad.clone()) for out, grad in pairs), strict=True)  # a cache adds in place
            return torch.autograd.grad(outputs, inputs, seeds, retain_graph=True)[0]

        costates = solver.solve(apply, ctx.start, inputs.shape[1])
        return None, None, None, None, beta * costates[:, 0], actions, with_feedback(costates), *others
