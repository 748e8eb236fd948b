"""``lit-awm landscape``: draw the return around a policy."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tqdm import tqdm

from lit_awm.analysis import Subject, draw_landscape, random_direction
from lit_awm.analysis.figures import landscape_figure
from lit_awm.commands.subjects import make_parser, parse_families, prepare


def main(arguments: list[str]) -> int:
    """Draw the return along two random directions around a policy, and along the gradient, in every family."""
    parser = make_parser("landscape", main.__doc__)
    parser.add_argument("--horizon", type=int, default=100, help="steps to imagine (default: 100)")
    parser.add_argument("--resolution", type=int, default=21, help="points in each direction, odd (default: 21)")
    options, recipe = parser.parse_known_args(arguments)
    options.families = parse_families(parser, options)
    if options.horizon < 1:
        parser.error(f"horizon must be at least 1, got {options.horizon}.")
    if options.resolution < 3 or options.resolution % 2 == 0:
        parser.error(f"resolution must be odd and at least 3, got {options.resolution}.")
    try:
        env, subjects, setting = prepare(options, recipe, [options.horizon])
        generator = torch.Generator().manual_seed(0)
        directions = random_direction(setting.policy, generator), random_direction(setting.policy, generator)
        subjects = [subject for subject in subjects if subject.is_fitted]
        if setting.truth is not None:
            subjects = [Subject("simulator", True, setting.truth), *subjects]
        landscapes = {
            subject.label: draw_landscape(
                subject.world_model,
                setting.policy,
                setting.initial_state,
                options.horizon,
                directions,
                options.resolution,
                None if setting.reward_fns is None else setting.reward_fns[options.horizon],
                setting.policy_input_gradient,
            )
            for subject in tqdm(subjects, disable=options.json, leave=False)
        }
    except ValueError as error:
        parser.error(str(error))
    folder = Path("runs", env.name) if options.out is None else options.out
    folder.mkdir(parents=True, exist_ok=True)
    figure = landscape_figure(landscapes, f"{env.name}: return around the policy, {options.horizon} steps")
    figure.savefig(folder / "landscape.png", dpi=110)
    rows = {
        label: {name: value if value is None else value.tolist() for name, value in each._asdict().items()}
        for label, each in landscapes.items()
    }
    result = {"env": env.name, "horizon": options.horizon, "landscapes": rows}
    (folder / "landscape.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(result))  # noqa: T201
    else:
        print(f"figure  {folder / 'landscape.png'}\ndata    {folder / 'landscape.json'}")  # noqa: T201
    return 0
