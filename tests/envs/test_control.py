from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from lit_awm.envs import SYSTEMS, ControlEnv, make_env
from lit_awm.envs.myriad import Bacteria, CancerTreatment, HivTreatment, InvasivePlant, Tumour

EXPLOSIVE = [  # a step that leaves the domain: too long for the integrator, or controls that the equations do not bear
    HivTreatment(num_envs=2, episode_length=5, dtype=torch.float64),
    CancerTreatment(num_envs=2, episode_length=5, integrator="euler", dtype=torch.float64),
    Bacteria(num_envs=2, bounds="ignore", dtype=torch.float64),
    SYSTEMS["simple_case"](num_envs=2, u_max=20.0, dtype=torch.float64),
]


@pytest.mark.parametrize("env", EXPLOSIVE, ids=lambda env: env.name)
def test_leaving_the_domain_ends_an_episode_at_a_finite_cost(env: ControlEnv) -> None:
    high = env.name in ("bacteria", "cancer_treatment", "hiv_treatment")
    action = env.action_spec.space.high if high else env.action_spec.space.low
    episode = env.rollout(200, lambda td: td.set("action", action))
    last = episode[:, -1]["next"]
    assert episode["next", "terminated"][:, -1].all()
    assert not episode["next", "terminated"][:, :-1].any()
    assert not last["truncated"].any()
    assert torch.equal(last["reward"], torch.full_like(last["reward"], -env.exit_cost))
    assert torch.equal(last["state"], episode[:, -1]["state"])
    assert episode["next", "state"].isfinite().all()


@pytest.mark.parametrize("env", EXPLOSIVE, ids=lambda env: env.name)
def test_a_trajectory_that_leaves_the_domain_spoils_no_gradient(env: ControlEnv) -> None:
    low, high = env.control_bounds.unbind(-1)
    worst = high if env.name in ("bacteria", "cancer_treatment", "hiv_treatment") else low
    controls = torch.stack([worst, (low + high) / 2]).requires_grad_()
    initial = env.initial_state.expand(2, -1).clone().requires_grad_()
    state, total = initial, torch.zeros(2, dtype=torch.float64)
    for step in range(env.episode_length):
        state, reward = env.step_fn(state, controls, torch.full((2,), step * env.dt, dtype=torch.float64))
        total = total + reward
    for gradient in torch.autograd.grad(total.sum(), (controls, initial)):
        assert gradient.isfinite().all()


def test_a_good_neighbour_keeps_its_exact_gradient() -> None:
    env = Bacteria(bounds="ignore")
    state = torch.tensor([[1.0], [-60.0]], dtype=torch.float64, requires_grad=True)
    control = torch.tensor([[0.3], [2.0]], dtype=torch.float64, requires_grad=True)
    time = torch.zeros(2, dtype=torch.float64)
    together = torch.autograd.grad(env.step_fn(state, control, time)[0].sum(), (state, control))
    alone = torch.autograd.grad(env.step_fn(state[:1], control[:1], time[:1])[0].sum(), (state, control))
    for gradient, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(gradient[0], expected[0], rtol=1e-14, atol=0)
        assert gradient[1].item() == 0


@pytest.mark.parametrize("name", ["bacteria", "cancer_treatment", "hiv_treatment", "simple_case", "tumour"])
@pytest.mark.parametrize("share", [-1.0, 0.0, 1.0])
def test_staying_in_the_domain_costs_less_than_leaving_it(name: str, share: float) -> None:
    env = make_env(name, num_envs=2)
    episode = env.rollout(env.episode_length, lambda td: td.set("action", torch.full((2, 1), share)))
    stayed = ~episode["next", "terminated"].any(1)
    assert stayed.all() or (name, share) == ("simple_case", -1.0)
    assert (-episode["next", "reward"].sum(1) < env.exit_cost)[stayed].all()


def test_growth_is_no_reason_to_end_an_episode() -> None:
    invest = make_env("timber_harvest", duration=15.0)
    assert invest.rollout(200, lambda td: td.set("action", torch.ones(1, 1))).shape == (1, 100)
    fast = make_env("one_bounce", max_speed=5000.0)
    assert fast.rollout(200, lambda td: td.set("action", torch.ones(1, 1))).shape == (1, 100)


def test_clipped_episodes_start_within_the_bounds() -> None:
    env = make_env("cancer_treatment", num_envs=256, bounds="clip", initial_spread=0.5)
    assert env.reset()["state"].max() == 1.0


def test_the_clock_of_a_long_episode_keeps_count() -> None:
    env = make_env("harvest", episode_length=20_000).base_env
    time = torch.zeros(1, 1)
    state, control = torch.full((1, 1), 0.4), torch.zeros(1, 1)
    for step in range(20_000):
        assert not env.is_last_interval(time) or step == 19_999
        if step % 1000 == 0:
            after = env._step(TensorDict({"state": state, "time": time, "action": control}, [1]))
            torch.testing.assert_close(after["time"], torch.tensor([[(step + 1) * env.dt]]), rtol=1e-6, atol=0)
        time = ((time / env.dt).round() + 1) * env.dt
    assert time.item() == pytest.approx(env.duration)


def test_substeps_are_steps_of_the_integrator() -> None:
    coarse, fine = CancerTreatment(episode_length=10, substeps=10), CancerTreatment(episode_length=100)
    control = torch.tensor([0.7], dtype=torch.float64)
    at_once = coarse.step_fn(coarse.initial_state, control, torch.tensor(2.0, dtype=torch.float64))
    state, total = fine.initial_state, 0.0
    for step in range(10):
        state, reward = fine.step_fn(state, control, torch.tensor(2.0 + step * fine.dt, dtype=torch.float64))
        total += reward
    torch.testing.assert_close(at_once, (state, total), rtol=1e-13, atol=0)


def test_substeps_keep_a_stiff_system_in_its_domain() -> None:
    env = make_env("hiv_treatment", num_envs=4, episode_length=5, substeps=40)
    assert not env.rollout(5)["next", "terminated"].any()


def test_an_episode_lasts_its_duration_or_its_number_of_steps() -> None:
    fixed_duration = CancerTreatment(episode_length=40)
    assert (fixed_duration.duration, fixed_duration.dt) == (20.0, 0.5)
    fixed_dt = CancerTreatment(episode_length=40, dt=0.1)
    assert (fixed_dt.duration, fixed_dt.dt) == (4.0, 0.1)
    assert fixed_dt.rollout(1000).shape == (1, 40)
    assert InvasivePlant(episode_length=7).rollout(1000).shape == (1, 7)


def test_the_dose_budget_of_the_tumour_binds() -> None:
    env = Tumour()
    everything = torch.full((100, 1), 75.0, dtype=torch.float64)
    charges = []
    for bounds in ("ignore", "charge"):
        env.bounds = bounds
        state, cost = env.initial_state, 0.0
        for step, control in enumerate(everything):
            state, reward = env.step_fn(state, control, torch.tensor(step * env.dt, dtype=torch.float64))
            cost -= reward.item()
        charges.append(cost)
    assert charges[0] == pytest.approx(4814.768, abs=1e-3)
    assert charges[1] - charges[0] == pytest.approx(env.bound_weight * (90 - 15) / 15)  # 90 given, 15 allowed


def test_coming_back_into_the_bounds_is_not_refunded_and_not_charged() -> None:
    env = SYSTEMS["van_der_pol"](bounds="charge", bound_weight=8.0)
    zero = torch.zeros(2, dtype=torch.float64)
    states = torch.tensor([[0.0, 4.0], [0.0, 5.0]], dtype=torch.float64)
    out, back = env._charges(states, states.flip(0), zero)
    assert out.item() == pytest.approx(1.0)  # one unit beyond bounds that are 8 apart
    assert back.item() == 0.0


def test_clipped_states_stay_within_their_bounds() -> None:
    env = make_env("mould_fungicide", num_envs=8, bounds="clip")
    episode = env.rollout(100, lambda td: td.set("action", -torch.ones(8, 1)))
    assert episode["next", "state"].max() == 5.0


def test_the_target_costs_its_weight_at_its_scale() -> None:
    env = SYSTEMS["cartpole"](target_weight=7.0)
    for i in range(4):
        state = env.target_state.clone()
        assert env.target_cost(state) == 0
        state[i] += env.target_scale[i]
        assert env.target_cost(state).item() == pytest.approx(7.0)
    free = SYSTEMS["predator_prey"]()
    assert free.target_cost(torch.tensor([3.0, 4.0, 5.0])) == 0


@pytest.mark.parametrize(
    ("name", "action", "words"),
    [
        ("cancer_treatment", torch.full((2, 1), 1.5), "within the control bounds .* of cancer_treatment, got values"),
        ("cancer_treatment", torch.full((2, 1), float("nan")), "within the control bounds .* of cancer_treatment"),
        ("bear_populations", torch.zeros(2, 3), "action shape"),
    ],
)
def test_bad_actions_are_refused(name: str, action: torch.Tensor, words: str) -> None:
    env = make_env(name, num_envs=2)
    with pytest.raises(ValueError, match=words):
        env.step(env.reset().set("action", action))


@pytest.mark.slow
def test_a_compiled_step_gives_the_same_episode() -> None:
    eager, compiled = (make_env("double_pendulum", num_envs=16, dtype=torch.float64) for _ in range(2))
    compiled.base_env.interval = torch.compile(compiled.base_env.interval)
    action = eager.action_spec.rand()
    episodes = [env.rollout(100, lambda td: td.set("action", action)) for env in (eager, compiled)]
    torch.testing.assert_close(episodes[1]["next", "state"], episodes[0]["next", "state"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(episodes[1]["next", "reward"], episodes[0]["next", "reward"], rtol=1e-9, atol=1e-9)


def test_controls_of_the_wrong_shape_are_refused() -> None:
    env = CancerTreatment(num_envs=2)
    with pytest.raises(ValueError, match=r"action must have shape \(2, 1\), one value for each of drug strength"):
        env.step(env.reset().set("action", torch.zeros(2, 3)))


def test_a_map_has_steps_of_its_own() -> None:
    for options in ({"dt": 0.5}, {"substeps": 2}):
        with pytest.raises(ValueError, match="dt and substeps must be left out for invasive_plant"):
            InvasivePlant(**options)


def test_a_state_or_a_control_of_the_wrong_size_is_refused() -> None:
    env = CancerTreatment()
    with pytest.raises(ValueError, match=r"state must end in one value for each of tumour density, got shape \(4, 3\)"):
        env.step_fn(torch.ones(4, 3), torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(
        ValueError, match=r"control must end in one value for each of drug strength, got shape \(4, 3\)"
    ):
        env.step_fn(torch.ones(4, 1), torch.zeros(4, 3), torch.zeros(4))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("bioreactor", {"x_0": (0.5, 0.1)}, r"x_0 must be a number, got \(0.5, 0.1\)"),
        ("van_der_pol", {"x_0": 1.0}, "x_0 must give one number for each of x_0, x_1, got 1.0"),
        ("van_der_pol", {"x_T": [0.0]}, r"x_T must give one number for each of x_0, x_1, got \[0.0\]"),
        ("seir", {"x_0": [1000.0, 100.0, 50.0]}, "x_0 must give susceptible, exposed, infected and recovered, got"),
        ("hiv_treatment", {"m_1": -0.1}, "m_1 must be at least 0, got -0.1"),
        ("bear_populations", {"m_p": 1.5}, "m_p and m_f are shares and must be at most 1, got 1.5"),
        ("harvest", {"duration": float("inf")}, "duration must be positive and finite, got inf"),
        ("harvest", {"episode_length": 2.5}, "episode_length must be a whole number, got 2.5"),
        ("harvest", {"T": 5.0}, "harvest has no option 'T'. It has: A, M, .*duration"),
        ("simple_case_with_bounds", {"u_max": 5.0}, "simple_case_with_bounds has no option 'u_max'"),
        ("invasive_plant", {"integrator": "euler"}, "invasive_plant has no option 'integrator'"),
        ("tumour", {"bounds": "clip"}, "bounds must be 'charge' or 'ignore': clipping would hide a dose"),
        ("predator_prey", {"bounds": "clip"}, "bounds must be 'charge' or 'ignore': clipping would hide pesticide"),
        ("cancer_treatment", {"x_0": 0.0}, r"x_0 must lie inside the domain \[\[0.0, 1000.0\]\], got \[0.0\]"),
        ("cancer_treatment", {"duration": 0.0}, "duration must be positive, got 0.0"),
        ("cancer_treatment", {"dt": -0.1}, "dt must be positive, got -0.1"),
        ("cancer_treatment", {"dt": 0.1, "duration": 3.0}, "dt and duration exclude each other, got 0.1 and 3.0"),
        ("cancer_treatment", {"exit_cost": float("inf")}, "exit_cost must be finite, got inf"),
        ("cancer_treatment", {"episode_length": -1}, "episode_length must be at least 1, got -1"),
        ("cancer_treatment", {"bounds": "reflect"}, "bounds must be one of ignore, charge, clip, got 'reflect'"),
        ("cancer_treatment", {"distractors": -1}, "distractors must be at least 0, got -1"),
        ("cartpole", {"m1": 0.0}, "m1 must be positive, got 0.0"),
        ("cartpole", {"target_weight": -1.0}, "target_weight must be at least 0, got -1.0"),
        ("cartpole", {"x_0": [0.0]}, r"x_0 must give one number for each of cart position, .*, got \[0.0\]"),
        ("rocket_landing", {"min_share": 1.0}, "min_share must be at least 0 and below 1, got 1.0"),
        ("tumour", {"b": 0.01}, "b - mu must be positive, got -0.01"),
        ("simple_case_with_bounds", {"M_1": 3.0}, "M_1 must be below M_2 2.0, got 3.0"),
        ("invasive_plant", {"eps": 0.0}, "eps must be positive, got 0.0"),
        ("one_bounce", {"restitution": 1.5}, "restitution must be at most 1, got 1.5"),
        ("one_bounce", {"goal": 1.0}, "goal must lie before the wall at 1.0, got 1.0"),
        ("one_bounce", {"max_speed": 2.0}, "max_speed must be at least 2.875 to reach the goal, got 2.0"),
        ("credit_assignment", {"final_length": 100}, "final_length must be at least 1 and below episode_length 100"),
        ("credit_assignment", {"goal": 2.0}, r"goal must lie in \[-1, 1\], got 2.0"),
        ("double_pendulum", {"goal_angles": [4.0, 0.0]}, r"goal_angles must be two angles in \[-pi, pi\], got \(4.0"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_env(name, **options)
