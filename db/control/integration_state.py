"""What a person's command writes: audited releases of PINs, loaded codes, what an account told.

No ledger move is here; each act of a person leaves an audit row in the same transaction. Every function raises
``StoreUnavailable`` when the database does not answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from db import models as m
from db.engine import answering
from streams.errors import OrderNotFound
from streams.order import AttemptState, ExternalStatus

#: ``service_state`` row with the sealed key of code fingerprints: stable while the sealing keys rotate.
FINGERPRINT_KEY = "code_fingerprint_key"


def audit(
    connection: sa.Connection,
    by: str,
    action: str,
    *,
    tenant_id: str | None = None,
    order_id: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """One audit row, part of the caller's transaction. ``details`` carry no secret."""
    connection.execute(
        sa.insert(m.audit).values(
            actor=by, action=action, tenant_id=tenant_id, order_id=order_id, details=dict(details or {})
        )
    )


def release_pins(
    engine: sa.Engine,
    tenant_id: str,
    order_id: str,
    by: str,
    open_pin: Callable[[str], str],
    *,
    through: str = "command line",
) -> list[str]:
    """The plain PINs that were delivered; the release is audited before anybody can see one.

    Before the order is completed only those of an attempt that delivered a part of its units. Empty when the order
    failed or has no PIN, and then nothing is audited. Raises ``OrderNotFound``, and whatever ``open_pin`` raises for a
    PIN that it cannot open (then nothing is released).
    """
    key = {"tenant_id": tenant_id, "order_id": order_id}
    with answering(), engine.begin() as connection:
        external = connection.execute(
            sa.select(m.ledger_orders.c.external_status).filter_by(**key)
        ).scalar_one_or_none()
        if external is None:
            raise OrderNotFound(f"order {order_id} of tenant {tenant_id} is not in the ledger")
        if external == ExternalStatus.FAILED:
            return []
        delivered = m.attempts.c.evidence["delivered"].as_integer() > 0
        if external == ExternalStatus.COMPLETED:
            delivered = sa.or_(m.attempts.c.state == AttemptState.COMPLETED.value, delivered)
        rows = connection.execute(
            sa.select(m.attempts.c.pins).filter_by(**key).where(delivered).order_by(m.attempts.c.attempt)
        ).scalars()
        pins = [open_pin(sealed) for row in rows for sealed in row]
        if pins:
            audit(connection, by, "pin.release", **key, details={"pins": len(pins), "through": through})
    return pins


def record(engine: sa.Engine, by: str, action: str, tenant_id: str, order_id: str, details: Mapping[str, Any]) -> None:
    """Audit an act on an order whose effect is elsewhere (an event on a topic)."""
    with answering(), engine.begin() as connection:
        audit(connection, by, action, tenant_id=tenant_id, order_id=order_id, details=details)


@dataclass(frozen=True, slots=True)
class SealedCode:
    """A code as it is kept: sealed, with the keyed hash that tells whether it was loaded before."""

    sealed: str
    fingerprint: str


def fingerprint_key(engine: sa.Engine, seal: Callable[[str], str], new_key: Callable[[], str]) -> str:
    """The sealed key of code fingerprints: made by ``new_key`` and kept at the first call, the same one afterwards."""
    with answering(), engine.begin() as connection:
        connection.execute(
            insert(m.service_state)
            .values(key=FINGERPRINT_KEY, value={"sealed": seal(new_key())})
            .on_conflict_do_nothing()
        )
        value = connection.execute(
            sa.select(m.service_state.c.value).where(m.service_state.c.key == FINGERPRINT_KEY)
        ).scalar_one()
    return str(value["sealed"])


def load_codes(engine: sa.Engine, tenant_id: str, group: str, codes: Sequence[SealedCode], by: str) -> set[str]:
    """Add codes to the stock, all or nothing. Returns the fingerprints that are new; the others were there already."""
    if not codes:
        return set()
    rows = [
        {"tenant_id": tenant_id, "code_group": group, "sealed": code.sealed, "fingerprint": code.fingerprint}
        for code in codes
    ]
    with answering(), engine.begin() as connection:
        added: set[str] = set()
        for start in range(0, len(rows), 1000):
            statement = insert(m.codes).values(rows[start : start + 1000]).on_conflict_do_nothing()
            added.update(connection.execute(statement.returning(m.codes.c.fingerprint)).scalars())
        audit(
            connection,
            by,
            "codes.add",
            tenant_id=tenant_id,
            details={"code_group": group, "added": len(added), "offered": len(codes)},
        )
    return added


def store_balance(engine: sa.Engine, integration_id: str, amount: Decimal, currency: str) -> None:
    """Keep the balance that an account told just now."""
    _store_integration(
        engine, integration_id, balance_amount=amount, balance_currency=currency, balance_at=sa.func.now()
    )


def store_catalogue(engine: sa.Engine, integration_id: str, items: Sequence[Mapping[str, Any]]) -> None:
    """Keep the catalogue that an account told just now, instead of the one before."""
    _store_integration(engine, integration_id, catalogue=list(items), catalogue_at=sa.func.now())


def _store_integration(engine: sa.Engine, integration_id: str, **columns: Any) -> None:
    statement = insert(m.integration_state).values(integration_id=integration_id, **columns)
    with answering(), engine.begin() as connection:
        connection.execute(statement.on_conflict_do_update(index_elements=["integration_id"], set_=columns))
