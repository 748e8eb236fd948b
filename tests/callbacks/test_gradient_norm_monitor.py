from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import Trainer
from tensordict import TensorDict
from torch.utils.data import DataLoader

from lit_awm.callbacks import GradientNormMonitor
from lit_awm.models import ActionsWorldModel, CausalTransformer
from lit_awm.modules import WorldModelModule


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
