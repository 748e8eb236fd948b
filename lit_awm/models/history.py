"""The history world model.

Shape legend: ``B`` batch, ``H`` horizon, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from lit_awm.models.backbone import Backbone
from lit_awm.models.stepwise import Predicts, StepwiseWorldModel
from lit_awm.models.transformer import CausalTransformer
from lit_awm.models.world_model import Prediction, RewardFn


class HistoryCarry(NamedTuple):
    """What an incremental prediction carries from step to step."""

    memory: Any  # of the backbone
    state: Tensor
    is_first: bool


class HistoryWorldModel(StepwiseWorldModel):
    """Predict the next state from all states and actions so far (HWM in Ma et al., 2024, arXiv:2402.05290).

    ``s_{t+1} = h(s_{1:t}, a_{1:t})``. In imagination every predicted state is fed back, so that a gradient from a
    reward to an action takes circuitous paths through all the states between, besides its direct one.

    Args:
        state_dim: Size ``S`` of a state.
        action_dim: Size ``A`` of an action.
        backbone: Maps the tokens, each of a state and the action taken in it, to features, causally.
        predicts: ``"difference"`` to the last state, or the ``"state"``.
        cut_paths: Whether states are detached when they are fed back: predictions stay the same, and of a gradient only
            the direct path is left. A control experiment.
        reward_fn: The reward as a known function, see :class:`~lit_awm.models.world_model.WorldModel`.
        clock_step: Advance of the clock, see :class:`~lit_awm.models.world_model.WorldModel`.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        backbone: Backbone | None = None,
        predicts: Predicts = "difference",
        cut_paths: bool = False,
        *,
        reward_fn: RewardFn | None = None,
        clock_step: float | None = None,
    ) -> None:
        super().__init__(state_dim, action_dim, predicts, reward_fn=reward_fn, clock_step=clock_step)
        self.backbone = backbone if backbone is not None else CausalTransformer()
        self.cut_paths = cut_paths
        self.encoder = nn.Linear(state_dim + action_dim, self.backbone.hidden_dim)
        self.head = nn.Linear(self.backbone.hidden_dim, self.output_dim)

    @property
    def max_horizon(self) -> int | None:
        """That of the backbone."""
        return self.backbone.max_horizon

    def forward(self, states: Tensor, actions: Tensor) -> Prediction:
        """Predict what follows each action, in parallel; entry ``t`` reads the states and actions up to ``t``.

        Raises:
            ValueError: If the shapes do not fit the model, or ``H`` is beyond ``max_horizon``.
        """
        self.check_sequences(states, actions)
        outputs = self.head(self.backbone(self.encoder(self._inputs(states, actions))))
        next_states = self._decode(outputs, states)
        return Prediction(next_states, self._reward(outputs, states, actions, next_states))

    def start(self, state: Tensor, horizon: int) -> HistoryCarry:
        """Begin an incremental prediction of up to ``horizon`` steps from ``(B, S)``.

        Raises:
            ValueError: If ``horizon`` is beyond ``max_horizon``.
        """
        self.check_horizon(horizon)
        return HistoryCarry(self.backbone.start(horizon), state, is_first=True)

    def step(self, carry: HistoryCarry, action: Tensor) -> tuple[HistoryCarry, Tensor, Tensor]:
        """Take one action ``(B, A)``; return the carry, the next state ``(B, S)`` and the reward ``(B,)``."""
        fed_back = carry.state.detach() if self.cut_paths and not carry.is_first else carry.state
        token = self.encoder(self._inputs(fed_back, action)).unsqueeze(1)
        memory, features = self.backbone.extend(carry.memory, token)
        outputs = self.head(features.squeeze(1))
        next_state = self._decode(outputs, fed_back)
        reward = self._reward(outputs, carry.state, action, next_state)
        return HistoryCarry(memory, next_state, is_first=False), next_state, reward
