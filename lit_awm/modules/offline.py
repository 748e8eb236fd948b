"""Fit a world model whose sizes are those of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from lit_awm.models import Continuation, RewardFn, RewardModel, WorldModel
from lit_awm.modules.optimization import default_optimizer
from lit_awm.modules.world_model import WorldModelModule


class OfflineWorldModelModule(WorldModelModule):
    """Fit a world model alone, by a recipe: a :class:`WorldModelModule` that makes its model itself.

    Args:
        state_dim: Size ``S`` of a state; the command line takes it from the data.
        action_dim: Size ``A`` of an action; the command line takes it from the data.
        world_model: Makes the world model from ``S``, ``A`` and the keywords ``reward_fn`` and ``clock_step``.
        optimizer: Makes the optimizer from the parameters.
        scheduler: Makes the learning-rate schedule, stepped after every update.
        compile_model: Whether the pass through the model is compiled, see :class:`WorldModelModule`.
        continuation: Makes what learns in which states episodes end, see :class:`WorldModelModule`.
        reward: Makes, from ``S`` and ``A``, what learns the reward as a function of state, action and next state; None
            where the model predicts it as it does states.
        known_reward: Whether the model is given the reward function instead of learning it.
        known_reward_fn: That function; the command line takes it from the data.
        clock_step: Advance per step of the clock at the end of the state, or None; the command line takes it from the
            data.
        ignore_noise: Whether components of the state that are noise are ignored, see
            :class:`~lit_awm.modules.WorldModelModule`.

    Raises:
        ValueError: If a reward is to be known of which there is no function, or optimizer or scheduler cannot be made.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        world_model: Callable[[int, int], WorldModel],
        optimizer: OptimizerCallable = default_optimizer,
        scheduler: LRSchedulerCallable | None = None,
        compile_model: bool = False,
        continuation: Callable[[int], Continuation] | None = None,
        reward: Callable[[int, int], RewardModel] | None = None,
        known_reward: bool = False,
        known_reward_fn: RewardFn | None = None,
        clock_step: float | None = None,
        ignore_noise: bool = True,
    ) -> None:
        if known_reward and known_reward_fn is None:
            raise ValueError(
                "known_reward must be false with data that do not know the reward, got true. Give the data `env`, the "
                "system that they were recorded in."
            )
        reward_fn = known_reward_fn if known_reward else None
        if reward_fn is None and reward is not None:
            reward_fn = reward(state_dim, action_dim)
        known: dict[str, Any] = {"reward_fn": reward_fn, "clock_step": clock_step}
        model = world_model(state_dim, action_dim, **known)
        super().__init__(
            model, optimizer, scheduler, compile_model, continuation=continuation, ignore_noise=ignore_noise
        )
