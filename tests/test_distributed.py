"""Several processes are one run: equal weights, different experience, the gradient of all batches together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from tensordict import TensorDict

from lit_awm.distributed import check_ranks, check_strategy
from tests.distributed_run import make_data, make_module

pytestmark = pytest.mark.program

SCRIPT = Path(__file__).parent / "distributed_run.py"
Told = dict[str, Any]


def command(kind: str, out: Path, checkpoint: Path | None = None) -> list[str]:
    return [sys.executable, str(SCRIPT), kind, str(out), "2", *([str(checkpoint)] if checkpoint else [])]


def run(kind: str, out: Path, checkpoint: Path | None = None) -> list[Told]:
    """Run by two processes and return what each of them has told."""
    out.mkdir(parents=True, exist_ok=True)
    words, options = command(kind, out, checkpoint), {"capture_output": True, "text": True, "timeout": 600}
    ended = subprocess.run(words, env=environment(), **options)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return [torch.load(out / f"rank_{rank}.pt", weights_only=False) for rank in range(2)]


def environment() -> dict[str, str]:
    root = str(SCRIPT.parent.parent)
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root + os.pathsep + os.environ.get("PYTHONPATH", "")}


def assert_equal_tapes(first: list[Told], second: list[Told], names: tuple[str, ...]) -> None:
    assert [each["step"] for each in first] == [each["step"] for each in second]
    for ours, theirs in zip(first, second, strict=True):
        assert ours["phase"] == theirs["phase"]
        for name in names:
            assert torch.equal(ours[name], theirs[name]), (name, ours["step"], ours["phase"])


def assert_one_run(told: list[Told]) -> None:
    """Weights, buffers and gradients are the same in both after every update, experience and batches are not."""
    first, second = told
    assert_equal_tapes(first["tape"], second["tape"], ("weights", "gradients"))
    assert first["env_steps"] == second["env_steps"] == first["rows"] + second["rows"]
    assert not torch.equal(first["observation"], second["observation"])
    pairs = zip(first["tape"], second["tape"], strict=True)
    assert all(not torch.equal(a["batch"]["observation"], b["batch"]["observation"]) for a, b in pairs)


def test_alternation_is_one_run_and_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole = run("alternating", tmp_path / "whole")
    assert_one_run(whole)
    assert {each["phase"] for each in whole[0]["tape"]} == {"teacher", "world_model", "policy"}
    resumed = run("alternating", tmp_path / "resumed", tmp_path / "whole" / "checkpoints" / "step=15.ckpt")
    for before, after in zip(whole, resumed, strict=True):
        left = [each for each in before["tape"] if each["step"] > 15]
        assert_equal_tapes(left, after["tape"], ("weights", "gradients"))
        assert torch.equal(before["observation"], after["observation"])
        assert before["scores"] == after["scores"]


@pytest.mark.parametrize("kind", ["world_model", "policy"])
def test_the_gradient_is_that_of_both_batches_together(kind: str, tmp_path: Path) -> None:
    told = run(kind, tmp_path)
    assert_one_run(told)
    data = make_data()
    module = make_module(kind, data)
    batch = torch.cat([each["tape"][3]["batch"] for each in told])
    checkpoint = torch.load(tmp_path / "checkpoints" / "step=3.ckpt", weights_only=False)
    module.load_state_dict(checkpoint["state_dict"])
    parameters = [parameter for parameter in module.trained_parameters() if parameter.requires_grad]
    found = torch.autograd.grad(module.loss(TensorDict(batch, batch.batch_size)), parameters)
    expected = torch.cat([gradient.flatten() for gradient in found])
    error = (told[0]["tape"][3]["gradients"] - expected).norm() / expected.norm()
    assert error.item() < 1e-6


@pytest.mark.slow
def test_a_divided_world_model_learns_what_a_whole_one_does(tmp_path: Path) -> None:
    divided, whole = run("sharded", tmp_path / "divided"), run("world_model", tmp_path / "whole")
    assert_one_run(divided)
    parameters = divided[0]["tape"][0]["gradients"].numel()
    assert sum(told["tape"][0]["local"] for told in divided) == parameters  # each process holds a part
    assert parameters > divided[0]["tape"][0]["local"]
    for ours, theirs in zip(divided[0]["tape"], whole[0]["tape"], strict=True):
        torch.testing.assert_close(ours["weights"], theirs["weights"], rtol=1e-4, atol=1e-5)
    resumed = run("sharded", tmp_path / "resumed", tmp_path / "divided" / "checkpoints" / "step=4.ckpt")
    assert_equal_tapes(divided[0]["tape"][4:], resumed[0]["tape"], ("weights", "gradients"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sac", "online_dt"])
def test_agents_are_one_run(kind: str, tmp_path: Path) -> None:
    if kind == "online_dt":
        pytest.importorskip("transformers")
    assert_one_run(run(kind, tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("killed", [0, 1])
def test_a_run_that_loses_a_process_ends_soon_and_says_so(killed: int, tmp_path: Path) -> None:
    process = subprocess.Popen(command("long", tmp_path), stderr=subprocess.PIPE, text=True, env=environment())
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("checkpoints/*.ckpt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (other,) = [
        int(child) for child in children if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
    ]
    os.kill((process.pid, other)[killed], signal.SIGKILL)
    deadline = time.monotonic() + 120
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Error" in errors
    while Path(f"/proc/{other}").exists() and "Z" not in Path(f"/proc/{other}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize("strategy", [ModelParallelStrategy, FSDPStrategy])
def test_a_strategy_that_divides_a_model_is_refused(strategy: Any) -> None:
    check_strategy(SimpleNamespace(strategy=DDPStrategy()), "AlternatingModule")  # type: ignore[arg-type]
    trainer: Any = SimpleNamespace(strategy=strategy())
    with pytest.raises(ValueError, match=f"must be auto or ddp for AlternatingModule, got {strategy.__name__}"):
        check_strategy(trainer, "AlternatingModule")


def test_apples_gpus_are_refused() -> None:
    trainer: Any = SimpleNamespace(strategy=SingleDeviceStrategy(torch.device("mps")))
    with pytest.raises(ValueError, match="accelerator must be cpu or gpu for AlternatingModule, got mps.*Use `accel"):
        check_strategy(trainer, "AlternatingModule")


def test_a_checkpoint_of_two_processes_is_not_gone_on_with_by_one() -> None:
    check_ranks(1)
    with pytest.raises(ValueError, match=r"trainer.devices, times num_nodes, must be 2 to go on .*, got 1"):
        check_ranks(2)
