"""Many events at a time, one per order, acknowledged in the order they came.

Faust commits an offset that passes events still in flight when they are acknowledged out of order (upstream issue
606), so this pool acknowledges an event only when every earlier one of its partition is done. That keeps Faust's own
commit rule right without touching its inside.
"""

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any

from agents.runtime.in_flight import InFlight, begin

TP = tuple[str, int]


class Pool:
    """Runs ``handle(event)`` for each event of one agent, at most ``limit`` at a time; see the module docstring.

    No more than ``per_turn()`` begin in one turn of the event loop.

    ``handle`` must return only when its event may be acknowledged and must not raise: see ``agents.runtime.guard``.
    """

    def __init__(self, limit: int, per_turn: Callable[[], int] = lambda: sys.maxsize) -> None:
        self._per_turn = per_turn
        self._begun = 0
        self._room = asyncio.Semaphore(limit)
        self._open: dict[TP, deque[InFlight]] = {}
        self._tails: dict[bytes, tuple[asyncio.Task[None], InFlight]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def in_flight(self) -> int:
        """Events taken and not yet finished."""
        return len(self._tasks)

    @property
    def takes(self) -> bool:
        """False while nothing more may begin."""
        return not (self._closing or self._room.locked())

    @property
    def places(self) -> tuple[TP, ...]:
        """Every partition that brought something."""
        return tuple(self._open)

    def heartbeat_at(self, place: TP) -> float | None:
        """The last sign of life of the oldest event of a partition, as a monotonic instant; of anybody here when there
        is none of it because the pool is full; None when nothing keeps it waiting. Callable from any thread."""
        if heads := self._open.get(place):
            with contextlib.suppress(IndexError):
                return heads[0].heartbeat_at
        if not self._room.locked():
            return None
        return max((entries[0].heartbeat_at for entries in tuple(self._open.values()) if entries), default=None)

    async def run(self, events: AsyncIterable[Any], handle: Callable[[Any], Awaitable[None]]) -> None:
        """Take events for ever; each has a ``message`` and is told with ``ack()`` when it is done."""
        async for event in events:
            await self.submit(event, handle)

    async def submit(self, event: Any, handle: Callable[[Any], Awaitable[None]]) -> None:
        """Start one event; waits while the pool is full, and for ever once it is closing."""
        await self._room.acquire()
        self._begun += 1
        if self._begun >= self._per_turn():
            self._begun = 0
            await asyncio.sleep(0)
        if self._closing:
            await asyncio.Event().wait()
        message = event.message
        entry = InFlight(event)
        place = (message.topic, message.partition)
        self._open.setdefault(place, deque()).append(entry)
        key = message.key or b"%d" % id(entry)
        before, entry.waits_for = self._tails.get(key, (None, None))
        task = asyncio.create_task(self._one(place, entry, handle, before))
        self._tails[key] = task, entry
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._forget(key, done))

    async def _one(
        self, place: TP, entry: InFlight, handle: Callable[[Any], Awaitable[None]], before: asyncio.Task[None] | None
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
            entry.touch()
        begin(entry)
        await handle(entry.event)
        entry.done = True
        self._acknowledge(place)

    def _acknowledge(self, place: TP) -> None:
        entries = self._open.get(place)
        while entries and entries[0].done:
            entries.popleft().event.ack()

    def _forget(self, key: bytes, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()
        if (last := self._tails.get(key)) is not None and last[0] is task:
            del self._tails[key]
        if not task.cancelled() and (error := task.exception()):
            raise error  # a handler must not raise; the loop's exception handler tells it

    def forget(self, places: Iterable[TP]) -> None:
        """These partitions went to somebody else: finish what runs, acknowledge none of it."""
        for place in places:
            self._open.pop(place, None)

    async def drain(self, timeout_s: float) -> int:
        """Take nothing more and wait for what runs; the number of events that did not finish in time."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        for task in left:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return len(left)
