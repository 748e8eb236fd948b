"""Regret on the testbed against the length of an episode, for every family."""

from __future__ import annotations

from itertools import product
from statistics import median
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from lit_awm.analysis import random_cost, solve
from lit_awm.envs import load_optimum
from lit_awm.envs.factory import make_system
from lit_awm.recipes import UNTAUGHT, build, fit, options_of
from lit_awm.studies.fitting import UPDATES
from lit_awm.studies.jobs import Row, run_jobs
from lit_awm.studies.verdict import Verdict, is_better

COMPARED = ("simulator", "markov", "history", "actions", "actions_gru")
RIVALS = ("markov", "history")


class Task(NamedTuple):
    """A system in episodes of some number of steps; its duration stays the same."""

    system: str
    length: int


class Job(NamedTuple):
    """Run the common recipe with a family."""

    task: Task
    family: str
    seed: int
    iterations: int
    updates: int


def horizon(quick: bool = False, seeds: int | None = None) -> Verdict:
    """Run the common recipe with every family, at equal numbers of real steps, for episodes of several lengths.

    The systems are none of those on which the hyper-parameters of the recipe were chosen; these were chosen with an
    actions model.
    """
    systems: tuple[str, ...] = ("van_der_pol", "predator_prey")
    lengths: tuple[int, ...] = (50, 100)
    own, iterations, updates = 1, 2, 40
    if not quick:
        systems += ("bacteria", "epidemic_seirn", "harvest", "tumour")
        lengths, own, iterations, updates = (50, 100, 200, 500), 3, 10, 300
    tasks = [Task(*each) for each in product(systems, lengths)]
    bounds = dict(zip(tasks, run_jobs(bound, tasks, "optima"), strict=True))
    jobs = [
        Job(task, family, seed, iterations, updates)
        for task in tasks
        for family in COMPARED
        for seed in range(seeds or own)
    ]
    rows = []
    for job, row in zip(jobs, run_jobs(learn, jobs, "horizon"), strict=True):
        best, random = bounds[job.task]["optimal"], bounds[job.task]["random"]
        rows.append({**row, **bounds[job.task], "regret": (row["cost"] - best) / (random - best)})

    def regrets(system: str, length: int, family: str) -> list[float]:
        chosen = (system, length, family)
        return [row["regret"] for row in rows if (row["system"], row["length"], row["family"]) == chosen]

    longest = max(lengths)
    wins = [
        system
        for system in systems
        if all(is_better(regrets(system, longest, "actions"), regrets(system, longest, rival)) for rival in RIVALS)
    ]
    because = f"least regret of the three at {longest} steps on {len(wins)} of {len(systems)} systems; " + "; ".join(
        f"{system} at {length}: "
        + ", ".join(f"{family} {median(regrets(system, length, family)):.2%}" for family in COMPARED)
        for system, length in tasks
    )
    claim = (
        "At equal real experience, policies learned through an actions model end closer to the optimum of long "
        "episodes than those learned through Markovian and history models (Ma et al., 2024, arXiv:2402.05290)"
    )
    return Verdict("horizon", claim, len(wins) > len(systems) / 2, because, rows, _figure(rows, systems, lengths))


def bound(task: Task) -> Row:
    """Return the optimal cost of a task and that of random controls."""
    known = load_optimum(task.system, episode_length=task.length)
    if known is not None:
        return {"optimal": known.cost, "random": known.random_cost}
    env = make_system(task.system, episode_length=task.length)
    return {"optimal": solve(env, starts=3).cost, "random": random_cost(env)}


def learn(job: Job) -> Row:
    """Return the cost of the policy that is learned, and the real steps that it took."""
    system, length = job.task
    module, data = build(
        [
            f"--seed_everything={job.seed}",
            f"--data.env={system}",
            f"--data.episode_length={length}",
            f"--data.world_model_updates={max(1, 3 * job.updates * UPDATES.get(job.family, 1))}",
            f"--data.policy_updates={job.updates}",
            *options_of(job.family, length),
            *UNTAUGHT,
        ]
    )
    trainer = fit(module, data, job.iterations)
    cost = trainer.callback_metrics["eval/cost"].item()
    return {**job.task._asdict(), "family": job.family, "seed": job.seed, "cost": cost, "env_steps": data.env_steps}


def _figure(rows: list[dict[str, Any]], systems: tuple[str, ...], lengths: tuple[int, ...]) -> Figure:
    figure = Figure(figsize=(3.2 * len(systems), 3.5), layout="constrained")
    for axes, system in zip(figure.subplots(1, len(systems), squeeze=False)[0], systems, strict=True):
        for index, family in enumerate(COMPARED):
            chosen = [row for row in rows if (row["system"], row["family"]) == (system, family)]
            regrets = [max(row["regret"], 1e-6) for row in chosen]
            axes.plot([row["length"] for row in chosen], regrets, ".", color=f"C{index}")
            middle = [median(row["regret"] for row in chosen if row["length"] == length) for length in lengths]
            axes.plot(lengths, [max(regret, 1e-6) for regret in middle], color=f"C{index}", label=family)
        axes.set(title=system, xlabel="steps of an episode", yscale="log")
    figure.axes[0].set_ylabel("regret")
    figure.axes[0].legend(fontsize="small")
    return figure
