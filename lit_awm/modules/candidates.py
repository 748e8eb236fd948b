"""The best of several policies: in the eyes of a judge, or in the real environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lit_awm.distributed import gather
from lit_awm.models import Policy


class Candidates:
    """Copies of a policy at the ends of the turns of a pass.

    A policy is optimised in a model that has seen little of what the policy will do next, and may find what is good in
    the model alone. A judge is another model that was not optimised against, for example the teacher of the first.
    """

    def __init__(self) -> None:
        self._copies: list[dict[str, Tensor]] = []

    def add(self, policy: Policy) -> None:
        """Keep a copy of the policy as it is."""
        self._copies.append(_copy(policy))

    @torch.no_grad()
    def choose(self, policy: Policy, judge: Callable[[Policy], Tensor]) -> dict[str, Tensor]:
        """Make the policy the best of the copies and of what it is now, and forget the copies.

        Args:
            policy: The policy.
            judge: Returns what a policy earns from each of some beginnings ``(B,)``, or minus infinity where it cannot
                tell, which counts as the worst that any of the policies earns. The mean decides, over all processes.

        Returns:
            The ``judged_return`` of the best, and the ``judged_gain``: how far it is above the policy as it was; not
            where the judge cannot tell of any beginning.
        """
        self.add(policy)
        scores = []
        for copy in self._copies:
            _load(policy, copy)
            scores.append(judge(policy))
        means = _mean_of_known(gather(torch.stack(scores, dim=1)))
        best = len(means) - 1 - int(means.flip(0).argmax())  # the latest of those that are as good
        _load(policy, self._copies[best])
        self._copies = []
        told = {"judged_return": means[best], "judged_gain": means[best] - means[-1]}
        return {name: value for name, value in told.items() if value.isfinite()}

    def clear(self) -> None:
        """Forget the copies."""
        self._copies = []

    def state_dict(self) -> list[dict[str, Tensor]]:
        """Return the copies."""
        return list(self._copies)

    def load_state_dict(self, copies: list[dict[str, Tensor]]) -> None:
        """Go on with the copies that ``state_dict`` returned."""
        self._copies = list(copies)


class Champion:
    """The policy that has earned most in the real environment.

    A policy that was optimised in a model may do worse in the environment than the one that it comes from. What it did
    there is then worth learning from, but it is the better one that goes on.

    Attributes:
        earned: What it has earned, a scalar; minus infinity before the first.
    """

    def __init__(self) -> None:
        self.earned = torch.tensor(-torch.inf)
        self._copy: dict[str, Tensor] = {}

    @torch.no_grad()
    def meet(self, policy: Policy, earned: Tensor) -> dict[str, Tensor]:
        """Make the policy the champion if it has earned as much, or else make it what the champion is.

        Args:
            policy: The policy.
            earned: What it has earned, a scalar; with several processes their mean decides.

        Returns:
            What it has earned as ``trial_return``, and the champion as ``best_return``.
        """
        earned = gather(earned.reshape(1)).mean()
        self.earned = self.earned.to(earned)  # a checkpoint brings it on the CPU
        if earned >= self.earned:
            self._copy, self.earned = _copy(policy), earned
        else:
            _load(policy, self._copy)
        return {"trial_return": earned, "best_return": self.earned}

    def is_same_as(self, policy: Policy) -> bool:
        """Tell whether a policy is the champion, so that it is known what it earns."""
        return bool(self._copy) and all(value.equal(self._copy[name].to(value)) for name, value in _state(policy))

    def state_dict(self) -> dict[str, Any]:
        """Return the policy and what it has earned."""
        return {"earned": self.earned, "copy": self._copy}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.earned, self._copy = state_dict["earned"], state_dict["copy"]


def _mean_of_known(scores: Tensor) -> Tensor:
    """Return the means of ``(B, K)`` over ``B``, with what is unknown as the worst, or minus infinity if all is."""
    is_known = scores.isfinite()
    worst = torch.where(is_known, scores, torch.inf).min()
    means = torch.where(is_known, scores, worst).mean(dim=0)
    return torch.where(is_known.any(dim=0), means, -torch.inf)


def _copy(policy: Policy) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in _state(policy)}


def _load(policy: Policy, copy: dict[str, Tensor]) -> None:
    for name, value in _state(policy):
        value.copy_(copy[name])


def _state(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    yield from policy.named_parameters()
    yield from policy.named_buffers()
