"""A worker says every few seconds what it is doing: for the dashboard, ``orderwatch doctor``, and the metrics."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import sqlalchemy as sa
import structlog

from agents.handlers.context import HandlerContext
from db.control import worker_heartbeats
from streams import metrics
from streams.errors import StoreUnavailable

log = structlog.get_logger(__name__)

_TICK_S = 0.25

_LANE_GAUGES: dict[metrics.Name, str] = {
    "orderwatch_gateway_rate": "rate",
    "orderwatch_gateway_in_flight": "in_flight",
    "orderwatch_gateway_waiting": "waiting",
}


class Heartbeat:
    """``activity`` adds what only the agents know: ``in_flight`` per agent and ``assigned`` partitions.

    ``sleeping`` names the partitions of the delay line, (tier, partition), whose head is not due.
    """

    def __init__(
        self,
        deps: HandlerContext,
        engine: sa.Engine,
        executor: ThreadPoolExecutor,
        activity: Callable[[], Mapping[str, Any]],
        sleeping: Callable[[], Iterable[tuple[str, int]]] = tuple,
    ) -> None:
        self._deps = deps
        self._engine = engine
        self._executor = executor
        self._activity = activity
        self._sleeping = sleeping
        self._started_at = datetime.now(UTC)
        self._release = release()
        #: When the event loop last ran this, a monotonic instant.
        self.beat_at = time.monotonic()
        self._delay_s = 0.0
        self._silent = False

    async def forever(self) -> None:
        """Measure the event loop all the time, speak every ``workers.BEAT_S``; a store that is away is no reason to
        end."""
        said_at = float("-inf")
        while True:
            began = time.monotonic()
            await asyncio.sleep(_TICK_S)
            now = self.beat_at = time.monotonic()
            self._delay_s = max(self._delay_s, now - began - _TICK_S)
            if now - said_at >= worker_heartbeats.BEAT_S:
                said_at = now
                doc, self._delay_s = self.doc(), 0.0
                self._show(doc)
                await self._say(doc)

    def doc(self) -> dict[str, Any]:
        """See ``db.control.worker_heartbeats.Doc``."""
        return {
            "release": self._release,
            "started_at": self._started_at,
            "lanes": {name: lane.view() for name, lane in self._deps.lanes.items()},
            "loop_delay_s": round(self._delay_s, 4),
            **self._activity(),
        }

    def _show(self, doc: Mapping[str, Any]) -> None:
        """The same as metrics."""
        lanes: Mapping[str, Mapping[str, Any]] = doc["lanes"]
        metrics.gauges(
            "orderwatch_circuit_breaker_state",
            {
                (name, state): float(lane["state"] == state)
                for name, lane in lanes.items()
                for state in worker_heartbeats.STATES
            },
        )
        for name, field in _LANE_GAUGES.items():
            metrics.gauges(name, {(integration,): float(lane[field]) for integration, lane in lanes.items()})
        metrics.gauges("orderwatch_in_flight", {(agent,): number for agent, number in doc["in_flight"].items()})
        metrics.gauges("orderwatch_assigned_partitions", {(t,): len(mine) for t, mine in doc["assigned"].items()})
        metrics.gauge("orderwatch_loop_delay_seconds", doc["loop_delay_s"])
        metrics.gauge("orderwatch_clock_skew_seconds", self._deps.clock.skew_s())
        metrics.gauges(
            "orderwatch_delay_sleeping_partitions",
            {(tier,): count for tier, count in Counter(tier for tier, _ in self._sleeping()).items()},
        )

    async def _say(self, doc: Mapping[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, worker_heartbeats.note, self._engine, self._deps.name, doc)
            self._silent = False
        except StoreUnavailable as error:
            if not self._silent:
                log.warning("heartbeat held", error=str(error))
            self._silent = True

    async def goodbye(self) -> None:
        """An orderly stop is no death."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, worker_heartbeats.forget, self._engine, self._deps.name)
        except StoreUnavailable as error:
            log.warning("worker state left behind", error=str(error))


def release() -> str:
    """The version of this installation."""
    try:
        return version("orderwatch")
    except PackageNotFoundError:
        return "unknown"
