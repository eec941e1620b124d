"""The numbers of one moment, for screens: flow, what is open, what is late, money at risk.

Each number comes from an index whose size follows what is open or recent, never from a walk through all orders.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import sqlalchemy as sa

from db.engine import answering

FLOW_MINUTES = 60

#: Upper ends of the buckets of checks that are due, in seconds from now; the last bucket has none.
BUCKETS_S = (60, 300, 900, 3600)


class Flow(msgspec.Struct, frozen=True):
    """What one whole minute brought; ``minute`` is its beginning. Orders count as accepted when the shop says so."""

    minute: datetime
    accepted: int = 0
    completed: int = 0
    failed: int = 0


class Due(msgspec.Struct, frozen=True):
    """Open checks due within ``within_s`` seconds and not in the bucket before; None: later than every bucket."""

    within_s: int | None
    checks: int


class Risk(msgspec.Struct, frozen=True):
    """Attempts at one integration that are being sent or whose outcome is unknown: each may have been paid.

    ``amount`` is in ``currency`` (empty: not told) and leaves out ``unpriced`` attempts, whose cost nobody knows.
    """

    integration_id: str
    tenant_id: str
    currency: str
    sending: int
    unknown: int
    unpriced: int
    amount: Decimal


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """By the database's clock ``now``. ``states`` counts open orders by delivery; ``waiting`` those for a person."""

    now: datetime
    flow: list[Flow]
    states: dict[str, int]
    waiting: int
    waiting_since: datetime | None
    due: list[Due]
    overdue: int
    overdue_since: datetime | None
    risk: list[Risk]
    attention: int
    attention_since: datetime | None
    dead_letters: int


_MINE = "(cast(:tenant as text) is null or tenant_id = :tenant)"

_ACCEPTED = f"""
select date_trunc('minute', created_at) as minute, count(*) as accepted from orders
where created_at >= :start and created_at <= now() and {_MINE} group by 1"""

_FINISHED = f"""
select date_trunc('minute', finished_at) as minute,
    count(*) filter (where external_status = 'completed') as completed,
    count(*) filter (where external_status = 'failed') as failed
from ledger_orders where finished_at >= :start and {_MINE} group by 1"""

_STATES = f"""
select external_status, count(*) as orders from ledger_orders where finished_at is null and {_MINE} group by 1"""

_WAITING = f"""
select count(*), min(waiting_since) from ledger_orders
where waiting is not null and finished_at is null and {_MINE}"""

_DUE = f"""
select width_bucket(extract(epoch from next_check_at - now())::float8, cast(:ends as float8[])), count(*),
    min(next_check_at)
from (
    select next_check_at, tenant_id from attempts where next_check_at is not null and settled_at is null
    union all select next_check_at, tenant_id from ledger_orders where next_check_at is not null
) due where {_MINE} group by 1"""

# The states are a part of those that idx_attempts_one_live holds, which is what makes it usable here.
_RISK = """
select a.integration_id, a.tenant_id, coalesce(a.cost_currency, i.doc ->> 'currency', '') as currency,
    count(*) filter (where a.state = 'sending') as sending, count(*) filter (where a.state = 'unknown') as unknown,
    count(*) filter (where coalesce(a.cost_amount, a.expected_cost) is null) as unpriced,
    coalesce(sum(coalesce(a.cost_amount, a.expected_cost)), 0) as amount
from attempts a left join integrations i on i.id = a.integration_id
where a.state in ('sending', 'unknown') and (cast(:tenant as text) is null or a.tenant_id = :tenant)
group by 1, 2, 3 order by 1, 2, 3"""

_ATTENTION = f"select count(*), min(since) from attention where acknowledged_at is null and {_MINE}"

_LETTERS = f"select count(*) from dead_letters where replayed_at is null and {_MINE}"


def overview(engine: sa.Engine, tenant_id: str | None = None, *, slack_s: float = 60) -> Overview:
    """Everything at once; a check is overdue when it was due more than ``slack_s`` seconds ago.

    With a tenant only what is its own. Raises ``StoreUnavailable``.
    """
    with answering(), engine.connect() as connection:
        now = connection.execute(sa.text("select now()")).scalar_one()

        def rows(text: str, **values: Any) -> list[sa.RowMapping]:
            found = connection.execute(sa.text(text), {"tenant": tenant_id, **values})
            return list(found.mappings())

        start = now.replace(second=0, microsecond=0).timestamp() - 60 * (FLOW_MINUTES - 1)
        first = datetime.fromtimestamp(start, now.tzinfo)
        ends = [-slack_s, *BUCKETS_S]
        due = {row["width_bucket"]: row for row in rows(_DUE, ends=ends)}
        late = due.get(0)
        [waiting], [attention], [letters] = rows(_WAITING), rows(_ATTENTION), rows(_LETTERS)
        return Overview(
            now=now,
            flow=_flow(first, rows(_ACCEPTED, start=first), rows(_FINISHED, start=first)),
            states={row["external_status"]: row["orders"] for row in rows(_STATES)},
            waiting=waiting["count"],
            waiting_since=waiting["min"],
            due=[
                Due(end, due[number]["count"] if number in due else 0)
                for number, end in enumerate((*BUCKETS_S, None), start=1)
            ],
            overdue=late["count"] if late else 0,
            overdue_since=late["min"] if late else None,
            risk=_risks(rows(_RISK)),
            attention=attention["count"],
            attention_since=attention["min"],
            dead_letters=letters["count"],
        )


class Queues(msgspec.Struct, frozen=True):
    """How much waits for a person in each queue."""

    attention: int
    dead_letters: int


def queues(engine: sa.Engine, tenant_id: str | None = None) -> Queues:
    """The two counts that stand beside every page. Raises ``StoreUnavailable``."""
    with answering(), engine.connect() as connection:
        counts = [
            connection.execute(sa.text(text), {"tenant": tenant_id}).scalars().one() for text in (_ATTENTION, _LETTERS)
        ]
    return Queues(*counts)


def risks(engine: sa.Engine, tenant_id: str | None = None) -> list[Risk]:
    """Money at risk per integration, tenant and currency. Raises ``StoreUnavailable``."""
    with answering(), engine.connect() as connection:
        return _risks(list(connection.execute(sa.text(_RISK), {"tenant": tenant_id}).mappings()))


def _risks(rows: list[sa.RowMapping]) -> list[Risk]:
    return [Risk(**{str(name): value for name, value in row.items()}) for row in rows]


def _flow(first: datetime, accepted: list[sa.RowMapping], finished: list[sa.RowMapping]) -> list[Flow]:
    came = {row["minute"]: row["accepted"] for row in accepted}
    went = {row["minute"]: (row["completed"], row["failed"]) for row in finished}
    minutes = [datetime.fromtimestamp(first.timestamp() + 60 * number, first.tzinfo) for number in range(FLOW_MINUTES)]
    return [Flow(minute, came.get(minute, 0), *went.get(minute, (0, 0))) for minute in minutes]
