"""``lit-awm play``: watch a policy."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL.Image import Image
from tqdm import tqdm

from lit_awm.analysis.film import film
from lit_awm.analysis.trajectories import save_animation
from lit_awm.checks import check_count, check_writable
from lit_awm.commands.checkpoint import load_run
from lit_awm.commands.output import print_result
from lit_awm.data import EVALUATION_SEED

FORMATS = (".gif", ".webp", ".png")
SLOWEST = 0.01  # frames per second, that all formats can hold


def main(arguments: list[str]) -> int:
    """Write an animation of the policy of a checkpoint."""
    parser = argparse.ArgumentParser(
        prog="lit-awm play",
        allow_abbrev=False,
        description=f"{main.__doc__} Of a system of the testbed it shows states and controls over time, of a task of "
        "Gymnasium or the DeepMind Control Suite what that package draws, if it can on this machine.",
    )
    parser.add_argument("checkpoint", type=Path, help="file written by `lit-awm fit`")
    parser.add_argument(
        "--out", type=Path, help=f"file to write, ending in {', '.join(FORMATS)} (default: beside the log)"
    )
    parser.add_argument(
        "--curves", action="store_true", help="draw curves of states and actions, even where the task can draw itself"
    )
    parser.add_argument(
        "--frames", type=int, default=100, help="most frames, spread evenly over the episode (default: 100)"
    )
    parser.add_argument("--fps", type=float, default=15.0, help=f"frames per second, at least {SLOWEST} (default: 15)")
    parser.add_argument(
        "--seed", type=int, default=EVALUATION_SEED, help="of the environment (default: the evaluation's)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    try:
        result = play(options)
    except ValueError as error:
        parser.error(str(error))
    print_result(result, options.json)
    return 0


def play(options: argparse.Namespace) -> dict[str, Any]:
    """Let the policy act for an episode, write the animation, and return what was written.

    Raises:
        ValueError: If an option is out of its range; nothing is written then.
    """
    check_count(1, frames=options.frames)
    if not SLOWEST <= options.fps < math.inf:
        raise ValueError(f"fps must be at least {SLOWEST} and finite, got {options.fps}.")
    out: Path = options.out or Path(os.path.normpath(options.checkpoint.parent / "..")) / "play.gif"
    if out.suffix not in FORMATS:
        raise ValueError(f"out must end in one of {', '.join(FORMATS)}, got {str(out)!r}.")
    check_writable(out.parent, "out")
    run = load_run(options.checkpoint)

    def watch(images: Iterator[Image], count: int) -> Iterator[Image]:
        return iter(tqdm(images, "frames", count, disable=options.json))

    shown = film(run.data, run.module, options.frames, options.curves, options.seed, watch)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_animation(shown.images, out, options.fps)
    result = {"env": run.data.env_name, "return": shown.evaluation["return"][0].item()}
    if shown.problem:
        result["not drawn"] = shown.problem
    return result | {"frames": len(shown.images), "of": shown.drawn, "out": str(out)}
