"""Ctrl-C and its kin, turned into one exception at a moment when nothing is half started."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Asked(BaseException):
    """Somebody asked us to stop; ``status`` is the exit status that says so."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


class Stopping:
    """Raises ``Asked`` once, for the first signal; inside ``held`` only at its end, after ``over`` never."""

    def __init__(self) -> None:
        self._asked: int | None = None
        self._held = 0
        self._before: dict[int, Any] = {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """A part is being started: it is either known to its owner or not there when ``Asked`` is raised."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self._asked is not None and not self._held:
                raise Asked(self._asked)

    def over(self) -> None:
        """From now on everything ends anyway: a signal changes nothing."""
        self._held += 1

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._asked is None:
            self._asked = number
            if not self._held:
                raise Asked(number)

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
