"""The environment itself as a world model.

Shape legend: ``...`` any leading dimensions, ``B`` batch, ``H`` horizon, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lit_awm.models.world_model import Prediction, RewardFn, WorldModel

StepFn = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class SimulatorWorldModel(WorldModel):
    """Predict by the environment's own differentiable step; there are no parameters.

    Its gradients are the true ones: they explode under chaos and mislead at contacts. An episode that ends early in the
    environment is not ended here: outside of its domain the step repeats the last state.

    Args:
        state_dim: Size ``S`` of a state.
        action_dim: Size ``A`` of an action.
        step_fn: Maps ``(..., S)`` and ``(..., A)`` to the next state ``(..., S)`` and the reward ``(...)``, for example
            :class:`~lit_awm.envs.KnownStep`. None if ``connect`` will give it.
        reward_fn: A reward to be used in place of the step's own.
        clock_step: Advance of the clock, which ``step_fn`` counts; see
            :class:`~lit_awm.models.world_model.WorldModel`.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        step_fn: StepFn | None = None,
        *,
        reward_fn: RewardFn | None = None,
        clock_step: float | None = None,
    ) -> None:
        super().__init__(state_dim, action_dim, reward_fn=reward_fn, clock_step=clock_step)
        self.step_fn = step_fn

    def connect(self, step_fn: StepFn | None) -> None:
        """Give the step of the environment, unless the model has one.

        Raises:
            ValueError: If there is none to give.
        """
        self.step_fn = step_fn if self.step_fn is None else self.step_fn
        self._check_step()

    def ignore(self, components: Tensor) -> None:
        """Ignore nothing: the step reads all of a state."""

    def forward(self, states: Tensor, actions: Tensor) -> Prediction:
        """Predict what follows each action; entry ``t`` reads only state and action ``t``.

        Raises:
            ValueError: If the shapes do not fit the model, or it has no step.
        """
        self.check_sequences(states, actions)
        return Prediction(*self._advance(states, actions))

    def start(self, state: Tensor, horizon: int) -> Tensor:
        """Begin an incremental prediction from ``(B, S)``."""
        self.check_horizon(horizon)
        return state

    def step(self, carry: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take one action ``(B, A)``; return the carry, the next state ``(B, S)`` and the reward ``(B,)``."""
        next_state, reward = self._advance(carry, action)
        return next_state, next_state, reward

    def _advance(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        step_fn = self._check_step()
        next_states, rewards = step_fn(states, actions)
        return next_states, rewards if self.reward_fn is None else self.reward_fn(states, actions, next_states)

    def _check_step(self) -> StepFn:
        if self.step_fn is None:
            raise ValueError(
                "step_fn must be given to a SimulatorWorldModel, got None. It is known where a system of the testbed "
                "is observed with a clock and without noise or distractors; elsewhere use a model that learns."
            )
        return self.step_fn
