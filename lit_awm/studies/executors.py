"""Where the runs of a study take place: on this machine, or on those of a Ray cluster."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType
from typing import Any, Literal, TypeVar

Executor = Literal["local", "ray"]
J = TypeVar("J")
PATIENCE = 30  # seconds that runs on Ray are given to end when a study is stopped
_processes = set[subprocess.Popen[bytes]]()  # that are at work


def check_executor(executor: str) -> None:
    """Reject an executor that cannot work here.

    Raises:
        ValueError: If Ray is asked for and is not installed.
    """
    if executor == "ray" and find_spec("ray") is None:
        raise ValueError("executor ray needs Ray: pip install 'lit-awm[ray]', or leave `--executor` out.")


def run_side_by_side(
    function: Callable[[J], bool], jobs: Sequence[J], workers: int, executor: Executor = "local"
) -> Iterator[tuple[J, bool]]:
    """Yield each job with what ``function`` returned, in the order in which they end.

    Args:
        function: What does a job; it starts a process of its own, and on Ray travels to the machine that does.
        jobs: Its arguments.
        workers: How many at once.
        executor: ``"local"``, or ``"ray"``: the cluster that ``RAY_ADDRESS`` names, or this machine; all of its
            machines must see the same files.
    """
    yield from (_on_ray if executor == "ray" else _here)(function, jobs, workers)


def run_process(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command as ``subprocess.run`` does; where SIGTERM ends the study it ends the command too."""
    with subprocess.Popen(command, **options) as process:
        _processes.add(process)
        try:
            output, _ = process.communicate()
        except BaseException:  # as where Ray stops it
            process.kill()
            raise
        finally:
            _processes.discard(process)
    return subprocess.CompletedProcess(command, process.returncode, output)


@contextmanager
def _heeding_sigterm() -> Iterator[threading.Event]:
    """Stop at SIGTERM, and tell that it has arrived."""
    arrived = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # no other may handle signals
        yield arrived
        return

    def stop(number: int, frame: FrameType | None) -> None:
        arrived.set()
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield arrived
    finally:
        signal.signal(signal.SIGTERM, before)


def _here(function: Callable[[J], bool], jobs: Sequence[J], workers: int) -> Iterator[tuple[J, bool]]:
    with _heeding_sigterm() as arrived, ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(function, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:  # as when the user stops it: begin no further run
            pool.shutdown(wait=False, cancel_futures=True)
            if arrived.is_set():  # unlike Ctrl-C, it has reached us alone
                for process in list(_processes):
                    process.terminate()  # after saving
            raise


def _on_ray(function: Callable[[J], bool], jobs: Sequence[J], workers: int) -> Iterator[tuple[J, bool]]:
    import ray

    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False)
    options: Any = ray.remote(num_cpus=1, max_retries=3)  # a run that is lost with its machine goes on elsewhere
    task = options(_call)
    waiting, running = list(reversed(jobs)), dict[Any, J]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop()
                running[task.remote(function, job)] = job
            (done, *_), _ = ray.wait(list(running))
            try:
                has_ended_well = ray.get(done)
            except ray.exceptions.RayError:  # as when a machine is lost for good
                has_ended_well = False
            yield running.pop(done), has_ended_well
    finally:
        for left in running:
            ray.cancel(left)
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=PATIENCE)
        if ours:
            ray.shutdown()


def _call(function: Callable[[J], bool], job: J) -> bool:
    return function(job)
