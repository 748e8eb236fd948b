"""Run independent jobs side by side, each on one thread."""

from __future__ import annotations

import logging
import multiprocessing
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from tqdm import tqdm

Row = dict[str, Any]


def run_jobs(function: Callable[[Any], Row], jobs: Sequence[Any], title: str) -> list[Row]:
    """Return ``function`` of each job, in the jobs' order; as many processes as there are cores work on them.

    Small models gain nothing from more threads than one, and one thread makes the results independent of the machine's
    number of cores.

    Args:
        function: A function at the top of its module.
        jobs: Its arguments.
        title: What the progress bar says.
    """
    workers = min(len(jobs), os.cpu_count() or 1)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
        return list(tqdm(pool.map(function, jobs), title, total=len(jobs), leave=False))


def _begin() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
