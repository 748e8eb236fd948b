"""A recurrent actions world model has the policy gradient of the Markovian model that it iterates."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from lit_awm.imagination import Method, imagine
from lit_awm.models import DeterministicPolicy, MarkovWorldModel, UnrolledWorldModel, WorldModel
from lit_awm.studies.verdict import Verdict

TOLERANCE = 1e-10
LONGEST = 200


def equivalence(quick: bool = False, seeds: int | None = None) -> Verdict:
    """Compare the two policy gradients in float64, over horizons up to 200 (every one, or 16 of them if ``quick``)."""
    horizons = range(1, LONGEST + 1)
    if quick:
        horizons = range(5, LONGEST + 1, 13)
    rows = []
    for seed in tqdm(range(seeds or (1 if quick else 3)), "seeds", leave=False):
        torch.manual_seed(seed)
        markov = MarkovWorldModel(3, 2, 32).double()
        policy = DeterministicPolicy(3, 2, 16).double()
        initial = torch.randn(4, 3, dtype=torch.float64)
        for horizon in horizons:
            expected = _gradient(markov, policy, initial, horizon, "sequential")
            got = _gradient(UnrolledWorldModel(markov), policy, initial, horizon, "replay")
            error = ((got - expected).abs().max() / expected.abs().max()).item()
            rows.append({"seed": seed, "horizon": horizon, "relative_error": error})
    largest = max(row["relative_error"] for row in rows)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([row["horizon"] for row in rows], [max(row["relative_error"], 1e-18) for row in rows], "o", markersize=3)
    axes.axhline(TOLERANCE, color="grey", linestyle="--", label=f"tolerance {TOLERANCE:g}")
    axes.set(
        xlabel="horizon H", ylabel="relative error", yscale="log", title="recurrent actions model against Markovian"
    )
    axes.legend()
    return Verdict(
        "equivalence",
        "An actions world model whose g is a recurrent network has the policy gradient of the Markovian model "
        "(Ma et al., 2024, arXiv:2402.05290)",
        all(row["relative_error"] <= TOLERANCE for row in rows),
        f"largest relative error {largest:.1e} over {len(rows)} comparisons up to H = {max(horizons)}",
        rows,
        figure,
    )


def _gradient(
    model: WorldModel, policy: DeterministicPolicy, initial: torch.Tensor, horizon: int, method: Method
) -> torch.Tensor:
    rewards = imagine(model, policy, initial, horizon, method=method).rewards
    return torch.cat([part.flatten() for part in torch.autograd.grad(rewards.sum(), list(policy.parameters()))])
