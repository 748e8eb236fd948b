"""``lit-awm gradients``: measure policy gradients through every family of world models."""

from __future__ import annotations

import json
from pathlib import Path

from lit_awm.analysis import compare_gradients
from lit_awm.analysis.figures import gradient_figure
from lit_awm.commands.subjects import make_parser, parse_families, parse_horizons, prepare


def main(arguments: list[str]) -> int:
    """Measure policy gradients through every family of world models, fresh and fitted, and through the simulator."""
    parser = make_parser("gradients", main.__doc__)
    parser.add_argument("--horizons", default="5,10,20,50,100", help="steps to imagine (default: 5,10,20,50,100)")
    options, recipe = parser.parse_known_args(arguments)
    options.families = parse_families(parser, options)
    horizons = parse_horizons(parser, options.horizons)
    try:
        env, subjects, setting = prepare(options, recipe, horizons)
    except ValueError as error:
        parser.error(str(error))
    report = compare_gradients(subjects, setting, horizons, progress=not options.json)
    folder = Path("runs", env.name) if options.out is None else options.out
    folder.mkdir(parents=True, exist_ok=True)
    result = {"env": env.name, "states": options.states, **report.as_dict()}
    (folder / "gradients.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    gradient_figure(report, f"{env.name}: gradients through world models").savefig(folder / "gradients.png", dpi=110)
    if options.json:
        print(json.dumps(result))  # noqa: T201
    else:
        files = "\n".join(f"{what:<8}{folder / name}" for what, name in FILES.items())
        print(f"\n{report.table()}\n\n{files}")  # noqa: T201
    return 0


FILES = {"figure": "gradients.png", "data": "gradients.json"}
