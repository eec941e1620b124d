"""A process and its doors: what it does to the world outside can be stopped before the effect and after it.

What lies between two doors is memory only, so being killed there is being killed at one of them.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

from orderwatch.crash.log import Log
from orderwatch.crash.memory import MemoryLedger, MemoryViews
from orderwatch.crash.scenario import Act
from streams.errors import BrokerUnavailable, StoreUnavailable
from streams.kafka.producer import Outgoing

T = TypeVar("T")

current: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("crash_process", default=None)


@dataclass(frozen=True, slots=True)
class Point:
    """A place in a run at which a process can be stopped. ``can_fail``: the part behind it may also not answer."""

    process: str
    where: str
    can_fail: bool


class Host(Protocol):
    """What a process needs of the world that it runs in."""

    counting: bool

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of virtual time."""

    def now(self) -> datetime:
        """The database's clock."""

    def reached(self, process: "Process", where: str, can_fail: bool) -> Act | None:
        """Count a point; what happens to the process there."""

    def kill(self, process: "Process") -> None:
        """The process and its memory are gone."""

    def freeze(self, process: "Process", seconds: float) -> None:
        """The process stands still for so long."""


class Process:
    """One process: its doors stop working when it is killed, and wait while it is frozen."""

    def __init__(self, world: Host, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.thaw: asyncio.Future[None] | None = None
        self.tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Awaitable[Any]) -> "asyncio.Task[Any]":
        """Start a task of this process; tasks that it starts are of this process too."""
        context = contextvars.Context()  # nothing of whoever starts it: it may have been killed in the middle of a call
        context.run(current.set, self)
        return self.world.loop.create_task(work, context=context)  # type: ignore[arg-type]

    async def door(self, what: str, effect: Callable[[], Awaitable[T]], away: type[Exception] | None = None) -> T:
        """Do one thing to the world outside."""
        await self._point(f"before {what}", away)
        failure: Exception | None = None
        try:
            done = await effect()
        except Exception as error:  # noqa: BLE001 - raised again below, once the point after it is passed
            failure = error
        await self._point(f"after {what}", away)
        if failure is not None:
            raise failure
        return done

    async def breathe(self) -> None:
        """Wait while frozen; ends the task of a killed process."""
        while self.thaw is not None:
            await asyncio.shield(self.thaw)  # it is shared: the end of one task must not end the waiting of others
        if not self.alive:
            raise asyncio.CancelledError

    async def _point(self, where: str, away: type[Exception] | None) -> None:
        if not self.world.counting:
            return await self.breathe()
        await asyncio.sleep(0)  # another process may act in between
        await self.breathe()
        act = self.world.reached(self, where, away is not None)
        if act is None:
            return
        if act.kind == "fail" and away is not None:
            raise away("did not answer (on purpose)")
        if act.kind == "kill":
            self.world.kill(self)
        if act.kind == "freeze":
            self.world.freeze(self, act.seconds)
        await self.breathe()


class DoorLedger:
    """The ledger as one process reaches it."""

    def __init__(self, process: Process, ledger: MemoryLedger) -> None:
        self._process = process
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._ledger, name)

        async def through(*arguments: Any) -> Any:
            return await self._process.door(f"ledger.{name}", partial(call, *arguments), StoreUnavailable)

        return through


class DoorViews:
    """The views as one process reaches them."""

    def __init__(self, process: Process, views: MemoryViews) -> None:
        self._process = process
        self._views = views

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._views, name)

        async def through(*arguments: Any, **named: Any) -> Any:
            return await self._process.door(f"views.{name}", partial(call, *arguments, **named), StoreUnavailable)

        return through


class DoorEmitter:
    """The broker as one process reaches it: of several records, any number may have been written."""

    def __init__(self, process: Process, log: Log) -> None:
        self._process = process
        self._log = log

    async def send(self, records: Sequence[Outgoing]) -> None:
        for outgoing in records:

            async def write(outgoing: Outgoing = outgoing) -> None:
                self._log.append(outgoing)

            await self._process.door(f"write {outgoing.topic}", write, BrokerUnavailable)


class WorkerClock:
    """Database time as a worker sees it: a little behind, never ahead."""

    def __init__(self, world: Host) -> None:
        self._world = world

    def now(self) -> datetime:
        return self._world.now() - timedelta(milliseconds=5)


def owned(loop: asyncio.AbstractEventLoop, work: Any, context: contextvars.Context | None = None) -> Any:
    """Task factory: a task belongs to the process that starts it."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    process = (context or contextvars.copy_context()).get(current)
    if process is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
    return task
