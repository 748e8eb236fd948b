from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch import Trainer
from tensordict import TensorDict
from torch import Tensor

from lit_awm.data import ExperienceDataModule
from lit_awm.data.exploration import Exploration
from lit_awm.models import MarkovWorldModel, TanhNormalPolicy

pytest.importorskip("transformers")
from lit_awm.modules import DecisionTransformerPolicy, OnlineDTModule, PolicyModule

CONTEXT = 4
NO_NEWS = torch.tensor([[False], [False]])


def make_policy(state_dim: int = 3, action_dim: int = 2) -> DecisionTransformerPolicy:
    policy = DecisionTransformerPolicy(state_dim, action_dim, CONTEXT, hidden_dim=16, num_layers=1, num_heads=2)
    for layer in (policy.actor.action_layer_mean, policy.actor.action_layer_logstd):
        torch.nn.init.normal_(layer.weight)
    policy.target_return.fill_(5.0)
    return policy


def step(policy: DecisionTransformerPolicy, t: int, states: Tensor, earned: Tensor, noise: Tensor | None) -> Tensor:
    return policy.act(states[:, t], torch.full((2, 1), t == 0), earned[:, t], noise)


def test_the_policy_acts_as_the_transformer_says_of_the_last_steps() -> None:
    policy, states, earned = make_policy(), torch.randn(2, 7, 3), torch.rand(2, 7, 1).cumsum(1)
    noise = torch.randn(7, 2, 2)
    actions = torch.stack([step(policy, t, states, earned, noise[t]) for t in range(7)], dim=1)
    policy.actor.eval()
    for t in range(7):
        window = slice(max(0, t + 1 - CONTEXT), t + 1)
        done = actions[:, window].clone()
        done[:, -1] = 0.3  # its own action comes after its own state
        mean, deviation = policy.actor(states[:, window], done, 5.0 - earned[:, window])
        expected = (mean[:, -1] + deviation[:, -1] * noise[t]).tanh()
        torch.testing.assert_close(actions[:, t], expected, rtol=1e-5, atol=1e-6)


def test_an_episode_that_begins_forgets_the_one_before() -> None:
    policy, states = make_policy(), torch.randn(2, 3)
    fresh = policy.sample(states)
    for _ in range(3):
        policy.act(torch.randn(2, 3), NO_NEWS, torch.zeros(2, 1))
    assert torch.equal(policy.sample(states), fresh)


def test_what_is_still_to_be_earned_changes_the_action() -> None:
    policy, states, begins = make_policy(), torch.randn(2, 3), torch.ones(2, 1, dtype=torch.bool)
    assert not torch.equal(policy.act(states, begins, torch.zeros(2, 1)), policy.act(states, begins, torch.ones(2, 1)))


def test_to_act_leaves_dropout_on_where_it_was() -> None:
    policy = make_policy().train()
    states = torch.randn(2, 3)
    assert torch.equal(policy.sample(states), policy.sample(states))
    assert policy.actor.training


def make_module() -> OnlineDTModule:
    return OnlineDTModule(3, 2, policy=lambda s, a: make_policy(s, a), optimism=0.5)


def make_batch() -> TensorDict:
    after = {"observation": torch.randn(8, CONTEXT, 3), "reward": torch.randn(8, CONTEXT, 1)}
    after["terminated"] = torch.zeros(8, CONTEXT, 1, dtype=torch.bool)
    now = {"observation": torch.randn(8, CONTEXT, 3), "action": (2 * torch.rand(8, CONTEXT, 2) - 1).round(decimals=1)}
    now |= {"return_to_go": torch.randn(8, CONTEXT, 1), "episode_return": torch.zeros(8, CONTEXT, 1)}
    return TensorDict({**now, "next": TensorDict(after, [8, CONTEXT])}, [8, CONTEXT])


def test_the_target_is_somewhat_above_the_best_episode_so_far() -> None:
    module, batch = make_module(), make_batch()
    batch["episode_return"][:3] = torch.tensor([3.0, 7.0, -torch.inf]).view(3, 1, 1)
    module.fit_statistics(batch)
    scale = module.policy.return_scaler.scale[0]  # type: ignore[union-attr]
    assert module.policy.target_return == pytest.approx(7 + 0.5 * scale.item())
    module.fit_statistics(make_batch())
    assert module.best_return == 7


def test_episodes_of_unknown_return_teach_nothing() -> None:
    module, batch = make_module().eval(), make_batch()
    module.fit_statistics(batch)
    torch.manual_seed(0)
    expected = module.loss(batch[:3])
    batch["episode_return"][3:] = -torch.inf
    torch.manual_seed(0)
    assert torch.equal(module.loss(batch), expected)
    batch["episode_return"][:] = -torch.inf
    module.loss(batch).backward()
    assert not any(parameter.grad.any() for parameter in module.trained_parameters() if parameter.grad is not None)


def test_without_dropout_nothing_is_dropped() -> None:
    policy = DecisionTransformerPolicy(3, 2, CONTEXT, 16, 1, 2, dropout=0.0).train()
    context = torch.randn(2, CONTEXT, 3), torch.randn(2, CONTEXT, 2), torch.randn(2, CONTEXT, 1)
    assert torch.equal(policy.actor(*context)[0], policy.actor(*context)[0])


def test_slices_must_be_as_long_as_the_context() -> None:
    module = make_module()
    words = "slice_length must be the policy's context_length 4, got 10"
    with pytest.raises(ValueError, match="slice_length must be the policy's context_length 4, got 3"):
        module.loss(make_batch()[:, :3])
    data = ExperienceDataModule("bear_populations", episode_length=10, num_envs=2, warmup_episodes=2, agent_updates=3)
    module = OnlineDTModule(data.state_dim, data.action_dim, policy=make_policy)
    with pytest.raises(ValueError, match=words):
        Trainer(accelerator="cpu", logger=False, enable_checkpointing=False).fit(module, data)


def test_it_cannot_be_imagined() -> None:
    with pytest.raises(ValueError, match="must act on the state alone to be imagined, got DecisionTransformerPolicy"):
        PolicyModule(make_policy(), MarkovWorldModel(3, 2))


def test_the_loss_is_finite_at_the_bounds_and_trains_the_policy_that_acts() -> None:
    module, batch = make_module(), make_batch()
    batch["action"] = batch["action"].sign()
    module.fit_statistics(batch)
    loss = module.loss(batch)
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in module.policy.actor.action_layer_mean.parameters())  # type: ignore[union-attr]
    trained = {id(parameter) for parameter in module.trained_parameters()}
    used = [parameter for parameter in module.policy.parameters() if parameter.requires_grad]
    assert all(id(parameter) in trained for parameter in used)


def test_it_learns_under_a_stock_trainer_and_what_was_earned_is_relabelled() -> None:
    data = ExperienceDataModule(
        "bioreactor", episode_length=10, num_envs=2, warmup_episodes=2, slice_length=CONTEXT, agent_updates=3
    )
    module = OnlineDTModule(data.state_dim, data.action_dim, policy=make_policy)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=2, accelerator="cpu", **options)  # type: ignore[arg-type]
    trainer.fit(module, data)
    assert module.updates == 6
    assert {"eval/cost", "agent_updates"} <= trainer.callback_metrics.keys()
    rows = data.buffer[: len(data.buffer)].reshape(4, 10)
    expected = rows["next", "reward"].flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(rows["return_to_go"], expected)
    torch.testing.assert_close(rows["episode_return"], expected[:, :1].expand(-1, 10, -1))
    assert module.best_return.item() == pytest.approx(expected[:, 0].max().item())
    fresh = OnlineDTModule(data.state_dim, data.action_dim, policy=make_policy)
    fresh.load_state_dict(module.state_dict())
    state = data.draw_initial_states(2)
    assert torch.equal(fresh.policy.sample(state), module.policy.sample(state))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OnlineDTModule(3, 2, optimism=-1.0), "optimism must be at least 0, got -1.0"),
        (lambda: OnlineDTModule(3, 2, initial_entropy_weight=0.0), "initial_entropy_weight must be positive, got 0.0"),
        (lambda: OnlineDTModule(3, 2, policy=TanhNormalPolicy), "must be a DecisionTransformerPolicy, got TanhNormal"),  # type: ignore[arg-type]
        (lambda: DecisionTransformerPolicy(3, 2, hidden_dim=10), "num_heads must divide hidden_dim 10, got 4"),
        (lambda: DecisionTransformerPolicy(3, 2, context_length=0), "context_length must be at least 1, got 0"),
        (lambda: DecisionTransformerPolicy(3, 2, dropout=1.0), "dropout must be at least 0 and below 1, got 1.0"),
    ],
)
def test_what_cannot_be_is_refused(make, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words):
        make()


def test_it_remembers_what_was_done_and_not_what_it_had_chosen() -> None:
    policy, chosen = make_policy(), make_policy()
    chosen.load_state_dict(policy.state_dict())
    exploration = Exploration(policy, 2, noise=0.5, mean_hold=1.0)
    exploration.at_random.fill_(False)
    state, begins, earned = torch.randn(4, 3), torch.ones(4, 1, dtype=torch.bool), torch.zeros(4, 1)
    done = exploration(state, begins, earned)
    assert policy._memory is not None
    assert torch.equal(policy._memory[1][:, -1], done)
    assert not torch.allclose(done, chosen.act(state, begins, earned, exploration._held))


def test_it_must_not_be_copied() -> None:
    with pytest.raises(TypeError, match="OnlineDTModule must not be copied"):
        copy.deepcopy(make_module())
