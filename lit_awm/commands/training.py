"""``lit-awm fit`` and ``lit-awm validate``: Lightning's command line over our recipes."""

from __future__ import annotations

import sys

from lit_awm.recipes import make_cli


def main(arguments: list[str]) -> int:
    """Run ``fit`` or ``validate``."""
    sys.argv[1:] = arguments  # which is what LightningCLI parses
    make_cli(None, run=True)
    return 0
