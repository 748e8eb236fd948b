"""Make an environment by name, the way agents see it: actions in [-1, 1], one observation vector."""

from __future__ import annotations

import inspect
from typing import Any

from torchrl.envs import ActionScaling, CatTensors, InitTracker, ObservationNorm, TransformedEnv

from lit_awm.checks import did_you_mean
from lit_awm.envs import myriad
from lit_awm.envs.ode import OdeEnv

SYSTEMS: dict[str, type[OdeEnv]] = {
    system.name: system for system in (getattr(myriad, name) for name in myriad.__all__)
}


def find_system(name: str) -> type[OdeEnv]:
    """Return the class of a system.

    Raises:
        ValueError: If there is no system of this name; the message gives the nearest and all the others.
    """
    if name not in SYSTEMS:
        hint = did_you_mean(name, SYSTEMS)
        raise ValueError(f"env must name a system, got {name!r}.{hint} There are: {', '.join(sorted(SYSTEMS))}.")
    return SYSTEMS[name]


def default_options(name: str) -> dict[str, Any]:
    """Return the parameters and options of a system and their default values."""
    system = find_system(name)
    signatures = (inspect.signature(made_by) for made_by in (OdeEnv.__init__, system.__init__))
    parameters = {key: value for signature in signatures for key, value in signature.parameters.items()}
    defaults = {key: value.default for key, value in parameters.items() if value.default is not inspect.Parameter.empty}
    defaults.pop("num_envs")
    return defaults | {"observe_time": True}


def make_env(name: str, num_envs: int = 1, *, observe_time: bool = True, **options: Any) -> TransformedEnv:
    """Make a system of the testbed as an agent sees it.

    The agent's ``action`` in [-1, 1] is scaled to the control bounds. Its ``observation`` is the physical state
    followed, unless ``observe_time`` is off, by a clock that runs evenly from -1 to 1 over the episode.

    Args:
        name: Name of the system, for example ``"cancer_treatment"``.
        num_envs: Number of environments stepped together.
        observe_time: Whether the observation ends with the clock.
        options: Parameters of the system, and ``episode_length``, ``integrator``, ``device``, ``dtype``.

    Returns:
        The environment. Physics in physical units is reached through it too, for example ``env.dynamics``.

    Raises:
        ValueError: If the system or one of the options is unknown or out of its domain.

    Example:
        >>> env = make_env("cancer_treatment", num_envs=2, episode_length=50)
        >>> env.rollout(50)["next", "reward"].shape
        torch.Size([2, 50, 1])
    """
    system = find_system(name)
    known = default_options(name)
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}.{did_you_mean(option, known)}")
    base = system(num_envs=num_envs, **options)
    env = TransformedEnv(base, ActionScaling(), device=base.device)
    env.append_transform(InitTracker())
    seen = ["state"]
    if observe_time:
        clock = ObservationNorm(-1.0, 2.0 / base.duration, in_keys=["time"], out_keys=["clock"])
        env.append_transform(clock)
        seen.append("clock")
    env.append_transform(CatTensors(seen, "observation", del_keys=False, sort=False))
    return env
