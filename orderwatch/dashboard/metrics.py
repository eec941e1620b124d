"""What the database says about orders, money, people and workers, as Prometheus metrics of the dashboard."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

import msgspec
import sqlalchemy as sa

from db.control import worker_heartbeats as control_worker_heartbeats
from db.reads import lists, queries
from db.reads.overview import Overview
from streams.errors import StoreUnavailable
from streams.metrics import Metrics

#: However often somebody scrapes, the database is asked no more often.
_EVERY_S = 10.0

Values = dict[tuple[str, ...], float]


class Reading(msgspec.Struct):
    """One look at everything."""

    overview: Overview
    health: queries.Health
    attention: list[lists.Group]
    letters: list[lists.Group]
    workers: list[control_worker_heartbeats.Worker]
    balances: Mapping[str, queries.Row]


class Measured:
    """The numbers of the last look; a database that is away leaves them, and their age tells."""

    def __init__(self) -> None:
        self.metrics = Metrics("dashboard")
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def text(self, look: Callable[[], Awaitable[Reading]]) -> bytes:
        """Everything in Prometheus' text format. ``look`` reads the database and may raise ``StoreUnavailable``."""
        async with self._asking:
            if time.monotonic() - self._asked_at >= _EVERY_S:
                self._asked_at = time.monotonic()
                try:
                    self._show(await look())
                except StoreUnavailable:
                    pass  # orderwatch_measured_timestamp_seconds stands still
        return self.metrics.text()

    def _show(self, seen: Reading) -> None:
        overview, health, now = seen.overview, seen.health, seen.overview.now
        show, gauge = self.metrics.gauges, self.metrics.gauge
        at_risk: Values = defaultdict(float)
        money: Values = defaultdict(float)
        for risk in overview.risk:
            at_risk[risk.integration_id, "sending"] += risk.sending
            at_risk[risk.integration_id, "unknown"] += risk.unknown
            money[risk.integration_id, risk.currency] += float(risk.amount)
        show("orderwatch_orders_open", {(state,): float(number) for state, number in overview.states.items()})
        gauge("orderwatch_orders_waiting", overview.waiting)
        show("orderwatch_attempts_at_risk", at_risk)
        show("orderwatch_money_at_risk", money)
        gauge("orderwatch_checks_overdue", overview.overdue)
        gauge("orderwatch_oldest_overdue_seconds", _age_s(overview.overdue_since, now))
        gauge("orderwatch_projection_behind", health.behind)
        show("orderwatch_attention_open", {(group.reason,): float(group.count) for group in seen.attention})
        gauge("orderwatch_attention_oldest_seconds", _age_s(overview.attention_since, now))
        show("orderwatch_dead_letters_open", {(group.reason,): float(group.count) for group in seen.letters})
        if health.swept_at is not None:
            gauge("orderwatch_sweep_age_seconds", _age_s(health.swept_at, now))
        alive = sum(worker.alive for worker in seen.workers)
        show("orderwatch_workers", {("alive",): float(alive), ("silent",): float(len(seen.workers) - alive)})
        show(
            "orderwatch_balance",
            {
                (name, row["balance_currency"] or ""): float(row["balance_amount"])
                for name, row in seen.balances.items()
                if row["balance_amount"] is not None
            },
        )
        gauge("orderwatch_measured_timestamp_seconds", now.timestamp())


def read(engine: sa.Engine, slack_s: float) -> Reading:
    """Raises ``StoreUnavailable``. Blocks."""
    return Reading(
        lists.overview(engine, slack_s=slack_s),
        queries.health(engine, slack_s=slack_s),
        lists.attention_groups(engine),
        lists.letter_groups(engine),
        control_worker_heartbeats.workers(engine),
        queries.integration_states(engine),
    )


def _age_s(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max((now - since).total_seconds(), 0.0)
