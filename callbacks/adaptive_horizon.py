"""Lengthen the imagined trajectories as long as their gradient can be trusted."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lit_awm.analysis import measure_gradients
from lit_awm.callbacks.horizon import HorizonCallback
from lit_awm.callbacks.policy_module import policy_module
from lit_awm.checks import check_count, check_positive
from lit_awm.distributed import gather_objects


class AdaptiveHorizon(HorizonCallback):
    """Adapt the ``imagination_horizon`` to the signal-to-noise ratio of the policy gradient.

    Before an update, every ``every`` updates of the policy, the gradients of the batch's trajectories are measured one
    by one, with the imagined noise of the module. If their mean is ``threshold`` times the root of their total variance
    or more, the horizon grows by ``growth``, to the module's own at most; trajectories that do not differ have no
    variance and let it grow. If the norm is not finite, or more than ``explosion`` times that of the measurement
    before, the horizon shrinks by ``growth``, to ``start`` at least. Logged as ``policy/imagination_horizon`` and
    ``policy/horizon_snr``. A resumed run goes on with the horizon it had.

    What is measured is the gradient of the sum of imagined rewards: an entropy bonus, a discount and a bootstrap are
    left out.

    Args:
        start: Least horizon, at least 1; the first measurement, before the first update, is made with it.
        threshold: Signal-to-noise ratio, positive, from which on the horizon grows.
        growth: Factor above 1.
        explosion: Factor above 1 by which the norm may grow from one measurement to the next.
        every: Updates of the policy between two measurements.

    Raises:
        ValueError: If an argument is out of its range, or ``start`` above the module's horizon when training starts.
    """

    def __init__(
        self, start: int, threshold: float = 1.0, growth: float = 1.25, explosion: float = 10.0, every: int = 50
    ) -> None:
        super().__init__(start)
        check_count(every=every)
        check_positive(threshold=threshold)
        for name, value in (("growth", growth), ("explosion", explosion)):
            if not 1 < value < math.inf:
                raise ValueError(f"{name} must be above 1 and finite, got {value}.")
        self.threshold, self.growth = threshold, growth
        self.explosion, self.every = explosion, every
        self.horizon = start
        self._measured: int | None = None  # number of the last update before which there was a measurement
        self._last_norm: float | None = None
        self._signal_to_noise: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":  # of which a checkpoint, read later, may tell how far it had come
            self.horizon, self._measured, self._last_norm, self._signal_to_noise = self.start, None, None, None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        module = policy_module(pl_module, type(self).__name__)
        assert self.full is not None
        self.horizon = min(self.horizon, self.full)  # a resumed run may have been given a shorter one
        module.imagination_horizon = self.horizon
        is_for_policy = ("phase" not in batch.keys()) or batch["phase"] == "policy"
        if not is_for_policy:
            return
        update = int(module.updates)
        if update % self.every == 0 and update != self._measured:
            self._measured, initial = update, batch["observation"]
            with torch.random.fork_rng():
                torch.manual_seed(update)
                measured = measure_gradients(
                    module.imagines_in,
                    module.policy,
                    initial,
                    [self.horizon],
                    policy_input_gradient=module.policy_input_gradient,
                    action_noise=module.draw_noise(initial, self.horizon),
                )
            own = measured[0].norm, measured[0].signal_to_noise
            norm, self._signal_to_noise = gather_objects(own)[0]  # of the first process, so that all agree
            module.imagination_horizon = self.adapt(norm, self._signal_to_noise)
        if self._signal_to_noise is not None:
            pl_module.log("policy/horizon_snr", self._signal_to_noise, batch_size=1)
        pl_module.log("policy/imagination_horizon", float(module.imagination_horizon), batch_size=1)

    def adapt(self, norm: float, ratio: float | None) -> int:
        """Return the next horizon, and remember it, after a measurement of the gradient's norm and signal-to-noise."""
        assert self.full is not None
        limit = self.explosion * self._last_norm if self._last_norm else math.inf  # of 0 anything is a multiple
        if not math.isfinite(norm) or norm > limit:
            self.horizon = max(self.start, int(self.horizon / self.growth))
        elif ratio is None or ratio >= self.threshold:
            self.horizon = min(self.full, math.ceil(self.horizon * self.growth))
        if math.isfinite(norm):
            self._last_norm = norm
        return self.horizon

    def state_dict(self) -> dict[str, Any]:
        """Return the horizon and what was measured last."""
        measured = {"measured": self._measured, "last_norm": self._last_norm, "signal_to_noise": self._signal_to_noise}
        return {"horizon": self.horizon, **measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the horizon of ``state_dict``."""
        self.horizon, self._last_norm = state_dict["horizon"], state_dict["last_norm"]
        self._signal_to_noise, self._measured = state_dict["signal_to_noise"], state_dict.get("measured")
