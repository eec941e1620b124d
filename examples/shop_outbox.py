"""A shop with a database: its order and the event are committed together, and a relay sends what is pending.

    KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 DATABASE_URL=postgresql://shop@127.0.0.1/shop python examples/shop_outbox.py

Without DATABASE_URL it uses SQLite in memory, which is enough to see it work.
"""

import os
import uuid
from datetime import UTC, datetime

import sqlalchemy as sa

from streams.clients import OrderProducer
from streams.events import Created
from streams.outbox import enqueue, outbox_table, relay

metadata = sa.MetaData()
orders = sa.Table("shop_orders", metadata, sa.Column("id", sa.String, primary_key=True), sa.Column("player", sa.String))
outbox = outbox_table(metadata)

engine = sa.create_engine(os.environ.get("DATABASE_URL", "sqlite://"), poolclass=sa.StaticPool)
metadata.create_all(engine)

with engine.begin() as transaction:  # both rows or none
    order_id = str(uuid.uuid4())
    transaction.execute(orders.insert().values(id=order_id, player="5550001"))
    enqueue(
        transaction,
        outbox,
        Created(
            order_id=order_id,
            tenant_id="demo",
            package_id="pubg-60",
            user_identifier="5550001",
            created_at=datetime.now(UTC),
        ),
    )

with OrderProducer(os.environ["KAFKA_BOOTSTRAP_SERVERS"]) as producer:  # usually a process of its own: relay_until
    print(f"{relay(engine, outbox, producer)} sent, {relay(engine, outbox, producer)} left")
engine.dispose()
