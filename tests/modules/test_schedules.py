from __future__ import annotations

import pytest
import torch

from lit_awm.modules import CosineRestarts


def rates(period: int, warmup: float, updates: int, decay: float = 1.0) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = CosineRestarts(optimizer, period, warmup, decay)
    seen = []
    for _ in range(updates):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_every_period_falls_from_the_full_rate_towards_zero() -> None:
    seen = rates(period=4, warmup=0, updates=8)
    assert seen == pytest.approx([2.0, 1.7071068, 1.0, 0.2928932] * 2)


def test_every_period_begins_with_a_warm_up() -> None:
    seen = rates(period=100, warmup=0.04, updates=200)
    assert seen[:4] == pytest.approx([0.4, 0.8, 1.2, 1.6], rel=0.01)
    assert seen[100:] == pytest.approx(seen[:100])
    assert max(seen) > 1.98


def test_every_restart_begins_lower_by_the_decay() -> None:
    assert rates(period=4, warmup=0, updates=12, decay=0.5)[::4] == pytest.approx([2.0, 1.0, 0.5])


@pytest.mark.parametrize(
    ("period", "warmup", "decay", "words"),
    [
        (0, 0.0, 1.0, "period must be at least 1, got 0"),
        (10, 1.0, 1.0, "warmup .* below 1, got 1.0"),
        (10, -0.1, 1.0, "warmup .* at least 0.*got -0.1"),
        (10, 0.0, 0.0, "decay must be above 0 and at most 1, got 0.0"),
        (10, 0.0, 1.1, "decay must be above 0 and at most 1, got 1.1"),
    ],
)
def test_bad_arguments_are_refused(period: int, warmup: float, decay: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rates(period, warmup, 1, decay)
