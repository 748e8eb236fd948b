from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from lit_awm.studies import executors
from lit_awm.studies.executors import check_executor, run_process, run_side_by_side


def is_even(job: int) -> bool:
    return job % 2 == 0


def test_every_job_is_done_once_and_tells_how_it_ended() -> None:
    assert sorted(run_side_by_side(is_even, range(5), workers=2)) == [(job, is_even(job)) for job in range(5)]


def test_no_job_begins_after_a_stop() -> None:
    begun = []

    def begin(job: int) -> bool:
        begun.append(job)
        time.sleep(0.05)
        return True

    for _ in run_side_by_side(begin, range(100), workers=1):
        break  # as when the user stops it
    assert len(begun) < 100


def test_sigterm_ends_the_processes_of_the_runs_and_begins_no_further_one() -> None:
    statuses = []

    def wait(job: int) -> bool:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        statuses.append(run_process([sys.executable, "-c", "import time; time.sleep(60)"]).returncode)
        return True

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        list(run_side_by_side(wait, range(3), workers=1))
    assert stop.value.code == 128 + signal.SIGTERM
    assert statuses == [-signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_ray_does_the_same() -> None:
    pytest.importorskip("ray")
    assert sorted(run_side_by_side(is_even, range(3), workers=2, executor="ray")) == [(0, True), (1, False), (2, True)]


def test_ray_is_asked_for_in_vain_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    check_executor("local")
    monkeypatch.setattr(executors, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"executor ray needs Ray: pip install 'lit-awm\[ray\]'"):
        check_executor("ray")
