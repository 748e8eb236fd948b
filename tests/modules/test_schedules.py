from __future__ import annotations

import pytest
import torch

from lit_awm.modules import CosineRestarts, DecaySchedule


def rates(period: int, warmup: float, updates: int, decay: float = 1.0, over: int = 1) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = CosineRestarts(optimizer, period, warmup, decay, over)
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


@pytest.mark.parametrize("over", [2, 4])
def test_the_decay_comes_about_over_some_restarts(over: int) -> None:
    seen = rates(period=3, warmup=0, updates=13, decay=0.25, over=over)[::3]
    assert seen[over] == pytest.approx(0.5)
    assert seen[1] / seen[0] == pytest.approx(seen[2] / seen[1])
    noise = DecaySchedule(2.0, 0.25, period=3, over=over)
    assert [noise(update) for update in range(0, 13, 3)] == pytest.approx(seen)


def test_a_resumed_run_may_have_more_restarts() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    short, long = (CosineRestarts(optimizer, 1, decay=0.25, over=over) for over in (1, 2))
    for _ in range(4):
        optimizer.step()
        short.step()
    long.load_state_dict(short.state_dict())
    assert long.get_lr() == pytest.approx([2.0 * 0.25**2])
    assert short.get_lr() == pytest.approx([2.0 * 0.25**4])


def test_a_decay_over_no_restart_is_refused() -> None:
    with pytest.raises(ValueError, match="over must be at least 1, got 0"):
        rates(10, 0.0, 1, over=0)
    with pytest.raises(ValueError, match=r"over must be at least 1, got -1\. .*trainer\.max_epochs"):
        DecaySchedule(1.0, 0.5, period=1, over=-1)


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
