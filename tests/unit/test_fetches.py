"""What may be committed of a fetch, and what a rebalance took away from it. Rewinding is tested on Apache Kafka."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from mode.utils.locks import Event

from streams.app import CacheTable, _Consumer, _ConsumerThread, arrivals
from streams.errors import BrokerUnavailable

PLACE = TP("orders.created", 0)


@pytest.fixture
def consumer() -> _Consumer:
    """Of generation 1, with nothing of Faust behind it."""
    made = object.__new__(_Consumer)
    buffer = SimpleNamespace(size=0, max_messages=100)
    made.app = SimpleNamespace(consumer_generation_id=1, producer=SimpleNamespace(buffer=buffer))
    made.flow_active = True
    made._stopped, made._crashed = Event(), Event()
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
async def test_what_a_rebalance_overtakes_is_given_out_no_more_and_commits_nothing(
    consumer: _Consumer, how: str
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


async def test_while_the_producer_of_faust_is_full_its_time_limit_is_not_the_readers(consumer: _Consumer) -> None:
    consumer.loop = asyncio.get_running_loop()
    consumer.app.producer.buffer.size = 101
    reader = asyncio.current_task()

    async def hand_over() -> bool:
        return asyncio.current_task() is not reader

    assert (await consumer.wait_first(hand_over(), asyncio.Event().wait())).results == [True]


@pytest.mark.parametrize("first", ["handed over", "refused", "suspended"])
async def test_a_fetch_that_has_to_wait_is_handed_over_unless_the_flow_is_suspended(
    consumer: _Consumer, first: str
) -> None:
    consumer.loop = asyncio.get_running_loop()
    room, suspended, given_up = asyncio.get_running_loop().create_future(), asyncio.Event(), asyncio.Event()

    async def hand_over() -> str:
        try:
            await asyncio.sleep(0)  # twice: what is left of it goes on as any coroutine
            return str(await room)
        except asyncio.CancelledError:
            given_up.set()
            raise

    waiting = asyncio.create_task(consumer.wait_first(hand_over(), suspended.wait()))
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


class Send:
    """Takes what a table has to write; waits for ``gate`` and then raises ``error``, if there is one."""

    def __init__(self) -> None:
        self.written: list[dict[Any, Any]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, changes: Any) -> None:
        self.written.append(dict(changes))
        await self.gate.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def table() -> CacheTable:
    made = object.__new__(CacheTable)
    made._unwritten, made._writing, made._begun, made._failures = {}, asyncio.Lock(), 0, 0
    return made


async def test_what_a_table_writes_already_is_not_written_again_and_what_changed_meanwhile_is(
    table: CacheTable,
) -> None:
    send = Send()
    table.on_key_set(b"a", b"1")
    writes = [asyncio.create_task(table.write(send)) for _ in range(3)]
    await asyncio.sleep(0)
    table.on_key_set(b"a", b"2")
    table.on_key_del(b"b")
    send.gate.set()
    await asyncio.gather(*writes)
    assert send.written == [{b"a": b"1"}, {b"a": b"2", b"b": None}]


async def test_all_who_wait_for_a_write_share_the_next(table: CacheTable) -> None:
    """One each, and the last of sixteen waited for sixteen: three quarters of a second, in which nothing was read."""
    send = Send()

    async def change(number: int) -> None:
        table.on_key_set(b"%d" % number, b"1")
        await table.write(send)
        table.on_key_set(b"later %d" % number, b"2")

    changing = [asyncio.create_task(change(number)) for number in range(16)]
    await asyncio.sleep(0)
    send.gate.set()
    await asyncio.gather(*changing)
    assert [len(changes) for changes in send.written] == [1, 16]  # the first has changed something more


async def test_whoever_waited_for_a_write_that_failed_fails_with_it(table: CacheTable) -> None:
    """Each would wait for its own time limit, one after the other: minutes without a sign of life."""
    send = Send()
    send.error = BrokerUnavailable("away")
    table.on_key_set(b"a", b"1")
    writes = [asyncio.create_task(table.write(send)) for _ in range(3)]
    await asyncio.sleep(0)
    send.gate.set()
    failed = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(error) for error in failed] == [BrokerUnavailable] * 3
    assert len(send.written) == 1
    send.error = None
    await table.write(send)
    assert send.written[1:] == [{b"a": b"1"}]


async def test_whoever_shares_a_write_that_fails_fails_with_it(table: CacheTable) -> None:
    written = []

    async def send(changes: Any) -> None:
        written.append(changes)
        await asyncio.sleep(0)
        if len(written) == 2:
            raise BrokerUnavailable("away")

    table.on_key_set(b"a", b"1")
    ended = await asyncio.gather(*(table.write(send) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in ended] == [type(None), BrokerUnavailable, BrokerUnavailable]


async def test_a_write_that_was_cancelled_is_done_by_the_next(table: CacheTable) -> None:
    send = Send()
    table.on_key_set(b"a", b"1")
    first = asyncio.create_task(table.write(send))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    send.gate.set()
    await table.write(send)
    assert send.written == [{b"a": b"1"}, {b"a": b"1"}]


def test_a_worker_whose_consumer_does_not_run_yet_reads_nothing(consumer: _Consumer) -> None:
    """The heartbeat asks within a moment of the start, and an exception there ended the worker."""
    consumer._thread = object.__new__(_ConsumerThread)
    consumer._thread._consumer = None
    assert consumer.assignment() == set()
