"""Memory of a buffer on disk: ``python benchmarks/buffer_memory.py [--steps 10000000] [--folder DIR]``.

Experience is collected, added, drawn from and saved round by round, then a second buffer goes on from what was saved.
Anonymous memory is what the system cannot take back; pages of mapped files it can.
"""

from __future__ import annotations

import argparse
import platform
import re
import tempfile
import time
from datetime import date
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from lit_awm.checkpoints import SafeCheckpointIO
from lit_awm.data.buffer import ExperienceBuffer
from lit_awm.data.collectors import EpisodeCollector
from lit_awm.data.exploration import Exploration
from lit_awm.envs import make_env

SYSTEM, EPISODE, ENVS = "cancer_treatment", 100, 1000


def anonymous_memory() -> float:
    """Return the memory of this process that is not of files, in 10^9 bytes."""
    told = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert told is not None
    return int(told[1]) * 1024 / 1e9


def make_buffer(steps: int, folder: str) -> ExperienceBuffer:
    """Return an empty buffer for so many steps."""
    return ExperienceBuffer(steps, EPISODE, batch_size=16, is_for_agent=False, storage_dir=folder)


def fill(buffer: ExperienceBuffer, steps: int, checkpoint: Path, progress: bool) -> float:
    """Collect, draw and save round by round, and return the most memory that there was at the end of one."""
    make = partial(make_env, SYSTEM, episode_length=EPISODE)
    env = make(ENVS)
    exploration = Exploration(None, env.action_spec.shape[-1], 0.0, 10.0)
    collector, files = EpisodeCollector("single", 1, env, make, exploration, EPISODE, seed=0), SafeCheckpointIO()
    most = 0.0
    for _ in tqdm(range(steps // (EPISODE * ENVS)), disable=not progress, unit="round"):
        buffer.add(collector.collect(buffer.collected))
        buffer.sample_trajectories()
        buffer.sample_states(8, "start")
        files.save_checkpoint({"data": {"experience": buffer.state()}}, checkpoint)
        most = max(most, anonymous_memory())
    return most


def main() -> None:
    """Fill, go on, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000_000, help="how many (default: 10,000,000)")
    parser.add_argument("--folder", default=None, help="where to put the files (default: the system's temporary one)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args()
    if options.steps < 1 or options.steps % (EPISODE * ENVS):
        parser.error(f"steps must be a multiple of {EPISODE * ENVS}, got {options.steps}.")
    before, begin = anonymous_memory(), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        checkpoint = Path(folder) / "last.ckpt"
        buffer = make_buffer(options.steps, folder)
        most, seconds = fill(buffer, options.steps, checkpoint, not options.quiet), time.perf_counter() - begin
        begin = time.perf_counter()
        loaded = SafeCheckpointIO().load_checkpoint(checkpoint)["data"]["experience"]
        resumed = make_buffer(options.steps, folder)
        resumed.load(loaded, {}, options.steps)
        on_resume, resume_seconds = anonymous_memory(), time.perf_counter() - begin
        assert torch.equal(resumed[-EPISODE:]["action"], buffer[-EPISODE:]["action"])
    print(  # noqa: T201
        f"{options.steps:,} steps: {most:.2f} GB at most in {seconds:.0f} s ({before:.2f} GB before the first step); "
        f"gone on with: {on_resume:.2f} GB in {resume_seconds:.0f} s. {platform.machine()}, "
        f"torch {torch.__version__}, {date.today():%Y-%m-%d}"
    )


if __name__ == "__main__":
    main()
