from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_awm.callbacks import Throughput, throughput


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def perf_counter(self) -> float:
        return self.now


def test_only_training_counts_and_a_resumed_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, logged = Clock(), dict[str, float]()
    monkeypatch.setattr(throughput, "time", clock)
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(env_steps=600), global_step=300)
    module: Any = SimpleNamespace(log_dict=lambda metrics, **_: logged.update(metrics), device=torch.device("cpu"))
    first = Throughput()
    assert first.state_dict() == {"elapsed_s": 0.0}
    first.on_train_start(trainer, module)
    clock.now += 20
    state = first.state_dict()
    first.on_train_end(trainer, module)
    clock.now += 500
    assert first.state_dict() == state == {"elapsed_s": 20.0}

    resumed = Throughput()
    resumed.load_state_dict(state)
    resumed.on_train_start(trainer, module)
    clock.now += 10
    resumed.on_train_epoch_end(trainer, module)
    memory = logged.pop("memory/peak_mb")
    held = torch.ones(200_000_000, dtype=torch.uint8)
    resumed.on_train_epoch_end(trainer, module)
    assert logged.pop("memory/peak_mb") >= max(memory, len(held) / 1e6)
    assert logged == {"time/elapsed_s": 30.0, "time/env_steps_per_s": 20.0, "time/updates_per_s": 10.0}
    resumed.on_train_end(trainer, module)
    resumed.setup(trainer, module, "fit")  # another one
    assert resumed.state_dict() == {"elapsed_s": 0.0}
