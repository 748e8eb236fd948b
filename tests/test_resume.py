"""A resumed run is the run: equal to the bit, from a checkpoint in any phase, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_awm.callbacks import AdaptiveHorizon, HorizonCurriculum
from lit_awm.data import ExperienceDataModule
from lit_awm.models import ActionsWorldModel, CausalTransformer, DeterministicPolicy, MarkovWorldModel
from lit_awm.modules import AlternatingModule, CosineRestarts, MuonAdam, PolicyModule, WorldModelModule

pytestmark = pytest.mark.program

PASSES, TURNS = 3, 2
TEACHER_UPDATES, WORLD_MODEL_UPDATES, POLICY_UPDATES = 2, 4, 4
SCHEDULES: dict[str, Callable[[], Callback]] = {
    "curriculum": lambda: HorizonCurriculum(4, 2),
    "adaptive": lambda: AdaptiveHorizon(2, threshold=1e-6, every=2),
    "guided": lambda: HorizonCurriculum(4, 2),
}


class Tape(Callback):
    """Record every loss, every evaluation and every imagination horizon."""

    def __init__(self) -> None:
        self.losses: dict[int, tuple[str, str, int]] = {}
        self.costs: dict[int, str] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        loss = float(outputs["loss"]).hex()
        self.losses[trainer.global_step] = (batch["phase"], loss, pl_module.policy.imagination_horizon)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.costs[trainer.global_step] = float(trainer.callback_metrics["eval/cost"]).hex()


def fit(
    make_trainer: Callable[..., Trainer], seed: int, checkpoint: Path | None, schedule: str, *callbacks: Callback
) -> tuple[Any, Tape]:
    torch.manual_seed(seed)
    tape = Tape()
    data = ExperienceDataModule(
        "bear_populations",
        {"initial_spread": 0.1},
        episode_length=8,
        num_envs=2,
        warmup_episodes=2,
        turns=TURNS,
        teacher_updates=TEACHER_UPDATES,
        world_model_updates=WORLD_MODEL_UPDATES,
        policy_updates=POLICY_UPDATES,
        world_model_batch_size=3,
        policy_batch_size=2,
        trial=True,
    )
    try_policy = data.try_policy
    data.try_policy = lambda: try_policy() - 1e6 * data.env_steps  # so that all later ones give way to the first
    module = AlternatingModule(
        data.state_dim,
        data.action_dim,
        world_model=lambda s, a, **known: ActionsWorldModel(s, a, CausalTransformer(16, 1, 1, 8), **known),
        policy=partial(DeterministicPolicy, hidden_dim=8),
        world_model_module=partial(
            WorldModelModule, optimizer=MuonAdam, scheduler=partial(CosineRestarts, period=4, warmup=0.5)
        ),
        policy_module=partial(
            PolicyModule,
            imagination_horizon=8,
            imagination="warm",
            policy_input_gradient=0.5,
            action_noise=0.1,
            scheduler=partial(CosineRestarts, period=5),
        ),
        teacher=partial(MarkovWorldModel, hidden_dim=8),
        guide_from=1 if schedule == "guided" else None,
        known_reward=True,
        known_reward_fn=data.known_reward_fn,
        clock_step=data.clock_step,
    )
    trainer = make_trainer(
        max_epochs=PASSES, enable_checkpointing=True, callbacks=[tape, SCHEDULES[schedule](), *callbacks]
    )
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    return module, tape


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest) -> str:
    """What changes the horizon during the run."""
    return request.param


@pytest.fixture
def whole_run(make_trainer: Callable[..., Trainer], tmp_path: Path, schedule: str) -> tuple[Any, Tape, dict[int, Path]]:
    every_step = ModelCheckpoint(tmp_path / "checkpoints", "{step}", save_top_k=-1, every_n_train_steps=1)
    module, tape = fit(make_trainer, 0, None, schedule, every_step)
    files = {int(path.stem.split("=")[1]): path for path in (tmp_path / "checkpoints").glob("*.ckpt")}
    return module, tape, files


def test_a_run_resumed_from_any_step_is_equal_to_the_bit(
    whole_run: tuple[Any, Tape, dict[int, Path]], make_trainer: Callable[..., Trainer], schedule: str
) -> None:
    module, whole, files = whole_run
    assert len(whole.losses) == PASSES * (TEACHER_UPDATES + WORLD_MODEL_UPDATES + POLICY_UPDATES)
    assert len({horizon for _, _, horizon in whole.losses.values()}) > 1
    for step in range(1, len(whole.losses)):
        resumed, tape = fit(make_trainer, 999, files[step], schedule)
        assert tape.losses == {key: value for key, value in whole.losses.items() if key > step}, f"from step {step}"
        assert {key for key in whole.costs if key > step} <= set(tape.costs)
        assert all(whole.costs[key] == cost for key, cost in tape.costs.items())
        for name, value in resumed.state_dict().items():
            expected = module.state_dict()[name]
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, expected), name
