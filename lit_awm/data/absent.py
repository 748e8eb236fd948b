"""What stands for a recording that is not at hand."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule

from lit_awm.envs import KnownReward, make_env
from lit_awm.envs.known import find_clock_step


class AbsentRecording(LightningDataModule):
    """What models need to know of a recording, to be rebuilt where it is not: nothing can be fitted to it.

    Args:
        state_dim: Size ``S`` of an observation.
        action_dim: Size ``A`` of an action.
        env: Name of the environment that was recorded, whose reward may be known; None if there is none.
        env_options: Its options.
    """

    known_step_fn = None

    def __init__(
        self, state_dim: int, action_dim: int, env: str | None = None, env_options: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.state_dim, self.action_dim = state_dim, action_dim
        self.known_reward_fn: KnownReward | None = None
        self.clock_step: float | None = None
        if env is not None:
            recorded = make_env(env, **(env_options or {}))
            self.known_reward_fn = KnownReward(recorded) if KnownReward.is_known(recorded) else None
            self.clock_step = find_clock_step(recorded)
