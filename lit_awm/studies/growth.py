"""Policy gradients grow exponentially through models that are fed back what they predict, else like a power."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from lit_awm.analysis import fit_growth, measure_gradients
from lit_awm.models import (
    ActionsWorldModel,
    AttentionBackbone,
    CausalTransformer,
    DeterministicPolicy,
    HistoryWorldModel,
    MarkovWorldModel,
    WorldModel,
)
from lit_awm.studies.verdict import Verdict

STATE_DIM, ACTION_DIM = 4, 2
HIGHEST_POWER = 3.0
ETA = 2.0  # by how much a step of the models that are fed back stretches, at the origin


def growth(quick: bool = False) -> Verdict:
    """Measure the policy gradient through random models of each family against the horizon, and fit its growth."""
    horizons = [5, 10, 20, 40, 80] if quick else [5, 10, 20, 50, 100, 200, 300, 400, 500]
    rows: list[dict[str, Any]] = []
    for seed in tqdm(range(3 if quick else 10), "seeds", leave=False):
        for family, make in FAMILIES.items():
            torch.manual_seed(seed)
            model = make(max(horizons)).double().requires_grad_(False)
            policy = DeterministicPolicy(STATE_DIM, ACTION_DIM, 16).double()
            initial = torch.randn(4, STATE_DIM, dtype=torch.float64)
            measured = measure_gradients(model, policy, initial, horizons)
            norms = [gradients.norm for gradients in measured]
            fit = fit_growth(horizons, norms)
            assert fit is not None
            eta = _step_norm(model, initial) if family in FED_BACK else None
            for horizon, norm in zip(horizons, norms, strict=True):
                rows.append(
                    {"seed": seed, "family": family, "horizon": horizon, "norm": norm, "eta": eta, **fit._asdict()}
                )
    summary = {family: _summary(rows, family) for family in FAMILIES}
    fed_back = all(summary[family]["exponential"] > 0.5 and summary[family]["rate"] > 1 for family in FED_BACK)
    direct = all(summary[family]["power"] <= HIGHEST_POWER for family in DIRECT)
    because = "; ".join(
        f"{family}: exponential wins in {each['exponential']:.0%} of seeds, median {each['rate']:.3g}^H or "
        f"H^{each['power']:.2g}"
        for family, each in summary.items()
    )
    return Verdict(
        "growth",
        "Policy gradients grow like O(eta^H) through Markovian and history models and at most like O(H^3) through "
        "actions models with attention (Ma et al., 2024, arXiv:2402.05290)",
        fed_back and direct,
        because,
        rows,
        _figure(rows, horizons),
    )


def _stretching(model: MarkovWorldModel | HistoryWorldModel) -> WorldModel:
    """Scale the last layer of a random model so that its step stretches by ``ETA``: as it is made, it contracts."""
    layer: torch.nn.Module = model.head if isinstance(model, HistoryWorldModel) else [*model.networks[0].children()][-1]
    assert isinstance(layer, torch.nn.Linear)
    with torch.no_grad():
        layer.weight *= ETA / _step_norm(model, torch.zeros(1, STATE_DIM, dtype=layer.weight.dtype))
    return model


FAMILIES: dict[str, Callable[[int], WorldModel]] = {
    "markov": lambda horizon: _stretching(MarkovWorldModel(STATE_DIM, ACTION_DIM, 64, 1, predicts="state")),
    "history": lambda horizon: _stretching(
        HistoryWorldModel(STATE_DIM, ACTION_DIM, CausalTransformer(32, 1, 1, horizon), "state")
    ),
    "actions": lambda horizon: ActionsWorldModel(STATE_DIM, ACTION_DIM, CausalTransformer(32, 1, 1, horizon)),
    "actions_attention": lambda horizon: ActionsWorldModel(STATE_DIM, ACTION_DIM, AttentionBackbone(32, horizon)),
}
FED_BACK, DIRECT = ("markov", "history"), ("actions", "actions_attention")


def _step_norm(model: WorldModel, states: Tensor) -> float:
    """Return ``eta``: the largest spectral norm of the Jacobian of a step."""

    def step(state: Tensor) -> Tensor:
        return model.step(model.start(state[None], 1), state.new_zeros(1, ACTION_DIM))[1][0]

    jacobians = [torch.func.jacrev(step)(state) for state in states]
    return max(torch.linalg.matrix_norm(jacobian, 2).item() for jacobian in jacobians)


def _summary(rows: list[dict[str, Any]], family: str) -> dict[str, float]:
    fits = list({row["seed"]: row for row in rows if row["family"] == family}.values())
    wins = [fit["exponential_error"] < fit["polynomial_error"] for fit in fits]
    return {
        "exponential": sum(wins) / len(wins),
        "rate": median(fit["rate"] for fit in fits),
        "power": median(fit["power"] for fit in fits),
    }


def _figure(rows: list[dict[str, Any]], horizons: list[int]) -> Figure:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for index, family in enumerate(FAMILIES):
        norms = [
            median(row["norm"] for row in rows if row["family"] == family and row["horizon"] == h) for h in horizons
        ]
        axes.plot(horizons, norms, "o-", color=f"C{index}", label=family)
        if family == "markov":
            eta = median(row["eta"] for row in rows if row["family"] == family)
            bound = [min(norms[0] * eta ** (h - horizons[0]), 1e300) for h in horizons]
            axes.plot(horizons, bound, ":", color=f"C{index}", label=f"eta^H, eta = {eta:.2f}")
        if family == "actions":
            cubic = [norms[0] * (h / horizons[0]) ** HIGHEST_POWER for h in horizons]
            axes.plot(horizons, cubic, ":", color=f"C{index}", label="H^3")
    axes.set(xlabel="horizon H", ylabel="norm of the policy gradient", xscale="log", yscale="log")
    axes.set_title("random models, median over seeds")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
