"""What people ask about orders: reads for the command line and the screens, never used on the way of an order.

Instants come back as aware UTC. Every function raises ``StoreUnavailable`` when the database does not answer.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from db import models as m
from db.engine import answering
from db.rows import Attempt, Key, Order
from streams.order import LIVE, TERMINAL, AttemptState, ExternalStatus, Status

Row = Mapping[str, Any]

#: Of one player, at most so many orders are searched, newest first.
PLAYER_ORDERS = 200

#: So many of the newest status changes are compared with what the views show: a projection that stands still is behind
#: in the newest of them.
RECENT = 10_000

#: Columns that ``Order`` and ``Attempt`` have a place for.
_ORDER = [m.ledger_orders.c[name] for name in Order.__struct_fields__]
_ATTEMPT = [m.attempts.c[name] for name in Attempt.__struct_fields__]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything known about one order, read in one moment of the database's clock (``now``).

    ``order`` is None when the ledger never accepted it, ``view`` when the projection has not shown it yet. ``events``
    are the newest steps, oldest first. ``absent_needed`` says per integration how many consistent absent answers
    prove that it has no such order; whoever knows the profiles fills it in. ``heard`` is what the log says about an
    order that the ledger does not know, where somebody has read it.
    """

    tenant_id: str
    order_id: str
    now: datetime
    order: Order | None
    attempts: Sequence[Attempt]
    view: Row | None
    events: Sequence[Row]
    attention: Sequence[Row]
    dead_letters: Sequence[Row]
    absent_needed: Mapping[str, int] = field(default_factory=dict)
    heard: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """Which orders to list; None leaves a condition out, what the ledger says decides.

    A list of what has a reason, is open or went wrong goes by when the engine accepted an order; every other list by
    when the shop created it. So does ``older_than_s``.

    ``waiting`` is an attention code, or ``any``; ``open`` leaves out what is settled. ``number`` is an order id, the
    reference of an attempt, the provider's own id or a player id, whole.
    """

    tenant_id: str | None = None
    status: str | None = None
    external_status: str | None = None
    integration_id: str | None = None
    older_than_s: float | None = None
    waiting: str | None = None
    open: bool = False
    number: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of orders ended; the next page starts behind it. Its text survives a command line and a URL."""

    at: datetime
    tenant_id: str
    order_id: str

    def __str__(self) -> str:
        return f"{self.at.isoformat()}/{self.tenant_id}/{self.order_id}"

    @classmethod
    def read(cls, text: str) -> "Place":
        """The place that ``str`` wrote; raises ``ValueError`` for every other text."""
        at, _, rest = text.partition("/")
        tenant_id, _, order_id = rest.partition("/")
        if not tenant_id or not order_id or "\x00" in text:
            raise ValueError("a place is an instant with its zone, a tenant and an order")
        return cls(instant(at), tenant_id, order_id)


def instant(text: str) -> datetime:
    """An instant with its zone that the database can hold too; raises ``ValueError`` for every other text."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None or not 1 < at.year < 9999:  # in UTC it could be the year 0 or 10000
        raise ValueError("an instant has its zone, and is not at the end of the calendar")
    return at


def snapshot(engine: sa.Engine, tenant_id: str, order_id: str, steps: int = 200) -> Snapshot:
    """One order with at most ``steps`` of its newest timeline rows; empty when nobody ever heard of it."""
    key = {"tenant_id": tenant_id, "order_id": order_id}
    with answering(), engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        now = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        order = _one(connection, sa.select(*_ORDER).filter_by(**key))
        attempts = _all(connection, sa.select(*_ATTEMPT).filter_by(**key).order_by(m.attempts.c.attempt))
        view = _one(connection, sa.select(m.orders).filter_by(**key))
        newest = sa.select(m.order_events).filter_by(**key).order_by(m.order_events.c.id.desc()).limit(steps)
        events = _all(connection, newest)
        attention = _all(connection, sa.select(m.attention).filter_by(**key).order_by(m.attention.c.since))
        letters = _all(
            connection,
            sa.select(m.dead_letters).where(m.dead_letters.c.key == order_id.encode()).order_by(m.dead_letters.c.id),
        )
    return Snapshot(
        tenant_id=tenant_id,
        order_id=order_id,
        now=now,
        order=msgspec.convert(order, Order) if order else None,
        attempts=[msgspec.convert(row, Attempt) for row in attempts],
        view=view,
        events=events[::-1],
        attention=attention,
        dead_letters=[row for row in letters if _tenant_of(row["value"]) in (None, tenant_id)],
    )


def orders(
    engine: sa.Engine, wanted: OrderFilter, *, after: Place | None = None, limit: int = 50
) -> tuple[list[Row], Place | None]:
    """A page of orders, newest first, and where it ended when there may be more.

    Keyset pagination: a page costs the same wherever it starts, and orders that arrive meanwhile shift nothing.
    """
    states = _states(wanted)
    if not states:
        return [], None
    o, ledger = m.orders, m.ledger_orders
    # The side with the condition that few orders meet: its index has their order, so nothing is sorted.
    from_ledger = wanted.waiting is not None or ExternalStatus.COMPLETED not in states
    at = ledger.c.accepted_at if from_ledger else o.c.created_at
    shown = [column for column in o.c if column.name not in ("status", "external_status")]
    query = (
        sa.select(
            *shown,
            ledger.c.status,
            ledger.c.external_status,
            ledger.c.waiting,
            ledger.c.waiting_since,
            ledger.c.version.label("ledger_version"),
            ledger.c.accepted_at,
        )
        .select_from(o.join(ledger, (ledger.c.tenant_id == o.c.tenant_id) & (ledger.c.order_id == o.c.order_id)))
        .where(*_conditions(wanted, states, at))
        .order_by(at.desc(), o.c.tenant_id, o.c.order_id)
        .limit(limit + 1)
    )
    if after is not None:
        # The first condition alone bounds the index scan; the second settles equal instants.
        query = query.where(
            at <= after.at,
            (at < after.at) | (sa.tuple_(o.c.tenant_id, o.c.order_id) > (after.tenant_id, after.order_id)),
        )
    with answering(), engine.connect() as connection:
        rows = _all(connection, query)
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], Place(last[at.name], last["tenant_id"], last["order_id"])


_EVERY = frozenset(ExternalStatus)
_OPEN = _EVERY - TERMINAL
#: What a buyer's status means in delivery, which has an index; the constraints of the ledger make it the same.
_DELIVERY: dict[str, frozenset[ExternalStatus]] = {
    Status.APPROVED: frozenset({ExternalStatus.COMPLETED}),
    Status.REJECTED: frozenset({ExternalStatus.FAILED}),
    Status.PENDING: _OPEN,
}


def _states(wanted: OrderFilter) -> frozenset[ExternalStatus]:
    """The states of delivery that the filter leaves; none when it contradicts itself."""
    left = _OPEN if wanted.open else _EVERY
    if wanted.status is not None:
        left &= _DELIVERY.get(wanted.status, frozenset())
    if wanted.external_status is not None:
        left = frozenset(state for state in left if state == wanted.external_status)
    return left


def _conditions(
    wanted: OrderFilter, states: frozenset[ExternalStatus], at: sa.Column[datetime]
) -> list[sa.ColumnElement[bool]]:
    o, ledger = m.orders.c, m.ledger_orders.c
    made: list[sa.ColumnElement[bool]] = []
    if wanted.tenant_id is not None:
        made.append(o.tenant_id == wanted.tenant_id)
    if states <= _OPEN:
        made.append(ledger.finished_at.is_(None))
    if len(states) == 1:
        made.append(ledger.external_status == next(iter(states)).value)
    if wanted.integration_id is not None:
        made.append(o.integration_id == wanted.integration_id)
    if wanted.older_than_s is not None:
        made.append(at < sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, wanted.older_than_s))
    if wanted.waiting == "any":
        made.append(ledger.waiting.is_not(None))
    elif wanted.waiting is not None:
        made.append(ledger.waiting == wanted.waiting)
    if wanted.number is not None:
        made.append(
            sa.tuple_(o.tenant_id, o.order_id).in_(sa.select(_known_under(wanted.number, wanted.tenant_id).subquery()))
        )
    return made


def find(engine: sa.Engine, number: str, limit: int = 20) -> list[Key]:
    """Orders known under this number: our order id, an attempt's reference, the provider's own id, or a player id."""
    with answering(), engine.connect() as connection:
        return [(row.tenant_id, row.order_id) for row in connection.execute(_known_under(number).limit(limit))]


def _known_under(number: str, tenant_id: str | None = None) -> sa.CompoundSelect[Any]:
    """One index look-up per kind of number; of a player the newest orders only, with a tenant the newest of its own."""
    a, o = m.attempts.c, m.orders.c
    number = number.replace("\x00", "\ufffd")  # which PostgreSQL cannot compare with
    played = sa.select(o.tenant_id, o.order_id).where(o.user_identifier == number).order_by(o.created_at.desc())
    if tenant_id is not None:
        played = played.where(o.tenant_id == tenant_id)
    return sa.union(
        sa.select(o.tenant_id, o.order_id).where(o.order_id == number),
        sa.select(a.tenant_id, a.order_id).where(a.reference == number),
        sa.select(a.tenant_id, a.order_id).where(a.external_order_id == number),
        sa.select(played.limit(PLAYER_ORDERS).subquery()),
    )


class Known(NamedTuple):
    """An attempt, found by a number of its own. ``open``: questions about it still make sense."""

    tenant_id: str
    order_id: str
    attempt: int
    check_number: int
    open: bool


def attempt_known_as(
    engine: sa.Engine, integration_id: str, reference: str | None, external_order_id: str | None
) -> Known | None:
    """The newest attempt at this integration with our reference, or with the provider's own id."""
    a = m.attempts.c
    said = ((a.reference, reference), (a.external_order_id, external_order_id))
    numbers = [column == number for column, number in said if number is not None]
    watched = a.state.in_([state.value for state in LIVE]) | (a.watch_until > sa.func.now())
    query = (
        sa.select(a.tenant_id, a.order_id, a.attempt, a.check_number, sa.func.coalesce(watched, False))
        .where(a.integration_id == integration_id, sa.and_(*numbers))
        .order_by(a.created_at.desc())
        .limit(1)
    )
    with answering(), engine.connect() as connection:
        row = connection.execute(query).one_or_none()
    return Known(*row) if row is not None else None


def attention(
    engine: sa.Engine, *, tenant_id: str | None = None, everything: bool = False, limit: int = 100
) -> list[Row]:
    """What waits for a person, oldest first; with ``everything`` also what was acknowledged."""
    query = sa.select(m.attention).order_by(m.attention.c.since, m.attention.c.id).limit(limit)
    if tenant_id is not None:
        query = query.where(m.attention.c.tenant_id == tenant_id)
    if not everything:
        query = query.where(m.attention.c.acknowledged_at.is_(None))
    with answering(), engine.connect() as connection:
        return _all(connection, query)


def dead_letters(
    engine: sa.Engine,
    *,
    reason: str | None = None,
    everything: bool = False,
    after: int = 0,
    limit: int = 100,
    tenant_id: str | None = None,
) -> list[Row]:
    """Dead letters that were not replayed yet (``everything``: all), by id, behind the id ``after``."""
    letters = m.dead_letters
    query = sa.select(letters).where(letters.c.id > after).order_by(letters.c.id).limit(limit)
    if tenant_id is not None:
        query = query.where(letters.c.tenant_id == tenant_id)
    if reason is not None:
        query = query.where(letters.c.reason == reason)
    if not everything:
        query = query.where(letters.c.replayed_at.is_(None))
    with answering(), engine.connect() as connection:
        return _all(connection, query)


def dead_letter(engine: sa.Engine, number: int) -> Row | None:
    """One dead letter."""
    with answering(), engine.connect() as connection:
        return _one(connection, sa.select(m.dead_letters).where(m.dead_letters.c.id == number))


def code_stock(engine: sa.Engine, tenant_id: str | None = None) -> list[Row]:
    """Codes per tenant and group: how many are available, how many were taken."""
    c = m.codes.c
    query = (
        sa.select(
            c.tenant_id,
            c.code_group,
            sa.func.count().filter(c.reference.is_(None)).label("available"),
            sa.func.count().filter(c.reference.is_not(None)).label("taken"),
            sa.func.max(c.loaded_at).label("last_loaded_at"),
        )
        .group_by(c.tenant_id, c.code_group)
        .order_by(c.tenant_id, c.code_group)
    )
    if tenant_id is not None:
        query = query.where(c.tenant_id == tenant_id)
    with answering(), engine.connect() as connection:
        return _all(connection, query)


def integration_states(engine: sa.Engine) -> dict[str, Row]:
    """Last known balance and catalogue per integration."""
    with answering(), engine.connect() as connection:
        return {row["integration_id"]: row for row in _all(connection, sa.select(m.integration_state))}


def catalogue_prices(engine: sa.Engine) -> dict[tuple[str, str], Decimal]:
    """Price of one unit by (integration, the provider's package id), from the last catalogues."""
    text = """
select s.integration_id, c ->> 'package_id', cast(split_part(c ->> 'price', ' ', 1) as numeric)
from integration_state s, jsonb_array_elements(
    case when jsonb_typeof(s.catalogue) = 'array' then s.catalogue else '[]' end) c where c ->> 'price' is not null"""
    with answering(), engine.connect() as connection:
        return {(row[0], row[1]): row[2] for row in connection.execute(sa.text(text))}


@dataclass(frozen=True, slots=True)
class Health:
    """The numbers behind ``orderwatch doctor``, by the database's clock ``now``.

    ``behind`` counts orders whose last status change the projection has not shown, among the ``RECENT`` newest changes
    of the past week; ``swept`` is what the sweeper said at the end of its last pass.
    """

    now: datetime
    overdue: int
    overdue_since: datetime | None
    unknown: int
    open_orders: int
    attention: int
    attention_since: datetime | None
    dead_letters: int
    behind: int
    behind_since: datetime | None
    swept: Mapping[str, Any] | None
    swept_at: datetime | None


def health(engine: sa.Engine, *, slack_s: float) -> Health:
    """How the ledger and its views stand. A check is overdue when it was due more than ``slack_s`` seconds ago."""
    late = sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, slack_s)
    ledger, a, o = m.ledger_orders, m.attempts, m.orders
    due = sa.union_all(
        sa.select(a.c.next_check_at.label("at")).where(a.c.next_check_at < late),
        sa.select(ledger.c.next_check_at).where(ledger.c.next_check_at < late),
    ).subquery()
    told = (
        sa.select(ledger.c.tenant_id, ledger.c.order_id, ledger.c.version, ledger.c.last_event_at)
        .where(ledger.c.last_event_at.between(sa.func.now() - sa.text("interval '7 days'"), late))
        .order_by(ledger.c.last_event_at.desc())
        .limit(RECENT)
        .subquery()
    )
    # One look-up per change, whatever the planner thinks of reading all orders instead.
    shown = sa.select(o.c.version).where(o.c.tenant_id == told.c.tenant_id, o.c.order_id == told.c.order_id)
    behind = sa.select(sa.func.count().label("n"), sa.func.min(told.c.last_event_at).label("at")).where(
        told.c.version > sa.func.coalesce(shown.scalar_subquery(), 0)
    )
    unread = m.attention.c.acknowledged_at.is_(None)
    with answering(), engine.connect() as connection:
        overdue = connection.execute(sa.select(sa.func.count(), sa.func.min(due.c.at))).one()
        lagging = connection.execute(behind).one()
        waiting = connection.execute(sa.select(sa.func.count(), sa.func.min(m.attention.c.since)).where(unread)).one()
        swept = _one(connection, sa.select(m.service_state).where(m.service_state.c.key == "sweep"))
        return Health(
            now=connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one(),
            overdue=overdue[0],
            overdue_since=overdue[1],
            unknown=_count(connection, a, a.c.state == AttemptState.UNKNOWN.value),
            open_orders=_count(connection, ledger, ledger.c.finished_at.is_(None)),
            attention=waiting[0],
            attention_since=waiting[1],
            dead_letters=_count(connection, m.dead_letters, m.dead_letters.c.replayed_at.is_(None)),
            behind=lagging[0],
            behind_since=lagging[1],
            swept=swept["value"] if swept else None,
            swept_at=swept["at"] if swept else None,
        )


def database_now(engine: sa.Engine) -> datetime:
    """The database's clock, this instant."""
    with answering(), engine.connect() as connection:
        now: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return now


def _count(connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]) -> int:
    counted: int = connection.execute(sa.select(sa.func.count()).select_from(table).where(condition)).scalar_one()
    return counted


def _all(connection: sa.Connection, query: sa.Executable) -> list[Row]:
    return [_plain(row) for row in connection.execute(query).mappings()]


def _one(connection: sa.Connection, query: sa.Executable) -> Row | None:
    row = connection.execute(query).mappings().one_or_none()
    return _plain(row) if row is not None else None


def _plain(row: sa.RowMapping) -> dict[str, Any]:
    """SQLAlchemy's column names are a subclass of ``str``, which msgspec refuses as keys."""
    return {str(name): value for name, value in row.items()}


def _tenant_of(value: bytes | None) -> str | None:
    """The tenant a dead letter speaks of, if it can be read at all."""
    try:
        said = json.loads(value or b"")
    except ValueError:
        return None
    tenant = said.get("tenant_id") if isinstance(said, dict) else None
    return tenant if isinstance(tenant, str) else None
