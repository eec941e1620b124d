"""A whole Orderwatch in one thread and in virtual time: the real handlers, and doubles of everything around them."""

import asyncio
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import structlog

from agents.domain.accounts import schedule_of
from agents.domain.routing import Account, Routing
from agents.gateway import gateway
from agents.gateway.gateway import Busy, Lane
from agents.handlers import dispatch
from agents.handlers.context import HandlerContext
from agents.maintenance.sweeper import sweep
from agents.providers.base import Placed, PlacedAnswer, Provider, Setup
from db.rows import OrderState
from orderwatch.crash.log import Log
from orderwatch.crash.loop import VirtualLoop
from orderwatch.crash.memory import MemoryLedger, MemoryViews
from orderwatch.crash.process import DoorEmitter, DoorLedger, Point, Process, WorkerClock, current, owned
from orderwatch.crash.scenario import PACKAGE, TENANT, Act, Fault, Scenario, Step
from orderwatch.crash.shop import Shop
from orderwatch.crash.wire import CALL_S, Faults, Marked, Wire
from orderwatch.crash.worker import Worker
from streams.config.loader import BreakerConfig, Config, LimitsConfig
from streams.errors import BrokerUnavailable, StoreUnavailable
from streams.events import Command, Created
from streams.kafka.producer import Outgoing, message
from streams.order import AttemptState, CommandAction

EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)
#: From the end of a process to the moment at which the group has given its partitions to another one.
REBALANCE_S = 10.0
_BREAKER = BreakerConfig(fail_max=10**6, reset_after=1e-6, slow_start=0, refusals_max=10**6)
_LIMITS = LimitsConfig(rate=1000.0)


@dataclass(frozen=True)
class Subject:
    """The adapter under exploration, its shop, and what a mapping of it says."""

    name: str
    adapter: type[Provider]
    shop: type[Shop]
    mapping: Mapping[str, Any] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


class BusyLane(Lane):
    """A lane that refuses the first placements of the run."""

    world: "World"

    def slot(self) -> Any:
        if self.world.busy > 0:
            self.world.busy -= 1
            raise Busy("on purpose")
        return super().slot()


class World:
    """One run. ``plan`` says what happens at which point; points are counted over all processes."""

    def __init__(self, subject: Subject, scenario: Scenario, fault: Fault, plan: Mapping[int, Act]) -> None:
        self.subject = subject
        self.scenario = scenario
        self.plan = dict(plan)
        self.loop = VirtualLoop()
        self.loop.set_task_factory(owned)
        self.loop.set_exception_handler(self._unhandled)
        self.points: list[Point] = []
        self.trace: list[str] = []
        self.objections: list[str] = []
        self.busy = scenario.busy
        self.counting = True
        self.stop_at: int | None = None
        self.config = config(subject, scenario, scenario.off)
        self.views = MemoryViews()
        self.ledger = MemoryLedger(self.now, self.views)
        self.log = Log(self.loop.time)
        self.shops: dict[str, Shop] = {name: subject.shop(self.loop.time) for name in ("one", "two")}
        for name, script in scenario.scripts.items():
            cast(Any, self.shops[name]).script = list(script)
        self.faults = Faults(fault, self.loop, subject.adapter.profile.absent_settle_s, self.bought)
        self.processes: list[Process] = []
        self.owner: Worker | None = None
        #: Who heard from the provider that it took a reference.
        self.heard: list[tuple[Process, str]] = []
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
        """Something happened that must not; said once."""
        if what in self.objections:
            return
        self.objections.append(what)
        self.say(None, f"WRONG: {what}")

    def reached(self, process: Process, where: str, can_fail: bool) -> Act | None:
        """A process came to a point; what happens to it there."""
        number = len(self.points)
        self.points.append(Point(process.name, where, can_fail))
        act = self.plan.get(number)
        if number == self.stop_at:
            self.loop.stop()
        self.say(process, where if act is None else f"{where}   <-- point {number}: {act}")
        return act

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        owner = current.get()
        if isinstance(error, asyncio.CancelledError) or (owner is not None and not owner.alive):
            return
        self.object_to(f"unhandled: {context.get('message')}: {error!r}")

    # -- processes --

    def deps(self, process: Process) -> HandlerContext:
        """The parts of one process, its own lanes and adapters included."""
        accounts, made = {}, {}
        for integration in self.config.integrations:
            wire = Wire(integration.id, self.shops[integration.id], self.faults, process.door, self.loop.time)
            adapter = cast(
                Provider,
                Marked(
                    self.subject.adapter(
                        Setup(
                            integration.id,
                            TENANT,
                            self.subject.adapter.currency or "EUR",
                            wire,
                            lambda pin: f"sealed({len(pin)})",
                            credentials=self.subject.credentials,
                            options=self.subject.options,
                        )
                    ),
                    partial(self._hears, process),
                ),
            )
            profile = self.subject.adapter.profile
            lane = BusyLane(integration.id, adapter, _LIMITS, _BREAKER, profile.batch, lambda down: None)
            lane.world = self
            made[integration.id] = lane
            accounts[integration.id] = account(self.config, integration, adapter, self.subject)
        return HandlerContext(
            self.config,
            Routing(self.config, accounts),
            made,
            cast(Any, DoorLedger(process, self.ledger)),
            cast(Any, DoorEmitter(process, self.log)),
            cast(Any, WorkerClock(self)),
            tiers=self.config.tiers(),
            name=process.name,
        )

    def _hears(self, process: Process, reference: str, answer: PlacedAnswer) -> None:
        if answer.kind in (Placed.ACCEPTED, Placed.COMPLETED):
            self.heard.append((process, reference))

    def take_over(self) -> None:
        """A worker gets the partitions, whoever had them."""
        former = self.owner
        worker = Worker(self, f"worker {len(self.processes) + 1}")
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
        if thaw is not None and not thaw.done():
            self.say(process, "goes on")
            if isinstance(process, Worker):
                process.woke()
            thaw.set_result(None)

    # -- a run --

    def play(self, step: Step) -> None:
        """Something from outside happens now."""
        self.say(None, str(step).partition(": ")[2])
        match step.kind:
            case "order":
                event = Created(
                    order_id=step.order,
                    tenant_id=TENANT,
                    package_id=PACKAGE,
                    user_identifier=step.player,
                    created_at=EPOCH,
                    quantity=step.quantity,
                )
                self.log.append(message(event, "orders.created", at=EPOCH))
            case "sweep":
                self.sweep()
            case "ask":
                self.command(step.order, CommandAction.CHECK)
            case "again":
                self.command(step.order, CommandAction.PLACE_AGAIN)
            case "send":
                self.command(step.order, CommandAction.SEND_TO, integration_id="two")
            case "cancel":
                self.command(step.order, CommandAction.CANCEL)
            case "repeat":
                self.repeat_command()
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
        off = {integration.id for integration in self.config.integrations if not integration.enabled}
        self.config = config(self.subject, self.scenario, off - {integration_id} if enabled else off | {integration_id})
        for process in self.processes:
            if isinstance(process, Worker):
                fresh = self.deps(process)
                process.deps.config, process.deps.routing, process.deps.lanes = (
                    fresh.config,
                    fresh.routing,
                    fresh.lanes,
                )

    def command(self, order_id: str, action: CommandAction, **words: Any) -> None:
        """A person asks for something, as an event."""
        event = Command(
            command_id=f"c{len(self.log.records('orders.command'))}",
            tenant_id=TENANT,
            order_id=order_id,
            action=action,
            reason="because",
            by="ada",
            issued_at=self.now(),
            **words,
        )
        self.log.append(message(event, "orders.command", at=self.now()))

    def repeat_command(self) -> None:
        """The last command is sent once more, by somebody who saw no answer."""
        if sent := self.log.records("orders.command"):
            self.log.append(Outgoing("orders.command", sent[-1].key, sent[-1].value, list(sent[-1].headers)))

    def resolve(self, order_id: str) -> None:
        """An operator who looked into the provider's book says what happened to attempts with an unknown outcome.

        Not while the provider still has it in hand: a person who says too early that nothing was bought is believed.
        """
        state = self.ledger.state((TENANT, order_id))
        for row in state.attempts if state is not None else ():
            if row.state is AttemptState.UNKNOWN and row.reference not in self.faults.under_way:
                outcome = "completed" if self.bought(row.reference) else "not_sent"
                self.operator_said.add((row.reference, row.attempt))
                self.command(order_id, CommandAction.RESOLVE, attempt=row.attempt, outcome=outcome)

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


def config(subject: Subject, scenario: Scenario, off: Container[str]) -> Config:
    """Two integrations of the same kind; the second is the fallback. ``off``: those that are switched off."""
    return Config.model_validate(
        {
            "kafka": {"bootstrap_servers": "127.0.0.1:1"},
            "database": {"url": "postgresql://nobody@127.0.0.1:1/none"},
            "checks": {"after_final": {"every": "3600s", "until": "0s"}, **scenario.checks},
            "integrations": [
                {
                    "id": name,
                    "tenant_id": TENANT,
                    "provider": "kit",
                    "enabled": name not in off,
                    "limits": {"timeout": f"{CALL_S:g}s", "connect_timeout": "5s"},
                }
                for name in ("one", "two")
            ],
            "routes": [
                {
                    "tenant_id": TENANT,
                    "package_id": PACKAGE,
                    "mode": "auto",
                    "primary": "one",
                    "fallback": "two" if scenario.fallback else None,
                }
            ],
            "mappings": [
                {
                    "provider_package_id": "100",
                    **subject.mapping,
                    "tenant_id": TENANT,
                    "package_id": PACKAGE,
                    "integration": name,
                }
                for name in ("one", "two")
            ],
        }
    )


def account(config: Config, integration: Any, adapter: Provider, subject: Subject) -> Account:
    """As ``agents.bootstrap`` makes it, of an adapter that no entry point names."""
    return Account(
        integration_id=integration.id,
        provider=integration.provider,
        enabled=integration.enabled,
        adapter=adapter,
        profile=subject.adapter.profile,
        schedule=schedule_of(config, integration, config.tiers()),
        lease_s=config.lease_s(integration),
        call_s=integration.limits.timeout + integration.limits.connect_timeout,
    )


@contextmanager
def virtual(world: World) -> Iterator[World]:
    """The modules of the engine that read a clock of this machine read the world's, and nothing is logged."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)
    asyncio.set_event_loop(world.loop)
    try:
        with (
            patch.object(dispatch, "instant_s", world.loop.time),
            patch.object(gateway, "time", SimpleNamespace(monotonic=world.loop.time)),
        ):
            try:
                yield world
            finally:
                world.close()
    finally:
        asyncio.set_event_loop(None)
        structlog.configure(**before)


def open_states(world: World) -> list[OrderState]:
    """Orders that have not reached their end."""
    return [state for state in world.ledger.states() if state.order.finished_at is None]
