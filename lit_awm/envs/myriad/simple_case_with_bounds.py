"""The first example with a bounded control (Lenhart & Workman, 2007, chapter 9)."""

from __future__ import annotations

from typing import Any

from lit_awm.envs.myriad.simple_case import SimpleCase


class SimpleCaseWithBounds(SimpleCase):
    """The equations of :class:`SimpleCase` with bounds, which do not bind at the optimum.

    Args:
        A: Worth of the state.
        C: Effect of the control.
        M_1: Smallest control, below ``M_2``.
        M_2: Largest control.
        x_0: Initial state.
        duration: Length of an episode.
        options: Discretisation, bounds and device, see :class:`~lit_awm.envs.ode.OdeEnv`.

    Raises:
        ValueError: If ``M_1`` is not below ``M_2``.
    """

    name = "simple_case_with_bounds"
    fixed_options = ("B", "u_max")

    def __init__(
        self,
        A: float = 1.0,
        C: float = 4.0,
        M_1: float = -1.0,
        M_2: float = 2.0,
        x_0: float = 1.0,
        duration: float = 1.0,
        **options: Any,
    ) -> None:
        if not M_1 < M_2:
            raise ValueError(f"M_1 must be below M_2 {M_2}, got {M_1}.")
        options = {"control_bounds": [(M_1, M_2)], "state_bounds": [(0, 3)], **options}
        super().__init__(A=A, C=C, x_0=x_0, duration=duration, **options)
