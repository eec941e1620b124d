"""When a worker calls itself stuck, and when it only waits."""

import asyncio
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any

import pytest

from agents.gateway.gateway import Lane
from agents.providers.base import Placed
from agents.runtime import in_flight, watchdog
from agents.runtime.in_flight import InFlight
from agents.runtime.ordered_pool import Pool
from agents.runtime.watchdog import LivenessProbes, Place, StallDetector, stall_timeout_s, tasks, within
from streams import metrics
from streams.config.loader import BreakerConfig, LimitsConfig
from streams.errors import BrokerUnavailable, StoreUnavailable
from tests.fakes import FakeProvider
from tests.waiting import eventually

CREATED: Place = ("orders.created", 0)


class World:
    """A clock to be moved, and what a watchdog sees."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stall_after_s: float = 60) -> None:
        self.now = 1000.0
        self.lags: Mapping[Place, tuple[int | None, int]] = {CREATED: (5, 8)}
        self.signs: Mapping[Place, float] | None = {CREATED: 0.0}
        self.away: Exception | None = None
        self.first: int | None = 0
        self.owned: set[Place] = set()
        self.asked = 0
        self.beat_at: float | None = None
        monkeypatch.setattr(watchdog, "monotonic", lambda: self.now)
        sight = LivenessProbes(
            self._lags,
            lambda: None,
            lambda: self.signs,
            lambda: self.beat_at or self.now,
            lambda: self.now,
            self._next,
            due_at=lambda: self.now,
            owned=lambda: self.owned,
        )
        self.progress = StallDetector(sight, lambda: stall_after_s, _since=self.now)

    def _lags(self) -> Mapping[Place, tuple[int | None, int]]:
        if self.away is not None:
            raise self.away
        return self.lags

    def _next(self, place: Place, offset: int) -> int | None:
        self.asked += 1
        return None if self.first is None else max(self.first, offset)

    def after(self, seconds: float) -> list[str]:
        """What is stuck then; somebody looked every ten seconds."""
        for _ in range(int(seconds // 10)):
            self.now += 10
            self.progress.look()
        return self.progress.stuck


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_three_slow_calls_one_after_the_other_are_no_stall() -> None:
    """As many as a look-up at znet makes."""
    assert stall_timeout_s(120, [25, 95]) > 3 * 95
    assert stall_timeout_s(120, [3]) == stall_timeout_s(120, []) == 120
    assert stall_timeout_s(0, [95]) == 0


def test_a_backlog_without_progress_is_stuck_and_named(world: World) -> None:
    assert world.after(70) == [], "of which the first ten passed before the first look"
    assert world.after(10) == ["orders.created [0] has 3 events and no progress for 70 s"]


def test_progress_of_a_single_event_is_enough(world: World) -> None:
    for committed in range(5, 9):
        world.lags = {CREATED: (committed, 9)}
        assert world.after(50) == []


def test_no_backlog_is_never_stuck(world: World) -> None:
    world.lags = {CREATED: (8, 8)}
    assert world.after(600) == []


def test_events_that_the_topic_has_forgotten_are_no_backlog(world: World) -> None:
    world.first = 8
    assert world.after(600) == []


def test_offsets_without_a_record_are_no_backlog(world: World) -> None:
    """Markers of transactions, aborted batches, a compacted tail."""
    world.first = None
    assert world.after(600) == []
    assert world.asked == 1, "what was looked into is not looked into again"
    assert metrics.WORKER._gauges["orderwatch_consumer_lag"] == {("orders.created",): 0}


def test_markers_before_a_record_do_not_hide_it(world: World) -> None:
    world.first = 7
    assert world.after(80) == ["orders.created [0] has 1 events and no progress for 70 s"]


def test_a_record_that_comes_behind_markers_is_a_backlog_again(world: World) -> None:
    world.first = None
    world.after(300)
    world.first, world.lags = 8, {CREATED: (5, 9)}
    assert world.after(10) == ["orders.created [0] has 1 events and no progress for 300 s"]


def test_a_worker_without_partitions_is_stuck_while_some_have_no_worker(world: World) -> None:
    world.signs, world.lags = {}, {CREATED: (8, 8), ("orders.created", 1): (3, 3)}
    assert world.after(80) == ["this worker has no partition, and 2 have no worker for 70 s"]
    world.owned = {CREATED, ("orders.created", 1)}
    assert world.after(10) == [], "more workers than partitions are no fault"


def test_a_worker_with_partitions_is_well_while_others_have_no_worker(world: World) -> None:
    world.lags = {CREATED: (8, 8), ("orders.created", 1): (3, 3)}
    assert world.after(300) == []
    assert metrics.WORKER._gauges["orderwatch_unowned_partitions"] == {(): 1}


def test_offsets_beyond_the_end_are_counted(world: World) -> None:
    world.lags = {CREATED: (160, 5)}
    world.after(10)
    assert metrics.WORKER._gauges["orderwatch_committed_beyond_end"] == {(): 1}


def test_a_partition_that_was_never_committed_is_stuck_too(world: World) -> None:
    world.lags = {CREATED: (None, 2)}
    assert world.after(80) == ["orders.created [0] has 2 events and no progress for 70 s"]


@pytest.mark.parametrize("away", [BrokerUnavailable("away"), StoreUnavailable("away"), TimeoutError()])
def test_holding_is_not_hanging(world: World, away: Exception) -> None:
    world.after(50)
    world.away = away
    assert world.after(600) == []
    world.away = None
    assert world.after(60) == [], "the time starts anew when the server answers"
    assert world.after(20) != []


def test_an_event_that_shows_signs_of_life_is_not_stuck(world: World) -> None:
    for _ in range(20):
        world.signs = {CREATED: world.now}
        assert world.after(50) == []


def test_partitions_that_move_are_not_judged_unless_they_never_arrive(world: World) -> None:
    world.signs = None
    assert world.after(300) == []
    world.signs = {CREATED: world.now}
    assert world.after(10) == []
    world.signs = None
    assert world.after(300) == []
    assert world.after(20) == ["partitions have been on the move for 310 s"]


def test_a_loop_that_stands_still_is_stuck(world: World) -> None:
    world.lags, world.beat_at = {}, 1000.0
    assert world.after(70) == ["the event loop has not moved for 70 s"]


def test_zero_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert World(monkeypatch, 0).after(10_000) == []


def test_a_question_that_nobody_answers_is_left_behind() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.05, lambda: never.wait(5))
    never.set()
    assert within(1, lambda: 7) == 7
    with pytest.raises(StoreUnavailable):
        within(1, lambda: (_ for _ in ()).throw(StoreUnavailable("away")))


# -- signs of life --------------------------------------------------------------------------------------------------


class Event:
    def __init__(self, topic: str = "orders.created") -> None:
        self.message: Any = type("M", (), {"topic": topic, "partition": 0, "key": b"k"})()

    def ack(self) -> None:
        pass


async def test_a_pool_says_when_its_oldest_event_last_got_on() -> None:
    pool, go = Pool(10), asyncio.Event()
    assert pool.heartbeat_at(CREATED) is None
    before = monotonic()

    async def handle(event: Event) -> None:
        await go.wait()
        in_flight.touch()
        await asyncio.Event().wait()

    await pool.submit(Event(), handle)
    taken = pool.heartbeat_at(CREATED)
    assert taken is not None and taken >= before and pool.heartbeat_at(("elsewhere", 0)) is None
    go.set()
    await eventually(lambda: (pool.heartbeat_at(CREATED) or 0) > taken)
    await pool.drain(0)


async def test_whoever_waits_for_another_event_of_its_order_lives_as_long_as_that_one() -> None:
    pool, go, began = Pool(10), asyncio.Event(), []

    async def handle(event: Event) -> None:
        began.append(event)
        while not go.is_set():
            in_flight.touch()
            await asyncio.sleep(0.01)
        if event is not first:
            await asyncio.Event().wait()

    first, second, third = Event(), Event("orders.check"), Event("orders.retry.1s")
    for event in (first, second, third):
        await pool.submit(event, handle)
    seen = lambda: min(pool.heartbeat_at((event.message.topic, 0)) or 0 for event in (second, third))  # noqa: E731
    since = monotonic()
    await eventually(lambda: seen() > since)
    assert began == [first]

    await asyncio.sleep(0.05)
    since = monotonic()
    go.set()
    await eventually(lambda: began == [first, second])
    assert seen() > since, "the second one begins, after a long wait"
    await asyncio.sleep(0.05)
    assert seen() < monotonic() - 0.04, "it hangs now"
    await pool.drain(0)


async def test_whoever_waits_for_a_lane_lives_as_long_as_the_lane_lets_others_pass() -> None:
    lane = Lane(
        "one",
        FakeProvider(Placed.ACCEPTED),
        LimitsConfig(rate=1000, concurrency=1),
        BreakerConfig(),
        1,
        lambda down: None,
    )
    mine = InFlight(Event())

    async def place() -> None:
        in_flight.begin(mine)
        async with lane.slot():
            pass

    async with lane.slot():
        waiting = asyncio.create_task(place())
        await eventually(lambda: mine.waits_for is not None)
        mine.alive_at = 0.0
        assert mine.heartbeat_at == lane._dispatch.moved_at > 0
        lane._dispatch.moved_at = 5.0
        assert mine.heartbeat_at == 5.0, "a lane in which nothing moves is no excuse"
    await waiting
    assert mine.waits_for is None and mine.heartbeat_at > 5.0


async def test_the_dump_says_where_every_task_waits_and_no_value() -> None:
    async def inner(secret: str) -> None:
        await asyncio.Event().wait()

    async def outer() -> None:
        await inner("planted-secret")

    waiting = [asyncio.create_task(outer(), name="planted-secret") for _ in range(3)]
    await asyncio.sleep(0)
    found = tasks(asyncio.get_running_loop())
    [stack] = [stack for count, stack in found if count == 3]
    assert [line.rpartition(" ")[2] for line in stack][:2] == ["outer", "inner"]
    assert "unit/test_progress.py:" in stack[0] and "planted-secret" not in str(found)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
