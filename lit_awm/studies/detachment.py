"""What it costs to detach the states that the policy reads."""

from __future__ import annotations

import math
from statistics import median
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from lit_awm.analysis import measure_gradients
from lit_awm.recipes import UNTAUGHT, build, fit, options_of
from lit_awm.studies.jobs import Row, run_jobs
from lit_awm.studies.verdict import Verdict

MARGIN = 0.01  # of regret
QUICK_SYSTEMS = ("cancer_treatment", "van_der_pol", "hiv_treatment", "predator_prey")
SYSTEMS = (
    *QUICK_SYSTEMS,
    *("bacteria", "bear_populations", "bioreactor", "cartpole", "epidemic_seirn", "glucose", "harvest"),
    *("invasive_plant", "mould_fungicide", "mountain_car", "pendulum", "rocket_landing", "seir", "simple_case"),
    *("timber_harvest", "tumour"),
)


class Job(NamedTuple):
    """Optimise a policy in the simulator of a system."""

    system: str
    beta: float
    seed: int
    updates: int


def detachment(quick: bool = False, seeds: int | None = None) -> Verdict:
    """Optimise policies in the true simulators with beta 0 and 1, and compare the gradients and the regrets."""
    systems, own, updates = (QUICK_SYSTEMS, 1, 200) if quick else (SYSTEMS, 5, 1000)
    jobs = [
        Job(system, beta, seed, updates) for system in systems for seed in range(seeds or own) for beta in (0.0, 1.0)
    ]
    rows = run_jobs(optimise, jobs, "detachment")

    def middle(system: str, beta: float, what: str) -> float:
        values = [row[what] for row in rows if (row["system"], row["beta"]) == (system, beta)]
        return median([value for value in values if value is not None] or [math.nan])

    regrets = {system: (middle(system, 0.0, "regret"), middle(system, 1.0, "regret")) for system in systems}
    worse = [system for system, (detached, full) in regrets.items() if detached > full + MARGIN]
    better = [system for system, (detached, full) in regrets.items() if full > detached + MARGIN]
    because = (
        f"worse by more than {MARGIN:.0%} of regret on {len(worse)} of {len(systems)} systems, better on "
        f"{len(better)}; regret with beta 0, with 1, cosine of the gradients, fresh and trained:; "
    )
    because += "; ".join(
        f"{system} {detached:.2%}, {full:.2%}, {middle(system, 1.0, 'cosine_fresh'):.2f}, "
        f"{middle(system, 1.0, 'cosine_trained'):.2f}"
        for system, (detached, full) in regrets.items()
    )
    claim = (
        "Detaching the states that the policy reads (beta = 0, as in Ma et al., 2024, arXiv:2402.05290) is a bias: "
        "with the true dynamics it ends in worse policies than the full gradient (beta = 1) on more systems than in "
        "better ones"
    )
    return Verdict("detachment", claim, len(worse) > len(better), because, rows, _figure(rows, systems))


def optimise(job: Job) -> Row:
    """Optimise by the common recipe; return the regret and the cosine between the gradients with beta 0 and 1."""
    length = 10 if job.system == "invasive_plant" else 100  # whose steps are years
    module, data = build(
        [
            f"--seed_everything={job.seed}",
            f"--data.env={job.system}",
            f"--data.episode_length={length}",
            "--data.world_model_updates=1",  # nothing is to be fitted
            f"--data.policy_updates={job.updates}",
            f"--model.policy_module.policy_input_gradient={job.beta}",
            "--model.policy.least_slope=0",  # true derivatives
            *options_of("simulator", length),
            *UNTAUGHT,
        ]
    )
    initial = data.draw_initial_states(1)

    def cosine() -> float | None:
        model = module.world_model.world_model
        detached, full = (
            measure_gradients(model, module.policy.policy, initial, [length], policy_input_gradient=beta)[0]
            for beta in (0.0, 1.0)
        )
        value = detached.fidelity(full)[0]
        return None if math.isnan(value) else value  # where one is zero or not finite

    cosine_fresh = cosine()
    regret = fit(module, data).callback_metrics["eval/regret"].item()
    return {**job._asdict(), "regret": regret, "cosine_fresh": cosine_fresh, "cosine_trained": cosine()}


def _figure(rows: list[dict[str, Any]], systems: tuple[str, ...]) -> Figure:
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for index, system in enumerate(systems):
        for beta, marker in ((0.0, "o"), (1.0, "x")):
            chosen = [row for row in rows if (row["system"], row["beta"]) == (system, beta)]
            label = f"beta = {beta:g}" if index == 0 else None
            regrets = [max(row["regret"], 1e-6) for row in chosen]
            left.plot(regrets, [index] * len(chosen), marker, color=f"C{beta:.0f}", label=label)
        right.plot([row["cosine_fresh"] for row in chosen], [index] * len(chosen), "s", color="C2")
        right.plot([row["cosine_trained"] for row in chosen], [index] * len(chosen), "d", color="C3")
    left.set(xlabel="regret reached", xscale="log", yticks=range(len(systems)), yticklabels=systems)
    left.legend(fontsize="small")
    right.set(xlabel="cosine of the two gradients\n(square: fresh, diamond: trained)", xlim=(-1.05, 1.05))
    figure.suptitle("the bias of detaching the policy's input, in the true simulators")
    return figure
