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

    __slots__ = ("alive_at", "attempt", "done", "event", "integration", "waits_for")

    def __init__(self, event: Any) -> None:
        self.event = event
        self.done = False
        self.alive_at = monotonic()
        self.waits_for: Moving | Hand | None = None
        self.attempt: int | None = None
        self.integration: str | None = None

    def lives(self) -> None:
        """It got on just now, or knows that it cannot: holding is not hanging."""
        self.alive_at = monotonic()
        self.waits_for = None

    @property
    def seen_at(self) -> float:
        """Its last sign of life; while it queues, that of the queue, or of the event before it."""
        at, waits_for = self.alive_at, self.waits_for
        while isinstance(waits_for, Hand):
            at, waits_for = max(at, waits_for.alive_at), waits_for.waits_for
        return at if waits_for is None else max(at, waits_for.moved_at)


_current: ContextVar[Hand | None] = ContextVar("hand", default=None)

current = _current.get
take = _current.set


def alive() -> None:
    """Whatever this task has in hand gets on."""
    if (hand := _current.get()) is not None:
        hand.lives()


def about(attempt: int, integration_id: str) -> None:
    """From here on it is about this attempt: for the log lines of whoever works on it."""
    if (hand := _current.get()) is not None:
        hand.attempt, hand.integration = attempt, integration_id


def described() -> dict[str, object]:
    """What a log line says of the event in hand: asked for when a line is written, not per event."""
    hand = _current.get()
    if hand is None:
        return {}
    key = getattr(hand.event.message, "key", None)
    known = {
        "order": key.decode("utf-8", "replace")[:64] if isinstance(key, bytes) else None,
        "attempt": hand.attempt,
        "integration": hand.integration,
    }
    return {name: value for name, value in known.items() if value is not None}
