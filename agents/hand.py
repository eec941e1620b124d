"""The event that a task has in hand, and when it last showed that it gets on: what a watchdog and a log line ask for.

Costs one assignment per event while nobody asks.
"""

from contextvars import ContextVar
from time import monotonic
from typing import Any, Protocol


class Moving(Protocol):
    """Something that events queue for. ``moved_at`` is the monotonic instant at which it last let one through."""

    moved_at: float


class Hand:
    """One event from its arrival to its acknowledgement."""

    __slots__ = ("alive_at", "done", "event", "waits_for")

    def __init__(self, event: Any) -> None:
        self.event = event
        self.done = False
        self.alive_at = monotonic()
        self.waits_for: Moving | None = None

    def lives(self) -> None:
        """It got on just now, or knows that it cannot: holding is not hanging."""
        self.alive_at = monotonic()
        self.waits_for = None

    @property
    def seen_at(self) -> float:
        """Its last sign of life; while it queues, that of the queue."""
        waits_for = self.waits_for
        return self.alive_at if waits_for is None else max(self.alive_at, waits_for.moved_at)


_current: ContextVar[Hand | None] = ContextVar("hand", default=None)

current = _current.get
take = _current.set


def alive() -> None:
    """Whatever this task has in hand gets on."""
    if (hand := _current.get()) is not None:
        hand.lives()
