"""The delay line on the bundled broker: nothing early, nothing lost, order kept."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from orderwatch.embedded import Broker
from streams.config import KafkaConfig
from streams.delay import DelayLine
from streams.errors import BrokerUnavailable
from streams.kafka import Outgoing, group_lag
from tests.waiting import eventually


@dataclass
class Line:
    """A delay line over its own topics; what it released, and when."""

    kafka: KafkaConfig
    released: list[tuple[datetime, Outgoing]] = field(default_factory=list)
    away: int = 0
    ahead: timedelta = timedelta()
    died: list[Exception] = field(default_factory=list)
    broken: Exception | None = None

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def create(self, *names: str, partitions: int = 2) -> None:
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap_servers})
        wanted = [NewTopic(self.kafka.topic_prefix + name, partitions, 1) for name in names]
        for made in admin.create_topics(wanted).values():
            made.result(15)

    def write(self, topic: str, *values: tuple[str, float | bytes], partition: int = 0) -> None:
        """(key, seconds until due, or the raw value) each."""
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "log_level": 0})
        for key, due in values:
            at = (self.now() + timedelta(seconds=due)).isoformat() if isinstance(due, int | float) else ""
            value = due if isinstance(due, bytes) else b'{"due_at":"%s","order_id":"o"}' % at.encode()
            producer.produce(self.kafka.topic_prefix + topic, value, key, partition, headers=[("ce_id", b"1")])
        assert producer.flush(15) == 0

    def keys(self) -> list[str]:
        return [(record.key or b"").decode() for _, record in self.released]

    def forward(self, records: Sequence[Outgoing]) -> None:
        if self.broken:
            raise self.broken
        if self.away:
            self.away -= 1
            raise BrokerUnavailable("kafka: not acknowledged")
        self.released += [(self.now(), record) for record in records]

    @contextmanager
    def running(self) -> Iterator[DelayLine]:
        line = DelayLine(self.kafka, f"{self.kafka.topic_prefix}delay", self.forward, park, self.now, self.died.append)
        line.start()
        try:
            yield line
        finally:
            line.stop()


def park(record: Any, reason: str) -> Outgoing:
    return Outgoing("orders.dead-letter", record.key(), record.value(), [("dlq.reason", reason.encode())])


@pytest.fixture
async def line(broker: Broker) -> AsyncIterator[Line]:
    kafka = KafkaConfig(bootstrap_servers=broker.address, topic_prefix=f"d{uuid4().hex[:8]}.", session_timeout=6,
                        rebalance_timeout=6)  # fmt: skip
    yield Line(kafka)
    left = [thread.name for thread in threading.enumerate() if thread.name == "delay-line"]
    assert not left


async def wait_for(line: Line, count: int) -> None:
    await eventually(lambda: len(line.released) >= count, 40)


async def test_nothing_is_released_early_and_what_is_due_goes_to_the_checks(line: Line) -> None:
    line.create("orders.retry.1s")
    line.write("orders.retry.1s", ("a", -5), ("b", 1.0), ("c", 1.5), ("d", 2.0))
    with line.running():
        await wait_for(line, 4)
    assert line.keys() == ["a", "b", "c", "d"]
    for at, record in line.released:
        assert record.topic == "orders.check" and record.headers == [("ce_id", b"1")]
        due = datetime.fromisoformat((record.value or b"").decode().split('"')[3])
        assert at >= due


async def test_a_head_that_is_not_due_keeps_its_own_partition_waiting_and_no_other(line: Line) -> None:
    line.create("orders.retry.60s")
    line.write("orders.retry.60s", ("head", 3600), ("behind", -1), partition=0)
    line.write("orders.retry.60s", ("free", -1), partition=1)
    with line.running() as running:
        await wait_for(line, 1)
        await eventually(lambda: running.sleeping())
        line.write("orders.retry.60s", ("later", -1), partition=1)
        await wait_for(line, 2)
        assert line.keys() == ["free", "later"]
        ((topic, partition),) = running.sleeping()
        assert (topic.removeprefix(line.kafka.topic_prefix), partition) == ("orders.retry.60s", 0)
        line.ahead = timedelta(hours=2)  # the head's time has come
        await wait_for(line, 4)
    assert line.keys() == ["free", "later", "head", "behind"]


async def test_of_a_long_partition_a_few_hundred_are_held_and_the_next_are_read_before_they_are_due(line: Line) -> None:
    line.create("orders.retry.60s", partitions=1)
    line.write("orders.retry.60s", *((f"{n}", 3600 + n) for n in range(1500)))

    def held() -> int:
        return sum(map(len, running._held.values()))

    with line.running() as running:
        await eventually(lambda: held() >= 250, 40)
        await asyncio.sleep(1.0)
        assert held() < 1000, "the rest waits in Kafka"
        line.ahead = timedelta(seconds=3600 + 400)
        await wait_for(line, 400)
        await eventually(lambda: held() >= 125, 40)
        line.ahead = timedelta(seconds=3600 + 1500)
        await wait_for(line, 1500)
    assert line.keys() == [f"{n}" for n in range(1500)]


async def test_every_tier_there_is_is_drained_also_one_that_the_configuration_forgot(line: Line) -> None:
    line.create("orders.retry.500ms", "orders.retry.7s", "orders.retry.notatier", partitions=1)
    for topic in ("orders.retry.500ms", "orders.retry.7s", "orders.retry.notatier"):
        line.write(topic, (topic, -1))
    with line.running():
        await wait_for(line, 2)
    assert sorted(line.keys()) == ["orders.retry.500ms", "orders.retry.7s"]


@pytest.mark.parametrize("value", [b"", b"{", b'{"due_at":"soon"}', b'{"due_at":"2026-01-01T00:00:00"}', b"\xff\xfe"])
async def test_what_cannot_be_read_is_set_aside_and_the_rest_goes_on(line: Line, value: bytes) -> None:
    line.create("orders.retry.1s", partitions=1)
    line.write("orders.retry.1s", ("bad", value), ("good", -1))
    with line.running():
        await wait_for(line, 2)
    assert [record.topic for _, record in line.released] == ["orders.dead-letter", "orders.check"]
    assert line.released[0][1].value == (value or None) or line.released[0][1].value == value


async def test_a_broker_that_did_not_acknowledge_is_asked_again_and_nothing_is_lost(line: Line) -> None:
    line.create("orders.retry.1s")
    line.away = 2
    line.write("orders.retry.1s", *((f"a{n}", -1) for n in range(20)), partition=0)
    line.write("orders.retry.1s", *((f"b{n}", 0.5) for n in range(20)), partition=1)
    with line.running():
        await eventually(lambda: len(set(line.keys())) == 40, 40)
    for letter in "ab":
        first = list(dict.fromkeys(key for key in line.keys() if key.startswith(letter)))
        assert first == [f"{letter}{n}" for n in range(20)]


async def test_while_it_cannot_go_back_it_does_not_go_on(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.create("orders.retry.1s", partitions=1)
    line.away = 1
    line.write("orders.retry.1s", *((f"{n}", -1) for n in range(1200)))  # more than one move takes
    rewind, failures = DelayLine._rewind, [True, True]

    def fails_first(self: DelayLine) -> None:
        if failures:
            failures.pop()
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))  # the commit cannot be asked for either
        rewind(self)

    monkeypatch.setattr(DelayLine, "_rewind", fails_first)
    with line.running():
        await eventually(lambda: len(line.keys()) >= 1200, 40)
    assert not failures and list(dict.fromkeys(line.keys())) == [f"{n}" for n in range(1200)]


async def test_a_restart_goes_on_from_the_last_commit(line: Line) -> None:
    line.create("orders.retry.1s", partitions=1)
    line.write("orders.retry.1s", *((f"{n}", -1) for n in range(50)))
    with line.running():
        await wait_for(line, 50)
    line.write("orders.retry.1s", ("new", -1))
    with line.running():
        await eventually(lambda: "new" in line.keys(), 40)
    assert line.keys()[50:] == ["new"]


async def test_what_moved_is_committed_without_a_stop(line: Line) -> None:
    line.create("orders.retry.1s", partitions=1)
    line.write("orders.retry.1s", *((f"{n}", -1) for n in range(50)), ("far", 3600))
    with line.running():
        await wait_for(line, 50)
        moved = {("orders.retry.1s", 0): (50, 51)}
        group = f"{line.kafka.topic_prefix}delay"
        await eventually(lambda: group_lag(line.kafka, group, ["orders.retry.1s"]) == moved)


async def test_what_was_not_acknowledged_before_a_restart_is_released_after_it(line: Line) -> None:
    line.create("orders.retry.1s", partitions=1)
    line.away = 10**9
    line.write("orders.retry.1s", ("a", -1), ("b", -1))
    with line.running():
        await eventually(lambda: line.away < 10**9, 40)
    line.away = 0
    with line.running():
        await wait_for(line, 2)
    assert line.keys() == ["a", "b"]


async def test_what_is_due_after_the_topic_has_forgotten_it_does_not_stop_the_partition(line: Line) -> None:
    line.create("orders.retry.60s", partitions=1)
    line.write("orders.retry.60s", ("far", 90_000), ("good", -1))
    with line.running():
        await wait_for(line, 2)
    assert [record.topic for _, record in line.released] == ["orders.dead-letter", "orders.check"]


async def test_stopping_is_quick_while_everything_sleeps(line: Line) -> None:
    line.create("orders.retry.60s", partitions=1)
    line.write("orders.retry.60s", ("a", 3600))
    with line.running() as running:
        await eventually(running.sleeping, 40)
        await asyncio.to_thread(running.stop, 30.0)
        assert not line.released


def test_the_names_of_retry_topics_are_the_ones_that_the_line_listens_to() -> None:
    import re

    from streams.config import tier_name

    pattern = re.compile(r"orders\.retry\.[0-9]+m?s")
    for seconds in (0.001, 0.5, 1, 1.5, 30, 60, 600, 3600, 86400):
        assert pattern.fullmatch(tier_name(seconds)), tier_name(seconds)


async def test_a_line_that_ends_by_a_defect_says_so(line: Line) -> None:
    line.broken = RuntimeError("a defect")
    line.write("orders.retry.1s", ("due", 0))
    with line.running():
        await eventually(lambda: line.died)
    assert line.died == [line.broken]
