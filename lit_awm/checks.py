"""Checks of arguments, with errors that name the argument, the rule and the value."""

from __future__ import annotations


def check_at_least(minimum: float, **arguments: float) -> None:
    """Reject arguments below a minimum.

    Raises:
        ValueError: If a value is below ``minimum``; the message names the argument.
    """
    for name, value in arguments.items():
        if value < minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value}.")
