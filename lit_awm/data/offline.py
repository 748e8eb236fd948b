"""Recorded trajectories as a Lightning datamodule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from tensordict import TensorDict
from torch import Tensor

from lit_awm.checks import check_at_least, check_count
from lit_awm.data.buffer import ExperienceBuffer, ImagineFrom
from lit_awm.data.collectors import TRAJECTORY
from lit_awm.data.evaluation import EvaluationEpisodes, make_eval_env
from lit_awm.data.experience import EVALUATION_SEED, RANK_STRIDE
from lit_awm.data.formats import read_rows, to_trajectories
from lit_awm.data.generators import generator_states, set_generator_states
from lit_awm.data.schedule import make_loop
from lit_awm.distributed import check_ranks, gather_objects, process_count, rank
from lit_awm.envs import KnownReward, load_optimum, make_env
from lit_awm.envs.known import find_clock_step
from lit_awm.loops import AlternatingLoop
from lit_awm.models import Policy


class TrajectoryDataModule(LightningDataModule):
    """Serve trajectories that have been recorded before, in place of collecting any.

    Batches are those of :class:`~lit_awm.data.ExperienceDataModule`: for a world model slices ``(B, H)``, each of which
    lies within one episode, for a policy in it states ``(B,)``. For a world model alone some episodes are held out for
    validation. Where the environment is given, its reward is known and a policy is evaluated in it; nothing is
    collected there.

    Args:
        path: Where the recording is, see :func:`~lit_awm.data.formats.read_rows`.
        columns: What fields are called in it, or which columns they are made of.
        action_range: For each component of an action what -1 and 1 stand for; None if actions are recorded in [-1, 1].
        slice_length: Steps of the trajectories that a world model is fitted to. Shorter episodes are filled up.
        imagine_from: What states a batch for the policy holds: first ones, ``"start"``, or any, ``"anywhere"``.
        teacher_updates: Batches for a teacher of the world model in an epoch.
        world_model_updates: Batches for the world model in an epoch.
        policy_updates: Batches for the policy in an epoch.
        turns: Into how many parts the batches of an epoch are split, each with its share of every phase.
        world_model_batch_size: Trajectories in a batch for the world model.
        policy_batch_size: Initial states in a batch for the policy.
        validation_share: Share of episodes, of those that are not shorter, that are held out from a world model alone,
            rounded up; 0 for none.
        env: Name of the system that was recorded, see ``lit-awm envs``, or None.
        env_options: Its parameters, with ``episode_length``.
        eval_episodes: Episodes of an evaluation in it.
        seed: Decides which episodes are held out.

    Raises:
        ValueError: If an argument is out of its range, or the recording does not fit; the message says what to do.
    """

    def __init__(
        self,
        path: str,
        columns: dict[str, str | list[str]] | None = None,
        action_range: list[list[float]] | None = None,
        slice_length: int = 100,
        imagine_from: ImagineFrom = "start",
        teacher_updates: int = 300,
        world_model_updates: int = 300,
        policy_updates: int = 300,
        turns: int = 1,
        world_model_batch_size: int = 16,
        policy_batch_size: int = 16,
        validation_share: float = 0.1,
        env: str | None = None,
        env_options: dict[str, Any] | None = None,
        eval_episodes: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.updates = {"teacher": teacher_updates, "world_model": world_model_updates, "policy": policy_updates}
        check_count(1, **{f"{phase}_updates": count for phase, count in self.updates.items()})
        check_count(1, slice_length=slice_length, turns=turns, eval_episodes=eval_episodes)
        check_count(1, world_model_batch_size=world_model_batch_size, policy_batch_size=policy_batch_size)
        check_count(0, seed=seed)
        check_at_least(0, validation_share=validation_share)
        if not validation_share < 1:
            raise ValueError(f"validation_share must be below 1, got {validation_share}.")
        if imagine_from not in get_args(ImagineFrom):
            raise ValueError(f"imagine_from must be one of {', '.join(get_args(ImagineFrom))}, got {imagine_from!r}.")
        self.slice_length, self.imagine_from, self.turns = slice_length, imagine_from, turns
        self.world_model_batch_size, self.policy_batch_size = world_model_batch_size, policy_batch_size
        if env is None and (env_options or eval_episodes != 1):
            raise ValueError(
                f"env must be given with env_options or eval_episodes, got {env_options} and {eval_episodes} without: "
                "policies are evaluated in it. Name the environment, or leave them out."
            )
        if "num_envs" in (env_options or {}):
            raise ValueError("env_options must not hold num_envs. Give the number of episodes as eval_episodes.")
        steps = to_trajectories(read_rows(path, columns))
        _scale_actions(steps, action_range)
        self.training, self.held_out = _split(steps, slice_length, validation_share, seed)
        self.env_name, self.eval_episodes, self.eval_env, self.optimum = env, eval_episodes, None, None
        self.env_options = dict(env_options or {})
        if env is not None:
            self.eval_env = make_eval_env(env, eval_episodes, **self.env_options)
            self.optimum = load_optimum(env, **self.env_options)
            _check_sizes(self.eval_env, self.state_dim, self.action_dim)
        self.policy: Policy | None = None
        self.buffer: ExperienceBuffer | None = None
        self._holds_all = False  # the episodes held out, too

    # -- What models need to know ---------------------------------------------------------------------------------

    @property
    def state_dim(self) -> int:
        """Size ``S`` of an observation."""
        return int(self.training[0]["observation"].shape[-1])

    @property
    def action_dim(self) -> int:
        """Size ``A`` of an action."""
        return int(self.training[0]["action"].shape[-1])

    @property
    def known_reward_fn(self) -> KnownReward | None:
        """The reward as a function of observation, action and next observation; None if it is not known."""
        if self.env_name is None:
            return None
        env = make_env(self.env_name, **self.env_options)  # in the precision of models
        return KnownReward(env) if KnownReward.is_known(env) else None

    @property
    def known_step_fn(self) -> None:
        """Recorded trajectories come without a simulator."""

    @property
    def clock_step(self) -> float | None:
        """What the clock at the end of the observation advances by in a step, or None if there is no clock."""
        return None if self.eval_env is None else find_clock_step(self.eval_env)

    # -- Lightning ------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Put the training episodes where batches are drawn from."""
        assert self.trainer is not None
        self.policy = getattr(self.trainer.lightning_module, "behaviour_policy", None)
        self.phases = getattr(self.trainer.lightning_module, "phases", ("world_model",))
        if "agent" in self.phases:
            raise ValueError(
                "data must be an ExperienceDataModule for an agent, which learns while it collects, got a "
                f"TrajectoryDataModule for {type(self.trainer.lightning_module).__name__}."
            )
        if self.env_name is not None and process_count() > 1:  # each has its share of an evaluation
            share = math.ceil(self.eval_episodes / process_count())
            self.eval_env = make_eval_env(self.env_name, share, **self.env_options)
        if stage != "fit":
            return
        if getattr(self.trainer.lightning_module, "learns_ends", False):
            self._check_ends()
        holds_all = self.policy is not None  # else some are held out
        if self.buffer is not None and holds_all == self._holds_all:
            return
        self._holds_all = holds_all
        if rank():
            torch.manual_seed(torch.initial_seed() + RANK_STRIDE * rank())
        episodes = self.training if self.policy is None else [*self.training, *self.held_out]
        short = sum(len(episode) < self.slice_length for episode in episodes)
        rank_zero_info(
            f"trajectories: {len(episodes)} of {len(self.training) + len(self.held_out)} episodes are learned from, of "
            f"which {short} shorter than slice_length {self.slice_length} are filled up"
        )
        steps = torch.cat(episodes)
        self.buffer = ExperienceBuffer(len(steps), self.slice_length, self.world_model_batch_size, False)
        self.buffer.add(steps.unsqueeze(0))

    def _check_ends(self) -> None:
        """Reject a recording without ends for a world model that is to learn them."""
        if not any(episode["next", "terminated"].any() for episode in self.training):
            raise ValueError(
                "path must hold steps that are `terminated` for a world model with a `continuation`, got none. Name "
                "the column in `columns`, and record `next_observation`, without which last steps are left out; or "
                "leave `continuation` out."
            )

    def train_dataloader(self) -> AlternatingLoop:
        """Return the loop over the phases of the module that is fitted."""
        assert self.trainer is not None
        return make_loop(self, self.trainer, {phase: self.updates[phase] for phase in self.phases}, self.turns)

    def val_dataloader(self) -> EvaluationEpisodes | HeldOut | list[Any]:
        """Return the evaluation of the policy, or, for a world model alone, slices of the episodes held out."""
        if self.policy is None:
            slices = [part for episode in self.held_out for part in episode.split(self.slice_length)]
            whole = [part for part in slices if len(part) == self.slice_length]
            return HeldOut(torch.stack(whole), self.world_model_batch_size) if whole else []
        if self.eval_env is None:
            return []
        return EvaluationEpisodes(self.eval_env, self.policy, self.optimum, EVALUATION_SEED - rank())

    # -- The source of batches ------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Do nothing: all there is has been recorded."""

    def sample_trajectories(self) -> TensorDict:
        """Return slices ``(B, H)`` of recorded episodes."""
        assert self.buffer is not None
        return self.buffer.sample_trajectories()

    def sample_initial_states(self) -> TensorDict:
        """Return ``(B,)`` recorded states to imagine from."""
        assert self.buffer is not None
        return self.buffer.sample_states(self.policy_batch_size, self.imagine_from)

    def draw_initial_states(self, count: int) -> Tensor:
        """Return ``(count, S)`` states in which recorded episodes begin, always the same ones."""
        first = [episode["observation"][0] for episode in self.training[:count]]
        return torch.stack(first)[torch.arange(count) % len(first)]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of what draws batches; all processes must call it."""
        if self.buffer is None:
            return {}
        return {"ranks": gather_objects({"drawn": self.buffer.drawn(), "global": generator_states()})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on drawing as if the run had never stopped."""
        if self.buffer is None or not state_dict:
            return
        check_ranks(len(state_dict["ranks"]))
        own = state_dict["ranks"][rank()]
        self.buffer.load_drawn(own["drawn"])
        set_generator_states(own["global"])


class HeldOut:
    """A dataloader of slices ``(M, H)``, always in the same order.

    Args:
        slices: The slices.
        batch_size: How many come at a time.
    """

    def __init__(self, slices: TensorDict, batch_size: int) -> None:
        self.slices, self.batch_size = slices, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.slices) / self.batch_size)

    def __iter__(self) -> Iterator[TensorDict]:
        return iter(self.slices.split(self.batch_size))


def _scale_actions(steps: TensorDict, action_range: Sequence[Sequence[float]] | None) -> None:
    """Scale actions to [-1, 1], in place."""
    actions = steps["action"]
    if action_range is not None:
        try:
            bounds = torch.tensor(action_range, dtype=actions.dtype)
            fits = bounds.shape == (actions.shape[-1], 2) and bool((bounds[:, 0] < bounds[:, 1]).all())
        except (TypeError, ValueError):
            fits = False
        if not fits or not bounds.isfinite().all():
            raise ValueError(
                f"action_range must hold finite [low, high] for each of {actions.shape[-1]} components, got "
                f"{action_range}."
            )
        actions = 2 * (actions - bounds[:, 0]) / (bounds[:, 1] - bounds[:, 0]) - 1
    least, most = actions.amin(0), actions.amax(0)
    if (least < -1.001).any() or (most > 1.001).any():
        raise ValueError(
            f"actions must lie in [-1, 1], as those of a policy do, got {least.tolist()} to {most.tolist()}. Give "
            "`action_range`: what -1 and 1 stand for, for each component."
        )
    steps["action"] = actions


def _split(steps: TensorDict, length: int, share: float, seed: int) -> tuple[list[TensorDict], list[TensorDict]]:
    """Return the episodes ``(T,)`` to train on, and those held out, as views of the steps ``(N,)``."""
    ids, counts = steps[TRAJECTORY].unique_consecutive(return_counts=True)
    if not (counts >= length).any():
        raise ValueError(
            f"slice_length must be at most {int(counts.max()) if len(counts) else 0}, the longest episode of "
            f"{len(ids)}, got {length}. Lower it; if all is one recording without ends, name the column that tells "
            "episodes apart in `columns`."
        )
    episodes, long = steps.split(counts.tolist()), (counts >= length).nonzero().flatten().tolist()
    order = torch.randperm(len(long), generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = sorted(long[number] for number in order[: min(math.ceil(share * len(long)), len(long) - 1)])
    training = [episode for number, episode in enumerate(episodes) if number not in set(held_out)]
    return training, [episodes[number] for number in held_out]


def _check_sizes(env: Any, state_dim: int, action_dim: int) -> None:
    found = env.observation_spec["observation"].shape[-1], env.action_spec.shape[-1]
    if found != (state_dim, action_dim):
        raise ValueError(
            f"env must observe {state_dim} numbers and take {action_dim}, as were recorded, got {found[0]} and "
            f"{found[1]} from {env.name}. Leave it out, or record with the same options."
        )
