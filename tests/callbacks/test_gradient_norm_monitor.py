from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from tensordict import TensorDict
from torch.utils.data import DataLoader

from lit_awm.callbacks import GradientNormMonitor
from lit_awm.data import ExperienceDataModule
from lit_awm.models import ActionsWorldModel, CausalTransformer, DeterministicPolicy, MarkovWorldModel
from lit_awm.modules import AlternatingModule, PolicyModule, WorldModelModule


def test_the_logged_norm_is_that_of_the_unclipped_gradient(make_trainer: Callable[..., Trainer]) -> None:
    batch = TensorDict(
        {
            "observation": torch.randn(4, 5, 3),
            "action": torch.rand(4, 5, 1),
            "next": {"observation": torch.randn(4, 5, 3), "reward": torch.randn(4, 5, 1)},
        },
        batch_size=[4, 5],
    )
    model = ActionsWorldModel(3, 1, CausalTransformer(8, 1, 1, 5))
    module = WorldModelModule(model, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    module.fit_statistics(batch)
    gradients = torch.autograd.grad(module.loss(batch), module.trained_parameters())
    expected = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    trainer = make_trainer(max_epochs=1, callbacks=[GradientNormMonitor()])
    trainer.fit(module, DataLoader([batch], collate_fn=lambda batches: batches[0]))
    assert trainer.callback_metrics["world_model/grad_norm"].item() == pytest.approx(expected, rel=1e-5)


def test_norms_by_layer_group_and_by_position_add_up_to_the_whole(make_trainer: Callable[..., Trainer]) -> None:
    model = ActionsWorldModel(2, 1, CausalTransformer(8, 1, 1, 10))
    model.fit_statistics(torch.rand(4, 10, 2), torch.rand(4, 10, 1), torch.rand(4, 10))
    module = PolicyModule(DeterministicPolicy(2, 1), model, 10)
    data = ExperienceDataModule("bioreactor", episode_length=10, num_envs=1, warmup_episodes=1, policy_updates=1)
    trainer = make_trainer(max_epochs=1, callbacks=[GradientNormMonitor(layers=True, positions=3)])
    trainer.fit(module, data)
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert module.action_gradient is not None
    parts = [metrics[f"policy/action_grad_norm/{part}"] for part in (1, 2, 3)]
    assert sum(part**2 for part in parts) == pytest.approx(module.action_gradient.norm().item() ** 2, rel=1e-5)
    assert parts[0] == pytest.approx(module.action_gradient[:, :4].norm().item(), rel=1e-5)
    assert metrics["policy/grad_norm/network"] == pytest.approx(metrics["policy/grad_norm"], rel=1e-5)


def test_layer_groups_of_a_world_model_are_its_parts(make_trainer: Callable[..., Trainer]) -> None:
    data = ExperienceDataModule("bioreactor", episode_length=10, num_envs=1, warmup_episodes=1, world_model_updates=1)
    module = WorldModelModule(ActionsWorldModel(2, 1, CausalTransformer(8, 1, 1, 10)))
    trainer = make_trainer(max_epochs=1, callbacks=[GradientNormMonitor(layers=True)])
    trainer.fit(module, data)
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    parts = [metrics[f"world_model/grad_norm/{name}"] for name in ("encoder", "backbone", "head")]
    assert sum(part**2 for part in parts) == pytest.approx(metrics["world_model/grad_norm"] ** 2, rel=1e-5)


def test_positions_are_refused_where_there_is_no_policy(make_trainer: Callable[..., Trainer]) -> None:
    data = ExperienceDataModule("bioreactor", episode_length=10, num_envs=1, warmup_episodes=1, world_model_updates=1)
    module = WorldModelModule(ActionsWorldModel(2, 1, CausalTransformer(8, 1, 1, 10)))
    with pytest.raises(ValueError, match="GradientNormMonitor needs a module that optimises a policy"):
        make_trainer(max_epochs=1, callbacks=[GradientNormMonitor(positions=3)]).fit(module, data)


def test_positions_are_refused_where_a_batch_is_split(make_trainer: Callable[..., Trainer]) -> None:
    data = ExperienceDataModule("bioreactor", episode_length=10, num_envs=1, warmup_episodes=1)
    module = AlternatingModule(
        data.state_dim,
        data.action_dim,
        lambda s, a, **known: MarkovWorldModel(s, a, **known),
        DeterministicPolicy,
        policy_module=partial(PolicyModule, imagination_horizon=10, imagination="sequential"),
        accumulate=2,
    )
    with pytest.raises(
        ValueError, match="positions must be 0 where a batch is split into parts, got 3 with accumulate"
    ):
        make_trainer(max_epochs=1, callbacks=[GradientNormMonitor(positions=3)]).fit(module, data)


def test_a_negative_number_of_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="positions must be at least 0, got -1"):
        GradientNormMonitor(positions=-1)
