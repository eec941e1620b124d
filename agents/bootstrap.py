"""Opens and closes everything a worker is made of; the only module that sees every room."""

import asyncio
import gc
import math
import os
import socket
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import structlog

from agents import config_check
from agents.domain.accounts import account, adapter
from agents.domain.routing import Account, Routing
from agents.gateway.gateway import Down, Lane
from agents.handlers.context import HandlerContext
from agents.maintenance.alerts import alerts_forever
from agents.maintenance.balances import ask_forever
from agents.maintenance.heartbeat import Heartbeat, release
from agents.maintenance.kill_switch import Switches
from agents.maintenance.ledger_watch import LedgerWatch
from agents.maintenance.sweeper import sweep_forever
from agents.providers import registry
from agents.providers.base import Money
from agents.providers.http import HttpClient
from agents.runtime import in_flight
from agents.runtime.guard import Guard, where
from agents.runtime.watchdog import ANSWER_S, LivenessProbes, StallDetector, Watchdog, stall_timeout_s, within
from db import identity
from db.clock import Clock
from db.control import integration_state, kill_switch, stored_config, worker_heartbeats
from db.control.stock import CodeStock
from db.engine import connect, reach
from db.leader import Leader
from db.ledger import Ledger
from db.reads import queries
from db.views import Views
from streams import ledger_log, logs, metrics, traces
from streams.config.loader import Config, IntegrationConfig, KafkaConfig, secrets, with_catalog
from streams.delay_queue import DelayQueue
from streams.errors import BrokerUnavailable, ConfigError, StoreUnavailable
from streams.events import Attention
from streams.kafka.offsets import next_records
from streams.kafka.producer import Emitter, Outgoing, apply_topics, group_lag, message
from streams.order import AttentionCode
from streams.seal import VARIABLE, Sealer
from streams.topics import PROMISES, every

log = structlog.get_logger(__name__)

_THREADS = 8
#: So many more objects than at its last look, and the collector looks again.
_NEW_OBJECTS = 150_000
#: The producer sends what came for a partition in this time in one request.
_LINGER_MS = 20
#: How often the prices of the stored catalogues are read again.
_PRICES_EVERY_S = 60.0


class _LedgerSources:
    """What the watch of the ledger reads and writes; see ``agents.maintenance.ledger_watch``."""

    def __init__(self, engine: Any, kafka: KafkaConfig) -> None:
        self.read = partial(identity.read, engine)
        self.advance = partial(identity.advance, engine)
        self.set_behind = partial(identity.set_behind, engine)
        self.marks = partial(ledger_log.marks, kafka)


class Parts:
    """One worker's parts. ``deps`` is what handlers get; ``guard`` runs them."""

    deps: HandlerContext
    views: Views
    guard: Guard
    watch: LedgerWatch
    delay: DelayQueue | None = None

    def __init__(self, config: Config, stop: Any, environ: Mapping[str, str] | None = None) -> None:
        self._file = config
        self._stop = stop
        self._environ = os.environ if environ is None else environ
        logs.hide([*secrets(config), *self._environ.get(VARIABLE, "").replace(",", " ").split()])
        logs.tell_also(in_flight.log_context)
        self._sealer = Sealer.from_environ(self._environ)
        self._engine = connect(
            config.database.url.get_secret_value(), config.database.pool_size, pooler=config.database.pooler
        )
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="store")
        self._tasks: list[asyncio.Task[None]] = []
        self._errands: set[asyncio.Future[None]] = set()
        self._https: dict[str, HttpClient] = {}
        self._share = 1.0
        self._heart: Heartbeat | None = None
        self._watchdog: Watchdog | None = None
        self._revision = ""
        self._closed = False
        self._priced_at = float("-inf")
        self._leader = Leader(self._engine, self._executor)
        self._switches = Switches(lambda: kill_switch.states(self._engine), self._leader)
        #: What the agents add to what this worker tells of itself.
        self.activity: Callable[[], Mapping[str, Any]] = dict
        #: (topic without prefix, partition) -> last sign of life, of what the agents read; None while it moves.
        self.signs: Callable[[], Mapping[tuple[str, int], float] | None] = lambda: None
        #: The last sign of life of what is due in the tiers, where it is the longest ago.
        self.due_at: Callable[[], float] = lambda: math.inf

    async def connect(self) -> HandlerContext:
        """Reach broker and database and take over the stored configuration; nothing runs by itself yet."""
        clock = Clock(asyncio.get_running_loop())
        emitter = await Emitter(self._file.kafka, linger_ms=_LINGER_MS).start()
        ledger = Ledger(self._engine, self._executor, clock)
        self.views = Views(self._engine, self._executor)
        self._stock = CodeStock(self._engine, self._executor, clock)
        self.deps = HandlerContext(
            self._file,
            Routing(self._file, {}),
            {},
            ledger,
            emitter,
            clock,
            name=f"{socket.gethostname()}:{os.getpid()}",
        )
        dispatch = self._file.dispatch
        self.guard = Guard(emitter.send, self._stop, dispatch.poison_retries, dispatch.max_dead_letter_ratio)
        # Before anything is decided: this host's own clock may be wrong by minutes, and a due time would be too.
        await self._when_answering(lambda: clock.observe(queries.database_now(self._engine)))
        await self._when_answering(lambda: stored_config.seed(self._engine, self._file.docs, "config.yaml"))
        await self._when_answering(self._follow)
        self.watch = LedgerWatch(_LedgerSources(self._engine, self._file.kafka), ledger, emitter.send, self.deps.name)
        await self._when_answering(self.watch.start)
        self.deps.behind = lambda: ledger.behind
        self.deps.look_first_before = lambda: self.watch.look_first_before
        return self.deps

    async def open(self) -> None:
        """``connect``, then start the delay line and the timers."""
        traces.start(self._file.telemetry, "orderwatch-worker", release())
        deps = await self.connect()
        if self._closed:  # the worker was told to stop meanwhile
            return
        self._heart = Heartbeat(deps, self._engine, self._executor, lambda: self.activity(), self._asleep)
        self._tasks = [
            self.beside(sweep_forever(deps, self._leader), "sweep"),
            self.beside(self._switches.follow_forever(deps), "switches"),
            self.beside(self._heart.forever(), "heartbeat"),
            self.beside(self._watch(), "watch"),
            self.beside(ask_forever(deps, self._leader, self._store_balance), "balances"),
            self.beside(self.watch.forever(), "ledger"),
        ]
        if self._file.alerts.targets:
            alerting = alerts_forever(self._file.alerts, self._engine, self._executor)
            self._tasks.append(self.beside(alerting, "alerts"))
        loop = asyncio.get_running_loop()

        def died(error: Exception) -> None:
            log.error("delay line ended", error=where(error))
            loop.call_soon_threadsafe(lambda: self._keep(asyncio.ensure_future(self._stop(error))))

        group = f"{self._file.kafka.topic_prefix}orderwatch-delay"
        self.delay = DelayQueue(self._file.kafka, group, deps.clock.now, died)
        self.delay.start()
        self._watchdog = self._watch_progress(self._heart, self.delay, loop)
        _leave_to_the_collector_what_is_new()

    def _watch_progress(self, heart: Heartbeat, delay: DelayQueue, loop: asyncio.AbstractEventLoop) -> Watchdog:
        kafka, url = self._file.kafka, self._file.database.url.get_secret_value()
        read = [promise.name for promise in PROMISES]
        sight = LivenessProbes(
            lags=lambda: group_lag(kafka, f"{kafka.topic_prefix}orderwatch", read),
            database=lambda: within(ANSWER_S, lambda: reach(url)),
            signs=lambda: self.signs(),
            beat_at=lambda: heart.beat_at,
            delay_queue_at=lambda: delay.turned_at,
            due_at=lambda: self.due_at(),
            next_record=lambda place, offset: next_records(kafka, {place: offset})[place],
            owned=self._owned,
        )

        def patience() -> float:
            limits = [item.limits for item in self.deps.config.integrations]
            return stall_timeout_s(
                self._file.worker.stall_after, [each.connect_timeout + each.timeout for each in limits]
            )

        progress = StallDetector(sight, patience)

        def stop(error: Exception) -> None:
            loop.call_soon_threadsafe(lambda: self._keep(asyncio.ensure_future(self._stop(error))))

        watchdog = Watchdog(progress, loop, stop, self._file.worker.drain)
        watchdog.start()
        return watchdog

    def _owned(self) -> set[tuple[str, int]]:
        """(topic without prefix, partition) that a live worker reads, by what the workers say of themselves."""
        alive = [worker.doc.assigned for worker in worker_heartbeats.workers(self._engine) if worker.alive]
        return {(topic, number) for assigned in alive for topic, numbers in assigned.items() for number in numbers}

    @property
    def stuck(self) -> list[str]:
        """What makes no progress, in words."""
        return self._watchdog.progress.stuck if self._watchdog is not None else []

    async def close(self) -> None:
        """Let go of everything; after the work in flight is done."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._heart is not None:
            await self._heart.goodbye()
        if self.delay is not None:
            await asyncio.to_thread(self.delay.stop)
        for http in self._https.values():
            await http.close()
        await self.deps.emitter.close()
        await asyncio.to_thread(traces.stop)
        self._executor.shutdown(wait=True)
        self._engine.dispose()
        if self._watchdog is not None:
            self._watchdog.stopped()

    def _asleep(self) -> list[tuple[str, int]]:
        heads = self.delay.heads() if self.delay is not None else {}
        return [place for place, due_at in heads.items() if due_at > self.deps.clock.now()]

    def own(self, partitions: Collection[int]) -> None:
        """These are this worker's, of every topic: its part of every rate, and of what waits in the tiers."""
        if self.delay is not None:
            self.delay.follow(partitions)
        self._share = max(len(partitions), 1) / self._file.kafka.partitions
        for lane in self.deps.lanes.values():
            lane.set_share(self._share)

    async def _when_answering(self, call: Any) -> None:
        """Run in a thread until database and broker answer: a worker may start before they do."""
        pause_s = 0.2
        while True:
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, call)
                return
            except (StoreUnavailable, BrokerUnavailable) as error:
                log.warning("waiting", error=str(error))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 5.0)

    def _store_balance(self, integration_id: str, money: Money) -> None:
        integration_state.store_balance(self._engine, integration_id, money.amount, money.currency)

    def _follow(self) -> None:
        """Take over the stored configuration if it changed, and the catalogues' prices now and then."""
        if time.monotonic() - self._priced_at > _PRICES_EVERY_S:
            self._priced_at = time.monotonic()
            self.deps.catalogue_prices = queries.catalogue_prices(self._engine)
        revision = stored_config.revision(self._engine)
        if revision == self._revision:
            return
        config = with_catalog(self._file, stored_config.read(self._engine), self._environ, config_check.problems)
        apply_topics(config.kafka, every(config), settings=False)
        asyncio.run_coroutine_threadsafe(self._use(config), self.deps.clock.loop()).result()
        self._revision = revision
        log.info(
            "configuration in use",
            revision=revision,
            integrations=len(config.integrations),
            routes=len(config.routes),
            mappings=len(config.mappings),
        )

    async def _use(self, config: Config) -> None:
        """Build what changed, keep what did not: an unchanged lane keeps its breaker and its connections."""
        logs.hide(secrets(config))
        deps = self.deps
        tiers = config.tiers()
        accounts: dict[str, Account] = {}
        lanes: dict[str, Lane] = {}
        for integration in config.integrations:
            old = deps.config.integration(integration.id)
            same = old is not None and _dumped(old) == _dumped(integration)
            if same and integration.id in deps.lanes:
                lanes[integration.id] = deps.lanes[integration.id]
            else:
                lanes[integration.id] = self._lane(integration)
            accounts[integration.id] = account(config, integration, lanes[integration.id].provider, tiers)
        for lane in lanes.values():
            lane.set_most(max(config.dispatch.max_in_flight // max(len(lanes), 2), 1))
        routing = Routing(config, self._switches.applied(accounts))
        deps.config, deps.routing, deps.lanes, deps.tiers = config, routing, lanes, tiers

    def _lane(self, integration: IntegrationConfig) -> Lane:
        limits = integration.limits
        http = HttpClient(
            integration.base_url or "http://127.0.0.1",
            connect_timeout_s=limits.connect_timeout,
            timeout_s=limits.timeout,
        )
        if (before := self._https.get(integration.id)) is not None:
            # Calls in flight still use it; close it when the longest of them must be over.
            asyncio.get_running_loop().call_later(
                limits.timeout + limits.connect_timeout, lambda: asyncio.ensure_future(before.close())
            )
        self._https[integration.id] = http
        provider = adapter(integration, http, self._sealer.seal, self._stock)
        profile = registry.profile_of(integration.provider, integration.profile)
        lane = Lane(integration.id, provider, limits, integration.breaker, profile.batch, self._on_down)
        lane.set_share(self._share)
        return lane

    def _on_down(self, down: Down) -> None:
        """Raise attention once per hour and integration when its circuit breaker opens."""
        log.warning("circuit breaker opened", integration=down.integration_id, error=down.message)
        code = AttentionCode.ACCESS_REFUSED if down.access else AttentionCode.INTEGRATION_DOWN
        attention = Attention(
            code=code.value,
            message=down.message,
            since=down.since,
            integration_id=down.integration_id,
            discriminator=f"{down.since:%Y-%m-%dT%H}",
        )
        self._keep(asyncio.ensure_future(self._tell(message(attention, "orders.attention", at=down.since))))

    def beside(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run something that must not end by an error: the worker would end with it."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    def _keep(self, task: "asyncio.Future[None]") -> None:
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _tell(self, record: Outgoing) -> None:
        try:
            await self.deps.emitter.send([record])
        except BrokerUnavailable as error:
            log.warning("attention not told", error=str(error))

    async def _watch(self) -> None:
        """Follow changes of the stored configuration; a wrong one is told and the one in use stays."""
        while True:
            await asyncio.sleep(self._file.worker.config_poll)
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, self._follow)
                metrics.gauge("orderwatch_configuration_refused", 0)
            except ConfigError as error:
                metrics.gauge("orderwatch_configuration_refused", 1)
                log.error("stored configuration refused", error=str(error))
                await asyncio.sleep(10 * self._file.worker.config_poll)
            except (StoreUnavailable, BrokerUnavailable) as error:
                log.warning("configuration not read", error=str(error))

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background task ended", task=task.get_name(), error=type(error).__name__)
            self._keep(asyncio.ensure_future(self._stop(error)))


def _leave_to_the_collector_what_is_new() -> None:
    """What a worker is made of lives as long as it does: Python's collector looks at it once, here, and never again.

    Orders leave next to nothing behind that only the collector could free, yet by its own measure it went through
    everything again and again: a quarter of a worker's CPU, and up to 0.4 s in which nothing else ran.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)


def _dumped(integration: IntegrationConfig) -> dict[str, Any]:
    """All that its lane is made of: a switch leaves breaker and connections alone."""
    return integration.model_dump(exclude={"enabled"})
