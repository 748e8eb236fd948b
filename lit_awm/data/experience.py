"""Experience in the real environment as a Lightning datamodule."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from lightning.pytorch import LightningDataModule
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from lit_awm.checks import check_at_least, check_count, check_writable
from lit_awm.data.buffer import ExperienceBuffer, ImagineFrom
from lit_awm.data.collectors import TRAJECTORY, CollectorKind, EpisodeCollector, check_collector
from lit_awm.data.evaluation import EvaluationEpisodes, evaluate, make_eval_env
from lit_awm.data.exploration import Exploration, usual_hold
from lit_awm.data.generators import generator_states, set_generator_states
from lit_awm.data.lengths import check_lengths, check_warmup
from lit_awm.data.returns import add_returns
from lit_awm.data.schedule import make_loop
from lit_awm.distributed import check_ranks, gather_objects, process_count, rank
from lit_awm.envs import ControlEnv, KnownReward, KnownStep, load_optimum, make_env
from lit_awm.envs.known import find_clock_step
from lit_awm.envs.simulators import SimulatorEnv
from lit_awm.loops import AlternatingLoop
from lit_awm.models import Policy

EVALUATION_SEED = 2**31 - 1
RANK_STRIDE = 100_003  # between the seeds of two processes


class ExperienceDataModule(LightningDataModule):
    """Collect experience with the policy in training, and serve it back as batches.

    Each epoch of the trainer is one outer iteration. The very first one collects ``warmup_episodes`` with random
    actions, every later one ``num_envs`` episodes with the policy plus noise, or at random if the module has no policy.
    What batches follow depends on the module that is fitted (its ``phases``): trajectories ``(B, H)`` for a world
    model or for an agent without one, initial states ``(B,)`` for a policy in a world model, or both in turn.
    Validation is one evaluation of the policy without noise, at a seed that never changes. A further fit goes on with
    the experience of those before.

    Args:
        env: Name of the system, see ``lit-awm envs``.
        env_options: Parameters of the system and its discretisation, see :func:`~lit_awm.envs.make_env`.
        episode_length: Steps of an episode.
        num_envs: Environments stepped together, hence episodes collected in an outer iteration.
        warmup_episodes: Episodes with random actions before the first update, a multiple of ``num_envs``.
        round_length: Steps that each environment takes in an outer iteration, None for an episode. Fewer let the models
            follow sooner where episodes become long; an episode that would go on is cut off, and whatever is said of
            episodes of the warm-up is of rounds. For world models only.
        exploration_noise: Standard deviation of the noise on the policy's action, in its range of [-1, 1].
        mean_hold: Mean number of steps for which a random action or noise is held; None for a tenth of an episode, and
            ten steps at least.
        teacher_updates: Batches for a teacher of the world model in an outer iteration.
        world_model_updates: Batches for the world model in an outer iteration.
        policy_updates: Batches for the policy in an outer iteration.
        agent_updates: Batches for an agent without a world model in an outer iteration.
        turns: Into how many parts the batches of an outer iteration are split, each with its share of every phase.
        world_model_batch_size: Trajectories in a batch for the world model.
        policy_batch_size: Initial states in a batch for the policy.
        agent_batch_size: Trajectories in a batch for an agent without a world model.
        slice_length: Steps of the trajectories that a world model, or such an agent, is fitted to; None for whole
            episodes. For a world model episodes that end earlier are filled up; for an agent they are left out.
        imagine_from: What states a batch for the policy holds: those in which an episode began, ``"start"``, or any
            recorded ones, ``"anywhere"``, which suits an imagination horizon shorter than the episode.
        capacity: Steps that the replay buffer holds.
        storage_dir: Folder for the replay buffer, in files that are mapped into memory and go with the run; None to
            hold it in memory.
        collector: Who steps the environments, see :class:`~lit_awm.data.collectors.EpisodeCollector`.
        num_collectors: How many processes do; each has its share of ``num_envs``.
        trial: Whether an outer iteration of an ``AlternatingModule`` ends with one more episode, by the policy without
            noise, which counts and is learned from like the others, and after which a policy that has earned less than
            another is replaced by that. It is as precise as evaluations are. All trials of a run have the same seed. It
            suits environments in which all episodes begin alike and nothing happens by chance; agents are not tried.
        eval_episodes: Episodes of an evaluation, of all processes together; one is enough where all begin alike.
        seed: Seed of the environments in which experience is collected; that of the evaluation never changes.

    Raises:
        ValueError: If an argument is out of its range; the message says which and what to do.
    """

    exploration: Exploration

    def __init__(
        self,
        env: str = "cancer_treatment",
        env_options: dict[str, Any] | None = None,
        episode_length: int = 100,
        num_envs: int = 4,
        warmup_episodes: int = 12,
        round_length: int | None = None,
        exploration_noise: float = 0.3,
        mean_hold: float | None = None,
        teacher_updates: int = 300,
        world_model_updates: int = 300,
        policy_updates: int = 300,
        agent_updates: int = 400,
        turns: int = 1,
        world_model_batch_size: int = 16,
        policy_batch_size: int = 16,
        agent_batch_size: int = 256,
        slice_length: int | None = None,
        imagine_from: ImagineFrom = "start",
        capacity: int = 100_000,
        storage_dir: str | None = None,
        collector: CollectorKind = "single",
        num_collectors: int = 1,
        trial: bool = False,
        eval_episodes: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_count(1, episode_length=episode_length, num_envs=num_envs, warmup_episodes=warmup_episodes)
        self.updates = {"teacher": teacher_updates, "world_model": world_model_updates}
        self.updates |= {"policy": policy_updates, "agent": agent_updates}
        check_count(1, **{f"{phase}_updates": count for phase, count in self.updates.items()})
        check_count(1, world_model_batch_size=world_model_batch_size, policy_batch_size=policy_batch_size)
        check_count(1, agent_batch_size=agent_batch_size, turns=turns, eval_episodes=eval_episodes, capacity=capacity)
        check_count(0, seed=seed)
        mean_hold = usual_hold(episode_length) if mean_hold is None else mean_hold
        check_at_least(1, mean_hold=mean_hold)
        check_at_least(0, exploration_noise=exploration_noise)
        self.round_length = episode_length if round_length is None else round_length
        self.slice_length = self.round_length if slice_length is None else slice_length
        check_lengths(self.slice_length, round_length, episode_length)
        _check_experience(imagine_from, env_options or {}, storage_dir)
        options = {"episode_length": episode_length, **(env_options or {})}
        self.env_name, self.env_options, self._options = env, dict(env_options or {}), options
        self.env = make_env(env, num_envs, **options)
        check_warmup(warmup_episodes, num_envs, self.round_length, capacity, episode_length if trial else 0)
        self.eval_env, self.eval_episodes = make_eval_env(env, eval_episodes, **options), eval_episodes
        self.trial_env = make_eval_env(env, 1, **options) if trial else None
        check_collector(collector, num_collectors, num_envs)
        self.collector_kind, self.num_collectors = collector, num_collectors
        self.optimum = load_optimum(env, **options)
        self.warmup_rounds, self.policy_batch_size = warmup_episodes // num_envs, policy_batch_size
        self.exploration_noise, self.mean_hold, self.turns = exploration_noise, mean_hold, turns
        self.world_model_batch_size, self.agent_batch_size = world_model_batch_size, agent_batch_size
        self.imagine_from, self.capacity, self.seed, self.storage_dir = imagine_from, capacity, seed, storage_dir
        self.longest_episode, self.processes, self.env_steps = 0, 1, 0
        self.buffer: ExperienceBuffer | None = None
        self.policy: Policy | None = None
        self.collector: EpisodeCollector | None = None

    @property
    def staleness(self) -> float | None:
        """Rounds by which the policy that acted in the last one was behind the latest; None if it never is."""
        if self.collector is None or self.collector_kind != "multi_async":
            return None
        return self.collector.staleness

    # -- What models need to know about the environment -----------------------------------------------------------

    @property
    def state_dim(self) -> int:
        """Size ``S`` of what the environment emits and a world model predicts."""
        return self.env.observation_spec["observation"].shape[-1]

    @property
    def action_dim(self) -> int:
        """Size ``A`` of an action."""
        return self.env.action_spec.shape[-1]

    @property
    def known_reward_fn(self) -> KnownReward | None:
        """The reward as a function of observation, action and next observation; None if it is not known.

        It is known for the systems of the testbed, if the clock that it needs is observed.
        """
        return KnownReward(self.env) if KnownReward.is_known(self.env) else None

    @property
    def known_step_fn(self) -> KnownStep | None:
        """The step as a function of observation and action; None if it is not known.

        It is known where the reward is and there are neither distractors nor noise.
        """
        return KnownStep(self.env) if KnownStep.is_known(self.env) else None

    @property
    def clock_step(self) -> float | None:
        """What the clock at the end of the observation advances by in a step, or None if there is no clock."""
        return find_clock_step(self.env)

    # -- Lightning ------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Collect with the policy of the module that is fitted; the first fit makes the collector and the buffer."""
        assert self.trainer is not None
        self.policy = getattr(self.trainer.lightning_module, "behaviour_policy", None)
        self.phases = getattr(self.trainer.lightning_module, "phases", ("world_model",))
        self.learns_ends = getattr(self.trainer.lightning_module, "learns_ends", False)
        self.processes = process_count()
        if self.processes > 1:  # each has its share of an evaluation, and at least one episode
            share = math.ceil(self.eval_episodes / self.processes)
            self.eval_env = make_eval_env(self.env_name, share, **self._options)
        if stage != "fit":
            return
        if self.processes > 1 and self.storage_dir is not None:
            raise ValueError(
                f"storage_dir must be None with several processes, got {self.storage_dir!r}: for checkpoints the first "
                "of them would hold the experience of all in memory. Lower `capacity` instead."
            )
        is_for_agent = "agent" in self.phases
        if is_for_agent and self.round_length != self.env.episode_length:
            raise ValueError(
                f"round_length must be None for an agent, which learns from returns, got {self.round_length}."
            )
        if self.buffer is None:
            self._begin(is_for_agent)
        else:  # a further fit goes on with the experience of those before
            if is_for_agent != self.buffer.is_for_agent:
                raise ValueError(
                    "data must be fitted again by a module of the same kind, got "
                    f"{type(self.trainer.lightning_module).__name__}: an agent without a world model needs more of "
                    "every step than other modules. Make a new datamodule."
                )
            self.exploration.policy = self.policy
        if self.collector is None:
            self.collector = EpisodeCollector(
                self.collector_kind,
                self.num_collectors,
                self.env,
                partial(make_env, self.env_name, **self._options),
                self.exploration,
                self.round_length,
                self.seed + RANK_STRIDE * rank(),
            )

    def _begin(self, is_for_agent: bool) -> None:
        self.env.set_seed(self.seed + RANK_STRIDE * rank())
        if self.processes > 1:  # all have begun with the same
            torch.manual_seed(torch.initial_seed() + RANK_STRIDE * rank())
        self.exploration = Exploration(self.policy, self.action_dim, self.exploration_noise, self.mean_hold)
        batch_size = self.agent_batch_size if is_for_agent else self.world_model_batch_size
        self.buffer = ExperienceBuffer(self.capacity, self.slice_length, batch_size, is_for_agent, self.storage_dir)

    def teardown(self, stage: str) -> None:
        """End the processes that collect, if there are any."""
        if self.collector is not None and self.collector_kind != "single":
            self.collector.close()
            self.collector = None

    def on_exception(self, exception: BaseException) -> None:
        """End the processes that collect, whatever has gone wrong."""
        self.teardown("fit")

    def train_dataloader(self) -> AlternatingLoop:
        """Return the loop over the phases of the module that is fitted."""
        assert self.trainer is not None
        return make_loop(self, self.trainer, {phase: self.updates[phase] for phase in self.phases}, self.turns)

    def val_dataloader(self) -> EvaluationEpisodes | list[Any]:
        """Return the evaluation of the policy; nothing if the module has none."""
        if self.policy is None:
            return []
        return EvaluationEpisodes(
            self.eval_env, self.policy, self.optimum, EVALUATION_SEED - rank(), lambda: {"env_steps": self.env_steps}
        )

    # -- Experience -----------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Add the warm-up, or one round of episodes, to the buffer."""
        assert self.collector is not None
        assert self.buffer is not None
        rounds = self.warmup_rounds if self.env_steps == 0 else 1
        self.exploration.at_random.fill_(self.env_steps == 0)
        for _ in range(rounds):
            self._record(self.collector.collect(self.buffer.collected))

    def try_policy(self) -> Tensor | None:
        """Add an episode of the policy without noise; return what it has earned, or None if there are no trials."""
        if self.trial_env is None:
            return None
        assert self.buffer is not None
        assert self.policy is not None
        before = self.buffer.collected
        tried = evaluate(self.trial_env, self.policy, None, self.seed)  # of all processes, so that it is equally long
        dtype = self.env.observation_spec["observation"].dtype  # of all that is recorded; trials may be more precise
        episode = tried["episode"].apply(lambda entry: entry.to(dtype) if entry.is_floating_point() else entry)
        begins = episode["is_init"].flatten()
        episode[TRAJECTORY] = (-before - begins.cumsum(0)).reshape(episode.shape)  # numbers that no collector gives
        self._record(episode)
        return tried["return"].mean()

    def _record(self, episodes: TensorDictBase) -> None:
        assert self.buffer is not None
        self._check_episodes(episodes)
        if self.buffer.is_for_agent:
            add_returns(episodes)
        self.buffer.add(episodes)
        self.env_steps = self.buffer.collected * self.processes

    def _check_episodes(self, episodes: TensorDictBase) -> None:
        observations, rewards = episodes["next", "observation"], episodes["next", "reward"]
        bad = ~(observations.isfinite().all(-1) & rewards.isfinite().all(-1))
        if bad.any():
            env, step = bad.nonzero()[0].tolist()
            action, before, after = (
                each[env, step].tolist() for each in (episodes["action"], episodes["observation"], observations)
            )
            raise ValueError(
                f"{self.env.name} emitted an observation or a reward that is not finite: action {action} in "
                f"{before} at step {step + 1} gave observation {after} and reward {rewards[env, step].item()}. "
                "If a step is too long for the integrator, raise `episode_length`, or `substeps` in `env_options`."
            )
        self.longest_episode = max(self.longest_episode, int(episodes[TRAJECTORY].unique(return_counts=True)[1].max()))
        if self.longest_episode < self.slice_length and not self.learns_ends:
            raise ValueError(
                f"slice_length must be at most {self.longest_episode}, got {self.slice_length}: every episode of "
                f"{self.env.name} ended early. {self._way_out_of_short_episodes()}"
            )

    def _way_out_of_short_episodes(self) -> str:
        assert self.buffer is not None
        if self.buffer.is_for_agent:
            return "Lower `slice_length`, and with it the `context_length` of the policy."
        if isinstance(self.env.base_env, ControlEnv):  # whose exits no state tells of
            return "Lower `slice_length`; or, if steps are too long to integrate, raise `episode_length` or `substeps`."
        return "Lower `slice_length`; or let the world model learn when they end, by `continuation`."

    def sample_trajectories(self) -> TensorDict:
        """Return slices ``(B, H)`` of recorded episodes."""
        assert self.buffer is not None
        return self.buffer.sample_trajectories()

    def sample_initial_states(self) -> TensorDict:
        """Return ``(B,)`` recorded states to imagine from."""
        assert self.buffer is not None
        return self.buffer.sample_states(self.policy_batch_size, self.imagine_from)

    def draw_initial_states(self, count: int) -> Tensor:
        """Return ``(count, S)`` states in which episodes begin, always the same ones; nothing is recorded."""
        env = make_env(self.env_name, count, **self._options)
        env.set_seed(EVALUATION_SEED)
        return env.reset()["observation"]

    # -- Exact resume ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return experience, that of all processes, counters, and the state of the collector and of all generators.

        What else differs between processes is a list with an entry for each. All of them must call it.
        """
        if self.buffer is None:
            return {}
        return {
            "env_steps": self.env_steps,
            "experience": self.buffer.state(),
            "ranks": gather_objects(self._own_state()),
        }

    def _own_state(self) -> dict[str, Any]:
        assert self.buffer is not None
        return {
            "longest_episode": self.longest_episode,
            "drawn": self.buffer.drawn(),
            "collector": {} if self.collector is None else self.collector.state_dict(),
            "env": self.env.rng.get_state(),
            "simulators": self.env.random_states() if isinstance(self.env, SimulatorEnv) else [],
            "global": generator_states(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on as if the run had never stopped; outside of a fit only the counter matters.

        Raises:
            ValueError: If it was taken with another number of processes.
        """
        self.env_steps = state_dict["env_steps"]
        if self.buffer is None or self.collector is None:
            return
        check_ranks(len(state_dict["ranks"]))
        own = state_dict["ranks"][rank()]
        self.buffer.load(state_dict["experience"], own["drawn"], self.env_steps // self.processes)
        self.longest_episode = own["longest_episode"]
        self.collector.load_state_dict(own["collector"])
        self.env.rng.set_state(own["env"])
        if isinstance(self.env, SimulatorEnv):
            self.env.set_random_states(own["simulators"])
        set_generator_states(own["global"])


def _check_experience(imagine_from: str, env_options: dict[str, Any], storage_dir: str | None) -> None:
    if storage_dir is not None:
        check_writable(Path(storage_dir), "storage_dir")
    if imagine_from not in get_args(ImagineFrom):
        raise ValueError(f"imagine_from must be one of {', '.join(get_args(ImagineFrom))}, got {imagine_from!r}.")
    for name in ("episode_length", "num_envs"):
        if name in env_options:
            raise ValueError(f"env_options must not hold {name}. Give it beside env_options, as {name}.")
    if "dtype" in env_options:
        raise ValueError(
            f"env_options must not hold dtype, got {env_options['dtype']!r}: experience is in single precision, "
            "evaluations are in double precision. Leave it out."
        )
