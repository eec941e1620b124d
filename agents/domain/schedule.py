"""When to ask again. Pure: no clock, no I/O. ``tiers`` are seconds, ascending."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from streams.config.loader import tier_name
from streams.topics import CHECK


@dataclass(frozen=True, slots=True)
class Schedule:
    """The delays of one integration, in seconds. Every delay that is used is one of ``tiers``."""

    first_after_s: float
    backoff_steps_s: tuple[float, ...]
    requeue_s: float
    watch_every_s: float
    watch_for_s: float
    tiers: Sequence[float]

    def backoff_s(self, asked: int) -> float:
        """Delay in seconds after ``asked`` questions without a final answer; the last step repeats for ever."""
        return self.backoff_steps_s[min(max(asked, 1), len(self.backoff_steps_s)) - 1]

    def retry_after_s(self, wish_s: float | None, otherwise_s: float) -> float:
        """The provider's wish rounded up to a tier, never below ``otherwise_s``."""
        return otherwise_s if wish_s is None else max(otherwise_s, tier_for(self.tiers, wish_s))


def tier_within(tiers: Sequence[float], seconds: float) -> float:
    """The longest tier that is not longer than ``seconds``; the shortest one when none is."""
    return tiers[max(bisect_right(tiers, seconds + 0.001) - 1, 0)]


def topic_for(tiers: Sequence[float], seconds: float) -> str:
    """Logical topic of a check due in ``seconds``: ``orders.check``, or the shortest tier that is long enough."""
    return CHECK if seconds <= 0 else tier_name(tier_for(tiers, seconds))


def tier_for(tiers: Sequence[float], seconds: float) -> float:
    """The shortest tier that is not shorter than ``seconds``; the longest one when none is."""
    return tiers[min(bisect_left(tiers, seconds - 0.001), len(tiers) - 1)]
