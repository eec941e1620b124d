"""The Faust app: reads the configuration, opens no connection. Start it with ``python -m faust -A streams.app worker``.

The agents are named as text only; what they work with is opened by ``agents.bootstrap`` when the app starts.
"""

import asyncio
import inspect
import os
import re
import ssl
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import faust
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, KafkaTimeoutError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.services import WaitResults

from streams import metrics
from streams.config.loader import Config, KafkaConfig, load, refuse_mixed
from streams.errors import BrokerUnavailable, ConfigError
from streams.faust_ext.recovery import Tables
from streams.logs import logging_config

log = structlog.get_logger(__name__)

#: While there is plenty to do a fetch waits so long for more to come: one of fifty costs little more than one of one.
_GATHER_S = 0.01
#: How the names of Faust's own topics end.
CHANGELOG = "-changelog"
#: A fetch request waits this long for new records. Faust's 1.5 s makes a partition that fell quiet wait for it.
_FETCH_WAIT_MS = 100
#: The reader looks up this often when nothing comes: a rewind waits for it.
_FETCH_TURN_S = 0.25
#: What a read brought counts so much less at each read that follows. Were only the last one remembered, a topic that
#: has just filled a read would soon be first again.
_REMEMBERED = 0.9
#: Fetches that may wait for one agent, for each of its partitions. Faust stops reading a partition that brings one when
#: the queue is three quarters full; each of the others may still bring one, and a full queue would stop all reading.
_FETCHES_AHEAD = 5
#: New partitions, and topics that were made anew, are noticed this soon. Faust's own is five minutes.
_METADATA_AGE_MS = 10_000
#: Faust lets about eighty plain names of the environment (BROKER_URL, WEB_PORT, CACHE_URL, ...) override what is given
#: to it. They may be meant for other programs: it gets an environment without any.
_NO_ENVIRONMENT = {"ORDERWATCH": "config.yaml"}
_WEB_PORT = 6066
#: A cluster that just came back has no controller for a moment, and cannot make a topic.
_NO_CONTROLLER_S, _ASK_AGAIN_S = 60.0, 0.5

Hook = Callable[[], Awaitable[None]]


class _ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Topic -> how many records its last reads brought, the older the less they count.
        self._brought: defaultdict[str, float] = defaultdict(float)

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # no setting of Faust reaches it
        consumer._isolation_level = "read_committed"  # Faust sets it for its own transactions only
        return consumer

    def assignment(self) -> set[TP]:
        """Nothing before the thread runs: Faust's own would end whoever reports in the first moments of a worker."""
        return set(super().assignment()) if self._consumer is not None else set()

    def _start_thread(self) -> None:
        try:
            super()._start_thread()
        finally:
            # A thread that ends by a cancellation does not say so, and a stop would wait five minutes for it.
            with suppress(RuntimeError):  # the loop that would hear it has ended
                self.set_shutdown()

    async def _fetch_records(self, consumer: AIOKafkaConsumer, *partitions: Any, **limits: Any) -> Any:
        """Topics that brought least lately first: a read takes so many records at most, in the order in which
        partitions brought some, and a burst of new orders or of due checks fills it alone again and again. Whatever
        came beside it waited for seconds."""
        fetched, brought = consumer._fetcher._records, self._brought
        for place in sorted(fetched, key=lambda place: brought[place.topic]):
            fetched[place] = fetched.pop(place)
        found = await super()._fetch_records(consumer, *partitions, **limits)
        for topic in brought:
            brought[topic] *= _REMEMBERED
        for place, records in found.items():
            brought[place.topic] += len(records)
        return found

    async def _highwaters(self, partitions: Any) -> Mapping[TP, int]:
        try:
            return dict(await super()._highwaters(partitions))
        except KafkaTimeoutError as error:
            raise BrokerUnavailable(f"kafka: ends of partitions: {error}") from None

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Begin at the beginning where nothing is committed, and where more is committed than there is."""
        committed = dict(await super().seek_to_committed())
        ours = [place for place in committed if not place.topic.endswith(CHANGELOG)]
        ends = await self.call_thread(self._highwaters, ours) if ours else {}
        for place in ours:
            if (end := ends.get(place)) is not None and (offset := committed[place] or 0) > end:
                report_lost(place.topic, place.partition, offset, end)
                committed[place] = 0
        if begin := [place for place in ours if not committed[place]]:
            await self.seek_to_beginning(*begin)
        return committed


_lost = metrics.counter("orderwatch_log_lost_total")


def report_lost(topic: str, partition: int, offset: int, end: int) -> None:
    """Log and count a partition that holds less than was read of it: it was made anew, and is read from its start."""
    _lost.inc()
    log.error(
        "committed beyond the end: the topic was lost or made anew; reading what is there from its beginning",
        topic=topic,
        partition=partition,
        committed=offset,
        end=end,
    )


class _Begun:
    """The rest of a coroutine that was begun by hand, and what it waits for."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    answer = yield waits_for
                except BaseException as error:  # noqa: BLE001 - meant for the coroutine
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(answer)
        except StopIteration as done:
            return done.value


class _Consumer(driver.Consumer):  # type: ignore[misc]
    """Faust's consumer, which hands out whole fetches and skips nothing when it rewinds to the committed offsets.

    Faust's cost per event is many times that of reading the record, so an event of ours is all that one fetch brought
    of a partition: ``event.value`` is a list of records. Changelogs of tables come one by one, as Faust needs them.

    After a rebalance Faust rewinds, then empties its queues, then lets records flow; but its fetcher does not wait for
    that. What it read between rewinding and emptying was never handled, and the next commit passed it (seen as lost
    orders on a busy machine). So here nothing is read from before the rewind until Faust lets records flow. A partition
    without a committed offset Faust does not rewind at all; ours begins again (also seen as lost orders, when workers
    started together). And what was taken out of the queue before a rebalance, and is done after it, commits nothing:
    records before it may be in other hands by then.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        self._reader: asyncio.Task[Any] | None = None

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[Any]:
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        if self.app.busy():
            await asyncio.sleep(_GATHER_S)
        self._reader = asyncio.current_task()
        self._at_rest.clear()
        try:
            async for record in super().getmany(min(timeout, _FETCH_TURN_S)):
                yield record
        finally:
            self._at_rest.set()

    async def _getmany(self, active_partitions: Any, timeout: float) -> dict[Any, list[Any]]:
        found = await super()._getmany(active_partitions, timeout)
        for place, records in found.items():
            if records and records[-1].offset < (self._read_offset[place] or 0):
                self._begin_again(place, records[-1].offset)
        return {
            place: records if place.topic.endswith(CHANGELOG) else [records]
            for place, records in found.items()
            if records
        }

    def _begin_again(self, place: TP, offset: int) -> None:
        """Records lie before what was read: the partition was made anew. Faust would drop them, and commit nothing."""
        report_lost(place.topic, place.partition, self._read_offset[place] or 0, offset + 1)
        self._read_offset[place] = self._committed_offset[place] = None
        self._acked[place].clear()
        self._acked_index[place].clear()

    def _to_message(self, tp: Any, record: Any) -> Any:
        if not isinstance(record, list):
            return super()._to_message(tp, record)
        message = super()._to_message(tp, record[-1])
        message.key, message.value = None, record
        return message

    async def wait_first(self, *waits: Any, timeout: float | None = None) -> Any:
        """Faust hands each fetch to its stream in here, with four tasks and three turns of the event loop. One step is
        enough where nothing keeps it waiting, as nearly always.

        That step runs in the task of the reader. Only a full buffer of Faust's producer is waited for with a time
        limit, which since Python 3.12 would cancel the reader: then it is done Faust's way.
        """
        first, *others = waits
        buffer = self.app.producer.buffer
        if others and inspect.iscoroutine(first) and buffer.size <= buffer.max_messages:
            try:
                waits_for = first.send(None)
            except BaseException as ended:
                for other in others:
                    other.close()
                if isinstance(ended, StopIteration):
                    return WaitResults([first], [ended.value], False)
                raise
            first = _Begun(first, waits_for)
        return await super().wait_first(first, *others, timeout=timeout)

    def current(self, fetch: Any) -> bool:
        """False once a rebalance has begun since this was read: it will be read again, here or elsewhere."""
        return bool(self.flow_active and fetch.generation_id == self.app.consumer_generation_id)

    def ack(self, message: Any) -> bool:
        return bool(self.current(message) and super().ack(message))

    def done_to(self, fetch: Any, offset: int) -> None:
        """Everything of a fetch up to ``offset`` is done, though the rest is not."""
        if self.current(fetch):
            self._acked[fetch.tp].append(offset)

    def _new_offset(self, tp: Any) -> int | None:
        # The agents acknowledge each partition in order, so the highest offset speaks for all before it.
        acked = self._acked[tp]
        if not acked:
            return None
        newest = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return int(newest) + 1

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Offsets without a record (compacted, or inside of a fetch) are passed with the record behind them."""

    async def perform_seek(self) -> None:
        self.stop_flow()  # every caller lets it flow again
        if asyncio.current_task() is not self._reader:  # the reader itself rewinds when it was stopped in its turn
            await self._at_rest.wait()
        await super().perform_seek()
        await self.app.learn_partitions()
        for place, offset in self._read_offset.items():
            if not offset:  # Faust keeps what it once committed, and commits nothing below
                self._committed_offset[place] = None


class Arrival:
    """One record of a fetch. ``ack`` it when it and every earlier one of its partition are done."""

    __slots__ = ("_consumer", "_fetch", "message")

    def __init__(self, consumer: Any, fetch: Any, message: Any) -> None:
        self._consumer = consumer
        self._fetch = fetch
        self.message = message

    def ack(self) -> None:
        message = self.message
        if message is self._fetch.value[-1]:
            self._fetch.ack()
        else:
            self._consumer.done_to(self._fetch.message, message.offset)


async def arrivals(app: "App", stream: Any) -> AsyncIterator[Arrival]:
    """The records of an agent's fetches, one by one; each is to be acknowledged."""
    async for fetch in stream.noack().events():
        for record in fetch.value:
            if not app.consumer.current(fetch.message):
                break
            yield Arrival(app.consumer, fetch, record)


class CacheTable(faust.Table):  # type: ignore[misc]
    """A table whose changelog is written by its owner, many changes at once: see ``write``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: What changed since it was last written: key -> value, None for a deleted key.
        self._unwritten: dict[Any, Any] = {}
        self._writing = asyncio.Lock()
        self._begun = 0
        self._failures = 0

    def on_key_set(self, key: Any, value: Any) -> None:
        self._unwritten[key] = value

    def on_key_del(self, key: Any) -> None:
        self._unwritten[key] = None

    async def write(self, send: Callable[[Mapping[Any, Any]], Awaitable[None]]) -> None:
        """Returns when ``send`` wrote every change there was: key -> value, None for a deleted key.

        One after the other, as what is on its way would be written once more. All who waited for one are done with the
        next, which takes what each of them changed; and whoever waited for one that failed has failed with it, or each
        would wait as long again. Raises what ``send`` raises, or ``BrokerUnavailable``; then it is to be repeated.
        """
        begun, failures = self._begun, self._failures
        async with self._writing:
            if self._failures != failures:
                raise BrokerUnavailable("kafka: the table could not be written")
            if self._begun != begun:
                return
            self._begun += 1
            changes = dict(self._unwritten)
            try:
                await send(changes)
            except BaseException:
                self._failures += 1
                raise
            for key, value in changes.items():
                if self._unwritten.get(key) is value:
                    self._unwritten.pop(key, None)


class _Transport(driver.Transport):  # type: ignore[misc]
    Consumer = _Consumer

    async def _really_create_topic(self, owner: Any, client: Any, *about: Any, **more: Any) -> None:
        give_up_at = monotonic() + _NO_CONTROLLER_S
        if about[0] not in client.cluster.topics():
            await client.force_metadata_update()  # a topic that exists is not asked for: we may not have the right
        while True:
            try:
                await super()._really_create_topic(owner, client, *about, **more)
                return
            except Exception as error:  # Faust says it with plain exceptions; the last one is raised
                if owner.should_stop or monotonic() > give_up_at:
                    raise
                log.warning("topic not made yet", topic=about[0], error=type(error).__name__)
            await asyncio.sleep(_ASK_AGAIN_S)
            await client.force_metadata_update()


class App(faust.App):  # type: ignore[misc]
    """Faust's app with hooks: parts open before the agents run, and close after the work in flight is done; ``busy``
    is True while new events would have to wait anyway."""

    settings: Config
    opening: Hook | None = None
    draining: Hook | None = None
    closing: Hook | None = None
    busy: Callable[[], bool] = staticmethod(lambda: False)

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)

    async def learn_partitions(self) -> None:
        """Let Faust's producer ask for the partitions there are: it ends the worker when it is to write to one that was
        added since it asked. A broker that is away is asked again with the next rebalance."""
        producer = getattr(self.producer, "_producer", None)
        if producer is not None:
            with suppress(KafkaError):
                await producer.client.force_metadata_update()

    def _create_directories(self) -> None:
        """None: the tables are in memory, and the working directory may be read-only."""

    async def on_start(self) -> None:
        await super().on_start()
        if self.opening is not None:
            await self.opening()

    async def on_stop(self) -> None:
        if self.draining is not None:
            await self.draining()
        await super().on_stop()

    async def on_shutdown(self) -> None:
        await super().on_shutdown()
        if self.closing is not None:
            await self.closing()


def build(config: Config) -> App:
    """The app of a configuration whose broker is known."""
    kafka = config.kafka
    app = App(
        f"{kafka.topic_prefix}orderwatch",
        broker=[f"kafka://{server.strip()}" for server in kafka.bootstrap_servers.split(",")],
        broker_credentials=_credentials(kafka),
        broker_session_timeout=kafka.session_timeout,
        broker_heartbeat_interval=kafka.session_timeout / 5,
        broker_rebalance_timeout=kafka.rebalance_timeout,
        broker_request_timeout=max(kafka.rebalance_timeout, kafka.session_timeout) + 30,
        broker_commit_interval=0.5,
        broker_max_poll_records=500,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=_METADATA_AGE_MS,
        producer_metadata_max_age_ms=_METADATA_AGE_MS,
        key_serializer="raw",
        value_serializer="raw",
        store="memory://",
        topic_partitions=kafka.partitions,
        topic_replication_factor=kafka.replication_factor,
        topic_disable_leader=True,
        table_standby_replicas=0,
        stream_wait_empty=False,  # the pools wait for their own work, see agents.runtime.ordered_pool
        stream_buffer_maxsize=_FETCHES_AHEAD * kafka.partitions,
        web_bind=os.environ.get("ORDERWATCH_WORKER_BIND", "127.0.0.1"),
        web_host=os.environ.get("ORDERWATCH_WORKER_HOST", "127.0.0.1"),
        web_port=_port(os.environ.get("ORDERWATCH_WORKER_PORT", "")),
        env=_NO_ENVIRONMENT,
        TableManager=Tables,
        autodiscover=["agents.topology"],
        logging_config=logging_config(config.worker.log_level, config.worker.log_format),
    )
    app.settings = config
    return app


def _port(text: str) -> int:
    """Of ``ORDERWATCH_WORKER_PORT``. Kubernetes sets a variable of that name, with an address, for a Service named
    ``orderwatch-worker``: that one is ignored. Raises ``ConfigError``."""
    if not text or re.match(r"[a-z]+://", text):
        return _WEB_PORT
    if not text.isdecimal() or int(text) > 65535:
        raise ConfigError(f"ORDERWATCH_WORKER_PORT is {text!r}; expected a port number, 0 to 65535")
    return int(text)


def _credentials(kafka: KafkaConfig) -> Any:
    security = kafka.security
    context: ssl.SSLContext | None = None
    if security.protocol.endswith("SSL"):
        try:
            context = ssl.create_default_context(cafile=security.ca)
            if security.cert:
                context.load_cert_chain(security.cert, security.key)
        except OSError as error:  # also what ssl raises
            raise ConfigError(
                f"config.yaml: kafka.security: ca, cert or key cannot be read "
                f"({error.strerror or error}); expected PEM files"
            ) from None
    if security.protocol.startswith("SASL"):
        return faust.SASLCredentials(
            mechanism=security.mechanism,
            username=security.username,
            password=security.password.get_secret_value() if security.password else None,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None


def config_path() -> Path:
    """Where the configuration is: ``$ORDERWATCH_CONFIG``, else ``config.yaml`` here."""
    return Path(os.environ.get("ORDERWATCH_CONFIG", "config.yaml"))


def _app() -> App:
    if sys.platform != "win32":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    try:
        config = load(config_path(), os.environ)
        if config.kafka.bootstrap_servers == "embedded":
            raise ConfigError(
                "config.yaml: kafka.bootstrap_servers is embedded; expected host:port for a plain Faust worker: "
                "set KAFKA_BOOTSTRAP_SERVERS, or start `orderwatch worker`, which brings the bundled broker"
            )
        refuse_mixed(config)
        return build(config)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 - before logging exists
        raise SystemExit(2) from None


def __getattr__(name: str) -> App:
    """``app`` is built when it is first asked for, so that importing a word from here needs no configuration."""
    if name != "app":
        raise AttributeError(name)
    globals()["app"] = app = _app()
    return app
