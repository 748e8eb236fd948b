"""Checks of arguments, with errors that name the argument, the rule and the value."""

from __future__ import annotations

import difflib
import math
import numbers
import tempfile
from collections.abc import Iterable
from pathlib import Path


def check_number(**arguments: float) -> None:
    """Reject arguments that are no numbers.

    Raises:
        ValueError: If a value is of another type, or NaN; the message names the argument.
    """
    for name, value in arguments.items():
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or math.isnan(value):
            raise ValueError(f"{name} must be a number, got {value!r}.")


def check_finite(**arguments: float) -> None:
    """Reject arguments that are no finite numbers.

    Raises:
        ValueError: If a value is no number, or not finite; the message names the argument.
    """
    check_number(**arguments)
    for name, value in arguments.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}.")


def check_at_least(minimum: float, **arguments: float) -> None:
    """Reject arguments below a minimum, and those that are not finite.

    Raises:
        ValueError: If a value is no number, below ``minimum`` or not finite; the message names the argument.
    """
    check_number(**arguments)
    for name, value in arguments.items():
        if not minimum <= value < math.inf:
            raise ValueError(f"{name} must be at least {minimum}{_and_finite(value)}, got {value}.")


def check_positive(**arguments: float) -> None:
    """Reject arguments that are not above zero, and those that are not finite.

    Raises:
        ValueError: If a value is no number, zero, negative or not finite; the message names the argument.
    """
    check_number(**arguments)
    for name, value in arguments.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive{_and_finite(value)}, got {value}.")


def check_share(**arguments: float) -> None:
    """Reject arguments that are not above 0 and at most 1.

    Raises:
        ValueError: If a value is no number or out of its range; the message names the argument.
    """
    check_number(**arguments)
    for name, value in arguments.items():
        if not 0 < value <= 1:
            raise ValueError(f"{name} must be above 0 and at most 1, got {value}.")


def check_count(minimum: int = 1, **arguments: int) -> None:
    """Reject arguments that are not whole numbers from a minimum on.

    Raises:
        ValueError: If a value is below ``minimum`` or has a fraction; the message names the argument.
    """
    check_at_least(minimum, **arguments)
    for name, value in arguments.items():
        if not isinstance(value, int):
            raise ValueError(f"{name} must be a whole number, got {value}.")


def check_horizon(horizon: int, longest: int | None, owner: str, remedy: str) -> None:
    """Reject a horizon below 1 or beyond what there are positions for.

    Args:
        horizon: The horizon.
        longest: The ``max_horizon`` of its owner; None if there is no limit.
        owner: Who has the limit, as "the model".
        remedy: The way out.

    Raises:
        ValueError: If the horizon is out of its range.
    """
    check_count(1, horizon=horizon)
    if longest is not None and horizon > longest:
        raise ValueError(f"horizon must be between 1 and {owner}'s max_horizon {longest}, got {horizon}. {remedy}")


def check_writable(folder: Path, name: str) -> None:
    """Reject a folder in which nothing can be written, or made.

    Raises:
        ValueError: If it, or the folder that it is to be made in, is a file or must not be written to.
    """
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    reason = "" if existing.is_dir() else "is a file"
    if not reason:
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            reason = f"may not be written to ({error.strerror})"
    if reason:
        raise ValueError(f"{name} must be a folder that can be written to, got {str(folder)!r}: {existing} {reason}.")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question, with a space before it, that offers the known name nearest to ``name``; empty if none is."""
    known = [each for each in known if each != name]  # which is right by itself, and wrong where it stands
    near = [k for k in known if len(name) > 2 and k.startswith(name)]
    near = near or difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _and_finite(value: float) -> str:
    return "" if math.isfinite(value) else " and finite"
