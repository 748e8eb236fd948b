"""Evaluation in the real environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.envs import TransformedEnv

from lit_awm.data.exploration import STEP, act, tell_rewards
from lit_awm.envs import ControlEnv, OdeEnv, Optimum, make_env
from lit_awm.models import Policy

SCORES = ("return", "cost", "regret", "gap", "target_error")


def make_eval_env(name: str, count: int, **options: Any) -> TransformedEnv:
    """Make an environment to evaluate in, as :func:`~lit_awm.envs.make_env` does.

    A system of ours is in double precision unless ``dtype`` says otherwise: what controls can do may be a small part of
    the cost of an episode.
    """
    env = make_env(name, count, **options)
    if isinstance(env.base_env, ControlEnv) and "dtype" not in options:
        env = make_env(name, count, dtype=torch.float64, **options)
    return env


@torch.no_grad()
def evaluate(
    env: TransformedEnv,
    policy: Policy,
    optimum: Optimum | None,
    seed: int = 0,
    watch: Callable[..., object] | None = None,
) -> TensorDict:
    """Let the policy act, without noise, for one episode in each of the environment's instances.

    Args:
        env: The environment.
        policy: The policy.
        optimum: What to compare the cost with, if known.
        seed: Seed of the environment.
        watch: Called after every step but the last, see the ``callback`` of TorchRL's ``EnvBase.rollout``.

    Returns:
        One row per episode. ``episode`` holds its steps; with several environments all rows are equally long, and after
        an episode that ends early come steps of the next one, which do not count. ``return`` and ``cost`` are
        undiscounted sums, ``regret`` and ``gap`` compare the cost with the optimum, if there is one to compare with.
        ``target_error`` tells how far the final state is from the end state of the system, if that has one (see
        :meth:`~lit_awm.envs.OdeEnv.target_error`).
    """
    env.set_seed(seed)
    actor = TensorDictModule(partial(act, policy), in_keys=list(STEP), out_keys=["action"])
    is_alone = env.batch_size.numel() == 1  # then no step is taken after its end
    episode = tell_rewards(env).rollout(env.episode_length, actor, watch, break_when_any_done=is_alone)
    done = episode["next", "done"]
    is_first_episode = done.cumsum(1) - done.int() == 0  # of several, one that ends early is followed by another
    returns = (episode["next", "reward"] * is_first_episode).sum(dim=(1, 2))
    scores = {"return": returns, "cost": -returns}
    if optimum is not None:
        scores["regret"] = optimum.regret(-returns)
        gap = optimum.gap(-returns)
        if gap is not None:
            scores["gap"] = gap
    if isinstance(system := env.base_env, OdeEnv):
        last = is_first_episode.sum(dim=1, keepdim=True) - 1
        final = episode["next", "state"].take_along_dim(last, dim=1).squeeze(1)
        error = system.target_error(final)
        if error is not None:
            scores["target_error"] = error
    return TensorDict({"episode": episode, **scores}, batch_size=episode.batch_size[:1])


class EvaluationEpisodes:
    """A dataloader whose only batch is a fresh evaluation of the policy as it is then.

    Args:
        env: The environment, of as many instances as episodes are wanted.
        policy: The policy, looked at anew each time.
        optimum: What to compare the cost with, if known.
        seed: Seed of the environment, the same for every evaluation.
        counters: Returns the counters to be logged beside the scores.
    """

    def __init__(
        self,
        env: TransformedEnv,
        policy: Policy,
        optimum: Optimum | None,
        seed: int = 0,
        counters: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self.env, self.policy, self.optimum, self.seed = env, policy, optimum, seed
        self.counters = counters

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[TensorDict]:
        evaluation = evaluate(self.env, self.policy, self.optimum, self.seed)
        yield evaluation.set_non_tensor("counters", self.counters())
