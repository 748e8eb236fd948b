"""Who steps the environments: this process, others on this machine, or those of a Ray cluster."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from threading import Thread
from typing import Any, Literal, get_args

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.collectors import BaseCollector, Collector, MultiAsyncCollector, MultiSyncCollector
from torchrl.envs import EnvBase

from lit_awm.checks import check_count
from lit_awm.data.exploration import STEP, Exploration, tell_rewards

CollectorKind = Literal["single", "multi_sync", "multi_async", "ray"]
TRAJECTORY = ("collector", "traj_ids")
VERSION = "policy_version"
ROUND_STRIDE = 1_000_003  # between the seeds of two rounds
SEEDS = 2**31
PATIENCE = 5  # seconds that processes are given to end
PUSH_PATIENCE = 300  # and to take a policy


class LostWorkerError(RuntimeError):
    """A process that collects experience has ended."""


class EpisodeCollector:
    """Collect rounds ``(N, T)`` of one episode or more by one of TorchRL's collectors.

    Args:
        kind: ``"single"`` steps all environments in this process. ``"multi_sync"`` shares them out between processes
            that work while this one waits; a round depends on its number and the seed alone. ``"multi_async"`` lets the
            processes go on while this one trains; a round is what has come first, by a policy that may be older.
            ``"ray"`` is as ``"multi_sync"`` on the machines of the Ray cluster that ``RAY_ADDRESS`` names, or on this
            one.
        num_collectors: How many processes step environments.
        env: The ``N`` environments, if this process is to step them.
        make_env: Makes as many environments as it is told to in another process. It must be possible to pickle it.
        exploration: What acts.
        length: Steps ``T`` of a round; an episode that would go on after it is cut off.
        seed: That of the environments of other processes, and of what explores there.

    Attributes:
        staleness: Mean age of the policy that acted in the last round: 0 for the latest, 1 for the one before.
    """

    def __init__(
        self,
        kind: CollectorKind,
        num_collectors: int,
        env: EnvBase,
        make_env: Callable[[int], EnvBase],
        exploration: Exploration,
        length: int,
        seed: int,
    ) -> None:
        self.kind, self.num_collectors, self.seed = kind, num_collectors, seed
        self.frames, self.staleness = env.batch_size[0] * length, 0.0
        self.exploration = exploration
        self._has_begun = False
        self._actor = TensorDictModule(_Versioned(exploration), in_keys=list(STEP), out_keys=["action", VERSION])
        makers = [_Maker(make_env, env.batch_size[0] // num_collectors)] * num_collectors
        self._collector = self._make(env, makers)
        self._parts = iter(self._collector)

    def _make(self, env: EnvBase, makers: list[_Maker]) -> BaseCollector:
        local: dict[str, Any] = {
            "total_frames": -1,
            "reset_at_each_iter": True,
            "auto_register_policy_transforms": False,
        }
        several = local | {"num_threads": torch.get_num_threads(), "num_sub_threads": 1, "use_buffers": True}
        if self.kind == "single":
            actor = TensorDictModule(self.exploration, in_keys=list(STEP), out_keys=["action"])
            return Collector(tell_rewards(env), actor, frames_per_batch=self.frames, **local)
        actor = copy.deepcopy(self._actor).cpu()  # since TorchRL shares the memory of what it is given
        if self.kind == "multi_sync":
            return MultiSyncCollector(makers, actor, frames_per_batch=self.frames, cat_results=0, **several)
        if self.kind == "multi_async":
            share = self.frames // self.num_collectors
            return MultiAsyncCollector(makers, actor, frames_per_batch=share, **several)
        from torchrl.collectors.distributed import RayCollector

        return RayCollector(
            makers,
            actor,
            frames_per_batch=self.frames,
            total_frames=sys.maxsize,
            reset_at_each_iter=True,
            sync=True,
            collector_class=SeededCollector,
            remote_configs={"num_cpus": 1, "num_gpus": 0},
            ray_init_config={"log_to_driver": False},
        )

    def collect(self, steps_before: int) -> TensorDictBase:
        """Return a round ``(N, T)`` by the policy as it is now, or what has come first.

        Args:
            steps_before: How many steps there have been in earlier rounds.

        Raises:
            LostWorkerError: If a process that steps environments has ended.
        """
        with torch.no_grad():
            if self.kind == "single":
                return next(iter(self._collector))
            try:
                return self._collect_elsewhere(steps_before)
            except Exception as error:
                self._tell_lost_worker(error)
                raise

    def _collect_elsewhere(self, steps_before: int) -> TensorDictBase:
        version: Tensor = self._actor.module.version
        version += 1
        self._push()
        is_async = self.kind == "multi_async"
        if not (is_async and self._has_begun):  # whoever goes on by itself is not interrupted
            self._collector.set_seed((self.seed + ROUND_STRIDE * (steps_before // self.frames)) % SEEDS)
        self._has_begun = True
        parts = [next(self._parts).clone() for _ in range(self.num_collectors if is_async else 1)]
        episodes: TensorDictBase = torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
        self.staleness = (version - episodes.pop(VERSION)).float().mean().item()
        begins = episodes["is_init"].flatten()
        episodes[TRAJECTORY] = (begins.cumsum(0) - 1 + steps_before).reshape(episodes.shape)
        return episodes

    def _push(self) -> None:
        """Give the policy as it is now to all processes; TorchRL would wait for ever for one that has ended."""
        weights, errors = TensorDict.from_module(self._actor).data.cpu().clone(), list[Exception]()

        def send() -> None:
            try:
                self._collector.update_policy_weights_(weights)
            except Exception as error:
                errors.append(error)

        sending, deadline = Thread(target=send, daemon=True), time.monotonic() + PUSH_PATIENCE
        sending.start()
        while sending.is_alive():
            sending.join(timeout=0.2)
            if self._lost_workers():
                raise RuntimeError("it could not be given the policy.")
            if time.monotonic() > deadline:
                raise RuntimeError(f"collector workers have not taken the policy within {PUSH_PATIENCE} s.")
        if errors:
            raise errors[0]

    def _lost_workers(self) -> list[str]:
        return [
            f"{worker} (process {process.pid}, exit code {process.exitcode})"
            for worker, process in enumerate(getattr(self._collector, "procs", []))
            if not process.is_alive()
        ]

    def _tell_lost_worker(self, error: Exception) -> None:
        lost = self._lost_workers()
        if not lost and type(error).__module__.partition(".")[0] != "ray":
            return
        self.close()
        raise LostWorkerError(
            f"collector worker {', '.join(lost) or 'of Ray'} has ended: {error} What it printed before is above. Go on "
            "from the last checkpoint by `--resume`; with `collector: single` the run steps its environments itself."
        ) from error

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the collector of this process; others have none that would outlive a round."""
        if self.kind != "single":
            return {}
        return {name: value for name, value in self._collector.state_dict().items() if name != "policy_state_dict"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        if self.kind == "single" and state_dict:
            self._collector.load_state_dict(state_dict, strict=False)

    def close(self) -> None:
        """End the processes, if there are any."""
        if self.kind != "single":
            self._collector.shutdown(timeout=PATIENCE)


class SeededCollector(Collector):
    """Seeds also what acts, as those in processes of their own do."""

    def set_seed(self, seed: int, static_seed: bool = False) -> int:
        """Seed the environments, and the generator that what acts draws from."""
        torch.manual_seed(seed)
        return super().set_seed(seed, static_seed)


class _Versioned(nn.Module):
    """Tells with each action how often the policy had been replaced."""

    version: Tensor

    def __init__(self, exploration: Exploration) -> None:
        super().__init__()
        self.exploration = exploration
        self.register_buffer("version", torch.tensor(0))

    def forward(self, observation: Tensor, is_init: Tensor, earned: Tensor) -> tuple[Tensor, Tensor]:
        """Return what ``exploration`` does, and the version ``(N, 1)``."""
        return self.exploration(observation, is_init, earned), self.version.repeat(len(observation), 1)


class _Maker:
    """Makes the environments of another process there."""

    def __init__(self, make_env: Callable[[int], EnvBase], count: int) -> None:
        self.make_env, self.count = make_env, count

    def __call__(self) -> EnvBase:
        return tell_rewards(self.make_env(self.count))


def check_collector(kind: str, num_collectors: int, num_envs: int) -> None:
    """Reject a collector that cannot work.

    Raises:
        ValueError: If it is none of the kinds, Ray is asked for and not there, or environments cannot be shared out.
    """
    check_count(1, num_collectors=num_collectors)
    if kind not in get_args(CollectorKind):
        raise ValueError(f"collector must be one of {', '.join(get_args(CollectorKind))}, got {kind!r}.")
    if kind == "ray" and find_spec("ray") is None:
        raise ValueError("collector ray needs Ray: pip install 'lit-awm[ray]', or take multi_sync.")
    if kind == "single" and num_collectors != 1:
        raise ValueError(
            f"num_collectors must be 1 for collector single, got {num_collectors}. Take multi_sync or multi_async."
        )
    if num_envs % num_collectors:
        raise ValueError(
            f"num_envs must be a multiple of num_collectors {num_collectors}, got {num_envs}: every process steps as "
            "many environments as the others."
        )
