"""The shop's producer, its outbox, and the downstream consumer, on the bundled servers."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from confluent_kafka import Consumer, Producer, TopicPartition
from sqlalchemy.orm import Session

from orderwatch.localservers.bundled import Broker, Postgres, free_port
from streams import events, topics
from streams.clients import BadEvent, Change, OrderProducer, StatusChanges
from streams.config.loader import Config, KafkaConfig
from streams.errors import BrokerUnavailable, ConfigError, EventError
from streams.events import Created, StatusChanged
from streams.kafka.producer import apply_topics, client_settings, group_lag
from streams.outbox import enqueue, outbox_table, relay, relay_until
from streams.seal import Sealer, new_key
from tests.conftest import wait_until

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def wire(broker: Broker) -> KafkaConfig:
    """Topics of its own, and a group that is quick to join."""
    config = Config(
        database={"url": "embedded"},
        kafka={
            "bootstrap_servers": broker.address,
            "topic_prefix": f"c{uuid4().hex[:8]}.",
            "session_timeout": 1.0,
            "rebalance_timeout": 3.0,
        },
    )
    apply_topics(config.kafka, topics.specs(config))
    return config.kafka


@pytest.fixture
def nowhere() -> KafkaConfig:
    return KafkaConfig(bootstrap_servers=f"127.0.0.1:{free_port()}")


def order(number: int, **more: Any) -> Created:
    made = {
        "order_id": f"order-{number}",
        "tenant_id": "demo",
        "package_id": "p",
        "user_identifier": "u",
        "created_at": NOW,
    }
    return Created(**(made | more))


def change(number: int, version: int, **more: Any) -> StatusChanged:
    made = {
        "order_id": f"order-{number}",
        "tenant_id": "demo",
        "version": version,
        "status": "pending",
        "external_status": "processing",
        "previous_external_status": "sent",
        "reason": "provider",
        "checks": version,
        "occurred_at": NOW,
    }
    return StatusChanged(**(made | more))


def write(wire: KafkaConfig, topic: str, values: list[Any]) -> None:
    producer = Producer(client_settings(wire) | {"partitioner": "murmur2_random"})
    for value in values:
        if isinstance(value, events.Event):
            headers = events.headers(value)
            producer.produce(wire.topic_prefix + topic, events.encode(value), value.order_id, headers=headers)
        else:
            producer.produce(wire.topic_prefix + topic, value, b"order-1")
    assert producer.flush(10) == 0


def read(wire: KafkaConfig, topic: str) -> list[Any]:
    """Every record there is, in order within a partition."""
    consumer = Consumer(
        client_settings(wire) | {"group.id": uuid4().hex, "enable.auto.commit": False, "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(wire.topic_prefix + topic, partition, 0) for partition in range(wire.partitions)])
    found, ends = [], 0
    try:
        while ends < wire.partitions:
            record = consumer.poll(10)
            assert record is not None
            if record.error():
                ends += 1
            else:
                found.append(record)
        return found
    finally:
        consumer.close()


def committed(wire: KafkaConfig, group: str) -> int:
    """How many records of the status topic this group has behind it."""
    return sum(offset or 0 for offset, _ in group_lag(wire, group, [topics.STATUS_CHANGED]).values())


def test_a_placed_order_is_on_the_broker_as_an_event(wire: KafkaConfig) -> None:
    with OrderProducer(wire, source="my-shop") as producer:
        producer.place(order(1, params={"server": "eu"}))
        [record] = read(wire, topics.CREATED)

    assert record.key() == b"order-1"
    assert events.decode(Created, record.value()) == order(1, params={"server": "eu"})
    assert dict(record.headers()) == dict(events.headers(order(1), source="my-shop", at=NOW))


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"order_id": "a b"}, "order_id"),
        ({"quantity": 0}, "quantity"),
        ({"created_at": NOW.replace(tzinfo=None)}, "created_at"),
        ({"user_identifier": None}, "user_identifier"),
        ({"package_id": "p\0"}, "package_id"),
        ({"extra_field": "\ud800"}, "JSON"),
        ({"extra_field": object()}, "JSON"),
        ({"params": {"a": 1}}, "params"),
    ],
)
def test_a_wrong_order_raises_before_anything_is_sent(nowhere: KafkaConfig, wrong: dict[str, Any], name: str) -> None:
    with OrderProducer(nowhere, timeout_s=0.2) as producer, pytest.raises(EventError, match=name):
        producer.place(order(1, **wrong))


def test_no_acknowledgement_is_an_exception(nowhere: KafkaConfig) -> None:
    with OrderProducer(nowhere.bootstrap_servers, timeout_s=0.3) as producer, pytest.raises(BrokerUnavailable):
        producer.place(order(1))


def test_many_orders_get_one_answer_each_in_order(wire: KafkaConfig) -> None:
    orders = [order(number) for number in range(3000)]
    orders[7] = order(7, quantity=0)
    told: list[tuple[int, int]] = []

    with OrderProducer(wire) as producer:
        placements = producer.place_many(iter(orders), lambda done, failed: told.append((done, failed)), in_flight=500)

    assert [placement.order_id for placement in placements] == [f"order-{number}" for number in range(3000)]
    assert [number for number, placement in enumerate(placements) if placement.error] == [7]
    assert isinstance(placements[7].error, EventError)
    assert told[-1] == (2999, 1)
    assert len(read(wire, topics.CREATED)) == 2999


def test_a_dead_broker_stops_a_long_list_early(nowhere: KafkaConfig) -> None:
    with OrderProducer(nowhere, timeout_s=0.3) as producer:
        placements = producer.place_many((order(number) for number in range(1000)), in_flight=10)

    assert len(placements) == 1000
    assert all(isinstance(placement.error, BrokerUnavailable) for placement in placements)


def test_threads_share_a_producer(wire: KafkaConfig) -> None:
    with OrderProducer(wire) as producer:
        threads = [threading.Thread(target=producer.place, args=(order(number),)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert {record.key() for record in read(wire, topics.CREATED)} == {b"order-%d" % number for number in range(20)}


@pytest.fixture
def shop(postgres: Postgres) -> Iterator[tuple[sa.Engine, sa.Table]]:
    metadata = sa.MetaData()
    table = outbox_table(metadata, f"outbox_{uuid4().hex[:8]}")
    engine = sa.create_engine(postgres.url)
    metadata.create_all(engine)
    yield engine, table
    metadata.drop_all(engine)
    engine.dispose()


def pending(engine: sa.Engine, table: sa.Table) -> int:
    with engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).where(table.c.sent_at.is_(None))) or 0


def test_the_outbox_is_part_of_the_shops_transaction(wire: KafkaConfig, shop: tuple[sa.Engine, sa.Table]) -> None:
    engine, table = shop
    with Session(engine) as session:
        enqueue(session, table, order(1))
        session.rollback()
        for number in (2, 3, 4):
            enqueue(session, table, order(number))
        session.commit()

    with OrderProducer(wire) as producer:
        assert relay(engine, table, producer, limit=2) == 2
        assert relay(engine, table, producer, limit=2) == 1
        assert relay(engine, table, producer) == 0

    assert {record.key() for record in read(wire, topics.CREATED)} == {b"order-2", b"order-3", b"order-4"}
    assert pending(engine, table) == 0


def test_a_wrong_order_does_not_reach_the_outbox(shop: tuple[sa.Engine, sa.Table]) -> None:
    engine, table = shop
    with engine.begin() as connection, pytest.raises(EventError, match="quantity"):
        enqueue(connection, table, order(1, quantity=0))
    assert pending(engine, table) == 0


def test_what_was_not_acknowledged_stays_pending_and_a_repeat_is_the_same_fact(
    wire: KafkaConfig, nowhere: KafkaConfig, shop: tuple[sa.Engine, sa.Table]
) -> None:
    engine, table = shop
    with engine.begin() as connection:
        enqueue(connection, table, order(1))
    with OrderProducer(nowhere, timeout_s=0.3) as absent, pytest.raises(BrokerUnavailable):
        relay(engine, table, absent)
    assert pending(engine, table) == 1

    with OrderProducer(wire) as producer:
        relay(engine, table, producer)
        with engine.begin() as connection:  # as if the relay had died before its commit
            connection.execute(sa.update(table).values(sent_at=None))
        relay(engine, table, producer)

    first, second = read(wire, topics.CREATED)
    assert first.headers() == second.headers()
    assert first.value() == second.value()


def test_a_row_that_cannot_be_read_stops_nothing(wire: KafkaConfig, shop: tuple[sa.Engine, sa.Table]) -> None:
    engine, table = shop
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values(tenant_id="demo", order_id="bad", value=b"{}"))
        enqueue(connection, table, order(1))

    with OrderProducer(wire) as producer:
        assert relay(engine, table, producer) == 1
        assert relay(engine, table, producer) == 0
    with engine.connect() as connection:
        [reason] = connection.scalars(sa.select(table.c.refused).where(table.c.order_id == "bad"))
    assert "order_id: missing" in reason


def test_two_relays_send_each_row_once(wire: KafkaConfig, shop: tuple[sa.Engine, sa.Table]) -> None:
    engine, table = shop
    with engine.begin() as connection:
        for number in range(300):
            enqueue(connection, table, order(number))
    stop = threading.Event()

    with OrderProducer(wire) as producer:
        relays = [
            threading.Thread(target=relay_until, args=(stop, engine, table, producer), kwargs={"every_s": 0.01})
            for _ in range(2)
        ]
        for thread in relays:
            thread.start()
        wait_until(lambda: pending(engine, table) == 0)
        stop.set()
        for thread in relays:
            thread.join()

    assert len(read(wire, topics.CREATED)) == 300


def follow(wire: KafkaConfig, group: str, count: int, **more: Any) -> list[Change]:
    """The first ``count`` changes, each handled."""
    seen: list[Change] = []
    changes = StatusChanges(wire, group, **more)

    def handle(change: Change) -> None:
        seen.append(change)
        if len(seen) == count:
            changes.stop()

    changes.run(handle)
    return seen


def test_changes_come_typed_in_order_and_each_version_once(wire: KafkaConfig) -> None:
    write(
        wire,
        topics.STATUS_CHANGED,
        [
            change(1, 1),
            change(2, 1),
            change(1, 2),
            change(1, 2),
            change(1, 1),
            change(1, 1, tenant_id="other"),
            change(1, 3),
            change(2, 2),
        ],
    )

    seen = follow(wire, "g1", 6)

    assert [
        found.event.version for found in seen if found.event.order_id == "order-1" and found.event.tenant_id == "demo"
    ] == [1, 2, 3]
    assert [found.event.version for found in seen if found.event.order_id == "order-2"] == [1, 2]
    assert change(1, 1, tenant_id="other") in [found.event for found in seen]


def test_a_change_is_committed_after_its_handler_and_not_before(wire: KafkaConfig) -> None:
    write(wire, topics.STATUS_CHANGED, [change(1, version) for version in range(1, 6)])
    seen: list[int] = []

    def handle(found: Change) -> None:
        seen.append(found.event.version)
        if found.event.version == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        StatusChanges(wire, "g2").run(handle)

    assert seen == [1, 2, 3]
    assert committed(wire, "g2") == 2
    assert [found.event.version for found in follow(wire, "g2", 3)] == [3, 4, 5]
    assert committed(wire, "g2") == 5


def test_a_change_whose_loop_was_left_comes_again_in_the_next_loop(wire: KafkaConfig) -> None:
    write(wire, topics.STATUS_CHANGED, [change(1, version) for version in range(1, 4)])

    with StatusChanges(wire, "g3") as changes:
        for found in changes:
            if found.event.version == 2:
                break
        again = next(iter(changes))

    assert again.event.version == 2


def test_bad_events_are_told_once_and_passed(wire: KafkaConfig) -> None:
    secret = "hunter2"
    write(
        wire,
        topics.STATUS_CHANGED,
        [change(1, 1), b'{"order_id": "%s!"}' % secret.encode(), b"\xff", order(1), None, change(1, 2)],
    )
    bad: list[BadEvent] = []

    seen = follow(wire, "g4", 2, on_bad=bad.append)

    assert [found.event.version for found in seen] == [1, 2]
    assert [found.error.reason for found in bad] == ["malformed", "malformed", "other_type"]
    assert secret not in repr(bad)
    assert committed(wire, "g4") == 6


def test_the_default_says_where_a_bad_event_was_without_its_content(
    wire: KafkaConfig, caplog: pytest.LogCaptureFixture
) -> None:
    write(wire, topics.STATUS_CHANGED, [b'{"order_id": "hunter2!"}', change(1, 1)])

    follow(wire, "g5", 1)

    assert "offset 0" in caplog.text
    assert "order_id" in caplog.text
    assert "hunter2" not in caplog.text


def test_pins_open_with_the_key_and_only_with_it(wire: KafkaConfig) -> None:
    sealer = Sealer([new_key()])
    write(wire, topics.STATUS_CHANGED, [change(1, 1), change(1, 2, pins=[sealer.seal("PIN-1"), sealer.seal("PIN-2")])])

    plain, with_pins = follow(wire, "with-keys", 2, keys=sealer)
    _, without_keys = follow(wire, "without-keys", 2)

    assert plain.pins_open() == []
    assert with_pins.pins_open() == ["PIN-1", "PIN-2"]
    assert "PIN-1" not in repr(with_pins)
    with pytest.raises(ConfigError, match="ORDERWATCH_PIN_KEYS"):
        without_keys.pins_open()
    with pytest.raises(EventError):
        Change(with_pins.event, Sealer([new_key()])).pins_open()


def test_what_is_remembered_has_a_bound(wire: KafkaConfig) -> None:
    others = [change(1, 1, tenant_id=f"t{number}") for number in range(5)]
    write(wire, topics.STATUS_CHANGED, [change(1, 1), *others, change(1, 1)])

    assert len(follow(wire, "bounded", 7, remember=3)) == 7


def test_members_that_come_and_go_miss_nothing(wire: KafkaConfig) -> None:
    seen: list[tuple[str, str, int]] = []
    consumers = [StatusChanges(wire, "shared") for _ in range(2)]

    def run(number: int) -> None:
        consumers[number].run(lambda found: seen.append((str(number), found.event.order_id, found.event.version)))

    def handled(version: int) -> set[str]:
        write(wire, topics.STATUS_CHANGED, [change(number, version) for number in range(40)])
        wait_until(lambda: len({order_id for _, order_id, v in seen if v == version}) == 40, timeout_s=30)
        return {name for name, _, v in seen if v == version}

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    try:
        threads[0].start()
        assert handled(1) == {"0"}
        threads[1].start()
        last = next(version for version in range(2, 200) if handled(version) == {"0", "1"})
        consumers[0].stop()
        threads[0].join()
        assert handled(last + 1) == {"1"}
    finally:
        for consumer, thread in zip(consumers, threads, strict=True):
            consumer.stop()
            if thread.ident:
                thread.join()
    assert {(order_id, v) for _, order_id, v in seen} == {
        (f"order-{number}", version) for number in range(40) for version in range(1, last + 2)
    }


def run_example(name: str, broker: Broker, **environ: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(EXAMPLES.parent),
            "KAFKA_BOOTSTRAP_SERVERS": broker.address,
            **environ,
        },
    )


@pytest.mark.parametrize(("name", "said"), [("shop.py", " placed\n"), ("shop_outbox.py", "1 sent, 0 left\n")])
def test_the_shop_examples_run(broker: Broker, name: str, said: str) -> None:
    with run_example(name, broker) as process:
        output, _ = process.communicate(timeout=60)

    assert process.returncode == 0, output
    assert said in output


def test_the_downstream_example_follows_until_it_is_told_to_stop(broker: Broker) -> None:
    key = new_key()
    plain = KafkaConfig(bootstrap_servers=broker.address)
    done = change(1, 1, external_status="completed", pins=[Sealer([key]).seal("PIN-77")])
    write(plain, topics.STATUS_CHANGED, [done, done])

    with run_example("downstream.py", broker, ORDERWATCH_PIN_KEYS=key) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()

    assert line == "demo/order-1 v1: sent -> completed (provider), 1 PIN\n"
    assert rest.startswith("stopped")
    assert process.returncode == 0
    assert "PIN-77" not in line + rest
