from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lit_awm.data import ExperienceDataModule
from lit_awm.data.collectors import EpisodeCollector, LostWorkerError, check_collector
from lit_awm.data.exploration import Exploration
from lit_awm.envs import make_env
from lit_awm.models import DeterministicPolicy

MAKE = partial(make_env, "bear_populations", initial_spread=0.2, episode_length=6)


def make_collector(kind: Any, num_collectors: int = 2) -> EpisodeCollector:
    """A collector of four environments with a policy that acts without noise."""
    policy = DeterministicPolicy(4, 2, hidden_dim=8)
    exploration = Exploration(policy, 2, noise=0.0, mean_hold=3.0)
    exploration.at_random.fill_(False)
    return EpisodeCollector(kind, num_collectors, MAKE(4), MAKE, exploration, MAKE(4).episode_length, seed=5)


def policy_of(collector: EpisodeCollector) -> DeterministicPolicy:
    policy: DeterministicPolicy = collector.exploration.policy
    return policy


@pytest.fixture(scope="module")
def several() -> Iterator[EpisodeCollector]:
    collector = make_collector("multi_sync")
    yield collector
    collector.close()


def test_processes_share_a_round_and_act_by_the_latest_policy(several: EpisodeCollector) -> None:
    for number in range(2):
        with torch.no_grad():
            for parameter in policy_of(several).parameters():
                parameter.normal_()
        episodes = several.collect(24 * number)
        assert episodes.shape == (4, 6)
        torch.testing.assert_close(episodes["action"], policy_of(several).sample(episodes["observation"]).detach())
        assert several.staleness == 0


def test_episodes_of_all_processes_are_told_apart(several: EpisodeCollector) -> None:
    first, second = several.collect(0), several.collect(24)
    ids = [episodes["collector", "traj_ids"] for episodes in (first, second)]
    assert all(each.eq(each[:, :1]).all() for each in ids)
    assert torch.cat(ids)[:, 0].unique().numel() == 8
    assert first["observation"][:, 0, 0].unique().numel() == 4  # two processes do not draw the same


def test_a_round_depends_on_its_number_and_not_on_what_came_before(several: EpisodeCollector) -> None:
    several.exploration.at_random.fill_(True)
    first, second, again = several.collect(0), several.collect(24), several.collect(0)
    several.exploration.at_random.fill_(False)
    assert torch.equal(first["observation"], again["observation"])
    assert torch.equal(first["action"], again["action"])
    assert not torch.equal(first["action"], second["action"])


def test_whoever_does_not_wait_acts_by_a_policy_that_is_older() -> None:
    collector = make_collector("multi_async", num_collectors=1)
    try:
        assert collector.collect(0).shape == (4, 6)
        assert collector.staleness == 0
        deadline = time.monotonic() + 120
        while collector._collector.queue_out.empty():  # it has gone on and is done with another round
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with torch.no_grad():
            for parameter in policy_of(collector).parameters():
                parameter.fill_(100.0)  # as training would, meanwhile
        assert collector.collect(24)["action"].abs().max() < 1
        assert collector.staleness == 1
    finally:
        collector.close()


def test_a_process_that_is_killed_is_named() -> None:
    others = set(multiprocessing.active_children())
    collector = make_collector("multi_sync")
    collector.collect(0)
    killed = collector._collector.procs[1].pid
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(LostWorkerError, match=rf"worker 1 \(process {killed}, exit code -9\).*--resume"):
        collector.collect(24)
    assert set(multiprocessing.active_children()) <= others


def fit(make_trainer: Callable[..., Trainer], tmp_path: Path, epochs: int, checkpoint: Path | None = None) -> Any:
    from lit_awm.modules import SACModule

    data = ExperienceDataModule(
        "bear_populations",
        episode_length=6,
        num_envs=2,
        warmup_episodes=2,
        agent_updates=2,
        agent_batch_size=2,
        slice_length=1,
        collector="multi_sync",
        num_collectors=2,
    )
    torch.manual_seed(3)
    trainer = make_trainer(max_epochs=epochs)
    trainer.fit(SACModule(data.state_dim, data.action_dim), data, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
    return data


@pytest.mark.slow
def test_a_run_with_several_processes_resumes_equal_to_the_bit(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    whole = fit(make_trainer, tmp_path, 3)
    fit(make_trainer, tmp_path, 2)
    resumed = fit(make_trainer, tmp_path, 3, tmp_path / "2.ckpt")
    assert torch.equal(whole.buffer[:]["action"], resumed.buffer[:]["action"])
    assert torch.equal(whole.buffer[:]["collector", "traj_ids"], resumed.buffer[:]["collector", "traj_ids"])
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
def test_workers_of_ray_act_by_the_latest_policy_and_draw_the_same_again() -> None:
    import ray

    collector = make_collector("ray")
    try:
        first, again = collector.collect(0), collector.collect(0)
        with torch.no_grad():
            for parameter in policy_of(collector).parameters():
                parameter.normal_()
        later = collector.collect(24)
    finally:
        collector.close()
        ray.shutdown()
    assert first.shape == (4, 6)
    assert torch.equal(first["observation"], again["observation"])
    torch.testing.assert_close(later["action"], policy_of(collector).sample(later["observation"]).detach())


@pytest.mark.parametrize(
    ("kind", "num_collectors", "message"),
    [
        ("multi", 1, "collector must be one of single, multi_sync, multi_async, ray, got 'multi'"),
        ("single", 2, "num_collectors must be 1 for collector single, got 2"),
        ("multi_sync", 3, "num_envs must be a multiple of num_collectors 3, got 4"),
        ("multi_sync", 0, "num_collectors must be at least 1, got 0"),
    ],
)
def test_a_collector_that_cannot_work_is_refused(kind: Any, num_collectors: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_collector(kind, num_collectors, num_envs=4)
