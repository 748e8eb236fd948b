"""A model of single steps that teaches another one whole trajectories.

Shape legend: ``B`` batch, ``H`` horizon, ``S`` state size, ``A`` action size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from tensordict import TensorDict
from torch import Tensor

from lit_awm.checks import check_at_least, check_count
from lit_awm.data.exploration import usual_hold
from lit_awm.models import MarkovWorldModel, Policy, WorldModel
from lit_awm.models.continuation import while_it_goes_on
from lit_awm.models.guided import FARTHEST
from lit_awm.modules.optimization import default_optimizer
from lit_awm.modules.schedules import Schedule, check_least, value_at
from lit_awm.modules.world_model import WorldModelModule

LABELLED_AT_ONCE = 10  # batches of trajectories, since to label one takes nearly as long
FOLLOWING = 0.75  # share of labelled trajectories that follow the policy
LEAST_SURVIVAL = 0.01  # of an episode, below which it does not matter what the teacher knows


class TeacherModule(WorldModelModule):
    """Fit a model of single steps to recorded trajectories, and let it label fresh sequences of actions.

    Where one step is simple it is learned from few data, while a model that predicts a whole trajectory from its
    actions has to see many of them: those that the teacher labels cost no step in the real environment. Most of them
    follow the policy, some recorded actions, all with noise that is held for some steps. They come as *twins*: the
    second one has the actions of the first but for a little more noise, so that the difference between them tells what
    actions change (see :class:`~lit_awm.modules.WorldModelModule`).

    Args:
        world_model: The teacher, a model that is fed back what it predicts.
        transitions: Steps that it is fitted to in an update, drawn from a batch of trajectories; none are left out
            where the batch has fewer.
        noise: Largest standard deviation of the noise on actions: a number, or a schedule over the batches that it has
            added to, by which what it labels comes nearer to the policy as that settles. The noise of a trajectory is
            below it, and mostly small: a square of what is drawn uniformly.
        mean_hold: Mean number of steps for which noise is held; None for a tenth of a trajectory, and ten steps at
            least.
        twin_noise: Standard deviation of the noise between twins, which is turned round where it would leave the range
            of actions: a number, or a schedule as above; 0 for trajectories that have nothing to do with each other. A
            batch has twins if it has four trajectories at least.
        optimizer: Makes the optimizer from the parameters.
        scheduler: Makes the learning-rate schedule, stepped after every update.

    Raises:
        ValueError: If the teacher is of another family, ``transitions`` or ``mean_hold`` is below 1, ``noise`` or
            ``twin_noise`` is negative, or optimizer or scheduler cannot be made of their arguments.
    """

    phases = ("teacher",)

    def __init__(
        self,
        world_model: WorldModel,
        transitions: int = 256,
        noise: float | Schedule = 0.5,
        mean_hold: float | None = None,
        twin_noise: float | Schedule = 0.1,
        optimizer: OptimizerCallable = default_optimizer,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if not isinstance(world_model, MarkovWorldModel):
            raise ValueError(
                f"teacher must be a MarkovWorldModel, which learns single steps, got {type(world_model).__name__}. "
                "Give one, or set `teacher: null`."
            )
        super().__init__(world_model, optimizer, scheduler)
        check_count(1, transitions=transitions)
        check_least(0, noise=noise, twin_noise=twin_noise)
        if mean_hold is not None:
            check_at_least(1, mean_hold=mean_hold)
        self.transitions, self.noise, self.mean_hold, self.twin_noise = transitions, noise, mean_hold, twin_noise
        self._labelled: list[TensorDict] = []
        self._batches = 0  # that it has added to

    def loss_and_metrics(self, batch: TensorDict) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean squared error of single steps, in units of what the teacher predicts, and its parts."""
        steps = batch.reshape(-1)
        if "mask" in steps.keys():
            steps = steps[steps["mask"]]
        chosen = torch.randperm(len(steps))[: self.transitions]
        return super().loss_and_metrics(steps[chosen].unsqueeze(1))

    @property
    def has_learned(self) -> bool:
        """Whether it has been fitted to any data."""
        return bool(self.world_model.state_scaler.is_fitted)

    def add_to(self, batch: TensorDict, policy: Policy) -> TensorDict:
        """Return a batch ``(B, H)`` of recorded trajectories with labelled ones in place of the second half.

        ``twin_weight`` is above 0 for twins of the one before, so that its mean over the batch is 1 if there are any;
        ``recorded_weight`` is above 0 for steps that were recorded, of which it is known what they earned and whether
        they ended an episode, with the same mean.
        """
        device = batch["observation"].device
        if not self._labelled:
            with torch.autocast(device.type, enabled=False):  # twins hardly differ
                self._labelled = list(self._label(batch, policy).chunk(LABELLED_AT_ONCE))
        self._batches += 1
        labelled = self._labelled.pop().to(device)
        is_twin = labelled.pop("is_twin")
        is_twin[0] = False  # of a trajectory in another batch
        recorded = _with_mask(batch)[: len(batch) - len(labelled)]
        mixed: TensorDict = torch.cat([recorded.select(*labelled.keys(True, True)), labelled])
        if mixed["mask"].all():
            del mixed["mask"]
        if (ended := recorded.get(("next", "terminated"), None)) is not None:
            unknown = ended.new_zeros(len(labelled), *ended.shape[1:])
            mixed["next", "terminated"] = torch.cat([ended, unknown])
        weight = torch.cat([recorded["mask"], torch.zeros_like(labelled["mask"])]).float()
        mixed["recorded_weight"] = weight / weight.mean()
        weight = torch.cat([torch.zeros_like(is_twin[:1]).expand(len(recorded), -1), is_twin]).float()
        mixed["twin_weight"] = weight / weight.mean().clamp(min=1 / len(mixed))
        return mixed

    @torch.no_grad()
    def judge(
        self,
        initial_state: Tensor,
        horizon: int,
        policy: Policy,
        disagreement_weight: float = 0.0,
        survival: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return what a policy earns from ``(B, S)``, without noise, in ``horizon`` steps by the teacher, ``(B,)``.

        It is minus infinity where the policy leads far away from all data, and the teacher cannot tell. Where its
        members disagree that costs what it costs the policy, see :class:`~lit_awm.modules.PolicyModule`. Rewards count
        as far as episodes go on by ``survival``, that of the world model which is taught.
        """
        states, actions, rewards = self._unroll(initial_state, horizon, lambda step, state: policy.sample(state))
        goes_on = torch.ones_like(rewards) if survival is None else survival(states)[:, :-1]
        earned = rewards
        if disagreement_weight and isinstance(self.world_model, MarkovWorldModel):
            earned = earned - disagreement_weight * self.world_model.disagreement(states[:, :-1], actions)
        returns = while_it_goes_on(earned, goes_on).sum(dim=1)
        is_reached = torch.cat([goes_on[:, :1], goes_on], dim=1) > LEAST_SURVIVAL
        knows = self._is_near(torch.where(is_reached.unsqueeze(-1), states, states[:, :1]))
        return torch.where(knows & returns.isfinite(), returns, -torch.inf)

    def forget(self) -> None:
        """Drop what has been labelled; to be called when the teacher has changed."""
        self._labelled = []

    @torch.no_grad()
    def _label(self, batch: TensorDict, policy: Policy) -> TensorDict:
        """Return ``(LABELLED_AT_ONCE * B, H)`` trajectories that the teacher imagines."""
        count, horizon = LABELLED_AT_ONCE * (len(batch) // 2), batch.shape[1]
        twin_noise = value_at(self.twin_noise, self._batches)
        alike = 2 if twin_noise else 1
        chosen = torch.randint(len(batch), (count // alike,))
        state, recorded = batch["observation"][chosen, 0], batch["action"][chosen]
        follows_policy = (torch.rand(len(chosen), 1) < FOLLOWING).to(state.device)
        noise = (self._draw_deviations(len(chosen)) * self._draw_noise(len(chosen), horizon)).to(state)
        apart = twin_noise * self._draw_noise(len(chosen), horizon).to(state)

        def act(step: int, state: Tensor) -> Tensor:
            action = torch.where(follows_policy, policy.sample(state[: len(chosen)]), recorded[:, step])
            action = (action + noise[:, step]).clamp(-1, 1)
            return action if alike == 1 else torch.cat([action, _move_within(action, apart[:, step])])

        of_pairs = torch.arange(count).view(alike, -1).T.flatten()  # twins next to each other
        unrolled = self._unroll(state.repeat(alike, 1), horizon, act)
        trajectories, actions, rewards = (each[of_pairs] for each in unrolled)
        fits = self._is_near(trajectories)
        after = {"observation": trajectories[:, 1:], "reward": rewards.unsqueeze(-1)}
        all_count = torch.ones_like(trajectories[:, 1:, 0], dtype=torch.bool)
        rows = TensorDict({"observation": trajectories[:, :-1], "action": actions, "next": after, "mask": all_count})
        rows.batch_size = [count, horizon]
        kept = _with_mask(batch)[chosen.repeat_interleave(alike)].select(*rows.keys(True, True))
        kept[fits] = rows[fits]  # but for those that the teacher cannot know about
        is_second = torch.arange(count, device=fits.device) % alike == 1
        kept["is_twin"] = (is_second & fits & fits.roll(1)).unsqueeze(1).repeat(1, horizon)
        return kept

    def _unroll(
        self, state: Tensor, horizon: int, act: Callable[[int, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return states ``(B, H + 1, S)``, actions ``(B, H, A)`` and rewards ``(B, H)`` from ``(B, S)`` on."""
        carry, states, actions, rewards = self.world_model.start(state, horizon), [state], [], []
        for step in range(horizon):
            actions.append(act(step, states[-1]))
            carry, state, reward = self.world_model.step(carry, actions[-1])
            states.append(state)
            rewards.append(reward)
        return torch.stack(states, 1), torch.stack(actions, 1), torch.stack(rewards, 1)

    def _is_near(self, trajectories: Tensor) -> Tensor:
        """Tell which of the trajectories ``(B, H, S)`` stay where there are data, ``(B,)``."""
        return (self.world_model.state_scaler(trajectories).abs() < FARTHEST).flatten(1).all(1)

    def _draw_deviations(self, count: int) -> Tensor:
        """Return a standard deviation of the noise for each trajectory, ``(count, 1, 1)``."""
        return value_at(self.noise, self._batches) * torch.rand(count, 1, 1).square()

    def _draw_noise(self, count: int, horizon: int) -> Tensor:
        """Return unit normal noise ``(count, H, A)``, piecewise constant in time."""
        draws = torch.randn(count, horizon, self.world_model.action_dim)
        mean_hold = usual_hold(horizon) if self.mean_hold is None else self.mean_hold
        renew = torch.rand(count, horizon, 1) < 1 / mean_hold
        renew[:, 0] = True
        steps = torch.arange(horizon).view(1, -1, 1)
        last = torch.where(renew, steps, 0).cummax(1).values
        return draws.gather(1, last.expand_as(draws))

    def get_extra_state(self) -> dict[str, Any]:
        """Return how far it is and the trajectories to be served next, so that a resumed run goes on exactly."""
        labelled = [rows.flatten_keys(".").to_dict() for rows in self._labelled]
        return {"labelled": labelled, "batches": self._batches}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``get_extra_state`` returned."""
        self._labelled = [TensorDict(rows).auto_batch_size_(2).unflatten_keys(".") for rows in state["labelled"]]
        self._batches = state.get("batches", 0)  # none in a checkpoint of a version without schedules


def _with_mask(batch: TensorDict) -> TensorDict:
    """Return trajectories ``(B, H)`` with a mask, if they have none, by which all steps count."""
    if "mask" in batch.keys():
        return batch
    return batch.copy().set("mask", torch.ones(batch.shape, dtype=torch.bool, device=batch["observation"].device))


def _move_within(actions: Tensor, by: Tensor) -> Tensor:
    """Return actions moved by some noise, the other way where they would leave their range."""
    moved = actions + by
    return torch.where(moved.abs() > 1, actions - by, moved).clamp(-1, 1)
