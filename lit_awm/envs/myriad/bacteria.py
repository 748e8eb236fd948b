"""Growth of bacteria with a toxic by-product (Lenhart & Workman, 2007, chapter 7)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_awm.checks import check_at_least
from lit_awm.envs.ode import BoundRule, OdeEnv


class Bacteria(OdeEnv):
    """Grow as many bacteria as possible with a nutrient whose by-product kills them.

    ``x' = r x + A u x - B u^2 exp(-x)``, ``g = u^2`` and ``h = -C x(T)``. The source halts the dynamics where ``x``
    would fall below 0; so does ``bounds="clip"``, the default. Without it most controls send ``x`` to minus infinity.
    It clips at the upper bound of 10 too, which with ``B=1`` is within reach.

    Args:
        r: Growth rate.
        A: Strength of the nutrient.
        B: Strength of the by-product; the configuration files published with Myriad have 1.
        C: Worth of the bacteria at the end.
        x_0: Initial amount of bacteria.
        duration: Length of an episode.
        bounds: What becomes of the state bounds, see :class:`~lit_awm.envs.ode.OdeEnv`.
        options: Discretisation and device, see :class:`~lit_awm.envs.ode.OdeEnv`.
    """

    name = "bacteria"
    state_names = ("bacteria",)
    control_names = ("nutrient",)

    def __init__(
        self,
        r: float = 1.0,
        A: float = 1.0,
        B: float = 12.0,
        C: float = 1.0,
        x_0: float = 1.0,
        duration: float = 1.0,
        bounds: BoundRule = "clip",
        **options: Any,
    ) -> None:
        check_at_least(0, r=r, A=A, B=B, C=C)
        super().__init__(
            initial_state=[x_0],
            control_bounds=[(0, 2)],
            state_bounds=[(0, 10)],
            duration=duration,
            bounds=bounds,
            **options,
        )
        self.r, self.A, self.B, self.C = r, A, B, C

    def dynamics(self, state: Tensor, control: Tensor) -> Tensor:
        """Return the growth of the bacteria less what the by-product kills."""
        return self.r * state + self.A * control * state - self.B * control**2 * (-state).exp()

    def running_cost(self, state: Tensor, control: Tensor, time: Tensor) -> Tensor:
        """Return the square of the nutrient."""
        return control[..., 0] ** 2

    def terminal_cost(self, state: Tensor) -> Tensor:
        """Return minus the worth of the bacteria."""
        return -self.C * state[..., 0]
