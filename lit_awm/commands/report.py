"""``lit-awm report``: one page about runs."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from lit_awm.analysis.report import write_report
from lit_awm.analysis.runs import find_runs
from lit_awm.commands.output import folder_to_write


def main(arguments: list[str]) -> int:
    """Make one page of learning curves, scores and statistics about runs, with its tables and figures beside it."""
    parser = argparse.ArgumentParser(prog="lit-awm report", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or folders with such folders in them")
    parser.add_argument(
        "--out", type=folder_to_write, default="runs/report", help="folder for the page (default: runs/report)"
    )
    parser.add_argument("--title", default="Runs", help="of the page")
    options = parser.parse_args(arguments)
    try:
        runs = find_runs(options.runs)
    except ValueError as error:
        parser.error(str(error))
    page = write_report(runs, options.out, options.title, shlex.join(["lit-awm", "report", *arguments]))
    print(f"{len(runs)} runs: {page}")  # noqa: T201
    return 0
