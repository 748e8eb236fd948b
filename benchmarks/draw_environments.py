"""Draw ``docs/environments/*.png`` and write the table of optima in ``docs/environments.md``.

Run as ``python benchmarks/draw_environments.py``. Random actions are held for ten steps on average, with seed 0.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from tqdm import tqdm

from lit_awm.analysis.trajectories import draw_trajectory
from lit_awm.data.exploration import STEP, Exploration, tell_rewards
from lit_awm.envs import SYSTEMS, load_optimum, make_env

DOCS = Path(__file__).resolve().parent.parent / "docs"
MARKERS = "<!-- optima: .*? -->\n", "<!-- end of optima -->"


def draw(name: str) -> None:
    """Draw an episode with random actions beside the optimum."""
    torch.manual_seed(0)
    env = tell_rewards(make_env(name))
    at_random = Exploration(None, env.action_spec.shape[-1], noise=0.0, mean_hold=10.0)
    actor = TensorDictModule(at_random, in_keys=list(STEP), out_keys=["action"])
    episode = env.rollout(env.episode_length, actor)
    cost = -episode["next", "reward"].sum(dim=(1, 2))
    evaluation = TensorDict({"episode": episode, "cost": cost}, batch_size=[1])
    figure = draw_trajectory(env, evaluation, load_optimum(name), label="random actions")
    figure.savefig(DOCS / "environments" / f"{name}.png", dpi=60)


def table() -> str:
    """Return what is known about the optima, in Markdown."""
    lines = [
        "| environment | states | controls | steps | duration | J* | constant | random | starts | exact target |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted(SYSTEMS):
        env, best = SYSTEMS[name](), load_optimum(name)
        assert best is not None
        near = sum(cost - best.cost <= 1e-4 * max(abs(best.cost), 1e-6) for cost in best.costs)
        exact = "" if best.exact_target_cost is None else f"{best.exact_target_cost:.6g}"
        cells = [len(env.state_names), len(env.control_names), env.episode_length, f"{env.duration:g}"]
        for cost in (best.cost, best.constant_cost, best.random_cost):
            cells.append(f"{cost if abs(cost) > 1e-12 else 0:.6g}")
        cells += [f"{near} of {len(best.costs)}", exact]
        lines.append(f"| {name} | {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Draw all figures and write the table."""
    for name in tqdm(sorted(SYSTEMS), desc="figures"):
        draw(name)
    page = DOCS / "environments.md"
    text = page.read_text(encoding="utf-8")
    begin, end = MARKERS
    found = re.search(f"({begin}).*({end})", text, flags=re.DOTALL)
    assert found is not None
    page.write_text(text[: found.end(1)] + table() + text[found.start(2) :], encoding="utf-8")


if __name__ == "__main__":
    main()
