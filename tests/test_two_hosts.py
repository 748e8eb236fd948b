"""A run on two hosts: two network namespaces of this machine, joined by a cable of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_awm.distributed import rank

ROOT = Path(__file__).parent.parent
HOSTS = {"lit-awm-0": "10.97.31.1", "lit-awm-1": "10.97.31.2"}
CABLE = "lit-awm-cable"  # as each host calls its end: at most 15 letters


class KeepWeights(Callback):
    """Write the weights of every process, and which one it was, at the end of a run."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        told = {"state": pl_module.state_dict(), "host": os.environ["GROUP_RANK"], "world": trainer.world_size}
        torch.save(told, Path(os.environ["KEPT_WEIGHTS"]) / f"{rank()}.pt")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[dict[str, str]]:
    """Names and addresses of two hosts that see nothing but each other."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` to make hosts with")
    made = list[str]()
    try:
        try:
            for host in HOSTS:
                ip("netns", "add", host)
                made.append(host)
            first, second = HOSTS
            ip("link", "add", CABLE, "netns", first, "type", "veth", "peer", "name", CABLE, "netns", second)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"hosts cannot be made here: {error.stderr}")
        for host, address in HOSTS.items():
            ip("-n", host, "address", "add", f"{address}/24", "dev", CABLE)
            ip("-n", host, "link", "set", CABLE, "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield HOSTS
    finally:
        for host in made:
            ip("netns", "delete", host)


@pytest.mark.slow
def test_a_recipe_runs_on_two_hosts_as_one_run(hosts: dict[str, str], tmp_path: Path) -> None:
    options = {
        "config": "cancer_treatment",
        "trainer.accelerator": "cpu",
        "trainer.strategy": "ddp",
        "trainer.num_nodes": 2,
        "trainer.max_epochs": 2,
        "trainer.enable_progress_bar": "false",
        "trainer.callbacks+": "tests.test_two_hosts.KeepWeights",
        "data.episode_length": 10,
        "data.teacher_updates": 10,
        "data.world_model_updates": 10,
        "data.policy_updates": 10,
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    first, *_ = hosts.values()
    running = list[subprocess.Popen[str]]()
    for number, host in enumerate(hosts):
        folder = tmp_path / host  # the hosts share no files
        folder.mkdir()
        launch = ["--nnodes=2", f"--node-rank={number}", f"--master-addr={first}", "--master-port=29571"]
        command = ["ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run", *launch]
        command += ["-m", "lit_awm.cli", "fit", *words]
        settings: dict[str, Any] = {"GLOO_SOCKET_IFNAME": CABLE, "KEPT_WEIGHTS": str(tmp_path), "OMP_NUM_THREADS": "1"}
        environment = os.environ | settings | {"PYTHONPATH": str(ROOT)}
        running.append(subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True))
    for process in running:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors[-3000:]
    told = [torch.load(tmp_path / f"{number}.pt", weights_only=False) for number in range(2)]
    assert [each["host"] for each in told] == ["0", "1"]
    assert all(each["world"] == 2 for each in told)
    for name, value in told[0]["state"].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, told[1]["state"][name]), name
    assert list((tmp_path / "lit-awm-0").rglob("last.ckpt"))  # the first writes
    assert not list((tmp_path / "lit-awm-1").rglob("*.ckpt"))
