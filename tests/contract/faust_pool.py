"""A small Faust worker for test_faust.py whose agent handles many events at a time through the ordered pool.

Each event takes its time, a few of them much longer, and so does the first one of each partition: where Faust begins
a partition it takes the lowest acknowledged offset for the lowest there is. One that is done is a line in ``$DONE``.
"""

import asyncio
import os
import random
import time
from typing import Any

from agents.runtime.ordered_pool import Pool
from streams.app import App, arrivals

app = App(
    os.environ["GROUP"],
    broker=f"kafka://{os.environ['BROKER']}",
    store="memory://",
    topic_partitions=4,
    topic_disable_leader=True,
    web_enabled=False,
    broker_commit_interval=0.2,
    broker_session_timeout=6,
    broker_heartbeat_interval=1,
    broker_rebalance_timeout=6,
    broker_max_poll_records=200,
    consumer_auto_offset_reset="earliest",
    stream_wait_empty=False,
)
source = app.topic(os.environ["TOPIC"], value_type=bytes, value_serializer="raw", key_serializer="raw")
done = open(os.environ["DONE"], "a", buffering=1)


begun: set[int] = set()


async def handle(event: Any) -> None:
    slow = event.message.partition not in begun or random.random() < 0.01
    begun.add(event.message.partition)
    await asyncio.sleep(1.5 if slow else random.choice([0.005, 0.01, 0.02]))
    done.write(f"{event.message.partition} {event.message.offset}\n")


if os.environ.get("RAISING"):

    @app.agent(source)
    async def raising(stream: Any) -> None:
        async for fetch in stream.events():
            for record in fetch.value:
                done.write(f"{record.partition} {record.offset}\n")
                if record.value == b"0":
                    raise ValueError("the handler failed")

elif beside := os.environ.get("BESIDE"):

    @app.agent(source)
    async def busy(stream: Any) -> None:
        async for fetch in stream.events():
            time.sleep(0.05)
            done.writelines(f"{record.partition} {record.offset}\n" for record in fetch.value)

    @app.agent(app.topic(beside, value_type=bytes, value_serializer="raw", key_serializer="raw"))
    async def small(stream: Any) -> None:
        async for fetch in stream.events():
            done.writelines(f"-1 {record.offset}\n" for record in fetch.value)

else:

    @app.agent(source)
    async def pooled(stream: Any) -> None:
        await Pool(100).run(arrivals(app, stream), handle)
