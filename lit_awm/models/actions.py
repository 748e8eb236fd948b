"""The actions world model.

Shape legend: ``B`` batch, ``H`` horizon, ``C`` new steps, ``S`` state size, ``A`` action size, ``D`` hidden size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_awm.models.backbone import Backbone
from lit_awm.models.standardizer import DriftStandardizer
from lit_awm.models.transformer import CausalTransformer
from lit_awm.models.world_model import Prediction, RewardFn, WorldModel


class ActionsCarry(NamedTuple):
    """What an incremental prediction carries from step to step."""

    memory: Any  # of the backbone
    initial_state: Tensor
    state: Tensor
    steps: int


class ActionsWorldModel(WorldModel):
    """Predict every later state from the first state and the actions alone (Ma et al., 2024, arXiv:2402.05290).

    ``s_{t+1} = g(s_1, a_{1:t})``: no predicted state is ever fed back, so that a gradient from a reward to an action
    takes only the paths that the backbone offers. Each token joins an action with the first state; the head predicts
    the displacement from the first state, standardised step by step (``DriftStandardizer``).

    Args:
        state_dim: Size ``S`` of a state.
        action_dim: Size ``A`` of an action.
        backbone: Maps the tokens to features, causally: a transformer, or a recurrent or state-space one.
        reward_fn: The reward as a known function, see :class:`~lit_awm.models.world_model.WorldModel`.
        clock_step: Advance of the clock, see :class:`~lit_awm.models.world_model.WorldModel`.
    """

    reads_later_states = False

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        backbone: Backbone | None = None,
        *,
        reward_fn: RewardFn | None = None,
        clock_step: float | None = None,
    ) -> None:
        super().__init__(state_dim, action_dim, reward_fn=reward_fn, clock_step=clock_step)
        self.backbone = backbone if backbone is not None else CausalTransformer()
        self.encoder = nn.Linear(state_dim + action_dim, self.backbone.hidden_dim)
        self.head = nn.Linear(self.backbone.hidden_dim, self.output_dim)
        self.drift_scaler = DriftStandardizer(state_dim)

    @property
    def max_horizon(self) -> int | None:
        """That of the backbone."""
        return self.backbone.max_horizon

    @property
    def error_scale(self) -> Tensor:
        """The spread ``(S,)`` of drifts from their mean at each step."""
        return self.drift_scaler.spread

    def fit_statistics(self, states: Tensor, actions: Tensor, rewards: Tensor) -> None:
        """Estimate the standardisation from data, that of states at each step too."""
        super().fit_statistics(states, actions, rewards)
        self.drift_scaler.fit(states)

    def forward(self, states: Tensor, actions: Tensor) -> Prediction:
        """Predict what follows each action, in parallel; only ``states[:, 0]`` is read.

        Raises:
            ValueError: If the shapes do not fit the model, or ``H`` is beyond ``max_horizon``.
        """
        self.check_sequences(states, actions)
        _, next_states, rewards = self.extend(self.start(states[:, 0], actions.shape[1]), actions)
        return Prediction(next_states, rewards)

    def start(self, state: Tensor, horizon: int) -> ActionsCarry:
        """Begin an incremental prediction of up to ``horizon`` steps from ``(B, S)``.

        Raises:
            ValueError: If ``horizon`` is beyond ``max_horizon``.
        """
        self.check_horizon(horizon)
        return ActionsCarry(self.backbone.start(horizon), state, state, 0)

    def extend(self, carry: ActionsCarry, actions: Tensor) -> tuple[ActionsCarry, Tensor, Tensor]:
        """Take the next actions ``(B, C, A)``, one or more, in parallel; return the carry, states and rewards."""
        initial_state, count = carry.initial_state.unsqueeze(1), actions.shape[1]
        tokens = self._tokens(initial_state.expand(-1, count, -1), actions)
        memory, features = self.backbone.extend(carry.memory, tokens)
        outputs = self.head(features)
        steps = torch.arange(carry.steps + 1, carry.steps + count + 1, device=actions.device)
        next_states = self._decode(outputs, initial_state, steps)
        states = torch.cat([carry.state.unsqueeze(1), next_states[:, :-1]], dim=1)
        rewards = self._reward(outputs, states, actions, next_states)
        return ActionsCarry(memory, carry.initial_state, next_states[:, -1], carry.steps + count), next_states, rewards

    def step(self, carry: ActionsCarry, action: Tensor) -> tuple[ActionsCarry, Tensor, Tensor]:
        """Take one action ``(B, A)``; return the carry, the next state ``(B, S)`` and the reward ``(B,)``."""
        carry, states, rewards = self.extend(carry, action.unsqueeze(1))
        return carry, states[:, 0], rewards[:, 0]

    def _tokens(self, initial_state: Tensor, actions: Tensor) -> Tensor:
        return self.encoder(torch.cat([self.state_scaler(initial_state), self.action_scaler(actions)], dim=-1))

    def _decode(self, outputs: Tensor, initial_state: Tensor, steps: Tensor) -> Tensor:
        state = initial_state + self.drift_scaler.inverse(outputs[..., : self.state_dim], steps)
        return self._complete(state, initial_state[..., -1], steps)
