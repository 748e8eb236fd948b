"""Checks of arguments, with errors that name the argument, the rule and the value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def check_at_least(minimum: float, **arguments: float) -> None:
    """Reject arguments below a minimum.

    Raises:
        ValueError: If a value is below ``minimum``; the message names the argument.
    """
    for name, value in arguments.items():
        if not value >= minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value}.")


def check_positive(**arguments: float) -> None:
    """Reject arguments that are not above zero.

    Raises:
        ValueError: If a value is zero, negative or not a number; the message names the argument.
    """
    for name, value in arguments.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}.")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question, with a space before it, that offers the known name nearest to ``name``; empty if none is."""
    known = list(known)
    near = [k for k in known if name and k.startswith(name)] or difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    return f" Did you mean {near[0]!r}?" if near else ""
