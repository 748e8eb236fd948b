from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from tensordict import TensorDict

from lit_awm.data import ExperienceDataModule
from lit_awm.imagination import Imagined, imagine
from lit_awm.models import (
    ActionsWorldModel,
    CausalTransformer,
    DeterministicPolicy,
    HistoryWorldModel,
    MarkovWorldModel,
    TanhNormalPolicy,
)
from lit_awm.modules import DecaySchedule, LinearSchedule, PolicyModule, ValueBootstrap
from lit_awm.modules.warm_start import PASSES, SEQUENTIAL, WINDOWS


def batch(initial_state: torch.Tensor) -> TensorDict:
    return TensorDict({"observation": initial_state}, batch_size=len(initial_state))


def test_the_loss_is_minus_the_mean_imagined_return(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor
) -> None:
    module = PolicyModule(policy, world_model, imagination_horizon=7)
    expected = imagine(world_model, policy, initial_state, 7).rewards.sum(1).mean()
    torch.testing.assert_close(module.loss(batch(initial_state)), -expected)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_warm_imagination_converges_to_the_replayed_gradient(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor, noise: float
) -> None:
    module = PolicyModule(policy, world_model, imagination_horizon=8, imagination="warm", action_noise=noise)
    torch.manual_seed(3)
    module.loss(batch(initial_state))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    residuals = []
    for _ in range(9):
        loss, metrics = module.loss_and_metrics(batch(initial_state))
        residuals.append(metrics["residual"].item())
    torch.manual_seed(3)
    exact = PolicyModule(policy, world_model, imagination_horizon=8, action_noise=noise).loss(batch(initial_state))
    assert residuals[0] > 1e-4
    assert residuals[-1] < 1e-10
    torch.testing.assert_close(loss, exact, rtol=1e-10, atol=0)


def gradient_of(module: PolicyModule, initial_state: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    module.zero_grad()
    loss, metrics = module.loss_and_metrics(batch(initial_state))
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in module.policy.parameters()]), metrics  # type: ignore


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_warm_imagination_converges_to_the_closed_loop_gradient(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor, noise: float
) -> None:
    options: dict[str, Any] = {"imagination_horizon": 8, "policy_input_gradient": 1.0, "action_noise": noise}
    module = PolicyModule(policy, world_model, imagination="warm", **options)
    torch.manual_seed(3)
    gradient_of(module, initial_state)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    found = [gradient_of(module, initial_state) for _ in range(20)]
    torch.manual_seed(3)
    exact, _ = gradient_of(PolicyModule(policy, world_model, imagination="sequential", **options), initial_state)
    errors = [((gradient - exact).norm() / exact.norm()).item() for gradient, _ in found]
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-10
    assert found[-1][1]["effort"] == PASSES
    assert found[-1][1]["costate_passes"] == 0
    residuals = [metrics["costate_residual"].item() for _, metrics in found[1:]]
    assert residuals[0] > 1e-3
    assert residuals[-1] < 1e-10


def test_costates_that_move_are_solved_for_and_a_loop_that_is_too_stiff_is_unrolled(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor
) -> None:
    module = PolicyModule(policy, world_model, 8, "warm", policy_input_gradient=1.0, tolerance=1e-3)
    gradient_of(module, initial_state)
    efforts = [gradient_of(module, initial_state)[1]["effort"].item()]
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.2)
    efforts += [gradient_of(module, initial_state)[1]["effort"].item() for _ in range(3)]
    assert efforts == [PASSES, PASSES, WINDOWS, PASSES]  # it is known only after an update that they have moved
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.fill_(torch.nan)
    for _ in range(3):
        _, metrics = gradient_of(module, initial_state)
    assert metrics["effort"] == SEQUENTIAL
    module.forget()
    gradient_of(module, initial_state)
    assert module.get_extra_state()["effort"] == WINDOWS


@pytest.mark.parametrize("horizon", [1, 2, 11, 12])
def test_exact_costates_are_gone_on_from_at_any_horizon(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor, horizon: int
) -> None:
    module = PolicyModule(policy, world_model, horizon, "warm", policy_input_gradient=1.0)
    gradient_of(module, initial_state)
    assert gradient_of(module, initial_state)[1]["effort"] == PASSES


def test_where_windows_take_too_many_passes_updates_are_sequential(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor
) -> None:
    module = PolicyModule(policy, world_model, 12, "warm", policy_input_gradient=1.0, tolerance=1e-14)
    expected, _ = gradient_of(PolicyModule(policy, world_model, 12, "sequential", 1.0), initial_state)
    for effort in (WINDOWS, SEQUENTIAL, SEQUENTIAL):
        gradient, _ = gradient_of(module, initial_state)
        assert module.get_extra_state()["effort"] == effort
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_a_loss_that_is_not_backpropagated_decides_nothing(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor
) -> None:
    module = PolicyModule(policy, world_model, 8, "warm", policy_input_gradient=1.0, tolerance=1e-3)
    expected, _ = gradient_of(PolicyModule(policy, world_model, 8, "sequential", 1.0), initial_state)
    first = module.loss(batch(initial_state))
    module.loss(batch(initial_state))
    module.zero_grad()
    first.backward()
    got = torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])  # type: ignore[union-attr]
    assert ((got - expected).norm() / expected.norm()).item() < 1e-3
    assert module.get_extra_state()["effort"] == WINDOWS
    first = module.loss(batch(initial_state))
    module.forget()
    first.backward()
    assert module.get_extra_state()["costates"] is None


def test_the_state_is_a_copy(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor
) -> None:
    module = PolicyModule(policy, world_model, 8, "warm", policy_input_gradient=1.0)
    gradient_of(module, initial_state)
    state = module.get_extra_state()
    kept = {name: state[name].clone() for name in ("costates", "warm_states")}
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.2)
    gradient_of(module, initial_state)
    assert all(torch.equal(state[name], value) for name, value in kept.items())


def test_states_that_moved_are_refined_in_the_next_update(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor
) -> None:
    module = PolicyModule(policy, world_model, 8, "warm", tolerance=1e-3)
    gradient_of(module, initial_state)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.2)
    metrics = [gradient_of(module, initial_state)[1] for _ in range(3)]
    assert [each["refine_passes"].item() > 0 for each in metrics] == [False, True, False]
    assert metrics[0]["residual"] > 1e-3 > metrics[1]["residual"]


def test_a_shorter_horizon_solves_for_costates_anew(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor
) -> None:
    options: dict[str, Any] = {"policy_input_gradient": 1.0, "tolerance": 1e-12}
    module = PolicyModule(policy, world_model, 8, "warm", **options)
    gradient_of(module, initial_state)
    module.imagination_horizon = 5
    got, _ = gradient_of(module, initial_state)
    exact, _ = gradient_of(PolicyModule(policy, world_model, 5, "sequential", **options), initial_state)
    torch.testing.assert_close(got, exact, rtol=1e-9, atol=1e-12)


def test_imagined_noise_has_mean_zero_and_leaves_out_the_first_trajectory(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor
) -> None:
    module = PolicyModule(policy, world_model, imagination_horizon=12, imagination="warm", action_noise=0.2)
    module.loss(batch(initial_state[:1].expand(500, -1)))
    noise = module.get_extra_state()["warm_noise"]
    assert noise is not None
    assert abs(noise[1:].std().item() - 0.2) < 0.005
    assert noise.mean(dim=0).abs().max() < 1e-12
    assert noise[0].eq(0).all()


def test_warm_imagination_goes_on_where_initial_states_differ_in_what_is_ignored(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor
) -> None:
    world_model.ignore(torch.tensor([False, True, False]))
    policy.state_scaler.load_state_dict(world_model.state_scaler.state_dict())
    module = PolicyModule(policy, world_model, imagination_horizon=8, imagination="warm")
    other = initial_state.clone()
    other[:, 1] += 1
    first = module.loss_and_metrics(TensorDict({"observation": initial_state}, [4]))
    second = module.loss_and_metrics(TensorDict({"observation": other}, [4]))
    torch.testing.assert_close(first[0], second[0])  # step by step, and in parallel: but for rounding
    assert ["residual" in metrics for _, metrics in (first, second)] == [False, True]


def test_warm_states_are_dropped_for_other_initial_states(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor
) -> None:
    module = PolicyModule(policy, world_model, imagination_horizon=8, imagination="warm")
    _, first = module.loss_and_metrics(batch(initial_state))
    _, same = module.loss_and_metrics(batch(initial_state))
    _, other = module.loss_and_metrics(batch(initial_state + 0.1))
    module.forget()
    _, forgotten = module.loss_and_metrics(batch(initial_state + 0.1))
    assert ["residual" in metrics for metrics in (first, same, other, forgotten)] == [False, True, False, False]


def test_the_entropy_bonus_widens_the_policy(world_model: ActionsWorldModel, initial_state: torch.Tensor) -> None:
    policy = TanhNormalPolicy(3, 2).double()
    module = PolicyModule(policy, world_model, imagination_horizon=5, entropy_weight=1e6)
    module.adopt_statistics()
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)

    def deviation() -> float:
        return policy(initial_state).base_dist.base_dist.scale.mean().item()

    before = deviation()
    for _ in range(20):
        optimizer.zero_grad()
        module.loss(batch(initial_state)).backward()
        optimizer.step()
    assert deviation() > before


@pytest.mark.parametrize(
    ("make_model", "make_policy", "share", "method"),
    [
        (ActionsWorldModel, DeterministicPolicy, 0.0, "warm"),
        (ActionsWorldModel, TanhNormalPolicy, 0.0, "replay"),
        (ActionsWorldModel, DeterministicPolicy, 0.5, "warm"),
        (ActionsWorldModel, TanhNormalPolicy, 0.5, "sequential"),
        (MarkovWorldModel, DeterministicPolicy, 0.0, "sequential"),
        (HistoryWorldModel, TanhNormalPolicy, 0.0, "sequential"),
    ],
)
def test_auto_is_the_cheapest_method_that_serves(make_model: Any, make_policy: Any, share: float, method: str) -> None:
    module = PolicyModule(make_policy(3, 2), make_model(3, 2), 5, "auto", policy_input_gradient=share)
    assert module.imagination == method
    module.loss(batch(torch.randn(2, 3)))


def test_auto_goes_step_by_step_where_memory_is_to_be_saved_in_a_closed_loop() -> None:
    model, policy = ActionsWorldModel(3, 2), DeterministicPolicy(3, 2)
    module = PolicyModule(policy, model, 5, "auto", policy_input_gradient=1.0, checkpoint=True)
    assert module.imagination == "sequential"


def test_the_entropy_weight_follows_its_schedule_over_updates(
    world_model: ActionsWorldModel, initial_state: torch.Tensor
) -> None:
    schedule = LinearSchedule(2.0, 1.0, updates=4)
    module = PolicyModule(TanhNormalPolicy(3, 2).double(), world_model, 5, entropy_weight=schedule)
    seen = []
    for _ in range(6):
        seen.append(module.loss_and_metrics(batch(initial_state))[1]["entropy_weight"].item())
        module.after_update()
    assert seen == [2.0, 1.75, 1.5, 1.25, 1.0, 1.0]


@pytest.mark.parametrize("imagination", ["sequential", "replay"])
def test_the_gradient_of_the_imagined_actions_is_kept(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor, imagination: Any
) -> None:
    module = PolicyModule(policy, world_model, 5, imagination)
    assert module.action_gradient is None
    module.loss(batch(initial_state)).backward()
    states = initial_state.unsqueeze(1).expand(-1, 5, -1)
    actions = imagine(world_model, policy, initial_state, 5).actions.detach().requires_grad_()
    (expected,) = torch.autograd.grad(-world_model(states, actions).reward.sum(1).mean(), actions)
    assert module.action_gradient is not None
    torch.testing.assert_close(module.action_gradient, expected, rtol=1e-9, atol=1e-12)


def test_it_fits_alone_in_a_frozen_model_and_improves_the_imagined_return(make_trainer: Callable[..., Trainer]) -> None:
    data = ExperienceDataModule("bioreactor", episode_length=10, num_envs=2, warmup_episodes=2, policy_updates=20)
    model = ActionsWorldModel(2, 1, CausalTransformer(16, 1, 2, 10))
    model.fit_statistics(torch.rand(4, 10, 2), torch.rand(4, 10, 1), torch.rand(4, 10))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    module = PolicyModule(DeterministicPolicy(2, 1), model, imagination_horizon=10, imagination="warm")
    initial = TensorDict({"observation": torch.tensor([[0.5, -1.0]])}, batch_size=1)
    before = module.loss(initial).item()
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, data)
    assert trainer.global_step == 20
    assert module.loss(initial).item() < before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert "eval/cost" in trainer.callback_metrics
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_update_is_counted_before_any_callback_can_save(make_trainer: Callable[..., Trainer]) -> None:
    seen = []

    class Counts(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            seen.append((int(pl_module.updates), trainer.global_step))

    module, data = make_alone()
    make_trainer(max_epochs=2, callbacks=[Counts()]).fit(module, data)
    assert seen == [(i, i) for i in range(1, 7)]


def make_alone() -> tuple[PolicyModule, ExperienceDataModule]:
    data = ExperienceDataModule("bioreactor", episode_length=10, num_envs=2, warmup_episodes=2, policy_updates=3)
    model = ActionsWorldModel(2, 1, CausalTransformer(16, 1, 2, 10))
    model.fit_statistics(torch.rand(4, 10, 2), torch.rand(4, 10, 1), torch.rand(4, 10))
    return PolicyModule(DeterministicPolicy(2, 1), model, 10, imagination="warm", action_noise=0.1), data


def test_noise_is_drawn_anew_in_every_epoch(make_trainer: Callable[..., Trainer]) -> None:
    module, data = make_alone()
    seen = []

    class Noise(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            seen.append(pl_module.get_extra_state()["warm_noise"])

    make_trainer(max_epochs=2, callbacks=[Noise()]).fit(module, data)
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[3], seen[5])
    assert not torch.equal(seen[0], seen[3])


def test_a_world_model_that_was_never_fitted_is_refused(make_trainer: Callable[..., Trainer]) -> None:
    data = ExperienceDataModule("bioreactor", episode_length=10)
    module = PolicyModule(DeterministicPolicy(2, 1), ActionsWorldModel(2, 1, CausalTransformer(16, 1, 2, 10)), 10)
    with pytest.raises(ValueError, match="world_model must have been fitted to data.*WorldModelModule"):
        make_trainer(max_epochs=1).fit(module, data)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"imagination_horizon": 13}, "max_horizon 12, got 13"),
        ({"imagination": "fast"}, "must be one of sequential, replay, warm"),
        ({"policy_input_gradient": 1.5}, "policy_input_gradient must be between 0 and 1, got 1.5"),
        ({"tolerance": -0.1}, "tolerance must be at least 0, got -0.1"),
        ({"refine": -1}, "refine must be at least 0, got -1"),
        (
            {"checkpoint": True, "policy_input_gradient": 0.5},
            "checkpoint must be false for method 'replay'.*'sequential'",
        ),
        ({"action_noise": -0.1}, "action_noise must be at least 0, got -0.1"),
        ({"entropy_weight": 0.1}, "entropy_weight must be 0 for a deterministic policy, got 0.1"),
    ],
)
def test_bad_arguments_are_refused(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        PolicyModule(policy, world_model, **({"imagination_horizon": 5} | options))


def test_noise_is_there_where_two_trajectories_are_imagined(
    world_model: ActionsWorldModel, policy: DeterministicPolicy
) -> None:
    module = PolicyModule(policy, world_model, imagination_horizon=5, action_noise=1.0)
    for count in (2, 3):
        noise = module.draw_noise(torch.zeros(count, 3), 5)
        assert noise is not None
        assert noise[0].eq(0).all()
        assert noise[1:].ne(0).all()


def test_a_critic_reads_standard_units_whoever_the_policy_has_its_own_from(
    world_model: ActionsWorldModel, policy: DeterministicPolicy
) -> None:
    policy.state_scaler.fit(torch.randn(50, 3))
    module = PolicyModule(policy, world_model, imagination_horizon=5, bootstrap=ValueBootstrap)
    module.adopt_statistics()
    assert module.bootstrap is not None
    torch.testing.assert_close(module.bootstrap.critic.state_scaler.mean, world_model.state_scaler.mean.float())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"action_noise": LinearSchedule(0.1, -0.1, 5)}, "action_noise must be at least 0, got -0.1"),
        ({"action_noise": DecaySchedule(-1.0, 0.5, 5)}, "action_noise must be at least 0, got -1.0"),
        ({"refine": 2.5}, "refine must be a whole number, got 2.5"),
    ],
)
def test_schedules_and_counts_are_checked_as_numbers_are(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        PolicyModule(policy, world_model, imagination_horizon=5, **options)


def test_what_comes_after_the_end_adds_no_entropy(world_model: ActionsWorldModel) -> None:
    module = PolicyModule(TanhNormalPolicy(3, 2), world_model, 4, entropy_weight=0.5)
    states, actions = torch.randn(2, 5, 3), torch.zeros(2, 4, 2)
    survival = torch.ones(2, 5)
    survival[:, 1:] = 0
    states[:, 2:] = torch.nan
    loss, metrics = module._objective(Imagined(states, actions, torch.zeros(2, 4), states[:, :-1], survival))
    torch.testing.assert_close(loss, -0.5 * metrics["entropy"])  # of a single step
    loss.backward()
    assert all(each.grad is None or each.grad.isfinite().all() for each in module.policy.parameters())


def test_noise_follows_its_schedule_though_states_are_reused(
    world_model: ActionsWorldModel, policy: DeterministicPolicy, initial_state: torch.Tensor
) -> None:
    schedule = LinearSchedule(0.5, 0.0, updates=4)
    module = PolicyModule(policy, world_model, imagination_horizon=8, imagination="warm", action_noise=schedule)
    drawn = []
    for _ in range(6):
        module.loss(batch(initial_state))
        drawn.append(module._warm_start.noise)
        module.after_update()
    assert drawn[4] is drawn[5] is None
    for count in range(1, 4):
        torch.testing.assert_close(drawn[count], drawn[0] * (1 - count / 4))
