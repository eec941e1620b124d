"""What may be committed of a fetch, and what a rebalance took away from it. Rewinding is tested on Apache Kafka."""

from collections import defaultdict
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

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


def test_a_worker_whose_consumer_does_not_run_yet_reads_nothing(consumer: _Consumer) -> None:
    """The heartbeat asks within a moment of the start, and an exception there ended the worker."""
    consumer._thread = object.__new__(_ConsumerThread)
    consumer._thread._consumer = None
    assert consumer.assignment() == set()
