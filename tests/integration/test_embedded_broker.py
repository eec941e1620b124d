"""What the bundled broker can do for our clients, and the gaps we know; an upgrade may change either."""

from collections.abc import Iterator
from concurrent.futures import Future
from typing import TypeVar
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, OffsetSpec

from orderwatch.localservers.bundled import Broker
from tests.conftest import wait_until

T = TypeVar("T")


def answer(futures: dict[object, Future[T]]) -> T:
    (future,) = futures.values()
    return future.result(10)


@pytest.fixture
def admin(broker: Broker) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker.address})


@pytest.fixture
def topic(admin: AdminClient) -> Iterator[str]:
    name = f"topic-{uuid4().hex}"
    settings = {"cleanup.policy": "compact,delete", "retention.ms": "7000"}
    answer(admin.create_topics([NewTopic(name, 2, 1, config=settings)]))
    yield name
    answer(admin.delete_topics([name]))


def configuration(admin: AdminClient, topic: str) -> dict[str, str | None]:
    entries = answer(admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]))
    return {name: entry.value for name, entry in entries.items()}


def produce(broker: Broker, topic: str, count: int, **settings: object) -> list[tuple[int, int]]:
    """Produce to one key; (partition, offset) of every acknowledged record."""
    acknowledged: list[tuple[int, int]] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        assert error is None
        acknowledged.append((message.partition(), message.offset()))

    producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 0, **settings})
    for number in range(count):
        producer.produce(topic, key=b"k", value=b"%d" % number, headers=[("ce_id", b"1")], on_delivery=delivered)
    assert producer.flush(15) == 0
    return acknowledged


def test_topics_keep_their_settings(admin: AdminClient, topic: str) -> None:
    assert configuration(admin, topic) == {"cleanup.policy": "compact,delete", "retention.ms": "7000"}


def test_only_settings_that_were_given_are_described(admin: AdminClient, topic: str) -> None:
    assert "max.message.bytes" not in configuration(admin, topic)


def test_a_topic_is_created_once(admin: AdminClient, topic: str) -> None:
    with pytest.raises(KafkaException) as error:
        answer(admin.create_topics([NewTopic(topic, 2, 1)]))
    assert error.value.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS


def test_partitions_cannot_be_added(admin: AdminClient, topic: str) -> None:
    with pytest.raises(KafkaException) as error:
        answer(admin.create_partitions([NewPartitions(topic, 4)]))
    assert error.value.args[0].code() == KafkaError._UNSUPPORTED_FEATURE


@pytest.mark.parametrize("settings", [{}, {"enable.idempotence": True}, {"acks": "all"}, {"compression.type": "lz4"}])
def test_records_are_acknowledged_in_order(broker: Broker, topic: str, settings: dict[str, object]) -> None:
    acknowledged = produce(broker, topic, 20, **settings)
    assert [offset for _, offset in acknowledged] == list(range(20))
    assert len({partition for partition, _ in acknowledged}) == 1


def end_of(admin: AdminClient, topic: str, partition: int) -> int:
    return answer(admin.list_offsets({TopicPartition(topic, partition): OffsetSpec.latest()})).offset


def test_a_listed_end_is_short_by_the_length_of_the_last_batch(broker: Broker, admin: AdminClient, topic: str) -> None:
    batch = produce(broker, topic, 3, **{"linger.ms": 500})
    assert end_of(admin, topic, batch[0][0]) == 1  # Apache Kafka says 3
    ((partition, offset),) = produce(broker, topic, 1)
    assert end_of(admin, topic, partition) == offset + 1 == 4


def test_a_fetch_tells_the_true_end(broker: Broker, topic: str) -> None:
    ((partition, _), *_) = produce(broker, topic, 3, **{"linger.ms": 500})
    at = TopicPartition(topic, partition, 0)
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": uuid4().hex})
    consumer.assign([at])
    wait_until(lambda: consumer.poll(0.2))
    assert consumer.get_watermark_offsets(at, cached=True) == (0, 3)
    consumer.close()


def test_a_group_goes_on_where_it_committed(broker: Broker, topic: str) -> None:
    produce(broker, topic, 3)
    group = f"group-{uuid4().hex}"

    def read(count: int) -> list[bytes]:
        consumer = Consumer(
            {
                "bootstrap.servers": broker.address,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": 2000,
                "max.poll.interval.ms": 2000,
            }
        )
        consumer.subscribe([topic])
        values: list[bytes] = []

        def polled() -> bool:
            message = consumer.poll(0.2)
            if message is not None:
                assert message.error() is None and message.headers() == [("ce_id", b"1")]
                values.append(message.value())
            return len(values) >= count

        wait_until(polled)
        (done,) = [at for at in consumer.commit(asynchronous=False) if at.offset >= 0]
        assert consumer.committed([TopicPartition(topic, done.partition)], timeout=5)[0].offset == done.offset
        consumer.close()
        return values

    assert read(3) == [b"0", b"1", b"2"]
    produce(broker, topic, 1)
    assert read(1) == [b"0"]  # the value of the second batch, not a record of the first
