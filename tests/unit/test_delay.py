"""The delay line between two rebalances. What it does on a broker is in the contract tests."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from streams.config import KafkaConfig
from streams.delay import DelayLine
from streams.kafka import Outgoing

TIER = "orders.retry.1s"
DUE = b'{"due_at":"2026-03-01T12:00:00Z"}'


def record(partition: int, key: bytes) -> Any:
    return SimpleNamespace(topic=lambda: TIER, partition=lambda: partition, offset=lambda: 0, key=lambda: key,
                           value=lambda: DUE, headers=lambda: None, error=lambda: None)  # fmt: skip


class Rebalancing:
    """A consumer in whose ``consume`` partition 1 goes away after a record of it was gathered, as librdkafka may."""

    def __init__(self, line: DelayLine) -> None:
        self.line = line
        self.stored: list[tuple[int, int]] = []

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        pass

    resume = pause = assign

    def consume(self, number: int, timeout_s: float) -> list[Any]:
        self.line._on_revoke(self, [TopicPartition(TIER, 1)])  # type: ignore[arg-type]
        return [record(0, b"mine"), record(1, b"gone")]

    def store_offsets(self, offsets: Sequence[TopicPartition]) -> None:
        self.stored += [(place.partition, place.offset) for place in offsets]


@pytest.fixture
def moved() -> list[bytes | None]:
    return []


@pytest.fixture
def line(moved: list[bytes | None]) -> Iterator[DelayLine]:
    def forward(records: Sequence[Outgoing]) -> None:
        moved.extend(record.key for record in records)

    def park(record: Any, reason: str) -> Outgoing:
        raise AssertionError(reason)

    made = DelayLine(KafkaConfig(bootstrap_servers="127.0.0.1:1"), "delay", forward, park,
                     lambda: datetime(2026, 3, 1, 13, tzinfo=UTC), lambda error: None)  # fmt: skip
    real = made._consumer
    yield made
    real.close()


def test_what_was_gathered_of_a_partition_that_went_away_is_left_to_its_new_owner(
    line: DelayLine, moved: list[bytes | None]
) -> None:
    line._consumer = consumer = Rebalancing(line)  # type: ignore[assignment]
    line._on_assign(consumer, [TopicPartition(TIER, 0), TopicPartition(TIER, 1)])  # type: ignore[arg-type]

    line._turn()

    assert moved == [b"mine"] and consumer.stored == [(0, 1)]
    assert not line.sleeping()
