"""The interface of every world model.

Shape legend: ``B`` batch, ``H`` horizon, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_awm.checks import check_horizon
from lit_awm.models.continuation import Continuation
from lit_awm.models.reward import RewardModel
from lit_awm.models.standardizer import Standardizer, set_aside

RewardFn = Callable[[Tensor, Tensor, Tensor], Tensor]


class Prediction(NamedTuple):
    """What follows each action: ``state`` is ``(B, H, S)`` and ``reward`` is ``(B, H)``, both in raw units."""

    state: Tensor
    reward: Tensor


class WorldModel(nn.Module, ABC):
    """A differentiable model of an environment, in the environment's own units.

    ``forward`` is the parallel form, over whole sequences. ``start`` and ``step`` are the incremental form, an action
    at a time; both predict the same numbers. Standardisation happens inside, by statistics from ``fit_statistics``.

    Args:
        state_dim: Size ``S`` of a state.
        action_dim: Size ``A`` of an action.
        reward_fn: The reward as a known differentiable function of state, action and next state, over any leading
            dimensions; or a :class:`~lit_awm.models.RewardModel`, which learns it. If None the model predicts it as it
            does states.
        clock_step: If the last component of the state is a clock, what it advances by in a step; the model then
            counts instead of predicting it. None if there is no clock.

    Attributes:
        reads_later_states: Whether ``forward`` reads states after the first one, so that incremental predictions are
            fed back. Imagination in parallel needs a model that does not.
        continuation: What tells whether an episode goes on after a state; None where none ends but by the clock. A
            :class:`~lit_awm.modules.WorldModelModule` makes and fits it.
    """

    reads_later_states: ClassVar[bool] = True

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        *,
        reward_fn: RewardFn | None = None,
        clock_step: float | None = None,
    ) -> None:
        super().__init__()
        self.state_dim, self.action_dim = state_dim, action_dim
        self.reward_fn, self.clock_step = reward_fn, clock_step
        self.continuation: Continuation | None = None
        self.state_scaler = Standardizer(state_dim)
        self.action_scaler = Standardizer(action_dim)
        self.reward_scaler = Standardizer(1)

    @property
    def max_horizon(self) -> int | None:
        """The most steps that the model can predict from one state; None if there is no limit."""
        return None

    @property
    def knows_reward(self) -> bool:
        """Whether the reward is a function that was given, and not learned, be it by another model that lends it."""
        learner = getattr(self.reward_fn, "__self__", self.reward_fn)  # of a method
        return self.reward_fn is not None and not isinstance(learner, RewardModel)

    @property
    def error_scale(self) -> Tensor:
        """What an error of a predicted state ``(S,)`` is measured in when the model is fitted."""
        return self.state_scaler.scale

    def standard_targets(self, states: Tensor, next_states: Tensor) -> Tensor:
        """Return what is to be predicted, ``(..., S)``, in standard units: how unusual it is."""
        return self.state_scaler(next_states)

    @property
    def output_dim(self) -> int:
        """Size of what a head has to predict: the state and, unless there is a function of it, the reward."""
        return self.state_dim + (self.reward_fn is None)

    def fit_statistics(self, states: Tensor, actions: Tensor, rewards: Tensor) -> None:
        """Estimate the standardisation from data, in raw units; a few sequences far away do not decide about it.

        Args:
            states: ``(B, H + 1, S)``, or ``(B, H, S)`` without the last.
            actions: ``(B, H, A)``.
            rewards: ``(B, H)``.
        """
        self.state_scaler.fit(set_aside(states))
        self.action_scaler.fit(actions)
        self.reward_scaler.fit(set_aside(rewards.unsqueeze(-1)))
        if isinstance(self.reward_fn, RewardModel):
            self.reward_fn.adopt_statistics(self.state_scaler, self.action_scaler, self.reward_scaler)

    def ignore(self, components: Tensor) -> None:
        """Neither read nor predict some components of the state, given as booleans ``(S,)``.

        In imagination they are at their mean.
        """
        self.state_scaler.ignored.copy_(components)
        if isinstance(self.reward_fn, RewardModel):
            self.reward_fn.state_scaler.ignored.copy_(components)

    def read_by_reward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Tell which components of the state a known reward depends on, ``(S,)``; without one there are none.

        Args:
            states: ``(B, H + 1, S)``.
            actions: ``(B, H, A)``.
        """
        reads = torch.zeros(self.state_dim, dtype=torch.bool, device=states.device)
        if self.reward_fn is None or not self.knows_reward:
            return reads
        with torch.enable_grad():
            now, following = (each.detach().requires_grad_() for each in (states[:, :-1], states[:, 1:]))
            reward = self.reward_fn(now, actions[:, : now.shape[1]], following).sum()
            found = torch.autograd.grad(reward, (now, following), allow_unused=True) if reward.requires_grad else ()
        for gradient in found:
            if gradient is not None:
                reads |= gradient.ne(0).flatten(0, 1).any(0)
        return reads

    def without_ignored(self, state: Tensor) -> Tensor:
        """Return states ``(..., S)`` with what is ignored at its mean: what differs in nothing else is equal."""
        return torch.where(self.state_scaler.ignored, self.state_scaler.mean.to(state.dtype), state)

    @abstractmethod
    def forward(self, states: Tensor, actions: Tensor) -> Prediction:
        """Predict what follows each of the actions.

        Args:
            states: Real states ``(B, H, S)``, entry ``t`` the one in which action ``t`` was taken; how many of them
                are read is what tells the families apart.
            actions: Actions ``(B, H, A)``.
        """

    def members(self, states: Tensor, actions: Tensor) -> Prediction:
        """Predict as ``forward`` does, member by member: ``(M, B, H, S)`` and ``(M, B, H)``.

        ``M`` is 1 but for ensembles. This is what is fitted, so that each member learns by itself.
        """
        state, reward = self(states, actions)
        return Prediction(state.unsqueeze(0), reward.unsqueeze(0))

    @abstractmethod
    def start(self, state: Tensor, horizon: int) -> Any:
        """Begin an incremental prediction of up to ``horizon`` steps from ``(B, S)`` and return what it carries.

        That is a tree (tuples, lists, dictionaries) of tensors and numbers, which can be gone on from once: a model may
        write into it. Gradients through it are of first order, in reverse mode.
        """

    @abstractmethod
    def step(self, carry: Any, action: Tensor) -> tuple[Any, Tensor, Tensor]:
        """Take one action ``(B, A)``; return the carry, the next state ``(B, S)`` and the reward ``(B,)``."""

    def advance(self, carry: Any, action: Tensor) -> tuple[Any, Tensor]:
        """Take one action ``(B, A)`` as ``step`` does; return the carry and the next state ``(B, S)``.

        For a model that has less to do where nobody asks what a step earns, or for a gradient.
        """
        carry, state, _ = self.step(carry, action)
        return carry, state

    def extend(self, carry: Any, actions: Tensor) -> tuple[Any, Tensor, Tensor]:
        """Take the next actions ``(B, C, A)``, one or more.

        A model that reads no state but the first can do it in parallel; here it is step after step.

        Returns:
            The carry, the next states ``(B, C, S)`` and the rewards ``(B, C)``.
        """
        states, rewards = [], []
        for action in actions.unbind(1):
            carry, state, reward = self.step(carry, action)
            states.append(state)
            rewards.append(reward)
        return carry, torch.stack(states, 1), torch.stack(rewards, 1)

    def check_sequences(self, states: Tensor, actions: Tensor) -> None:
        """Reject sequences that the model cannot read.

        Raises:
            ValueError: If ``actions`` is not ``(B, H, A)``, ``states`` is not ``(B, H, S)`` (of any length if only the
                first is read), or ``H`` is beyond ``max_horizon``.
        """
        if actions.ndim != 3 or actions.shape[-1] != self.action_dim:
            raise ValueError(f"actions must have shape (B, H, {self.action_dim}), got {tuple(actions.shape)}.")
        if states.ndim != 3 or states.shape[-1] != self.state_dim:
            raise ValueError(f"states must have shape (B, H, {self.state_dim}), got {tuple(states.shape)}.")
        if states.shape[0] != actions.shape[0] or (self.reads_later_states and states.shape[1] != actions.shape[1]):
            raise ValueError(
                f"states must have B and H of actions {tuple(actions.shape[:2])}, got {tuple(states.shape[:2])}."
            )
        self.check_horizon(actions.shape[1])

    def check_start(self, initial_state: Tensor, horizon: int) -> None:
        """Reject initial states that are no batch ``(B, S)``, and a horizon that the model has no positions for.

        Raises:
            ValueError: If the shape or the horizon does not fit.
        """
        if initial_state.ndim != 2 or initial_state.shape[1] != self.state_dim:
            raise ValueError(f"initial_state must have shape (B, {self.state_dim}), got {tuple(initial_state.shape)}.")
        self.check_horizon(horizon)

    def check_horizon(self, horizon: int) -> None:
        """Reject a horizon that the model has no positions for.

        Raises:
            ValueError: If ``horizon`` is below 1 or beyond ``max_horizon``.
        """
        remedy = "Lower `imagination_horizon` and `slice_length`, or raise `max_horizon` of the world model's backbone."
        check_horizon(horizon, self.max_horizon, "the model", remedy)

    def has_ended(self, states: Tensor) -> Tensor:
        """Tell in which of the states ``(..., S)`` an episode is over, ``(...)``: where the clock has reached its end.

        Without a clock no episode is over for sure.
        """
        if self.clock_step is None:
            return torch.zeros_like(states[..., 0], dtype=torch.bool)
        return states[..., -1] > 1 - self.clock_step / 2

    def survival(self, states: Tensor) -> Tensor:
        """Return the probability ``(B, H + 1)`` that an episode is not over in a state of ``(B, H + 1, S)`` or before.

        It is differentiable in the states, of which the first counts as one in which the episode goes on, unless the
        clock has reached its end.
        """
        ended = self.has_ended(states)
        if self.continuation is None:
            return (~ended).to(states.dtype)
        with torch.autocast(states.device.type, enabled=False):  # most probabilities are close to 1
            reached = states.to(self.state_scaler.mean.dtype).masked_fill(ended.unsqueeze(-1), 0)
            log_odds = self.continuation(self.state_scaler(reached[:, 1:]))
            log_survival = F.pad(F.logsigmoid(log_odds), (1, 0)).cumsum(dim=1)
        return log_survival.exp().masked_fill(ended, 0)

    def _reward(self, outputs: Tensor, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """Return the reward of a step as a function of it, or the last of the ``outputs`` of a head."""
        if self.reward_fn is not None:
            return self.reward_fn(state, action, next_state)
        return self.reward_scaler.inverse(outputs[..., -1:]).squeeze(-1)

    def _complete(self, state: Tensor, initial_clock: Tensor, steps: Tensor | int) -> Tensor:
        """Replace what is not predicted of a ``state``.

        What is ignored is at its mean, the last component the clock, ``steps`` after ``initial_clock``.
        """
        state = self.without_ignored(state)
        if self.clock_step is None:
            return state
        passed = self.clock_step * (steps.to(state.dtype) if isinstance(steps, Tensor) else steps)
        clock = (initial_clock + passed).expand(state.shape[:-1])
        return torch.cat([state[..., :-1], clock.unsqueeze(-1)], dim=-1)
