"""What may be committed of a fetch, and what a rebalance took away from it. Rewinding is tested on Apache Kafka."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from mode.utils.locks import Event

from streams.app import _Consumer, _ConsumerThread, arrivals

PLACE = TP("orders.created", 0)


@pytest.fixture
def consumer() -> _Consumer:
    """Of generation 1, with nothing of Faust behind it."""
    made = object.__new__(_Consumer)
    made.app = SimpleNamespace(consumer_generation_id=1)
    made.flow_active = True
    made._acked, made._acked_index = defaultdict(list), defaultdict(set)
    return made


def fetch(*offsets: int, generation: int = 1) -> Any:
    message = SimpleNamespace(tp=PLACE, generation_id=generation)
    records = [SimpleNamespace(topic=PLACE.topic, partition=PLACE.partition, offset=offset) for offset in offsets]
    return SimpleNamespace(message=message, value=records, ack=lambda: None)


def stream_of(*fetches: Any) -> Any:
    async def events() -> AsyncIterator[Any]:
        for one in fetches:
            yield one

    return SimpleNamespace(noack=lambda: SimpleNamespace(events=events))


async def test_a_fetch_is_committed_record_by_record(consumer: _Consumer) -> None:
    async for arrival in arrivals(SimpleNamespace(consumer=consumer), stream_of(fetch(4, 5, 6))):  # type: ignore[arg-type]
        if arrival.message.offset < 6:
            arrival.ack()
    assert consumer._new_offset(PLACE) == 6
    assert consumer._new_offset(PLACE) is None


@pytest.mark.parametrize("how", ["flow stopped", "next generation"])
async def test_what_a_rebalance_overtakes_is_given_out_no_more_and_commits_nothing(consumer: _Consumer, how: str
                                                                                   ) -> None:
    given = []
    async for arrival in arrivals(SimpleNamespace(consumer=consumer), stream_of(fetch(4, 5, 6))):  # type: ignore[arg-type]
        given.append(arrival.message.offset)
        if how == "flow stopped":
            consumer.flow_active = False
        else:
            consumer.app.consumer_generation_id = 2
        arrival.ack()
    assert given == [4]
    assert consumer._new_offset(PLACE) is None


def step(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it without an event loop; raises when it waits for anything."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def test_a_fetch_that_nothing_keeps_waiting_is_handed_over_at_once(consumer: _Consumer) -> None:
    """A turn of the event loop takes a tenth of a second under a burst, and Faust took three for each fetch."""
    async def hand_over() -> str:
        return "handed over"

    async def refuse() -> str:
        raise ValueError("not this one")

    suspended = asyncio.Event()
    assert step(consumer.wait_first(hand_over(), suspended.wait())).results == ["handed over"]
    with pytest.raises(ValueError, match="not this one"):
        step(consumer.wait_first(refuse(), suspended.wait()))


@pytest.mark.parametrize("first", ["handed over", "refused", "suspended"])
async def test_a_fetch_that_has_to_wait_is_handed_over_unless_the_flow_is_suspended(consumer: _Consumer, first: str
                                                                                    ) -> None:  # fmt: skip
    consumer.loop = asyncio.get_running_loop()
    consumer._stopped, consumer._crashed = Event(), Event()
    room, suspended, given_up = asyncio.get_running_loop().create_future(), asyncio.Event(), asyncio.Event()

    async def hand_over() -> str:
        try:
            await asyncio.sleep(0)  # twice: what is left of it goes on as any coroutine
            return str(await room)
        except asyncio.CancelledError:
            given_up.set()
            raise

    handing = hand_over()
    waiting = asyncio.create_task(consumer.wait_first(handing, suspended.wait()))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    if first == "refused":
        room.set_exception(ValueError("not this one"))
        with pytest.raises(ValueError, match="not this one"):
            await waiting
    elif first == "suspended":
        suspended.set()
        assert (await waiting).results == [True]
        await asyncio.wait_for(given_up.wait(), 5)
    else:
        room.set_result(first)
        assert (await waiting).results == [first]


def test_a_worker_whose_consumer_does_not_run_yet_reads_nothing(consumer: _Consumer) -> None:
    """The heartbeat asks within a moment of the start, and an exception there ended the worker."""
    consumer._thread = object.__new__(_ConsumerThread)
    consumer._thread._consumer = None
    assert consumer.assignment() == set()
