"""An actions world model made of a transition.

Shape legend: ``B`` batch, ``H`` horizon, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_awm.models.world_model import Prediction, WorldModel


class UnrolledWorldModel(WorldModel):
    """Predict from the first state and the actions alone, by applying a one-step model again and again.

    An actions world model whose ``g`` is a recurrent network with transition ``f``. Ma et al. (2024, arXiv:2402.05290)
    show that its policy gradient is that of the Markovian model ``f``: leaving out the states gains nothing, what
    counts is the architecture of ``g``. Fitted to whole sequences, it trains ``f`` on the errors of many steps ahead.

    Args:
        transition: The one-step model, for example a :class:`~lit_awm.models.MarkovWorldModel`.

    Raises:
        ValueError: If ``transition`` is itself a model of whole sequences.
    """

    reads_later_states = False

    def __init__(self, transition: WorldModel) -> None:
        if not transition.reads_later_states:
            raise ValueError(f"transition must be a model of one step, got {type(transition).__name__}.")
        super().__init__(
            transition.state_dim,
            transition.action_dim,
            reward_fn=transition.reward_fn,
            clock_step=transition.clock_step,
        )
        self.transition, self.continuation = transition, transition.continuation

    @property
    def max_horizon(self) -> int | None:
        """That of the transition."""
        return self.transition.max_horizon

    def fit_statistics(self, states: Tensor, actions: Tensor, rewards: Tensor) -> None:
        """Estimate the standardisation from data, also of the transition."""
        super().fit_statistics(states, actions, rewards)
        self.transition.fit_statistics(states, actions, rewards)

    def ignore(self, components: Tensor) -> None:
        """Neither read nor predict some components of the state ``(S,)``; nor does the transition."""
        super().ignore(components)
        self.transition.ignore(components)

    def forward(self, states: Tensor, actions: Tensor) -> Prediction:
        """Predict what follows each action, step by step; only ``states[:, 0]`` is read.

        Raises:
            ValueError: If the shapes do not fit the model, or ``H`` is beyond ``max_horizon``.
        """
        self.check_sequences(states, actions)
        _, next_states, rewards = self.extend(self.start(states[:, 0], actions.shape[1]), actions)
        return Prediction(next_states, rewards)

    def start(self, state: Tensor, horizon: int) -> Any:
        """Begin an incremental prediction of up to ``horizon`` steps from ``(B, S)``."""
        return self.transition.start(state, horizon)

    def step(self, carry: Any, action: Tensor) -> tuple[Any, Tensor, Tensor]:
        """Take one action ``(B, A)``; return the carry, the next state ``(B, S)`` and the reward ``(B,)``."""
        return self.transition.step(carry, action)
