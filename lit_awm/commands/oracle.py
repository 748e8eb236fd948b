"""``lit-awm oracle``: find the optimum of a system."""

from __future__ import annotations

import json

import jsonargparse

from lit_awm.analysis import solve
from lit_awm.analysis.receding import receding_horizon_cost
from lit_awm.checks import check_count
from lit_awm.commands.output import print_result
from lit_awm.envs import SYSTEMS
from lit_awm.envs.factory import WHAT_IS_SEEN, describe_options, make_system

NOT_FOR_ORACLE = ("num_envs", "device", "dtype", "initial_spread", *WHAT_IS_SEEN)


def main(arguments: list[str]) -> int:
    """Find the best controls of an environment by shooting through its dynamics, and print what they cost."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else "SYSTEM"
    parser = jsonargparse.ArgumentParser(prog=f"lit-awm oracle {name}", description=main.__doc__)
    parser.add_argument("--starts", type=int, default=6, help="Number of controls from which descent starts.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the random starts.")
    exact_help = "Meet the target state exactly, instead of paying for missing it."
    parser.add_argument("--exact_target", action="store_true", help=exact_help)
    grid_help = "Start from the solution on a grid of states too, if there are at most two of them and one control."
    parser.add_argument("--grid", action="store_true", help=grid_help)
    lookahead_help = "Plan so many steps ahead only, anew in every step: what a controller costs that looks no further."
    parser.add_argument("--lookahead", type=int | None, default=None, help=lookahead_help)
    parser.add_argument("--json", action="store_true", help="Print one JSON object, with the controls.")
    if name == "SYSTEM" and arguments and arguments[0] not in ("-h", "--help"):
        parser.error("SYSTEM comes first, as in `lit-awm oracle harvest --starts 3`.")
    if name == "SYSTEM":
        parser.epilog = f"SYSTEM is one of: {', '.join(sorted(SYSTEMS))}. Each has options of its own."
        parser.print_help()
        return 0 if arguments else 2
    if "/" in name:
        parser.error(f"SYSTEM must be a system of the testbed, whose dynamics are known, got {name!r}.")
    try:
        options_of_system = describe_options(name)
    except ValueError as error:
        parser.error(str(error))
    group = parser.add_argument_group(f"options of {name}")
    for option, (kind, default, text) in options_of_system.items():
        if option not in NOT_FOR_ORACLE:
            group.add_argument(f"--{option}", type=kind, default=default, help=text)
    options = parser.parse_args([_with_underscores(word) for word in arguments[1:]]).as_dict()
    search = {key: options.pop(key) for key in ("starts", "seed", "exact_target", "grid")}
    as_json, lookahead = options.pop("json"), options.pop("lookahead")
    if lookahead is not None and (search["exact_target"] or search["grid"]):
        parser.error("lookahead must be left out with exact_target or grid, which are for whole episodes.")
    try:
        given = {key: value for key, value in options.items() if value != options_of_system[key].default}
        check_count(1, starts=search["starts"])
        check_count(0, seed=search["seed"])
        env = make_system(name, **given)
        if lookahead is not None:
            cost = receding_horizon_cost(env, lookahead, progress=not as_json)
            print_result({"env": name, "cost": cost, "steps": env.episode_length, "lookahead": lookahead}, as_json)
            return 0
        solution = solve(env, **search, progress=not as_json)
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))
    result = {"env": name, "cost": solution.cost, "steps": env.episode_length, "time_s": round(solution.time_s, 3)}
    result |= {} if solution.target_error is None else {"target_error": solution.target_error}
    if as_json:
        more = {"costs": solution.costs, "violation": solution.violation, "controls": solution.controls.tolist()}
        print(json.dumps(result | more))  # noqa: T201
        return 0
    spread = f"{solution.costs[0]:.10g} to {solution.costs[-1]:.10g}, {len(solution.costs)} starts"
    print_result(result | {"cost": f"{solution.cost:.10g}", "spread": spread}, as_json=False)
    return 0


def _with_underscores(word: str) -> str:
    """Let options be written with dashes too."""
    flag, equals, value = word.partition("=")
    return f"--{flag[2:].replace('-', '_')}{equals}{value}" if flag.startswith("--") else word
