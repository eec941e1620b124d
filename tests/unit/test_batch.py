"""Calls that share a batch: how they gather, and that none waits for ever."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from db.batch import Batcher
from streams.errors import StoreUnavailable


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


class Statement:
    """Keeps what it was called with; the outcome of each item is itself."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(items))
        return items


async def test_what_comes_while_a_batch_gathers_goes_with_it(executor: ThreadPoolExecutor) -> None:
    statement = Statement()
    batcher = Batcher(statement, lambda item: item, executor, gather_s=0.2)
    first = asyncio.create_task(batcher(1))
    await asyncio.sleep(0.01)
    assert await asyncio.gather(first, batcher(2), batcher(3)) == [1, 2, 3]
    assert statement.batches == [[1, 2, 3]]


@pytest.mark.parametrize("gather_s", [0.0, 30.0])
async def test_whoever_waits_when_the_worker_stops_is_told(executor: ThreadPoolExecutor, gather_s: float) -> None:
    """The statement is held until the batcher is cancelled: otherwise the first one may already have its outcome."""
    cancelled = threading.Event()

    def held(items: Sequence[int]) -> Sequence[int]:
        assert cancelled.wait(30)
        return items

    batcher = Batcher(held, lambda item: 0, executor, gather_s=gather_s)
    calls = [asyncio.create_task(batcher(item)) for item in range(3)]
    await asyncio.sleep(0)
    assert batcher._runner is not None
    await asyncio.sleep(0)  # it has begun
    batcher._runner.cancel()
    try:
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
    finally:
        cancelled.set()
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
