"""``lit-awm envs``: list the environments."""

from __future__ import annotations

import argparse
import json

from lit_awm.envs import SYSTEMS, load_optimum


def main(arguments: list[str]) -> int:
    """List the environments with their sizes and what is known about their optimum."""
    parser = argparse.ArgumentParser(
        prog="lit-awm envs",
        allow_abbrev=False,
        description=main.__doc__,
        epilog="Tasks of other packages go by gym/NAME and dmc/DOMAIN-TASK, for example gym/Pendulum-v1.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    rows = {}
    for name in sorted(SYSTEMS):
        env, optimum = SYSTEMS[name](), load_optimum(name)
        rows[name] = {
            "states": len(env.state_names),
            "controls": len(env.control_names),
            "steps": env.episode_length,
            "duration": env.duration,
            "optimal_cost": None if optimum is None else optimum.cost,
            "constant_cost": None if optimum is None else optimum.constant_cost,
            "random_cost": None if optimum is None else optimum.random_cost,
        }
    if options.json:
        print(json.dumps(rows))  # noqa: T201
        return 0
    columns = list(next(iter(rows.values())))
    print(f"{'environment':<25}" + "".join(f"{column:>14}" for column in columns))  # noqa: T201
    for name, row in rows.items():
        cells = ("-" if value is None else f"{value:.6g}" for value in row.values())
        print(f"{name:<25}" + "".join(f"{cell:>14}" for cell in cells))  # noqa: T201
    print(f"\n{parser.epilog}")  # noqa: T201
    return 0
