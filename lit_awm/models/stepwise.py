"""What models share that predict one step ahead and are fed back what they predicted.

Shape legend: ``...`` any leading dimensions, ``B`` batch, ``H`` horizon, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from lit_awm.models.standardizer import Standardizer, set_aside, typical_magnitude
from lit_awm.models.world_model import RewardFn, WorldModel

LEAST_DIFFERENCE = 1e-5  # of the largest state, below which a difference in single precision may be rounding
Predicts = Literal["difference", "state"]


class StepwiseWorldModel(WorldModel):
    """A model of the next state, as such or as the difference to the one before, in units of what it predicts.

    Args:
        state_dim: Size ``S`` of a state.
        action_dim: Size ``A`` of an action.
        predicts: ``"difference"`` or ``"state"``.
        reward_fn: The reward as a known function, see :class:`~lit_awm.models.world_model.WorldModel`.
        clock_step: Advance of the clock, see :class:`~lit_awm.models.world_model.WorldModel`.

    Raises:
        ValueError: If ``predicts`` is unknown.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        predicts: Predicts = "difference",
        *,
        reward_fn: RewardFn | None = None,
        clock_step: float | None = None,
    ) -> None:
        super().__init__(state_dim, action_dim, reward_fn=reward_fn, clock_step=clock_step)
        if predicts not in get_args(Predicts):
            raise ValueError(f"predicts must be one of {', '.join(get_args(Predicts))}, got {predicts!r}.")
        self.predicts = predicts
        self.difference_scaler = Standardizer(state_dim)

    @property
    def error_scale(self) -> Tensor:
        """The typical size of what is predicted ``(S,)``: of a step's difference, or of a state."""
        scaler = self.difference_scaler if self.predicts == "difference" else self.state_scaler
        return scaler.scale

    def standard_targets(self, states: Tensor, next_states: Tensor) -> Tensor:
        """Return what is to be predicted, ``(..., S)``, in standard units: a step's difference, or a state."""
        if self.predicts == "difference":
            return self.difference_scaler(next_states - states)
        return super().standard_targets(states, next_states)

    def fit_statistics(self, states: Tensor, actions: Tensor, rewards: Tensor) -> None:
        """Estimate the standardisation from data, that of differences between the states of a sequence too."""
        super().fit_statistics(states, actions, rewards)
        if states.shape[1] > 1:
            differences, rounding = states.diff(dim=1), LEAST_DIFFERENCE * typical_magnitude(states)
            self.difference_scaler.fit(set_aside(differences))
            scale = self.difference_scaler.scale.clamp_(min=rounding)
            never_varies = differences.amax((0, 1)) - differences.amin((0, 1)) <= rounding
            scale.copy_(torch.where(never_varies & (rounding > 0), rounding, scale))
        else:  # no difference has been seen
            self.difference_scaler.scale.copy_(self.state_scaler.scale)

    def _inputs(self, states: Tensor, actions: Tensor) -> Tensor:
        return torch.cat([self.state_scaler(states), self.action_scaler(actions)], dim=-1)

    def _decode(self, outputs: Tensor, state: Tensor) -> Tensor:
        """Return the state ``(..., S)`` that follows ``state``."""
        outputs = outputs[..., : self.state_dim]
        if self.predicts == "difference":
            next_state = state + self.difference_scaler.inverse(outputs)
        else:
            next_state = self.state_scaler.inverse(outputs)
        return self._complete(next_state, state[..., -1], 1)
