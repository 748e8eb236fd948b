"""``lit-awm benchmark``: measure what policy gradients cost."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from lit_awm.analysis.cost import FAMILIES, Cost, Size, measure
from lit_awm.commands.output import folder_to_write
from lit_awm.commands.subjects import parse_horizons, parse_list

HORIZONS = {"cpu": "50,100,200,500,1000,2000", "cuda": "50,100,200,500,1000,2000,4000,8000"}
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
MARKERS = "<!-- imagination: lit-awm benchmark imagination -->\n", "<!-- end of imagination -->"


def main(arguments: list[str]) -> int:
    """Measure time and memory of policy gradients, by every method of imagination and in every family.

    Both are ratios to the limit: one parallel forward and backward pass of the same model, measured in the same run.
    """
    parser = _make_parser()
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("device must be cpu on this machine, got cuda: PyTorch finds no GPU.")
    families = parse_list(parser, options.families, "families", list(FAMILIES))
    horizons = parse_horizons(parser, options.horizons or HORIZONS[device.type])
    sizes = {name: getattr(options, name) for name in Size._fields}
    for name, value in {**sizes, "threads": options.threads, "repeats": options.repeats}.items():
        if value < 1:
            parser.error(f"{name} must be at least 1, got {value}.")
    if options.width % options.heads:
        parser.error(f"heads must divide width {options.width}, got {options.heads}.")
    if options.docs is not None and MARKERS[1] not in _read(options.docs).partition(MARKERS[0])[2]:
        lines = " and, further down, ".join(marker.strip() for marker in MARKERS)
        parser.error(
            f"docs must be a file with the lines {lines}, got {options.docs}. Add them where the table belongs."
        )
    options.out.mkdir(parents=True, exist_ok=True)  # now, not after all has been measured
    torch.set_num_threads(options.threads)
    if not options.json:
        print(f"{_conditions(options, device)}\n")  # noqa: T201
    torch.manual_seed(0)
    costs = []
    pairs = [(family, horizon) for horizon in horizons for family in families]
    for family, horizon in tqdm(pairs, "measuring", disable=options.json):
        precision = PRECISIONS[options.precision]
        how = {"repeats": options.repeats, "device": device, "autocast": precision, "compiled": options.compile}
        costs += list(measure(family, Size(**sizes), horizon, **how))
    _write(options, costs, _conditions(options, device))
    return 0


SIZES = {
    "batch": "trajectories that are imagined at once",
    "width": "width of the world model",
    "layers": "number of its layers",
    "heads": "number of its attention heads",
    "policy_width": "width of the policy",
}


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lit-awm benchmark", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("what", choices=["imagination"], help="what to measure")
    parser.add_argument("--horizons", help=f"steps to imagine (default: {HORIZONS['cpu']}, on a GPU up to 8000)")
    parser.add_argument("--families", default=",".join(FAMILIES), help=f"which of {', '.join(FAMILIES)} (default: all)")
    default = Size()
    for name, what in SIZES.items():
        number = getattr(default, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=number, help=f"{what} (default: {number})")
    parser.add_argument("--threads", type=int, default=1, help="threads of a CPU (default: 1)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, of which the fastest counts (default: 5)")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the arithmetic (default: fp32)")
    parser.add_argument("--compile", action="store_true", help="measure replay with a compiled decoding too")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default=device, help=f"where to measure (default: {device})"
    )
    parser.add_argument(
        "--out", type=folder_to_write, default="runs/benchmark", help="folder for table, figure and data"
    )
    parser.add_argument("--docs", type=Path, help="page whose table and figure to replace: docs/performance.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _conditions(options: argparse.Namespace, device: torch.device) -> str:
    where = f"{options.threads} thread(s) of a CPU with {os.cpu_count()} cores ({platform.machine()})"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    return (
        f"Batch {options.batch}, width {options.width}, {options.layers} layers, {options.precision}, on {where}, "
        f"torch {torch.__version__}, {date.today():%Y-%m-%d}."
    )


def _write(options: argparse.Namespace, costs: list[Cost], conditions: str) -> None:
    """Write table, figure and data, and print the table or the data."""
    result = {"conditions": conditions, "rows": [cost._asdict() for cost in costs]}
    (options.out / "imagination.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    table = "\n".join(_table(costs)) + f"\n\n{conditions}\n"
    (options.out / "imagination.md").write_text(table, encoding="utf-8")
    figure = _figure(costs)
    figure.savefig(options.out / "imagination.png", dpi=110)
    if options.docs is not None:
        before, _, rest = _read(options.docs).partition(MARKERS[0])
        after = rest.partition(MARKERS[1])[2]
        options.docs.write_text(f"{before}{MARKERS[0]}\n{table}\n{MARKERS[1]}{after}", encoding="utf-8")
        folder = options.docs.parent / options.docs.stem
        folder.mkdir(exist_ok=True)
        figure.savefig(folder / "imagination.png", dpi=110)
    print(json.dumps(result) if options.json else f"{table}\nfiles  {options.out}")  # noqa: T201


def _table(costs: list[Cost]) -> Iterator[str]:
    """Yield the lines of a table: time over the limit, and memory over the limit in brackets."""
    horizons = sorted({cost.horizon for cost in costs})
    yield "| family | method | " + " | ".join(f"H = {horizon}" for horizon in horizons) + " |"
    yield "|---|---|" + "---|" * len(horizons)
    found: dict[tuple[str, str], dict[int, Cost]] = {}
    for cost in costs:
        found.setdefault((cost.family, cost.method), {})[cost.horizon] = cost
    for (family, method), row in sorted(found.items(), key=lambda item: list(FAMILIES).index(item[0][0])):
        cells = [f"{row[h].time_ratio:.2f} ({row[h].memory_ratio:.2f})" if h in row else "" for h in horizons]
        yield f"| {family} | {method} | " + " | ".join(cells) + " |"


def _figure(costs: list[Cost]) -> Figure:
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels: Any = figure.subplots(1, 2, sharex=True)
    for index, (family, method) in enumerate(dict.fromkeys((cost.family, cost.method) for cost in costs)):
        row = [cost for cost in costs if (cost.family, cost.method) == (family, method)]
        style = {"color": f"C{list(FAMILIES).index(family)}", "marker": "osv^Dx*P"[index % 8], "markersize": 4}
        for axes, values in zip(
            panels, ([cost.time_ratio for cost in row], [cost.memory_ratio for cost in row]), strict=True
        ):
            axes.plot([cost.horizon for cost in row], values, label=f"{family} {method}", **style)
    for axes, what in zip(panels, ("time", "peak memory"), strict=True):
        axes.axhline(1, color="grey", linestyle=":")
        axes.set(xlabel="horizon H", ylabel=f"{what} over the limit", xscale="log", yscale="log")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize="x-small")
    return figure
