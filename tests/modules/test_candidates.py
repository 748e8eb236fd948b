from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_awm.models import DeterministicPolicy, MarkovWorldModel, Policy
from lit_awm.models.guided import FARTHEST
from lit_awm.modules.candidates import Candidates, Champion
from lit_awm.modules.teacher import TeacherModule


def make_policy(bias: float) -> DeterministicPolicy:
    policy = DeterministicPolicy(2, 1, hidden_dim=4)
    set_bias(policy, bias)
    return policy


def set_bias(policy: Policy, bias: float) -> None:
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.fill_(bias)


def judge(policy: Policy) -> Tensor:
    """Return minus the distance of the parameters from 1, and the same for another beginning but for 1 less."""
    return -(next(policy.parameters()).detach().mean() - 1).abs() - torch.tensor([0.0, 1.0])


def test_buffers_go_with_their_policy() -> None:
    policy, champion = make_policy(0.0), Champion()
    policy.register_buffer("offset", torch.tensor(0.0))
    champion.meet(policy, torch.tensor(1.0))
    policy.get_buffer("offset").fill_(9.0)
    champion.meet(policy, torch.tensor(0.5))
    assert policy.get_buffer("offset") == 0


def test_the_best_of_all_copies_is_kept_and_the_others_are_forgotten() -> None:
    policy, candidates = make_policy(0.0), Candidates()
    for bias in (0.0, 0.9, 3.0):
        set_bias(policy, bias)
        candidates.add(policy)
    set_bias(policy, 5.0)
    told = candidates.choose(policy, judge)
    assert all(parameter.eq(0.9).all() for parameter in policy.parameters())
    torch.testing.assert_close(told["judged_return"], torch.tensor(-0.6))
    torch.testing.assert_close(told["judged_gain"], torch.tensor(3.9))
    assert candidates.state_dict() == []


def test_the_latest_stays_where_the_judge_cannot_tell() -> None:
    policy, candidates = make_policy(0.0), Candidates()
    candidates.add(policy)
    set_bias(policy, 2.0)
    assert candidates.choose(policy, lambda _: torch.full((3,), -torch.inf)) == {}
    assert all(parameter.eq(2.0).all() for parameter in policy.parameters())


def test_a_beginning_of_which_the_judge_cannot_tell_counts_as_the_worst() -> None:
    """The middle one is best where something is known, but for one beginning nothing is."""
    policy, candidates = make_policy(0.0), Candidates()
    scores = {0.0: [3.0, 3.0], 1.0: [4.0, -torch.inf], 2.0: [-1.0, 3.0]}
    for bias in (0.0, 1.0):
        set_bias(policy, bias)
        candidates.add(policy)
    set_bias(policy, 2.0)
    told = candidates.choose(policy, lambda each: torch.tensor(scores[next(each.parameters()).mean().item()]))
    assert all(parameter.eq(0.0).all() for parameter in policy.parameters())
    assert (told["judged_return"].item(), told["judged_gain"].item()) == (3.0, 2.0)


def test_copies_come_back_from_a_checkpoint() -> None:
    policy, candidates, restored = make_policy(1.0), Candidates(), Candidates()
    candidates.add(policy)
    restored.load_state_dict(candidates.state_dict())
    set_bias(policy, 7.0)
    restored.choose(policy, judge)
    assert all(parameter.eq(1.0).all() for parameter in policy.parameters())


def test_a_policy_that_earns_less_gives_way_to_the_champion_and_one_that_earns_as_much_becomes_it() -> None:
    policy, champion = make_policy(0.0), Champion()
    for bias, earned, kept, best in ((1.0, -5.0, 1.0, -5.0), (2.0, -6.0, 1.0, -5.0), (3.0, -5.0, 3.0, -5.0)):
        set_bias(policy, bias)
        told = champion.meet(policy, torch.tensor(earned))
        assert all(parameter.eq(kept).all() for parameter in policy.parameters())
        assert (told["trial_return"].item(), told["best_return"].item()) == (earned, best)
    restored = Champion()
    restored.load_state_dict(champion.state_dict())
    restored.meet(set_and_return(policy, 9.0), torch.tensor(-7.0))
    assert all(parameter.eq(3.0).all() for parameter in policy.parameters())


def test_a_champion_is_told_from_others_and_there_is_none_at_first() -> None:
    policy, champion = make_policy(1.0), Champion()
    assert not champion.is_same_as(policy)
    champion.meet(policy, torch.tensor(-5.0))
    assert champion.is_same_as(policy)
    assert not champion.is_same_as(set_and_return(policy, 2.0))


def set_and_return(policy: Policy, bias: float) -> Policy:
    set_bias(policy, bias)
    return policy


class Mover(MarkovWorldModel):
    """``s' = s + a``, with the last state as reward."""

    def step(self, carry: Any, action: Tensor) -> tuple[Any, Tensor, Tensor]:
        state = carry + action
        return state, state, state[:, 0]


def test_a_teacher_judges_by_what_it_imagines_and_not_far_from_its_data() -> None:
    teacher = TeacherModule(Mover(2, 1))
    teacher.world_model.fit_statistics(torch.randn(50, 2, 2), torch.rand(50, 2, 1), torch.rand(50, 2))
    policy = make_policy(0.0)
    start = torch.tensor([[0.5, 0.0], [1.0, 0.0]])
    assert teacher.judge(start, 4, policy).tolist() == [0.5 * 4, 1.0 * 4]  # it stays where it is
    set_bias(policy, 100.0)  # always the action 1
    assert teacher.judge(start, 3, policy).tolist() == [0.5 * 3 + 1 + 2 + 3, 1.0 * 3 + 1 + 2 + 3]
    assert teacher.judge(start, int(2 * FARTHEST), policy).eq(-torch.inf).all()
