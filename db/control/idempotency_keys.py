"""Orders that came in over HTTP, by the caller's Idempotency-Key: what was asked for, and whether the broker has it.

A row is written before the event is sent and marked after the broker acknowledged it. A crash between leaves it
unmarked: the caller asks again and the same event goes out again, under the same id. Every function raises
``StoreUnavailable`` when the database does not answer.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from db import models as m
from db.engine import answering

s = m.submissions.c


class Submission(NamedTuple):
    """``said_at`` is the instant that became the order's ``created_at`` when the caller gave none."""

    same: bool
    said_at: datetime
    accepted: bool


def begin(
    engine: sa.Engine, owner: str, key: str, digest: str, tenant_id: str, order_id: str, fingerprint: str
) -> Submission | None:
    """Write the request down, or find it. ``same`` is False when the key stands for a request with another digest.

    None, and nothing is written, when the order id stands for another content: in the ledger, or in a request of the
    past days. Of two requests at once about one order, one waits for the other.
    """
    row = {
        "owner": owner,
        "key": key,
        "digest": digest,
        "tenant_id": tenant_id,
        "order_id": order_id,
        "fingerprint": fingerprint,
    }
    mine = sa.select(m.submissions).where(s.owner == owner, s.key == key)
    with answering(), engine.begin() as connection:
        connection.execute(
            sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"{tenant_id}/{order_id}", 0)))
        )
        found = connection.execute(mine).one_or_none()
        if found is not None and (found.digest != digest or found.accepted_at is not None):
            return Submission(found.digest == digest, found.at, found.accepted_at is not None)
        if connection.execute(_taken(tenant_id, order_id, fingerprint)).scalar_one():
            return None
        connection.execute(insert(m.submissions).values(row).on_conflict_do_nothing())
        found = connection.execute(mine).one()
        return Submission(found.digest == digest, found.at, found.accepted_at is not None)


def _taken(tenant_id: str, order_id: str, fingerprint: str) -> sa.Select[tuple[bool]]:
    ledger = m.ledger_orders.c
    placed = sa.exists().where(
        ledger.tenant_id == tenant_id, ledger.order_id == order_id, ledger.fingerprint != fingerprint
    )
    asked = sa.exists().where(s.tenant_id == tenant_id, s.order_id == order_id, s.fingerprint != fingerprint)
    return sa.select(placed | asked)


def accepted(engine: sa.Engine, owner: str, key: str) -> None:
    """The broker acknowledged the event."""
    with answering(), engine.begin() as connection:
        connection.execute(
            sa.update(m.submissions)
            .where(s.owner == owner, s.key == key, s.accepted_at.is_(None))
            .values(accepted_at=sa.func.now())
        )


def forget(engine: sa.Engine, older_than: timedelta) -> int:
    """Drop what is older; how many. Their keys may be used again."""
    with answering(), engine.begin() as connection:
        return connection.execute(sa.delete(m.submissions).where(s.at < sa.func.now() - older_than)).rowcount
