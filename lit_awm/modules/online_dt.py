"""Online decision transformer."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.data import Bounded
from torchrl.modules import OnlineDTActor, ProbabilisticActor, TanhNormal
from torchrl.objectives import OnlineDTLoss

from lit_awm.checks import check_at_least, check_count
from lit_awm.distributed import gather
from lit_awm.models import Policy, Standardizer
from lit_awm.modules.agent import AgentModule
from lit_awm.modules.optimization import check_optimizer, default_optimizer

EDGE = 1 - 1e-6  # of recorded actions, at whose very bounds a squashed normal has no density


class DecisionTransformerPolicy(Policy):
    """Act by a transformer over what was seen and done, and over what is still to be earned, by TorchRL's actor.

    It has to be told of every step of an episode in turn, see ``act``.

    Args:
        state_dim: Size ``S`` of a state.
        action_dim: Size ``A`` of an action.
        context_length: Number ``K`` of steps that it looks back, the present one included.
        hidden_dim: Width of the transformer, a multiple of ``num_heads``.
        num_layers: Number of its layers.
        num_heads: Heads of a layer.
        dropout: Share in [0, 1) that is dropped out while it learns.

    Raises:
        ValueError: If an argument is out of its range.
        ImportError: If ``transformers``, on which TorchRL's actor is built, is not installed.

    Attributes:
        target_return: What it is to earn in an episode, in units of reward.
    """

    is_stochastic = True
    reads_history = True
    target_return: Tensor

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        context_length: int = 20,
        hidden_dim: int = 128,
        num_layers: int = 3,
        num_heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(state_dim, action_dim)
        check_count(1, context_length=context_length, num_layers=num_layers, num_heads=num_heads)
        if hidden_dim % num_heads:
            raise ValueError(f"num_heads must divide hidden_dim {hidden_dim}, got {num_heads}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}.")
        if find_spec("transformers") is None:
            raise ImportError(
                "DecisionTransformerPolicy needs transformers. Install it with: pip install 'lit-awm[odt]'"
            )
        self.context_length = context_length
        self.return_scaler = Standardizer(1)
        self.register_buffer("target_return", torch.tensor(0.0))
        config = {
            **{"n_embd": hidden_dim, "n_layer": num_layers, "n_head": num_heads, "n_inner": 4 * hidden_dim},
            **{"n_positions": 3 * context_length, "activation": "relu", "resid_pdrop": dropout, "attn_pdrop": dropout},
        }
        self.actor = OnlineDTActor(state_dim, action_dim, config)
        self.actor.transformer.transformer.drop.p = dropout  # of the embeddings, which the configuration leaves out
        self._memory: tuple[Tensor, Tensor, Tensor] | None = None

    @torch.no_grad()
    def act(self, state: Tensor, is_init: Tensor, earned: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the actions ``(N, A)`` of the next step, and remember it.

        Where one episode of the batch begins while others go on, what was before it is seen as zeros.

        Args:
            state: ``(N, S)``, in raw units.
            is_init: Whether an episode begins with this step ``(N, 1)``.
            earned: What the episode has earned before it ``(N, 1)``.
            noise: Standard normal numbers ``(N, A)`` that decide the action; None for the mode.
        """
        seen = self.state_scaler(state).unsqueeze(1)
        to_earn = self.return_scaler(self.target_return - earned).unsqueeze(1)
        done = state.new_zeros(len(state), 1, self.action_dim)  # the present action is not known yet
        context = (seen, done, to_earn)
        if self._memory is not None and not is_init.all():
            kept = [each[:, max(0, each.shape[1] + 1 - self.context_length) :] for each in self._memory]
            begins = is_init.unsqueeze(-1)
            context = tuple(  # type: ignore[assignment]
                torch.cat([old.masked_fill(begins, 0), new], dim=1) for old, new in zip(kept, context, strict=True)
            )
        was_training = self.training
        self.actor.eval()
        mean, deviation = (each[:, -1] for each in self.actor(context[0], context[1], context[2]))
        self.actor.train(was_training)
        action = (mean if noise is None else mean + deviation * noise).tanh()
        self._memory = context
        self.note(action)
        return action

    def note(self, action: Tensor) -> None:
        """Remember the action of the last step."""
        assert self._memory is not None
        self._memory[1][:, -1] = action

    def sample(self, state: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the actions for states ``(N, S)`` in which an episode begins."""
        begins = torch.ones_like(state[:, :1], dtype=torch.bool)
        return self.act(state, begins, torch.zeros_like(state[:, :1]), noise)


class OnlineDTModule(AgentModule):
    """Online decision transformer (Zheng et al., 2022, arXiv:2202.05607) by TorchRL's ``OnlineDTLoss``.

    The policy learns to do what was done in recorded trajectories, given what they earned from then on; hence every
    trajectory is an example of how to earn what it did. It acts as if it were to earn somewhat more than the best so
    far. Its entropy is kept above a target by a weight that is learned. A batch is one of
    :class:`~lit_awm.modules.agent.AgentModule`; give the data the policy's ``context_length`` as ``slice_length``.

    Args:
        state_dim: Size ``S`` of a state; the command line takes it from the data.
        action_dim: Size ``A`` of an action; the command line takes it from the data.
        policy: Makes the policy from ``S`` and ``A``.
        optimism: By how much more than the best recorded episode the policy is to earn, in standard deviations of what
            recorded steps earned from then on.
        initial_entropy_weight: Weight of the entropy at first.
        optimizer: Makes the optimizer from the parameters of the policy and the entropy weight.
        scheduler: Makes the learning-rate schedule, stepped after every update.

    Raises:
        ValueError: If an argument is out of its range, the policy is of another kind, or, when a fit begins, the data
            has slices of another length.
    """

    best_return: Tensor

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        policy: Callable[[int, int], DecisionTransformerPolicy] = DecisionTransformerPolicy,
        optimism: float = 0.2,
        initial_entropy_weight: float = 0.1,
        optimizer: OptimizerCallable = default_optimizer,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        check_at_least(0, optimism=optimism)
        if not initial_entropy_weight > 0:
            raise ValueError(f"initial_entropy_weight must be positive, got {initial_entropy_weight}.")
        built = policy(state_dim, action_dim)
        if not isinstance(built, DecisionTransformerPolicy):
            raise ValueError(f"policy must be a DecisionTransformerPolicy, got {type(built).__name__}.")
        super().__init__(built, optimizer, scheduler)
        self.optimism = optimism
        self.register_buffer("best_return", torch.tensor(-torch.inf))
        actor = ProbabilisticActor(
            TensorDictModule(built.actor, in_keys=["observation", "action", "return_to_go"], out_keys=["loc", "scale"]),
            in_keys=["loc", "scale"],
            distribution_class=TanhNormal,
            spec=Bounded(-1, 1, (action_dim,)),
        )
        self.dt = OnlineDTLoss(actor, alpha_init=initial_entropy_weight, target_entropy=-float(action_dim))
        check_optimizer(self.trained_parameters(), optimizer, scheduler)

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the policy and the entropy weight."""
        return [parameter for parameter in self.dt.parameters() if parameter.requires_grad]

    def fit_statistics(self, batch: TensorDict) -> None:
        """Set the standardisation from the first batch; keep the best return, and with it the target, up to date."""
        scaler = self._policy.return_scaler
        if not scaler.is_fitted:
            scaler.fit(gather(batch["return_to_go"]))
        super().fit_statistics(batch)
        self.best_return.copy_(torch.maximum(self.best_return, gather(batch["episode_return"]).max()))
        if self.best_return.isfinite():
            self._policy.target_return.copy_(self.best_return + self.optimism * scaler.scale[0])

    @property
    def _policy(self) -> DecisionTransformerPolicy:
        assert isinstance(self.policy, DecisionTransformerPolicy)
        return self.policy

    def _check_length(self, slice_length: int) -> None:
        if slice_length != self._policy.context_length:
            raise ValueError(
                f"slice_length must be the policy's context_length {self._policy.context_length}, got {slice_length}: "
                "the transformer learns the positions that it will act at. Set one as the other."
            )

    def setup(self, stage: str) -> None:
        super().setup(stage)
        slice_length = getattr(getattr(self.trainer, "datamodule", None), "slice_length", None)
        if stage == "fit" and slice_length is not None:
            self._check_length(slice_length)

    def loss_and_metrics(self, batch: TensorDict) -> tuple[Tensor, dict[str, Tensor]]:
        """Return minus the likelihood of the recorded actions and minus the weighted entropy, and these parts.

        The loss of the entropy's weight, which reaches nothing else, is part of the sum. Trajectories of episodes of
        which nobody knows what they would have earned do not count.

        Raises:
            ValueError: If trajectories are not as long as the policy's context.
        """
        self._check_length(batch.shape[1])
        batch = batch[batch["episode_return"].isfinite().all(dim=1).squeeze(-1)]
        if not len(batch):
            return sum(parameter.sum() * 0 for parameter in self.trained_parameters()), {}  # type: ignore[return-value]
        read = TensorDict(
            {
                "observation": self.policy.state_scaler(batch["observation"]),
                "action": batch["action"].clamp(-EDGE, EDGE),
                "return_to_go": self._policy.return_scaler(batch["return_to_go"]),
            },
            batch.shape,
        )
        found = self.dt(read)
        loss = found["loss_log_likelihood"] + found["loss_entropy"] + found["loss_alpha"]
        metrics = {"likelihood_loss": found["loss_log_likelihood"].detach(), "entropy": found["entropy"]}
        metrics |= {"entropy_weight": found["alpha"], "target_return": self._policy.target_return.clone()}
        return loss, {"loss": loss.detach(), **metrics}
