"""A circuit breaker on a monotonic clock: closed lets calls pass, open refuses them until ``reset_after_s`` is over."""

from collections.abc import Callable
from time import monotonic

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half-open"


class CircuitBreaker:
    """``fail_max`` failures in a row open it. Half-open: one success closes it, one failure opens it again."""

    def __init__(self, fail_max: int, reset_after_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._fail_max = fail_max
        self._reset_after_s = reset_after_s
        self._clock = clock
        self._failures = 0
        self._opened_at = 0.0
        self.state = CLOSED

    def success(self) -> None:
        """A call went well. Says nothing while the breaker is open: that call began before."""
        self._failures = 0
        if self.state == HALF_OPEN:
            self.state = CLOSED

    def failure(self) -> None:
        """A call failed."""
        self._failures += 1
        if self.state == HALF_OPEN or (self.state == CLOSED and self._failures >= self._fail_max):
            self.open()

    def open(self) -> None:
        """Refuse calls from now on."""
        self.state = OPEN
        self._opened_at = self._clock()

    def half_open(self) -> None:
        """Let calls find out."""
        self.state = HALF_OPEN

    def close(self) -> None:
        """Let calls pass."""
        self._failures = 0
        self.state = CLOSED

    def reopens_in_s(self) -> float:
        """Seconds until an open breaker may be tried; 0 when it may be, or is not open."""
        if self.state != OPEN:
            return 0.0
        return max(self._opened_at + self._reset_after_s - self._clock(), 0.0)
