"""The delay line between two turns. What it does on a broker is in the contract tests."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from streams.config.loader import KafkaConfig
from streams.delay_queue import DelayQueue, Due

TIER = "orders.retry.1s"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def record(partition: int, offset: int, due_s: float | None = 0.0) -> Any:
    """Due so many seconds after noon; None: it says no time that could be read."""
    due_at = b"soon" if due_s is None else (NOON + timedelta(seconds=due_s)).isoformat().encode()
    return SimpleNamespace(
        topic=lambda: TIER,
        partition=lambda: partition,
        offset=lambda: offset,
        key=lambda: b"%d" % offset,
        value=lambda: b'{"due_at":"%s"}' % due_at,
        headers=lambda: None,
        error=lambda: None,
    )


class Consumer:
    """What the delay line needs of one; a tier of two partitions, each committed up to ``position``."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.checks = 2
        self.position = -1001
        self.read: dict[int, int] = {}
        self.paused: set[int] = set()
        self.stored: list[tuple[int, int]] = []

    def list_topics(self, timeout: float) -> Any:
        tier = SimpleNamespace(partitions={0: None, 1: None})
        checks = SimpleNamespace(partitions=dict.fromkeys(range(self.checks)))
        return SimpleNamespace(topics={TIER: tier, "orders.retry.notatier": tier, "orders.check": checks})

    def committed(self, partitions: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [TopicPartition(place.topic, place.partition, self.position) for place in partitions]

    def incremental_assign(self, partitions: Sequence[TopicPartition]) -> None:
        self.read |= {place.partition: place.offset for place in partitions}

    def incremental_unassign(self, partitions: Sequence[TopicPartition]) -> None:
        for place in partitions:
            del self.read[place.partition]

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self.paused |= {place.partition for place in partitions}

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self.paused -= {place.partition for place in partitions}

    def consume(self, number: int, timeout_s: float) -> list[Any]:
        came, self.records = self.records, []
        return came

    def store_offsets(self, offsets: Sequence[TopicPartition]) -> None:
        self.stored += [(place.partition, place.offset) for place in offsets]


class Clock:
    """A clock that stands at noon and some."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def line(clock: Clock) -> Iterator[DelayQueue]:
    made = DelayQueue(KafkaConfig(bootstrap_servers="127.0.0.1:1"), "delay", clock, lambda error: None)
    real, made._consumer = made._consumer, Consumer()  # type: ignore[assignment]
    yield made
    real.close()


@pytest.fixture
def consumer(line: DelayQueue) -> Consumer:
    follow(line, 0, 1)
    return line._consumer  # type: ignore[return-value]


def follow(line: DelayQueue, *partitions: int) -> None:
    line.follow(partitions)
    line._follow()


def turn(line: DelayQueue, *records: Any) -> None:
    consumer: Any = line._consumer
    consumer.records += records
    line._turn()


def take(line: DelayQueue) -> list[Due]:
    found: list[Due] = []
    while line._due or line._take():
        found.append(line._due.popleft())
    return found


def places(due: Sequence[Due]) -> list[tuple[int, int]]:
    return [(each.partition, each.offset) for each in due]


def test_what_comes_of_a_partition_that_went_away_is_left_to_its_new_owner(
    line: DelayQueue, consumer: Consumer
) -> None:
    follow(line, 0)
    turn(line, record(0, 5), record(1, 5))

    due = take(line)

    assert places(due) == [(0, 5)]
    due[0].ack()
    turn(line)
    assert consumer.stored == [(0, 6)]
    assert not line.heads()


def test_only_what_is_done_with_all_before_it_may_be_committed(line: DelayQueue, consumer: Consumer) -> None:
    turn(line, *(record(0, offset) for offset in range(4)), record(1, 9))
    first, *others, elsewhere = take(line)

    for done in (*others, elsewhere):
        done.ack()
    turn(line)
    assert consumer.stored == [(1, 10)], "the first of partition 0 is still under way"

    first.ack()
    turn(line)
    assert consumer.stored == [(1, 10), (0, 4)]


def test_what_is_done_after_its_partition_went_commits_nothing(line: DelayQueue, consumer: Consumer) -> None:
    turn(line, record(0, 5), record(1, 5))
    kept, gone = take(line)
    follow(line, 0)
    follow(line, 0, 1)
    turn(line, record(1, 3))  # the other owner had not come so far

    gone.ack()
    kept.ack()
    turn(line)

    assert consumer.stored == [(0, 6)]
    assert places(take(line)) == [(1, 3)]


def test_what_is_done_when_its_partition_goes_is_committed_on_the_way(line: DelayQueue, consumer: Consumer) -> None:
    turn(line, record(1, 5), record(1, 6))
    first, _ = take(line)
    first.ack()

    follow(line, 0)

    assert consumer.stored == [(1, 6)]


def test_it_reads_the_partitions_of_its_worker_from_where_they_are_committed(
    line: DelayQueue, consumer: Consumer
) -> None:
    assert consumer.read == {0: OFFSET_BEGINNING, 1: OFFSET_BEGINNING}

    follow(line, 1)
    assert consumer.read == {1: OFFSET_BEGINNING}

    consumer.position = 7
    follow(line, 0, 1)
    assert consumer.read == {0: 7, 1: OFFSET_BEGINNING}


def test_a_partition_beyond_those_of_the_checks_has_an_owner_too(line: DelayQueue, consumer: Consumer) -> None:
    follow(line, 1)
    consumer.checks = 1
    follow(line, 0)
    assert consumer.read == {0: OFFSET_BEGINNING, 1: OFFSET_BEGINNING}


def test_a_partition_that_was_paused_and_comes_back_is_read(line: DelayQueue, consumer: Consumer) -> None:
    turn(line, *(record(0, offset, offset + 1) for offset in range(300)))
    assert consumer.paused == {0}

    follow(line, 1)
    follow(line, 0, 1)

    assert not consumer.paused


def test_the_oldest_comes_first_whatever_its_partition(line: DelayQueue, consumer: Consumer) -> None:
    turn(line, record(0, 1, -20), record(0, 2, -10), record(0, 3, 0.5), record(1, 1, -30), record(1, 2, -5))

    assert places(take(line)) == [(1, 1), (0, 1), (0, 2), (1, 2)]
    assert line.heads() == {(TIER, 0): NOON + timedelta(seconds=0.5)}


def test_it_says_by_how_much_the_oldest_was_late(line: DelayQueue, consumer: Consumer) -> None:
    turn(line, record(0, 1, -20), record(1, 1, -30), record(1, 2, 5))
    assert line.late_s == 0.0

    line._take()
    assert line.late_s == 30.0

    line._take()
    assert line.late_s == 0.0, "nothing is due any more"


def test_little_is_taken_out_at_once(line: DelayQueue, consumer: Consumer) -> None:
    turn(line, *(record(0, offset) for offset in range(120)))

    assert [line._take() for _ in range(2)] == [50, 0], "until somebody has taken these"
    assert len(take(line)) == 120


def test_what_was_due_before_its_partition_came_may_have_been_begun_with_by_somebody_else(
    line: DelayQueue, consumer: Consumer, clock: Clock
) -> None:
    turn(line, record(0, 1, -60), record(0, 2, 0.5), record(0, 3, 1.5))
    clock.now += timedelta(seconds=10)

    assert [due.repeated for due in take(line)] == [True, True, False], "clocks differ by up to a second"


def test_what_says_no_time_goes_on_at_once_and_waits_for_its_turn(line: DelayQueue, consumer: Consumer) -> None:
    turn(line, record(0, 1, None), record(0, 2, 5), record(0, 3, None), record(1, 1, 3 * 86_400))

    assert places(take(line)) == [(0, 1), (1, 1)], "what is due after its topic has forgotten it cannot wait either"
    assert line.heads() == {(TIER, 0): NOON + timedelta(seconds=5)}


def test_a_partition_of_which_enough_is_held_is_paused_until_half_of_it_is_gone(
    line: DelayQueue, consumer: Consumer, clock: Clock
) -> None:
    turn(line, *(record(0, offset, offset + 1) for offset in range(300)), record(1, 1, 1))
    assert consumer.paused == {0}

    clock.now += timedelta(seconds=170)
    take(line)
    turn(line)
    assert consumer.paused == {0}

    clock.now += timedelta(seconds=10)
    take(line)
    turn(line)
    assert not consumer.paused


def test_a_partition_of_which_much_comes_is_read_on_until_what_is_held_lasts(
    line: DelayQueue, consumer: Consumer, clock: Clock
) -> None:
    turn(line, *(record(0, offset, 1 + offset / 1000) for offset in range(400)))
    assert not consumer.paused, "all of it is gone in less than two seconds"

    turn(line, record(0, 400, 2))
    assert consumer.paused == {0}

    clock.now += timedelta(seconds=1)
    take(line)
    turn(line)
    assert consumer.paused == {0}, "400 of it last for a second more"

    clock.now += timedelta(seconds=0.1)
    turn(line)
    assert not consumer.paused


def test_of_a_flood_no_more_is_read_than_memory_is_worth(line: DelayQueue, consumer: Consumer, clock: Clock) -> None:
    turn(line, *(record(0, offset, -60) for offset in range(999)))
    assert not consumer.paused

    turn(line, record(0, 999, -60))
    assert consumer.paused == {0}

    for _ in range(500 // 50):
        line._take()
        line._due.clear()
    turn(line)
    assert consumer.paused == {0}

    line._take()
    turn(line)
    assert not consumer.paused
