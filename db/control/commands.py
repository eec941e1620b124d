"""What people asked for: received once per id of a tenant, decided once, together with what follows from it in the
ledger.

The decision itself is written by ``db.ledger`` in the transaction of its change. Every function raises
``StoreUnavailable`` when the database does not answer.
"""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from db import models as m
from db.control import integration_state
from db.engine import answering
from db.rows import Answer, CommandRecord, Replay

_COLUMNS = [m.commands.c[name] for name in CommandRecord.__struct_fields__]
_POLL_S = 0.05


def receive(engine: sa.Engine, command: CommandRecord) -> CommandRecord:
    """Write a command down unless the tenant used its id; the command as it stands, which may be another one's."""
    said = msgspec.structs.asdict(command)
    new = insert(m.commands).values(
        {name: said[name] for name in ("command_id", "tenant_id", "order_id", "action", "by", "reason", "issued_at")}
    )
    with answering(engine), engine.begin() as connection:
        connection.execute(new.on_conflict_do_nothing())
        return _convert(connection.execute(_with_id(command.tenant_id, command.command_id)).mappings().one())


def answer(engine: sa.Engine, told: Answer) -> None:
    """Decide a command that changes no order; a decided one keeps its answer."""
    c = m.commands
    decided = {"done": told.done, "said": told.said, "decided_at": sa.func.clock_timestamp()}
    with answering(engine), engine.begin() as connection:
        connection.execute(
            sa.update(c)
            .values(decided)
            .where(c.c.command_id == told.command_id, c.c.tenant_id == told.tenant_id, c.c.decided_at.is_(None))
        )


def acknowledge(engine: sa.Engine, command: CommandRecord, ids: Sequence[str]) -> None:
    """Mark attentions as seen by whoever commands it, those of the command's tenant if it has one, and answer it.

    All in one transaction, with an audit row for each and a step in the timeline of its order. A decided command keeps
    its answer.
    """
    wanted = list(dict.fromkeys(ids))
    said = {
        "ids": wanted,
        "tenant": command.tenant_id,
        "by": command.by,
        "reason": command.reason,
        "command": command.command_id,
        "actor": f"operator:{command.by}",
    }
    with answering(engine), engine.begin() as connection:
        if not _mine(connection, command):
            return
        seen = set(connection.execute(sa.text(_ACKNOWLEDGE), said).scalars())
        moved = [number for number in wanted if number in seen]
        rest = len(wanted) - len(moved)
        text = f"seen: {len(moved)}" + (f"; not there, or seen before: {rest}" if rest else "")
        _decide(connection, command, bool(moved), text, moved)


_ACKNOWLEDGE = """
with seen as (
    update attention set acknowledged_at = clock_timestamp(), acknowledged_by = :by
    where id = any(:ids) and acknowledged_at is null and (:tenant = '' or tenant_id = :tenant)
    returning id, tenant_id, order_id, code
), noted as (
    insert into audit (actor, action, tenant_id, order_id, details)
    select :by, 'attention.ack', tenant_id, order_id, jsonb_build_object('attention', id, 'code', code,
        'reason', cast(:reason as text), 'command', cast(:command as text)) from seen
), timeline as (
    insert into order_events (tenant_id, order_id, step, actor, details)
    select tenant_id, order_id, 'acknowledged', :actor, jsonb_build_object('code', code, 'by', cast(:by as text),
        'reason', cast(:reason as text), 'command', cast(:command as text))
    from seen where tenant_id is not null and order_id is not null
)
select id from seen"""


def letters(engine: sa.Engine, command: CommandRecord, ids: Sequence[int]) -> list[dict[str, Any]]:
    """The dead letters with these ids that were not sent again yet, those of the command's tenant if it has one."""
    c = m.dead_letters.c
    query = sa.select(m.dead_letters).where(c.id.in_(ids), c.replayed_at.is_(None)).order_by(c.id)
    if command.tenant_id:
        query = query.where(c.tenant_id == command.tenant_id)
    with answering(engine), engine.connect() as connection:
        return [{str(name): value for name, value in row.items()} for row in connection.execute(query).mappings()]


def replayed(engine: sa.Engine, command: CommandRecord, sent: Sequence[Replay], said: str) -> None:
    """Remember which dead letters the broker has again, with an audit row for each, and answer the command."""
    moved = [one.letter for one in sent]
    with answering(engine), engine.begin() as connection:
        if not _mine(connection, command):
            return
        for one in sent:
            integration_state.audit(
                connection,
                command.by,
                "dead_letter.replay",
                tenant_id=one.tenant_id,
                order_id=one.order_id,
                details={
                    "dead_letter": one.letter,
                    "event": one.event_id,
                    "corrected": one.corrected,
                    "reason": command.reason,
                    "command": command.command_id,
                },
            )
        connection.execute(
            sa.update(m.dead_letters)
            .where(m.dead_letters.c.id.in_(moved))
            .values(replayed_at=sa.func.now(), replayed_by=command.by)
        )
        _decide(connection, command, bool(sent), said, moved)


def _mine(connection: sa.Connection, command: CommandRecord) -> bool:
    """Whether the command waits for its decision; nobody else decides it before this transaction ends."""
    c = m.commands.c
    found = sa.select(c.decided_at).where(c.command_id == command.command_id, c.tenant_id == command.tenant_id)
    return connection.execute(found.with_for_update()).scalar_one() is None


def _decide(
    connection: sa.Connection, command: CommandRecord, done: bool, said: str, moved: Sequence[str | int]
) -> None:
    c = m.commands
    connection.execute(
        sa.update(c)
        .where(c.c.command_id == command.command_id, c.c.tenant_id == command.tenant_id)
        .values(done=done, said=said, moved=list(moved), decided_at=sa.func.clock_timestamp())
    )


def result(engine: sa.Engine, tenant_id: str | None, command_id: str) -> CommandRecord | None:
    """The tenant's command with this id, decided or not; None while no worker has received it.

    Without a tenant the newest one of all that have this id.
    """
    with answering(engine), engine.connect() as connection:
        row = connection.execute(_with_id(tenant_id, command_id)).mappings().one_or_none()
        return None if row is None else _convert(row)


def wait(engine: sa.Engine, tenant_id: str, command_id: str, timeout_s: float) -> CommandRecord | None:
    """``result`` once it is decided, or as it stands after ``timeout_s``. Blocks: not for an event loop."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        found = result(engine, tenant_id, command_id)
        if (found is not None and found.done is not None) or time.monotonic() >= give_up_at:
            return found
        time.sleep(_POLL_S)


def of_order(engine: sa.Engine, tenant_id: str, order_id: str, limit: int = 50) -> list[CommandRecord]:
    """The newest commands about one order, newest first."""
    c = m.commands.c
    query = (
        sa.select(*_COLUMNS)
        .where(c.tenant_id == tenant_id, c.order_id == order_id)
        .order_by(c.received_at.desc(), c.command_id)
        .limit(limit)
    )
    with answering(engine), engine.connect() as connection:
        return [_convert(row) for row in connection.execute(query).mappings()]


def _with_id(tenant_id: str | None, command_id: str) -> sa.Select[Any]:
    c = m.commands.c
    query = sa.select(*_COLUMNS).where(c.command_id == command_id).order_by(c.received_at.desc()).limit(1)
    return query if tenant_id is None else query.where(c.tenant_id == tenant_id)


def _convert(row: sa.RowMapping) -> CommandRecord:
    return msgspec.convert({str(name): value for name, value in row.items()}, CommandRecord)
