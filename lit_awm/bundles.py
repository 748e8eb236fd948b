"""Policies and world models in files that other programs can read: weights and a plain description.

A bundle is a folder with ``policy.safetensors``, ``world_model.safetensors`` and ``description.json``. Nothing in it is
code; what is loaded from it is built from the classes of :mod:`lit_awm.models` alone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

import lit_awm.models
from lit_awm.models import Continuation, Policy, RewardFn, RewardModel, WorldModel

DESCRIPTION, POLICY, WORLD_MODEL = "description.json", "policy", "world_model"
CONTINUATION, REWARD = "continuation", "reward"
FORMAT = 1
DAMAGES = (OSError, KeyError, TypeError, AttributeError, RuntimeError, UnicodeDecodeError, json.JSONDecodeError)
Description = dict[str, Any]


def make_bundle(description: Description, policy: Policy, world_model: WorldModel) -> dict[str, bytes]:
    """Return the content of each file of a bundle, after a look whether what is loaded acts as what was given.

    Args:
        description: From :func:`describe`.
        policy: The policy.
        world_model: The world model; left out if it has no weights.

    Raises:
        ValueError: If a class is not one of ours, or a model differs when it is loaded.
    """
    contents = {f"{POLICY}.safetensors": _weights(policy)}
    steps = min(5, world_model.max_horizon or 5)
    states = torch.randn(3, steps, policy.state_dim)
    twin = _build_policy(description, contents[f"{POLICY}.safetensors"])
    check_same(policy.sample, twin.sample, states, tolerance=0.0, what=f"{POLICY}.safetensors")
    if next(world_model.parameters(), None) is not None:
        contents[f"{WORLD_MODEL}.safetensors"] = _weights(world_model)
        model = _build_world_model(description, contents[f"{WORLD_MODEL}.safetensors"])
        actions = torch.rand(3, steps, policy.action_dim)
        check_same(world_model, model, states, actions, tolerance=0.0, what=f"{WORLD_MODEL}.safetensors")
        check_same(world_model.survival, model.survival, states, tolerance=0.0, what=f"{WORLD_MODEL}.safetensors")
    return contents | {DESCRIPTION: (json.dumps(description, indent=1) + "\n").encode()}


def describe(recipe: dict[str, Any], **facts: Any) -> Description:
    """Return a plain description of what a recipe makes.

    Args:
        recipe: With the ``model`` and ``data`` of an ``AlternatingModule`` and an ``ExperienceDataModule``.
        facts: What else is to be known, like ``state_dim`` and ``action_dim``.
    """
    model = recipe["model"]["init_args"]
    parts = {name: model[name] for name in (POLICY, WORLD_MODEL)}
    options = (model.get("world_model_module") or {}).get("init_args") or {}
    if options.get(CONTINUATION) is not None:
        parts[CONTINUATION] = options[CONTINUATION]
    if model.get(REWARD) is not None and not facts.get("known_reward"):
        parts[REWARD] = model[REWARD]
    return {
        "format": FORMAT,
        "lit_awm": lit_awm.__version__,
        **facts,
        **parts,
        "environment": recipe["data"]["init_args"],
    }


def load_policy(path: str | Path) -> Policy:
    """Load a policy from a bundle, without Lightning: a module that maps states ``(..., S)`` to actions ``(..., A)``.

    Args:
        path: The folder that ``lit-awm export`` has written.

    Returns:
        The policy, with ``policy.sample(state)`` for its action, or mode, in [-1, 1].

    Raises:
        ValueError: If the folder is no bundle, of another format, or names a class that is not one of ours.
    """
    folder, description = _read(path)
    with _whole(folder):
        return _build_policy(description, (folder / f"{POLICY}.safetensors").read_bytes())


def load_world_model(path: str | Path) -> WorldModel:
    """Load a world model from a bundle, without Lightning.

    Args:
        path: The folder that ``lit-awm export`` has written.

    Raises:
        ValueError: As :func:`load_policy`; or if there is no world model in it.
    """
    folder, description = _read(path)
    file = folder / f"{WORLD_MODEL}.safetensors"
    if not file.is_file():
        raise ValueError(f"path must be a bundle with a world model, got {folder}, in which there is no {file.name}.")
    with _whole(folder):
        return _build_world_model(description, file.read_bytes())


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Say of a bundle that its files do not fit each other, or are damaged."""
    try:
        yield
    except (*DAMAGES, SafetensorError) as error:
        kind = type(error).__name__
        raise ValueError(f"path must be a whole bundle, got {folder}, which is damaged ({kind}: {error}).") from error


def _read(path: str | Path) -> tuple[Path, Description]:
    folder = Path(path)
    file = folder / DESCRIPTION
    if not file.is_file():
        raise ValueError(f"path must be a folder that `lit-awm export` has written, got {str(path)!r}.")
    with _whole(folder):
        description = json.loads(file.read_text(encoding="utf-8"))
        given = description.get("format")
    if given != FORMAT:
        raise ValueError(f"path must be a bundle of format {FORMAT!r}, got {given!r} in {file}.")
    return folder, description


def _build_policy(description: Description, weights: bytes) -> Policy:
    sizes = {name: description[name] for name in ("state_dim", "action_dim")}
    return _with_weights(_build(description[POLICY], Policy, **sizes), weights)


def _build_world_model(description: Description, weights: bytes) -> WorldModel:
    options = {name: description[name] for name in ("state_dim", "action_dim", "clock_step")}
    reward_fn = _reward_fn(description)
    model = _build(description[WORLD_MODEL], WorldModel, **options, reward_fn=reward_fn)
    if CONTINUATION in description:
        model.continuation = _build(description[CONTINUATION], Continuation, state_dim=description["state_dim"])
    return _with_weights(model, weights)


def _reward_fn(description: Description) -> RewardFn | None:
    if description["known_reward"]:
        return _known_reward(description["environment"])
    sizes = {name: description[name] for name in ("state_dim", "action_dim")}
    return _build(description[REWARD], RewardModel, **sizes) if REWARD in description else None


def _build(what: dict[str, Any], kind: type, **options: Any) -> Any:
    """Build an object of one of the classes of :mod:`lit_awm.models`, and those that it is given."""
    module, _, name = what["class_path"].rpartition(".")
    cls = getattr(lit_awm.models, name, None) if name in lit_awm.models.__all__ else None
    if cls is None or not module.startswith("lit_awm.models") or not issubclass(cls, kind):
        raise ValueError(
            f"class_path must be that of a {kind.__name__} in lit_awm.models, got {what['class_path']!r}. Build others "
            "yourself, and load their weights by `safetensors.torch.load_file`."
        )
    given = what.get("init_args") or {}
    parts = {key: _build(value, nn.Module) if _is_class(value) else value for key, value in given.items()}
    return cls(**(parts | options))


def _is_class(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value


def _known_reward(environment: dict[str, Any]) -> RewardFn:
    from lit_awm.envs import SYSTEMS, KnownReward, make_env

    if environment["env"] not in SYSTEMS:  # of which alone it is known; tasks of other packages may name modules
        raise ValueError(f"env must be a system of the testbed in a bundle, got {environment['env']!r}.")
    length = {"episode_length": environment["episode_length"]} if "episode_length" in environment else {}
    options = length | (environment.get("env_options") or {})  # they hold the length where recordings were learned from
    return KnownReward(make_env(environment["env"], 1, **options))


def _weights(model: nn.Module) -> bytes:
    return save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()})


def _with_weights(model: Any, weights: bytes) -> Any:
    model.load_state_dict(load(weights))
    return model.eval().requires_grad_(False)


def check_same(
    ours: Callable[..., Any], theirs: Callable[..., Any], *inputs: Tensor, tolerance: float, what: str
) -> None:
    """Compare what two models say to the same input.

    Raises:
        ValueError: If they differ by more than ``tolerance`` of the largest number.
    """
    with torch.no_grad():
        expected, found = _as_tuple(ours(*inputs)), _as_tuple(theirs(*inputs))
    for mine, other in zip(expected, found, strict=True):
        difference = (mine - other).abs().max().item()
        if not difference <= tolerance * max(1.0, mine.abs().max().item()):
            raise ValueError(f"{what} differs from the model by {difference:.2g}; it was not written.")


def _as_tuple(value: Any) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)
