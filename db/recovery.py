"""What `orderwatch db recover` asks the ledger: which orders are final, and which are open."""

from collections.abc import Collection, Iterator

import sqlalchemy as sa

from db.engine import answering
from db.rows import Key, parameters

_FINISHED = """
select l.tenant_id, l.order_id from json_to_recordset(%s::json) as x(tenant_id text, order_id text)
join ledger_orders l using (tenant_id, order_id) where l.finished_at is not null limit %s"""
_OPEN = """
select tenant_id, order_id from ledger_orders where finished_at is null and (tenant_id, order_id) > (:tenant, :order)
order by tenant_id, order_id limit :page"""


def finished(engine: sa.Engine, keys: Collection[Key]) -> set[Key]:
    """Those of these orders that are final in the ledger."""
    rows = [{"tenant_id": tenant_id, "order_id": order_id} for tenant_id, order_id in keys]
    with answering(engine), engine.connect() as connection:
        found = connection.exec_driver_sql(_FINISHED, parameters(rows)).all()
    return {(row[0], row[1]) for row in found}


def open_orders(engine: sa.Engine, page: int = 1000) -> Iterator[Key]:
    """Every order that is not final, by tenant and id."""
    last: Key = ("", "")
    while True:
        with answering(engine), engine.connect() as connection:
            values = {"tenant": last[0], "order": last[1], "page": page}
            rows = connection.execute(sa.text(_OPEN), values).all()
        if not rows:
            return
        yield from ((row[0], row[1]) for row in rows)
        last = (rows[-1][0], rows[-1][1])
