"""A shop places three orders and knows that the broker has them.

KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 python examples/shop.py
"""

import os
import uuid
from datetime import UTC, datetime

from streams.clients import OrderProducer
from streams.errors import BrokerUnavailable, EventError
from streams.events import Created

with OrderProducer(os.environ["KAFKA_BOOTSTRAP_SERVERS"]) as producer:
    for player in ("5550001", "5550002", "5550003"):
        order = Created(
            order_id=str(uuid.uuid4()),  # yours; placing it again under the same id is the same order
            tenant_id="demo",
            package_id="pubg-60",
            user_identifier=player,
            created_at=datetime.now(UTC),
        )
        try:
            producer.place(order)
        except EventError as error:
            print(f"{order.order_id} is wrong and was not sent: {error}")
        except BrokerUnavailable as error:
            print(f"{order.order_id} may or may not have been placed; place it again later: {error}")
        else:
            print(f"{order.order_id} placed")
