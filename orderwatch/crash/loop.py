"""An event loop whose time is counted, not waited for: a day of waiting costs what happens in it."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class _Timeless(selectors.SelectSelector):
    """Where a loop would sleep, the loop's time moves on; nothing here ever comes from a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.sleep: Callable[[float | None], None] = lambda seconds: None

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout > 0:
            self.sleep(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """``run_to`` runs until nothing is left to do before an instant of the loop's own time, which starts at 0."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._limit = 0.0
        selector = _Timeless()
        super().__init__(selector)
        selector.sleep = self._move_on

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._seconds

    def run_to(self, limit_s: float) -> None:
        """Run everything that becomes due before ``limit_s``; the time is then that of the last thing that happened."""
        self._limit = limit_s
        self.run_forever()

    def skip_to(self, seconds: float) -> None:
        """Let time pass in which nothing is due."""
        self._seconds = max(self._seconds, seconds)

    def _move_on(self, timeout: float | None) -> None:
        if timeout is None or self._seconds + timeout > self._limit:
            self.stop()
        else:
            self._seconds += timeout
