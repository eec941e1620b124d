"""Database time in a worker: leases and due times must not depend on a host's wall clock."""

import asyncio
import time
from collections import deque
from datetime import UTC, datetime, timedelta


class Clock:
    """The database's clock, carried forward by the monotonic clock between answers.

    An answer is older than the moment it is read, so each observation is a lower bound; the best of the recent ones
    is used. ``now`` therefore runs behind the database by at most a round trip, and nothing is ever due early.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._observed: deque[tuple[float, float]] = deque(maxlen=64)
        self._offset = time.time() - time.monotonic()  # until the first answer

    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the work runs on."""
        return self._loop or asyncio.get_running_loop()

    def observe(self, database_now: datetime | None) -> None:
        """Learn from an instant that the database told just now. Callable from any thread."""
        if database_now is None:
            return
        monotonic = time.monotonic()
        self._observed.append((monotonic, database_now.timestamp() - monotonic))
        recent = [offset for seen, offset in tuple(self._observed) if seen > monotonic - 60]
        self._offset = max(recent)

    def now(self) -> datetime:
        """Database time, aware, UTC."""
        return datetime.fromtimestamp(time.monotonic() + self._offset, UTC)

    def after(self, seconds: float) -> datetime:
        """Database time ``seconds`` from now."""
        return self.now() + timedelta(seconds=seconds)

    def skew_s(self) -> float:
        """Seconds by which this host's wall clock is ahead of the database's."""
        return time.time() - (time.monotonic() + self._offset)
