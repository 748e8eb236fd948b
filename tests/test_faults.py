"""Faults in the middle of a run: each is named, and what was saved stays and can be gone on from."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_awm.cli import main
from lit_awm.envs.control import ControlEnv
from lit_awm.modules import PolicyModule, WorldModelModule

pytestmark = pytest.mark.program

COMMAND = """fit --config bear_populations --resume --data.episode_length 10 --data.num_envs 1 --data.warmup_episodes 2
    --data.world_model_updates 2 --data.policy_updates 2 --model.world_model.backbone.hidden_dim 16
    --model.teacher null --data.turns 1 --trainer.accelerator cpu --trainer.max_epochs"""
LAST = Path("runs/bear_populations/version_0/checkpoints/last.ckpt")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lit-awm"])


def fit(epochs: int) -> int:
    return main([*COMMAND.split(), str(epochs)])


def epochs_of(path: Path) -> int:
    return torch.load(path, weights_only=True)["epoch"] + 1


def spoil_loss(module: type[Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what lets the loss of a module be NaN."""

    def spoil(monkeypatch: pytest.MonkeyPatch) -> None:
        healthy = module.loss_and_metrics

        def broken(self: Any, batch: Any) -> Any:
            loss, metrics = healthy(self, batch)
            return loss * math.nan, metrics

        monkeypatch.setattr(module, "loss_and_metrics", broken)

    return spoil


def spoil_env(change: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what changes the next state and the reward of every step of the environment."""

    def spoil(monkeypatch: pytest.MonkeyPatch) -> None:
        healthy = ControlEnv.guarded_step
        monkeypatch.setattr(ControlEnv, "guarded_step", lambda self, *given: change(*healthy(self, *given)))

    return spoil


def dies(*_: Any) -> Any:
    """Stand for a simulator that crashes."""
    raise RuntimeError("the simulator has died")


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "model": (spoil_loss(WorldModelModule), r"the gradient of phase world_model is not finite in update 3 \(step 4\)"),
    "policy": (spoil_loss(PolicyModule), r"the gradient of phase policy is not finite in update 3 \(step 6\)"),
    "reward": (
        spoil_env(lambda state, reward, is_over: (state, reward * math.nan, is_over)),
        r"bear_populations emitted .*: action \[.*\] in \[.*\] at step 1 gave .* and reward nan",
    ),
    "simulator": (spoil_env(dies), "the simulator has died"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_the_run_goes_on_from_its_last_checkpoint(
    fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, words = FAULTS[fault]
    assert fit(epochs=1) == 0
    saved = LAST.read_bytes()
    with monkeypatch.context() as patch:
        spoil(patch)
        with pytest.raises((ValueError, RuntimeError, SystemExit)) as raised:
            fit(epochs=2)
    told = capsys.readouterr().err if isinstance(raised.value, SystemExit) else str(raised.value)
    assert re.search(words, told)
    assert LAST.read_bytes() == saved
    assert fit(epochs=2) == 0
    assert epochs_of(LAST) == 2


def run_on_disk(folder: Path, kilobytes: int, script: str) -> subprocess.CompletedProcess[str]:
    """Run shell commands in a folder that is a disk of its own; ``$FIT`` is our command, ``$OUT`` the folder around."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    program = "import sys; from lit_awm.cli import main; sys.exit(main())"
    variables = {"FIT": f"'{sys.executable}' -c '{program}' {' '.join(COMMAND.split())}", "OUT": str(folder)}
    mounted = f"mount -t tmpfs -o size={kilobytes}k tmpfs '{disk}' && cd '{disk}' && {{ {script}; }}"
    own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*own, f"mount -t tmpfs tmpfs '{disk}'"]).returncode:
        pytest.skip("needs a namespace in which a disk can be mounted")
    return subprocess.run([*own, mounted], env=os.environ | variables, capture_output=True, text=True)


def test_a_disk_that_is_full_is_named_and_what_was_saved_can_be_gone_on_from(tmp_path: Path) -> None:
    done = run_on_disk(tmp_path, 700, 'eval "$FIT 500"; status=$?; cp -r runs "$OUT"; exit $status')
    assert done.returncode == 1
    last_line = done.stderr.strip().splitlines()[-1]
    assert "No space left on device: runs/bear_populations/version_0/" in last_line
    assert "was not written" in last_line
    epochs = epochs_of(LAST)
    assert epochs > 1
    assert fit(epochs=epochs + 1) == 0
    assert epochs_of(LAST) == epochs + 1


def test_a_disk_that_has_become_read_only_is_named_before_the_first_step(tmp_path: Path) -> None:
    script = 'eval "$FIT 1" && mount -o remount,ro . && eval "$FIT 2"; status=$?; cp -r runs "$OUT"; exit $status'
    done = run_on_disk(tmp_path, 5000, script)
    assert done.returncode == 2
    assert "trainer.logger.save_dir must be a folder that can be written to, got 'runs'" in done.stderr
    assert fit(epochs=2) == 0
    assert epochs_of(LAST) == 2
