"""Writes records as they are, without the checks that our own producer makes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

from streams.config.loader import KafkaConfig
from streams.kafka.producer import Outgoing, client_settings


@contextmanager
def raw_producer(kafka: KafkaConfig) -> Iterator[Callable[[Iterable[Outgoing]], None]]:
    """``send(records)``: returns when the broker has them."""
    producer = Producer(client_settings(kafka) | {"partitioner": "murmur2_random"})

    def send(records: Iterable[Outgoing]) -> None:
        for record in records:
            producer.produce(kafka.topic_prefix + record.topic, record.value, record.key, headers=record.headers)
        assert producer.flush(30) == 0

    yield send
