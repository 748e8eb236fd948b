"""``lit-awm fit`` and ``lit-awm validate``: Lightning's command line over our recipes."""

from __future__ import annotations

import sys

from lit_awm.cli import COMMON
from lit_awm.commands.training_help import print_help, wants_help
from lit_awm.recipes import make_cli


def main(arguments: list[str]) -> int:
    """Run ``fit`` or ``validate``."""
    if wants_help(arguments):
        print_help(arguments)
        return 0
    if not any(word.startswith(("--config", "-c", "--model", "--help_all")) for word in arguments):
        hint = f"`--config {COMMON}` has the settings that all recipes share; `lit-awm --help` lists them."
        print(f"lit-awm {arguments[0]}: error: a recipe must be given, got none. {hint}", file=sys.stderr)  # noqa: T201
        return 2
    arguments = ["--help" if word == "--help_all" else word for word in arguments]
    sys.argv[1:] = arguments  # which is what LightningCLI parses
    make_cli(None, run=True)
    return 0
