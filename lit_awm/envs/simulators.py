"""Tasks of Gymnasium and of the DeepMind Control Suite with the keys of this package's environments."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

import torch
from PIL import Image
from torchrl.data import Bounded, TensorSpec
from torchrl.envs import (
    ActionScaling,
    CatTensors,
    DMControlEnv,
    DoubleToFloat,
    EnvBase,
    GymEnv,
    SerialEnv,
    StepCounter,
    TransformedEnv,
    UnsqueezeTransform,
)

from lit_awm.checks import check_count

PACKAGES = {"gym": "gymnasium", "dmc": "dm_control"}
LARGEST_ACTION = 1e6  # what is beyond stands for no bound at all


class SimulatorEnv(TransformedEnv):
    """A task of another package with a generator of its own, for what transforms add to it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rng = torch.Generator()

    def set_seed(self, seed: int | None = None, static_seed: bool = False) -> int | None:
        """Set the seed of the simulation and of the generator."""
        self.rng.manual_seed(seed or 0)
        return super().set_seed(seed, static_seed=static_seed)

    def random_states(self) -> list[str]:
        """Return the state of the random generator of each simulation, as JSON: all that outlasts an episode."""
        return [json.dumps(_generator(env).state, default=lambda array: array.tolist()) for env in self.base_env._envs]

    def set_random_states(self, states: list[str]) -> None:
        """Let every simulation begin its next episode as it did after ``random_states`` had been asked for."""
        for env, state in zip(self.base_env._envs, states, strict=True):
            _generator(env).state = json.loads(state)


class Camera:
    """Takes pictures of a simulation, as its package draws it, after every step.

    Args:
        env: The environment, of whose simulations the first one is drawn; a task of Gymnasium has to be made with the
            option ``render_mode="rgb_array"``.

    Attributes:
        images: The pictures so far.
        problem: Why there are none, where this machine cannot draw; empty otherwise.
    """

    def __init__(self, env: SimulatorEnv) -> None:
        self.env = env
        self.images: list[Image.Image] = []
        self.problem = ""

    def __call__(self, *_: Any) -> None:
        """Take a picture."""
        if self.problem:
            return
        simulation = self.env.base_env._envs[0]
        try:
            is_gym = isinstance(simulation, GymEnv)
            pixels = simulation._env.render() if is_gym else simulation._env.physics.render(240, 320, camera_id=0)
            self.images.append(Image.fromarray(pixels))
        except Exception as error:  # every package and every graphics driver has errors of its own
            self.problem = (
                f"{type(error).__name__}: {error}. Tasks of MuJoCo are drawn with MUJOCO_GL=egl or MUJOCO_GL=osmesa in "
                "the environment where there is no display."
            )


def _generator(env: EnvBase) -> Any:
    """Return NumPy's bit generator, with its ``state``, of a simulation."""
    if isinstance(env, GymEnv):
        return env._env.unwrapped.np_random.bit_generator
    return env._env.task.random._bit_generator


def make_simulator(
    name: str,
    num_envs: int = 1,
    *,
    episode_length: int = 200,
    device: torch.device | str = "cpu",
    **options: Any,
) -> SimulatorEnv:
    """Make a task of another package: ``"gym/Pendulum-v1"`` or ``"dmc/cartpole-swingup"``.

    Its observations come concatenated, in the order of their names, in single precision, as ``state``.

    Args:
        name: ``gym/`` and the name of a task with continuous actions, or ``dmc/`` and ``domain-task``.
        num_envs: Number of environments, stepped one after the other.
        episode_length: Number of steps after which an episode is truncated, at least 1, whatever the task's own limit.
        device: Where tensors live; the simulation runs on the CPU.
        options: Passed on to TorchRL's ``GymEnv`` or ``DMControlEnv``, for example ``frame_skip``.

    Raises:
        ImportError: If the package is not installed; the message names the extra that installs it.
        ValueError: If the task is unknown, its actions are not continuous and bounded, or an argument is out of range.
    """
    check_count(num_envs=num_envs, episode_length=episode_length)
    suite, _, task = name.partition("/")
    if find_spec(PACKAGES[suite]) is None:
        command = f"pip install 'lit-awm[{suite}]'" + " (Python 3.12 or older)" * (suite == "dmc")
        raise ImportError(f"env {name!r} needs {PACKAGES[suite]}. Install it with: {command}")

    def make_one() -> EnvBase:
        if suite == "gym":
            most = episode_length * options.get("frame_skip", 1)  # of its own steps
            return GymEnv(task, device=device, max_episode_steps=most, **options)
        domain, _, task_name = task.partition("-")
        return DMControlEnv(domain, task_name.replace("-", "_"), device=device, time_limit=float("inf"), **options)

    try:
        first = make_one()
    except TypeError:  # an option that it does not have
        raise
    except Exception as error:  # each package has errors of its own for a task that it does not know
        raise ValueError(f"env must name a task of {PACKAGES[suite]}, got {name!r}: {error}") from error
    _check_actions(name, first.action_spec)
    keys = sorted(first.observation_spec.keys(True, True), key=str)
    scalars = [key for key in keys if first.observation_spec[key].ndim == 0]
    first.close()
    base = SerialEnv(num_envs, make_one)
    base.name, base.episode_length = name, episode_length
    env = SimulatorEnv(base, DoubleToFloat())
    if scalars:
        env.append_transform(UnsqueezeTransform(-1, in_keys=scalars))
    env.append_transform(CatTensors(keys, "state", del_keys=True, sort=False))
    env.append_transform(StepCounter(max_steps=episode_length))
    env.append_transform(ActionScaling())
    return env


def _check_actions(name: str, spec: TensorSpec) -> None:
    if not isinstance(spec, Bounded):
        raise ValueError(f"env must have continuous, bounded actions, got {name!r} with {type(spec).__name__}.")
    farthest = float(torch.stack([spec.space.low, spec.space.high]).abs().max())
    if not farthest <= LARGEST_ACTION:
        raise ValueError(
            f"env must have actions with bounds up to {LARGEST_ACTION:g}, to which those of a policy are scaled, got "
            f"{name!r} with {farthest:g}, which stands for none."
        )
