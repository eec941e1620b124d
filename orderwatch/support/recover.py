"""Reconciles a ledger that went back in time with the topics that are still there; see docs/operating.md.

Everything is written with the rules of the workers: one guarded change per order, then the events that follow from it.
It may be stopped and run again: what was done stays done.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import chain, islice
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from agents.diagnosis.dry_run import dry_routing
from agents.domain import outbound_events
from agents.domain.recovery import ATTENTION, Facts, reconciled, unopened, without_created
from agents.domain.schedule import topic_for
from db import identity, recovery
from db.clock import Clock
from db.ledger import Ledger
from db.reads import queries
from db.rows import Change, Key, OrderState
from orderwatch.support.session import with_stored_catalog
from streams import topics
from streams.config.loader import Config
from streams.errors import EventError
from streams.events import Attention, Check, Created, Event, Referenced, StatusChanged, decode
from streams.kafka.producer import Outgoing, Told, follow, message
from streams.ledger_log import Mark, marked, marks, refuse_other
from streams.order import LIVE, AttemptState

_CHUNK = 2000
_WRITE_TOGETHER = 100
_TRIES = 5

Send = Callable[[Sequence[Outgoing]], None]
#: (what is done, how many so far, how many there are or None)
Progress = Callable[[str, int, int | None], None]


@dataclass(slots=True)
class Recovered:
    """What was found and written. ``orphans``: the log speaks of them, but holds no order any more."""

    epoch: int = 0
    records: int = 0
    reopened: int = 0
    reconciled: int = 0
    final: int = 0
    doubted: int = 0
    moved: int = 0
    orphans: list[tuple[str, str, str]] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Numbers only, for the audit row and for programs."""
        return {
            "records": self.records,
            "reopened": self.reopened,
            "reconciled": self.reconciled,
            "final": self.final,
            "doubted": self.doubted,
            "moved": self.moved,
            "orphans": len(self.orphans),
            "epoch": self.epoch,
        }


def run(
    config: Config, engine: sa.Engine, send: Send, *, dry_run: bool, adopt: bool, by: str, progress: Progress
) -> Recovered:
    """Reconcile; with ``dry_run`` only count. Raises ``ConfigError`` when the log belongs to another ledger, unless
    ``adopt``; ``StoreUnavailable`` and ``BrokerUnavailable``."""
    found = marks(config.kafka)
    state = identity.read(engine)
    if not adopt:
        refuse_other(found, state.identity)
    if not dry_run:
        identity.set_behind(engine, f"db recover runs, started by {by}")
    done = Recovered(epoch=max((mark.epoch for mark in found.values()), default=0))
    facts = _read(config, engine, done, progress)
    asyncio.run(_write_all(config, engine, facts, done, send, dry_run=dry_run, progress=progress))
    if not dry_run:
        _finish(engine, send, state.identity, found, done, by)
    return done


def _finish(engine: sa.Engine, send: Send, own: UUID, found: dict[UUID, Mark], done: Recovered, by: str) -> None:
    """Let the workers go on; the log first, so that a crash in between leaves the ledger behind."""
    now = datetime.now(UTC)
    send([marked(other, None) for other in found.keys() - {own}])
    send([marked(own, Mark(epoch=done.epoch, at=now, worker="db recover"))])
    state = identity.recovered(engine, own, done.epoch, by, done.counts())
    send([marked(own, Mark(epoch=state.epoch, at=now, worker="db recover"))])
    done.epoch = state.epoch


def _read(config: Config, engine: sa.Engine, done: Recovered, progress: Progress) -> dict[Key, Facts]:
    """What the log says of every order that is not final in the ledger."""
    facts: dict[Key, Facts] = {}
    for name, kind in _sources(config):
        told = follow(config.kafka, name, from_start=True, until_end=True)
        for chunk in _chunks(told):
            events = [event for event in (_event(kind, record) for record in chunk) if event is not None]
            done.records += len(chunk)
            progress(f"reading {name}", done.records, None)
            final = recovery.finished(engine, {_key(event) for event in events})
            for event in events:
                if (key := _key(event)) not in final:
                    _learn(facts.setdefault(key, Facts()), event)
    return facts


def _sources(config: Config) -> Iterator[tuple[str, type[Event]]]:
    yield topics.CREATED, Created
    yield topics.REFERENCED, Referenced
    yield topics.STATUS_CHANGED, StatusChanged
    yield topics.CHECK, Check
    for delay_s in config.tiers():
        yield config.tier_name(delay_s), Check


def _chunks(told: Iterator[Told]) -> Iterator[list[Told]]:
    while chunk := list(islice(told, _CHUNK)):
        yield chunk


def _event(kind: type[Event], record: Told) -> Event | None:
    try:
        return decode(kind, record.value)
    except EventError:
        return None  # the worker sets it aside, or has done so


def _key(event: Any) -> Key:
    return (event.tenant_id, event.order_id)


def _learn(facts: Facts, event: Event) -> None:
    if isinstance(event, Created):
        facts.created = facts.created or event  # the first one counts
    elif isinstance(event, Referenced):
        facts.referenced[event.attempt] = event
    elif isinstance(event, StatusChanged):
        if facts.status is None or event.version > facts.status.version:
            facts.status = event
    elif isinstance(event, Check):
        facts.checks[event.attempt] = max(event.check_number, facts.checks.get(event.attempt, 0))


async def _write_all(
    config: Config,
    engine: sa.Engine,
    facts: dict[Key, Facts],
    done: Recovered,
    send: Send,
    *,
    dry_run: bool,
    progress: Progress,
) -> None:
    clock = Clock(asyncio.get_running_loop())
    clock.observe(queries.database_now(engine))
    config = with_stored_catalog(config, engine)
    tier_of = partial(topic_for, config.tiers())
    with ThreadPoolExecutor(2) as executor:
        one = _One(Ledger(engine, executor, clock), dry_routing(config), clock, config.checks.deadline, done, dry_run)
        keys = dict.fromkeys(chain(facts, recovery.open_orders(engine)))
        waiting, count = iter(keys), 0
        while page := list(islice(waiting, _WRITE_TOGETHER)):
            told = await asyncio.gather(*(one(key, facts.get(key, Facts())) for key in page))
            records = [
                record
                for before, after in filter(None, told)
                for record in outbound_events.events_between(before, after, tier_of, clock.now())
            ]
            if not dry_run:
                await asyncio.to_thread(send, records)
            count += len(page)
            progress("orders", count, len(keys))
        if not dry_run:
            await asyncio.to_thread(send, list(_orphans(done, clock.now())))


def _orphans(done: Recovered, now: datetime) -> Iterable[Outgoing]:
    """Said under the same id each time, so once."""
    for tenant_id, order_id, says in done.orphans:
        attention = Attention(code=ATTENTION.value, message=says, since=now, order_id=order_id, tenant_id=tenant_id)
        yield message(attention, topics.ATTENTION, at=now)


@dataclass(slots=True)
class _One:
    """Reconciles one order and returns it before and after; None when nothing was to be written."""

    ledger: Ledger
    routing: Any
    clock: Clock
    deadline_s: float
    done: Recovered
    dry_run: bool

    async def __call__(self, key: Key, facts: Facts) -> tuple[OrderState, OrderState] | None:
        for _ in range(_TRIES):
            held = await self.ledger.load(key)
            if held is not None and held.order.finished_at is not None:
                return None
            if held is None and facts.created is None:
                if facts.speaks_of_attempts or facts.status is not None:
                    self.done.orphans.append((*key, without_created(facts)))
                return None
            before = held or unopened(facts.created, self.clock.now(), self.deadline_s)  # type: ignore[arg-type]
            change = reconciled(before, facts, self.routing, self.clock.now())
            stored = change
            if not self.dry_run:
                written = await (self.ledger.open(change) if held is None else self.ledger.apply(change))
                if written is None:
                    continue  # it moved meanwhile
                stored = written
            self._count(held, before, stored)
            return before, outbound_events.after(before, stored)
        self.done.moved += 1  # a worker writes it all the time: it is not behind
        return None

    def _count(self, held: OrderState | None, before: OrderState, change: Change) -> None:
        done = self.done
        done.reopened += held is None
        done.reconciled += held is not None
        done.final += change.order.finished_at is not None
        done.doubted += sum(row.state is AttemptState.UNKNOWN for row in change.attempts if row.state in LIVE)


def as_json(done: Recovered, dry_run: bool) -> dict[str, Any]:
    """The document of ``--json``."""
    orphans = [{"tenant_id": tenant, "order_id": order, "says": says} for tenant, order, says in done.orphans]
    return {"dry_run": dry_run, **done.counts(), "orphans": orphans}
