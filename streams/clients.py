"""What others use: a shop places orders, a downstream service follows their status.

Both take a ``KafkaConfig`` or just the bootstrap servers, and are used from plain synchronous code.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams import events, topics, traces
from streams.config.loader import KafkaConfig
from streams.errors import AppError, BrokerUnavailable, ConfigError, EventError
from streams.events import Created, StatusChanged
from streams.kafka.errors import made, unavailable
from streams.kafka.producer import (
    DELIVERY_TIMEOUT_S,
    Outgoing,
    ProducerThread,
    consumer_settings,
    message,
    not_written,
    traced,
)
from streams.seal import VARIABLE, Sealer

log = logging.getLogger(__name__)

_POLL_S = 0.2
_COMMIT_EVERY_MS = 1000
_NOT_ALLOWED = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED}


class Placement(NamedTuple):
    """The fate of one order: the broker has it, or why not."""

    tenant_id: str
    order_id: str
    error: AppError | None


class OrderProducer:
    """The shop's side of ``orders.created``. Safe to share between threads; make it after a fork, not before."""

    def __init__(
        self, kafka: KafkaConfig | str, *, source: str = "shop", timeout_s: float = DELIVERY_TIMEOUT_S
    ) -> None:
        """``source`` becomes ``ce_source``; ``timeout_s`` is how long the broker may take to acknowledge an order."""
        self._source = source
        self._pump = ProducerThread(_config(kafka), delivery_timeout_s=timeout_s)

    def place(self, created: Created) -> None:
        """Return when the broker has the order.

        Raises ``EventError`` before anything is sent, naming the field; ``BrokerUnavailable`` when nothing is known
        about the order: place it again, the same order twice is one order.
        """
        [placement] = self.place_many([created], in_flight=1)
        if placement.error is not None:
            raise placement.error

    def place_many(
        self, orders: Iterable[Created], on_progress: Callable[[int, int], None] | None = None, *, in_flight: int = 2000
    ) -> list[Placement]:
        """Place many without waiting for each: one ``Placement`` per order, in the order given.

        A bad order does not stop the others. After the first ``BrokerUnavailable`` nothing more is sent, and the rest
        says so. ``on_progress(acknowledged, failed)`` is called in this thread.
        """
        run = _Run(in_flight, on_progress)
        for created in orders:
            self._start(created, run)
        return run.wait()

    def _start(self, created: Created, run: "_Run") -> None:
        number = run.add(created)
        if run.broker_gone:
            run.settle(number, BrokerUnavailable("kafka: not sent: an order before this one was not acknowledged"))
            return
        try:
            record = order_record(created, self._source)
            if traces.tracer is not None:
                with traces.sending(topics.CREATED, str(created.order_id), str(created.tenant_id)):
                    [record] = traced([record])
        except EventError as error:
            run.settle(number, error)
            return
        run.take_slot()
        try:
            self._pump.put(record, partial(run.heard, number))
        except (BrokerUnavailable, EventError) as error:
            run.give_slot()
            run.settle(number, error)

    def close(self) -> None:
        """Wait for what is in flight."""
        self._pump.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Run:
    """One ``place_many``: slots bound what is in flight; fates arrive in the pump's thread."""

    def __init__(self, in_flight: int, on_progress: Callable[[int, int], None] | None) -> None:
        self._slots = threading.Semaphore(in_flight)
        self._in_flight = in_flight
        self._on_progress = on_progress
        self._orders: list[tuple[str, str]] = []
        self._errors: dict[int, AppError] = {}
        self._lock = threading.Lock()
        self._settled = 0
        self._told = -1
        self.broker_gone = False

    def add(self, created: Created) -> int:
        self._orders.append((str(created.tenant_id), str(created.order_id)))
        return len(self._orders) - 1

    def settle(self, number: int, error: AppError | None) -> None:
        with self._lock:
            self._settled += 1
            if error is not None:
                self._errors[number] = error
                self.broker_gone = self.broker_gone or isinstance(error, BrokerUnavailable)

    def heard(self, number: int, error: KafkaError | None, record: Any) -> None:
        self.settle(number, not_written(error, topics.CREATED) if error is not None else None)
        self.give_slot()

    def take_slot(self) -> None:
        while not self._slots.acquire(timeout=_POLL_S):
            self._tell()
        self._tell()

    def give_slot(self) -> None:
        self._slots.release()

    def wait(self) -> list[Placement]:
        for _ in range(self._in_flight):  # every slot is back: every fate is known
            while not self._slots.acquire(timeout=_POLL_S):
                self._tell()
        self._tell()
        return [Placement(*order, self._errors.get(number)) for number, order in enumerate(self._orders)]

    def _tell(self) -> None:
        if self._on_progress is not None and self._settled != self._told:
            with self._lock:
                self._told, failed = self._settled, len(self._errors)
            self._on_progress(self._told - failed, failed)


def order_record(created: Created, source: str = "shop") -> Outgoing:
    """The record of an order as the shop sends it. Raises ``EventError`` naming the field that is wrong.

    A struct made by code is not checked by its own types, so it is read back the way dispatch will read it.
    """
    try:
        value = events.encode(created)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise EventError(f"{Created.TYPE}: holds what JSON cannot say ({type(error).__name__})") from None
    read = events.decode(Created, value)
    return message(read, topics.CREATED, source=source, at=read.created_at)


class BadEvent(NamedTuple):
    """A record that is not a status change; its content is deliberately not here."""

    topic: str
    partition: int
    offset: int
    error: EventError


@dataclass(frozen=True)
class Change:
    """One status change, and the way to its PINs."""

    event: StatusChanged
    sealer: Sealer | None = field(default=None, repr=False)
    #: W3C trace context of the order, for a service that continues its trace; None when nobody traces.
    traceparent: str | None = None

    def pins_open(self) -> list[str]:
        """The PINs in plain text; empty when the order has none. Raises ``ConfigError`` when no keys were given."""
        if not self.event.pins:
            return []
        if self.sealer is None:
            raise ConfigError(f"{VARIABLE}: no keys were given to StatusChanges; expected keys to open PINs")
        return [self.sealer.open(pin) for pin in self.event.pins]


class StatusChanges:
    """Status changes in order, per order, each version at most once per process; not for sharing between threads.

    A change counts as handled when the next one is asked for, or when ``run``'s handler returned; only then is it
    committed. A handler that raised sees its change again. After a crash or a rebalance a change can come again in
    another process: compare ``version`` with what you stored.
    """

    def __init__(
        self,
        kafka: KafkaConfig | str,
        group: str,
        keys: Sealer | None = None,
        *,
        on_bad: Callable[[BadEvent], None] | None = None,
        remember: int = 200_000,
        from_start: bool = True,
    ) -> None:
        """``group`` is your consumer group, used as it is; ``remember`` is for how many orders versions are kept.

        A group that is new begins with the oldest event kept, or without ``from_start`` with the next one.
        """
        config = _config(kafka)
        self._keys = keys
        self._on_bad = on_bad or _log_bad
        self._versions: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._remember = remember
        self._stopping = False
        self._unhandled: Any = None
        self.dropped = 0
        own = {"auto.commit.interval.ms": _COMMIT_EVERY_MS, "auto.offset.reset": "earliest" if from_start else "latest"}
        self._consumer = made(Consumer, consumer_settings(config, group) | own)
        self._topic = config.topic_prefix + topics.STATUS_CHANGED
        self._subscribed = False
        self._group = group

    def __iter__(self) -> Iterator[Change]:
        """Until ``stop``. Waits for a broker that is away; raises ``BrokerUnavailable`` when it refuses us for good."""
        if not self._subscribed:  # not before: a member that is not polled yet holds up its whole group
            self._consumer.subscribe([self._topic])
            self._subscribed = True
        if self._unhandled is not None:
            self._rewind()
        while not self._stopping:
            record = self._consumer.poll(_POLL_S)
            if record is None or self._is_trouble(record.error()):
                continue
            change = self._read(record)
            if change is not None:
                self._unhandled = record
                yield change
                self._unhandled = None
                self._keep_version(change.event)
            self._store(record)

    def run(self, handler: Callable[[Change], None]) -> None:
        """Call ``handler`` with every change until ``stop``, then close. A change whose handler raised comes again."""
        with self:
            for change in self:
                if traces.tracer is None:
                    handler(change)
                    continue
                with traces.handling(self._group, [self._arrived(change)]):
                    handler(change)

    def _arrived(self, change: Change) -> traces.Arrived:
        record = self._unhandled
        headers = [(traces.HEADER, (change.traceparent or "").encode())]
        return traces.Arrived(topics.STATUS_CHANGED, record.partition(), record.offset(), record.key(), headers)

    def stop(self) -> None:
        """End the iteration after the change in hand. Callable from a signal handler and from other threads."""
        self._stopping = True

    def close(self) -> None:
        """Commit what was handled and leave the group."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, record: Any) -> Change | None:
        if record.value() is None:  # compaction's own mark
            return None
        try:
            kind = events.header(record.headers(), "ce_type")
            if kind not in (None, StatusChanged.TYPE):
                raise EventError(f"ce_type: is another event; expected {StatusChanged.TYPE}", reason="other_type")
            event = events.decode(StatusChanged, record.value())
        except EventError as error:
            self._on_bad(BadEvent(record.topic(), record.partition(), record.offset(), error))
            return None
        if event.version <= self._versions.get((event.tenant_id, event.order_id), 0):
            self.dropped += 1
            return None
        return Change(event, self._keys, traces.parent(record.headers()))

    def _keep_version(self, event: StatusChanged) -> None:
        order = (event.tenant_id, event.order_id)
        self._versions[order] = event.version
        self._versions.move_to_end(order)
        if len(self._versions) > self._remember:
            self._versions.popitem(last=False)

    def _store(self, record: Any) -> None:
        """Mark as handled; committed every second, when partitions move away, and on close."""
        try:
            self._consumer.store_offsets(record)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:  # _STATE: the partition is somebody else's by now
                raise unavailable(error.args[0], "status changes") from None

    def _rewind(self) -> None:
        """The loop was left in the middle of a change: it comes again."""
        record, self._unhandled = self._unhandled, None
        try:
            self._consumer.seek(TopicPartition(record.topic(), record.partition(), record.offset()))
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:
                raise unavailable(error.args[0], "status changes") from None

    @staticmethod
    def _is_trouble(error: KafkaError | None) -> bool:
        if error is None:
            return False
        if error.fatal() or error.code() in _NOT_ALLOWED:
            raise unavailable(error, "status changes")
        if error.code() != KafkaError._PARTITION_EOF:
            log.warning("status changes: %s", error.str())
        return True


def _log_bad(bad: BadEvent) -> None:
    log.warning("%s partition %s offset %s skipped: %s", bad.topic, bad.partition, bad.offset, bad.error)


def _config(kafka: KafkaConfig | str) -> KafkaConfig:
    return KafkaConfig(bootstrap_servers=kafka) if isinstance(kafka, str) else kafka
