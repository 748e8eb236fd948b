"""A world model whose states come from another one.

Shape legend: ``B`` batch, ``H`` horizon, ``C`` steps, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_awm.models.markov import MarkovWorldModel
from lit_awm.models.world_model import Prediction, WorldModel

FARTHEST = 20.0  # standard deviations from the mean of the data, beyond which a model of single steps knows nothing


class GuidedCarry(NamedTuple):
    """What :class:`GuidedWorldModel` carries from step to step.

    Attributes:
        memory: What the world model carries; None once steps were taken by the guide alone.
        known: The last state by the guide ``(B, S)``, without gradient.
        state: The same with the derivative of the world model.
    """

    memory: Any
    known: Tensor
    state: Tensor


class GuidedWorldModel(WorldModel):
    """Predict states as a guide does, with the derivatives of a world model.

    A model of single steps learns from few data where actions lead, but gradients through it take circuitous paths. One
    that predicts a whole trajectory from its actions has gradients that do not, and is less right about where actions
    lead: a policy that is optimised in it ends where its errors are in the policy's favour. Here the states are those
    of the first, and gradients pass through the second. Amigo et al. (2025, arXiv:2509.00215) decouple the states of a
    simulator from the derivatives of a Markovian model in the same way.

    Args:
        world_model: What gradients pass through; it reads no state but the first.
        guide: The :class:`~lit_awm.models.MarkovWorldModel` that the states are by, fitted to the same data. They are
            kept within 20 standard deviations from the mean of the data.

    Raises:
        ValueError: If ``world_model`` reads later states, which derivatives would be missing of, its reward is no
            function of states and actions, or ``guide`` is of another family.
    """

    reads_later_states = False  # but for values, which no gradient depends on

    def __init__(self, world_model: WorldModel, guide: WorldModel) -> None:
        if world_model.reads_later_states:
            raise ValueError(
                "world_model must be one that reads no state but the first to be guided, like ActionsWorldModel, got "
                f"{type(world_model).__name__}. Set `guide_from: null`."
            )
        if not isinstance(guide, MarkovWorldModel):
            raise ValueError(f"guide must be a MarkovWorldModel, got {type(guide).__name__}.")
        if world_model.reward_fn is None:
            raise ValueError(
                "guide needs a reward that is a function of states and actions, got a world model that predicts it. "
                "Set `known_reward: true` or a `reward`, or `guide_from: null`."
            )
        super().__init__(
            world_model.state_dim,
            world_model.action_dim,
            reward_fn=world_model.reward_fn,
            clock_step=world_model.clock_step,
        )
        self.world_model, self.guide, self.continuation = world_model, guide, world_model.continuation
        self.state_scaler, self.action_scaler = world_model.state_scaler, world_model.action_scaler
        self.reward_scaler = world_model.reward_scaler

    @property
    def max_horizon(self) -> int | None:
        """That of the world model."""
        return self.world_model.max_horizon

    def forward(self, states: Tensor, actions: Tensor) -> Prediction:
        """Predict in parallel what follows each action.

        Args:
            states: States ``(B, H, S)`` that the guide has gone through with these actions.
            actions: ``(B, H, A)``.

        Raises:
            ValueError: If the shapes do not fit the model or each other, or ``H`` is beyond ``max_horizon``.
        """
        self.guide.check_sequences(states, actions)  # which reads all of them
        self.world_model.check_sequences(states, actions)
        predicted, _ = self.world_model(states, actions)
        with torch.no_grad():
            known = self._near(self.guide.next_state(states, actions))
        return self._join(states[:, 0], known, predicted, actions)

    def start(self, state: Tensor, horizon: int) -> GuidedCarry:
        """Begin an incremental prediction of up to ``horizon`` steps from ``(B, S)``."""
        return GuidedCarry(self.world_model.start(state, horizon), state.detach(), state)

    def extend(self, carry: GuidedCarry, actions: Tensor) -> tuple[GuidedCarry, Tensor, Tensor]:
        """Take the next actions ``(B, C, A)``, one or more; return the carry, states and rewards."""
        memory, predicted, _ = self.world_model.extend(carry.memory, actions)
        known = [carry.known]
        with torch.no_grad():
            for action in actions.unbind(1):
                known.append(self._near(self.guide.next_state(known[-1], action)))
        states, rewards = self._join(carry.state, torch.stack(known[1:], 1), predicted, actions)
        return GuidedCarry(memory, known[-1], states[:, -1]), states, rewards

    def step(self, carry: GuidedCarry, action: Tensor) -> tuple[GuidedCarry, Tensor, Tensor]:
        """Take one action ``(B, A)``; return the carry, the next state ``(B, S)`` and the reward ``(B,)``."""
        carry, states, rewards = self.extend(carry, action.unsqueeze(1))
        return carry, states[:, 0], rewards[:, 0]

    @torch.no_grad()
    def advance(self, carry: GuidedCarry, action: Tensor) -> tuple[GuidedCarry, Tensor]:
        """Take one action ``(B, A)`` by the guide alone; what is carried then is good for further such steps only."""
        state = self._near(self.guide.next_state(carry.known, action))
        return GuidedCarry(None, state, state), state

    def _join(self, initial: Tensor, known: Tensor, predicted: Tensor, actions: Tensor) -> Prediction:
        """Return states and rewards with the values of the guide and the derivatives of the world model."""
        states = known + (predicted - predicted.detach())
        before = torch.cat([initial.unsqueeze(1), states[:, :-1]], dim=1)
        return Prediction(states, self.reward_fn(before, actions, states))  # type: ignore[misc]

    def _near(self, states: Tensor) -> Tensor:
        """Return states as near to the data as the guide can be right about."""
        scaler = self.guide.state_scaler
        return states.clamp(scaler.mean - FARTHEST * scaler.scale, scaler.mean + FARTHEST * scaler.scale)
