"""Make an environment by name, the way agents see it: actions in [-1, 1], one observation vector."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, NamedTuple, get_type_hints

import docstring_parser
from torchrl.envs import ActionScaling, CatTensors, InitTracker, TransformedEnv

from lit_awm.checks import check_count, check_number, did_you_mean
from lit_awm.envs import myriad
from lit_awm.envs.control import ControlEnv
from lit_awm.envs.credit_assignment import CreditAssignment
from lit_awm.envs.double_pendulum import DoublePendulum
from lit_awm.envs.one_bounce import OneBounce
from lit_awm.envs.simulators import PACKAGES, make_simulator
from lit_awm.envs.transforms import Clock, DistractorDimensions, ObservationNoise

PATHOLOGICAL: tuple[type[ControlEnv], ...] = (CreditAssignment, DoublePendulum, OneBounce)
SYSTEMS: dict[str, type[Any]] = {  # of ControlEnv, each with a signature of its own
    system.name: system for system in (*(getattr(myriad, name) for name in myriad.__all__), *PATHOLOGICAL)
}
ENTRY_POINTS = "lit_awm.environments"  # in which other packages offer systems
GIVEN_BY_SYSTEMS = ("control_bounds", "state_bounds", "domain", "target_state", "target_scale")
WHAT_IS_SEEN: dict[str, Any] = {"observe_time": True, "distractors": 0, "observation_noise": 0.0}


def find_system(name: str) -> type[ControlEnv]:
    """Return the class of a system: of ours, of another package that offers it, or at a path as ``"package.Class"``.

    Packages offer systems, subclasses of :class:`~lit_awm.envs.control.ControlEnv`, as entry points of the group
    ``lit_awm.environments``.

    Raises:
        ValueError: If there is no system of this name; the message gives the nearest and all the others.
    """
    if name not in SYSTEMS:
        for offered in entry_points(group=ENTRY_POINTS):
            if offered.name == name:
                return _check_system(name, offered.load())
        if "." in name and "/" not in name:
            return _import_system(name)
        hint = did_you_mean(name, SYSTEMS)
        raise ValueError(
            f"env must name a system, got {name!r}.{hint} There are: {', '.join(sorted(SYSTEMS))}; tasks of other "
            "packages, as gym/NAME and dmc/DOMAIN-TASK; and classes of your own, as package.Class."
        )
    return SYSTEMS[name]


def _import_system(path: str) -> type[ControlEnv]:
    module, _, name = path.rpartition(".")
    try:
        return _check_system(path, getattr(import_module(module), name))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"env must name a system, or a class that can be imported, got {path!r}: {error}.") from error


def _check_system(name: str, found: object) -> type[ControlEnv]:
    if not (isinstance(found, type) and issubclass(found, ControlEnv)):
        raise ValueError(
            f"env must name a subclass of ControlEnv, got {name!r}, which is {found!r}. A task of Gymnasium goes by "
            "gym/MODULE:NAME."
        )
    return found


class Option(NamedTuple):
    """A parameter or an option of a system."""

    type: Any
    default: Any
    description: str


def describe_options(name: str) -> dict[str, Option]:
    """Return the parameters and options of a system."""
    system, options = find_system(name), dict[str, Option]()
    for made_by in (cls for cls in reversed(system.mro()) if issubclass(cls, ControlEnv)):
        described = {
            param.arg_name: param.description or "" for param in docstring_parser.parse(made_by.__doc__).params
        }
        types = get_type_hints(made_by.__init__)
        for option, parameter in inspect.signature(made_by.__init__).parameters.items():
            if parameter.default is not inspect.Parameter.empty and option not in GIVEN_BY_SYSTEMS:
                description = described.get(option) or options.get(option, Option(None, None, "")).description
                options[option] = Option(types.get(option, Any), parameter.default, description)
    return {option: described for option, described in options.items() if option not in system.fixed_options}


def make_env(
    name: str,
    num_envs: int = 1,
    *,
    observe_time: bool = True,
    distractors: int = 0,
    observation_noise: float | Sequence[float] = 0.0,
    **options: Any,
) -> TransformedEnv:
    """Make an environment as an agent sees it.

    The agent's ``action`` in [-1, 1] is scaled to the control bounds. Its ``observation`` is the physical state, then
    distractors, then, unless ``observe_time`` is off, a clock that runs evenly from -1 to 1 over the episode.

    Args:
        name: Name of a system, for example ``"cancer_treatment"``, or of a task of another package:
            ``"gym/Pendulum-v1"``, ``"dmc/cartpole-swingup"`` (extra ``gym`` or ``dmc``), or see :func:`find_system`.
        num_envs: Number of environments stepped together.
        observe_time: Whether the observation ends with the clock.
        distractors: Number of dimensions of unit normal noise in the observation.
        observation_noise: Standard deviation of noise on the observed state, in its units: one for all dimensions, or
            one for each.
        options: Parameters of the system, and ``episode_length``, ``integrator``, ``bounds``, ``device``, ``dtype`` and
            more, see :class:`~lit_awm.envs.ode.OdeEnv` and :class:`~lit_awm.envs.control.ControlEnv`.

    Returns:
        The environment. Physics in physical units is reached through it too, for example ``env.dynamics``.

    Raises:
        ValueError: If the system or one of the options is unknown or out of its domain.
        ImportError: If the package of a task is not installed.

    Example:
        >>> env = make_env("cancer_treatment", num_envs=2, episode_length=50)
        >>> env.rollout(50)["next", "reward"].shape
        torch.Size([2, 50, 1])
    """
    check_count(0, distractors=distractors)
    is_simulator = name.partition("/")[0] in PACKAGES and "/" in name
    if is_simulator:
        env: TransformedEnv = make_simulator(name, num_envs, **options)
    else:
        system = make_system(name, num_envs, **options)
        env = TransformedEnv(system, ActionScaling(), device=system.device)
    env.append_transform(InitTracker())
    seen = ["state"]
    if observation_noise != 0:
        noise = ObservationNoise(observation_noise, generator=env.rng)
        noise.check_size(env.observation_spec["state"].shape[-1])
        env.append_transform(noise)
        seen = ["noisy_state"]
    if distractors:
        env.append_transform(DistractorDimensions(distractors, generator=env.rng))
        seen.append("distractors")
    if observe_time:
        env.append_transform(Clock(env.episode_length, "step_count") if is_simulator else Clock(env.duration, "time"))
        seen.append("clock")
    env.append_transform(CatTensors(seen, "observation", del_keys=False, sort=False))
    _ = env.action_spec  # ActionScaling reads the bounds when first asked, and cannot be copied before
    return env


def make_system(name: str, num_envs: int = 1, **options: Any) -> ControlEnv:
    """Make a system of the testbed itself, whose actions are controls in physical units.

    Raises:
        ValueError: If the system or one of the options is unknown or out of its domain, or options exclude each other.
    """
    system, known = find_system(name), describe_options(name)
    for option, value in options.items():
        if option not in known:
            names = sorted({*known, *WHAT_IS_SEEN})
            hint = did_you_mean(option, names)
            raise ValueError(f"{name} has no option {option!r}.{hint} It has: {', '.join(names)}.")
        if isinstance(known[option].default, float):
            check_number(**{option: value})
    if options.get("dt") is not None and "duration" in options:
        raise ValueError(f"dt and duration exclude each other, got {options['dt']} and {options['duration']}.")
    return system(num_envs=num_envs, **options)
