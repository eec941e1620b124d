"""A whole Orderwatch in one thread and in virtual time: the real handlers, and doubles of everything around them.

Everything that a process does to the world outside goes through ``Process.door``, which can be stopped before the
effect and after it, before the process learns of it. What lies between two doors is memory only, so being killed
there is being killed at one of them.
"""

import asyncio
import contextvars
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import msgspec
import structlog
from sqlalchemy.exc import IntegrityError

from agents import check, dispatch, lanes, operator, record
from agents.guard import HOLDING, Delivery, Guard
from agents.lanes import Busy, Lane
from agents.pool import Pool
from agents.providers.base import Provider, Setup
from agents.routes import Account, Routing
from agents.schedule import Schedule
from agents.sweep import sweep
from agents.work import Deps
from db.rows import OrderState
from orderwatch.crash.log import Log, Record
from orderwatch.crash.loop import VirtualLoop
from orderwatch.crash.memory import MemoryLedger, MemoryViews
from orderwatch.crash.scenario import PACKAGE, TENANT, Act, Fault, Scenario, Step
from orderwatch.crash.shop import Shop
from orderwatch.crash.wire import CALL_S, Faults, Marked, Wire
from streams.config import BreakerConfig, Config, LimitsConfig
from streams.errors import BrokerUnavailable, EventError, OrderNotFound, StoreUnavailable
from streams.events import Check, Created
from streams.kafka import Outgoing, message
from streams.order import AttemptState, CheckReason

T = TypeVar("T")

EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)
#: From the end of a process to the moment at which the group has given its partitions to another one.
REBALANCE_S = 10.0
#: As in ``agents.flow``: a record this much younger than the assignment may have been begun with before.
REPEAT_MARGIN_S = 30.0
_BREAKER = BreakerConfig(fail_max=10**6, reset_after=1e-6, slow_start=0, refusals_max=10**6)
_LIMITS = LimitsConfig(rate=1000.0)
#: What a worker reads, and as which agent.
AGENTS = {
    "orders.created": "dispatch",
    "orders.check": "check",
    "orders.referenced": "projection-referenced",
    "orders.status-changed": "projection-status",
    "orders.attention": "attention",
    "orders.dead-letter": "dead-letter",
}
_TIER = "orders.retry."

_process: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("crash_process", default=None)


class _Due(msgspec.Struct):
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Point:
    """A place in a run at which a process can be stopped. ``can_fail``: the part behind it may also not answer."""

    process: str
    where: str
    can_fail: bool


@dataclass(frozen=True)
class Subject:
    """The adapter under exploration, its shop, and what a mapping of it says."""

    name: str
    adapter: type[Provider]
    shop: type[Shop]
    mapping: Mapping[str, Any]
    credentials: Mapping[str, str]
    options: Mapping[str, Any]


class Process:
    """One process: its doors stop working when it is killed, and wait while it is frozen."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.thaw: asyncio.Future[None] | None = None
        self.tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Awaitable[Any]) -> "asyncio.Task[Any]":
        """Start a task of this process; tasks that it starts are of this process too."""
        context = contextvars.copy_context()
        context.run(_process.set, self)
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
            await self.thaw
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

    def __init__(self, world: "World") -> None:
        self._world = world

    def now(self) -> datetime:
        return self._world.now() - timedelta(milliseconds=5)


class BusyLane(Lane):
    """A lane that refuses the first placements of the run."""

    world: "World"

    def slot(self) -> Any:
        if self.world.busy > 0:
            self.world.busy -= 1
            raise Busy("on purpose")
        return super().slot()


@dataclass(slots=True)
class Arrival:
    """An event as Faust hands it to the pool."""

    message: Any
    acknowledge: Callable[[], None]

    def ack(self) -> None:
        self.acknowledge()


class Worker(Process):
    """A worker process: the agents with their pools and guard, and the delay line."""

    def __init__(self, world: "World", name: str, assigned_at: float) -> None:
        super().__init__(world, name)
        self._assigned_at = assigned_at
        self.deps = world.deps(self)
        views = cast(Any, DoorViews(self, world.views))
        self._handlers: dict[str, Callable[[Delivery], Awaitable[None]]] = {
            "orders.created": partial(dispatch.created, self.deps),
            "orders.check": partial(check.check, self.deps),
            "orders.referenced": partial(record.referenced, views),
            "orders.status-changed": partial(record.status_changed, views),
            "orders.attention": partial(record.attention, views),
            "orders.dead-letter": partial(record.dead_letter, self.deps, views),
        }
        self._guard = Guard(self.deps.emitter.send, self._stop, poison_retries=2, max_parked_share=0.9)
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

    def revoked(self) -> None:
        """The partitions are somebody else's: finish what runs, acknowledge none of it."""
        for topic, pool in self._pools.items():
            pool.forget([(topic, 0)])

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
            if not self.owner:
                return
            position += 1
            arrival = Arrival(
                SimpleNamespace(topic=topic, partition=0, offset=record.offset, key=record.key, record=record),
                partial(self._acknowledged, topic, position),
            )
            await self._pools[topic].submit(arrival, self._one)

    async def _one(self, arrival: Any) -> None:
        record: Record = arrival.message.record
        delivery = Delivery(
            record.topic, 0, record.offset, record.key, record.value, list(record.headers),
            repeated=record.at < self._assigned_at + REPEAT_MARGIN_S,
        )  # fmt: skip
        self.world.say(self, f"takes {record.topic} #{record.offset}" + (" again" if delivery.repeated else ""))
        await self._guard(AGENTS[record.topic], self._watched(self._handlers[record.topic]), delivery)

    def _watched(self, handler: Callable[[Delivery], Awaitable[None]]) -> Callable[[Delivery], Awaitable[None]]:
        async def run(delivery: Delivery) -> None:
            try:
                await handler(delivery)
            except (*HOLDING, EventError, OrderNotFound):
                raise
            except IntegrityError as error:
                self.world.object_to(f"the database refused a write of {AGENTS[delivery.topic]}: {error.statement}")
                raise
            except Exception as error:
                frames = traceback.extract_tb(error.__traceback__)[-1]
                self.world.object_to(f"{AGENTS[delivery.topic]} failed: {error!r} at {frames.name}:{frames.lineno}")
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
        if self.owner:
            self.world.log.commit(topic, position)

    async def _delay(self, topic: str) -> None:
        position = self.world.log.committed.get(topic, 0)
        while True:
            record = await self._next(topic, position)
            due_at = msgspec.json.decode(record.value or b"", type=_Due).due_at
            while (wait_s := (due_at - self.deps.clock.now()).total_seconds()) > 0:
                await asyncio.sleep(wait_s + 0.0001)
            await self.breathe()
            if not self.owner:
                return
            forwarded = Outgoing("orders.check", record.key, record.value, list(record.headers))
            try:
                await self.deps.emitter.send([forwarded])
            except BrokerUnavailable:
                continue
            position += 1
            await self.door(f"commit {topic} {position}", partial(self._commit_now, topic, position))

    async def _stop(self, error: BaseException) -> None:
        self.world.object_to(f"the worker stopped itself: {error}")


class World:
    """One run. ``plan`` says what happens at which point; points are counted over all processes."""

    def __init__(self, subject: Subject, scenario: Scenario, fault: Fault, plan: Mapping[int, Act]) -> None:
        self.subject = subject
        self.scenario = scenario
        self.plan = dict(plan)
        self.loop = VirtualLoop()
        self.loop.set_task_factory(_owned)
        self.loop.set_exception_handler(self._unhandled)
        self.points: list[Point] = []
        self.trace: list[str] = []
        self.objections: list[str] = []
        self.busy = scenario.busy
        self.counting = True
        self.config = config(subject, scenario)
        self.views = MemoryViews()
        self.ledger = MemoryLedger(self.now, self.views)
        self.log = Log(self.loop.time)
        self.shops: dict[str, Shop] = {name: subject.shop(self.loop.time) for name in ("one", "two")}
        for name, script in scenario.scripts.items():
            cast(Any, self.shops[name]).script = list(script)
        self.faults = Faults(fault, self.loop, 0.8 * subject.adapter.profile.absent_settle_s, self.bought)
        self.processes: list[Process] = []
        self.owner: Worker | None = None
        self.operator_said: set[tuple[str, int]] = set()

    # -- time and traces --

    def now(self) -> datetime:
        """The database's clock."""
        return EPOCH + timedelta(seconds=self.loop.time())

    def say(self, process: Process | None, what: str) -> None:
        """One line of the trace."""
        name = process.name if process is not None else "outside"
        self.trace.append(f"{self.loop.time():10.3f}  {name:<9} {what}")

    def object_to(self, what: str) -> None:
        """Something happened that must not."""
        self.objections.append(what)
        self.say(None, f"WRONG: {what}")

    def reached(self, process: Process, where: str, can_fail: bool) -> Act | None:
        """A process came to a point; what happens to it there."""
        number = len(self.points)
        self.points.append(Point(process.name, where, can_fail))
        act = self.plan.get(number)
        self.say(process, where if act is None else f"{where}   <-- point {number}: {act}")
        return act

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        owner = _process.get()
        if isinstance(error, asyncio.CancelledError) or (owner is not None and not owner.alive):
            return
        self.object_to(f"unhandled: {context.get('message')}: {error!r}")

    # -- processes --

    def deps(self, process: Process) -> Deps:
        """The parts of one process, its own lanes and adapters included."""
        accounts, made = {}, {}
        for integration in self.config.integrations:
            wire = Wire(integration.id, self.shops[integration.id], self.faults, process.door, self.loop.time)
            adapter = cast(Provider, Marked(self.subject.adapter(Setup(
                integration.id, TENANT, self.subject.adapter.currency or "EUR", wire, lambda pin: f"sealed({len(pin)})",
                credentials=self.subject.credentials, options=self.subject.options,
            ))))  # fmt: skip
            profile = self.subject.adapter.profile
            lane = BusyLane(integration.id, adapter, _LIMITS, _BREAKER, profile.batch, lambda down: None)
            lane.world = self
            made[integration.id] = lane
            accounts[integration.id] = account(self.config, integration, adapter, self.subject)
        return Deps(
            self.config, Routing(self.config, accounts), made, cast(Any, DoorLedger(process, self.ledger)),
            cast(Any, DoorEmitter(process, self.log)), cast(Any, WorkerClock(self)), tiers=self.config.tiers(),
            name=process.name,
        )  # fmt: skip

    def take_over(self) -> None:
        """A worker gets the partitions, whoever had them."""
        former = self.owner
        first = not any(isinstance(process, Worker) for process in self.processes)
        worker = Worker(self, f"worker {len(self.processes) + 1}", -1000.0 if first else self.loop.time())
        self.processes.append(worker)
        self.owner = worker
        if former is not None:
            former.revoked()
            self.say(worker, "takes over")
        worker.start()

    def kill(self, process: Process) -> None:
        """The process and its memory are gone."""
        process.alive = False
        for task in list(process.tasks):
            self.loop.call_soon(task.cancel)
        if process is self.owner:
            self.loop.call_later(REBALANCE_S, self.take_over)

    def freeze(self, process: Process, seconds: float) -> None:
        """The process stands still; the group notices, and nobody tells the process."""
        process.thaw = self.loop.create_future()
        self.loop.call_later(seconds, self._thaw, process)
        if process is self.owner and seconds > REBALANCE_S:
            self.loop.call_later(REBALANCE_S, self.take_over)

    def _thaw(self, process: Process) -> None:
        thaw, process.thaw = process.thaw, None
        if thaw is not None:
            self.say(process, "goes on")
            thaw.set_result(None)

    # -- a run --

    def play(self, step: Step) -> None:
        """Something from outside happens now."""
        self.say(None, str(step).partition(": ")[2])
        match step.kind:
            case "order":
                event = Created(
                    order_id=step.order, tenant_id=TENANT, package_id=PACKAGE, user_identifier=step.player,
                    created_at=EPOCH, quantity=step.quantity,
                )  # fmt: skip
                self.log.append(message(event, "orders.created", at=EPOCH))
            case "sweep":
                self.sweep()
            case "ask":
                self._ask(step.order)
            case "resolve":
                self.resolve(step.order)
            case "on" | "off":
                self.switch(step.order, enabled=step.kind == "on")

    def sweep(self) -> None:
        """One pass of the sweeper, by the worker that leads."""
        if self.owner is None or not self.owner.alive or self.owner.thaw is not None:
            return
        self.owner.spawn(_held(partial(sweep, self.owner.deps)))

    def switch(self, integration_id: str, *, enabled: bool) -> None:
        """A change of configuration that every worker follows."""
        self.config = config(self.subject, self.scenario, on={integration_id} if enabled else set())
        for process in self.processes:
            if isinstance(process, Worker):
                fresh = self.deps(process)
                process.deps.config, process.deps.routing, process.deps.lanes = (
                    fresh.config, fresh.routing, fresh.lanes,
                )  # fmt: skip

    def _ask(self, order_id: str) -> None:
        state = self.ledger.state((TENANT, order_id))
        if state is None or state.order.finished_at is not None:
            return
        live = [(row.attempt, row.check_number) for row in state.attempts if row.live]
        for attempt, number in live or [(0, state.order.check_number)]:
            event = Check(
                order_id=order_id, tenant_id=TENANT, attempt=attempt, check_number=number, due_at=self.now(),
                reason=CheckReason.OPERATOR.value,
            )  # fmt: skip
            self.log.append(message(event, "orders.check", at=self.now()))

    def resolve(self, order_id: str) -> None:
        """An operator who looked into the provider's book says what happened to attempts with an unknown outcome."""
        state = self.ledger.state((TENANT, order_id))
        for row in state.attempts if state is not None else ():
            if row.state is AttemptState.UNKNOWN:
                outcome = "completed" if self.bought(row.reference) else "not_sent"
                self.operator_said.add((row.reference, row.attempt))
                person = Process(self, "operator")
                self.processes.append(person)
                deps = self.deps(person)
                person.spawn(_held(partial(
                    operator.resolve, deps, TENANT, order_id, row.attempt, outcome, "ada", "looked into the account"
                )))  # fmt: skip

    def bought(self, reference: str) -> int:
        """How many standing purchases the shops have under a reference."""
        return sum(list(shop.purchases()).count(reference) for shop in self.shops.values())

    def run(self) -> None:
        """The scenario to its end, first without a sweep that nobody asked for."""
        self.take_over()
        for step in self.scenario.steps:
            self.loop.call_at(step.at, self.play, step)
        self.loop.run_to(self.scenario.hours * 3600)
        self.counting = False  # what follows is recovery: nothing is stopped there

    def run_sweeps(self, passes: int = 2) -> None:
        """Let the sweeper repair what the log lost."""
        for _ in range(passes):
            self.loop.skip_to(self.loop.time() + self.config.checks.sweep_every + self.config.checks.sweep_slack)
            self.loop.call_soon(self.sweep)
            self.loop.run_to(self.loop.time() + self.scenario.hours * 3600)

    def close(self) -> None:
        """End every process; nothing of it has an effect any more."""
        for process in self.processes:
            process.alive = False
            if process.thaw is not None and not process.thaw.done():
                process.thaw.cancel()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_to(self.loop.time() + 0.001)
        self.loop.close()


async def _held(act: Callable[[], Awaitable[Any]]) -> None:
    """A sweep or a person, who try again when store or broker are away."""
    while True:
        try:
            await act()
            return
        except (StoreUnavailable, BrokerUnavailable):
            await asyncio.sleep(5.0)


def _owned(loop: asyncio.AbstractEventLoop, work: Any, context: contextvars.Context | None = None) -> Any:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    process = (context or contextvars.copy_context()).get(_process)
    if process is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
    return task


def config(subject: Subject, scenario: Scenario, on: set[str] | None = None) -> Config:
    """Two integrations of the same kind; the second is the fallback."""
    off = set(scenario.off) - (on or set())
    return Config.model_validate({
        "kafka": {"bootstrap_servers": "127.0.0.1:1"},
        "database": {"url": "postgresql://nobody@127.0.0.1:1/none"},
        "checks": {"after_final": {"every": "3600s", "until": "0s"}, **scenario.checks},
        "integrations": [
            {"id": name, "tenant_id": TENANT, "provider": "kit", "enabled": name not in off,
             "limits": {"timeout": f"{CALL_S:g}s", "connect_timeout": "5s"}}
            for name in ("one", "two")
        ],
        "routes": [{"tenant_id": TENANT, "package_id": PACKAGE, "mode": "auto", "primary": "one",
                    "fallback": "two" if scenario.fallback else None}],
        "mappings": [
            {"provider_package_id": "100", **subject.mapping, "tenant_id": TENANT, "package_id": PACKAGE,
             "integration": name}
            for name in ("one", "two")
        ],
    })  # fmt: skip


def account(config: Config, integration: Any, adapter: Provider, subject: Subject) -> Account:
    """As ``agents.wiring`` makes it, of an adapter that no entry point names."""
    backoff, final = config.backoff(integration), config.checks.after_final
    schedule = Schedule(
        first_after_s=config.first_after(integration), base_s=backoff.base, factor=backoff.factor, max_s=backoff.max,
        requeue_s=config.checks.requeue_after, watch_every_s=final.every, watch_for_s=final.until,
        tiers=config.tiers(),
    )  # fmt: skip
    return Account(
        integration_id=integration.id, provider=integration.provider, enabled=integration.enabled, adapter=adapter,
        profile=subject.adapter.profile, schedule=schedule, lease_s=config.lease_s(integration),
        call_s=integration.limits.timeout + integration.limits.connect_timeout,
    )  # fmt: skip


@contextmanager
def virtual(world: World) -> Iterator[World]:
    """The modules of the engine that read a monotonic clock read the world's, and nothing is logged."""
    clock = cast(Any, SimpleNamespace(monotonic=world.loop.time))
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)
    dispatch.time = lanes.time = clock  # type: ignore[attr-defined]
    asyncio.set_event_loop(world.loop)
    try:
        yield world
    finally:
        world.close()
        asyncio.set_event_loop(None)
        dispatch.time = lanes.time = time  # type: ignore[attr-defined]
        structlog.configure(**before)


def open_states(world: World) -> list[OrderState]:
    """Orders that have not reached their end."""
    return [state for state in world.ledger.states() if state.order.finished_at is None]
