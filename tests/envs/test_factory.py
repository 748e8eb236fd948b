from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lit_awm.envs import make_env, myriad
from lit_awm.envs.factory import describe_options


def test_actions_are_scaled_to_the_control_bounds() -> None:
    env = make_env("cancer_treatment", num_envs=3, dtype=torch.float64)
    start = env.reset()
    step = env.step(start.set("action", torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)))
    expected, _ = env.step_fn(
        start["state"], torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    )
    torch.testing.assert_close(step["next", "state"], expected, rtol=1e-15, atol=0)


def test_the_observation_is_the_state_and_a_clock_from_minus_one_to_one() -> None:
    episode = make_env("cancer_treatment", episode_length=8).rollout(8)
    observations = torch.cat([episode["observation"][0], episode["next", "observation"][0, -1:]])
    assert torch.equal(observations[:-1, :1], episode["state"][0])
    torch.testing.assert_close(observations[:, 1], torch.linspace(-1, 1, 9))


def test_the_clock_can_be_left_out() -> None:
    assert make_env("hiv_treatment", observe_time=False).reset()["observation"].shape == (1, 3)


def test_a_step_is_differentiable_through_the_transforms() -> None:
    env = make_env("bear_populations", dtype=torch.float64)
    action = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    after = env.step(env.reset().set("action", action))["next"]
    for value in (after["observation"], after["reward"]):
        (gradient,) = torch.autograd.grad(value.sum(), action, retain_graph=True)
        assert gradient.ne(0).all()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_an_environment_can_be_copied_and_sent_to_another_process(copied: Callable[[Any], Any]) -> None:
    env = make_env("credit_assignment", num_envs=2, distractors=2)
    twin = copied(env)
    episodes = []
    for each in (env, twin):
        each.set_seed(5)
        episodes.append(each.rollout(20, lambda td: td.set("action", torch.zeros(2, 1))))
    assert torch.equal(episodes[0]["observation"], episodes[1]["observation"])
    assert torch.equal(episodes[0]["next", "reward"], episodes[1]["next", "reward"])


def test_an_unknown_system_is_refused_with_the_nearest_and_all_names() -> None:
    with pytest.raises(ValueError, match=r"'cancer_treatmnt'. Did you mean 'cancer_treatment'\? There are: bacteria"):
        make_env("cancer_treatmnt")


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no option 'episode_lenght'. Did you mean 'episode_length'\?"):
        make_env("cancer_treatment", episode_lenght=10)


class WithoutAnnotations(myriad.Harvest):
    """A system whose author annotates nothing.

    Args:
        catch: What is caught at most.
    """

    def __init__(self, catch=0.5, **options):  # type: ignore[no-untyped-def]
        super().__init__(M=catch, **options)


def test_a_system_needs_no_annotations() -> None:
    assert describe_options(f"{__name__}.WithoutAnnotations")["catch"].default == 0.5
    env = make_env(f"{__name__}.WithoutAnnotations", dtype="float64", catch=0.3)
    assert env.reset()["observation"].dtype == torch.float64
