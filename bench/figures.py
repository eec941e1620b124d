"""Percentiles, medians and the pairing of checks with their due times. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution in one line; everything in the unit of what was given."""

    count: int
    p50: float
    p99: float
    most: float
    least: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` (0 to 1) of the ascending ``ordered`` do not exceed; 0 for none."""
    if not ordered:
        return 0.0
    rank = -(-share * len(ordered) // 1)  # ceiling
    return ordered[min(max(int(rank), 1), len(ordered)) - 1]


def spread(values: Iterable[float]) -> Spread:
    """Nearest-rank percentiles, maximum and minimum."""
    ordered = sorted(values)
    if not ordered:
        return Spread(0, 0.0, 0.0, 0.0, 0.0)
    return Spread(len(ordered), percentile(ordered, 0.5), percentile(ordered, 0.99), ordered[-1], ordered[0])


def quantiles(values: Iterable[float], steps: int = 200) -> list[float]:
    """The distribution in ``steps`` + 1 values from the least to the most, for a plot; empty for none."""
    ordered = sorted(values)
    return [ordered[round(step * (len(ordered) - 1) / steps)] for step in range(steps + 1)] if ordered else []


@dataclass(frozen=True, slots=True)
class Repeated:
    """One figure over several runs."""

    median: float
    low: float
    high: float

    @property
    def swing(self) -> float:
        """How far the runs lie apart, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def repeated(values: Sequence[float]) -> Repeated:
    """Median with the lowest and the highest run; machines are noisy. Raises ``ValueError`` for none."""
    if not values:
        raise ValueError("no run to take the median of")
    return Repeated(float(median(values)), min(values), max(values))


def lateness(due: Sequence[float], asked: Sequence[float]) -> list[float]:
    """For each question about one order, how much later than due it was asked; negative is early.

    ``due`` are the instants the schedule named, one per scheduled check, ``asked`` those of the requests that arrived.
    A check that was put off is due when it was due at first, so a question answers for every due time that had
    passed. One that came before any was due is early against the next one.
    """
    waiting = sorted(due)
    found: list[float] = []
    for at in sorted(asked):
        if not waiting:
            break
        found.append(at - waiting[0])
        passed = sum(instant <= at for instant in waiting)
        del waiting[: max(passed, 1)]
    return found
