"""Instants, lengths of time and counts, as people read them."""

from collections.abc import Callable
from datetime import UTC, datetime

#: Says an English pattern with its ``{names}`` filled, in the language of whoever made it.
Say = Callable[..., str]


#: Lengths of time by their unit, in seconds, the longest first.
UNITS = (("{n} d", 86400), ("{n} h", 3600), ("{n} min", 60))


def english(pattern: str, **values: object) -> str:
    """The pattern itself, filled."""
    return pattern.format(**values)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def instant(at: datetime) -> str:
    """UTC to the second, as people read it."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def distance(at: datetime, now: datetime) -> str:
    """``in 25 s`` or ``3 min ago``."""
    seconds = (at - now).total_seconds()
    return f"in {duration(seconds)}" if seconds > 0 else f"{duration(-seconds)} ago"


def duration(seconds: float, say: Say = english) -> str:
    """A length of time in its largest sensible unit."""
    for pattern, size in UNITS:
        if seconds >= 2 * size:
            return say(pattern, n=f"{seconds / size:.0f}")
    return say("{n} s", n=f"{seconds:.0f}")
