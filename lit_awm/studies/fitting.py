"""Fit a family of world models to random episodes."""

from __future__ import annotations

from typing import Any

from lit_awm.data import ExperienceDataModule
from lit_awm.models import WorldModel
from lit_awm.recipes import build, fit, options_of

UPDATES = {"markov": 5, "simulator": 0}  # times those of the others: as many as take the same time


def fit_world_model(
    family: str,
    env: str,
    env_options: dict[str, Any],
    length: int,
    episodes: int,
    updates: int,
    seed: int,
    known_reward: bool = True,
) -> tuple[WorldModel, ExperienceDataModule]:
    """Fit a family by the common recipe to episodes whose every action is random and independent of the others.

    Args:
        family: One of :data:`~lit_awm.recipes.FAMILIES`; the simulator needs no fit, and knows the reward.
        env: The environment.
        env_options: Its options.
        length: Steps of an episode.
        episodes: Number of episodes, a multiple of 32.
        updates: Number of updates, that of the actions and history models.
        seed: Seed of experience and models.
        known_reward: Whether the model is given the reward instead of learning it.

    Returns:
        The world model and the data.
    """
    updates *= UPDATES.get(family, 1)
    module, data = build(
        [
            f"--seed_everything={seed}",
            f"--model.known_reward={str(known_reward or family == 'simulator').lower()}",
            f"--data.env={env}",
            f"--data.env_options={env_options}",
            f"--data.episode_length={length}",
            "--data.num_envs=32",
            f"--data.warmup_episodes={episodes}",
            f"--data.capacity={episodes * length}",
            "--data.trial=false",
            "--data.mean_hold=1",
            f"--data.world_model_updates={max(updates, 1)}",
            *options_of(family, length),
        ]
    )
    if updates:
        fit(module.world_model, data, gradient_clip_val=module.gradient_clip_val)
    return module.world_model.world_model.requires_grad_(False), data
