"""The delay line: every retry tier waits in Kafka, not in memory.

Inside a partition of a tier the order of arrival is the order of due times, so only the head has to be looked at: a
partition sleeps until its head is due, then what is due is handed to this worker's check agent, and committed when it
and all before it are done. What is handed out twice is harmless: the check step compares numbers with the ledger.

A few hundred records of each partition are held until they are due, more where they come fast, and no more is read (it
is paused) until they become few: to read again for every head made the broker work more than the waiting is worth. A
thread reads and commits; the event loop that takes what is due has a timer for the next head, and waits for no thread.
"""

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heapreplace
from typing import Any

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from streams import metrics, topics
from streams.config.loader import KafkaConfig
from streams.kafka.errors import made
from streams.kafka.producer import consumer_settings

log = logging.getLogger(__name__)

_BATCH = 500
#: A partition is paused when so many are held and the newest is due no sooner than this; or too many, whenever due.
_HELD, _LASTS, _MOST = 250, timedelta(seconds=2), 1_000
#: So many are taken out at once: what was taken waits for the room of its taker, in memory.
_TAKEN = 50
#: What is written now is due when its tier has passed, so a fetch may gather this long, and brings many. Where it
#: brought more than librdkafka wants to hold, the next one would be put off for a second (its issue 2879).
_FETCH = {"fetch.wait.max.ms": 100, "fetch.min.bytes": 1_000_000, "fetch.queue.backoff.ms": 50}
#: What is done is committed together: after a crash it is handed out once more, which is harmless.
_COMMIT = {"auto.commit.interval.ms": 500}
#: A read gathers so long.
_TURN_S = 0.05
_AWAY_S = 1.0
#: Whoever takes what is due looks up this often when nothing comes.
_REST_S = 1.0
#: New tiers are looked for so often; the broker has so long to answer.
_LOOK_S, _ASK_S = 10.0, 5.0
#: The timers of uvloop count whole milliseconds, to the nearest one.
_HALF_A_TICK_S = 0.0005
#: Tiers keep records for their delay and a day: what is due later would only put its partition to sleep until then.
_KEPT_S = 86_400.0
#: Two workers differ by less in what they take for the database's time.
_CLOCKS = timedelta(seconds=1)
#: When a record is due that says no usable time: its agent says what is wrong with it.
_AT_ONCE = datetime.min.replace(tzinfo=UTC)

_lost = metrics.counter("orderwatch_log_lost_total")
_forwarded = metrics.counter("orderwatch_delay_forwarded_total")

Place = tuple[str, int]


class Due:
    """A record of a tier; ``ack`` it when it is done with. ``repeated``: somebody may have begun with it before."""

    __slots__ = ("done", "due_at", "headers", "key", "offset", "partition", "repeated", "topic", "value")

    def __init__(self, record: Message, due_at: datetime, *, repeated: bool) -> None:
        self.topic: str = record.topic()
        self.partition: int = record.partition()
        self.offset: int = record.offset()
        self.key = record.key()
        self.value = record.value()
        self.headers: Sequence[tuple[str, bytes]] = record.headers() or ()
        self.due_at = due_at
        self.repeated = repeated
        self.done = False

    @property
    def message(self) -> "Due":
        """Itself, as events of a pool have it."""
        return self

    def ack(self) -> None:
        """It is done with. Callable from any thread."""
        self.done = True


class _Written(msgspec.Struct):
    due_at: datetime


class DelayQueue:
    """One consumer thread per worker; ``async for`` takes what is due, the oldest first.

    Offsets are those of ``group``, of which nobody is a member: who has a partition the workers' own group decides.
    ``now`` is database time; nothing is early. ``died`` is called from the thread when something unexpected ended it.
    """

    def __init__(
        self, kafka: KafkaConfig, group: str, now: Callable[[], datetime], died: Callable[[Exception], None]
    ) -> None:
        self._now = now
        self._died = died
        self._tier = re.compile(rf"{re.escape(kafka.topic_prefix + topics.RETRY)}[0-9]+m?s").fullmatch
        self._checks = kafka.topic_prefix + topics.CHECK
        self._stop = threading.Event()
        #: When the thread last went round, reading what it is to read, and when due records were last taken: monotonic.
        self.turned_at = self.taken_at = time.monotonic()
        #: By how much the oldest was late when due records were last looked for; 0 when there was none.
        self.late_s = 0.0
        #: Of what is read and not yet committed, by partition; thread and loop share it.
        self._lock = threading.Lock()
        self._held: dict[Place, deque[Due]] = {}
        self._handed: dict[Place, deque[Due]] = {}
        #: Taken out, and still with us: the taker may have been replaced in between.
        self._due: deque[Due] = deque()
        self._paused: set[Place] = set()
        #: Offset of the next record of each partition of ours, as far as it is known.
        self._next: dict[Place, int] = {}
        #: What is ours, and since when: a record that was due by then another worker may have begun with.
        self._ours: dict[Place, datetime] = {}
        self._wanted = self._followed = frozenset[int]()
        #: When to look again for what there is of it: a monotonic instant.
        self._look_at = 0.0
        self._taker: asyncio.AbstractEventLoop | None = None
        self._came = asyncio.Event()
        self._decode = msgspec.json.Decoder(_Written).decode
        # Little is fetched ahead: a partition that is paused drops what was, and fetches it again when it goes on.
        self._consumer = made(
            Consumer,
            consumer_settings(kafka, group)
            | {"queued.min.messages": 2 * _BATCH, "queued.max.messages.kbytes": 4096}
            | _FETCH
            | _COMMIT,
        )
        self._thread = threading.Thread(target=self._run, name="delay-line", daemon=True)

    def start(self) -> None:
        """Begin; of no partition until ``follow``."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Commit what is done, and hand nothing out any more. Blocks."""
        self._stop.set()
        self._thread.join(timeout_s)

    def follow(self, partitions: Iterable[int]) -> None:
        """From now on these are ours in every tier, as they are in ``orders.check``: one worker has all of an order.
        Callable from any thread."""
        self._wanted = frozenset(partitions)
        self._look_at = 0.0

    def heads(self) -> dict[Place, datetime]:
        """(topic, partition) -> when its head is due, for partitions that hold something."""
        with self._lock:
            return {place: held[0].due_at for place, held in self._held.items()}

    async def __aiter__(self) -> AsyncIterator[Due]:
        loop = self._taker = asyncio.get_running_loop()
        while True:
            self._came.clear()
            while self._due or self._take():
                yield self._due[0]
                self._due.popleft()  # only now: a taker that ends before it has room for it is followed by another one
                self.taken_at = time.monotonic()
            self.taken_at = time.monotonic()
            next_at = min(self.heads().values(), default=None)
            until_s = _REST_S if next_at is None else min((next_at - self._now()).total_seconds(), _REST_S)
            timer = loop.call_later(until_s + _HALF_A_TICK_S, self._came.set)
            await self._came.wait()
            timer.cancel()

    def _take(self) -> int:
        """Take out what is due, but not too much of it; how many."""
        now, before = self._now(), len(self._due)
        with self._lock:
            heads = [(held[0].due_at, place) for place, held in self._held.items() if held[0].due_at <= now]
            heapify(heads)
            self.late_s = (now - heads[0][0]).total_seconds() if heads else 0.0
            while heads and len(self._due) < _TAKEN:
                place = heads[0][1]
                held = self._held[place]
                record = held.popleft()
                self._due.append(record)
                self._handed.setdefault(place, deque()).append(record)
                if held and held[0].due_at <= now:
                    heapreplace(heads, (held[0].due_at, place))
                    continue
                heappop(heads)
                if not held:
                    del self._held[place]
        taken = len(self._due) - before
        _forwarded.inc(taken)
        return taken

    def _follow(self) -> None:
        """Let go of what somebody else has now, and read what became ours, of every tier there is, also of one that the
        configuration no longer names. Raises ``KafkaException`` while the broker is away."""
        wanted = self._wanted
        found = self._consumer.list_topics(timeout=_ASK_S).topics
        count = len(found[self._checks].partitions) if self._checks in found else 0
        if not count:
            return  # the worker reads nothing of it yet
        gone = [TopicPartition(*place) for place in self._ours if place[1] % count not in wanted]
        if gone:
            self._store()
            self._consumer.incremental_unassign(gone)
            self._forget(gone)
        new = [
            TopicPartition(name, partition)
            for name, topic in found.items()
            if self._tier(name)
            for partition in topic.partitions
            if partition % count in wanted and (name, partition) not in self._ours
        ]
        if new:
            self._read_from(self._consumer.committed(new, timeout=_ASK_S))
        self._followed = wanted

    def _read_from(self, committed: Sequence[TopicPartition]) -> None:
        for place in committed:
            if place.error is not None:
                raise KafkaException(place.error)
            if place.offset < 0:
                place.offset = OFFSET_BEGINNING
            self._next[place.topic, place.partition] = max(place.offset, 0)
        self._consumer.incremental_assign(committed)
        self._consumer.resume(committed)  # librdkafka keeps the pause of a partition that went and comes back
        since = self._now()
        self._ours.update({(place.topic, place.partition): since for place in committed})

    def _forget(self, partitions: Iterable[TopicPartition]) -> None:
        with self._lock:
            for partition in partitions:
                place = (partition.topic, partition.partition)
                self._ours.pop(place, None)
                self._next.pop(place, None)
                self._held.pop(place, None)
                self._handed.pop(place, None)
                self._paused.discard(place)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                now = time.monotonic()
                if now > self._look_at:
                    self._look_at = now + _LOOK_S
                    if not self._try(self._follow):
                        self._look_at = min(self._look_at, time.monotonic() + _AWAY_S)
                if not self._try(self._turn):
                    self._stop.wait(_AWAY_S)
                if self._wanted == self._followed:
                    self.turned_at = now
            self._store()
            self._forget([TopicPartition(*place) for place in self._ours])  # what waits here goes nowhere any more
        except Exception as error:  # noqa: BLE001 - a worker without its delay line must not look alive
            self._died(error)
        finally:
            self._consumer.close()

    def _try(self, step: Callable[[], None]) -> bool:
        """False while the broker is away."""
        try:
            step()
        except KafkaException as error:
            log.warning("delay line held: %s", error)
            return False
        return True

    def _turn(self) -> None:
        read = []
        for record in self._consumer.consume(_BATCH, _TURN_S):
            place = (record.topic(), record.partition())
            if _failed(record) or (since := self._ours.get(place)) is None:
                continue
            if record.offset() < self._next[place]:
                self._begin_again(place, record.offset())
            self._next[place] = record.offset() + 1
            read.append(self._read(record, since))
        with self._lock:
            for due in read:
                self._held.setdefault((due.topic, due.partition), deque()).append(due)
        if read and self._taker is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._taker.call_soon_threadsafe(self._came.set)
        self._store()
        self._pause_or_resume()

    def _begin_again(self, place: Place, offset: int) -> None:
        """The partition was made anew, and librdkafka went to its beginning: so does the committed offset, below which
        librdkafka would commit nothing."""
        _lost.inc()
        log.error(
            "delay line: %s [%d] holds less than was read of it: the topic was lost or made anew; reading what is"
            " there from its beginning",
            *place,
        )
        with self._lock:
            self._held.pop(place, None)
            self._handed.pop(place, None)
        with contextlib.suppress(KafkaException):  # the next commit says it
            self._consumer.commit(offsets=[TopicPartition(*place, offset)], asynchronous=False)

    def _store(self) -> None:
        """What is done, with all before it, may be committed."""
        done: list[TopicPartition] = []
        with self._lock:
            for place, handed in list(self._handed.items()):
                offset = -1
                while handed and handed[0].done:
                    offset = handed.popleft().offset
                if offset >= 0:
                    done.append(TopicPartition(*place, offset + 1))
                if not handed:
                    del self._handed[place]
        if done:
            with contextlib.suppress(KafkaException):  # gone meanwhile; then it is handed out once more
                self._consumer.store_offsets(offsets=done)

    def _read(self, record: Message, since: datetime) -> Due:
        try:
            due_at = self._decode(record.value() or b"").due_at
            if (due_at - self._now()).total_seconds() > _tier_s(record.topic()) + _KEPT_S:
                due_at = _AT_ONCE
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError):
            due_at = _AT_ONCE
        return Due(record, due_at, repeated=due_at <= since + _CLOCKS)

    def _pause_or_resume(self) -> None:
        """A partition of which enough is held is not read."""
        now = self._now()
        with self._lock:
            held = {place: self._held.get(place, ()) for place in self._ours}
            full = {place for place in held.keys() - self._paused if _enough(held[place], now, 1.0)}
            low = {place for place in self._paused if not _enough(held[place], now, 0.5)}
        if full:
            self._consumer.pause([TopicPartition(*place) for place in full])
            self._paused |= full
        if low:
            self._consumer.resume([TopicPartition(*place) for place in low])
            self._paused -= low


def _enough(held: Sequence[Due], now: datetime, share: float) -> bool:
    """True when this ``share`` of enough is held: so many that last so long, or too many."""
    return len(held) >= share * _MOST or (len(held) >= share * _HELD and held[-1].due_at >= now + share * _LASTS)


def _tier_s(topic: str) -> float:
    """The delay of a tier, from its name: ``orders.retry.30s``, ``orders.retry.500ms``."""
    delay = topic.rpartition(".")[2]
    return int(delay[:-2]) / 1000 if delay.endswith("ms") else float(delay[:-1])


def _failed(record: Any) -> bool:
    """Transient consumer events are librdkafka's to repair; they are not records."""
    return record.error() is not None
