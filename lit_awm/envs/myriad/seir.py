"""Vaccination in an epidemic, under a second name (Myriad cites Perkins & Espana, 2020)."""

from __future__ import annotations

from typing import Any

from lit_awm.envs.myriad.epidemic_seirn import EpidemicSeirn


class Seir(EpidemicSeirn):
    """The equations and the cost of :class:`EpidemicSeirn` with other bounds; the optimum is the same.

    Myriad's description of this system states another model, of COVID-19; these are the equations that it runs.

    Args:
        u_max: Largest rate of vaccination (1/year), positive.
        options: Parameters as of :class:`EpidemicSeirn`, and discretisation, bounds and device.
    """

    name = "seir"
    published_bounds = [(0, 2000), (0, 250), (0, 250), (0, 3000)]

    def __init__(self, u_max: float = 1.0, **options: Any) -> None:
        super().__init__(u_max=u_max, **options)
