"""The Markovian world model.

Shape legend: ``M`` members, ``B`` batch, ``H`` horizon, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_awm.checks import check_at_least, check_count
from lit_awm.models.perceptron import make_perceptron
from lit_awm.models.stepwise import Predicts, StepwiseWorldModel
from lit_awm.models.world_model import Prediction, RewardFn


class MarkovWorldModel(StepwiseWorldModel):
    """Predict the next state from the last state and action, ``s' = f(s, a)``, by a multilayer perceptron.

    In imagination a gradient from a reward to an action is a product of the Jacobians of all steps between. Several
    members, fitted from different beginnings, make an ensemble (Lakshminarayanan et al., 2017, arXiv:1612.01474) that
    predicts their mean, and whose ``disagreement`` tells where it has not learned enough.

    Args:
        state_dim: Size ``S`` of a state.
        action_dim: Size ``A`` of an action.
        hidden_dim: Width.
        num_layers: Number of hidden layers; 0 makes a linear model.
        num_members: Number ``M`` of networks.
        predicts: ``"difference"`` to the last state, or the ``"state"``.
        reward_fn: The reward as a known function, see :class:`~lit_awm.models.world_model.WorldModel`.
        clock_step: Advance of the clock, see :class:`~lit_awm.models.world_model.WorldModel`.

    Raises:
        ValueError: If ``hidden_dim`` or ``num_members`` is below 1, or ``num_layers`` below 0.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        hidden_dim: int = 64,
        num_layers: int = 2,
        num_members: int = 1,
        predicts: Predicts = "difference",
        *,
        reward_fn: RewardFn | None = None,
        clock_step: float | None = None,
    ) -> None:
        super().__init__(state_dim, action_dim, predicts, reward_fn=reward_fn, clock_step=clock_step)
        check_count(1, hidden_dim=hidden_dim, num_members=num_members)
        check_at_least(0, num_layers=num_layers)
        sizes = [state_dim + action_dim] + [hidden_dim] * num_layers
        self.networks = nn.ModuleList(make_perceptron(sizes, self.output_dim) for _ in range(num_members))

    def forward(self, states: Tensor, actions: Tensor) -> Prediction:
        """Predict what follows each action, by the mean of the members; entry ``t`` reads only state and action ``t``.

        Raises:
            ValueError: If the shapes do not fit the model.
        """
        self.check_sequences(states, actions)
        return Prediction(*self._advance(states, actions))

    def members(self, states: Tensor, actions: Tensor) -> Prediction:
        """Predict what follows each action, member by member: ``(M, B, H, S)`` and ``(M, B, H)``.

        Raises:
            ValueError: If the shapes do not fit the model.
        """
        self.check_sequences(states, actions)
        outputs = self._outputs(states, actions)
        next_states = self._decode(outputs, states)
        return Prediction(next_states, self._reward(outputs, states, actions, next_states))

    def disagreement(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return how much the members differ about what follows each action, ``(B, H)``.

        It is the root mean square, over the state's components in units of ``error_scale``, but for those that are
        ignored, of the standard deviation over the members; 0 if there is only one.
        """
        spread = self.members(states, actions).state.std(dim=0, correction=0)
        counts = (~self.state_scaler.ignored).to(spread.dtype)
        return ((spread / self.error_scale).square() * counts / counts.mean()).mean(-1).sqrt()

    def start(self, state: Tensor, horizon: int) -> Tensor:
        """Begin an incremental prediction from ``(B, S)``."""
        self.check_horizon(horizon)
        return state

    def step(self, carry: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take one action ``(B, A)``; return the carry, the next state ``(B, S)`` and the reward ``(B,)``."""
        next_state, reward = self._advance(carry, action)
        return next_state, next_state, reward

    def next_state(self, state: Tensor, action: Tensor) -> Tensor:
        """Return the state ``(..., S)`` that follows after an action ``(..., A)``, and not what that earns."""
        return self._decode(self._outputs(state, action).mean(dim=0), state)

    def advance(self, carry: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Take one action ``(B, A)``; return the carry and the next state ``(B, S)``, and not what that earns."""
        state = self.next_state(carry, action)
        return state, state

    def _outputs(self, states: Tensor, actions: Tensor) -> Tensor:
        inputs = self._inputs(states, actions)
        return torch.stack([network(inputs) for network in self.networks])

    def _advance(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self._outputs(states, actions).mean(dim=0)
        next_states = self._decode(outputs, states)
        return next_states, self._reward(outputs, states, actions, next_states)
