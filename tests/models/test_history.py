from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_awm.models import CausalTransformer, HistoryWorldModel, RecurrentBackbone

HORIZON = 5


def make(predicts: str = "difference", cut_paths: bool = False) -> HistoryWorldModel:
    torch.manual_seed(1)
    backbone = CausalTransformer(16, 2, 2, HORIZON)
    model = HistoryWorldModel(3, 2, backbone, predicts, cut_paths).double()  # type: ignore[arg-type]
    model.fit_statistics(torch.randn(6, HORIZON, 3), torch.rand(6, HORIZON, 2), torch.randn(6, HORIZON))
    return model


def unroll(model: HistoryWorldModel, initial: Tensor, actions: Tensor) -> Tensor:
    carry, states = model.start(initial, HORIZON), []
    for action in actions.unbind(1):
        carry, state, _ = model.step(carry, action)
        states.append(state)
    return torch.stack(states, 1)


@pytest.mark.parametrize("predicts", ["difference", "state"])
def test_a_gradient_is_the_sum_over_all_paths_and_with_cut_paths_the_direct_one(predicts: str) -> None:
    """``ds_t/da_k = D_tk + sum_j E_tj ds_j/da_k``, with the direct partial derivatives D and E of ``h``."""
    initial, actions = torch.randn(1, 3).double(), torch.rand(1, HORIZON, 2).double()
    whole, cut = make(predicts), make(predicts, cut_paths=True)
    with torch.no_grad():
        states = unroll(whole, initial, actions)
        torch.testing.assert_close(unroll(cut, initial, actions), states, rtol=1e-12, atol=1e-12)
    seen = torch.cat([initial.unsqueeze(1), states[:, :-1]], dim=1)
    by_state, by_action = torch.autograd.functional.jacobian(lambda s, a: whole(s, a).state, (seen, actions))
    by_state, by_action = by_state[0, :, :, 0], by_action[0, :, :, 0]  # (t, S, j, S) and (t, S, k, A)
    total = torch.zeros(HORIZON, 3, HORIZON, 2, dtype=torch.float64)
    for t in range(HORIZON):
        total[t] = by_action[t]
        for j in range(1, t + 1):  # state j is the prediction of step j - 1
            total[t] += torch.einsum("ab,bkc->akc", by_state[t, :, j], total[j - 1])
    for model, expected in ((whole, total), (cut, by_action)):
        got = torch.autograd.functional.jacobian(lambda a, m=model: unroll(m, initial, a), actions)[0, :, :, 0]
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    assert (total - by_action).abs().max() > 1e-4


def test_the_initial_state_keeps_its_gradient_when_paths_are_cut() -> None:
    initial = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    states = unroll(make(cut_paths=True), initial, torch.rand(1, HORIZON, 2).double())
    (gradient,) = torch.autograd.grad(states[:, -1].sum(), initial)
    assert gradient.ne(0).all()


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="predicts must be one of difference, state, got 'delta'"):
        HistoryWorldModel(3, 2, RecurrentBackbone(8), "delta")  # type: ignore[arg-type]
