"""``lit-awm reproduce``: run the studies behind the claims."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from lit_awm.studies import STUDIES


def main(arguments: list[str]) -> int:
    """Run studies of gradients through world models, and say from the numbers whether each claim holds."""
    parser = argparse.ArgumentParser(prog="lit-awm reproduce", description=main.__doc__)
    parser.add_argument("study", nargs="?", choices=[*STUDIES], help="which study")
    parser.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--quick", action="store_true", help="fewer seeds, systems and updates, shorter horizons")
    parser.add_argument("--out", type=Path, default=Path("runs/studies"), help="folder for figures and data")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    if (options.study is None) != options.all:
        parser.error(f"name one study, of {', '.join(STUDIES)}, or give --all.")
    options.out.mkdir(parents=True, exist_ok=True)
    results = []
    for name in STUDIES if options.all else [options.study]:
        begin = time.perf_counter()
        verdict = STUDIES[name](options.quick)
        result = verdict.as_dict() | {"quick": options.quick, "time_s": round(time.perf_counter() - begin, 1)}
        results.append(result)
        verdict.figure.savefig(options.out / f"{name}.png", dpi=110)
        (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if not options.json:
            word = "holds" if verdict.holds else "does not hold"
            print(f"{name}: {word} ({result['time_s']} s)\n  claim   {verdict.claim}")  # noqa: T201
            because = verdict.because.replace("; ", "\n          ")
            print(f"  because {because}\n  figure  {options.out / name}.png\n")  # noqa: T201
    if options.json:
        print(json.dumps({"studies": results}))  # noqa: T201
    return 0
