"""Codes in stock: each is given to one reference, once, however often that reference asks."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from db.clock import Clock
from db.engine import answering
from streams.errors import StoreUnavailable

# Reserve and settle are one step: a crash after it finds the same codes under the same reference. The lock on the
# reference makes two senders of one attempt wait for each other instead of each taking codes.
_TAKE = """
with mine as (select sealed from codes where reference = :reference),
free as (
    select id from codes where tenant_id = :tenant and code_group = :group and reference is null
    and not exists (select 1 from mine) order by id limit :quantity for update skip locked
), taken as (
    update codes set reference = :reference, taken_at = now() from free
    where codes.id = free.id and (select count(*) from free) = :quantity returning codes.sealed
)
select sealed from mine union all select sealed from taken"""


_PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2)


class CodeStock:
    """``agents.providers.base.Stock`` on PostgreSQL. Raises ``StoreUnavailable`` when it does not answer."""

    def __init__(self, engine: sa.Engine, executor: ThreadPoolExecutor, clock: Clock) -> None:
        self._engine = engine
        self._executor = executor
        self._clock = clock

    async def take(self, tenant_id: str, group: str, reference: str, quantity: int) -> Sequence[str] | None:
        """The sealed codes of this reference, taken now or before; None when the group has too few.

        Raises ``StoreUnavailable`` also when others hold the last codes and may still give them back.
        """

        def run() -> list[str]:
            with answering(self._engine), self._engine.begin() as connection:
                connection.execute(
                    sa.text("select pg_advisory_xact_lock(hashtextextended(:reference, 0))"), {"reference": reference}
                )
                values = {"tenant": tenant_id, "group": group, "reference": reference, "quantity": quantity}
                return list(connection.execute(sa.text(_TAKE), values).scalars())

        for pause_s in _PAUSES_S:
            codes = await self._clock.loop().run_in_executor(self._executor, run)
            if codes:
                return codes
            if await self.left(tenant_id, group) < quantity:
                return None
            await asyncio.sleep(pause_s)  # somebody who wants too many looked at them just now
        raise StoreUnavailable(f"the codes of group {group} are held by others")

    async def taken(self, reference: str) -> Sequence[str]:
        """The sealed codes already given to this reference; empty when none."""
        return await self._column("select sealed from codes where reference = :reference", reference=reference)

    async def left(self, tenant_id: str, group: str) -> int:
        """How many codes of this group are still available; counted up to 1,000."""
        rows = await self._column(
            "select count(*) from (select from codes where tenant_id = :tenant and code_group = :group"
            " and reference is null limit 1000) available",
            tenant=tenant_id,
            group=group,
        )
        return int(rows[0])

    async def _column(self, text: str, **values: object) -> list[str]:
        def run() -> list[str]:
            with answering(self._engine), self._engine.connect() as connection:
                return list(connection.execute(sa.text(text), values).scalars())

        return await self._clock.loop().run_in_executor(self._executor, run)
