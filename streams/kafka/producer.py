"""The confluent-kafka side of the wire: client settings, topics, and an idempotent producer for threads and for
event loops.

Every client of ours gets its settings here, so that security and manners towards a missing broker are said once.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic

from streams import events, metrics, topics, traces
from streams.config.loader import KafkaConfig
from streams.errors import BrokerUnavailable, ConfigError, EventError
from streams.kafka.errors import AWAY, made, refused, unavailable, unreached
from streams.topics import Difference, TopicSpec

log = logging.getLogger(__name__)

DELIVERY_TIMEOUT_S = 15.0
_POLL_S = 0.1
_FULL_PAUSE_S = 0.005
_ASK_AGAIN_S = 0.05
_REPEAT_LOG_S = 30.0
#: While no broker answers, the reasons are looked at so often.
_LISTEN_S = 0.5
#: What is wrong with the record itself and would be wrong again.
_RECORD_ERRORS = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG}
#: Records of a transaction are read when it was committed, and those of an aborted one never.
READ_COMMITTED = {"isolation.level": "read_committed"}


class Outgoing(NamedTuple):
    """One record to be written. ``topic`` carries no prefix; a key of None goes to any partition."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: events.Headers


def message(
    event: events.Event,
    topic: str,
    *,
    source: str = events.SOURCE,
    at: datetime | None = None,
    extra: Iterable[tuple[str, bytes]] = (),
) -> Outgoing:
    """An event as a record, keyed by its order or else its integration or its command; ``at`` becomes ``ce_time``."""
    key = getattr(event, "order_id", None) or getattr(event, "integration_id", None)
    key = key or getattr(event, "command_id", None)
    headers = events.headers(event, source=source, at=at, extra=extra)
    return Outgoing(topic, key.encode() if key else None, events.encode(event), headers)


def client_settings(kafka: KafkaConfig) -> dict[str, Any]:
    """What every client of this configuration starts from, in librdkafka's names."""
    security = kafka.security
    named = {
        # Lower case: librdkafka compares without regard to case under the user's locale, where a Turkish I is no i.
        "security.protocol": security.protocol.lower(),
        "sasl.mechanism": security.mechanism,
        "sasl.username": security.username,
        "sasl.password": security.password.get_secret_value() if security.password else None,
        "ssl.ca.location": security.ca,
        "ssl.certificate.location": security.cert,
        "ssl.key.location": security.key,
    }
    return {
        "bootstrap.servers": kafka.bootstrap_servers,
        "client.id": "orderwatch",
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1000,
        "log_level": 2,  # librdkafka would print every failed connect on stderr; error_cb says it once
        "error_cb": _log_errors(),
        **{name: value for name, value in named.items() if value},
    }


def consumer_settings(kafka: KafkaConfig, group: str) -> dict[str, Any]:
    """A member of a group that commits only what it stored itself; starts at the beginning."""
    session_ms = int(kafka.session_timeout * 1000)
    return (
        client_settings(kafka)
        | READ_COMMITTED
        | {
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.offset.store": False,
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": max(session_ms // 6, 100),
            "max.poll.interval.ms": max(int(kafka.rebalance_timeout * 1000), session_ms),
            "topic.metadata.refresh.interval.ms": 10_000,  # a topic created after the start is noticed
        }
    )


def _log_errors() -> Callable[[KafkaError], None]:
    said: dict[int, float] = {}

    def say(error: KafkaError) -> None:
        now = time.monotonic()
        if now - said.get(error.code(), -_REPEAT_LOG_S) >= _REPEAT_LOG_S:
            said[error.code()] = now
            log.warning("kafka: %s", error.str())

    return say


def ping(kafka: KafkaConfig, timeout_s: float = 5.0) -> int:
    """How many brokers answer. Raises ``BrokerUnavailable``, ``BrokerRefused`` when waiting cannot help, and
    ``ConfigError`` for settings that no client can be made of. Blocks for at most ``timeout_s``."""
    return len(brokers(kafka, timeout_s))


def brokers(kafka: KafkaConfig, timeout_s: float = 5.0) -> dict[int, tuple[str, int]]:
    """Broker id -> (host, port) as the cluster advertises them to its clients. Blocks; raises as ``ping``."""
    heard: list[KafkaError] = []
    admin = made(AdminClient, client_settings(kafka) | {"error_cb": heard.append})
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            left_s = max(deadline - time.monotonic(), 0.05)
            found = admin.list_topics(timeout=min(left_s, _LISTEN_S)).brokers
            return {number: (broker.host, broker.port) for number, broker in found.items()}
        except KafkaException as error:
            admin.poll(0)
            if time.monotonic() >= deadline or any(refused(item) for item in heard):
                raise unreached(kafka, error.args[0], heard, timeout_s) from None


def apply_topics(
    kafka: KafkaConfig,
    specs: Sequence[TopicSpec],
    *,
    fix: bool = False,
    grow: bool = False,
    settings: bool = True,
    timeout_s: float = 15.0,
) -> list[Difference]:
    """Create what is missing and say what differs; a second call on the same broker changes nothing.

    Without ``settings`` only what the metadata show is compared: where all topics exist, that needs no right but
    DESCRIBE.

    ``fix`` sets retention, cleanup and the like; ``grow`` adds partitions, which moves keys to other partitions, so
    only do it on a drained topic. Never shrinks, never changes the replication factor. Blocks. Raises
    ``BrokerUnavailable``, and ``ConfigError`` for a topic that this cluster cannot hold.
    """
    heard: list[KafkaError] = []
    admin = made(AdminClient, client_settings(kafka) | {"error_cb": heard.append})
    try:
        known = admin.list_topics(timeout=timeout_s).topics
        there = [spec for spec in specs if spec.name in known]
        missing = [spec for spec in specs if spec.name not in known]
        said = [_create(admin, spec, timeout_s) for spec in missing]
        if missing:
            _wait_until_known(admin, {spec.name for spec in missing}, timeout_s)
        for spec in there:
            placed = known[spec.name].partitions
            copies = len(placed[0].replicas) if placed else 0
            known_settings = _settings_of(admin, spec.name, timeout_s) if settings else None
            for found in topics.compare(spec, len(placed), copies, known_settings):
                said.append(_change(admin, spec, found, fix, grow, timeout_s))
        return said
    except KafkaException as error:
        admin.poll(0)
        if error.args[0].code() in AWAY:
            raise unreached(kafka, error.args[0], heard, timeout_s) from None
        raise unavailable(error.args[0], "topics") from None
    except TimeoutError:
        raise BrokerUnavailable(f"kafka: topics: no answer within {timeout_s:g} s") from None


def _create(admin: AdminClient, spec: TopicSpec, timeout_s: float) -> Difference:
    wanted = NewTopic(spec.name, spec.partitions, spec.replication, config=spec.settings())
    try:
        admin.create_topics([wanted])[spec.name].result(timeout_s)
    except KafkaException as error:
        code = error.args[0].code()
        if code in (KafkaError.INVALID_REPLICATION_FACTOR, KafkaError.INVALID_PARTITIONS, KafkaError.INVALID_CONFIG):
            raise ConfigError(
                f"kafka: {spec.name} with partitions {spec.partitions} and replication_factor "
                f"{spec.replication} is refused by the cluster: {error.args[0].str()}"
            ) from None
        if code != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was faster
            raise
    return Difference(spec.name, "topic", "missing", "present", applied=True)


def _wait_until_known(admin: AdminClient, names: set[str], timeout_s: float) -> None:
    """A broker hears of a new topic a moment after the controller made it; until then it calls it unknown."""
    deadline = time.monotonic() + timeout_s
    while not names <= admin.list_topics(timeout=timeout_s).topics.keys():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(_ASK_AGAIN_S)


def _settings_of(admin: AdminClient, name: str, timeout_s: float) -> dict[str, str | None]:
    place = ConfigResource(ConfigResource.Type.TOPIC, name)
    answer = admin.describe_configs([place])[place].result(timeout_s)
    return {setting: entry.value for setting, entry in answer.items()}


def _change(
    admin: AdminClient, spec: TopicSpec, found: Difference, fix: bool, grow: bool, timeout_s: float
) -> Difference:
    if found.what == "partitions" and grow and int(found.found) < spec.partitions:
        asked = admin.create_partitions([NewPartitions(spec.name, spec.partitions)])[spec.name]
    elif found.what not in ("partitions", "replication") and fix:
        entry = ConfigEntry(found.what, found.wanted, incremental_operation=AlterConfigOpType.SET)
        place = ConfigResource(ConfigResource.Type.TOPIC, spec.name, incremental_configs=[entry])
        asked = admin.incremental_alter_configs([place])[place]
    else:
        return found
    try:
        asked.result(timeout_s)
    except KafkaException as error:
        return found._replace(note=f"refused: {error.args[0].str()}")
    return found._replace(applied=True)


def group_lag(
    kafka: KafkaConfig, group: str, names: Iterable[str], timeout_s: float = 10.0
) -> dict[tuple[str, int], tuple[int | None, int]]:
    """(topic, partition) -> (committed offset or None, end offset); names without prefix, unknown topics are absent.

    Blocks. Raises ``BrokerUnavailable``.
    """
    prefix = kafka.topic_prefix
    settings = client_settings(kafka) | READ_COMMITTED | {"group.id": group, "enable.auto.commit": False}
    # Not an AdminClient: librdkafka 2.16 ends the process with SIGSEGV when one asks for a group's offsets and hears
    # that the coordinator has moved or is not there yet, which every restart of a broker may bring.
    consumer = made(Consumer, settings)
    try:
        known = consumer.list_topics(timeout=timeout_s).topics  # all of them: asking for one may create it
        wanted = [
            (prefix + name, partition)
            for name in names
            if prefix + name in known
            for partition in known[prefix + name].partitions
        ]
        if not wanted:
            return {}
        answer = consumer.committed([TopicPartition(*place) for place in wanted], timeout=timeout_s)
        for place in answer:
            if place.error is not None:
                raise KafkaException(place.error)
        ends = _ends(settings, wanted, timeout_s)
    except KafkaException as error:
        raise unavailable(error.args[0], f"lag of group {group}") from None
    except TimeoutError:
        raise BrokerUnavailable(f"kafka: lag of group {group}: no answer within {timeout_s:g} s") from None
    finally:
        consumer.close()
    committed = {(place.topic, place.partition): place.offset for place in answer if place.offset >= 0}
    return {
        (topic.removeprefix(prefix), partition): (committed.get((topic, partition)), ends[topic, partition])
        for topic, partition in wanted
    }


def _ends(settings: dict[str, Any], wanted: list[tuple[str, int]], timeout_s: float) -> dict[tuple[str, int], int]:
    """End offsets as a reader of committed records reaches them: before a transaction that is open, behind the marker
    of one that ended. (The bundled broker's answer to "latest" is the start of its last batch.)"""
    consumer = made(Consumer, settings | {"enable.partition.eof": True, "fetch.wait.max.ms": 20})
    deadline = time.monotonic() + timeout_s
    ends: dict[tuple[str, int], int] = {}
    try:
        consumer.assign([TopicPartition(topic, partition, OFFSET_END) for topic, partition in wanted])
        while len(ends) < len(wanted):
            record = consumer.poll(max(deadline - time.monotonic(), 0))
            if record is None:
                raise TimeoutError
            error = record.error()
            if error and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            if error:
                ends[record.topic(), record.partition()] = record.offset()
        return ends
    finally:
        consumer.close()


class Told(NamedTuple):
    """One record as somebody wrote it. ``at`` is the broker's or the writer's clock; None when the record has none."""

    topic: str
    partition: int
    offset: int
    at: datetime | None
    key: bytes | None
    value: bytes | None
    headers: events.Headers


def follow(
    kafka: KafkaConfig,
    topic: str,
    *,
    from_start: bool = False,
    until_end: bool = False,
    timeout_s: float = 10.0,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Told]:
    """The records of a topic (without prefix) as they come, outside of any group; ``until_end``: what is there now.

    Blocks between records, and ends when ``stopping``, which is asked several times a second. Raises
    ``BrokerUnavailable``, also for a topic that does not exist.
    """
    name = kafka.topic_prefix + topic
    settings = (
        client_settings(kafka)
        | READ_COMMITTED
        | {
            "group.id": f"{kafka.topic_prefix}orderwatch-tail",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 100,
        }
    )
    ping(kafka, timeout_s)  # it knows why no broker answers
    consumer = made(Consumer, settings)
    try:
        known = consumer.list_topics(timeout=timeout_s).topics.get(name)
        if known is None or not known.partitions:
            raise BrokerUnavailable(f"kafka: there is no topic {name}; run `orderwatch topics apply`")
        start = OFFSET_BEGINNING if from_start else OFFSET_END
        consumer.assign([TopicPartition(name, partition, start) for partition in known.partitions])
        unread = set(known.partitions)
        while (unread or not until_end) and not stopping():
            record = consumer.poll(_POLL_S)
            if record is None:
                continue
            error = record.error()
            if error is None:
                kind, ms = record.timestamp()
                at = datetime.fromtimestamp(ms / 1000, UTC) if kind else None
                yield Told(
                    name,
                    record.partition(),
                    record.offset(),
                    at,
                    record.key(),
                    record.value(),
                    list(record.headers() or []),
                )
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard(record.partition())
            elif not error.retriable():
                raise unavailable(error, name)
    except KafkaException as error:
        raise unavailable(error.args[0], name) from None
    finally:
        consumer.close()


Heard = Callable[[KafkaError | None, Any], None]


class ProducerThread:
    """One idempotent producer and the one thread that hears its acknowledgements.

    A fatal error fails what is in flight and makes a new producer; so does a time without any acknowledgement, as a
    broker that lost its memory refuses the old producer id for ever, and librdkafka for ever tries again.
    ``heard`` and ``after_poll`` run in that thread and must be short.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        *,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
        linger_ms: float = 2,
        after_poll: Callable[[], None] = lambda: None,
    ) -> None:
        self._prefix = kafka.topic_prefix
        self._after_poll = after_poll
        self._delivery_timeout_s = delivery_timeout_s
        self._acknowledged_at = time.monotonic()
        self._useless = threading.Event()
        self._closing = threading.Event()
        self._handing_over = threading.Lock()  # a record given to a producer already flushed is never heard of
        self._settings = client_settings(kafka) | {
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",  # an order's key lands on the partition where Java and Faust put it
            "delivery.timeout.ms": int(delivery_timeout_s * 1000),
            "linger.ms": linger_ms,
            "message.max.bytes": topics.DEAD_LETTER_BYTES,
        }
        self._producer = made(Producer, self._settings)
        self._thread = threading.Thread(target=self._listen, name="kafka-acknowledgements", daemon=True)
        self._thread.start()

    def submit(self, record: Outgoing, heard: Heard) -> None:
        """Queue one record; ``heard`` is called once when it was delivered or failed, within ``delivery_timeout_s``.

        Raises ``BufferError`` (the queue is full; try again), ``BrokerUnavailable``, ``EventError`` (too large).
        """
        try:
            with self._handing_over:
                if self._closing.is_set():
                    raise BrokerUnavailable("kafka: the producer is closed")
                self._producer.produce(
                    self._prefix + record.topic,
                    record.value,
                    record.key,
                    headers=record.headers,
                    on_delivery=partial(self._heard, heard),
                )
        except KafkaException as error:
            if error.args[0].code() == KafkaError._FATAL:
                self._useless.set()
            raise not_written(error.args[0], record.topic) from None

    def put(self, record: Outgoing, heard: Heard) -> None:
        """As ``submit``, but waits while the queue is full. Blocks."""
        while True:
            try:
                return self.submit(record, heard)
            except BufferError:  # emptied by acknowledgements, or by the delivery timeout
                time.sleep(_FULL_PAUSE_S)

    def write(self, records: Sequence[Outgoing]) -> None:
        """``Emitter.send`` for a thread that may wait. Blocks."""
        if not records:
            return
        began = time.monotonic()
        known = threading.Event()
        batch = _Batch(len(records), lambda _: known.set())
        for record in records:
            self.put(record, batch.heard)
        known.wait()
        if batch.error is not None:
            raise batch.error
        _count(records, began)

    def close(self) -> None:
        """Wait for what is in flight, at most ``delivery_timeout_s``; fail the rest. Blocks."""
        with self._handing_over:
            self._closing.set()
        self._thread.join()
        if _flush(self._producer, self._delivery_timeout_s):
            _fail_in_flight(self._producer)
        self._after_poll()

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                served = self._producer.poll(_POLL_S)
            except KafkaException as error:  # a fatal error is raised here instead of being told to error_cb
                log.warning("kafka: %s", error.args[0].str())
                served = 1
                self._useless.set()
            if served:
                self._after_poll()
            if self._useless.is_set():
                self._renew()

    def _heard(self, heard: Heard, error: KafkaError | None, record: Any) -> None:
        now = time.monotonic()
        if error is None:
            self._acknowledged_at = now
        elif error.code() == KafkaError._MSG_TIMED_OUT and now - self._acknowledged_at >= self._delivery_timeout_s:
            self._useless.set()
        heard(error, record)

    def _renew(self) -> None:
        log.warning("kafka: the broker does not take this producer's records; making a new producer")
        self._closing.wait(_POLL_S)  # a cluster that refuses every producer is not asked in a tight loop
        self._useless.clear()
        self._acknowledged_at = time.monotonic()
        with self._handing_over:
            old, self._producer = self._producer, made(Producer, self._settings)
        _fail_in_flight(old)
        self._after_poll()


def _fail_in_flight(producer: Producer) -> None:
    producer.purge()
    _flush(producer, DELIVERY_TIMEOUT_S)


def _flush(producer: Producer, timeout_s: float) -> int:
    """How many are still in flight. A fatal error is raised out of it once, in the middle."""
    try:
        return int(producer.flush(timeout_s))
    except KafkaException:
        return int(producer.flush(timeout_s))


def not_written(error: KafkaError, topic: str) -> BrokerUnavailable | EventError:
    """Why a record was not acknowledged: the broker's trouble (hold it) or the record's own (park it)."""
    if error.code() in _RECORD_ERRORS:
        return EventError(f"{topic}: the broker refuses the record: {error.str()}", reason="refused_by_broker")
    return unavailable(error, f"{topic}: not acknowledged")


_write_s = metrics.histogram("orderwatch_write_seconds")
_by_topic: dict[str, metrics.Counter] = {}


def _written(topic: str) -> metrics.Counter:
    found = _by_topic.get(topic)
    if found is None:
        found = _by_topic[topic] = metrics.counter("orderwatch_events_written_total", topic)
    return found


def traced(records: Sequence[Outgoing]) -> Sequence[Outgoing]:
    """The records as part of whatever trace runs now; those that carry one keep it."""
    header = traces.header()
    if header is None:
        return records
    return [
        record if traces.parent(record.headers) else record._replace(headers=[*record.headers, header])
        for record in records
    ]


class _Batch:
    """The records of one ``send``, counted down where the pump hears; ``finished`` is called there after the last."""

    __slots__ = ("_finished", "_left", "error")

    def __init__(self, records: int, finished: Callable[["_Batch"], None]) -> None:
        self._left = records
        self._finished = finished
        #: Why one of them was not acknowledged.
        self.error: BrokerUnavailable | EventError | None = None

    def heard(self, error: KafkaError | None, record: Any) -> None:
        if error is not None:
            self.error = not_written(error, record.topic())
        self._left -= 1
        if not self._left:
            self._finished(self)


def _count(records: Sequence[Outgoing], began: float) -> None:
    _write_s.observe(time.monotonic() - began)
    for record in records:
        _written(record.topic).inc()


class Emitter:
    """Writes records and returns when the broker has them. Never blocks the event loop."""

    def __init__(
        self, kafka: KafkaConfig, *, delivery_timeout_s: float = DELIVERY_TIMEOUT_S, linger_ms: float = 2
    ) -> None:
        self._open = partial(ProducerThread, kafka, delivery_timeout_s=delivery_timeout_s, linger_ms=linger_ms)
        self._pump: ProducerThread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finished: list[tuple[_Batch, asyncio.Future[None]]] = []

    async def start(self) -> Self:
        """Needs no broker: a missing one shows when something is sent."""
        self._loop = asyncio.get_running_loop()
        self._pump = self._open(after_poll=self._wake)
        return self

    async def close(self) -> None:
        """Wait for what is in flight (at most the delivery timeout); what is left then is ``BrokerUnavailable``."""
        if self._pump is not None:
            await asyncio.to_thread(self._pump.close)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, records: Sequence[Outgoing]) -> None:
        """Return after the broker acknowledged every record; records of one key keep their order.

        Raises ``BrokerUnavailable`` when it did not, ``EventError`` when it never will: some of the records may have
        been written nevertheless, so send them all again; readers drop duplicates.
        """
        if not records:
            return
        if self._pump is None or self._loop is None:
            raise BrokerUnavailable("kafka: the emitter is not started")
        if traces.tracer is not None:
            records = traced(records)
        began = time.monotonic()
        written: asyncio.Future[None] = self._loop.create_future()
        batch = _Batch(len(records), lambda done: self._finished.append((done, written)))
        for record in records:
            while True:
                try:
                    self._pump.submit(record, batch.heard)
                    break
                except BufferError:  # as in ``ProducerThread.put``
                    await asyncio.sleep(_FULL_PAUSE_S)
        await written
        _count(records, began)

    def _wake(self) -> None:
        finished, self._finished = self._finished, []
        if finished and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_finish, finished)


def _finish(finished: list[tuple[_Batch, asyncio.Future[None]]]) -> None:
    for batch, written in finished:
        if written.done():  # the caller was cancelled
            continue
        if batch.error is None:
            written.set_result(None)
        else:
            written.set_exception(batch.error)
