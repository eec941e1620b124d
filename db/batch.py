"""Group commit: callers speak of one row, the database hears of hundreds.

While one batch is on its way the next one gathers, so a lone call waits for nobody and a burst shares one commit; or it
gathers for a set time, where a moment more is no harm.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Generic, TypeVar

from streams import metrics
from streams.errors import StoreUnavailable

I = TypeVar("I")  # noqa: E741 - one item
O = TypeVar("O")  # noqa: E741 - its outcome


class Batcher(Generic[I, O]):
    """Runs ``statement(items) -> outcomes`` (same order) in a thread, one batch at a time.

    Two items with the same key never share a batch: each sees what the former did. A batch gathers for ``gather_s``
    before it goes. When it fails for another reason than ``StoreUnavailable`` its items are run one by one, so that a
    bad one fails alone.
    """

    def __init__(
        self,
        statement: Callable[[Sequence[I]], Sequence[O]],
        key: Callable[[I], Hashable],
        executor: ThreadPoolExecutor,
        limit: int = 200,
        name: str = "other",
        gather_s: float = 0.0,
    ) -> None:
        self._statement = statement
        self._key = key
        self._executor = executor
        self._limit = limit
        self._gather_s = gather_s
        self._sizes = metrics.histogram("orderwatch_batch_size", name)
        self._seconds = metrics.histogram("orderwatch_store_seconds", name)
        self._waiting: deque[tuple[I, asyncio.Future[O]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def __call__(self, item: I) -> O:
        """The outcome of this item. Raises what the statement raised for it."""
        future: asyncio.Future[O] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        batch: list[tuple[I, asyncio.Future[O]]] = []
        try:
            while self._waiting:
                if self._gather_s:
                    await asyncio.sleep(self._gather_s)
                batch = self._next_batch()
                await self._run_batch(batch)
        finally:
            for _, future in (*batch, *self._waiting):  # only after a cancellation is any of them still open
                if not future.done():
                    future.set_exception(StoreUnavailable("the worker is stopping"))
            self._waiting.clear()

    def _next_batch(self) -> list[tuple[I, asyncio.Future[O]]]:
        batch: list[tuple[I, asyncio.Future[O]]] = []
        later: list[tuple[I, asyncio.Future[O]]] = []
        seen: set[Hashable] = set()
        while self._waiting and len(batch) < self._limit:
            entry = self._waiting.popleft()
            key = self._key(entry[0])
            if key in seen:
                later.append(entry)
                continue
            seen.add(key)
            batch.append(entry)
        self._waiting.extendleft(reversed(later))
        return batch

    async def _run_batch(self, batch: Sequence[tuple[I, asyncio.Future[O]]]) -> None:
        loop = asyncio.get_running_loop()
        self._sizes.observe(len(batch))
        began = perf_counter()
        try:
            outcomes = await loop.run_in_executor(self._executor, self._statement, [item for item, _ in batch])
        except StoreUnavailable as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - handed to the one caller it belongs to
            if len(batch) > 1:
                for entry in batch:
                    await self._run_batch([entry])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
        else:
            self._seconds.observe(perf_counter() - began)
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)
