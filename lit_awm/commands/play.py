"""``lit-awm play``: watch a policy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torchrl.envs import TransformedEnv
from tqdm import tqdm

from lit_awm.analysis.trajectories import animate, draw_trajectory, first_episode, imagine_states, save_animation
from lit_awm.checks import check_count, check_writable
from lit_awm.commands.checkpoint import Run, load_run
from lit_awm.commands.output import print_result
from lit_awm.data import EVALUATION_SEED, evaluate, make_eval_env
from lit_awm.envs import make_env
from lit_awm.envs.simulators import Camera, SimulatorEnv
from lit_awm.modules import AlternatingModule

FORMATS = (".gif", ".webp", ".png")


def main(arguments: list[str]) -> int:
    """Write an animation of the policy of a checkpoint."""
    parser = argparse.ArgumentParser(
        prog="lit-awm play",
        description=f"{main.__doc__} Of a system of the testbed it shows states and controls over time, of a task of "
        "Gymnasium or the DeepMind Control Suite what that package draws, if it can on this machine.",
    )
    parser.add_argument("checkpoint", type=Path, help="file written by `lit-awm fit`")
    parser.add_argument(
        "--out", type=Path, help=f"file to write, ending in {', '.join(FORMATS)} (default: beside the log)"
    )
    parser.add_argument("--curves", action="store_true", help="states and actions, also where the task can be drawn")
    parser.add_argument(
        "--frames", type=int, default=100, help="at most so many, evenly over the episode (default: 100)"
    )
    parser.add_argument("--fps", type=float, default=15.0, help="frames per second (default: 15)")
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


def _make_env(run: Run, curves: bool) -> tuple[TransformedEnv, Camera | None]:
    """Return an environment of one instance and, if it is one that another package can draw, a camera."""
    data = run.data
    options = {"episode_length": data.env.episode_length, **data.env_options}
    if curves or not isinstance(data.env, SimulatorEnv):
        return make_eval_env(data.env_name, 1, **options), None
    if data.env_name.startswith("gym/"):
        options["render_mode"] = "rgb_array"
    env = make_env(data.env_name, 1, **options)
    return env, Camera(env)


def play(options: argparse.Namespace) -> dict[str, Any]:
    """Let the policy act for an episode, write the animation, and return what was written.

    Raises:
        ValueError: If an option is out of its range; nothing is written then.
    """
    check_count(1, frames=options.frames)
    if not options.fps > 0:
        raise ValueError(f"fps must be positive, got {options.fps}.")
    out: Path = options.out or options.checkpoint.parent.parent / "play.gif"
    if out.suffix not in FORMATS:
        raise ValueError(f"out must end in one of {', '.join(FORMATS)}, got {str(out)!r}.")
    check_writable(out.parent, "out")
    run = load_run(options.checkpoint)
    env, camera = _make_env(run, options.curves)
    evaluation = evaluate(env, run.module.behaviour_policy, run.data.optimum, options.seed, camera)
    env.close()
    if camera is not None and camera.images:
        seen = camera.images[: len(first_episode(evaluation))]
        images, drawn = seen[:: -(-len(seen) // options.frames)], "images"
    else:
        imagined = None
        if isinstance(run.module, AlternatingModule):
            imagined = imagine_states(run.module.policy.world_model, evaluation)
        figure = draw_trajectory(env, evaluation, run.data.optimum, imagined=imagined)
        count = min(options.frames, env.episode_length)
        images, drawn = list(tqdm(animate(figure, count), "frames", count, disable=options.json)), "curves"
    out.parent.mkdir(parents=True, exist_ok=True)
    save_animation(images, out, options.fps)
    result = {"env": env.name, "return": evaluation["return"][0].item()}
    if camera is not None and camera.problem:
        result["not drawn"] = camera.problem
    return result | {"frames": len(images), "of": drawn, "out": str(out)}
