from __future__ import annotations

import pytest

from lit_awm.analysis.oracle import solve
from lit_awm.analysis.receding import receding_horizon_cost
from lit_awm.envs.factory import make_system


@pytest.mark.parametrize(
    ("system", "lookahead", "published"),
    [
        ("timber_harvest", 1, -500.0),  # never invests
        ("timber_harvest", 5, -500.0),
        ("simple_case", 1, -0.8263056726743163),
        ("simple_case", 5, -0.9375967537202987),
        ("van_der_pol", 1, 34.11314938581614),
    ],
)
def test_one_who_looks_a_few_steps_ahead_pays_what_was_found_independently(
    system: str, lookahead: int, published: float
) -> None:
    env = make_system(system, target_weight=0.0) if system == "van_der_pol" else make_system(system)
    assert receding_horizon_cost(env, lookahead) == pytest.approx(published, rel=1e-5)


def test_with_the_whole_episode_ahead_it_is_the_optimum() -> None:
    env = make_system("simple_case", episode_length=12)
    assert receding_horizon_cost(env, 12) == pytest.approx(solve(env, starts=3).cost, rel=1e-5)


def test_a_lookahead_of_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="lookahead must be at least 1, got 0"):
        receding_horizon_cost(make_system("harvest"), 0)
