"""Rows as the workers write them, for tests that only read."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from db import models as m
from db.engine import connect

BORN = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@contextmanager
def reading(url: str) -> Iterator[sa.Engine]:
    """An engine for the length of a test."""
    engine = connect(url, 2)
    try:
        yield engine
    finally:
        engine.dispose()


def put(engine: sa.Engine, table: sa.Table, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values(**values))


def put_order(
    engine: sa.Engine,
    order_id: str = "o-1",
    tenant_id: str = "demo",
    *,
    created_at: datetime = BORN,
    view: dict[str, Any] | None = None,
    **ledger: Any,
) -> None:
    """An order in the ledger and in the view, accepted and pending unless said otherwise."""
    request = {
        "order_id": order_id,
        "tenant_id": tenant_id,
        "package_id": "pubg-60",
        "user_identifier": "player-123456",
        "customer_phone": "+905551112233",
        "quantity": 1,
        "created_at": created_at.isoformat(),
    }
    head = {
        "status": "pending",
        "external_status": "not_sent",
        "fingerprint": "f",
        "request": request,
        "accepted_at": created_at,
        "deadline_at": created_at + timedelta(days=1),
    }
    put(engine, m.ledger_orders, order_id=order_id, tenant_id=tenant_id, **{**head, **ledger})
    shown = {
        "status": "pending",
        "external_status": "not_sent",
        "package_id": "pubg-60",
        "quantity": 1,
        "user_identifier": "player-123456",
        "created_at": created_at,
    }
    put(engine, m.orders, order_id=order_id, tenant_id=tenant_id, **{**shown, **(view or {})})


def put_attempt(
    engine: sa.Engine, state: str, order_id: str = "o-1", tenant_id: str = "demo", *, attempt: int = 1, **fields: Any
) -> None:
    made = {
        "integration_id": "znet-main",
        "provider": "znet",
        "reference": f"{tenant_id}-{order_id}-{attempt}",
        "wire": {"oyuncu_bilgi": "player-123456"},
    }
    put(engine, m.attempts, order_id=order_id, tenant_id=tenant_id, attempt=attempt, state=state, **{**made, **fields})


def put_dead_letter(engine: sa.Engine, offset: int = 0, *, order_id: str = "o-9", **fields: Any) -> None:
    made = {
        "topic": "orders.created",
        "partition": 0,
        "offset": offset,
        "agent": "dispatch",
        "reason": "malformed",
        "error": "quantity: Expected `int`, got `str`",
        "key": order_id.encode(),
        "value": b'{"order_id": "%s", "tenant_id": "demo", "quantity": "x", "user_identifier": "player-123456"}'
        % order_id.encode(),
        "headers": {"ce_type": "orderwatch.order.created.v1", "dlq.reason": "malformed"},
        "at": BORN,
    }
    put(engine, m.dead_letters, **{**made, **fields})
