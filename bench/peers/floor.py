"""The least that does the same input and output: one uvloop process, confluent-kafka, aiohttp, bulk upserts.

It keeps nothing over a crash: no intent before the send, offsets committed by themselves, checks under way are lost.
"""

import asyncio
import os
import sys
import threading
import time
from urllib.parse import urlencode

import aiohttp
import orjson
import psycopg2
import uvloop
from confluent_kafka import Consumer, Producer
from yarl import URL

from bench.peers import provider, settings

BROKER, PREFIX, URL_OF_SHOP = os.environ["PEER_BROKER"], os.environ["PEER_PREFIX"], os.environ["PEER_URL"]
CREATED, DELAYED, CHANGED = (PREFIX + name for name in ("orders.created", "orders.retry.1s", "orders.status-changed"))
ACCESS, MAPPING = ("k", "s"), ("1", "60")
WRITE_EVERY_S = 0.02

_UPSERT = """
insert into floor_orders as o (id, reference, external_status, cost, pin, checks, sent_at, completed_at)
select id, reference, external_status, cost, pin, checks, sent_at, completed_at from json_to_recordset(%s::json)
as x(id text, reference text, external_status text, cost numeric, pin text, checks int, sent_at timestamptz,
completed_at timestamptz)
on conflict (id) do update set external_status = excluded.external_status, pin = excluded.pin,
    checks = excluded.checks, completed_at = excluded.completed_at"""


def consumer(topic):
    made = Consumer(
        {
            "bootstrap.servers": BROKER,
            "group.id": f"{PREFIX}floor-{topic}",
            "fetch.wait.max.ms": 10,
            "auto.offset.reset": "earliest",
            "queued.min.messages": 2000,
        }
    )
    made.subscribe([topic])
    return made


class Floor:
    def __init__(self, session):
        self.session = session
        self.loop = asyncio.get_running_loop()
        self.room = asyncio.Semaphore(settings.CALLS)
        self.dirty = {}
        self.producer = Producer({"bootstrap.servers": BROKER, "linger.ms": 5})
        self.connection = psycopg2.connect(settings.DATABASE.replace("+psycopg2", ""))
        self.tasks = set()

    async def get(self, service, fields):
        url = URL(f"{URL_OF_SHOP}/servis/{service}.php?{urlencode(fields)}", encoded=True)
        async with self.room, self.session.get(url) as answer:
            return await answer.text("utf-8")

    def run(self, work, record):
        task = self.loop.create_task(work(orjson.loads(record)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def place(self, order):
        reference = provider.reference_of(order["order_id"])
        wire = provider.placement(ACCESS, MAPPING, reference, order["user_identifier"])
        bought = provider.read_placement(await self.get("pin_ekle", wire))
        now = time.time()
        row = {
            "id": order["order_id"],
            "reference": reference,
            "external_status": "sent",
            "cost": bought[0],
            "pin": None,
            "checks": 0,
            "sent_at": stamp(now),
            "completed_at": None,
        }
        self.dirty[row["id"]] = row
        self.later(row, now)

    async def check(self, delayed):
        row = delayed["row"]
        answer = await self.get("pin_kontrol", provider.question(ACCESS, row["reference"]))
        final, pin, _ = provider.read_status(answer)
        now = time.time()
        row["checks"] += 1
        self.dirty[row["id"]] = row
        if final is None:
            self.later(row, now)
            return
        row |= {"external_status": final, "pin": pin, "completed_at": stamp(now)}
        self.producer.produce(CHANGED, orjson.dumps(row), row["id"])

    def later(self, row, now):
        value = orjson.dumps({"due_at": now + settings.CHECK_AFTER_S, "row": row})
        self.producer.produce(DELAYED, value, row["id"])

    async def write(self):
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            self.producer.poll(0)
            if self.dirty:
                rows, self.dirty = orjson.dumps(list(self.dirty.values())).decode(), {}
                await self.loop.run_in_executor(None, self.upsert, rows)

    def upsert(self, rows):
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(_UPSERT, (rows,))


def stamp(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e6):06d}Z"


def read_created(floor):
    source = consumer(CREATED)
    while True:
        records = [record.value() for record in source.consume(200, 0.05) if record.error() is None]
        if records:
            floor.loop.call_soon_threadsafe(lambda batch: [floor.run(floor.place, value) for value in batch], records)
        while len(floor.tasks) > 4 * settings.CALLS:
            time.sleep(0.005)


def read_delayed(floor):
    """All delays are alike, so records become due in the order of their partition."""
    source, waiting = consumer(DELAYED), []
    while True:
        until = 0.01 if waiting else 0.05
        waiting += [
            (orjson.loads(record.value())["due_at"], record.value())
            for record in source.consume(500, until)
            if record.error() is None
        ]
        now = time.time()
        due = [value for due_at, value in waiting if due_at <= now]
        if due:
            waiting = [pair for pair in waiting if pair[0] > now]
            floor.loop.call_soon_threadsafe(lambda batch: [floor.run(floor.check, value) for value in batch], due)


async def main():
    connector = aiohttp.TCPConnector(limit=settings.CALLS)
    async with aiohttp.ClientSession(connector=connector) as session:
        floor = Floor(session)
        with floor.connection, floor.connection.cursor() as cursor:
            cursor.execute(
                "create table floor_orders (id text primary key, reference text, external_status text,"
                " cost numeric, pin text, checks int, sent_at timestamptz, completed_at timestamptz)"
            )
        for work in (read_created, read_delayed):
            threading.Thread(target=work, args=(floor,), daemon=True).start()
        sys.stdout.write("ready\n")
        await floor.write()


if __name__ == "__main__":
    uvloop.run(main())
