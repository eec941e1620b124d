"""A worker's own handler for what people command, on a real broker and database, in a thread of this process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from agents.domain.routing import Routing
from agents.handlers import commands
from agents.handlers.context import HandlerContext
from agents.runtime.guard import Delivery
from streams import topics
from streams.config.loader import Config
from streams.events import Command, decode
from streams.kafka.producer import Emitter, follow
from tests.contract.store import store_on


@contextmanager
def carrying_out(config: Config) -> Iterator[None]:
    """Commands that are issued from now on are carried out, as far as they need no provider."""
    started, over = datetime.now(UTC), threading.Event()

    async def work() -> None:
        with store_on(config.database.url.get_secret_value(), 2) as store:
            async with Emitter(config.kafka) as emitter:
                deps = HandlerContext(config, Routing(config, {}), {}, store.ledger, emitter, store.clock)
                records = follow(config.kafka, topics.COMMAND, from_start=True, stopping=over.is_set)
                while (record := await asyncio.to_thread(next, records, None)) is not None:
                    if decode(Command, record.value).issued_at >= started:
                        await commands.command(deps, Delivery(topics.COMMAND, 0, 0, record.key, record.value, []))

    thread = threading.Thread(target=asyncio.run, args=(work(),), name="hands")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
