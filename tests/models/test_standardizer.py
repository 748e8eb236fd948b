from __future__ import annotations

import pytest
import torch

from lit_awm.models import ActionsWorldModel, DriftStandardizer, MarkovWorldModel, Standardizer, WorldModel
from lit_awm.models.standardizer import set_aside


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


def test_a_drift_that_all_sequences_share_is_taken_out_step_by_step() -> None:
    shared = torch.tensor([5.0, 7.0, 100.0, 1000.0]).view(1, 4, 1)
    effects = torch.tensor([0.0, 0.1, 0.2, 0.3]).view(1, 4, 1) * torch.tensor([-1.0, 1.0]).view(2, 1, 1)
    scaler = DriftStandardizer(1)
    scaler.fit((shared + effects).double())
    spread = torch.tensor([0.1, 0.2, 0.3]).square().mean().sqrt()
    torch.testing.assert_close(scaler.spread, spread.reshape(1), rtol=1e-3, atol=0)
    steps = torch.tensor([1, 2, 3, 4])
    drift = scaler.inverse(torch.zeros(4, 1), steps).flatten()
    torch.testing.assert_close(drift, torch.tensor([2.0, 95.0, 995.0, 995.0]))  # the last one for all that come later
    moved = scaler.inverse(torch.ones(4, 1), steps).flatten() - drift
    expected = (torch.tensor([0.1, 0.2, 0.3, 0.3]) * spread).sqrt()
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=0)


def test_a_drift_without_spread_keeps_a_scale_above_rounding() -> None:
    scaler = DriftStandardizer(2)
    rows = torch.zeros(3, 5, 2)
    rows[..., 1] = torch.linspace(100, 200, 5)
    scaler = DriftStandardizer(3)
    scaler.fit(torch.cat([rows, torch.randn(3, 5, 1)], dim=-1))
    assert scaler.scale[:, 0].eq(1).all()
    assert scaler.scale[:, 1].gt(0).all()
    assert scaler.scale[:, 1].le(0.01).all()


def test_where_all_sequences_have_ended_alike_others_can_still_be_told() -> None:
    """Bacteria that have died by the third step in all of the data may live by other actions."""
    rows = torch.tensor([[1.0, 0.5, 0.0, 0.0, 0.0], [1.0, 0.9, 0.4, 0.0, 0.0]]).unsqueeze(-1)
    scaler = DriftStandardizer(1)
    scaler.fit(rows)
    assert torch.equal(scaler.scale[2:], scaler.scale[1:2].expand(2, 1))  # as before they had died
    assert scaler.scale[-1] > 0.5 * scaler.spread


def test_what_stays_as_it_began_hardly_moves_and_counts_by_how_it_varies_between_sequences() -> None:
    """Where a goal lies, as in Reacher: a thousandth of an error there is none, whoever labels it."""
    goals = torch.tensor([-0.1, 0.0, 0.1]).view(3, 1, 1).expand(3, 5, 1)
    states, actions = torch.cat([goals, torch.randn(3, 5, 1)], dim=-1), torch.rand(3, 5, 1)
    scaler = DriftStandardizer(2)
    scaler.fit(states)
    torch.testing.assert_close(scaler.spread[0], goals.std(correction=0))
    assert scaler.scale[:, 0].max() < 1e-5
    model = MarkovWorldModel(2, 1)
    model.fit_statistics(states, actions, torch.zeros(3, 5))
    prediction = model(states, actions).state
    torch.testing.assert_close(prediction[..., :1], goals, rtol=0, atol=1e-5)
    assert model.error_scale[1] > 0.1


def test_what_actions_do_counts_however_little_but_rounding_does_not() -> None:
    """As in glucose, where random controls move a state by a hundred-thousandth of what it is."""
    common, moved = torch.linspace(0.75, 0.6, 101).view(1, -1, 1), torch.linspace(0, 1, 101).view(1, -1, 1)
    scaler = DriftStandardizer(1)
    scaler.fit(common + 1e-5 * torch.linspace(-1, 1, 12).view(-1, 1, 1) * moved)
    assert scaler.spread < 1e-5
    state, states = 0.75 + 1e-7 * torch.arange(12.0), []
    for _ in range(1001):
        states.append(state)
        state = 0.9997 * state
    scaler.fit(torch.stack(states, dim=1).unsqueeze(-1))
    assert scaler.spread > 0.01  # that of the states: all fall alike


def test_one_sequence_tells_how_far_states_drift_and_nothing_about_actions() -> None:
    scaler = DriftStandardizer(1)
    rows = torch.linspace(0, 3, 4).reshape(1, 4, 1)
    scaler.fit(rows)
    assert scaler.mean.eq(0).all()
    torch.testing.assert_close(scaler.spread, rows[0, 1:].std(0, correction=0))
    torch.testing.assert_close(scaler.scale, scaler.spread.expand(3, 1))


def test_statistics_of_any_length_are_loaded() -> None:
    fitted, fresh = DriftStandardizer(2), DriftStandardizer(2)
    fitted.fit(torch.randn(4, 9, 2))
    fresh.load_state_dict(fitted.state_dict())
    steps = torch.arange(1, 9)
    assert torch.equal(fresh.inverse(torch.ones(8, 2), steps), fitted.inverse(torch.ones(8, 2), steps))


def test_a_few_sequences_far_away_do_not_decide() -> None:
    data = torch.randn(50, 20, 2).double()
    data[3] *= torch.tensor([1000.0, 1.0])  # one in fifty, of the first component
    kept = set_aside(data)
    assert 0.9 < kept[..., 0].std() < 1.2
    assert torch.equal(kept[..., 1], data[..., 1])
    assert torch.equal(kept[:3], data[:3])


def test_what_every_sequence_does_now_and_then_is_kept() -> None:
    data = torch.randn(50, 100, 1).double()
    data[torch.arange(50), torch.randint(100, (50,))] *= 1000
    assert torch.equal(set_aside(data), data)
    assert torch.equal(set_aside(data[:1]), data[:1])  # and so does a single one


@pytest.mark.parametrize("family", [MarkovWorldModel, ActionsWorldModel])
def test_a_world_model_takes_its_scales_from_what_is_left(family: type[WorldModel]) -> None:
    states, actions, rewards = torch.randn(50, 9, 2), torch.rand(50, 8, 1), torch.randn(50, 8)
    states[3], rewards[3] = 1e4, -1e4
    model = family(2, 1)
    model.fit_statistics(states, actions, rewards)
    assert model.state_scaler.scale.max() < 1.5
    assert model.reward_scaler.scale < 1.5
    plain = Standardizer(2)
    plain.fit(states)
    assert plain.scale.min() > 1000


def test_an_episode_that_diverges_does_not_decide_about_drifts() -> None:
    rows = torch.randn(16, 5, 1).cumsum(1)
    diverging = rows.clone()
    diverging[3] *= torch.tensor([1.0, 1.0, 1.0, 1e3, 1e6]).view(5, 1)
    scaler, other = DriftStandardizer(1), DriftStandardizer(1)
    scaler.fit(diverging)
    other.fit(rows)
    torch.testing.assert_close(scaler.scale, other.scale, rtol=0.6, atol=0)
    assert (scaler.mean - other.mean).abs().max() < other.spread


def test_what_is_ignored_is_zero_whatever_it_is() -> None:
    standardizer = Standardizer(3)
    standardizer.fit(torch.randn(50, 3))
    standardizer.ignored[1] = True
    value = torch.tensor([1.0, torch.inf, 3.0], requires_grad=True)
    standard = standardizer(value)
    assert standard[1] == 0
    standard.sum().backward()
    assert value.grad is not None
    assert value.grad.ne(0).tolist() == [True, False, True]


def test_statistics_of_before_anything_could_be_ignored_can_be_loaded() -> None:
    fitted, loaded = Standardizer(2), Standardizer(2)
    fitted.fit(torch.randn(50, 2))
    older = {name: value for name, value in fitted.state_dict().items() if name != "ignored"}
    loaded.load_state_dict(older)
    assert torch.equal(loaded.scale, fitted.scale)
    assert not loaded.ignored.any()
