"""Keep what studies came to, and make tables of it: ``python benchmarks/results.py [STUDY...]``.

Takes the rows of folders of `lit-awm study` over into `docs/results/runs.csv`, each in place of an older row of the
same method, system, length and seed, and writes the tables of `docs/results.md` anew, between their marks.
Studies with further options (`--model.judge=false` and the like) do not belong there, and are refused.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import torch

from lit_awm.analysis.statistics import Interval, bootstrap, improvement
from lit_awm.envs import load_optimum
from lit_awm.envs.factory import describe_options, make_system

DOCS = Path(__file__).parent.parent / "docs"
FILE, PAGE = DOCS / "results" / "runs.csv", DOCS / "results.md"
MARKS = "<!-- {}: python benchmarks/results.py -->\n\n", "\n\n<!-- end of {} -->"
OURS, OTHERS, UNTAUGHT = "actions", ("sac", "online_dt", "receding"), "actions_untaught"
Row = dict[str, str]


def read(path: Path) -> list[Row]:
    """Return the rows of a table of runs.

    Raises:
        SystemExit: If there is no such file.
    """
    if not path.is_file():
        raise SystemExit(f"{path} must be a file: `lit-awm study` writes it.")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_study(folder: Path) -> list[Row]:
    """Return the rows of a study of the recipes as they are.

    Raises:
        SystemExit: If there are none, or it is one of other settings.
    """
    rows, settings = read(folder / "results.csv"), folder / "study.json"
    if not settings.is_file():
        raise SystemExit(f"{settings} must be a file, which tells of the settings: `lit-awm study` writes it.")
    if options := json.loads(settings.read_text(encoding="utf-8"))["options"]:
        raise SystemExit(f"{folder} must be a study of the recipes as they are, got one with {' '.join(options)}.")
    return rows


def write(rows: Sequence[Row], path: Path) -> None:
    """Write a table of runs in place of an older one, whose columns come first."""
    names = list(dict.fromkeys(name for row in [*read(path), *rows] for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def merge(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """Return all rows that have a score, in order; of two of the same run the new one.

    Raises:
        SystemExit: If a run is to take the place of one with another number of environment steps.
    """
    rows: dict[tuple[str, str, int, str], Row] = {}
    for row in [*old, *new]:
        key = (row["method"], row["system"], int(row["episode_length"]), row["seed"])
        if not row.get("regret"):
            continue
        steps, before = row.get("env_steps"), rows.get(key, {}).get("env_steps")
        if steps and before and float(steps) != float(before):
            raise SystemExit(
                f"env_steps of {' '.join(map(str, key))} must be {before} as before, got {steps}. "
                f"Take the row out of {FILE} first."
            )
        rows[key] = row
    return [rows[key] for key in sorted(rows)]


def scores(rows: Sequence[Row], method: str, system: str, score: str = "regret") -> list[float]:
    """Return the scores of a method on a system."""
    found = [row.get(score) for row in rows if (row["method"], row["system"]) == (method, system)]
    return [float(value) for value in found if value]


def spread(values: Sequence[float]) -> str:
    """Return the median, and if there are several values the lowest and the highest."""
    low, middle, high = (f"{value:.2%}" for value in (min(values), median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def as_line(name: str, columns: Sequence[Sequence[float]]) -> str:
    """Return a line of a table: what it is of, and the spread of the scores in each column, if there are any."""
    return f"| {name} | " + " | ".join(spread(values) if values else "" for values in columns) + " |"


def systems(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the table of systems: regret of every method, and our gap."""
    yield f"| system | `{OURS}`: regret | `{OURS}`: gap | " + " | ".join(f"`{name}`" for name in OTHERS) + " |"
    yield "|---|---|---|" + "---|" * len(OTHERS)
    for system in sorted({row["system"] for row in rows}):
        columns = [scores(rows, OURS, system), scores(rows, OURS, system, "gap")]
        yield as_line(system, columns + [scores(rows, name, system) for name in OTHERS])


def means(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the table of interquartile means over the systems that some methods share."""
    yield f"| systems | method | runs of each | interquartile mean of regret | `{OURS}` costs less |"
    yield "|---|---|---|---|---|"
    groups = {tuple(common(rows, methods)): methods for methods in ((OURS, *OTHERS[:1]), (OURS, *OTHERS[:2]))}
    for shared, methods in groups.items():  # the more methods where they have the same systems
        tables = {method: [scores(rows, method, system) for system in shared] for method in methods}
        for method, table in tables.items():
            counts = sorted({len(values) for values in table})
            runs = " to ".join(map(str, counts[:: max(1, len(counts) - 1)]))
            mean = with_interval(bootstrap(table), table, ".2%")
            both = [*tables[OURS], *table]
            wins = "" if method == OURS else with_interval(improvement(tables[OURS], table), both, ".0%")
            yield f"| {len(shared)} | `{method}` | {runs} | {mean} | {wins} |"


def with_interval(found: Interval, table: Sequence[Sequence[float]], form: str) -> str:
    """Return an estimate from runs of several systems, with its interval if there are several of one."""
    estimate, low, high = (f"{value:{form}}" for value in (found.estimate, found.low, found.high))
    return f"{estimate} ({low} to {high})" if max(map(len, table)) > 1 else estimate


def common(rows: Sequence[Row], methods: Sequence[str]) -> list[str]:
    """Return the systems that all of some methods have been run on."""
    return [s for s in sorted({row["system"] for row in rows}) if all(scores(rows, m, s) for m in methods)]


def ablation(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the table of what teaching brings: regret and gap with and without."""
    methods = (OURS, UNTAUGHT)
    shared = common(rows, methods)
    yield "| system | " + " | ".join(f"`{method}`: regret | `{method}`: gap" for method in methods) + " |"
    yield "|---|---|---|---|---|"
    for system in shared:
        yield as_line(system, [scores(rows, m, system, score) for m in methods for score in ("regret", "gap")])
    if shared:
        both = [[scores(rows, method, system) for system in shared] for method in methods]
        means = " | | ".join(with_interval(bootstrap(table), table, ".2%") for table in both)
        yield f"| interquartile mean of all | {means} | |"


def lengths(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the table of lengths: our regret where a system has been run with more than one."""
    ours = [row for row in rows if row["method"] == OURS]
    found = {(row["system"], int(row["episode_length"])) for row in ours}
    several = sorted({system for system, _ in found if len([s for s, _ in found if s == system]) > 1})
    columns = sorted({length for system, length in found if system in several})
    yield "| regret | " + " | ".join(f"{length} steps" for length in columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for system in several:
        cells = [
            scores([row for row in ours if int(row["episode_length"]) == length], OURS, system) for length in columns
        ]
        yield as_line(system, cells)


def ends(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the table of end states: by how much they are missed, where that is known."""
    known = [row for row in rows if row.get("target_error")]
    methods = [name for name in (OURS, *OTHERS) if any(row["method"] == name for row in known)]
    yield "| system | optimum | " + " | ".join(f"`{name}`" for name in methods) + " |"
    yield "|---|---|" + "---|" * len(methods)
    for system in sorted({row["system"] for row in known}):
        columns = [scores(known, name, system, "target_error") for name in methods]
        yield as_line(system, [[optimal_end(system)], *columns])


def optimal_end(system: str) -> float:
    """Return by how much the stored optimum of a system misses its end state."""
    optimum, env = load_optimum(system), make_system(system)
    assert optimum is not None, f"{system} has runs with a regret, hence an optimum"
    states, _ = env.unroll(torch.tensor(optimum.controls, dtype=torch.float64))
    error = env.target_error(states[-1])
    assert error is not None, f"{system} has runs that miss an end state, hence one"
    return error.item()


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return the tables of the page by their names."""
    own = [
        row for row in rows if int(row["episode_length"]) == describe_options(row["system"])["episode_length"].default
    ]
    made: dict[str, tuple[Callable[[Sequence[Row]], Iterator[str]], list[Row]]] = {
        "systems": (systems, own),
        "means": (means, own),
        "ends": (ends, own),
        "ablation": (ablation, own),
        "lengths": (lengths, list(rows)),
    }
    return {name: "\n".join(make(chosen)) for name, (make, chosen) in made.items()}


def replace(page: str, made: dict[str, str]) -> str:
    """Return a page with the tables between their marks.

    Raises:
        SystemExit: If a mark is missing.
    """
    for name, table in made.items():
        first, last = (mark.format(name) for mark in MARKS)
        if first not in page or last not in page:
            raise SystemExit(f"{PAGE} must have the marks {first.strip()!r} and {last.strip()!r}.")
        before, _, rest = page.partition(first)
        page = before + first + table + last + rest.partition(last)[2]
    return page


def main() -> None:
    """Parse the options, merge, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", type=Path, help="folders of `lit-awm study` to take rows from")
    folders = parser.parse_args().studies
    rows = merge(read(FILE), [row for folder in folders for row in read_study(folder)])
    write(rows, FILE)
    made = tables(rows)
    PAGE.write_text(replace(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    print("\n\n".join(made.values()))  # noqa: T201


if __name__ == "__main__":
    main()
