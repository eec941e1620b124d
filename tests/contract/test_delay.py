"""The delay line on the bundled broker: nothing early, nothing lost, order kept."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from orderwatch.localservers.bundled import Broker
from streams import delay_queue
from streams.config.loader import KafkaConfig
from streams.delay_queue import DelayQueue, Due
from streams.kafka.producer import group_lag
from tests.waiting import eventually


@dataclass
class Line:
    """A delay line over its own topics; what it released, and when."""

    kafka: KafkaConfig
    released: list[tuple[datetime, Due]] = field(default_factory=list)
    done: bool = True
    ahead: timedelta = timedelta()
    died: list[Exception] = field(default_factory=list)

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

    def committed(self, topic: str, partition: int = 0) -> int | None:
        group = f"{self.kafka.topic_prefix}delay"
        return group_lag(self.kafka, group, [topic])[topic, partition][0]

    @asynccontextmanager
    async def running(self, partitions: Iterable[int] = range(2)) -> AsyncIterator[DelayQueue]:
        """With somebody who takes what is due, and is done with it at once, or never."""
        line = DelayQueue(self.kafka, f"{self.kafka.topic_prefix}delay", self.now, self.died.append)
        line.follow(partitions)
        line.start()

        async def take() -> None:
            async for record in line:
                self.released.append((self.now(), record))
                if self.done:
                    record.ack()

        taker = asyncio.create_task(take())
        try:
            yield line
        finally:
            taker.cancel()
            await asyncio.to_thread(line.stop)


@pytest.fixture
async def line(broker: Broker) -> AsyncIterator[Line]:
    kafka = KafkaConfig(
        bootstrap_servers=broker.address, topic_prefix=f"d{uuid4().hex[:8]}.", session_timeout=6, rebalance_timeout=6
    )
    made = Line(kafka)
    made.create("orders.check")
    yield made
    left = [thread.name for thread in threading.enumerate() if thread.name == "delay-line"]
    assert not left


async def wait_for(line: Line, count: int) -> None:
    await eventually(lambda: len(line.released) >= count, 40)


async def test_nothing_is_released_early_and_what_is_due_goes_on_as_it_came(line: Line) -> None:
    line.create("orders.retry.1s")
    line.write("orders.retry.1s", ("a", -5), ("b", 1.0), ("c", 1.5), ("d", 2.0))
    async with line.running():
        await wait_for(line, 4)
    assert line.keys() == ["a", "b", "c", "d"]
    for at, record in line.released:
        assert record.topic == line.kafka.topic_prefix + "orders.retry.1s" and record.headers == [("ce_id", b"1")]
        due = datetime.fromisoformat((record.value or b"").decode().split('"')[3])
        assert at >= due


async def test_a_head_that_is_not_due_keeps_its_own_partition_waiting_and_no_other(line: Line) -> None:
    line.create("orders.retry.60s")
    line.write("orders.retry.60s", ("head", 3600), ("behind", -1), partition=0)
    line.write("orders.retry.60s", ("free", -1), partition=1)
    async with line.running() as running:
        await wait_for(line, 1)
        await eventually(lambda: running.heads())
        line.write("orders.retry.60s", ("later", -1), partition=1)
        await wait_for(line, 2)
        assert line.keys() == ["free", "later"]
        ((topic, partition),) = running.heads()
        assert (topic.removeprefix(line.kafka.topic_prefix), partition) == ("orders.retry.60s", 0)
        line.ahead = timedelta(hours=2)  # the head's time has come
        await wait_for(line, 4)
    assert line.keys() == ["free", "later", "head", "behind"]


async def test_of_a_long_partition_a_few_hundred_are_held_and_the_next_are_read_before_they_are_due(line: Line) -> None:
    line.create("orders.retry.60s", partitions=1)
    line.write("orders.retry.60s", *((f"{n}", 3600 + n) for n in range(1500)))

    def held() -> int:
        return sum(map(len, running._held.values()))

    async with line.running() as running:
        await eventually(lambda: held() >= 250, 40)
        await asyncio.sleep(1.0)
        assert held() < 1000, "the rest waits in Kafka"
        line.ahead = timedelta(seconds=3600 + 400)
        await wait_for(line, 400)
        await eventually(lambda: held() >= 125, 40)
        line.ahead = timedelta(seconds=3600 + 1500)
        await wait_for(line, 1500)
    assert line.keys() == [f"{n}" for n in range(1500)]


async def test_what_it_has_goes_on_while_what_came_cannot_be_read(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.create("orders.retry.1s")
    follow = DelayQueue._follow

    def fails(self: DelayQueue) -> None:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    async with line.running([0]) as running:
        line.write("orders.retry.1s", ("a", -1), partition=0)
        await wait_for(line, 1)
        monkeypatch.setattr(DelayQueue, "_follow", fails)
        running.follow([0, 1])
        await asyncio.sleep(0.2)
        since = time.monotonic()
        line.write("orders.retry.1s", ("b", -1), partition=0)
        line.write("orders.retry.1s", ("c", -1), partition=1)
        await wait_for(line, 2)
        assert line.keys() == ["a", "b"] and running.turned_at < since, "a watchdog sees that it does not get on"
        monkeypatch.setattr(DelayQueue, "_follow", follow)
        await wait_for(line, 3)
        await eventually(lambda: running.turned_at > since)


async def test_a_tier_that_is_made_later_is_read(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay_queue, "_LOOK_S", 0.2)
    async with line.running():
        await asyncio.sleep(0.5)
        line.create("orders.retry.5s")
        line.write("orders.retry.5s", ("a", -1), partition=1)
        await wait_for(line, 1)


async def test_a_partition_of_another_worker_is_left_alone_until_it_comes(line: Line) -> None:
    line.create("orders.retry.1s")
    line.write("orders.retry.1s", ("ours", -1), partition=0)
    line.write("orders.retry.1s", ("theirs", -1), partition=1)
    async with line.running([0]) as running:
        await wait_for(line, 1)
        await asyncio.sleep(0.5)
        assert line.keys() == ["ours"]
        running.follow([1])
        await wait_for(line, 2)
    assert line.keys() == ["ours", "theirs"]


async def test_every_tier_there_is_is_drained_also_one_that_the_configuration_forgot(line: Line) -> None:
    line.create("orders.retry.500ms", "orders.retry.7s", "orders.retry.notatier", partitions=1)
    for topic in ("orders.retry.500ms", "orders.retry.7s", "orders.retry.notatier"):
        line.write(topic, (topic, -1))
    async with line.running():
        await wait_for(line, 2)
    assert sorted(line.keys()) == ["orders.retry.500ms", "orders.retry.7s"]


@pytest.mark.parametrize("value", [b"", b"{", b'{"due_at":"soon"}', b'{"due_at":"2026-01-01T00:00:00"}', b"\xff\xfe"])
async def test_what_cannot_be_read_goes_on_at_once_to_whoever_says_what_is_wrong(line: Line, value: bytes) -> None:
    line.create("orders.retry.1s", partitions=1)
    line.write("orders.retry.1s", ("bad", value), ("good", -1))
    async with line.running():
        await wait_for(line, 2)
    assert line.keys() == ["bad", "good"] and (line.released[0][1].value or b"") == value


async def test_a_restart_goes_on_from_the_last_commit(line: Line) -> None:
    line.create("orders.retry.1s", partitions=1)
    line.write("orders.retry.1s", *((f"{n}", -1) for n in range(50)))
    async with line.running():
        await wait_for(line, 50)
    line.write("orders.retry.1s", ("new", -1))
    async with line.running():
        await eventually(lambda: "new" in line.keys(), 40)
    assert line.keys()[50:] == ["new"]


async def test_what_is_done_is_committed_without_a_stop(line: Line) -> None:
    line.create("orders.retry.1s", partitions=1)
    line.write("orders.retry.1s", *((f"{n}", -1) for n in range(50)), ("far", 3600))
    async with line.running():
        await wait_for(line, 50)
        await eventually(lambda: line.committed("orders.retry.1s") == 50)


async def test_what_was_taken_and_not_done_before_a_restart_comes_again_as_begun_with(line: Line) -> None:
    line.create("orders.retry.1s", partitions=1)
    line.write("orders.retry.1s", ("a", 1), ("b", 1))
    line.done = False
    async with line.running():
        await wait_for(line, 2)
    async with line.running():
        await wait_for(line, 4)
        line.write("orders.retry.1s", ("c", 2))
        await wait_for(line, 5)
    assert line.keys() == ["a", "b", "a", "b", "c"]
    assert [record.repeated for _, record in line.released[2:]] == [True, True, False]


async def test_another_taker_begins_with_what_the_last_one_had_no_room_for(line: Line) -> None:
    line.create("orders.retry.1s", partitions=1)
    line.write("orders.retry.1s", *((f"{n}", -1) for n in range(5)))
    made = DelayQueue(line.kafka, f"{line.kafka.topic_prefix}delay", line.now, line.died.append)
    made.follow([0])
    made.start()
    try:
        async with asyncio.timeout(40):
            first = [record.key async for record in _some(made, 2)]
            second = [record.key async for record in _some(made, 3)]
    finally:
        await asyncio.to_thread(made.stop)
    assert (first, second) == ([b"0", b"1"], [b"1", b"2", b"3"])


async def _some(line: DelayQueue, count: int) -> AsyncIterator[Due]:
    """So many, the last of which is not done with."""
    taken = 0
    async for record in line:
        taken += 1
        yield record
        if taken == count:
            return


async def test_what_is_due_after_the_topic_has_forgotten_it_does_not_stop_the_partition(line: Line) -> None:
    line.create("orders.retry.60s", partitions=1)
    line.write("orders.retry.60s", ("far", 90_000), ("good", -1))
    async with line.running():
        await wait_for(line, 2)


async def test_stopping_is_quick_while_everything_sleeps(line: Line) -> None:
    line.create("orders.retry.60s", partitions=1)
    line.write("orders.retry.60s", ("a", 3600))
    async with line.running() as running:
        await eventually(running.heads, 40)
        await asyncio.to_thread(running.stop, 30.0)
        assert not line.released


def test_the_names_of_retry_topics_are_the_ones_that_the_line_listens_to() -> None:
    import re

    from streams.config.loader import tier_name

    pattern = re.compile(r"orders\.retry\.[0-9]+m?s")
    for seconds in (0.001, 0.5, 1, 1.5, 30, 60, 600, 3600, 86400):
        assert pattern.fullmatch(tier_name(seconds)), tier_name(seconds)


async def test_a_line_that_ends_by_a_defect_says_so(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    defect = RuntimeError("a defect")

    def turn(self: DelayQueue) -> None:
        raise defect

    monkeypatch.setattr(DelayQueue, "_turn", turn)
    async with line.running():
        await eventually(lambda: line.died)
    assert line.died == [defect]
