"""Apache Kafka for tests is a real cluster: what one acknowledged survives the death of a node."""

from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from orderwatch.localservers.bundled import PartError
from tests.conftest import wait_until
from tests.parts import Kafka


def create(kafka: Kafka, topic: str, copies: int) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.address})
    admin.create_topics([NewTopic(topic, 1, copies)])[topic].result(15)


def produce(kafka: Kafka, topic: str, value: bytes) -> None:
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer({"bootstrap.servers": kafka.address, "enable.idempotence": True, "log_level": 0})
    producer.produce(topic, value, on_delivery=delivered)
    assert producer.flush(30) == 0 and not failures


def values(kafka: Kafka, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": uuid4().hex, "log_level": 0})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[bytes] = []

    def polled() -> bool:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            found.append(message.value())
        return len(found) >= count

    wait_until(polled, 30)
    consumer.close()
    return found


def test_one_node_takes_and_gives_a_record(kafka: Kafka) -> None:
    topic = uuid4().hex
    create(kafka, topic, 1)
    produce(kafka, topic, b"a")
    assert values(kafka, topic, 1) == [b"a"]


def test_topics_are_not_made_by_accident(kafka: Kafka) -> None:
    topic = uuid4().hex
    producer = Producer({"bootstrap.servers": kafka.address, "message.timeout.ms": 2000, "log_level": 0})
    refused: list[KafkaError | None] = []
    producer.produce(topic, b"a", on_delivery=lambda error, _: refused.append(error))
    producer.flush(15)
    assert [error is None for error in refused] == [False]  # a KafkaError cannot be compared with None
    assert topic not in AdminClient({"bootstrap.servers": kafka.address}).list_topics(timeout=10).topics


@pytest.mark.kafka
def test_three_nodes_keep_acknowledged_records_when_one_is_killed(parts_directory: Path) -> None:
    with Kafka(parts_directory / "kafka-3", 3) as cluster:
        create(cluster, "t", 3)
        produce(cluster, "t", b"before")
        leader = AdminClient({"bootstrap.servers": cluster.address}).list_topics("t").topics["t"].partitions[0].leader
        cluster.kill_node(leader)
        produce(cluster, "t", b"while one is dead")
        cluster.start_node(leader)
        cluster.stop_node(leader % 3 + 1)
        produce(cluster, "t", b"while one is stopped")
        assert values(cluster, "t", 3) == [b"before", b"while one is dead", b"while one is stopped"]


@pytest.mark.kafka
def test_a_broker_that_cannot_start_fails_and_quotes_its_log(parts_directory: Path) -> None:
    with pytest.raises(PartError, match=r"formatting node 1 failed.*nonsense"):
        Kafka(parts_directory / "kafka-bad", settings={"log.retention.hours": "nonsense"}).start()
