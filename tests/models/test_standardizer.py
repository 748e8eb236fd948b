from __future__ import annotations

import torch

from lit_awm.models import Standardizer


def test_data_become_standard_and_come_back() -> None:
    data = torch.randn(50, 20, 3, dtype=torch.float64) * torch.tensor([1e-3, 1.0, 1e4]) + torch.tensor([5.0, 0.0, -1e5])
    standardizer = Standardizer(3).double()
    assert torch.equal(standardizer(data), data)
    standardizer.fit(data)
    standard = standardizer(data).reshape(-1, 3)
    torch.testing.assert_close(standard.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(standard.std(0, correction=0), torch.ones(3).double())
    torch.testing.assert_close(standardizer.inverse(standardizer(data)), data)


def test_a_component_that_does_not_vary_keeps_its_scale() -> None:
    standardizer = Standardizer(2)
    standardizer.fit(torch.stack([torch.full((10,), 1000.1), torch.arange(10.0)], dim=-1))
    assert standardizer.scale[0] == 1
    assert standardizer.scale[1] > 2
