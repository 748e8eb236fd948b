from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch import Trainer
from tensordict import TensorDict
from torch import Tensor

from lit_awm.data import ExperienceDataModule
from lit_awm.models import DeterministicPolicy
from lit_awm.modules import SACModule


def make_batch(steps: int = 2) -> TensorDict:
    after = {
        "observation": 3 + torch.randn(8, steps, 3),
        "reward": 50 * torch.randn(8, steps, 1),
        "terminated": torch.zeros(8, steps, 1, dtype=torch.bool),
    }
    now = {"observation": 3 + torch.randn(8, steps, 3), "action": 2 * torch.rand(8, steps, 2) - 1}
    return TensorDict({**now, "next": TensorDict(after, [8, steps])}, [8, steps])


@pytest.fixture
def module() -> SACModule:
    made = SACModule(3, 2, clock_step=0.1)
    made.fit_statistics(make_batch())
    return made


def test_the_policy_that_acts_is_the_one_that_is_optimised(module: SACModule) -> None:
    trained = {id(parameter) for parameter in module.trained_parameters()}
    assert all(id(parameter) in trained for parameter in module.behaviour_policy.parameters())
    module.loss(make_batch()).backward()
    assert all(parameter.grad is not None for parameter in module.behaviour_policy.parameters())


def target_of(module: SACModule, batch: TensorDict) -> Tensor:
    """Return what the critics are fitted to in a batch."""
    with torch.no_grad():
        return module.sac._compute_target_v2(module._in_standard_units(batch))


def test_nothing_follows_where_the_clock_has_run_out_or_the_domain_was_left(module: SACModule) -> None:
    batch = make_batch()
    batch["next", "observation"][..., -1] = 0.5
    batch["next", "observation"][0, 0, -1] = 1.0  # the clock's end
    batch["next", "terminated"][1, 1] = True
    rewards = (batch["next", "reward"] / module.reward_scaler.scale).reshape(-1)
    is_reward_alone = torch.isclose(target_of(module, batch).reshape(-1), rewards)
    assert is_reward_alone.nonzero().flatten().tolist() == [0, 3]


def test_without_a_clock_an_episode_that_is_cut_short_goes_on() -> None:
    module, batch = SACModule(3, 2, clock_step=None), make_batch()
    batch["next", "observation"][..., -1] = 1.0
    assert not module.ends(batch).any()


def test_states_are_read_and_rewards_counted_in_standard_units() -> None:
    module, batch = SACModule(3, 2), make_batch(steps=400)
    module.fit_statistics(batch)
    read = module._in_standard_units(batch)
    assert read.shape == (3200,)
    assert read["observation"].mean(0).abs().max() < 1e-4
    assert read["next", "reward"].std() == pytest.approx(1, abs=1e-2)
    module.fit_statistics(make_batch())
    assert torch.equal(module._in_standard_units(batch)["observation"], read["observation"])


def test_the_slow_critics_follow_by_the_target_rate() -> None:
    module = SACModule(3, 2, target_rate=0.25)
    fast, slow = (
        params.flatten_keys(".")["module.network.0.weight"]
        for params in (module.sac.qvalue_network_params, module.sac.target_qvalue_network_params)
    )
    before = slow.clone()
    with torch.no_grad():
        fast.data += 1.0
    module.after_update()
    torch.testing.assert_close(slow.data, before.lerp(fast.data, 0.25))
    assert module.updates == 1


def test_an_update_of_the_critics_does_not_reach_the_policy(module: SACModule) -> None:
    found = module.sac(module._in_standard_units(make_batch()))
    policy, critics = list(module.policy.parameters()), list(module.sac.qvalue_network_params.parameters())
    of_critics = torch.autograd.grad(found["loss_qvalue"], policy, allow_unused=True, retain_graph=True)
    of_actor = torch.autograd.grad(found["loss_actor"], critics, allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in (*of_critics, *of_actor))


def test_it_learns_under_a_stock_trainer_and_a_checkpoint_is_whole() -> None:
    data = ExperienceDataModule(
        "bioreactor", episode_length=10, num_envs=1, warmup_episodes=2, slice_length=1, agent_updates=5
    )
    module = SACModule(data.state_dim, data.action_dim, clock_step=data.clock_step)
    before = [parameter.clone() for parameter in module.policy.parameters()]
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(module, data)
    assert module.updates == 10
    assert data.env_steps == 30
    assert not all(torch.equal(a, b) for a, b in zip(before, module.policy.parameters(), strict=True))
    assert {"eval/cost", "agent_updates"} <= trainer.callback_metrics.keys()
    fresh = SACModule(data.state_dim, data.action_dim, clock_step=data.clock_step)
    fresh.load_state_dict(module.state_dict())
    state = data.draw_initial_states(2)
    assert torch.equal(fresh.policy.sample(state), module.policy.sample(state))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"discount": 0.0}, "discount must be above 0 and at most 1, got 0.0"),
        ({"target_rate": 2.0}, "target_rate must be above 0 and at most 1, got 2.0"),
        ({"policy": DeterministicPolicy}, "policy must be a TanhNormalPolicy for SACModule, got DeterministicPolicy"),
        ({"discount": math.nan}, "discount must be a number, got nan"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SACModule(3, 2, **options)  # type: ignore[arg-type]
