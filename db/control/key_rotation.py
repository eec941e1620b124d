"""Every stored PIN under the newest key, so that older keys can be dropped.

Done in small transactions, each whole: what was resealed is recognised, so a run that was stopped is simply run again.
Safe while workers run, once each of them has the new key: an order's revision grows with its PINs, so a worker that
read it before decides anew.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import sqlalchemy as sa

from db import models as m
from db.control.integration_state import FINGERPRINT_KEY, audit
from db.engine import answering
from streams.errors import EventError

_BATCH = 200

_ORDERS = """
select tenant_id, order_id from ledger_orders l
where (tenant_id, order_id) > (:tenant, :order) and (jsonb_typeof(last_event->'pins') = 'array' or exists (
    select 1 from attempts a where a.tenant_id = l.tenant_id and a.order_id = l.order_id and cardinality(a.pins) > 0)
or exists (
    select 1 from orders v where v.tenant_id = l.tenant_id and v.order_id = l.order_id and cardinality(v.pins) > 0))
order by tenant_id, order_id limit :batch"""


class Sealing(Protocol):
    """``streams.seal.Sealer``."""

    def newest(self, sealed: str) -> bool: ...
    def rotate(self, sealed: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Resealed:
    """Progress: orders and codes looked at, sealed texts written anew, and those that no key of ours opens."""

    orders: int = 0
    codes: int = 0
    changed: int = 0
    foreign: int = 0


def reseal(engine: sa.Engine, sealer: Sealing, by: str, batch: int = _BATCH) -> Iterator[Resealed]:
    """Reseal attempts, orders, their last events, codes, and the key of code fingerprints; progress after each batch.

    The last progress is in the audit. What no key opens stays as it is. Raises ``StoreUnavailable``.
    """
    done = Resealed()
    after = ("", "")
    while True:
        with answering(), engine.begin() as connection:
            keys = [
                (row.tenant_id, row.order_id)
                for row in connection.execute(sa.text(_ORDERS), {"tenant": after[0], "order": after[1], "batch": batch})
            ]
            if not keys:
                break
            turn = _Turn(sealer)
            for key in keys:
                _order(connection, turn, *key)
        after = keys[-1]
        done = turn.added(replace(done, orders=done.orders + len(keys)))
        yield done
    last = 0
    while True:
        with answering(), engine.begin() as connection:
            # A taker skips locked rows and would call the stock empty; behind a locked table it waits instead.
            connection.execute(sa.text("lock table codes in share row exclusive mode"))
            rows = connection.execute(
                sa.select(m.codes.c.id, m.codes.c.sealed).where(m.codes.c.id > last).order_by(m.codes.c.id).limit(batch)
            ).all()
            if not rows:
                break
            turn = _Turn(sealer)
            for row in rows:
                if (fresh := turn.of(row.sealed)) != row.sealed:
                    connection.execute(sa.update(m.codes).where(m.codes.c.id == row.id).values(sealed=fresh))
        last = rows[-1].id
        done = turn.added(replace(done, codes=done.codes + len(rows)))
        yield done
    with answering(), engine.begin() as connection:
        turn = _Turn(sealer)
        _fingerprint_key(connection, turn)
        done = turn.added(done)
        details = {"orders": done.orders, "codes": done.codes, "changed": done.changed, "foreign": done.foreign}
        audit(connection, by, "pins.reseal", details=details)
    yield done


class _Turn:
    """One transaction's texts: the same one is resealed once, so that copies stay equal."""

    def __init__(self, sealer: Sealing) -> None:
        self._sealer = sealer
        self._fresh: dict[str, str] = {}
        self._foreign: set[str] = set()

    def of(self, sealed: str) -> str:
        """The text under the newest key; itself when it is that already, or when nobody can open it."""
        if sealed not in self._fresh:
            try:
                self._fresh[sealed] = sealed if self._sealer.newest(sealed) else self._sealer.rotate(sealed)
            except EventError:
                self._foreign.add(sealed)
                self._fresh[sealed] = sealed
        return self._fresh[sealed]

    def all(self, sealed: Sequence[str]) -> list[str]:
        return [self.of(text) for text in sealed]

    def added(self, done: Resealed) -> Resealed:
        changed = sum(fresh != text for text, fresh in self._fresh.items())
        return replace(done, changed=done.changed + changed, foreign=done.foreign + len(self._foreign))


def _order(connection: sa.Connection, turn: _Turn, tenant_id: str, order_id: str) -> None:
    """One order, under the lock that every decision about it takes first."""
    key = {"tenant_id": tenant_id, "order_id": order_id}
    event: dict[str, Any] | None = connection.execute(
        sa.select(m.ledger_orders.c.last_event).filter_by(**key).with_for_update()
    ).scalar_one()
    new: dict[str, Any] = {}
    if event and event.get("pins") and (fresh := turn.all(event["pins"])) != event["pins"]:
        new["last_event"] = {**event, "pins": fresh}
    if _pins(connection, m.attempts, turn, key, m.attempts.c.attempt) or new:
        connection.execute(sa.update(m.ledger_orders).filter_by(**key).values(rev=m.ledger_orders.c.rev + 1, **new))
    _pins(connection, m.orders, turn, key, m.orders.c.order_id)


def _pins(connection: sa.Connection, table: sa.Table, turn: _Turn, key: dict[str, str], row_id: sa.Column[Any]) -> bool:
    """Reseal a table's rows of one order; whether any changed."""
    rows = connection.execute(
        sa.select(row_id, table.c.pins).filter_by(**key).where(sa.func.cardinality(table.c.pins) > 0).with_for_update()
    ).all()
    changed = [(found, fresh) for found, pins in rows if (fresh := turn.all(pins)) != pins]
    for found, fresh in changed:
        connection.execute(sa.update(table).filter_by(**key).where(row_id == found).values(pins=fresh))
    return bool(changed)


def _fingerprint_key(connection: sa.Connection, turn: _Turn) -> None:
    where = m.service_state.c.key == FINGERPRINT_KEY
    value = connection.execute(sa.select(m.service_state.c.value).where(where).with_for_update()).scalar_one_or_none()
    if value and (fresh := turn.of(value["sealed"])) != value["sealed"]:
        connection.execute(sa.update(m.service_state).where(where).values(value={**value, "sealed": fresh}))
