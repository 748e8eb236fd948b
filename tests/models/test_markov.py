from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from lit_awm.models import ActionsWorldModel, MarkovWorldModel, SimulatorWorldModel, UnrolledWorldModel
from lit_awm.modules import WorldModelModule


def trajectories(batch: int = 8, horizon: int = 6) -> TensorDict:
    states = torch.randn(batch, horizon + 1, 3).cumsum(1)
    return TensorDict(
        {
            "observation": states[:, :-1],
            "action": torch.rand(batch, horizon, 2),
            "next": {"observation": states[:, 1:], "reward": torch.randn(batch, horizon, 1)},
        },
        batch_size=[batch, horizon],
    )


def test_an_ensemble_predicts_the_mean_of_its_members_and_knows_where_they_disagree() -> None:
    model, batch = MarkovWorldModel(3, 2, 16, num_members=4), trajectories()
    states, actions = batch["observation"], batch["action"]
    mean, members = model(states, actions), model.members(states, actions)
    assert members.state.shape == (4, 8, 6, 3)
    torch.testing.assert_close(mean.state, members.state.mean(0))
    torch.testing.assert_close(mean.reward, members.reward.mean(0))
    assert (model.disagreement(states, actions) > 0).all()
    assert MarkovWorldModel(3, 2, 16).disagreement(states, actions).eq(0).all()


def test_members_learn_by_themselves_and_agree_where_there_is_data() -> None:
    model, batch = MarkovWorldModel(3, 2, 16, num_members=4, reward_fn=lambda s, a, n: s[..., 0]), trajectories()
    batch["next", "observation"] = batch["observation"] + 0.1 * batch["action"].sum(-1, keepdim=True).sin()
    module = WorldModelModule(model)
    module.fit_statistics(batch)
    members = model.members(batch["observation"], batch["action"]).state
    errors = (members - batch["next", "observation"]) / model.error_scale
    torch.testing.assert_close(module.loss(batch), errors.square().mean())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        module.loss(batch).backward()
        optimizer.step()
    known = model.disagreement(batch["observation"], batch["action"]).mean()
    far = model.disagreement(batch["observation"] + 20, batch["action"]).mean()
    assert far > 10 * known


def test_errors_are_measured_in_units_of_what_is_predicted() -> None:
    batch = trajectories()
    states = torch.cat([batch["observation"], batch["next", "observation"][:, -1:]], dim=1)
    for predicts, data in (("difference", states.diff(dim=1)), ("state", states)):
        model = MarkovWorldModel(3, 2, predicts=predicts)  # type: ignore[arg-type]
        WorldModelModule(model).fit_statistics(batch)
        torch.testing.assert_close(model.error_scale, data.flatten(0, 1).std(0, correction=0))


def test_a_simulator_without_a_step_and_without_parameters_is_refused() -> None:
    model = SimulatorWorldModel(3, 2)
    with pytest.raises(ValueError, match="step_fn must be given to a SimulatorWorldModel, got None"):
        model(torch.zeros(1, 2, 3), torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match="world_model must have parameters to fit, got SimulatorWorldModel"):
        WorldModelModule(model).configure_optimizers()


def test_a_transition_must_be_of_one_step() -> None:
    with pytest.raises(ValueError, match="transition must be a model of one step, got ActionsWorldModel"):
        UnrolledWorldModel(ActionsWorldModel(3, 2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_members": 0}, "num_members must be at least 1, got 0"),
        ({"num_layers": -1}, "num_layers must be at least 0, got -1"),
        ({"hidden_dim": 0}, "hidden_dim must be at least 1, got 0"),
    ],
)
def test_bad_sizes_are_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MarkovWorldModel(3, 2, **options)
