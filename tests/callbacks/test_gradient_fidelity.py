from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lit_awm.analysis import measure_gradients
from lit_awm.callbacks import GradientFidelity
from lit_awm.data import ExperienceDataModule
from lit_awm.models import (
    ActionsWorldModel,
    DeterministicPolicy,
    GuidedWorldModel,
    MarkovWorldModel,
    RecurrentBackbone,
    RewardModel,
    SimulatorWorldModel,
)
from lit_awm.modules import PolicyModule, WorldModelModule


def make(world_model: str, known_reward: bool = False, **options: Any) -> tuple[PolicyModule, ExperienceDataModule]:
    torch.manual_seed(0)
    data = ExperienceDataModule(
        "bear_populations", {"initial_spread": 0.2} | options, episode_length=8, num_envs=2, warmup_episodes=2
    )
    data.policy_updates = 3
    models: dict[str, Any] = {
        "simulator": SimulatorWorldModel,
        "markov": MarkovWorldModel,
        "actions_gru": lambda s, a, **known: ActionsWorldModel(s, a, RecurrentBackbone(), **known),
    }
    reward_fn = data.known_reward_fn if known_reward else None
    model = models[world_model](data.state_dim, data.action_dim, reward_fn=reward_fn)
    if isinstance(model, SimulatorWorldModel):
        model.connect(data.known_step_fn)
    states = data.draw_initial_states(32)
    model.fit_statistics(states.unsqueeze(1), torch.rand(32, 1, 2), torch.rand(32, 1))
    return PolicyModule(DeterministicPolicy(data.state_dim, 2), model, 8, "sequential"), data


@pytest.mark.parametrize("known_reward", [False, True])
def test_the_simulator_itself_has_fidelity_one(known_reward: bool, make_trainer: Callable[..., Trainer]) -> None:
    """Whether its reward is the step's own or, as for models that learn, that between two observations."""
    module, data = make("simulator", known_reward)
    trainer = make_trainer(max_epochs=1, callbacks=[GradientFidelity(4)])
    trainer.fit(module, data)
    assert trainer.callback_metrics["policy/gradient_cosine"].item() == pytest.approx(1, abs=1e-5)
    assert trainer.callback_metrics["policy/gradient_ratio"].item() == pytest.approx(1, abs=1e-5)
    assert trainer.callback_metrics["policy/gradient_snr"] > 0


def test_a_learned_reward_is_not_that_of_the_simulator(make_trainer: Callable[..., Trainer]) -> None:
    module, data = make("markov")
    module.world_model.reward_fn = RewardModel(data.state_dim, data.action_dim)
    states = data.draw_initial_states(32)
    module.world_model.fit_statistics(states.unsqueeze(1), torch.rand(32, 1, 2), torch.rand(32, 1))
    callback = GradientFidelity(4)
    make_trainer(max_epochs=1, callbacks=[callback]).fit(module, data)
    assert callback._simulator is not None
    assert callback._simulator.reward_fn is None


def test_a_wrong_model_has_not_and_watching_changes_nothing(make_trainer: Callable[..., Trainer]) -> None:
    weights = []
    for callbacks in ([], [GradientFidelity(4)]):
        module, data = make("markov")
        trainer = make_trainer(max_epochs=2, callbacks=callbacks)
        trainer.fit(module, data)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in module.policy.parameters()]))
    assert abs(trainer.callback_metrics["policy/gradient_ratio"].item() - 1) > 1e-3
    assert torch.equal(*weights)


def test_the_gradient_of_a_guided_policy_is_that_along_the_guide(make_trainer: Callable[..., Trainer]) -> None:
    module, data = make("actions_gru", known_reward=True)
    guide = make("markov", known_reward=True)[0].world_model
    module.follow(guide)
    callback = GradientFidelity(4)
    trainer = make_trainer(max_epochs=1, callbacks=[callback])
    trainer.fit(module, data)
    assert callback._initial is not None
    assert callback._simulator is not None
    models = GuidedWorldModel(module.world_model, guide), callback._simulator
    ours, truth = (measure_gradients(model, module.policy, callback._initial, [8])[0] for model in models)
    assert trainer.callback_metrics["policy/gradient_cosine"].item() == pytest.approx(ours.fidelity(truth)[0], abs=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_fidelity_of_a_recurrent_model_on_a_gpu(make_trainer: Callable[..., Trainer]) -> None:
    module, data = make("actions_gru")
    trainer = make_trainer(max_epochs=1, accelerator="gpu", callbacks=[GradientFidelity(4)])
    trainer.fit(module, data)
    assert torch.isfinite(trainer.callback_metrics["policy/gradient_cosine"])


def test_an_environment_whose_step_is_not_known_is_refused(make_trainer: Callable[..., Trainer]) -> None:
    module, data = make("markov", distractors=1)
    with pytest.raises(
        ValueError, match="GradientFidelity needs an ExperienceDataModule whose environment is a system"
    ):
        make_trainer(max_epochs=1, callbacks=[GradientFidelity()]).fit(module, data)


def test_a_module_without_a_policy_is_refused(make_trainer: Callable[..., Trainer]) -> None:
    module, data = make("markov")
    with pytest.raises(
        ValueError, match="GradientFidelity needs a module that optimises a policy, got WorldModelModule"
    ):
        make_trainer(max_epochs=1, callbacks=[GradientFidelity()]).fit(WorldModelModule(module.world_model), data)
