"""Films of a policy: as the package of a task draws it, or as curves that grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from PIL import Image
from tensordict import TensorDict
from torchrl.envs import TransformedEnv

from lit_awm.analysis.trajectories import animate, draw_trajectory, first_episode, imagine_states
from lit_awm.checks import check_count
from lit_awm.data import EVALUATION_SEED, ExperienceDataModule, evaluate, make_eval_env
from lit_awm.envs import make_env
from lit_awm.envs.simulators import Camera, SimulatorEnv
from lit_awm.modules import AgentModule, AlternatingModule, PolicyModule

FilmedModule = AlternatingModule | PolicyModule | AgentModule
Frames = Callable[[Iterator[Image.Image], int], Iterable[Image.Image]]


class Film(NamedTuple):
    """What a policy did in an episode.

    Attributes:
        images: Its pictures, in their order.
        drawn: What they show: ``"images"`` of the task's own package, or ``"curves"``.
        evaluation: The episode and its scores, see :func:`~lit_awm.data.evaluate`.
        problem: Why the package could not draw; empty where it did, or was not asked to.
    """

    images: list[Image.Image]
    drawn: str
    evaluation: TensorDict
    problem: str


def film(
    data: ExperienceDataModule,
    module: FilmedModule,
    frames: int = 100,
    curves: bool = False,
    seed: int = EVALUATION_SEED,
    watch: Frames = lambda images, count: images,
) -> Film:
    """Let a policy act for one episode, in an environment of its own, and draw that.

    Args:
        data: Whose environment it is.
        module: Whose policy acts; what its world model imagines for the same actions, if it has one, is dotted in the
            curves.
        frames: At most so many pictures, evenly over the episode.
        curves: Whether states and actions are drawn where the task's package can draw too.
        seed: Seed of the environment.
        watch: Passes on the pictures of curves as they are drawn, and how many there will be, for a progress bar.

    Raises:
        ValueError: If ``frames`` is below 1.
    """
    check_count(1, frames=frames)
    env, camera = _make_env(data, curves)
    evaluation = evaluate(env, module.behaviour_policy, data.optimum, seed, camera)
    env.close()
    problem = "" if camera is None else camera.problem
    if camera is not None and camera.images:
        seen = camera.images[: len(first_episode(evaluation))]
        return Film(seen[:: -(-len(seen) // frames)], "images", evaluation, problem)
    figure = draw_trajectory(env, evaluation, data.optimum, imagined=imagine_states(module, evaluation))
    count = min(frames, env.episode_length)
    return Film(list(watch(animate(figure, count), count)), "curves", evaluation, problem)


def _make_env(data: ExperienceDataModule, curves: bool) -> tuple[TransformedEnv, Camera | None]:
    """Return an environment of one instance and, if it is one that another package can draw, a camera."""
    options = {"episode_length": data.env.episode_length, **data.env_options}
    if curves or not isinstance(data.env, SimulatorEnv):
        return make_eval_env(data.env_name, 1, **options), None
    if data.env_name.startswith("gym/"):
        options["render_mode"] = "rgb_array"
    env = make_env(data.env_name, 1, **options)
    return env, Camera(env)
