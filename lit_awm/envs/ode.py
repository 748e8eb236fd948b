"""Optimal control of differential and difference equations.

Shape legend: ``n`` physical state size, ``m`` control size, ``...`` any leading dimensions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_awm.checks import check_at_least, check_count
from lit_awm.envs.control import ControlEnv
from lit_awm.envs.integrators import INTEGRATORS, Integrator, Rates

BoundRule = Literal["ignore", "charge", "clip"]


class OdeEnv(ControlEnv):
    """Steer ``x' = f(x, u)`` at little cost ``integral of g(x, u, t) dt + h(x(T))``.

    Controls are constant within each interval and the cost is integrated alongside the state by the same scheme. A
    system is a subclass that gives the equations: ``dynamics``, ``running_cost`` and, where there is one,
    ``terminal_cost``. They take and return tensors in physical units, batched over any leading dimensions and in any
    floating type. A system with ``is_discrete`` is a map: ``dynamics`` returns the next state, and every step costs
    ``running_cost``.

    A published end state, which solvers meet exactly, is paid for here: the last step costs ``target_weight`` times
    the sum of squares of the remaining distances, each over its ``target_scale``.

    Args:
        target_state: Published end state, NaN where it is free; None if all of it is.
        target_scale: For each state the distance from the target that costs ``target_weight``, in its unit.
        target_weight: Cost of missing the target by its scale, at least 0.
        bounds: What becomes of the state bounds: ``"ignore"`` them; ``"charge"`` for every move further out; or
            ``"clip"`` the state to them, where episodes start and at each stage of the integrator too.
        bound_weight: Cost of moving out of the bounds by their width (by 1 where they have none), at least 0; coming
            back is not refunded. An exact penalty: the optimum stays within the bounds if the weight is high enough.
        integrator: ``"rk4"`` (one classical Runge-Kutta step an interval), ``"heun"`` or ``"euler"``; a discrete
            system has none.
        substeps: Number of integrator steps in a control interval, at least 1.
        options: Initial state, bounds, batch size, discretisation and device, see
            :class:`~lit_awm.envs.control.ControlEnv`.

    Raises:
        ValueError: If ``integrator`` or ``bounds`` is unknown, a weight is negative, ``substeps`` is below 1, the
            target has the wrong shape, or a discrete system is given ``dt`` or ``substeps``.
    """

    is_discrete: ClassVar[bool] = False
    target_state: Tensor
    target_scale: Tensor
    bound_scale: Tensor

    def __init__(
        self,
        *,
        target_state: Sequence[float] | None = None,
        target_scale: Sequence[float] | None = None,
        target_weight: float = 1.0,
        bounds: BoundRule = "ignore",
        bound_weight: float = 1.0,
        integrator: Integrator = "rk4",
        substeps: int = 1,
        **options: Any,
    ) -> None:
        if integrator not in INTEGRATORS:
            raise ValueError(f"integrator must be one of {', '.join(INTEGRATORS)}, got {integrator!r}.")
        if bounds not in get_args(BoundRule):
            raise ValueError(f"bounds must be one of {', '.join(get_args(BoundRule))}, got {bounds!r}.")
        if self.is_discrete and (options.get("dt") is not None or substeps != 1):
            raise ValueError(f"dt and substeps must be left out for {self.name}, whose steps are its own.")
        check_count(substeps=substeps)
        check_at_least(0, target_weight=target_weight, bound_weight=bound_weight)
        super().__init__(**options)
        size = len(self.state_names)
        self._add_constant("target_state", [float("nan")] * size if target_state is None else target_state)
        self._check_size("x_T", self.target_state)
        self._add_constant("target_scale", [1.0] * size if target_scale is None else target_scale)
        self._check_size("target_scale", self.target_scale)
        width = self.state_bounds[:, 1] - self.state_bounds[:, 0]
        self._add_constant("bound_scale", width.where(width.isfinite(), 1).tolist())
        targets = enumerate(zip(self.target_state.tolist(), self.target_scale.tolist(), strict=True))
        self._targets = [(i, target, scale) for i, (target, scale) in targets if not math.isnan(target)]
        self.integrator, self.substeps, self.bounds = integrator, substeps, bounds
        self.target_weight, self.bound_weight = target_weight, bound_weight

    # -- The equations ----------------------------------------------------------------------------------------------

    @abstractmethod
    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return ``f(x, u)``, the rate of change of the state ``(..., n)`` under the control ``(..., m)``."""

    @abstractmethod
    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return ``g(x, u, t)``, the cost per unit of time, shape ``(...)``."""

    def terminal_cost(self, state: Tensor) -> Tensor:
        """Return ``h(x(T))``, the cost of the final state, shape ``(...)``; zero unless a system says otherwise."""
        return torch.zeros_like(state[..., 0])

    def target_cost(self, state: Tensor) -> Tensor:
        """Return what the distance of the final state from the target costs, shape ``(...)``."""
        cost = torch.zeros_like(state[..., 0])
        for i, target, scale in self._targets:
            cost = cost + ((state[..., i] - target) / scale) ** 2
        return self.target_weight * cost

    def target_error(self, state: Tensor) -> Tensor | None:
        """Return how far a final state ``(..., n)`` is from the target, shape ``(...)``; None if there is no target.

        It is the largest distance of a component, as a share of the width of its bounds, or in its own unit where it
        has none.
        """
        if not self._targets:
            return None
        errors = [(state[..., i] - target).abs() / self.bound_scale[i] for i, target, _ in self._targets]
        return torch.stack(errors).amax(dim=0)

    # -- One interval -------------------------------------------------------------------------------------------------

    def interval(self, state: Tensor, control: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Integrate one control interval: the state ``(..., n)`` at its end and its cost ``(...)``."""
        if self.is_discrete:
            next_state, cost = self.dynamics(state, control), self.running_cost(state, control, time)
        else:
            next_state, cost = self._integrate(state, control, time)
        if self.bounds == "clip":
            next_state = self._clip(next_state)
        return next_state, cost + self._charges(state, next_state, time)

    def _integrate(self, state: Tensor, control: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        integrate, rates, dt = INTEGRATORS[self.integrator], self._rates(control), self.dt / self.substeps
        state, cost = integrate(rates, state, time, dt)
        for substep in range(1, self.substeps):
            state, more = integrate(rates, state, time + substep * dt, dt)
            cost = cost + more
        return state, cost

    def reward_between(self, state: Tensor, control: Tensor, next_state: Tensor, time: Tensor) -> Tensor:
        """Return the reward ``(...)`` of an interval from the states at its two ends, without the dynamics.

        The running cost is summed by the rule that needs no state in between: for ``"euler"`` without substeps and for
        discrete systems the left end, which is exact, otherwise the trapezoid, whose error over an episode is of second
        order in ``dt``.
        """
        cost = self.running_cost(state, control, time)
        if not (self.is_discrete or (self.integrator == "euler" and self.substeps == 1)):
            cost = (cost + self.running_cost(next_state, control, time + self.dt)) / 2
        if not self.is_discrete:
            cost = self.dt * cost
        return -cost - self._charges(state, next_state, time)

    def _rates(self, control: Tensor) -> Rates:
        def rates(state: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
            if self.bounds == "clip":
                state = self._clip(state)
            return self.dynamics(state, control), self.running_cost(state, control, time)

        return rates

    def _reset(self, tensordict: TensorDictBase | None = None, **options: object) -> TensorDict:
        reset = super()._reset(tensordict, **options)
        return reset.set("state", self._clip(reset["state"])) if self.bounds == "clip" else reset

    def _clip(self, state: Tensor) -> Tensor:
        return state.clamp(*self._like(self.state_bounds, state))

    def _charges(self, state: Tensor, next_state: Tensor, time: Tensor) -> Tensor:
        """Return what is paid besides the running cost: for leaving the bounds, and at the end of an episode."""
        charges = torch.zeros_like(next_state[..., 0])
        if self.bounds == "charge":
            further = self._excess(next_state) - self._excess(state)
            charges = charges + self.bound_weight * further.clamp_min(0).sum(-1)
        if self._has_terminal_cost or (self._targets and self.target_weight):
            end = self.terminal_cost(next_state) + self.target_cost(next_state)
            charges = charges + torch.where(self.is_last_interval(time), end, 0)
        return charges

    def _excess(self, state: Tensor) -> Tensor:
        low, high = self._like(self.state_bounds, state)
        return ((low - state).clamp_min(0) + (state - high).clamp_min(0)) / self.bound_scale.to(state)

    @property
    def _has_terminal_cost(self) -> bool:
        return type(self).terminal_cost is not OdeEnv.terminal_cost
