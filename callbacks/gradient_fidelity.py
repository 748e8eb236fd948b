"""Log how true the policy gradient is."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_awm.analysis import measure_gradients
from lit_awm.callbacks.policy_module import policy_module
from lit_awm.checks import check_count
from lit_awm.data import ExperienceDataModule
from lit_awm.models import SimulatorWorldModel


class GradientFidelity(Callback):
    """Compare, in every validation, the policy gradient in imagination with that through the true simulator.

    It logs ``policy/gradient_cosine``, ``policy/gradient_ratio`` (norm over that of the true one) and, where initial
    states differ, ``policy/gradient_snr`` (norm of the mean over the root of the total variance over initial states).
    The horizon is the module's own at the time; a reward that the world model was given is that of the simulator too.
    What is compared is the gradient of the sum of imagined rewards, without noise on the actions: an entropy bonus, a
    discount and a bootstrap are left out. The random numbers of training are left alone.

    Args:
        states: Number of initial states, drawn once from the environment; 1 is enough where all are the same.

    Raises:
        ValueError: If ``states`` is no whole number from 1 on; or, when training starts, if the module optimises no
            policy, or the environment's step is no known function of the observation.
    """

    def __init__(self, states: int = 1) -> None:
        check_count(states=states)
        self.states = states
        self._initial: torch.Tensor | None = None
        self._simulator: SimulatorWorldModel | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        if not isinstance(data, ExperienceDataModule) or data.known_step_fn is None:
            raise ValueError(
                "GradientFidelity needs an ExperienceDataModule whose environment is a system of the testbed, observed "
                f"with a clock and without noise or distractors, got {type(data).__name__}. Leave the callback out."
            )
        model = policy_module(pl_module, type(self).__name__).world_model
        reward_fn = model.reward_fn if model.knows_reward else None  # a learned one is not the simulator's
        self._simulator = SimulatorWorldModel(data.state_dim, data.action_dim, data.known_step_fn, reward_fn=reward_fn)
        self._initial = data.draw_initial_states(self.states)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = policy_module(pl_module, type(self).__name__)
        if trainer.sanity_checking or not module.policy.state_scaler.is_fitted:
            return
        assert self._simulator is not None
        assert self._initial is not None
        initial, simulator = self._initial.to(module.device), self._simulator.to(module.device)
        # cuDNN does not differentiate recurrent networks in evaluation mode, which is that of a validation.
        without_cudnn = torch.backends.cudnn.flags(enabled=False)
        with torch.enable_grad(), torch.inference_mode(False), torch.random.fork_rng(), without_cudnn:
            measured = []
            for world_model in (module.imagines_in, simulator):
                torch.manual_seed(0)  # a stochastic policy meets the same noise in both
                measured += measure_gradients(
                    world_model,
                    module.policy,
                    initial.clone(),
                    [module.imagination_horizon],
                    policy_input_gradient=module.policy_input_gradient,
                )
        ours, truth = measured
        cosine, ratio = ours.fidelity(truth)
        metrics = {"policy/gradient_cosine": cosine, "policy/gradient_ratio": ratio}
        if ours.signal_to_noise is not None:
            metrics["policy/gradient_snr"] = ours.signal_to_noise
        pl_module.log_dict(metrics, batch_size=1)
