"""``lit-awm reproduce``: run the studies behind the claims."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from lit_awm.commands.output import folder_to_write
from lit_awm.studies import STUDIES


def main(arguments: list[str]) -> int:
    """Run studies of gradients through world models, and say from the numbers whether each claim holds."""
    told = {name: (study.__doc__ or "").splitlines()[0].replace("``", "") for name, study in STUDIES.items()}
    parser = argparse.ArgumentParser(
        prog="lit-awm reproduce",
        description=main.__doc__,
        allow_abbrev=False,
        epilog="\n".join(["studies:", *(f"  {name:<14}{text}" for name, text in told.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", nargs="?", choices=[*STUDIES], help="which study")
    parser.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--quick", action="store_true", help="fewer seeds, systems and updates, shorter horizons")
    parser.add_argument("--seeds", type=int, help="number of seeds, in place of each study's own")
    parser.add_argument(
        "--out",
        type=folder_to_write,
        default="runs/studies",
        help="folder for figures and data (default: runs/studies)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    if (options.study is None) != options.all:
        parser.error(f"name one study, of {', '.join(STUDIES)}, or give --all.")
    if options.seeds is not None and options.seeds < 1:
        parser.error(f"seeds must be at least 1, got {options.seeds}.")
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.json:
        print(f"on the CPU, one thread for each of {os.cpu_count()} processes\n")  # noqa: T201
    results = []
    for name in STUDIES if options.all else [options.study]:
        begin = time.perf_counter()
        verdict = STUDIES[name](options.quick, options.seeds)
        result = verdict.as_dict() | {
            "quick": options.quick,
            "seeds": options.seeds,
            "time_s": round(time.perf_counter() - begin, 1),
        }
        results.append(result)
        verdict.figure.savefig(options.out / f"{name}.png", dpi=110)
        (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if not options.json:
            print(f"{name}: {_word(verdict.holds)} ({result['time_s']} s)\n  claim   {verdict.claim}")  # noqa: T201
            because = verdict.because.replace("; ", "\n          ")
            print(f"  because {because}\n  figure  {options.out / name}.png\n")  # noqa: T201
    table = options.out / "verdicts.md"
    table.write_text(_collect(options.out), encoding="utf-8")
    print(json.dumps({"studies": results}) if options.json else f"verdicts  {table}")  # noqa: T201
    return 0


def _collect(folder: Path) -> str:
    """Return a table of all studies whose results are in a folder."""
    lines = ["| study | verdict | because | time |", "|---|---|---|---|"]
    for path in (folder / f"{name}.json" for name in STUDIES):
        if path.is_file():
            study = json.loads(path.read_text(encoding="utf-8"))
            verdict, because = _word(study["holds"]), study["because"].replace("; ", "<br>")
            lines.append(f"| {study['name']} | {verdict} | {because} | {study['time_s']:.0f} s |")
    return "\n".join(lines) + "\n"


def _word(holds: bool) -> str:
    return "holds" if holds else "does not hold"
