"""The views that people and programs read: rebuilt from events, never asked by the engine before it acts.

Each write may come twice or late; the newest version wins and nothing is ever counted.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from db.batch import Batcher
from db.engine import answering
from db.rows import parameters

_Row = dict[str, Any]
#: What a statement may write at once: rows that came together -> one list for each time that it runs.
_Batches = Callable[[Iterable[_Row]], list[list[_Row]]]
#: What comes for the same view within this time is written together: whoever reads it looks every second or so.
_GATHER_S = 0.02
#: Each may be as large as a record can be, and is said in twice as many letters.
_LETTERS = 8

_REFERENCED = """
with input as (select * from json_to_recordset(%s::json) as x(
    tenant_id text, order_id text, attempt int, integration_id text, provider text, provider_referans text,
    external_order_id text, cost_amount numeric, cost_currency text, balance_amount numeric, balance_currency text,
    sent_at timestamptz) limit %s
), balances as (
    insert into integration_state as s (integration_id, balance_amount, balance_currency, balance_at)
    select distinct on (integration_id) integration_id, balance_amount, balance_currency, sent_at from input
    where balance_amount is not null order by integration_id, sent_at desc
    on conflict (integration_id) do update set balance_amount = excluded.balance_amount,
        balance_currency = excluded.balance_currency, balance_at = excluded.balance_at
    where s.balance_at is null or s.balance_at <= excluded.balance_at
)
update orders o set integration_id = i.integration_id, provider = i.provider,
    provider_referans = i.provider_referans, external_order_id = coalesce(i.external_order_id, o.external_order_id),
    cost_amount = coalesce(i.cost_amount, o.cost_amount), cost_currency = coalesce(i.cost_currency, o.cost_currency),
    attempts = greatest(o.attempts, i.attempt), sent_at = coalesce(o.sent_at, i.sent_at), updated_at = now()
from input i where o.tenant_id = i.tenant_id and o.order_id = i.order_id and i.attempt >= o.attempts"""

_STATUS = """
with input as (select * from json_to_recordset(%s::json) as x(
    tenant_id text, order_id text, version int, status text, external_status text, reason text, message text,
    attempt int, integration_id text, provider_referans text, checks int, occurred_at timestamptz, pins json,
    cost_amount numeric, cost_currency text) limit %s
)
update orders o set version = i.version, status = i.status, external_status = i.external_status, reason = i.reason,
    message = coalesce(i.message, o.message), checks = greatest(o.checks, i.checks),
    integration_id = coalesce(i.integration_id, o.integration_id),
    provider_referans = coalesce(i.provider_referans, o.provider_referans),
    attempts = greatest(o.attempts, coalesce(i.attempt, 0)),
    pins = case when i.pins is null then o.pins
        else array(select json_array_elements_text(i.pins)) end,
    cost_amount = coalesce(i.cost_amount, o.cost_amount), cost_currency = coalesce(i.cost_currency, o.cost_currency),
    last_sync_at = case when i.reason = 'provider' then i.occurred_at else o.last_sync_at end,
    completed_at = case when i.reason = 'reversal' then o.completed_at
        when i.external_status in ('completed', 'failed') then i.occurred_at end,
    updated_at = now()
from input i where o.tenant_id = i.tenant_id and o.order_id = i.order_id and i.version > o.version"""

_ATTENTION = """
insert into attention (id, tenant_id, order_id, integration_id, code, message, since)
select id, tenant_id, order_id, integration_id, code, message, since from json_to_recordset(%s::json) as x(
    id text, tenant_id text, order_id text, integration_id text, code text, message text, since timestamptz) limit %s
on conflict do nothing"""

_DEAD_LETTER = """
insert into dead_letters (topic, partition, "offset", agent, reason, error, key, value, headers, at, tenant_id)
select topic, partition, "offset", agent, reason, error, decode(key, 'hex'), decode(value, 'hex'), headers, at,
    tenant_id
from json_to_recordset(%s::json) as x(topic text, partition int, "offset" bigint, agent text, reason text, error text,
    key text, value text, headers jsonb, at timestamptz, tenant_id text) limit %s
on conflict do nothing"""


class Views:
    """Writes the views, many rows at once. Every method raises ``StoreUnavailable`` when the database does not answer;
    then it may have written some of the rows, and all of them may be written again."""

    def __init__(self, engine: sa.Engine, executor: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._referenced, self._status, self._attention, self._dead_letters = (
            Batcher[Sequence[_Row], None](  # none share a key: what waits lives, and has an id of its own
                partial(self._write, statement, batches), id, executor, limit, name, _GATHER_S
            )
            for name, statement, batches, limit in (
                ("referenced", _REFERENCED, one_by_one, 200),
                ("status", _STATUS, one_by_one, 200),
                ("attention", _ATTENTION, _by("id"), 200),
                ("dead-letter", _DEAD_LETTER, _by("topic", "partition", "offset"), _LETTERS),
            )
        )

    async def referenced(self, rows: Sequence[_Row]) -> None:
        """Attempts were placed: integration, reference, cost, and the balance the provider told with it."""
        await self._referenced(rows)

    async def status(self, rows: Sequence[_Row]) -> None:
        """Orders moved; older versions change nothing."""
        await self._status(rows)

    async def attention(self, rows: Sequence[_Row]) -> None:
        """Something waits for a person; once per id."""
        await self._attention(rows)

    async def dead_letter(
        self,
        *,
        topic: str,
        partition: int,
        offset: int,
        agent: str,
        reason: str,
        error: str,
        key: bytes | None,
        value: bytes | None,
        headers: dict[str, str],
        at: datetime,
        tenant_id: str | None = None,
    ) -> None:
        """An event was set aside; once per place it came from. ``tenant_id``: whose it is, where that was readable."""
        await self._dead_letters(
            [
                {
                    "topic": topic,
                    "partition": partition,
                    "offset": offset,
                    "agent": agent,
                    "reason": reason,
                    "error": error,
                    "key": key.hex() if key is not None else None,
                    "value": value.hex() if value is not None else None,
                    "headers": headers,
                    "at": at,
                    "tenant_id": tenant_id,
                }
            ]
        )

    def _write(self, statement: str, batches: _Batches, together: Sequence[Sequence[_Row]]) -> list[None]:
        with answering(self._engine), self._engine.begin() as connection:
            for rows in batches(chain.from_iterable(together)):
                connection.exec_driver_sql(statement, parameters(rows))
        return [None] * len(together)


def _by(*fields: str) -> _Batches:
    """All at once, in this order: as in ``one_by_one``, two writers lock in the same one."""
    return lambda rows: [sorted(rows, key=itemgetter(*fields))]


def one_by_one(rows: Iterable[_Row]) -> list[list[_Row]]:
    """The rows in as many batches as the busiest order has rows: an UPDATE takes only one row for each order.

    Each batch is sorted by order, so that two writers lock in the same order.
    """
    batches: list[list[_Row]] = []
    seen: Counter[tuple[str, str]] = Counter()
    for row in rows:
        nth = seen[key := _order_of(row)]
        seen[key] = nth + 1
        if nth == len(batches):
            batches.append([])
        batches[nth].append(row)
    for batch in batches:
        batch.sort(key=_order_of)
    return batches


def _order_of(row: _Row) -> tuple[str, str]:
    return (row["tenant_id"], row["order_id"])
