"""Soft actor-critic."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.data import Bounded
from torchrl.modules import ProbabilisticActor, TanhNormal
from torchrl.objectives import SACLoss, SoftUpdate, ValueEstimators

from lit_awm.checks import check_share
from lit_awm.distributed import gather
from lit_awm.models import ActionCritic, Standardizer, TanhNormalPolicy
from lit_awm.modules.agent import AgentModule
from lit_awm.modules.optimization import check_optimizer, default_optimizer


class SACModule(AgentModule):
    """Soft actor-critic (Haarnoja et al., 2018, arXiv:1812.05905) by TorchRL's ``SACLoss``.

    Two critics with slow copies, and a weight of the entropy that is learned. Rewards are divided by their standard
    deviation. A batch is one of :class:`~lit_awm.modules.agent.AgentModule`, of any ``H``; transitions by themselves,
    as is usual, come with ``slice_length: 1`` of the data.

    Args:
        state_dim: Size ``S`` of a state; the command line takes it from the data.
        action_dim: Size ``A`` of an action; the command line takes it from the data.
        policy: Makes the policy from ``S`` and ``A``.
        critic: Makes a critic from ``S`` and ``A``.
        discount: Factor in (0, 1] by which a reward counts less with every step.
        target_rate: Share in (0, 1] of the critics that their slow copies take over with every update.
        optimizer: Makes the optimizer from the parameters of policy, critics and entropy weight.
        scheduler: Makes the learning-rate schedule, stepped after every update.
        clock_step: Advance per step of the clock at the end of the state, or None; the command line takes it from the
            data. With a clock the end of an episode is a state like any other, after which nothing follows; without one
            an episode that is cut short counts as if it went on (Pardo et al., 2018, arXiv:1712.00378).

    Raises:
        ValueError: If an argument is out of its range, or the policy is deterministic.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        policy: Callable[[int, int], TanhNormalPolicy] = TanhNormalPolicy,
        critic: Callable[[int, int], ActionCritic] = ActionCritic,
        discount: float = 0.99,
        target_rate: float = 0.005,
        optimizer: OptimizerCallable = default_optimizer,
        scheduler: LRSchedulerCallable | None = None,
        clock_step: float | None = None,
    ) -> None:
        check_share(discount=discount, target_rate=target_rate)
        built = policy(state_dim, action_dim)
        if not isinstance(built, TanhNormalPolicy):
            raise ValueError(f"policy must be a TanhNormalPolicy for SACModule, got {type(built).__name__}.")
        super().__init__(built, optimizer, scheduler)
        self.clock_step, self.reward_scaler = clock_step, Standardizer(1)
        self.sac = _make_loss(built, critic(state_dim, action_dim), discount)
        self.targets = SoftUpdate(self.sac, tau=target_rate)
        check_optimizer(self.trained_parameters(), optimizer, scheduler)

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of policy, critics and entropy weight."""
        return [parameter for parameter in self.sac.parameters() if parameter.requires_grad]

    def fit_statistics(self, batch: TensorDict) -> None:
        """Set the standardisation of states, and the unit of rewards, from a batch, unless they were set before."""
        super().fit_statistics(batch)
        if not self.reward_scaler.is_fitted:
            self.reward_scaler.fit(gather(batch["next", "reward"]))

    def ends(self, batch: TensorDict) -> Tensor:
        """Tell after which transitions nothing follows, ``(B, H, 1)``: the domain was left, or the clock ran out."""
        terminated: Tensor = batch["next", "terminated"]
        if self.clock_step is None:
            return terminated
        return terminated | (batch["next", "observation"][..., -1:] > 1 - self.clock_step / 2)

    def loss_and_metrics(self, batch: TensorDict) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the losses of critics, policy and entropy weight, none of which reaches another's weights.

        Metrics are these losses, the entropy and its weight.
        """
        found = self.sac(self._in_standard_units(batch))
        losses = {name: value for name, value in found.items() if name.startswith("loss_")}
        loss = torch.stack(list(losses.values())).sum()
        metrics = {name.removeprefix("loss_") + "_loss": value.detach() for name, value in losses.items()}
        metrics |= {"entropy": found["entropy"], "entropy_weight": found["alpha"]}
        return loss, {"loss": loss.detach(), **metrics}

    def _in_standard_units(self, batch: TensorDict) -> TensorDict:
        """Return the transitions ``(N,)`` of a batch as the loss reads them."""
        ends, scaler = self.ends(batch), self.policy.state_scaler
        after = {
            "observation": scaler(batch["next", "observation"]),
            "reward": batch["next", "reward"] / self.reward_scaler.scale,
            "terminated": ends,
            "done": ends,
        }
        now = {"observation": scaler(batch["observation"]), "action": batch["action"]}
        return TensorDict({**now, "next": TensorDict(after, batch.shape)}, batch.shape).reshape(-1)

    def after_update(self) -> None:
        """Count an update, and let the slow copies of the critics follow."""
        super().after_update()
        self.targets.step()


class _Actor(nn.Module):
    """What the loss asks of a policy: mean and standard deviation for states in standard units."""

    def __init__(self, policy: TanhNormalPolicy) -> None:
        super().__init__()
        self.network, self.read = policy.network, policy.read

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.read(self.network(state))


def _make_loss(policy: TanhNormalPolicy, critic: ActionCritic, discount: float) -> SACLoss:
    actor = ProbabilisticActor(
        TensorDictModule(_Actor(policy), in_keys=["observation"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        return_log_prob=True,
        spec=Bounded(-1, 1, (policy.action_dim,)),
    )
    value = TensorDictModule(critic, in_keys=["observation", "action"], out_keys=["state_action_value"])
    loss = SACLoss(actor, value, loss_function="l2", alpha_init=0.1)
    loss.make_value_estimator(ValueEstimators.TD0, gamma=discount)
    _ = loss.target_entropy  # becomes a buffer when it is first asked for, after which a checkpoint has it
    return loss
