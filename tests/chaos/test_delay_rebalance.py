"""Row 17: what sleeps in a retry topic wakes up after members of the delay line came and went."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from streams.config import KafkaConfig
from streams.delay import DelayLine
from streams.kafka import Outgoing
from tests.parts import Kafka
from tests.waiting import wait_until

PARTITIONS = 4


class Lines:
    """Delay lines of one group, with a clock that can be moved; ``released`` is what any of them forwarded."""

    def __init__(self, kafka: KafkaConfig, stack: ExitStack) -> None:
        self.kafka = kafka
        self.released: list[bytes | None] = []
        self.ahead = timedelta()
        self._stack = stack

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def _forward(self, records: Sequence[Outgoing]) -> None:
        self.released += [record.key for record in records]

    def _park(self, record: Any, reason: str) -> Outgoing:
        raise AssertionError(reason)

    def start(self) -> DelayLine:
        def died(error: Exception) -> None:
            raise error

        line = DelayLine(self.kafka, f"{self.kafka.topic_prefix}delay", self._forward, self._park, self.now, died)
        line.start()
        self._stack.callback(line.stop)
        return line


@pytest.fixture
def lines(kafka: Kafka) -> Iterator[Lines]:
    with ExitStack() as stack:
        yield Lines(
            KafkaConfig(bootstrap_servers=kafka.address, topic_prefix=f"d{uuid4().hex[:8]}.", session_timeout=6,
                        rebalance_timeout=6), stack,
        )  # fmt: skip


def asleep(*members: DelayLine) -> Callable[[], bool]:
    """Every partition sleeps in one of these."""
    return lambda: len({place for line in members for place in line.sleeping()}) == PARTITIONS


def test_a_partition_that_slept_through_a_rebalance_wakes_up(lines: Lines) -> None:
    topic = lines.kafka.topic_prefix + "orders.retry.60s"
    admin = AdminClient({"bootstrap.servers": lines.kafka.bootstrap_servers})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(15)
    producer = Producer({"bootstrap.servers": lines.kafka.bootstrap_servers, "log_level": 0})
    due_at = (lines.now() + timedelta(minutes=1)).isoformat()
    for partition in range(PARTITIONS):
        producer.produce(topic, b'{"due_at":"%s"}' % due_at.encode(), b"%d" % partition, partition)
    assert producer.flush(15) == 0
    first = lines.start()
    wait_until(asleep(first), 30)
    second = lines.start()
    wait_until(lambda: second.sleeping() and asleep(first, second)(), 30)
    second.stop()
    wait_until(asleep(first), 30)
    lines.ahead = timedelta(minutes=2)
    wait_until(lambda: len(lines.released) == PARTITIONS, 15)
    assert sorted(key or b"" for key in lines.released) == [b"%d" % partition for partition in range(PARTITIONS)]
