"""Row 17: what sleeps in a retry topic wakes up after its partitions went to another worker and came back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from streams.config.loader import KafkaConfig
from streams.delay_queue import DelayQueue
from tests.parts import Kafka
from tests.waiting import eventually

PARTITIONS = 4


class Lines:
    """Delay lines of one group, with a clock that can be moved; ``released`` is what any of them handed out."""

    def __init__(self, kafka: KafkaConfig, stack: AsyncExitStack) -> None:
        self.kafka = kafka
        self.released: list[bytes | None] = []
        self.ahead = timedelta()
        self._stack = stack

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def start(self, *partitions: int) -> DelayQueue:
        def died(error: Exception) -> None:
            raise error

        async def take() -> None:
            async for record in line:
                self.released.append(record.key)
                record.ack()

        line = DelayQueue(self.kafka, f"{self.kafka.topic_prefix}delay", self.now, died)
        line.follow(partitions)
        line.start()
        self._stack.push_async_callback(asyncio.to_thread, line.stop)
        self._stack.callback(asyncio.create_task(take()).cancel)
        return line


@pytest.fixture
async def lines(kafka: Kafka) -> AsyncIterator[Lines]:
    async with AsyncExitStack() as stack:
        yield Lines(
            KafkaConfig(
                bootstrap_servers=kafka.address,
                topic_prefix=f"d{uuid4().hex[:8]}.",
                session_timeout=6,
                rebalance_timeout=6,
            ),
            stack,
        )


def asleep(*members: DelayQueue) -> Callable[[], bool]:
    """Every partition sleeps in one of these."""
    return lambda: len({place for line in members for place in line.heads()}) == PARTITIONS


async def test_a_partition_that_went_and_came_back_asleep_wakes_up(lines: Lines) -> None:
    topic = lines.kafka.topic_prefix + "orders.retry.60s"
    admin = AdminClient({"bootstrap.servers": lines.kafka.bootstrap_servers})
    for made in admin.create_topics(
        [NewTopic(name, PARTITIONS, 1) for name in (topic, lines.kafka.topic_prefix + "orders.check")]
    ).values():
        made.result(15)
    producer = Producer({"bootstrap.servers": lines.kafka.bootstrap_servers, "log_level": 0})
    due_at = (lines.now() + timedelta(minutes=1)).isoformat()
    for partition in range(PARTITIONS):
        producer.produce(topic, b'{"due_at":"%s"}' % due_at.encode(), b"%d" % partition, partition)
    assert producer.flush(15) == 0
    first = await lines.start(*range(PARTITIONS))
    await eventually(asleep(first), 30)
    second = await lines.start(2, 3)
    first.follow([0, 1])
    await eventually(lambda: second.heads() and len(first.heads()) == 2 and asleep(first, second)(), 30)
    await asyncio.to_thread(second.stop)
    first.follow(range(PARTITIONS))
    await eventually(asleep(first), 30)
    lines.ahead = timedelta(minutes=2)
    await eventually(lambda: len(lines.released) == PARTITIONS, 15)
    assert sorted(key or b"" for key in lines.released) == [b"%d" % partition for partition in range(PARTITIONS)]
