"""Liveness by progress: a partition with a backlog that does not get on makes the worker unhealthy, then restart.

Looks on from a thread of its own, so that it also sees an event loop that stands still. Holding is not hanging: while
the database or the broker does not answer nothing counts, and neither does the wait for a lane that lets others pass.
"""

import asyncio
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import structlog

from streams import metrics
from streams.errors import BrokerUnavailable, StoreUnavailable

log = structlog.get_logger(__name__)

#: sysexits' EX_TEMPFAIL: start me again.
STALLED = 75
#: The database has so long to say anything.
ANSWER_S = 5.0
_LOOKS = 6
#: Partitions may be on the move this many times longer than one may stand still.
_MOVING = 5
_LEAST_PAUSE_S, _MOST_PAUSE_S = 0.2, 15.0
#: Of a stop in order, beyond the drain; then the process ends as it is.
_STOPPING_S = 10.0
_DUMPED = 200
#: One step of an order makes at most so many calls, one after the other: a look-up at znet reads the balance around it.
_CALLS_IN_A_ROW = 3

Place = tuple[str, int]
#: (topic, partition) -> (committed offset or None, end offset).
Lags = Mapping[Place, tuple[int | None, int]]


def stall_timeout_s(stall_after_s: float, calls_s: Iterable[float]) -> float:
    """How long an event may show no sign of life: longer than a step with the longest of these calls. 0: for ever."""
    return stall_after_s and max(stall_after_s, 1.5 * _CALLS_IN_A_ROW * max(calls_s, default=0.0))


class Stalled(Exception):
    """This worker makes no progress and ends itself."""


@dataclass
class LivenessProbes:
    """What the watchdog asks. ``lags`` and ``database`` block, and raise the two errors of a server that is away.

    ``signs`` has each partition that this worker reads now, with the last sign of life of its oldest event in hand, or
    of its agent when it has none; None while partitions move. ``beat_at`` is when the event loop last ran, ``due_at``
    the last sign of life of due checks. ``next_record`` is the offset of the first record at or after an offset, None
    where there is none: markers of transactions and compacted records take up offsets too. ``owned`` has the partitions
    that any live worker reads. Both block, too.
    """

    lags: Callable[[], Lags]
    database: Callable[[], object]
    signs: Callable[[], Mapping[Place, float] | None]
    beat_at: Callable[[], float]
    delay_queue_at: Callable[[], float] = monotonic
    next_record: Callable[[Place, int], int | None] = lambda place, offset: offset
    due_at: Callable[[], float] = monotonic
    owned: Callable[[], Collection[Place]] = tuple


@dataclass
class StallDetector:
    """Judges; ``look`` is one look, and ``stuck`` what it found, in words."""

    sight: LivenessProbes
    stall_timeout_s: Callable[[], float]
    stuck: list[str] = field(default_factory=list)
    _moved: dict[Place, tuple[int, float]] = field(default_factory=dict)
    #: Of a partition that stands still: (committed, end) when it was looked into, and how much is left of it.
    _looked: dict[Place, tuple[tuple[int | None, int], int]] = field(default_factory=dict)
    _unowned_since: float | None = None
    _since: float = field(default_factory=monotonic)
    _moving_since: float | None = None

    @property
    def stall_after_s(self) -> float:
        """Seconds without progress; 0: nobody looks."""
        return self.stall_timeout_s()

    def look(self) -> list[str]:
        now = monotonic()
        try:
            self.sight.database()
            lags = self.sight.lags()
            signs = self.sight.signs()
            if signs is None:
                self._since, self.stuck = now, list(self._moving(now)) if self.stall_after_s else []
            else:
                self._moving_since = None
                self._look_into(lags, signs)
                self._show(lags, signs)
                unowned = self._unowned(lags, signs, now)
                self.stuck = (
                    [*self._still(lags, signs, now), *unowned, *self._silent(now)] if self.stall_after_s else []
                )
        except (StoreUnavailable, BrokerUnavailable, TimeoutError):
            self._since, self.stuck = monotonic(), []
            self._moving_since = self._unowned_since = None
        metrics.gauge("orderwatch_stuck", len(self.stuck))
        return self.stuck

    def _moving(self, now: float) -> Iterator[str]:
        """A rebalance, or the recovery of the table, that does not end; a big table takes its time."""
        if self._moving_since is None:
            self._moving_since = now
        moving_s = now - self._moving_since
        if moving_s > _MOVING * self.stall_after_s:
            yield f"partitions have been on the move for {moving_s:.0f} s"

    def _still(self, lags: Lags, signs: Mapping[Place, float], now: float) -> Iterator[str]:
        """Partitions with a backlog and without progress."""
        for place in [place for place in self._moved if place not in signs]:
            del self._moved[place]
        for place, heartbeat_at in sorted(signs.items()):
            committed, _ = lags.get(place, (None, 0))
            at = -1 if committed is None else committed
            known = self._moved.get(place)
            if known is None or known[0] != at:
                known = self._moved[place] = (at, now)
            quiet_s = now - max(known[1], heartbeat_at, self._since)
            left = self._left(place, lags)
            if left and quiet_s > self.stall_after_s:
                yield f"{place[0]} [{place[1]}] has {left} events and no progress for {quiet_s:.0f} s"

    def _look_into(self, lags: Lags, signs: Mapping[Place, float]) -> None:
        """Where a partition with a backlog did not get on since the last look: how much is left of it to be read. A
        topic that forgot its records, aborted transactions and markers leave offsets, and nothing to read."""
        for place in signs:
            committed, end = lag = lags.get(place, (None, 0))
            known = self._looked.get(place)
            if known is not None and known[0] == lag:
                continue
            still = place in self._moved and self._moved[place][0] == (-1 if committed is None else committed)
            if end > (committed or 0) and still:
                first = self.sight.next_record(place, committed or 0)
                self._looked[place] = (lag, 0 if first is None else max(end - first, 0))
            else:
                self._looked.pop(place, None)

    def _left(self, place: Place, lags: Lags) -> int:
        """Records to be read, as far as is known."""
        committed, end = lag = lags.get(place, (None, 0))
        known = self._looked.get(place)
        return known[1] if known is not None and known[0] == lag else max(end - (committed or 0), 0)

    def _unowned(self, lags: Lags, signs: Mapping[Place, float], now: float) -> list[str]:
        """Partitions that no live worker reads; a worker that has none itself is what they wait for."""
        unowned = lags.keys() - signs.keys() - set(self.sight.owned())
        if not unowned:
            self._unowned_since = None
        elif self._unowned_since is None:
            self._unowned_since = now
        quiet_s = 0.0 if self._unowned_since is None else now - max(self._unowned_since, self._since)
        metrics.gauge("orderwatch_unowned_partitions", len(unowned))
        if signs or quiet_s <= self.stall_after_s:
            return []
        return [f"this worker has no partition, and {len(unowned)} have no worker for {quiet_s:.0f} s"]

    def _silent(self, now: float) -> Iterator[str]:
        sight = self.sight
        for what, at in (
            ("the event loop", sight.beat_at()),
            ("the delay line", sight.delay_queue_at()),
            ("what is due in the tiers", sight.due_at()),
        ):
            quiet_s = now - max(at, self._since)
            if quiet_s > self.stall_after_s:
                yield f"{what} has not moved for {quiet_s:.0f} s"

    def _show(self, lags: Lags, signs: Mapping[Place, float]) -> None:
        behind: Counter[str] = Counter()
        for place in signs:
            behind[place[0]] += self._left(place, lags)
        metrics.gauges("orderwatch_consumer_lag", {(topic,): count for topic, count in behind.items()})
        beyond = sum((committed or 0) > end for committed, end in lags.values())
        metrics.gauge("orderwatch_committed_beyond_end", beyond)


def within(seconds: float, call: Callable[[], object]) -> object:
    """What ``call`` returns; ``TimeoutError`` when it takes longer, and it is left behind. A connection that nobody
    answers can block for ever."""
    done: Future[object] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 - handed over to whoever waits
            done.set_exception(error)

    threading.Thread(target=run, name="watchdog-asks", daemon=True).start()
    return done.result(seconds)


class Watchdog:
    """Looks all the time. What is still stuck a while later is told with every task, and ends the process.

    ``stop`` is called from the thread and asks for a stop in order, which has ``drain_s`` and some; ``stopped`` says
    that it happened.
    """

    def __init__(
        self,
        progress: StallDetector,
        loop: asyncio.AbstractEventLoop,
        stop: Callable[[Exception], None],
        drain_s: float,
    ) -> None:
        self.progress = progress
        self._loop = loop
        self._stop = stop
        self._drain_s = drain_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stopped(self) -> None:
        """The worker has stopped, by whatever reason."""
        self._over.set()

    def _run(self) -> None:
        stall_s = self.progress.stall_after_s
        pause_s = min(max(stall_s / _LOOKS, _LEAST_PAUSE_S), _MOST_PAUSE_S) if stall_s else _MOST_PAUSE_S
        since: float | None = None
        while not self._over.wait(pause_s):
            try:
                stuck = self.progress.look()
            except Exception as error:  # noqa: BLE001 - the watchdog must not die of what it sees
                log.warning("watchdog could not look", error=type(error).__name__)
                continue
            if not stuck:
                since = None
            elif since is None:
                since = monotonic()
                log.error("no progress", stuck=stuck)
            elif monotonic() - since > stall_s / 4:
                self._end(stuck)

    def _end(self, stuck: list[str]) -> None:
        for count, stack in tasks(self._loop):
            log.error("task", count=count, stack=stack)
        for name, stack in threads():
            log.error("thread", thread=name, stack=stack)
        log.error("worker restarts", stuck=stuck, status=STALLED)
        self._stop(Stalled("; ".join(stuck)))
        self._over.wait(self._drain_s + _STOPPING_S)
        sys.stderr.flush()
        os._exit(STALLED)


def tasks(loop: asyncio.AbstractEventLoop) -> list[tuple[int, list[str]]]:
    """Where every task of the loop waits: (how many, file:line function ...), no values. Callable from any thread."""
    for _ in range(10):
        try:
            found = Counter(tuple(_waits(task)) for task in asyncio.all_tasks(loop))
            return [(count, list(stack)) for stack, count in found.most_common(_DUMPED)]
        except RuntimeError:  # the set of tasks changed while we looked
            continue
    return []


def _waits(task: "asyncio.Task[Any]") -> Iterator[str]:
    """From the task's own coroutine down to what it awaits."""
    at: Any = task.get_coro()
    for _ in range(50):
        frame = getattr(at, "cr_frame", None) or getattr(at, "gi_frame", None) or getattr(at, "ag_frame", None)
        if frame is None:
            return
        yield _place(frame)
        at = getattr(at, "cr_await", None) or getattr(at, "gi_yieldfrom", None) or getattr(at, "ag_await", None)


def threads() -> Iterator[tuple[str, list[str]]]:
    """Where every thread is, no values."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        stack: list[str] = []
        at: Any = frame
        while at is not None and len(stack) < 50:
            stack.append(_place(at))
            at = at.f_back
        yield names.get(ident, "unknown"), stack


def _place(frame: Any) -> str:
    code = frame.f_code
    return f"{'/'.join(code.co_filename.split('/')[-2:])}:{frame.f_lineno} {code.co_name}"
