"""What people asked for: received once per id of a tenant, decided once, together with what follows from it in the
ledger.

The decision itself is written by ``db.ledger`` in the transaction of its change. Every function raises
``StoreUnavailable`` when the database does not answer.
"""

import time
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from db import models as m
from db.engine import answering
from db.rows import Answer, Commanded

_COLUMNS = [m.commands.c[name] for name in Commanded.__struct_fields__]
_POLL_S = 0.05


def receive(engine: sa.Engine, command: Commanded) -> Commanded:
    """Write a command down unless the tenant used its id; the command as it stands, which may be another one's."""
    said = msgspec.structs.asdict(command)
    new = insert(m.commands).values({name: said[name] for name in ("command_id", "tenant_id", "order_id", "action",
                                                                   "by", "reason", "issued_at")})
    with answering(engine), engine.begin() as connection:
        connection.execute(new.on_conflict_do_nothing())
        return _convert(connection.execute(_with_id(command.tenant_id, command.command_id)).mappings().one())


def answer(engine: sa.Engine, told: Answer) -> None:
    """Decide a command that changes no order; a decided one keeps its answer."""
    c = m.commands
    decided = {"done": told.done, "said": told.said, "decided_at": sa.func.clock_timestamp()}
    with answering(engine), engine.begin() as connection:
        connection.execute(
            sa.update(c).values(decided)
            .where(c.c.command_id == told.command_id, c.c.tenant_id == told.tenant_id, c.c.decided_at.is_(None))
        )


def result(engine: sa.Engine, tenant_id: str | None, command_id: str) -> Commanded | None:
    """The tenant's command with this id, decided or not; None while no worker has received it.

    Without a tenant the newest one of all that have this id.
    """
    with answering(engine), engine.connect() as connection:
        row = connection.execute(_with_id(tenant_id, command_id)).mappings().one_or_none()
        return None if row is None else _convert(row)


def wait(engine: sa.Engine, tenant_id: str, command_id: str, timeout_s: float) -> Commanded | None:
    """``result`` once it is decided, or as it stands after ``timeout_s``. Blocks: not for an event loop."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        found = result(engine, tenant_id, command_id)
        if (found is not None and found.done is not None) or time.monotonic() >= give_up_at:
            return found
        time.sleep(_POLL_S)


def of_order(engine: sa.Engine, tenant_id: str, order_id: str, limit: int = 50) -> list[Commanded]:
    """The newest commands about one order, newest first."""
    c = m.commands.c
    query = (
        sa.select(*_COLUMNS).where(c.tenant_id == tenant_id, c.order_id == order_id)
        .order_by(c.received_at.desc(), c.command_id).limit(limit)
    )
    with answering(engine), engine.connect() as connection:
        return [_convert(row) for row in connection.execute(query).mappings()]


def _with_id(tenant_id: str | None, command_id: str) -> sa.Select[Any]:
    c = m.commands.c
    query = sa.select(*_COLUMNS).where(c.command_id == command_id).order_by(c.received_at.desc()).limit(1)
    return query if tenant_id is None else query.where(c.tenant_id == tenant_id)


def _convert(row: sa.RowMapping) -> Commanded:
    return msgspec.convert({str(name): value for name, value in row.items()}, Commanded)
