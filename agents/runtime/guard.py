"""One guard decides per event: done, hold, or dead letter.

Faust acknowledges an event whose handler raised and never shows it again, so this is not defence but the delivery
guarantee: ``guarded`` returns only when the event may be acknowledged.
"""

import asyncio
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import perf_counter

import structlog

from agents.runtime import in_flight
from streams import metrics
from streams.errors import BrokerUnavailable, ConfigError, EventError, OrderNotFound, StoreUnavailable
from streams.events import rfc3339
from streams.kafka.producer import Outgoing

log = structlog.get_logger(__name__)

_HOLD_FIRST_S = 0.2
_HOLD_MAX_S = 5.0
_WINDOW = 1000
_WINDOW_LEAST = 50

#: What keeps an event in place until it has passed: the store or the broker is away, or the configuration is wrong.
HOLDING = (StoreUnavailable, BrokerUnavailable, ConfigError)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One record as it arrived. ``repeated`` is true when it may have been begun with before, here or elsewhere."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    repeated: bool = False


Handler = Callable[[Delivery], Awaitable[None]]


class DeadLetterRatioExceeded(Exception):
    """Most events fail: a bad release must stop, not empty the topic into the dead letters."""


class _Meter:
    """The counters of one agent."""

    __slots__ = ("agent", "done", "failed", "held", "parked", "seconds")

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.done = metrics.counter("orderwatch_events_total", agent, "done")
        self.parked = metrics.counter("orderwatch_events_total", agent, "parked")
        self.held = metrics.counter("orderwatch_events_held_total", agent)
        self.failed = metrics.counter("orderwatch_handler_failures_total", agent)
        self.seconds = metrics.histogram("orderwatch_handler_seconds", agent)


def _place(agent: str, delivery: Delivery) -> dict[str, object]:
    """Which event a log line is about."""
    return {"agent": agent, "topic": delivery.topic, "partition": delivery.partition, "offset": delivery.offset}


class Guard:
    """Runs handlers; ``send`` writes records, ``stop`` ends the worker with a reason."""

    def __init__(
        self,
        send: Callable[[Sequence[Outgoing]], Awaitable[None]],
        stop: Callable[[Exception], Awaitable[None]],
        poison_retries: int,
        max_dead_letter_ratio: float,
    ) -> None:
        self._send = send
        self._stop = stop
        self._poison_retries = poison_retries
        self._max_parked_share = max_dead_letter_ratio
        self._recent: deque[bool] = deque(maxlen=_WINDOW)
        self._meters: dict[str, _Meter] = {}

    def meter(self, agent: str) -> _Meter:
        """Where this agent's events are counted."""
        found = self._meters.get(agent)
        if found is None:
            found = self._meters[agent] = _Meter(agent)
        return found

    async def __call__(self, agent: str, handler: Handler, delivery: Delivery) -> None:
        """Handle one event; returns when it may be acknowledged."""
        meter, began = self.meter(agent), perf_counter()
        await self._until_passed(agent, handler, delivery, meter)
        meter.seconds.observe(perf_counter() - began)

    async def _until_passed(self, agent: str, handler: Handler, delivery: Delivery, meter: _Meter) -> None:
        failures = 0
        pause_s = _HOLD_FIRST_S
        while True:
            try:
                await handler(delivery)
            except HOLDING as error:
                meter.held.inc()
                in_flight.touch()
                if pause_s == _HOLD_FIRST_S:
                    log.warning("event held", **_place(agent, delivery), error=str(error))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _HOLD_MAX_S)
                delivery = replace(delivery, repeated=True)
            except EventError as error:
                return await self._park(agent, delivery, error.reason, str(error))
            except OrderNotFound as error:
                return await self._park(agent, delivery, "order_not_found", str(error))
            except Exception as error:  # noqa: BLE001 - the one place that must let nothing escape
                failures += 1
                meter.failed.inc()
                if failures > self._poison_retries:
                    await self._count(parked=True)
                    return await self._park(agent, delivery, "handler_failed", where(error))
                log.error("handler failed", **_place(agent, delivery), failure=failures, error=where(error))
                await asyncio.sleep(_HOLD_FIRST_S * failures)
                delivery = replace(delivery, repeated=True)
            else:
                meter.done.inc()
                return await self._count(parked=False)

    async def together(
        self, agent: str, handler: Callable[[Sequence[Delivery]], Awaitable[None]], deliveries: Sequence[Delivery]
    ) -> None:
        """Handle events that need no order in one go; returns when all of them may be acknowledged.

        When that fails each is handled alone, as by ``__call__``: the good ones pass, the bad one is held or parked.
        ``handler`` may see an event twice.
        """

        async def alone(delivery: Delivery) -> None:
            await handler([delivery])

        meter, began = self.meter(agent), perf_counter()
        try:
            await handler(deliveries)
        except Exception:  # noqa: BLE001 - handled again, and told, one by one
            await asyncio.gather(*(self(agent, alone, delivery) for delivery in deliveries))
        else:
            meter.done.inc(len(deliveries))
            meter.seconds.observe(perf_counter() - began)

    async def _count(self, *, parked: bool) -> None:
        self._recent.append(parked)
        if not parked or len(self._recent) < _WINDOW_LEAST:
            return
        share = sum(self._recent) / len(self._recent)
        if share > self._max_parked_share:
            await self._stop(DeadLetterRatioExceeded(f"{share:.0%} of the last {len(self._recent)} events failed"))
            await asyncio.Event().wait()  # this event must not be acknowledged

    async def _park(self, agent: str, delivery: Delivery, reason: str, error: str) -> None:
        log.warning("event parked", **_place(agent, delivery), reason=reason, error=error)
        if delivery.topic.endswith("orders.dead-letter"):
            return  # it lies there already; setting it aside again would go round for ever
        self.meter(agent).parked.inc()
        metrics.counter("orderwatch_dead_letters_total", agent, reason).inc()
        letter = dead_letter(agent, delivery, reason, error)
        pause_s = _HOLD_FIRST_S
        while True:
            try:
                return await self._send([letter])
            except BrokerUnavailable as away:
                in_flight.touch()
                log.warning("dead letter held", agent=agent, error=str(away))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _HOLD_MAX_S)
            except EventError as refused:
                if letter.value is None:
                    raise
                log.error("dead letter cut", agent=agent, error=str(refused))  # the original stays in its topic
                letter = dead_letter(agent, replace(delivery, value=None, headers=[]), reason, error)


def dead_letter(agent: str, delivery: Delivery, reason: str, error: str) -> Outgoing:
    """The original, untouched, with why and whence in headers."""
    why = [
        ("dlq.reason", reason),
        ("dlq.error", error[:1000]),
        ("dlq.topic", delivery.topic),
        ("dlq.partition", str(delivery.partition)),
        ("dlq.offset", str(delivery.offset)),
        ("dlq.at", rfc3339(datetime.now(UTC))),
        ("dlq.agent", agent),
    ]
    kept = [(name, value) for name, value in delivery.headers if not name.startswith("dlq.")]
    headers = [*kept, *((name, text.encode()) for name, text in why)]
    return Outgoing("orders.dead-letter", delivery.key, delivery.value, headers)


def where(error: BaseException) -> str:
    """The kind of an unexpected error and where it was raised; its text may hold anything, so it is not shown."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
