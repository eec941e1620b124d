"""What the log says of orders that the ledger does not know: such an order may have been bought."""

from collections.abc import Collection, Iterator

from agents.diagnosis.wording import instant
from db.rows import Key
from streams.config.loader import KafkaConfig
from streams.errors import BrokerUnavailable, EventError
from streams.events import Referenced, StatusChanged, decode
from streams.kafka.producer import Told, follow
from streams.topics import REFERENCED, STATUS_CHANGED

_TIMEOUT_S = 5.0


def heard(kafka: KafkaConfig, wanted: Collection[Key]) -> dict[Key, list[str]]:
    """One line per record of `orders.referenced` and `orders.status-changed` about these orders, oldest first; orders
    that the log does not mention are absent. Reads both topics once. Raises ``BrokerUnavailable``."""
    found: dict[Key, list[str]] = {}
    if not wanted:
        return found
    for topic in (REFERENCED, STATUS_CHANGED):
        records = follow(kafka, topic, from_start=True, until_end=True, timeout_s=_TIMEOUT_S)
        for key, line in _lines(topic, records, {order.encode() for _, order in wanted}):
            if key in wanted:
                found.setdefault(key, []).append(line)
    return found


def heard_if_answering(kafka: KafkaConfig, wanted: Collection[Key]) -> dict[Key, list[str]]:
    """As ``heard``; nothing while the broker does not answer."""
    try:
        return heard(kafka, wanted)
    except BrokerUnavailable:
        return {}


def _lines(topic: str, records: Iterator[Told], keys: set[bytes]) -> Iterator[tuple[Key, str]]:
    for record in records:
        if record.key not in keys:
            continue
        try:
            if topic == REFERENCED:
                sent = decode(Referenced, record.value)
                yield (
                    (sent.tenant_id, sent.order_id),
                    (
                        f"log {topic}: attempt {sent.attempt} at {sent.integration_id},"
                        f" reference {sent.provider_referans}, sent {instant(sent.sent_at)}"
                    ),
                )
            else:
                change = decode(StatusChanged, record.value)
                yield (
                    (change.tenant_id, change.order_id),
                    (f"log {topic}: version {change.version}, {change.external_status}, {instant(change.occurred_at)}"),
                )
        except EventError:
            continue
