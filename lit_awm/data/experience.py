"""Experience in the real environment as a Lightning datamodule."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningDataModule
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor
from torchrl.checkpoint import GlobalRNGState
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer, SliceSampler

from lit_awm.checks import check_at_least, check_count
from lit_awm.data.evaluation import EvaluationEpisodes
from lit_awm.data.exploration import STEP, Exploration, tell_rewards
from lit_awm.data.returns import add_returns
from lit_awm.data.segments import Segments
from lit_awm.distributed import check_ranks, gather_objects, process_count, rank
from lit_awm.envs import KnownReward, KnownStep, load_optimum, make_env
from lit_awm.envs.simulators import SimulatorEnv
from lit_awm.loops import AlternatingLoop
from lit_awm.models import Policy

TRAJECTORY = ("collector", "traj_ids")
EVALUATION_SEED = 2**31 - 1
STORED = ("observation", "action", "is_init", TRAJECTORY, ("next", "observation"), ("next", "reward"))
STORED_FOR_AGENTS = ("return_to_go", "episode_return", ("next", "terminated"))
RANK_STRIDE = 100_003  # between the seeds of two processes
DRAWN_AT_ONCE = 10  # batches of trajectories, since to draw one takes nearly as long

ImagineFrom = Literal["start", "anywhere"]


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
        exploration_noise: Standard deviation of the noise on the policy's action, in its range of [-1, 1].
        mean_hold: Mean number of steps for which a random action or noise is held.
        teacher_updates: Batches for a teacher of the world model in an outer iteration.
        world_model_updates: Batches for the world model in an outer iteration.
        policy_updates: Batches for the policy in an outer iteration.
        agent_updates: Batches for an agent without a world model in an outer iteration.
        turns: Into how many parts the batches of an outer iteration are split, each with its share of every phase.
        world_model_batch_size: Trajectories in a batch for the world model.
        policy_batch_size: Initial states in a batch for the policy.
        agent_batch_size: Trajectories in a batch for an agent without a world model.
        slice_length: Steps of the trajectories that a world model, or such an agent, is fitted to; None for whole
            episodes. Episodes that end earlier are left out.
        imagine_from: What states a batch for the policy holds: those in which an episode began, ``"start"``, or any
            recorded ones, ``"anywhere"``, which suits an imagination horizon shorter than the episode.
        capacity: Steps that the replay buffer holds.
        eval_episodes: Episodes of an evaluation; one is enough where all begin in the same state.
        seed: Seed of the environments in which experience is collected; that of the evaluation never changes.

    Raises:
        ValueError: If an argument is out of its range; the message says which and what to do.
    """

    def __init__(
        self,
        env: str = "cancer_treatment",
        env_options: dict[str, Any] | None = None,
        episode_length: int = 100,
        num_envs: int = 4,
        warmup_episodes: int = 12,
        exploration_noise: float = 0.3,
        mean_hold: float = 10.0,
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
        eval_episodes: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_count(1, episode_length=episode_length, num_envs=num_envs, warmup_episodes=warmup_episodes)
        self.updates = {"teacher": teacher_updates, "world_model": world_model_updates}
        self.updates |= {"policy": policy_updates, "agent": agent_updates}
        check_count(1, **{f"{phase}_updates": count for phase, count in self.updates.items()})
        check_count(1, world_model_batch_size=world_model_batch_size, policy_batch_size=policy_batch_size)
        check_count(1, agent_batch_size=agent_batch_size, turns=turns)
        check_count(1, eval_episodes=eval_episodes, capacity=capacity)
        check_count(0, seed=seed)
        check_at_least(1, mean_hold=mean_hold)
        check_at_least(0, exploration_noise=exploration_noise)
        self.slice_length = episode_length if slice_length is None else slice_length
        _check_experience(episode_length, self.slice_length, imagine_from, env_options or {})
        options = {"episode_length": episode_length, **(env_options or {})}
        self.env_name, self.env_options = env, dict(env_options or {})
        self.env = make_env(env, num_envs, **options)
        _check_warmup(warmup_episodes, num_envs, episode_length, capacity)
        self.eval_env = make_env(env, eval_episodes, **options)
        self._options = options
        self.optimum = load_optimum(env, **options)
        self.warmup_rounds = warmup_episodes // num_envs
        self.exploration_noise, self.mean_hold = exploration_noise, mean_hold
        self.world_model_batch_size, self.policy_batch_size = world_model_batch_size, policy_batch_size
        self.agent_batch_size, self.turns = agent_batch_size, turns
        self.imagine_from, self.capacity, self.seed = imagine_from, capacity, seed
        self.longest_episode, self.processes = 0, 1
        self.segments = Segments(capacity)
        self._drawn: list[TensorDict] = []  # batches that are to be served next
        self.stored: tuple[Any, ...] = STORED
        self.policy: Policy | None = None
        self.collector: Collector | None = None
        self.exploration: Exploration

    @property
    def env_steps(self) -> int:
        """Steps in the real environment so far, of all processes together."""
        return self.segments.collected * self.processes

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

        It is known for the systems of the testbed, if the clock that it needs is observed and the state without noise.
        """
        return KnownReward(self.env) if KnownReward.is_known(self.env) else None

    @property
    def known_step_fn(self) -> KnownStep | None:
        """The step as a function of observation and action; None if it is not known.

        It is known where the reward is and there are no distractors.
        """
        return KnownStep(self.env) if KnownStep.is_known(self.env) else None

    @property
    def clock_step(self) -> float | None:
        """What the clock at the end of the observation advances by in a step, or None if there is no clock."""
        return 2 / self.env.episode_length if "clock" in self.env.observation_spec.keys() else None

    # -- Lightning ------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Collect with the policy of the module that is fitted; the first fit makes the collector and the buffer."""
        assert self.trainer is not None
        self.policy = getattr(self.trainer.lightning_module, "behaviour_policy", None)
        self.phases = getattr(self.trainer.lightning_module, "phases", ("world_model",))
        self.processes = process_count()
        if stage != "fit":
            return
        is_for_agent = "agent" in self.phases
        if self.collector is not None:  # a further fit goes on with the experience of those before
            if is_for_agent != ("return_to_go" in self.stored):
                raise ValueError(
                    "data must be fitted again by a module of the same kind, got "
                    f"{type(self.trainer.lightning_module).__name__}: an agent without a world model needs more of "
                    "every step than other modules. Make a new datamodule."
                )
            self.exploration.policy = self.policy
            return
        self.env.set_seed(self.seed + RANK_STRIDE * rank())
        if self.processes > 1:  # all have begun with the same
            torch.manual_seed(torch.initial_seed() + RANK_STRIDE * rank())
        self.exploration = Exploration(self.policy, self.action_dim, self.exploration_noise, self.mean_hold)
        self.collector = Collector(
            tell_rewards(self.env),
            TensorDictModule(self.exploration, in_keys=list(STEP), out_keys=["action"]),
            frames_per_batch=self.env.batch_size[0] * self.env.episode_length,
            total_frames=-1,
            reset_at_each_iter=True,
            auto_register_policy_transforms=False,
        )
        self.stored = STORED + STORED_FOR_AGENTS if is_for_agent else STORED
        batch_size = self.agent_batch_size if is_for_agent else self.world_model_batch_size
        self.buffer = ReplayBuffer(
            storage=LazyTensorStorage(self.capacity),
            sampler=SliceSampler(
                slice_len=self.slice_length,
                traj_key=TRAJECTORY,
                strict_length=True,
                truncated_key=None,  # nobody reads where slices end
                cache_values=True,
            ),
            batch_size=DRAWN_AT_ONCE * batch_size * self.slice_length,
        )

    def train_dataloader(self) -> AlternatingLoop:
        """Return the loop over the phases of the module that is fitted."""
        assert self.trainer is not None
        updates = {phase: self.updates[phase] for phase in self.phases}
        if self.trainer.precision not in ("32-true", "16-mixed", "bf16-mixed"):
            raise ValueError(
                "trainer.precision must be 32-true, 16-mixed or bf16-mixed, as environments are in single precision, "
                f"got {self.trainer.precision}."
            )
        if self.trainer.overfit_batches:  # type: ignore[attr-defined]
            raise ValueError("overfit_batches must be 0: every pass collects new experience. Use limit_train_batches.")
        limit = self.trainer.limit_train_batches
        if isinstance(limit, float):
            limit = int(limit * sum(updates.values()))
        return AlternatingLoop(self, updates, limit, self.turns)

    def val_dataloader(self) -> EvaluationEpisodes | list[Any]:
        """Return the evaluation of the policy; nothing if the module has none."""
        if self.policy is None:
            return []
        return EvaluationEpisodes(
            self.eval_env, self.policy, self.optimum, EVALUATION_SEED, lambda: {"env_steps": self.env_steps}
        )

    # -- Experience -----------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Add the warm-up, or one round of episodes, to the buffer."""
        assert self.collector is not None
        rounds, self._drawn = self.warmup_rounds if self.env_steps == 0 else 1, []
        self.exploration.at_random = self.env_steps == 0
        for _ in range(rounds):
            with torch.no_grad():
                episodes = next(iter(self.collector))
            self._check_episodes(episodes)
            if "return_to_go" in self.stored:
                add_returns(episodes)
            rows = episodes.select(*self.stored).reshape(-1).clone()
            self.buffer.extend(rows)
            self.segments.add(rows)

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
        if self.longest_episode < self.slice_length:
            raise ValueError(
                f"slice_length must be at most {self.longest_episode}, got {self.slice_length}: every episode of "
                f"{self.env.name} ended early. Lower `slice_length`; or, if a step is too long for the integrator, "
                "raise `episode_length`, or `substeps` in `env_options`."
            )

    def sample_trajectories(self) -> TensorDict:
        """Return slices ``(B, H)`` of recorded episodes."""
        if not self._drawn:
            rows = self.buffer.sample().select(*self.stored)
            self._drawn = list(rows.reshape(DRAWN_AT_ONCE, -1, self.slice_length).unbind(0))
        return self._drawn.pop(0)

    def sample_initial_states(self) -> TensorDict:
        """Return ``(B,)`` recorded states to imagine from; the world model has had its batches."""
        self._drawn = []
        rows = self.buffer[: len(self.buffer)]
        initial = rows["observation"]
        if self.imagine_from == "start":
            initial = initial[rows["is_init"].squeeze(-1)]
        chosen = torch.randint(len(initial), (self.policy_batch_size,))
        return TensorDict({"observation": initial[chosen]}, batch_size=self.policy_batch_size)

    def draw_initial_states(self, count: int) -> Tensor:
        """Return ``(count, S)`` states in which episodes begin, always the same ones; nothing is recorded."""
        env = make_env(self.env_name, count, **self._options)
        env.set_seed(EVALUATION_SEED)
        return env.reset()["observation"]

    # -- Exact resume ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return experience, counters, and the state of the collector and of all generators.

        The experience is that of all processes, see :class:`~lit_awm.data.segments.Segments`; what else differs
        between them is a list with an entry for each. All of them must call it.
        """
        if self.collector is None:
            return {}
        return {
            "env_steps": self.env_steps,
            "experience": self.segments.state(),
            "ranks": gather_objects(self._own_state()),
        }

    def _own_state(self) -> dict[str, Any]:
        assert self.collector is not None
        collector = dict(self.collector.state_dict())
        collector.pop("policy_state_dict")
        return {
            "longest_episode": self.longest_episode,
            "drawn": TensorDict.stack(self._drawn).flatten_keys(".").to_dict() if self._drawn else {},
            "collector": collector,
            "env": self.env.rng.get_state(),
            "simulators": self.env.random_states() if isinstance(self.env, SimulatorEnv) else [],
            "global": GlobalRNGState().state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on as if the run had never stopped; outside of a fit only the counter matters.

        Raises:
            ValueError: If it was taken with another number of processes.
        """
        self.segments.collected = state_dict["env_steps"] // self.processes
        if self.collector is None:
            return
        check_ranks(len(state_dict["ranks"]))
        parts, own = self.segments.load(state_dict["experience"], self.segments.collected), state_dict["ranks"][rank()]
        # The oldest may have been overwritten: go on where it had been written to.
        self.buffer.writer.load_state_dict({"_cursor": self.segments.cursor})
        for rows in parts:
            self.buffer.extend(rows)
        self.longest_episode = own["longest_episode"]
        drawn = TensorDict(own["drawn"]).auto_batch_size_(3).unflatten_keys(".")
        self._drawn = list(drawn.unbind(0)) if own["drawn"] else []
        self.collector.load_state_dict(own["collector"], strict=False)
        self.env.rng.set_state(own["env"])
        if isinstance(self.env, SimulatorEnv):
            self.env.set_random_states(own["simulators"])
        generators = dict(own["global"])
        if not torch.cuda.is_available():
            generators.pop("torch_cuda", None)  # a run that moves to a CPU draws from the CPU's generator
        GlobalRNGState().load_state_dict(generators)


def _check_warmup(warmup_episodes: int, num_envs: int, episode_length: int, capacity: int) -> None:
    if warmup_episodes % num_envs:
        raise ValueError(
            f"warmup_episodes must be a multiple of num_envs {num_envs}, got {warmup_episodes}: episodes are "
            "collected num_envs at a time."
        )
    if not capacity >= warmup_episodes * episode_length:
        raise ValueError(f"capacity must hold the warm-up of {warmup_episodes * episode_length} steps, got {capacity}.")


def _check_experience(episode_length: int, slice_length: int, imagine_from: str, env_options: dict[str, Any]) -> None:
    check_count(0, slice_length=slice_length)
    if not 1 <= slice_length <= episode_length:
        raise ValueError(
            f"slice_length must be between 1 and episode_length {episode_length}, got {slice_length}. Lower "
            "`slice_length`, or raise `episode_length`."
        )
    if imagine_from not in get_args(ImagineFrom):
        raise ValueError(f"imagine_from must be one of {', '.join(get_args(ImagineFrom))}, got {imagine_from!r}.")
    for name in ("episode_length", "num_envs"):
        if name in env_options:
            raise ValueError(f"env_options must not hold {name}. Give it beside env_options, as {name}.")
