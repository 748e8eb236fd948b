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

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten

from lit_awm.actor import Actor
from lit_awm.checks import check_at_least, check_count
from lit_awm.models import WorldModel

EXACT_WINDOW = 10


class CostateIteration:
    """How costates are solved for, and what came of it in the last backward pass.

    Args:
        window: Steps ``C`` of a window; None for one window, the horizon.
        tolerance: Relative change of the costates of a window, in standard units, at which its passes end; with 0 they
            go on until the costates are exact.
        max_passes: The most passes in a window; None for as many as make it exact, ``C``. With 0 the costates of the
            time before are used as they are, and the backward pass makes the next ones at no cost.

    Raises:
        ValueError: If ``window`` is below 1, or ``tolerance`` or ``max_passes`` negative.

    Attributes:
        costates: ``(B, H, S)``, from which the next backward pass starts; None before the first.
        residual: Largest relative change of the costates of a window in the last pass through it, 0 where they are
            exact; NaN where it is not known, or they are not finite.
        passes: Passes that were made, in units of the whole horizon, without the final one.
        solutions: Number of backward passes so far.
    """

    def __init__(
        self, window: int | None = EXACT_WINDOW, tolerance: float = 0.0, max_passes: int | None = None
    ) -> None:
        check_count(1, window=1 if window is None else window)
        check_at_least(0, tolerance=tolerance, max_passes=0 if max_passes is None else max_passes)
        self.window, self.tolerance, self.max_passes = window, tolerance, max_passes
        self.costates: Tensor | None = None
        self.residual, self.passes, self.solutions = math.nan, 0.0, 0


class _Solution:
    """The costates of one graph: settings as they were when it was made, and what its backward passes find."""

    def __init__(self, solver: CostateIteration, states: Tensor, scale: Tensor) -> None:
        self.solver, self.scale, self.horizon = solver, scale, states.shape[1]
        self.window = solver.window or self.horizon
        self.tolerance, self.max_passes = solver.tolerance, solver.max_passes
        known = solver.costates is not None and solver.costates.shape == states.shape
        self.start = solver.costates.to(states) if known else torch.zeros_like(states)  # type: ignore[union-attr]
        self.is_solving = False
        self._begin()

    def _begin(self) -> None:
        self.costates, self.passes = self.start.clone(), 0.0
        self.residuals: dict[int, float] = {}  # of the windows, by their first step

    def solve(self, apply: Callable[[Tensor], Tensor], first: int, count: int) -> Tensor:
        """Return the costates ``(B, C, S)`` of a window: the fixed point of ``apply``, from those of the last time."""
        if first + count == self.horizon or first in self.residuals:  # the last comes first: a backward pass begins
            self._begin()
        costates, residual = self.start[:, first : first + count], math.nan
        if not costates.isfinite().all():
            costates = torch.zeros_like(costates)
        self.is_solving = True
        for done in range(1, (count if self.max_passes is None else self.max_passes) + 1):
            new = apply(costates)
            residual, costates = self._change(new, costates), new
            self.passes += count / self.horizon
            if done == count and not math.isnan(residual):
                residual = 0.0  # whatever it was before, it is exact now
            if residual <= self.tolerance:
                break
        self.is_solving = False
        self._take(first, residual, costates)
        return costates

    def observe(self, first: int, new: Tensor) -> None:
        """Take in what the final backward pass says about the costates of a window."""
        used = self.costates[:, first : first + new.shape[1]]
        self._take(first, self._change(new, used) if self.max_passes == 0 else self.residuals[first], new)

    def _take(self, first: int, residual: float, costates: Tensor) -> None:
        is_first_time = first not in self.residuals
        self.residuals[first] = residual
        self.costates[:, first : first + costates.shape[1]] = costates
        solver, worst = self.solver, self.residuals.values()
        solver.costates, solver.passes = self.costates, self.passes
        solver.residual = math.nan if any(math.isnan(each) for each in worst) else max(worst)
        solver.solutions += first == 0 and is_first_time

    def _change(self, new: Tensor, old: Tensor) -> float:
        size = (new * self.scale).norm()
        change = ((new - old) * self.scale).norm()
        return 0.0 if change == 0 else (change / size).item()


class _Graph(NamedTuple):
    """The graph of one window, which ends at leaves in place of what is before the window."""

    solution: _Solution
    beta: float
    first: int
    inputs: Tensor  # (B, C, S), a leaf
    links: list[Tensor]  # leaves, in place of what the window before has left
    sources: list[Tensor]  # all other leaves, like weights and noise
    predicted: Tensor  # (B, C, S)
    outputs: list[Tensor]  # all that gradients pass through, with what is left to the next window

    def pull(
        self, seeds: list[tuple[Tensor, Tensor]], to: list[Tensor], retain_graph: bool = True
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of some tensors, given those of some outputs, of which a cache takes possession."""
        outputs, grads = zip(*((output, grad) for output, grad in seeds if output.requires_grad), strict=True)
        return torch.autograd.grad(outputs, to, grads, retain_graph=retain_graph, allow_unused=True)


def sweep(
    world_model: WorldModel,
    act: Actor,
    states: Tensor,
    beta: float,
    solver: CostateIteration,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Predict window by window from given states; the gradient is that of the closed loop.

    Args:
        world_model: A model that reads no state but the first.
        act: The policy; gradients of its actions in the passes that solve for costates do not count.
        states: The states that the policy reads ``(B, H, S)``; but the first state of a window is the one that the
            window before has ended in.
        beta: Share of the gradient that passes through them.
        solver: Solves for the costates in the backward pass.

    Returns:
        Actions ``(B, H, A)``, predicted states ``(B, H, S)`` and rewards ``(B, H)``; and the states that were read
        ``(B, H, S)``.

    Raises:
        ValueError: If the world model carries something that is neither a tensor nor a plain number or text.
    """
    horizon = states.shape[1]
    solution = _Solution(solver, states.detach(), world_model.state_scaler.scale)
    carry, boundary = world_model.start(states[:, 0], horizon), states[:, 0]
    parts = []
    for first in range(0, horizon, solution.window):
        steps = slice(first, min(first + solution.window, horizon))
        linked, with_links = _open(carry)
        read = torch.cat([boundary.unsqueeze(1), states[:, first + 1 : steps.stop]], dim=1)
        inputs, *links = (tensor.detach().requires_grad_() for tensor in (read, *linked))
        actions = act.at(steps)(inputs, lambda: not solution.is_solving)
        carry, predicted, rewards = world_model.extend(with_links(links), actions)
        outputs, with_outputs = _open((predicted, actions, rewards, carry))
        sources = _leaves(outputs, [inputs, *links])
        graph = _Graph(solution, beta, first, inputs, links, sources, predicted, outputs)
        passed = _Window.apply(graph, boundary, *linked, *sources) if outputs else ()  # type: ignore[no-untyped-call]
        predicted, actions, rewards, carry = with_outputs(passed)
        boundary = predicted[:, -1]
        parts.append((actions, predicted, rewards, inputs.detach()))
    actions, predicted, rewards, read = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return actions, predicted, rewards, read


def _open(tree: Any) -> tuple[list[Tensor], Callable[[Iterable[Tensor]], Any]]:
    """Return the tensors of a tree that gradients pass through, and what makes the same tree with others for them."""
    leaves, structure = tree_flatten(tree)
    for leaf in leaves:
        if leaf is not None and not isinstance(leaf, Tensor | int | float | bool | str):
            raise ValueError(
                "what a world model carries from step to step must be a tree (tuples, lists, dictionaries) of tensors "
                f"and numbers, got {type(leaf).__name__} in it, through which gradients would be lost. Carry a "
                "NamedTuple, or imagine by 'sequential'."
            )
    where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]

    def close(tensors: Iterable[Tensor]) -> Any:
        others = list(leaves)
        for i, tensor in zip(where, tensors, strict=True):
            others[i] = tensor
        return tree_unflatten(others, structure)

    return [leaves[i] for i in where], close


def _leaves(outputs: list[Tensor], but: list[Tensor]) -> list[Tensor]:
    """Return the leaves at which the graph of some outputs ends, but for some that are known."""
    known = {id(tensor) for tensor in but}
    leaves = [output for output in outputs if output.is_leaf and id(output) not in known]
    nodes = [output.grad_fn for output in outputs]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node is None:
            continue
        leaf = getattr(node, "variable", None)  # of those that accumulate
        if leaf is not None and id(leaf) not in known:
            leaves.append(leaf)
        for before, _ in node.next_functions:
            if before not in seen:
                seen.add(before)
                nodes.append(before)
    return leaves


class _Window(torch.autograd.Function):
    """Pass on the outputs of a window; backward, solve for its costates and pull the gradient through its graph.

    The graphs of windows are apart, so that a pass through one does not walk those of all before.
    """

    @staticmethod
    def forward(ctx: Any, graph: _Graph, *before: Tensor) -> Any:
        ctx.graph = graph
        ctx.set_materialize_grads(False)
        return tuple(output.detach() for output in graph.outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        graph: _Graph = ctx.graph
        beta, predicted, inputs = graph.beta, graph.predicted, graph.inputs
        begin = int(predicted.requires_grad)  # then it is the first output
        states = grads[0] if begin and grads[0] is not None else torch.zeros_like(predicted)
        pairs = zip(graph.outputs[begin:], grads[begin:], strict=True)
        others = [(out, grad) for out, grad in pairs if grad is not None]

        def pull(seeds: list[tuple[Tensor, Tensor]]) -> Tensor:
            (grad,) = graph.pull(seeds, [inputs])
            return torch.zeros_like(inputs) if grad is None else grad

        def fed_back(costates: Tensor) -> Tensor:
            return beta * torch.cat([costates[:, 1:], torch.zeros_like(costates[:, :1])], dim=1)

        own: list[Tensor] = []  # without feedback, pulled once

        def apply(costates: Tensor) -> Tensor:
            if not own:
                own.append(pull([*((out, grad.clone()) for out, grad in others), (predicted, states)]))
                if not costates.any():
                    return own[0]
            return own[0] + pull([(predicted, fed_back(costates))])

        costates = graph.solution.solve(apply, graph.first, inputs.shape[1])
        # As the caller has asked for; but windows before may share nodes with this one.
        keep: bool = graph.first > 0 or torch._C._autograd._get_current_graph_task_keep_graph()
        seeds = [*others, (predicted, states + fed_back(costates))]
        found = graph.pull(seeds, [inputs, *graph.links, *graph.sources], retain_graph=keep)
        graph.solution.observe(graph.first, torch.zeros_like(inputs) if found[0] is None else found[0])
        return None, beta * costates[:, 0], *found[1:]
