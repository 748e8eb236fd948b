"""A policy as it acts along one trajectory.

Shape legend: ``B`` batch, ``H`` horizon, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from lit_awm.models import Policy


class Actor(NamedTuple):
    """A policy with all the noise of a trajectory, so that it acts the same step by step and all at once.

    Attributes:
        policy: The policy.
        noise: ``(B, H, A)``, which decides the actions of a stochastic one; or None.
        action_noise: ``(B, H, A)``, to be added to the actions; or None.
        action_gradient: ``(B, H, A)``, to which every backward pass adds the gradient of the actions; or None.
    """

    policy: Policy
    noise: Tensor | None = None
    action_noise: Tensor | None = None
    action_gradient: Tensor | None = None

    def at(self, steps: int | slice) -> Actor:
        """Return the same for some of the steps, or for one without the dimension ``H``."""
        of_actions = (None if each is None else each[:, steps] for each in self[1:])
        return Actor(self.policy, *of_actions)

    def __call__(self, states: Tensor, counts: Callable[[], bool] = lambda: True) -> Tensor:
        """Return the actions ``(B, H, A)``.

        Args:
            states: What the policy reads ``(B, H, S)``.
            counts: Whether a gradient that arrives is one to be added to ``action_gradient``.
        """
        actions = self.policy.sample(states, self.noise)
        if self.action_noise is not None:
            actions = actions + self.action_noise
        if self.action_gradient is not None and actions.requires_grad:
            actions.register_hook(partial(_accumulate, self.action_gradient, counts))  # type: ignore[no-untyped-call]
        return actions


def _accumulate(target: Tensor, counts: Callable[[], bool], gradient: Tensor) -> None:
    if counts():
        target += gradient
