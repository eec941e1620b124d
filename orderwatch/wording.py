"""Instants, lengths of time and counts, as people read them."""

from datetime import UTC, datetime


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def instant(at: datetime) -> str:
    """UTC to the second, as people read it."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def distance(at: datetime, now: datetime) -> str:
    """``in 25 s`` or ``3 min ago``."""
    seconds = (at - now).total_seconds()
    return f"in {duration(seconds)}" if seconds > 0 else f"{duration(-seconds)} ago"


def duration(seconds: float) -> str:
    """A length of time in its largest sensible unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
