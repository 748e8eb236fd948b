"""Tasks in which one choice, made at the beginning, decides: chaos, contact, and credit over a long wait."""

from __future__ import annotations

from itertools import product
from statistics import mean, median
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from lit_awm.analysis import PolicyCopies
from lit_awm.data import ExperienceDataModule
from lit_awm.imagination import cheapest_method, imagine
from lit_awm.models import Policy, WorldModel
from lit_awm.studies.fitting import fit_world_model
from lit_awm.studies.jobs import Row, run_jobs
from lit_awm.studies.verdict import Verdict, is_better

STARTS, STEPS, LEARNING_RATE = 16, 100, 0.1
RANDOM_CHOICES = 1024
FLOOR = 1e-9  # of what is drawn on a logarithmic scale
COMPARED = ("simulator", "markov", "history", "actions")


class Choice(Policy):
    """Choose the first action, which the clock tells, and act at random from then on, as models have seen it."""

    is_stochastic = True

    def __init__(self, state_dim: int, action_dim: int) -> None:
        super().__init__(state_dim, action_dim)
        self.logit = nn.Parameter(torch.zeros(action_dim))

    def sample(self, state: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the choice where the clock, the last component, shows the beginning, elsewhere uniform noise."""
        assert noise is not None
        uniform = torch.special.erf(noise / 2**0.5)
        return torch.where(state[..., -1:] < -1 + 1e-6, self.logit.tanh(), uniform)


class Task(NamedTuple):
    """A task, and from how much experience of random episodes it is learned.

    Attributes:
        env: The environment.
        env_options: Its options.
        known_reward: Whether the models are given the reward, or learn it.
        episodes: Number of random episodes.
        updates: Number of updates, see :func:`~lit_awm.studies.fitting.fit_world_model`.
    """

    env: str
    env_options: dict[str, Any]
    known_reward: bool
    episodes: int
    updates: int = 500


CONTACT = Task("one_bounce", {}, known_reward=True, episodes=256)
CHAOS = Task("double_pendulum", {"dt": 0.04, "substeps": 1}, known_reward=False, episodes=2048, updates=600)
CREDIT = Task("credit_assignment", {}, known_reward=False, episodes=256, updates=800)


class Job(NamedTuple):
    """Fit a family to episodes of some length, and ascend from random choices."""

    task: Task
    length: int
    family: str
    seed: int


def contact(quick: bool = False, seeds: int | None = None) -> Verdict:
    """Ascend through a bouncing ball, known or learned."""
    claim = "At a contact, gradient ascent through an actions model finds better choices than through the simulator"
    lengths, own = ((10, 50), 1) if quick else ((10, 50, 100, 200), 5)
    return _study("contact", claim, CONTACT, lengths, seeds or own, rivals=("simulator",))


def chaos(quick: bool = False, seeds: int | None = None) -> Verdict:
    """Ascend through a chaotic double pendulum, known or learned."""
    claim = "Under chaos, gradient ascent through an actions model finds better choices than through the simulator"
    lengths, own = ((25, 100), 1) if quick else ((25, 50, 100, 200), 5)
    return _study("chaos", claim, CHAOS, lengths, seeds or own, rivals=("simulator",))


def credit(quick: bool = False, seeds: int | None = None) -> Verdict:
    """Ascend through a long wait whose rewards are noise."""
    claim = "Over a long and noisy wait, an actions model gives credit better than Markovian and history models"
    lengths, own = ((20, 60), 2) if quick else ((20, 50, 100, 200, 500), 5)
    return _study("credit", claim, CREDIT, lengths, seeds or own, rivals=("markov", "history"))


def _study(name: str, claim: str, task: Task, lengths: tuple[int, ...], seeds: int, rivals: tuple[str, ...]) -> Verdict:
    jobs = [Job(task, *each) for each in product(lengths, COMPARED, range(seeds))]
    rows = run_jobs(ascend, jobs, name)
    families = ("random", *COMPARED)
    by_chance = [row for row in rows if row["family"] == COMPARED[0]]
    rows += [row | {"family": "random", "mean": row["random"], "costs": []} for row in by_chance]

    def costs(length: int, family: str) -> list[float]:
        return [row["mean"] for row in rows if (row["length"], row["family"]) == (length, family)]

    because = "; ".join(
        f"mean cost at {length} steps: " + ", ".join(f"{each} {_range(costs(length, each))}" for each in families)
        for length in lengths
    )
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for index, family in enumerate(families):
        means = [(row["length"], max(row["mean"], FLOOR)) for row in rows if row["family"] == family]
        axes.plot(*zip(*means, strict=True), ".", color=f"C{index}")
        axes.plot(lengths, [max(median(costs(n, family)), FLOOR) for n in lengths], color=f"C{index}", label=family)
    axes.set(xlabel="steps of an episode", ylabel="true cost, mean over starts", yscale="log", title=name)
    axes.legend()
    longest = max(lengths)
    holds = all(is_better(costs(longest, "actions"), costs(longest, rival)) for rival in ("random", *rivals))
    return Verdict(name, f"{claim} (Ma et al., 2024, arXiv:2402.05290)", holds, because, rows, figure)


def _range(costs: list[float]) -> str:
    return f"{median(costs):.3g}" + (f" ({min(costs):.3g} to {max(costs):.3g})" if len(costs) > 1 else "")


def ascend(job: Job) -> Row:
    """Return the true costs of the choices that gradient ascent through a world model ends in, and of random ones."""
    task = job.task
    model, data = fit_world_model(
        job.family, task.env, task.env_options, job.length, task.episodes, task.updates, job.seed, task.known_reward
    )
    choices = _ascend(model, data, job.seed)
    costs = _true_costs(choices, data)
    spread = 2 * torch.rand(RANDOM_CHOICES, data.action_dim, generator=torch.Generator().manual_seed(job.seed)) - 1
    random = mean(_true_costs(spread, data))
    same = {"family": job.family, "length": job.length, "seed": job.seed, "random": random}
    return {**same, "mean": mean(costs), "costs": costs}


def _ascend(model: WorldModel, data: ExperienceDataModule, seed: int) -> Tensor:
    """Return the choices ``(STARTS, A)``, in [-1, 1], after gradient ascent from random ones."""
    initial = data.draw_initial_states(STARTS)
    copies = PolicyCopies(Choice(data.state_dim, data.action_dim), STARTS)
    logit = copies.weights["logit"]
    logit.data.uniform_(-1, 1, generator=torch.Generator().manual_seed(seed)).atanh_()
    optimizer = torch.optim.Adam([logit], LEARNING_RATE)
    method = cheapest_method(model, copies)
    for _ in range(STEPS):
        rewards = imagine(model, copies, initial, data.env.episode_length, method=method).rewards
        (gradient,) = torch.autograd.grad(-rewards.sum(), [logit])
        norms = gradient.norm(dim=-1, keepdim=True)
        logit.grad = torch.where(norms.isfinite(), gradient / norms.clamp_min(1), 0)  # clipped for each start
        optimizer.step()
    return logit.detach().tanh()


def _true_costs(choices: Tensor, data: ExperienceDataModule) -> list[float]:
    low, high = data.env.control_bounds.unbind(-1)
    controls = low + (choices.double() + 1) / 2 * (high - low)
    _, rewards = data.env.base_env.unroll(controls.unsqueeze(1).expand(-1, data.env.episode_length, -1))
    return (-rewards.sum(-1)).tolist()
