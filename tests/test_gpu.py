"""What needs a GPU: the same recipe on it and on the CPU, in bf16, compiled, and divided."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

from lit_awm.data import ExperienceDataModule
from lit_awm.models import ActionsWorldModel, CausalTransformer, DeterministicPolicy
from lit_awm.modules import AlternatingModule, WorldModelModule
from lit_awm.modules.candidates import Champion
from lit_awm.recipes import build

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SHORT = ["--data.teacher_updates=100", "--data.world_model_updates=100", "--data.policy_updates=100"]


def learn(make_trainer: Callable[..., Trainer], epochs: int = 3, **options: Any) -> float:
    """Return the regret of a short run of a recipe."""
    module, data = build(["--config=bioreactor", "--data.episode_length=50", *SHORT])
    trainer = make_trainer(max_epochs=epochs, devices=1, **options)
    trainer.fit(module, data)
    return trainer.callback_metrics["eval/regret"].item()


def test_the_recipe_learns_as_much_as_on_the_cpu(make_trainer: Callable[..., Trainer]) -> None:
    on_cpu, on_gpu = (learn(make_trainer, accelerator=accelerator) for accelerator in ("cpu", "gpu"))
    assert abs(on_gpu - on_cpu) < 0.01


def test_the_recipe_learns_in_bf16(make_trainer: Callable[..., Trainer]) -> None:
    assert learn(make_trainer, accelerator="gpu", precision="bf16-mixed") < 0.1


def test_weights_stay_where_they_are_when_experience_is_collected_elsewhere(
    make_trainer: Callable[..., Trainer],
) -> None:
    module, data = build(["--config=bioreactor", "--data.episode_length=20", "--data.collector=multi_sync", *SHORT])
    assert isinstance(module, AlternatingModule)
    trainer = make_trainer(max_epochs=2, accelerator="gpu", devices=1)
    trainer.fit(module, data)
    assert data.env_steps > 0


def test_what_is_restored_is_where_the_run_is(tmp_path: Path) -> None:
    policy, before, champion = DeterministicPolicy(2, 1).cuda(), Champion(), Champion()
    before.meet(policy, torch.tensor(-5.0, device="cuda"))
    torch.save(before.state_dict(), tmp_path / "state.pt")
    champion.load_state_dict(torch.load(tmp_path / "state.pt", map_location="cpu"))  # as a checkpoint is
    told = champion.meet(policy, torch.tensor(-7.0, device="cuda"))
    assert {value.device.type for value in told.values()} == {"cuda"}
    assert told["best_return"].item() == -5.0


@pytest.mark.parametrize("divided", [False, True])
def test_a_world_model_is_fitted_compiled_or_divided(make_trainer: Callable[..., Trainer], divided: bool) -> None:
    data = ExperienceDataModule("bear_populations", episode_length=10, warmup_episodes=4, world_model_updates=5)
    model = ActionsWorldModel(data.state_dim, data.action_dim, CausalTransformer(16, 1, 1, 10))
    make_strategy = partial(ModelParallelStrategy, 1, tensor_parallel_size=1, save_distributed_checkpoint=False)
    strategy = make_strategy() if divided else "auto"
    trainer = make_trainer(max_epochs=2, accelerator="gpu", devices=1, strategy=strategy)
    trainer.fit(WorldModelModule(model, compile_model=not divided), data)
    assert trainer.callback_metrics["world_model/loss"].isfinite()
