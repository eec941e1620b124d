"""A worker process: the real handlers behind the real pool and guard, and the delay line."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol, cast

import msgspec
from sqlalchemy.exc import IntegrityError

from agents.handlers import check, commands, dispatch
from agents.handlers import projections as handler_projections
from agents.handlers.context import HandlerContext
from agents.runtime.guard import HOLDING, Delivery, Guard
from agents.runtime.ordered_pool import Pool
from orderwatch.crash.log import Log, Record
from orderwatch.crash.memory import MemoryViews
from orderwatch.crash.process import DoorViews, Host, Process
from streams.errors import EventError, OrderNotFound

#: A worker that stood still, and wakes up without its partitions, learns of that with its next heartbeat.
HEARTBEAT_S = 1.0
#: What a worker reads, and as which agent.
AGENTS = {
    "orders.created": "dispatch",
    "orders.check": "check",
    "orders.command": "command",
    "orders.referenced": "projection-referenced",
    "orders.status-changed": "projection-status",
    "orders.attention": "attention",
    "orders.dead-letter": "dead-letter",
}
_TIER = "orders.retry."
#: As in ``streams.delay_queue``: by so little the clocks of two workers differ.
_CLOCKS = timedelta(seconds=1)


class _Due(msgspec.Struct):
    due_at: datetime


@dataclass(slots=True)
class Arrival:
    """An event as Faust hands it to the pool."""

    message: Any
    acknowledge: Callable[[], None]

    def ack(self) -> None:
        self.acknowledge()


class WorkerHost(Host, Protocol):
    """What a worker needs of its world besides."""

    @property
    def log(self) -> Log:
        """The broker."""

    @property
    def views(self) -> MemoryViews:
        """The tables for readers."""

    @property
    def owner(self) -> Process | None:
        """Who has the partitions now."""

    def deps(self, process: Process) -> HandlerContext:
        """The parts of one process, its own lanes and adapters included."""

    def say(self, process: Process | None, what: str) -> None:
        """One line of the trace."""

    def object_to(self, what: str) -> None:
        """Something happened that must not."""


class Worker(Process):
    """A worker process: the agents with their pools and guard, and the delay line."""

    world: WorkerHost

    def __init__(self, world: WorkerHost, name: str) -> None:
        super().__init__(world, name)
        #: As in ``agents.topology``: what lay before may have been begun by another worker.
        self._ours_from = {topic: len(world.log.records(topic)) for topic in AGENTS}
        self._believes_until = 0.0
        self.deps = world.deps(self)
        views = cast(Any, DoorViews(self, world.views))
        self._handlers: dict[str, Callable[[Delivery], Awaitable[None]]] = {
            "orders.created": partial(dispatch.created, self.deps),
            "orders.check": partial(check.check, self.deps),
            "orders.command": partial(commands.command, self.deps),
            "orders.referenced": lambda delivery: handler_projections.referenced(views, [delivery]),
            "orders.status-changed": lambda delivery: handler_projections.status_changed(views, [delivery]),
            "orders.attention": lambda delivery: handler_projections.attention(views, [delivery]),
            "orders.dead-letter": partial(handler_projections.dead_letter, self.deps, views),
        }
        self._guard = Guard(self.deps.emitter.send, self._stop, poison_retries=2, max_dead_letter_ratio=0.9)
        self._pools = {topic: Pool(100) for topic in self._handlers}
        self._wakes: dict[str, asyncio.Event] = {}
        self._done: dict[str, int] = {}
        self._commit_wake = asyncio.Event()

    def start(self) -> None:
        """Read from where the group stands."""
        for topic in self._handlers:
            self.spawn(self._consume(topic))
        for topic in self.world.log.topics:
            self._hear(topic)
        self.world.log.listeners.append(self._hear)
        self.spawn(self._commit())

    @property
    def owner(self) -> bool:
        """True while the group's partitions are this worker's."""
        return self.world.owner is self

    @property
    def reads(self) -> bool:
        """True also while the partitions are somebody else's and this worker does not know."""
        return self.owner or self.world.loop.time() < self._believes_until

    def woke(self) -> None:
        """It goes on after a freeze, and takes what it finds."""
        self._believes_until = self.world.loop.time() + HEARTBEAT_S

    def revoked(self) -> None:
        """The partitions are somebody else's: finish what runs, acknowledge none of it."""
        for pool in self._pools.values():
            pool.forget(pool.places)

    def _hear(self, topic: str) -> None:
        if not self.alive:
            return
        if topic.startswith(_TIER) and topic not in self._wakes:
            self._wakes[topic] = asyncio.Event()
            self.spawn(self._delay(topic))
        if topic in self._wakes:
            self._wakes[topic].set()

    async def _next(self, topic: str, position: int) -> Record:
        wake = self._wakes.setdefault(topic, asyncio.Event())
        while position >= len(self.world.log.records(topic)):
            wake.clear()
            await wake.wait()
        return self.world.log.records(topic)[position]

    async def _consume(self, topic: str) -> None:
        position = self.world.log.committed.get(topic, 0)
        while True:
            record = await self._next(topic, position)
            await self.breathe()
            if not self.reads:
                return
            position += 1
            await self._submit(topic, record, repeated=record.offset < self._ours_from[topic])

    async def _submit(self, topic: str, record: Record, *, repeated: bool) -> None:
        """To the agent of ``topic``; what is due in a tier goes to that of the checks."""
        arrival = Arrival(
            SimpleNamespace(
                topic=record.topic, partition=0, offset=record.offset, key=record.key, record=record, repeated=repeated
            ),
            partial(self._acknowledged, record.topic, record.offset + 1),
        )
        await self._pools[topic].submit(arrival, partial(self._one, topic))

    async def _one(self, topic: str, arrival: Any) -> None:
        record: Record = arrival.message.record
        again: bool = arrival.message.repeated
        delivery = Delivery(record.topic, 0, record.offset, record.key, record.value, list(record.headers), again)
        self.world.say(self, f"takes {record.topic} #{record.offset}" + (" again" if again else ""))
        await self._guard(AGENTS[topic], self._watched(AGENTS[topic], self._handlers[topic]), delivery)

    def _watched(
        self, agent: str, handler: Callable[[Delivery], Awaitable[None]]
    ) -> Callable[[Delivery], Awaitable[None]]:
        async def run(delivery: Delivery) -> None:
            try:
                await handler(delivery)
            except (*HOLDING, EventError, OrderNotFound):
                raise
            except IntegrityError as error:
                self.world.object_to(f"the database refused a write of {agent}: {error.statement}")
                raise
            except Exception as error:
                frames = traceback.extract_tb(error.__traceback__)[-1]
                self.world.object_to(f"{agent} failed: {error!r} at {frames.name}:{frames.lineno}")
                raise

        return run

    def _acknowledged(self, topic: str, position: int) -> None:
        self._done[topic] = position
        self._commit_wake.set()

    async def _commit(self) -> None:
        while True:
            await self._commit_wake.wait()
            self._commit_wake.clear()
            for topic, position in list(self._done.items()):
                if position > self.world.log.committed.get(topic, 0):
                    await self.door(f"commit {topic} {position}", partial(self._commit_now, topic, position))

    async def _commit_now(self, topic: str, position: int) -> None:
        if self.owner or topic.startswith(_TIER):  # who is no member of a group is not refused
            self.world.log.commit(topic, position)

    async def _delay(self, topic: str) -> None:
        position = self.world.log.committed.get(topic, 0)
        since = self.deps.clock.now()
        while True:
            record = await self._next(topic, position)
            due_at = msgspec.json.decode(record.value or b"", type=_Due).due_at
            await asyncio.sleep(max((due_at - self.deps.clock.now()).total_seconds() + 0.001, 0.0))
            await self.breathe()
            if not self.reads:
                return
            position += 1
            await self._submit("orders.check", record, repeated=due_at <= since + _CLOCKS)

    async def _stop(self, error: BaseException) -> None:
        self.world.object_to(f"the worker stopped itself: {error}")
