"""The ledger: the only guard against buying twice. Every write is one statement for many orders, guarded per order.

Rows travel as one JSON parameter; PostgreSQL unpacks it. A write names the revision it was decided on and is refused
when the order has moved since, so a decision never lands on a state that it did not see.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa

from db.batch import Batcher
from db.clock import Clock
from db.control import commands
from db.engine import answering
from db.models import WORRYING_SQL
from db.rows import Answer, Attempt, Change, CommandRecord, Key, Order, OrderState, Replay, parameters
from streams.errors import LedgerBehind

T = TypeVar("T")

#: So many of the newest commits are looked for at each write, none older than so many seconds. More than one, because
#: threads may learn of two commits in another order than the server made them.
_COMMITS_CHECKED, _COMMITS_CHECKED_S = 4, 60.0

_decode_state = msgspec.json.Decoder(OrderState, strict=False).decode

#: Columns that a change may write; the rest is set once, when the row is born.
_ORDER_MUTABLE = (
    "status",
    "external_status",
    "version",
    "last_event",
    "last_event_at",
    "lines",
    "attempts",
    "waiting",
    "waiting_since",
    "raised",
    "next_check_at",
    "check_number",
    "finished_at",
    "look_up_to",
)
_ATTEMPT_COLUMNS = tuple(field for field in Attempt.__struct_fields__ if field != "created_at")
_ATTEMPT_MUTABLE = tuple(
    column
    for column in _ATTEMPT_COLUMNS
    if column not in {"attempt", "line", "quantity", "integration_id", "provider", "reference", "wire"}
)

_WRITE_ATTEMPTS = f"""
    insert into attempts (tenant_id, order_id, {", ".join(_ATTEMPT_COLUMNS)})
    select k.tenant_id, k.order_id,
        {
    ", ".join(
        "case when k.lease_attempt = a.attempt then clock_timestamp() + make_interval(secs => k.lease_s)"
        " else a.lease_until end"
        if column == "lease_until"
        else "case when k.lease_attempt = a.attempt then clock_timestamp() + make_interval(secs => k.lease_s)"
        " else a.next_check_at end"
        if column == "next_check_at"
        else f"a.{column}"
        for column in _ATTEMPT_COLUMNS
    )
}
    from guarded k, json_populate_recordset(null::attempts, k.attempts) a
    order by k.tenant_id, k.order_id, a.attempt
    on conflict (tenant_id, order_id, attempt) do update set
        {", ".join(f"{column} = excluded.{column}" for column in _ATTEMPT_MUTABLE)}
    returning tenant_id, order_id, attempt, lease_until"""

_WRITE_STEPS = """
    insert into order_events (tenant_id, order_id, step, attempt, actor, details)
    select k.tenant_id, k.order_id, s.step, s.attempt, s.actor, s.details
    from guarded k, json_to_recordset(k.steps) as s(step text, attempt int, actor text, details jsonb)"""

_INPUT = """
with input as materialized (
    select * from json_to_recordset(%s::json) as x(
        i int, tenant_id text, order_id text, rev int, head json, attempts json, steps json,
        lease_attempt int, lease_s float8, only_expired int{}) limit %s
)"""


#: What was written, and whether the ledger still holds what this process committed last: see ``_Committed``.
_STORED = f"""
select k.i, w.lease_until, clock_timestamp(), not exists (
    select 1 from (select * from json_to_recordset(%s::json) as x(tenant_id text, order_id text, rev int)
        limit {_COMMITS_CHECKED}) c
    where not exists (select 1 from ledger_orders l
        where l.tenant_id = c.tenant_id and l.order_id = c.order_id and l.rev >= c.rev))
from guarded k
left join written w on w.tenant_id = k.tenant_id and w.order_id = k.order_id and w.attempt = k.lease_attempt"""


def _applying(columns: Sequence[str], fields: str = "", guard: str = "", also: str = "") -> str:
    """A statement that writes decisions, these columns of the order among them.

    The guard is evaluated again after a lock wait (READ COMMITTED), so of two racing writers one finds nothing.
    """
    return f"""{_INPUT.format(fields)}, guarded as materialized (
    select i.* from ledger_orders l join input i using (tenant_id, order_id)
    where l.rev = i.rev and (i.only_expired is null or exists (
        select 1 from attempts a where a.tenant_id = i.tenant_id and a.order_id = i.order_id
        and a.attempt = i.only_expired and a.state = 'sending' and a.lease_until < clock_timestamp())){guard}
    order by l.tenant_id, l.order_id for update of l
), head as (
    update ledger_orders l set rev = l.rev + 1, {", ".join(f"{column} = h.{column}" for column in columns)}
    from guarded k, json_populate_record(null::ledger_orders, k.head) h
    where l.tenant_id = k.tenant_id and l.order_id = k.order_id
), written as ({_WRITE_ATTEMPTS}
), timeline as ({_WRITE_STEPS}
){also}
{_STORED}"""


_APPLY = _applying(_ORDER_MUTABLE)

#: The same, together with the answer to the command that the decision is about.
_ANSWER = _applying(
    (*_ORDER_MUTABLE, "deadline_at"),
    fields=", command_id text, done boolean, said text, asked jsonb",
    guard=""" and exists (select 1 from commands c
        where c.command_id = i.command_id and c.tenant_id = i.tenant_id and c.decided_at is null)""",
    also=""", answered as (
    update commands c set done = k.done, said = k.said, asked = k.asked, decided_at = clock_timestamp()
    from guarded k where c.command_id = k.command_id and c.tenant_id = k.tenant_id
)""",
)

# The primary key decides who opens an order; the loser writes nothing at all.
_OPEN = f"""{_INPUT.format("")}, head as (
    insert into ledger_orders (tenant_id, order_id, fingerprint, request, deadline_at, accepted_at,
        {", ".join(_ORDER_MUTABLE)})
    select i.tenant_id, i.order_id, h.fingerprint, h.request, h.deadline_at, h.accepted_at,
        {", ".join(f"h.{column}" for column in _ORDER_MUTABLE)}
    from input i, json_populate_record(null::ledger_orders, i.head) h order by 1, 2
    on conflict do nothing
    returning tenant_id, order_id, request
), guarded as materialized (
    select i.*, h.request from input i join head h using (tenant_id, order_id)
), view as (
    insert into orders (tenant_id, order_id, package_id, quantity, user_identifier, extra_field, status,
        external_status, created_at)
    select k.tenant_id, k.order_id, r.package_id, coalesce(r.quantity, 1), r.user_identifier, r.extra_field,
        'pending', 'not_sent', r.created_at
    from guarded k, jsonb_to_record(k.request) as r(
        package_id text, quantity int, user_identifier text, extra_field text, created_at timestamptz)
    order by 1, 2
    on conflict do nothing
), written as ({_WRITE_ATTEMPTS}
), timeline as ({_WRITE_STEPS}
)
{_STORED}"""

_LOAD = """
with input as (select * from json_to_recordset(%s::json) as x(i int, tenant_id text, order_id text) limit %s)
select i.i, json_build_object('order', row_to_json(l), 'attempts', coalesce((
        select json_agg(a order by a.attempt) from attempts a
        where a.tenant_id = l.tenant_id and a.order_id = l.order_id), '[]'::json))::text, clock_timestamp()
from input i join ledger_orders l using (tenant_id, order_id)"""


class Due(NamedTuple):
    """An overdue check: what the sweeper repairs. Attempt 0 is the dispatch of an order with no live attempt."""

    tenant_id: str
    order_id: str
    attempt: int
    check_number: int
    due_at: datetime


class PublishWindow(NamedTuple):
    """Status changes from ``since`` to ``until``, by the database's clock."""

    since: datetime
    until: datetime


EVERYTHING = PublishWindow(datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC))

#: A transaction commits later than the instant that it wrote; the connection limits end it long before this.
_OVERLAP_S = 600.0
#: How long an event that the projection cannot take keeps the search from going on.
_LOOK_BACK = timedelta(days=2)
_QUERY_TIMEOUT_MS = 10_000

_OVERDUE = """
select tenant_id, order_id, attempt, check_number, next_check_at from (
    (select tenant_id, order_id, attempt, check_number, next_check_at from attempts
     where next_check_at < now() - make_interval(secs => :slack)
     and (next_check_at, tenant_id, order_id, attempt) > (:at, :tenant, :order, :attempt)
     order by next_check_at, tenant_id, order_id, attempt limit :page)
    union all
    (select tenant_id, order_id, 0, check_number, next_check_at from ledger_orders
     where next_check_at < now() - make_interval(secs => :slack)
     and (next_check_at, tenant_id, order_id, 0) > (:at, :tenant, :order, :attempt)
     order by next_check_at, tenant_id, order_id limit :page)
) due order by next_check_at, tenant_id, order_id, attempt limit :page"""

_PENDING = """
select tenant_id, order_id from ledger_orders
where finished_at is null and external_status <> 'expired'
and accepted_at < now() - make_interval(secs => :older) and not raised @> cast(:raised as jsonb)
and (tenant_id, order_id) > (:tenant, :order) order by tenant_id, order_id limit :page"""

_EXPIRING = """
select tenant_id, order_id from ledger_orders
where finished_at is null and external_status <> 'expired' and deadline_at < now()
and (tenant_id, order_id) > (:tenant, :order) order by tenant_id, order_id limit :page"""

# Two small sets, each behind an index of its own: what changed lately, and what is open and raised attention.
_UNPUBLISHED = f"""
select l.tenant_id, l.order_id from (
    select * from ledger_orders where last_event_at >= :since and last_event_at <= :until
    union
    select * from ledger_orders
    where {WORRYING_SQL}
) l join orders o using (tenant_id, order_id)
where (l.version > o.version and l.last_event_at < now() - make_interval(secs => :slack)
       or l.raised <> '[]' and exists (
           select 1 from jsonb_to_recordset(l.raised) as r(code text, since timestamptz)
           where r.since < now() - make_interval(secs => :slack) and (l.finished_at is null or r.code = 'reversal')
           group by r.code having count(*) > (
               select count(*) from attention a
               where a.tenant_id = l.tenant_id and a.order_id = l.order_id and a.code = r.code)))
and (l.tenant_id, l.order_id) > (:tenant, :order) order by l.tenant_id, l.order_id limit :page"""

_PUBLISH_WINDOW = """
with seen as (select cast(value ->> 'to' as timestamptz) as upto from service_state where key = 'published'),
started as (select coalesce((select upto - make_interval(secs => :overlap) from seen),
    timestamptz '0001-01-02 00:00:00+00') as since)
select since, least(now() - make_interval(secs => :slack), (
    select last_event_at from ledger_orders, started where last_event_at >= since
    order by last_event_at offset :events limit 1)) as until
from started"""

_PUBLISHED = """
insert into service_state (key, value, at)
values ('published', jsonb_build_object('to', cast(:upto as timestamptz)), now())
on conflict (key) do update set value = excluded.value, at = excluded.at
where cast(excluded.value ->> 'to' as timestamptz) > cast(service_state.value ->> 'to' as timestamptz)"""

_WAITING = """
select tenant_id, order_id, 0 as attempt, check_number, coalesce(waiting_since, accepted_at) from ledger_orders
where finished_at is null and external_status <> 'expired' and waiting = any(:codes) and next_check_at is null
and (tenant_id, order_id) > (:tenant, :order) order by tenant_id, order_id limit :page"""


_UNSENT = """
select tenant_id, order_id, attempt, check_number, next_check_at from attempts
where integration_id = :integration and state = 'intent' and next_check_at is not null
and (tenant_id, order_id, attempt) > (:tenant, :order, :attempt)
order by tenant_id, order_id, attempt limit :page"""


class _Committed:
    """The newest commits of this process. Each write checks in its own statement that the ledger still holds them, so a
    server that lost the end of its log takes nothing more from us: what is lost of a log is always its end."""

    def __init__(self) -> None:
        self.count = 0
        self._newest: deque[tuple[float, str, str, int]] = deque(maxlen=_COMMITS_CHECKED)

    def add(self, changes: Sequence[Change]) -> None:
        """These were one commit: any one of them stands for it."""
        self.count += len(changes)
        for change in changes[-1:]:
            self._newest.append((time.monotonic(), *change.order.key, change.order.rev))

    def parameter(self) -> str:
        """Older ones are left out: by then an order may have been deleted, and the epoch speaks for them."""
        since = time.monotonic() - _COMMITS_CHECKED_S
        newest = [
            {"tenant_id": tenant_id, "order_id": order_id, "rev": rev}
            for at, tenant_id, order_id, rev in tuple(self._newest)
            if at > since
        ]
        return parameters(newest)[0]

    def forget(self) -> None:
        self._newest.clear()


class Ledger:
    """The attempts of all orders, in PostgreSQL. Every method raises ``StoreUnavailable`` when it does not answer.

    Writes raise ``LedgerBehind`` while ``behind`` says why: the ledger has lost what it held before. No request leaves
    without a write, so nothing is sent then.
    """

    def __init__(self, engine: sa.Engine, executor: ThreadPoolExecutor, clock: Clock) -> None:
        self._engine = engine
        self._executor = executor
        self._clock = clock
        self._open, self._apply, self._answer = (
            Batcher[Change, Change | None](partial(self._write, statement), _key_of, executor, name=name)
            for name, statement in (("open", _OPEN), ("apply", _APPLY), ("answer", _ANSWER))
        )
        self.behind = ""
        self._committed = _Committed()
        self._load: Batcher[Key, OrderState | None] = Batcher(self._read, lambda key: key, executor, name="load")

    @property
    def commits(self) -> int:
        """How many orders this process has written."""
        return self._committed.count

    def go_on(self) -> None:
        """The ledger was reconciled: what it held before does not count any more."""
        self._committed.forget()
        self.behind = ""

    async def open(self, change: Change) -> Change | None:
        """Write a new order down, with its first attempts. None when the order is already known: then ``load`` it."""
        return await self._open(change)

    async def apply(self, change: Change) -> Change | None:
        """Write a decision. Returns it with ``order.rev`` and lease as stored, or None when the order moved first.

        With an ``answer``, None also when the command was never received, or decided before.
        """
        return await (self._apply(change) if change.answer is None else self._answer(change))

    async def receive(self, command: CommandRecord) -> CommandRecord:
        """Write a command down unless its id is known; the command as it stands, which may be another one's.

        Whoever decides reads the order first and this afterwards: then a command that somebody else decided in between
        is either seen here, or has moved the order.
        """
        return await self._in_thread(partial(commands.receive, self._engine, command))

    async def refuse(self, answer: Answer) -> None:
        """Answer a command about an order that there is not; a decided one keeps its answer."""
        await self._in_thread(partial(commands.answer, self._engine, answer))

    async def acknowledge(self, command: CommandRecord, ids: Sequence[str]) -> None:
        """Mark attentions as seen, and answer the received command that asked for it."""
        await self._in_thread(partial(commands.acknowledge, self._engine, command, ids))

    async def letters(self, command: CommandRecord, ids: Sequence[int]) -> list[dict[str, Any]]:
        """The dead letters that a command means and that were not sent again yet."""
        return await self._in_thread(partial(commands.letters, self._engine, command, ids))

    async def replayed(self, command: CommandRecord, sent: Sequence[Replay], said: str) -> None:
        """Remember that the broker has these dead letters again, and answer the command that asked for it."""
        await self._in_thread(partial(commands.replayed, self._engine, command, sent, said))

    async def load(self, key: Key) -> OrderState | None:
        """The order as it stands, or None when it was never accepted."""
        return await self._load(key)

    async def overdue(self, after: Due | None, slack_s: float, page: int) -> list[Due]:
        """Checks that are overdue by more than ``slack_s``, oldest first, the page after ``after``."""
        start = after or Due("", "", -1, 0, datetime.fromisoformat("0001-01-02T00:00:00+00:00"))
        rows = await self._query(
            _OVERDUE,
            slack=slack_s,
            page=page,
            at=start.due_at,
            tenant=start.tenant_id,
            order=start.order_id,
            attempt=start.attempt,
        )
        return [Due(*row) for row in rows]

    async def pending_longer(self, after: Key, older_s: float, code: str, discriminator: str, page: int) -> list[Key]:
        """Open orders older than ``older_s`` for which this attention was not raised yet."""
        raised, _ = parameters([{"code": code, "discriminator": discriminator}])
        rows = await self._query(_PENDING, older=older_s, raised=raised, tenant=after[0], order=after[1], page=page)
        return [(row[0], row[1]) for row in rows]

    async def past_deadline(self, after: Key, page: int) -> list[Key]:
        """Open orders whose deadline has passed and that were not yet given up asking about."""
        return [(row[0], row[1]) for row in await self._query(_EXPIRING, tenant=after[0], order=after[1], page=page)]

    async def publish_window(self, slack_s: float, events: int) -> PublishWindow:
        """What the next search for unpublished events looks at: about ``events`` status changes from the last one that
        was found published, with an overlap for transactions that committed late."""
        rows = await self._query(_PUBLISH_WINDOW, slack=slack_s, events=events, overlap=_OVERLAP_S)
        return PublishWindow(*rows[0])

    async def publish_checked(self, window: PublishWindow, found: int) -> None:
        """Go on behind ``window`` next time; with something found in it look again, for ``_LOOK_BACK`` at most."""
        upto = window.until - _LOOK_BACK if found else window.until
        await self._query(_PUBLISHED, upto=upto)

    async def unpublished(self, after: Key, slack_s: float, page: int, window: PublishWindow = EVERYTHING) -> list[Key]:
        """Orders of which something has not reached the views for more than ``slack_s``: a status change within
        ``window``, or an attention that still matters."""
        rows = await self._query(
            _UNPUBLISHED,
            slack=slack_s,
            tenant=after[0],
            order=after[1],
            page=page,
            since=window.since,
            until=window.until,
        )
        return [(row[0], row[1]) for row in rows]

    async def waiting(self, after: Key, codes: Sequence[str], page: int) -> list[Due]:
        """Orders that wait with one of these codes and have nothing scheduled."""
        rows = await self._query(_WAITING, codes=list(codes), tenant=after[0], order=after[1], page=page)
        return [Due(*row) for row in rows]

    async def unsent(self, integration_id: str, after: Due | None, page: int) -> list[Due]:
        """Attempts for one integration that were not sent yet, by order, the page after ``after``."""
        tenant_id, order_id, attempt = after[:3] if after is not None else ("", "", -1)
        rows = await self._query(
            _UNSENT, integration=integration_id, tenant=tenant_id, order=order_id, attempt=attempt, page=page
        )
        return [Due(*row) for row in rows]

    async def _query(self, text: str, **values: Any) -> Sequence[Any]:
        """The rows of one question of the sweeper. Its own limit is short: a slow question must not hold the others."""

        def run() -> Sequence[Any]:
            with answering(self._engine), self._engine.begin() as connection:
                connection.exec_driver_sql(f"set local statement_timeout = {_QUERY_TIMEOUT_MS}")
                result = connection.execute(sa.text(text), values)
                return result.all() if result.returns_rows else []

        return await self._in_thread(run)

    async def _in_thread(self, run: Callable[[], T]) -> T:
        return await self._clock.loop().run_in_executor(self._executor, run)

    def _write(self, statement: str, changes: Sequence[Change]) -> list[Change | None]:
        rows = [
            {
                "i": i,
                "tenant_id": change.order.tenant_id,
                "order_id": change.order.order_id,
                "rev": change.order.rev,
                "head": change.order,
                "attempts": change.attempts,
                "steps": change.steps,
                "lease_attempt": change.lease[0] if change.lease else None,
                "lease_s": change.lease[1] if change.lease else None,
                "only_expired": change.only_expired,
                **(msgspec.structs.asdict(change.answer) if change.answer is not None else {}),
            }
            for i, change in enumerate(changes)
        ]
        if self.behind:
            raise LedgerBehind(self.behind)
        with answering(self._engine), self._engine.begin() as connection:
            written = connection.exec_driver_sql(statement, (*parameters(rows), self._committed.parameter())).all()
            self._clock.observe(written[-1][2] if written else None)
            if written and not written[-1][3]:
                self.behind = "the ledger does not hold what this worker has committed"
                raise LedgerBehind(self.behind)  # rolls back
        stored: list[Change | None] = [None] * len(changes)
        for i, lease_until, *_ in written:
            stored[i] = _as_stored(changes[i], lease_until, born=statement is _OPEN)
        self._committed.add([change for change in stored if change is not None])
        return stored

    def _read(self, keys: Sequence[Key]) -> list[OrderState | None]:
        rows = [{"i": i, "tenant_id": key[0], "order_id": key[1]} for i, key in enumerate(keys)]
        with answering(self._engine), self._engine.connect() as connection:
            found = connection.exec_driver_sql(_LOAD, parameters(rows)).all()
        states: list[OrderState | None] = [None] * len(keys)
        for i, text, now in found:
            states[i] = _decode_state(text)
            self._clock.observe(now)
        return states


def _key_of(change: Change) -> Key:
    return change.order.key


def _as_stored(change: Change, lease_until: datetime | None, *, born: bool) -> Change:
    """The change with what the database added to it."""
    head: Order = msgspec.structs.replace(change.order, rev=change.order.rev if born else change.order.rev + 1)
    rows = change.attempts
    if change.lease is not None:
        rows = [
            msgspec.structs.replace(row, lease_until=lease_until, next_check_at=lease_until)
            if row.attempt == change.lease[0]
            else row
            for row in rows
        ]
    return msgspec.structs.replace(change, order=head, attempts=rows)
