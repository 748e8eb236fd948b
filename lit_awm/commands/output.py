"""What commands print."""

from __future__ import annotations

import json
from typing import Any


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """Print one JSON object, or a line for each entry."""
    if as_json:
        print(json.dumps(result))  # noqa: T201
        return
    for name, value in result.items():
        shown = "-" if value is None else f"{value:.3%}" if name in ("regret", "gap") else value
        print(f"{name:<18}{shown}")  # noqa: T201
