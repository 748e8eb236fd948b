"""Which positions and which norm a transformer should have: ``python benchmarks/architecture.py [--json]``.

Actions models with each variant are fitted to the same random episodes by the common recipe, and scored on episodes
that they have not seen: root-mean-square error of all states of whole episodes, in standard deviations. The variants
that are not shipped are made here.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from datetime import date
from itertools import product
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_awm.models import ActionsWorldModel, CausalTransformer
from lit_awm.models.cache import KeyValueCache, Memory, attend
from lit_awm.models.transformer import TransformerBlock
from lit_awm.recipes import build, fit
from lit_awm.studies.jobs import run_jobs

SYSTEMS = ("cancer_treatment", "hiv_treatment", "van_der_pol")
EPISODES, HELD_OUT_ROUNDS, UPDATES, SEEDS = 48, 8, 1500, 3


class RotaryBlock(TransformerBlock):
    """A block whose queries and keys are rotated by their position (Su et al., 2021, arXiv:2104.09864)."""

    def forward(self, tokens: Tensor, cache: KeyValueCache, layer: int) -> tuple[Tensor, Memory]:
        """Do as the parent does, with rotated queries and keys."""
        batch, length, width = tokens.shape
        size = width // self.num_heads
        heads = self.query_key_value(self.attention_norm(tokens)).view(batch, length, 3, self.num_heads, size)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        at = torch.arange(cache.length, cache.length + length, device=tokens.device)
        angles = at[:, None] * 10_000.0 ** (-torch.arange(0, size, 2, device=tokens.device) / size)
        turn = torch.polar(torch.ones_like(angles), angles)
        query, key = (
            torch.view_as_real(torch.view_as_complex(each.reshape(*each.shape[:-1], -1, 2)) * turn).flatten(-2)
            for each in (query, key)
        )
        attended, memory = attend(query, key, value, cache, layer)
        tokens = tokens + self.attention_out(attended.transpose(1, 2).reshape(batch, length, width))
        return tokens + self.feedforward(tokens), memory


def rotate(backbone: CausalTransformer) -> None:
    """Rotate queries and keys in place of adding learned positions."""
    backbone.positions.requires_grad_(False).zero_()
    for block in backbone.blocks:
        block.__class__ = RotaryBlock


def norm_by_root_mean_square(backbone: CausalTransformer) -> None:
    """Put root-mean-square norms where layer norms are."""
    for module in list(backbone.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.LayerNorm):
                setattr(module, name, nn.RMSNorm(child.normalized_shape))


VARIANTS: dict[str, Callable[[CausalTransformer], None]] = {
    "learned positions, layer norm (shipped)": lambda backbone: None,
    "rotary positions, layer norm": rotate,
    "learned positions, root-mean-square norm": norm_by_root_mean_square,
}


class Job(NamedTuple):
    """Fit a variant to a system."""

    variant: str
    system: str
    seed: int


def score(job: Job) -> dict[str, Any]:
    """Return the error on episodes that were not seen, and the time of an update."""
    options = [f"--data.env={job.system}", f"--data.warmup_episodes={EPISODES}"]
    options += [f"--data.world_model_updates={UPDATES}", f"--seed_everything={job.seed}"]
    module, data = build(options)
    model = module.world_model.world_model
    assert isinstance(model, ActionsWorldModel)
    assert isinstance(model.backbone, CausalTransformer)
    VARIANTS[job.variant](model.backbone)
    begin = time.perf_counter()
    fit(module.world_model, data, gradient_clip_val=module.gradient_clip_val)
    seconds, seen = time.perf_counter() - begin, len(data.buffer)
    for _ in range(HELD_OUT_ROUNDS):
        data.collect()
    rows = data.buffer[seen:].reshape(-1, data.env.episode_length)
    with torch.no_grad():
        predicted = model(rows["observation"], rows["action"]).state
    error = ((predicted - rows["next", "observation"]) / model.state_scaler.scale)[..., :-1]
    return {**job._asdict(), "error": error.square().mean().sqrt().item(), "ms_per_update": 1e3 * seconds / UPDATES}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    jobs = [Job(*each) for each in product(VARIANTS, SYSTEMS, range(options.seeds))]
    rows = run_jobs(score, jobs, "fitting")
    if options.json:
        print(json.dumps({"rows": rows}))  # noqa: T201
        return
    print("| variant | " + " | ".join(SYSTEMS) + " | time of an update |")  # noqa: T201
    print("|---|" + "---|" * (len(SYSTEMS) + 1))  # noqa: T201
    for variant in VARIANTS:
        cells = []
        for system in SYSTEMS:
            errors = [row["error"] for row in rows if (row["variant"], row["system"]) == (variant, system)]
            cells.append(f"{median(errors):.1e} ({min(errors):.1e} to {max(errors):.1e})")
        times = [row["ms_per_update"] for row in rows if row["variant"] == variant]
        print(f"| {variant} | {' | '.join(cells)} | {median(times):.1f} ms |")  # noqa: T201
    print(  # noqa: T201
        f"\n{EPISODES} episodes, {UPDATES} updates; median (range) over {options.seeds} seeds, one thread for each run "
        f"({platform.machine()}), torch {torch.__version__}, {date.today():%Y-%m-%d}."
    )


if __name__ == "__main__":
    main()
