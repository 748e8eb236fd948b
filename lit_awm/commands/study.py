"""``lit-awm study``: run methods on systems with several seeds."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from lit_awm.analysis.report import write_report
from lit_awm.analysis.runs import find_runs
from lit_awm.checks import did_you_mean
from lit_awm.commands.output import folder_to_write
from lit_awm.commands.subjects import parse_list
from lit_awm.envs.factory import describe_options
from lit_awm.studies.benchmark import (
    AGENTS,
    METHODS,
    REFERENCES,
    STEPS,
    SYSTEMS,
    WARMUP,
    Job,
    as_comparison,
    as_markdown,
    round_down,
    run_study,
)
from lit_awm.studies.executors import Executor, check_executor

NAMES = [*METHODS, *REFERENCES]
OF_ENV = r"--data\.env_options[.+=]"  # which are for methods that fit, not for references
OF_JOBS = r"--(data\.(env|episode_length|num_envs|warmup_episodes|seed)|trainer\.(max_epochs|accelerator|logger.*))="
DEFAULT = ",".join(["actions", *AGENTS, *REFERENCES])


def main(arguments: list[str]) -> int:
    """Run methods on systems with several seeds, side by side, and make a table and a report.

    Every run is a process of its own on one thread. The same command again goes on where it was interrupted. Further
    options are those of `lit-awm fit`, written as --data.turns=1, and hold for all runs; those that make up a job
    (environment, length, seed, number of episodes) are the study's own.
    """
    parser = _make_parser()
    options, more = parser.parse_known_args(arguments)
    methods = parse_list(parser, options.methods, "methods", NAMES)
    if "online_dt" in methods and find_spec("transformers") is None:  # now, not in every run
        parser.error("method online_dt needs transformers: pip install 'lit-awm[odt]', or leave it out of --methods.")
    systems = parse_list(parser, options.systems, "systems", SYSTEMS)
    if options.lengths and not re.fullmatch(r"0*[1-9][0-9]*(,0*[1-9][0-9]*)*", options.lengths):
        parser.error(f"lengths must be whole numbers from 1 on, with commas between them, got {options.lengths!r}.")
    for name, least in (("seeds", 1), ("first_seed", 0), ("jobs", 1), ("env_steps", STEPS * (WARMUP + 1))):
        if getattr(options, name) < least:
            parser.error(f"{name} must be at least {least}, got {getattr(options, name)}.")
    if stray := [word for word in more if not re.match("--(config|trainer|model|data)[.+=]", word) or "=" not in word]:
        hint = did_you_mean(stray[0].partition("=")[0], [f"--{name.replace('_', '-')}" for name in vars(options)])
        parser.error(
            f"options of `lit-awm fit` must be written as --data.name=value and the like, got {stray[0]}.{hint}"
        )
    if own := [word for word in more if re.match(OF_JOBS, word.replace("init_args.", ""))]:
        parser.error(f"options of `lit-awm fit` must not hold {own[0]}, which the study sets for every run.")
    if set(REFERENCES) & set(methods) and any(re.match(OF_ENV, word.replace("init_args.", "")) for word in more):
        parser.error(f"methods must not hold {', '.join(REFERENCES)} with --data.env_options, which are not for them.")
    try:
        check_executor(options.executor)
    except ValueError as error:
        parser.error(str(error))
    lengths = list(dict.fromkeys(map(int, options.lengths.split(",")))) if options.lengths else []
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    jobs = [
        Job(method, system, length, seed)
        for method in methods
        for system in systems
        for length in lengths or [describe_options(system)["episode_length"].default]
        for seed in (range(1) if method in REFERENCES else seeds)
    ]
    if not options.json:
        print(f"{len(jobs)} runs on the CPU, {options.jobs} side by side, one thread each: {options.out}")  # noqa: T201
    return _run(jobs, options, more, shlex.join(["lit-awm", "study", *arguments]))


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lit-awm study", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("what", choices=["myriad"], help="which systems to study: those of the Myriad testbed")
    parser.add_argument("--methods", default=DEFAULT, help=f"of {', '.join(NAMES)} (default: {DEFAULT})")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="which systems (default: all)")
    parser.add_argument("--lengths", help="steps of an episode, one or more (default: each system's own, mostly 100)")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds (default: 10)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument(
        "--env-steps",
        type=int,
        default=5000,
        help="budget of environment steps of a run, counted in episodes of 100 steps: longer episodes are as many, and "
        "of shorter ones as many as fit into 100 steps take the place of one (default: 5000)",
    )
    cores = os.cpu_count() or 1
    parser.add_argument("--jobs", type=int, default=cores, help=f"runs side by side (default: {cores}, the cores here)")
    parser.add_argument(
        "--executor",
        choices=get_args(Executor),
        default="local",
        help="where: on this machine, or on the Ray cluster that RAY_ADDRESS names, whose machines must see the same "
        "files (default: local)",
    )
    parser.add_argument(
        "--out",
        type=folder_to_write,
        default="runs/study",
        help="folder for runs, table and report (default: runs/study)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def _run(jobs: list[Job], options: argparse.Namespace, more: list[str], command: str) -> int:
    episodes = round_down(options.env_steps)
    try:
        rows, failed = run_study(jobs, options.out, episodes, options.jobs, more, not options.json, options.executor)
    except ValueError as error:
        raise SystemExit(f"lit-awm study: {error}") from error
    table = "\n".join([*as_comparison(rows), "", *as_markdown(rows)])
    (options.out / "results.md").write_text(table + "\n", encoding="utf-8")
    runs = [job.folder(options.out) for job in jobs if job.method in METHODS and job not in failed]
    if runs:
        write_report(find_runs(runs), Path(options.out), "Methods on the Myriad testbed", command)
    files = {"results": str(options.out / "results.csv"), "report": str(options.out / "report.html") if runs else None}
    print(json.dumps({"rows": rows} | files) if options.json else f"{table}\n\nreport  {files['report']}")  # noqa: T201
    for job in failed:
        print(f"failed: {job.folder(options.out) / 'output.txt'}", file=sys.stderr)  # noqa: T201
    return int(bool(failed))
