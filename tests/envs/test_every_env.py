"""What every environment of the testbed promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchrl.envs.utils import check_env_specs

from lit_awm.envs import SYSTEMS, ControlEnv, OdeEnv, make_env
from lit_awm.envs.integrators import INTEGRATORS

ODES = [name for name, system in SYSTEMS.items() if issubclass(system, OdeEnv) and not system.is_discrete]
VARIANTS = [("cartpole", {"published": True}), ("pendulum", {"published": True}), ("bacteria", {"bounds": "charge"})]
EVERY = [(name, {}) for name in SYSTEMS] + VARIANTS


@pytest.fixture(params=EVERY, ids=lambda case: f"{case[0]}{case[1] or ''}")
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    return request.param


def make(case: tuple[str, dict[str, object]], **options: object) -> ControlEnv:
    return SYSTEMS[case[0]](**case[1], **options)


def random_inputs(env: ControlEnv, *batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return states near the initial one, controls inside their bounds, and a time in the middle of the episode."""
    n, (low, high) = len(env.initial_state), env.control_bounds.unbind(-1)
    scale = env.initial_state.abs().clamp_min(0.1)
    states = env.initial_state + 0.05 * scale * torch.randn(*batch, n, dtype=torch.float64)
    controls = low + (0.1 + 0.8 * torch.rand(*batch, len(low), dtype=torch.float64)) * (high - low)
    return states, controls, torch.full(batch, env.duration / 2, dtype=torch.float64)


def test_specs_hold(case: tuple[str, dict[str, object]]) -> None:
    name, options = case
    seen = {"distractors": 2, "observation_noise": 0.1}
    check_env_specs(make_env(name, num_envs=2, episode_length=12, initial_spread=0.1, **seen, **options))
    check_env_specs(make(case, num_envs=2, dtype=torch.float64))


def test_gradient_of_one_step_is_correct(case: tuple[str, dict[str, object]]) -> None:
    env = make(case)
    states, controls, time = random_inputs(env, 3)
    for moment in (time, torch.zeros_like(time), torch.full_like(time, env.duration - env.dt)):

        def step(state: Tensor, control: Tensor, moment: Tensor = moment) -> tuple[Tensor, Tensor]:
            return env.step_fn(state, control, moment)

        assert torch.autograd.gradcheck(step, (states.requires_grad_(), controls.requires_grad_()), atol=1e-4)


@pytest.mark.parametrize("name", ODES)
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_gradient_is_correct_with_every_integrator(name: str, integrator: str) -> None:
    env = SYSTEMS[name](integrator=integrator)
    states, controls, time = random_inputs(env, 2)
    inputs = (states.requires_grad_(), controls.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, u: env.step_fn(x, u, time), inputs, atol=1e-4)


def test_batched_equals_unbatched(case: tuple[str, dict[str, object]]) -> None:
    env = make(case)
    states, controls, times = random_inputs(env, 4, 2)
    batched_state, batched_reward = env.step_fn(states, controls, times)
    assert batched_reward.shape == (4, 2)
    for i in range(4):
        state, reward = env.step_fn(states[i, 1], controls[i, 1], times[i, 1])
        torch.testing.assert_close(state, batched_state[i, 1], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(reward, batched_reward[i, 1], rtol=1e-13, atol=1e-13)


def test_float32_is_close_to_float64(case: tuple[str, dict[str, object]]) -> None:
    env = make(case)
    states, controls, times = random_inputs(env, 16)
    exact_state, exact_reward = env.step_fn(states, controls, times)
    state, reward = env.step_fn(states.float(), controls.float(), times.float())
    assert state.dtype == reward.dtype == torch.float32
    alone = env.step_fn(states[0].float(), controls[0].float(), times[0].float())
    assert alone[0].dtype == alone[1].dtype == torch.float32
    scale = exact_state.abs().amax(0, keepdim=True).clamp_min(1)
    assert ((state - exact_state) / scale).abs().max() < 1e-5
    assert (reward - exact_reward).abs().max() < 1e-4 * exact_reward.abs().max().clamp_min(1)


def test_seeded_episodes_are_reproducible(case: tuple[str, dict[str, object]]) -> None:
    name, options = case
    env = make_env(name, num_envs=3, episode_length=12, initial_spread=0.2, **options)
    action = env.action_spec.rand()
    episodes = []
    for seed in (3, 3, 4):
        env.set_seed(seed)
        episodes.append(env.rollout(12, lambda td: td.set("action", action)))
    assert torch.equal(episodes[0]["observation"], episodes[1]["observation"])
    assert torch.equal(episodes[0]["next", "reward"], episodes[1]["next", "reward"])
    if env.initial_state.any():  # a relative spread around zero is none
        assert not torch.equal(episodes[0]["observation"], episodes[2]["observation"])


@pytest.mark.parametrize("name", SYSTEMS)
def test_random_actions_last_for_a_whole_finite_episode(name: str) -> None:
    env = make_env(name, num_envs=64)
    episode = env.rollout(2 * env.episode_length)
    assert episode.shape == (64, env.episode_length)
    assert not episode["next", "terminated"].any()
    assert episode["next", "truncated"][:, -1].all()
    assert episode["next", "observation"].isfinite().all()
    assert episode["next", "reward"].isfinite().all()


def test_the_reward_follows_exactly_from_the_ends_of_an_euler_step(case: tuple[str, dict[str, object]]) -> None:
    env = make(case, **({"integrator": "euler"} if issubclass(SYSTEMS[case[0]], OdeEnv) else {}))
    for moment in (0.0, env.duration / 2, env.duration - env.dt):
        states, controls, time = random_inputs(env, 16)
        time.fill_(moment)
        next_states, rewards = env.step_fn(states, controls, time)
        torch.testing.assert_close(env.reward_between(states, controls, next_states, time), rewards)


@pytest.mark.parametrize("name", ODES)
@pytest.mark.parametrize("integrator", ["heun", "rk4"])
def test_the_error_of_the_reward_from_the_two_ends_falls_with_the_cube_of_dt(name: str, integrator: str) -> None:
    errors = []
    for episode_length in (1000, 4000):
        env = SYSTEMS[name](integrator=integrator, episode_length=episode_length, substeps=1)
        torch.manual_seed(0)
        states, controls, time = random_inputs(env, 16)
        next_states, rewards = env.step_fn(states, controls, time)
        errors.append((env.reward_between(states, controls, next_states, time) - rewards).abs().max())
    assert errors[1] <= errors[0] / 32 + 1e-13 * rewards.abs().max()


def test_a_step_is_differentiable_through_the_transforms(case: tuple[str, dict[str, object]]) -> None:
    name, options = case
    env = make_env(name, dtype=torch.float64, **options)
    action = torch.full(env.action_spec.shape, 0.3, dtype=torch.float64, requires_grad=True)
    after = env.step(env.reset().set("action", action))["next"]
    (gradient,) = torch.autograd.grad(after["observation"].sum() + after["reward"].sum(), action)
    assert gradient.ne(0).any()
    assert gradient.isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_episode_runs_on_a_gpu(case: tuple[str, dict[str, object]]) -> None:
    name, options = case
    on_gpu = make_env(name, num_envs=8, device="cuda", **options)
    episode = on_gpu.rollout(on_gpu.episode_length)
    assert episode["next", "reward"].device.type == "cuda"
    assert episode["next", "reward"].isfinite().all()
