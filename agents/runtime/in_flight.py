"""Tracks the event that each task has in flight and its last heartbeat, for the watchdog and for log lines.

Costs one assignment per event while nobody asks.
"""

from contextvars import ContextVar
from time import monotonic
from typing import Any, Protocol


class Queue(Protocol):
    """Something that events wait in. ``moved_at`` is the monotonic instant at which it last released one."""

    moved_at: float


class InFlight:
    """One event from its arrival to its acknowledgement."""

    __slots__ = ("alive_at", "attempt", "done", "event", "integration", "waits_for")

    def __init__(self, event: Any) -> None:
        self.event = event
        self.done = False
        self.alive_at = monotonic()
        self.waits_for: Queue | InFlight | None = None
        self.attempt: int | None = None
        self.integration: str | None = None

    def touch(self) -> None:
        """Record a heartbeat. Waiting for an unavailable dependency also counts as progress."""
        self.alive_at = monotonic()
        self.waits_for = None

    @property
    def heartbeat_at(self) -> float:
        """Its last heartbeat; while it waits, that of the queue or of the event before it."""
        at, waits_for = self.alive_at, self.waits_for
        while isinstance(waits_for, InFlight):
            at, waits_for = max(at, waits_for.alive_at), waits_for.waits_for
        return at if waits_for is None else max(at, waits_for.moved_at)


_current: ContextVar[InFlight | None] = ContextVar("event_in_flight", default=None)

current = _current.get
begin = _current.set


def touch() -> None:
    """Record a heartbeat for the event of this task."""
    if (event_in_flight := _current.get()) is not None:
        event_in_flight.touch()


def bind_attempt(attempt: int, integration_id: str) -> None:
    """Add the attempt and its integration to the log lines of this task."""
    if (event_in_flight := _current.get()) is not None:
        event_in_flight.attempt, event_in_flight.integration = attempt, integration_id


def log_context() -> dict[str, object]:
    """The fields of the event in flight for a log line; computed only when a line is written."""
    event_in_flight = _current.get()
    if event_in_flight is None:
        return {}
    key = getattr(event_in_flight.event.message, "key", None)
    known = {
        "order": key.decode("utf-8", "replace")[:64] if isinstance(key, bytes) else None,
        "attempt": event_in_flight.attempt,
        "integration": event_in_flight.integration,
    }
    return {name: value for name, value in known.items() if value is not None}
