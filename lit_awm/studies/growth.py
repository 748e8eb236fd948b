"""Policy gradients grow exponentially through models that are fed back what they predict, else like a power."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from statistics import median
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lit_awm.analysis import Growth, fit_growth, measure_gradients
from lit_awm.envs import KnownReward
from lit_awm.envs.factory import make_system
from lit_awm.imagination import imagine
from lit_awm.models import (
    ActionsWorldModel,
    AttentionBackbone,
    CausalTransformer,
    DeterministicPolicy,
    HistoryWorldModel,
    MarkovWorldModel,
    Policy,
    WorldModel,
)
from lit_awm.studies.fitting import fit_world_model
from lit_awm.studies.jobs import Row, run_jobs
from lit_awm.studies.verdict import Verdict

STATE_DIM, ACTION_DIM = 4, 2
HIGHEST_POWER = 3.0
ETA = 2.0  # by how much a step of the random models that are fed back stretches, at the origin
PENDULUM: dict[str, Any] = {"dt": 0.1, "substeps": 2}
STARTS, REACH = 32, 0.8  # random actions to measure at, and their range
FED_BACK, DIRECT = ("markov", "history"), ("actions", "actions_attention")
FITTED = ("simulator", *FED_BACK, *DIRECT)


class Job(NamedTuple):
    """Measure one model: a random one, or one that is fitted by so many updates to a double pendulum."""

    family: str
    seed: int
    horizons: tuple[int, ...]
    updates: int

    @property
    def is_fitted(self) -> bool:
        """Whether the model is fitted."""
        return self.updates > 0


def growth(quick: bool = False, seeds: int | None = None) -> Verdict:
    """Measure the policy gradient through random and fitted models against the horizon, and fit its growth."""
    longest, own, updates, fits = (150, 3, 600, 2) if quick else (500, 10, 3000, 5)
    horizons = tuple(h for h in (5, 10, 20, 50, 75, 100, 150, 250, 300, 400, 500) if h <= longest)
    within = tuple(range(10, min(longest, 250) + 1, 10))
    jobs = [Job(family, seed, within, updates) for family in FITTED for seed in range(seeds or fits)]
    jobs += [Job(family, seed, horizons, 0) for family in RANDOM for seed in range(seeds or own)]
    rows = [row for job in run_jobs(measure, jobs, "growth") for row in job["rows"]]
    fits_of = {kind: _fits([row for row in rows if row["models"] == kind]) for kind in ("fitted", "random")}
    explodes = all(fits_of["fitted"][family].power > HIGHEST_POWER for family in FED_BACK)
    is_bounded = all(fits[family].power <= HIGHEST_POWER for fits in fits_of.values() for family in DIRECT)
    because = "over the upper half of the horizons; " + "; ".join(
        f"{kind} {family}: H^{fit.power:.2f} or {fit.rate:.3f}^H"
        for kind, fits in fits_of.items()
        for family, fit in fits.items()
    )
    return Verdict(
        "growth",
        "At long horizons policy gradients grow faster than H^3 through Markovian and history models of a chaotic "
        "system, and at most like H^3 through actions models with attention, fitted or random (Ma et al., 2024, "
        "arXiv:2402.05290)",
        explodes and is_bounded,
        because,
        rows,
        _figure(rows),
    )


def measure(job: Job) -> Row:
    """Return for each horizon the norm of the policy gradient, the geometric mean over random starts."""
    torch.manual_seed(job.seed)
    if job.is_fitted:
        model, policy, initial, noise, reward_fns = _fit(job)
    else:
        model = RANDOM[job.family](max(job.horizons)).double().requires_grad_(False)
        policy = DeterministicPolicy(STATE_DIM, ACTION_DIM, 16).double()
        initial, noise, reward_fns = torch.randn(STARTS, STATE_DIM, dtype=torch.float64), None, None
    measured = measure_gradients(model, policy, initial, job.horizons, reward_fns=reward_fns, action_noise=noise)
    norms = [gradients.policy.norm(dim=1).log().mean().exp().item() for gradients in measured]
    eta = None
    if job.family in FED_BACK:
        imagined = imagine(model, policy, initial, max(job.horizons), method="sequential", action_noise=noise)
        eta = _eta(model, imagined.states[:, :-1], imagined.actions)
    same = {"models": "fitted" if job.is_fitted else "random", "family": job.family, "seed": job.seed, "eta": eta}
    return {"rows": [{"horizon": h, "norm": norm, **same} for h, norm in zip(job.horizons, norms, strict=True)]}


def _fit(job: Job) -> tuple[WorldModel, Policy, Tensor, Tensor, dict[int, KnownReward]]:
    """Fit a family to a double pendulum; return what is needed to measure it at random releases."""
    length = max(job.horizons)
    model, data = fit_world_model(
        job.family, "double_pendulum", PENDULUM, length, episodes=256, updates=job.updates, seed=job.seed
    )
    torch.manual_seed(job.seed)
    policy = DeterministicPolicy(data.state_dim, data.action_dim)  # the same for all families
    generator = torch.Generator().manual_seed(0)
    noise = REACH * (2 * torch.rand(STARTS, length, data.action_dim, generator=generator, dtype=torch.float64) - 1)
    tasks = {h: make_system("double_pendulum", episode_length=h, **PENDULUM) for h in job.horizons}
    reward_fns = {h: KnownReward(data.env, task).double() for h, task in tasks.items()}
    initial = data.draw_initial_states(STARTS).double()
    return model.double(), policy.double(), initial, noise, reward_fns


def _stretching(model: MarkovWorldModel | HistoryWorldModel) -> WorldModel:
    """Scale the last layer of a random model so that its step stretches by ``ETA``: as it is made, it contracts."""
    layer: torch.nn.Module = model.head if isinstance(model, HistoryWorldModel) else [*model.networks[0].children()][-1]
    assert isinstance(layer, torch.nn.Linear)
    with torch.no_grad():
        layer.weight *= ETA / _eta(model, torch.zeros(1, 1, STATE_DIM), torch.zeros(1, 1, ACTION_DIM))
    return model


RANDOM: dict[str, Callable[[int], WorldModel]] = {
    "markov": lambda horizon: _stretching(MarkovWorldModel(STATE_DIM, ACTION_DIM, 64, 1, predicts="state")),
    "history": lambda horizon: _stretching(
        HistoryWorldModel(STATE_DIM, ACTION_DIM, CausalTransformer(32, 1, 1, horizon), "state")
    ),
    "actions": lambda horizon: ActionsWorldModel(STATE_DIM, ACTION_DIM, CausalTransformer(32, 1, 1, horizon)),
    "actions_attention": lambda horizon: ActionsWorldModel(STATE_DIM, ACTION_DIM, AttentionBackbone(32, horizon)),
}


def _eta(model: WorldModel, states: Tensor, actions: Tensor) -> float:
    """Return the most by which a step stretches, in standard units, along trajectories.

    It is the largest spectral norm of the Jacobian of a predicted state with respect to the one before, over up to 32
    steps of the trajectories ``(B, T, S)`` and ``(B, T, A)``; a clock is left out.
    """
    scale, size = model.state_scaler.scale, states.shape[-1] - (model.clock_step is not None)
    norms: list[float] = []
    last = states.shape[1] - 1
    for t, index in product(sorted({min(1 + last * part // 8, last) for part in range(8)}), range(min(4, len(states)))):

        def step(state: Tensor, t: int = t, index: int = index) -> Tensor:
            history = torch.cat([states[index, :t], state[None]])
            return model(history[None], actions[index, None, : t + 1]).state[0, -1] / scale

        jacobian = torch.func.jacrev(step)(states[index, t]) * scale
        norms.append(torch.linalg.matrix_norm(jacobian[:size, :size], 2).item())
    return max(norms)


def _fits(rows: list[Row]) -> dict[str, Growth]:
    """Return for each family how the median over the seeds grows over the upper half of the horizons."""
    fits = {}
    for family in dict.fromkeys(row["family"] for row in rows):
        horizons, norms = _medians(rows, family)
        upper = [index for index, horizon in enumerate(horizons) if 2 * horizon >= max(horizons)]
        fit = fit_growth([horizons[index] for index in upper], [norms[index] for index in upper])
        assert fit is not None
        fits[family] = fit
    return fits


def _medians(rows: list[Row], family: str) -> tuple[list[int], list[float]]:
    """Return the horizons of a family, and for each the norm that is the median over the seeds."""
    chosen = [row for row in rows if row["family"] == family]
    horizons = sorted({row["horizon"] for row in chosen})
    return horizons, [median(row["norm"] for row in chosen if row["horizon"] == h) for h in horizons]


def _figure(rows: list[Row]) -> Figure:
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw(left, [row for row in rows if row["models"] == "fitted"], "fitted to a double pendulum")
    _draw(right, [row for row in rows if row["models"] == "random"], "random")
    left.set_ylabel("norm of the policy gradient, median over seeds")
    return figure


def _draw(axes: Axes, rows: list[Row], title: str) -> None:
    for index, family in enumerate(FITTED):
        horizons, norms = _medians(rows, family)
        if not horizons:
            continue
        axes.plot(horizons, norms, "o-", markersize=3, color=f"C{index}", label=family)
        if family in FED_BACK:
            eta = median(row["eta"] for row in rows if row["family"] == family)
            bound = [min(norms[0] * eta ** (h - horizons[0]), 1e300) for h in horizons]
            axes.plot(horizons, bound, ":", color=f"C{index}", label=f"eta^H, eta = {eta:.2f}")
        if family == "actions":
            cubic = [norms[0] * (h / horizons[0]) ** HIGHEST_POWER for h in horizons]
            axes.plot(horizons, cubic, ":", color=f"C{index}", label="H^3")
    norms = [row["norm"] for row in rows]
    axes.set(xlabel="horizon H", xscale="log", yscale="log", title=title, ylim=(min(norms) / 3, max(norms) * 30))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
