"""The delay line: every retry tier waits in Kafka, not in memory.

Inside a partition of a tier the order of arrival is the order of due times, so only the head has to be looked at: a
partition sleeps until its head is due, then everything due moves to ``orders.check``, and may be committed once the
broker acknowledged it. A move that happens twice is harmless: the check step compares numbers with the ledger.

A few hundred records of each partition are held until they are due, and no more is read (it is paused) until half of
them are gone: to read again for every head made the broker work more than the waiting is worth.
"""

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from streams import metrics
from streams.config import KafkaConfig
from streams.errors import BrokerUnavailable, EventError
from streams.kafka import Outgoing, consumer_settings

log = logging.getLogger(__name__)

_BATCH = 500
#: Of one partition so many are held before it is paused.
_HELD = 250
#: What is written now is due when its tier has passed, so a fetch may gather this long, and brings many.
_FETCH = {"fetch.wait.max.ms": 100, "fetch.min.bytes": 1_000_000}
#: What was moved is committed together: after a crash it moves once more, which is harmless.
_COMMIT = {"auto.commit.interval.ms": 500}
_IDLE_S = 0.05
#: Between two moves: of what is due in the same moment a few travel together.
_TURN_S = 0.002
_AWAY_S = 1.0
#: Tiers keep records for their delay and a day: what is due later would only put its partition to sleep until then.
_KEPT_S = 86_400.0

_forwarded = metrics.counter("orderwatch_delay_forwarded_total")

#: Writes records and returns when the broker has them; called from this thread.
Forward = Callable[[Sequence[Outgoing]], None]
#: The dead letter of a record that cannot be read: (record, reason) -> record to write instead.
Park = Callable[[Message, str], Outgoing]


class _Due(msgspec.Struct):
    due_at: datetime


class _Waiting(NamedTuple):
    """A record that was read: when it is due (None: now), and what is then to be written."""

    offset: int
    due_at: datetime | None
    record: Outgoing


class DelayLine:
    """One consumer thread per worker, in a consumer group of its own. ``now`` is database time; nothing is early.

    ``died`` is called from the thread when something unexpected ended it.
    """

    def __init__(self, kafka: KafkaConfig, group: str, forward: Forward, park: Park, now: Callable[[], datetime],
                 died: Callable[[Exception], None]) -> None:  # fmt: skip
        self._kafka = kafka
        self._forward = forward
        self._park = park
        self._now = now
        self._died = died
        self._prefix = kafka.topic_prefix
        self._stop = threading.Event()
        #: When it last went round, also without a broker: a monotonic instant.
        self.turned_at = time.monotonic()
        self._sleeping: dict[tuple[str, int], datetime] = {}
        self._held: dict[tuple[str, int], deque[_Waiting]] = {}
        self._paused: set[tuple[str, int]] = set()
        self._ours: set[tuple[str, int]] = set()
        #: A move failed, and what it took is not read again yet: nothing behind it may be moved.
        self._behind = False
        self._decode = msgspec.json.Decoder(_Due).decode
        # Little is fetched ahead: a partition that is paused drops what was, and fetches it again when it goes on.
        self._consumer = Consumer(
            consumer_settings(kafka, group)
            | {"queued.min.messages": 2 * _BATCH, "queued.max.messages.kbytes": 4096} | _FETCH | _COMMIT
        )
        self._thread = threading.Thread(target=self._run, name="delay-line", daemon=True)

    def start(self) -> None:
        """Subscribe to every tier there is, also to those that the configuration no longer names."""
        pattern = f"^{re.escape(self._prefix + 'orders.retry.')}[0-9]+m?s$"
        self._consumer.subscribe([pattern], on_assign=self._on_assign, on_revoke=self._on_revoke)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Finish the move under way and leave the group. Blocks."""
        self._stop.set()
        self._thread.join(timeout_s)

    def sleeping(self) -> dict[tuple[str, int], datetime]:
        """(topic, partition) -> when its head is due, for partitions that sleep now."""
        return dict(self._sleeping)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Each head is looked at again. librdkafka keeps a pause over a rebalance: without this such a partition would
        # sleep for ever, in whichever worker got it back.
        consumer.assign(partitions)
        consumer.resume(partitions)
        self._forget(partitions)
        self._ours.update((partition.topic, partition.partition) for partition in partitions)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._forget(partitions)
        self._ours.difference_update((partition.topic, partition.partition) for partition in partitions)

    def _forget(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            place = (partition.topic, partition.partition)
            self._sleeping.pop(place, None)
            self._held.pop(place, None)
            self._paused.discard(place)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.turned_at = time.monotonic()
                try:
                    if self._behind:
                        self._rewind()
                    self._turn()
                except (KafkaException, BrokerUnavailable, EventError) as error:
                    log.warning("delay line held: %s", error)
                    self._behind = True
                    self._stop.wait(_AWAY_S)
        except Exception as error:  # noqa: BLE001 - a worker without its delay line must not look alive
            self._died(error)
        finally:
            self._consumer.close()

    def _turn(self) -> None:
        for record in self._consumer.consume(_BATCH, self._patience_s()):
            place = (record.topic(), record.partition())
            if not _failed(record) and place in self._ours:  # it may have gone while these were gathered
                self._held.setdefault(place, deque()).append(self._read(record))
        due: list[Outgoing] = []
        moved: list[TopicPartition] = []
        now = self._now()
        for place, held in self._held.items():
            offset = -1
            while held and ((due_at := held[0].due_at) is None or due_at <= now):
                offset = held[0].offset
                due.append(held.popleft().record)
            if offset >= 0:
                moved.append(TopicPartition(*place, offset + 1))
        if due:
            self._forward(due)
            _forwarded.inc(len(due))
            self._consumer.store_offsets(offsets=moved)
        self._sleep_or_wake()

    def _read(self, record: Message) -> _Waiting:
        try:
            due_at = self._decode(record.value() or b"").due_at
            if (due_at - self._now()).total_seconds() > _tier_s(record.topic()) + _KEPT_S:
                raise TypeError("due after the topic has forgotten it")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError):
            return _Waiting(record.offset(), None, self._park(record, "malformed"))
        wanted = Outgoing("orders.check", record.key(), record.value(), list(record.headers() or []))
        return _Waiting(record.offset(), due_at, wanted)

    def _sleep_or_wake(self) -> None:
        """What is held sleeps until its head is due; a partition of which enough is held is not read."""
        for place, held in list(self._held.items()):
            if held:
                self._sleeping[place] = held[0].due_at or self._now()
            else:
                del self._held[place]
                self._sleeping.pop(place, None)
            if len(held) >= _HELD and place not in self._paused:
                self._consumer.pause([TopicPartition(*place)])
                self._paused.add(place)
            elif len(held) < _HELD // 2 and place in self._paused:
                self._consumer.resume([TopicPartition(*place)])
                self._paused.discard(place)

    def _patience_s(self) -> float:
        """How long to wait for a record: no longer than until the next head is due."""
        if not self._sleeping:
            return _IDLE_S * 4
        until = (min(self._sleeping.values()) - self._now()).total_seconds()
        return min(max(until, _TURN_S), _IDLE_S * 4)

    def _rewind(self) -> None:
        """After a failed move: read again from the last commit. Raises ``KafkaException`` while the broker is away."""
        assigned = self._consumer.assignment()
        for partition in self._consumer.committed(assigned, timeout=5.0) if assigned else []:
            if partition.error is not None:
                raise KafkaException(partition.error)
            self._forget([partition])
            start = partition.offset if partition.offset >= 0 else OFFSET_BEGINNING
            self._consumer.seek(TopicPartition(partition.topic, partition.partition, start))
        self._consumer.resume(assigned)
        self._behind = False


def _tier_s(topic: str) -> float:
    """The delay of a tier, from its name: ``orders.retry.30s``, ``orders.retry.500ms``."""
    delay = topic.rpartition(".")[2]
    return int(delay[:-2]) / 1000 if delay.endswith("ms") else float(delay[:-1])


def _failed(record: Any) -> bool:
    """Transient consumer events are librdkafka's to repair; they are not records."""
    return record.error() is not None
