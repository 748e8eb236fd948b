"""What commands print."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lit_awm.checks import check_writable

SHARES = ("regret", "gap", "target_error")


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """Print one JSON object, or a line for each entry."""
    if as_json:
        print(json.dumps(result))  # noqa: T201
        return
    for name, value in result.items():
        shown = "-" if value is None else f"{value:.3%}" if name in SHARES else value
        print(f"{name:<18}{shown}")  # noqa: T201


def folder_to_write(text: str) -> Path:
    """Return the folder that an option names; one that cannot be written to is an error of usage, before all work."""
    try:
        check_writable(Path(text), "out")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)
