"""What many tests share."""

from __future__ import annotations

import logging
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes: each takes one core, as do those that it starts
    os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Callable
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from lit_awm.models import ActionsWorldModel, CausalTransformer, DeterministicPolicy

os.environ.setdefault("WANDB_MODE", "offline")
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
logging.getLogger("torchrl").setLevel(logging.WARNING)

STATE_DIM, ACTION_DIM = 3, 2


@pytest.hookimpl(trylast=True)  # when it is known which tests are left
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what takes minutes come first, half of it with each of two processes, so that neither waits in the end."""
    slow = [item for item in items if item.get_closest_marker("slow") is not None]
    others = [item for item in items if item.get_closest_marker("slow") is None]
    middle = max(0, len(items) // 2 - len(slow[::2]))
    items[:] = [*slow[::2], *others[:middle], *slow[1::2], *others[middle:]]


@pytest.fixture(autouse=True)
def _reproducible() -> None:
    torch.manual_seed(0)


@pytest.fixture
def world_model() -> ActionsWorldModel:
    """A small actions world model in float64 whose standardisation is not trivial."""
    model = ActionsWorldModel(STATE_DIM, ACTION_DIM, CausalTransformer(16, 2, 2, max_horizon=12)).double()
    data = torch.randn(8, 12, STATE_DIM) * torch.tensor([3.0, 0.1, 1.0]) + torch.tensor([100.0, 0.0, -1.0])
    model.fit_statistics(data, torch.rand(8, 12, ACTION_DIM), 5 + 2 * torch.randn(8, 12))
    return model


@pytest.fixture
def policy() -> DeterministicPolicy:
    """A small deterministic policy in float64 whose actions depend on the state."""
    policy = DeterministicPolicy(STATE_DIM, ACTION_DIM, hidden_dim=8).double()
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    policy.state_scaler.fit(
        torch.randn(8, STATE_DIM) * torch.tensor([3.0, 0.1, 1.0]) + torch.tensor([100.0, 0.0, -1.0])
    )
    return policy


@pytest.fixture
def initial_state() -> torch.Tensor:
    """A batch of four states in raw units."""
    state = torch.randn(4, STATE_DIM, dtype=torch.float64)
    return state * torch.tensor([3.0, 0.1, 1.0]) + torch.tensor([100.0, 0.0, -1.0])


@pytest.fixture
def without_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let steps be traced as if they were compiled, but made into no machine code, which takes long."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()


@pytest.fixture
def make_trainer(tmp_path: os.PathLike[str]) -> Callable[..., Trainer]:
    """Make quiet trainers on the CPU that write below the test's own folder."""

    def make(**options: object) -> Trainer:
        defaults: dict[str, object] = {
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": tmp_path,
        }
        return Trainer(**(defaults | options))

    return make
