"""``lit-awm evaluate``: score a checkpoint."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from lit_awm.commands.checkpoint import load_run
from lit_awm.commands.output import print_result
from lit_awm.data import EVALUATION_SEED, SCORES, evaluate


def main(arguments: list[str]) -> int:
    """Score a checkpoint in the environment that its recipe names."""
    parser = argparse.ArgumentParser(prog="lit-awm evaluate", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("checkpoint", type=Path, help="file written by `lit-awm fit`")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    try:
        module, data, checkpoint, recipe = load_run(options.checkpoint)
    except ValueError as error:
        parser.error(str(error))
    begin = time.perf_counter()
    scores = evaluate(data.eval_env, module.behaviour_policy, data.optimum, EVALUATION_SEED)
    result = {
        "env": data.env.name,
        **{score: scores[score].mean().item() if score in scores.keys() else None for score in SCORES},
        "optimum": None if data.optimum is None else data.optimum.cost,
        "env_steps": checkpoint.get(type(data).__qualname__, {}).get("env_steps"),
        "seed": recipe["seed_everything"],
        "training_time_s": checkpoint.get("callbacks", {}).get("Throughput", {}).get("elapsed_s"),
        "wall_time_s": time.perf_counter() - begin,
    }
    print_result(result, options.json)
    return 0
