"""Datasets of Minari."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

MINARI = "minari:"  # before the name of a dataset
Table = Mapping[str, np.ndarray[Any, Any]]


def read_minari(name: str) -> dict[str, Tensor]:
    """Return the steps of a dataset, which is fetched if it is not there, by field, ``(N, D)`` each.

    Raises:
        ValueError: If Minari is not there, observations or actions are no vectors, or there are no episodes.
    """
    minari = _import_minari()
    parts: dict[str, list[Tensor]] = {}
    for number, episode in enumerate(minari.load_dataset(name, download=True).iterate_episodes()):
        for field in ("observations", "actions"):
            if not isinstance(value := getattr(episode, field), np.ndarray):
                raise ValueError(
                    f"path must name a dataset whose {field} are vectors, got {MINARI + name!r}, in which they are of "
                    f"type {type(value).__name__}."
                )
        observations, length = torch.as_tensor(episode.observations), len(episode.actions)
        fields: dict[str, Any] = {
            "observation": observations[:-1],
            "next_observation": observations[1:],
            "action": torch.as_tensor(episode.actions),
            "reward": torch.as_tensor(np.asarray(episode.rewards)),
            "terminated": torch.as_tensor(np.asarray(episode.terminations)),
            "truncated": torch.as_tensor(np.asarray(episode.truncations)),
            "episode": torch.full((length,), number),
        }
        for field, value in fields.items():
            parts.setdefault(field, []).append(value.reshape(length, -1))
    if not parts:
        raise ValueError(f"path must name a dataset with episodes, got {MINARI + name!r}, which has none.")
    return {field: torch.cat(values) for field, values in parts.items()}


def check_minari(name: str) -> None:
    """Reject a name under which no dataset can be written, before there is anything to write.

    Raises:
        ValueError: If Minari is not there, the name is none of its, or taken.
    """
    minari, errors = _import_minari(), import_module("gymnasium.error")
    try:
        minari.dataset.minari_dataset.parse_dataset_id(name)
    except (ValueError, errors.Error) as error:  # the latter by older versions
        raise ValueError(f"out must be minari: and a name such as mine/harvest-v0, got {name!r}: {error}") from error
    if name in minari.list_local_datasets():
        raise ValueError(f"out must name a new dataset, got {name!r}, which there is: `minari delete {name}`.")


def write_minari(name: str, table: Table, env: str) -> None:
    """Write the steps of whole episodes as a dataset.

    Args:
        name: Name of the dataset, as ``mine/harvest-v0``.
        table: The fields, ``(N, D)`` each.
        env: What they were recorded in.
    """
    minari, spaces = _import_minari(), import_module("gymnasium.spaces")
    numbers = table["episode"].ravel()
    episodes = np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers)) + 1)
    buffers = []
    for index, rows in enumerate(episodes):
        last = table["next_observation"][rows[-1:]]
        buffers.append(
            minari.data_collector.EpisodeBuffer(
                id=index,
                observations=list(np.concatenate([table["observation"][rows], last])),
                actions=list(table["action"][rows]),
                rewards=table["reward"][rows, 0].tolist(),
                terminations=table["terminated"][rows, 0].tolist(),
                truncations=table["truncated"][rows, 0].tolist(),
            )
        )
    minari.create_dataset_from_buffers(
        name,
        buffers,
        observation_space=spaces.Box(-np.inf, np.inf, table["observation"].shape[1:], np.float32),
        action_space=spaces.Box(-1, 1, table["action"].shape[1:], np.float32),
        algorithm_name="lit-awm collect",
        description=f"Recorded in {env}.",
    )


def _import_minari() -> Any:
    try:
        for part in ("minari.dataset.minari_dataset", "minari.data_collector"):
            import_module(part)
        return import_module("minari")
    except ImportError as error:
        raise ValueError("Minari's datasets need minari: pip install 'lit-awm[offline]'.") from error
