"""Watch over gradients: not finite or exploding ones are named, and kept from doing harm."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lit_awm.callbacks.adaptive_horizon import AdaptiveHorizon
from lit_awm.callbacks.horizon_curriculum import HorizonCurriculum
from lit_awm.callbacks.policy_module import policy_module
from lit_awm.checks import check_count
from lit_awm.modules import PolicyModule
from lit_awm.modules.optimization import gradient_norm, is_written

Reaction = Literal["stop", "skip", "clip", "shrink"]
SCHEDULES = (AdaptiveHorizon, HorizonCurriculum)
MOST_SAID = 10  # events that are told of in full


class GradientError(RuntimeError):
    """A gradient is not finite, or explodes."""


class GradientGuard(Callback):
    """Name gradients that are not finite or explode, before they reach a weight.

    A gradient explodes if its norm is more than ``largest_ratio`` times what is usual in its phase: the median of
    ``window`` norms in a row, the largest that there has been. (Not that of the last ones alone: what has converged has
    norms near zero, of which an ordinary one is many thousand times as large.) The message tells phase, update,
    imagination horizon, the first layer that is concerned, and at which imagined steps the gradients of the actions are
    not finite, or the step at which they are largest. How many there have been is logged as ``PHASE/bad_gradients``. In
    ``16-mixed`` gradients that are not finite are left to the scaler of the loss as long as that can lower its scale.

    Args:
        reaction: What to do: ``"stop"`` raises an error (the last checkpoint stays), ``"skip"`` leaves the update out,
            ``"clip"`` scales an exploding gradient down to the largest norm allowed and leaves out one that is not
            finite, ``"shrink"`` leaves the update out and halves the imagination horizon if it is a policy's.
        largest_ratio: Over what is usual, above which a norm is an explosion; at least 1.
        window: Number of norms that the median is taken of. Nothing explodes before there are as many.

    Raises:
        ValueError: If ``reaction`` is unknown, or a number is below 1; or, when a fit begins, if another callback sets
            the horizon that is to shrink.
    """

    def __init__(self, reaction: Reaction = "stop", largest_ratio: float = 1e4, window: int = 50) -> None:
        if reaction not in get_args(Reaction):
            raise ValueError(f"reaction must be one of {', '.join(get_args(Reaction))}, got {reaction!r}.")
        if not largest_ratio >= 1:
            raise ValueError(f"largest_ratio must be at least 1, got {largest_ratio}.")
        check_count(window=window)
        self.reaction, self.largest_ratio, self.window = reaction, largest_ratio, window
        self.norms: dict[str, deque[float]] = {}
        self.usual: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.horizon: int | None = None  # if it has been shrunk
        self._full: int | None = None  # what it was before that

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        others = [type(each).__name__ for each in trainer.callbacks if isinstance(each, SCHEDULES)]  # type: ignore[attr-defined]
        if self.reaction == "shrink" and others:
            raise ValueError(
                f"reaction must not be 'shrink' beside {others[0]}, which sets the horizon itself, got 'shrink'. Use "
                "'skip' or 'clip', or leave one of them out."
            )
        if stage == "fit":  # of which a checkpoint, read later, may tell how far it had come
            self.horizon = self._full = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.horizon is not None:
            self._shrink(policy_module(pl_module, type(self).__name__), self.horizon)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._full is not None:
            policy_module(pl_module, type(self).__name__).imagination_horizon = self._full

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_fit_end(trainer, pl_module)

    def _shrink(self, policy: PolicyModule, horizon: int) -> None:
        self._full = policy.imagination_horizon if self._full is None else self._full
        self.horizon = policy.imagination_horizon = min(horizon, self._full)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        phases: Any = getattr(pl_module, "optimized_phases", getattr(pl_module, "phases", ("model",)))
        phase = phases[trainer.optimizers.index(optimizer)]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = gradient_norm(optimizer, trainer.global_step).item()
        if math.isinf(norm):  # the square of a norm may be too large for its type where the norm is not
            gradients = [parameter.grad.double() for parameter in parameters if parameter.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients).item()
        if not math.isfinite(norm) and _is_scaled(trainer):
            return  # the update is left out, and repeated with a lower scale of the loss
        norms = self.norms.setdefault(phase, deque(maxlen=self.window))
        if len(norms) == self.window:
            self.usual[phase] = max(statistics.median(norms), self.usual.get(phase, 0.0))
        largest = self.largest_ratio * self.usual.get(phase, math.inf)
        if norm <= largest and math.isfinite(norm):
            if norm > 0:  # where nothing has an effect yet there is nothing to compare with
                norms.append(norm)
        else:
            self.counts[phase] = self.counts.get(phase, 0) + 1
            self._react(trainer, pl_module, phase, parameters, norm, largest)
        if self.counts and (pl_module.automatic_optimization or is_written(trainer)):
            counts = {f"{phase}/bad_gradients": float(count) for phase, count in self.counts.items()}
            pl_module.log_dict(counts, batch_size=1)

    def _react(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        phase: str,
        parameters: list[nn.Parameter],
        norm: float,
        largest: float,
    ) -> None:
        message = _describe(trainer, pl_module, phase, parameters, norm, largest)
        if self.reaction == "stop":
            raise GradientError(
                f"{message} The last checkpoint stays as it was. Lower the learning rate or the imagination horizon, "
                "or let GradientGuard skip, clip or shrink."
            )
        policy = policy_module(pl_module, type(self).__name__) if phase == "policy" else None
        if self.reaction == "clip" and math.isfinite(norm):
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(largest / norm)
            done = f"It is scaled down to {largest:.3g}."
        else:
            for parameter in parameters:
                parameter.grad = None
            done = "The update is left out."
        if policy is not None:
            policy.forget()  # or what is not finite would be reused
            if self.reaction == "shrink":
                self._shrink(policy, max(1, policy.imagination_horizon // 2))
                done += f" The imagination horizon is now {self.horizon}."
        if sum(self.counts.values()) <= MOST_SAID:
            rank_zero_warn(f"{message} {done}")

    def state_dict(self) -> dict[str, Any]:
        """Return norms, counts and the horizon, so that a resumed run goes on exactly."""
        norms = {phase: list(values) for phase, values in self.norms.items()}
        return {"norms": norms, "usual": dict(self.usual), "counts": dict(self.counts), "horizon": self.horizon}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.norms = {phase: deque(values, maxlen=self.window) for phase, values in state_dict["norms"].items()}
        self.usual = dict(state_dict["usual"])
        self.counts, self.horizon = dict(state_dict["counts"]), state_dict["horizon"]


def _is_scaled(trainer: Trainer) -> bool:
    """Tell whether losses are scaled up, as in ``16-mixed``, and the scale can still fall."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler is not None and scaler.is_enabled() and scaler.get_scale() > 1


def _describe(
    trainer: Trainer,
    pl_module: LightningModule,
    phase: str,
    parameters: list[nn.Parameter],
    norm: float,
    largest: float,
) -> str:
    """Tell what is wrong with a gradient, when, and where."""
    names = {id(parameter): name for name, parameter in pl_module.named_parameters()}
    given = [(names.get(id(each), "a parameter"), each.grad) for each in parameters if each.grad is not None]
    if math.isfinite(norm):
        kind = f"of norm {norm:.3g} explodes (at most {largest:.3g})"
        where = f"largest in {max(given, key=lambda each: float(each[1].norm()))[0]}"
    else:
        kind = "is not finite"
        where = f"first in {next((name for name, gradient in given if not gradient.isfinite().all()), 'their sum')}"
    counter = {"policy": "policy_updates", "world_model": "model_updates"}.get(phase, "")
    when = f"at step {trainer.global_step}"
    if hasattr(pl_module, counter):
        when = f"in update {int(getattr(pl_module, counter)) + 1} (step {trainer.global_step})"
    words = [f"the gradient of phase {phase} {kind} {when}", where]
    if phase == "policy":
        words.append(_positions(policy_module(pl_module, "GradientGuard")))
    return "; ".join(words) + "."


def _positions(module: PolicyModule) -> str:
    """Tell where in the imagined trajectory the gradients of the actions are bad."""
    gradient, horizon = module.action_gradient, module.imagination_horizon
    if gradient is None:
        return f"imagination horizon {horizon}"
    bad = (~gradient.isfinite()).flatten(2).any(-1).any(0).nonzero().flatten().tolist()
    if bad:
        return f"not finite at imagined steps {bad[0] + 1} to {bad[-1] + 1} of {horizon}"
    sizes = gradient.norm(dim=-1).amax(0)
    return f"largest at imagined step {int(sizes.argmax()) + 1} of {horizon}"
