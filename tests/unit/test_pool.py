"""Acknowledging in order: an event is acknowledged only when it and every earlier one of its partition are done."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.handlers.dispatch import per_turn
from agents.runtime.ordered_pool import Pool


@dataclass
class Message:
    topic: str
    partition: int
    offset: int
    key: bytes | None


class Event:
    def __init__(self, offset: int, key: bytes | None = None, partition: int = 0) -> None:
        self.message = Message("orders.created", partition, offset, key)
        self.acknowledged = False
        self.gate = asyncio.Event()

    def ack(self) -> None:
        assert not self.acknowledged
        self.acknowledged = True


class Work:
    """A handler whose events finish when their gate opens."""

    def __init__(self) -> None:
        self.began: list[Event] = []
        self.ended: list[Event] = []

    async def __call__(self, event: Event) -> None:
        self.began.append(event)
        await event.gate.wait()
        self.ended.append(event)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def acknowledged(events: list[Event]) -> list[int]:
    return [event.message.offset for event in events if event.acknowledged]


async def started(pool: Pool, handle: Callable[[Any], Awaitable[None]], events: list[Event]) -> None:
    for event in events:
        await pool.submit(event, handle)
    await settled()


async def test_out_of_order_completion_acknowledges_in_order() -> None:
    pool, work, events = Pool(10), Work(), [Event(n) for n in range(4)]
    await started(pool, work, events)
    for done, expected in ((2, []), (1, []), (0, [0, 1, 2]), (3, [0, 1, 2, 3])):
        events[done].gate.set()
        await settled()
        assert acknowledged(events) == expected


@settings(deadline=None)
@given(st.permutations(range(8)), st.lists(st.integers(0, 1), min_size=8, max_size=8))
def test_whatever_finishes_first_no_acknowledgement_passes_an_event_in_flight(
    order: list[int], partitions: list[int]
) -> None:
    async def run() -> None:
        pool, work = Pool(20), Work()
        events = [Event(n, partition=partitions[n]) for n in range(8)]
        await started(pool, work, events)
        for n in order:
            events[n].gate.set()
            await settled()
            for partition in (0, 1):
                mine = [event for event in events if event.message.partition == partition]
                done = [event in work.ended for event in mine]
                first_open = done.index(False) if False in done else len(mine)
                assert [event.acknowledged for event in mine] == [i < first_open for i in range(len(mine))]

    asyncio.run(run())


async def test_one_partition_never_waits_for_another() -> None:
    pool, work = Pool(10), Work()
    slow, quick = Event(0, partition=0), Event(0, partition=1)
    await started(pool, work, [slow, quick])
    quick.gate.set()
    await settled()
    assert quick.acknowledged and not slow.acknowledged


async def test_events_of_one_key_run_one_after_the_other() -> None:
    pool, work = Pool(10), Work()
    events = [Event(0, b"a"), Event(1, b"a"), Event(2, b"b"), Event(3, b"a")]
    await started(pool, work, events)
    assert work.began == [events[0], events[2]]
    events[0].gate.set()
    await settled()
    assert work.began == [events[0], events[2], events[1]]
    events[1].gate.set()
    await settled()
    assert work.began[-1] is events[3]


async def test_events_without_a_key_do_not_wait_for_each_other() -> None:
    pool, work, events = Pool(10), Work(), [Event(n) for n in range(3)]
    await started(pool, work, events)
    assert work.began == events


async def test_a_full_pool_takes_nothing_more() -> None:
    pool, work, events = Pool(2), Work(), [Event(n) for n in range(3)]
    waiting = asyncio.create_task(started(pool, work, events))
    await settled()
    assert pool.in_flight == 2 and len(work.began) == 2
    events[0].gate.set()
    await waiting
    assert work.began == events


async def test_a_burst_begins_a_few_at_a_time() -> None:
    """Whatever else is ready has its turn in between."""
    pool, work, begun = Pool(100, lambda: 16), Work(), []
    submitting = asyncio.create_task(started(pool, work, [Event(offset) for offset in range(50)]))
    while not submitting.done():
        await asyncio.sleep(0)
        begun.append(pool.in_flight)
    assert begun[:3] == [15, 31, 47]


async def test_how_many_of_a_burst_begin_may_change_meanwhile() -> None:
    pool, work, begun = Pool(100, lambda: at_once), Work(), []
    submitting = asyncio.create_task(started(pool, work, [Event(offset) for offset in range(50)]))
    for turn in (16, 16, 1, 1, 4):
        at_once = turn
        await asyncio.sleep(0)
        begun.append(pool.in_flight)
    assert begun == [15, 31, 32, 33, 37]
    submitting.cancel()


def test_new_orders_give_way_to_late_checks() -> None:
    assert [per_turn(late_s) for late_s in (0.0, 0.09, 0.1, 30.0)] == [16, 16, 1, 1]


async def test_a_partition_that_went_away_is_finished_and_not_acknowledged() -> None:
    pool, work, events = Pool(10), Work(), [Event(0), Event(1), Event(0, partition=1)]
    await started(pool, work, events)
    pool.forget([("orders.created", 0)])
    for event in events:
        event.gate.set()
    await settled()
    assert work.ended == events
    assert [event.acknowledged for event in events] == [False, False, True]


async def test_a_partition_that_came_back_acknowledges_only_what_it_brought() -> None:
    pool, work = Pool(10), Work()
    old, again = Event(0, b"a"), Event(0, b"a")
    await started(pool, work, [old])
    pool.forget([("orders.created", 0)])
    await started(pool, work, [again])
    assert work.began == [old]  # the same order: still one at a time
    old.gate.set()
    await settled()
    assert not old.acknowledged and not again.acknowledged
    again.gate.set()
    await settled()
    assert again.acknowledged and not old.acknowledged


async def test_draining_waits_for_the_work_and_takes_nothing_more() -> None:
    pool, work, events = Pool(10), Work(), [Event(0), Event(1)]
    await started(pool, work, events[:1])
    draining = asyncio.create_task(pool.drain(60))
    await settled()
    late = asyncio.create_task(pool.submit(events[1], work))
    await settled()
    events[0].gate.set()
    assert await draining == 0
    assert acknowledged(events) == [0] and work.began == events[:1]
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late


async def test_what_does_not_finish_in_time_is_cancelled_and_not_acknowledged() -> None:
    pool, work, events = Pool(10), Work(), [Event(0, b"a"), Event(1, b"a"), Event(2)]
    await started(pool, work, events)
    events[2].gate.set()
    assert await pool.drain(0.01) == 2
    await settled()
    assert acknowledged(events) == [] and pool.in_flight == 0


async def test_events_come_from_whatever_yields_them() -> None:
    async def events() -> AsyncIterator[Event]:
        yield event

    event, pool = Event(0), Pool(1)
    event.gate.set()
    await pool.run(events(), Work())
    await settled()
    assert event.acknowledged
