"""A transactional outbox for a shop on SQLAlchemy: an order and its event are committed together or not at all.

``enqueue`` writes into the shop's own transaction; ``relay`` sends what is pending and marks it sent only after the
broker acknowledged it. A crash in between sends it again under the same ``ce_id``, which is one order.
"""

import logging
import threading

import sqlalchemy as sa
from sqlalchemy.orm import Session

from streams import events
from streams.clients import OrderProducer, order_record
from streams.errors import BrokerUnavailable, EventError
from streams.events import Created

log = logging.getLogger(__name__)


def outbox_table(metadata: sa.MetaData, name: str = "orderwatch_outbox") -> sa.Table:
    """The table, for the shop's own migrations. Sent rows may be deleted at will."""
    return sa.Table(
        name,
        metadata,
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), primary_key=True),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("order_id", sa.String(64), nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("enqueued_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
        sa.Column("refused", sa.Text),
        sa.Index(f"ix_{name}_pending", "id", postgresql_where=sa.text("sent_at IS NULL AND refused IS NULL")),
    )


def enqueue(connection: Session | sa.Connection, table: sa.Table, created: Created) -> None:
    """Add the order to the caller's transaction; commits nothing. Raises ``EventError`` naming the field."""
    record = order_record(created)
    connection.execute(
        sa.insert(table).values(tenant_id=created.tenant_id, order_id=created.order_id, value=record.value)
    )


def relay(engine: sa.Engine, table: sa.Table, producer: OrderProducer, limit: int = 500) -> int:
    """Send one page of pending orders, oldest first; returns how many were acknowledged.

    Any number of relays may run: each locks its page and skips what others hold. A row that cannot be read any more
    gets its reason in ``refused`` and stops nothing. Raises ``BrokerUnavailable`` after marking what did arrive.
    """
    with engine.begin() as connection:
        rows = connection.execute(
            sa.select(table.c.id, table.c.value)
            .where(table.c.sent_at.is_(None), table.c.refused.is_(None))
            .order_by(table.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        orders: dict[int, Created] = {}
        refused: dict[int, EventError] = {}
        for row in rows:
            try:
                orders[row.id] = events.decode(Created, bytes(row.value))
            except EventError as error:
                refused[row.id] = error
        placements = producer.place_many(orders.values())
        fates = dict(zip(orders, (placement.error for placement in placements), strict=True))
        refused |= {row_id: error for row_id, error in fates.items() if isinstance(error, EventError)}
        sent = [row_id for row_id, error in fates.items() if error is None]
        connection.execute(sa.update(table).where(table.c.id.in_(sent)).values(sent_at=sa.func.now()))
        for row_id, refusal in refused.items():
            connection.execute(sa.update(table).where(table.c.id == row_id).values(refused=str(refusal)))
    for placement in placements:
        if isinstance(placement.error, BrokerUnavailable):
            raise placement.error
    return len(sent)


def relay_until(
    stop: threading.Event, engine: sa.Engine, table: sa.Table, producer: OrderProducer, *, every_s: float = 0.5
) -> None:
    """Relay until ``stop`` is set; waits ``every_s`` when nothing is pending or the broker is away."""
    while not stop.is_set():
        try:
            sent = relay(engine, table, producer)
        except BrokerUnavailable as error:
            log.warning("outbox: %s; trying again", error)
            sent = 0
        if not sent:
            stop.wait(every_s)
