"""A run that is killed at random moments and resumed ends as one that was left alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_run_that_is_killed_ten_times_is_equal_to_the_bit(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("kills", Path(__file__).parents[1] / "benchmarks" / "kills.py")
    assert spec is not None
    assert spec.loader is not None
    kills = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kills)
    found = kills.survive(tmp_path, kills=10, seed=1, progress=False)
    assert sum(found["kills"].values()) == 10
    assert sum(found["kills"].get(moment, 0) for moment in kills.MOMENTS) >= 8
    assert found["kills"]["writing a checkpoint"] >= 1
    assert found["largest_difference"] == 0
    assert found["differing_rows"] == 0
