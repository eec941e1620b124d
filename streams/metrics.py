"""Every metric with its meaning, and counters cheap enough for the way of every order.

An order passes about thirty of them. The ones here are plain numbers that a scrape reads, fifteen times cheaper than
the client library's locked ones. In return each counter is written by one thread only.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

#: The charset is UTF-8, the default of the format.
CONTENT_TYPE = "text/plain; version=0.0.4"

Name = Literal[
    "orderwatch_events_total",
    "orderwatch_events_held_total",
    "orderwatch_handler_failures_total",
    "orderwatch_handler_seconds",
    "orderwatch_in_flight",
    "orderwatch_dead_letters_total",
    "orderwatch_check_lateness_seconds",
    "orderwatch_checks_early_total",
    "orderwatch_provider_calls_total",
    "orderwatch_provider_call_seconds",
    "orderwatch_put_off_total",
    "orderwatch_circuit_breaker_state",
    "orderwatch_gateway_rate",
    "orderwatch_gateway_in_flight",
    "orderwatch_gateway_waiting",
    "orderwatch_batch_size",
    "orderwatch_store_seconds",
    "orderwatch_events_written_total",
    "orderwatch_write_seconds",
    "orderwatch_status_changes_total",
    "orderwatch_swept_total",
    "orderwatch_sweep_failures_total",
    "orderwatch_delay_sleeping_partitions",
    "orderwatch_delay_forwarded_total",
    "orderwatch_assigned_partitions",
    "orderwatch_consumer_lag",
    "orderwatch_unowned_partitions",
    "orderwatch_committed_beyond_end",
    "orderwatch_log_lost_total",
    "orderwatch_configuration_refused",
    "orderwatch_stuck",
    "orderwatch_loop_delay_seconds",
    "orderwatch_clock_skew_seconds",
    "orderwatch_ledger_behind",
    "orderwatch_alerts_total",
    "orderwatch_orders_open",
    "orderwatch_orders_waiting",
    "orderwatch_attempts_at_risk",
    "orderwatch_money_at_risk",
    "orderwatch_checks_overdue",
    "orderwatch_oldest_overdue_seconds",
    "orderwatch_projection_behind",
    "orderwatch_attention_open",
    "orderwatch_attention_oldest_seconds",
    "orderwatch_dead_letters_open",
    "orderwatch_sweep_age_seconds",
    "orderwatch_workers",
    "orderwatch_balance",
    "orderwatch_measured_timestamp_seconds",
]
Kind = Literal["counter", "gauge", "histogram"]
#: Who serves it: every worker for itself, or the dashboard, which asks the database.
Source = Literal["worker", "dashboard"]
#: All label names there are. None of them may hold an order, a customer's words, or anything a tenant can invent.
Label = Literal["agent", "currency", "integration", "kind", "outcome", "state", "tier", "topic"]

#: A label combination beyond this many goes into one child called "other": a defect must not eat the memory.
MOST_CHILDREN = 1000
_OTHER = "other"

_CALL_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LATE_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0)
_SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric. ``worry`` says when a person should look; ``bounds`` are upper ends of a histogram's buckets."""

    name: Name
    kind: Kind
    unit: str
    labels: tuple[Label, ...]
    meaning: str
    worry: str
    source: Source = "worker"
    bounds: tuple[float, ...] = ()


def _counter(name: Name, unit: str, labels: tuple[Label, ...], meaning: str, worry: str) -> Declared:
    return Declared(name, "counter", unit, labels, meaning, worry)


def _gauge(
    name: Name, unit: str, labels: tuple[Label, ...], meaning: str, worry: str, source: Source = "worker"
) -> Declared:
    return Declared(name, "gauge", unit, labels, meaning, worry, source)


def _histogram(
    name: Name, unit: str, labels: tuple[Label, ...], meaning: str, worry: str, bounds: tuple[float, ...]
) -> Declared:
    return Declared(name, "histogram", unit, labels, meaning, worry, "worker", bounds)


DECLARED: tuple[Declared, ...] = (
    _counter(
        "orderwatch_events_total",
        "events",
        ("agent", "outcome"),
        "Events that were handled. outcome: done, or parked as a dead letter.",
        "Parked grows: see the dead letters. Done stands still while lag grows: see orderwatch_stuck.",
    ),
    _counter(
        "orderwatch_events_held_total",
        "tries",
        ("agent",),
        "Tries of an event that stayed in place because the store or the broker was away.",
        "Grows for longer than a restart of the database or the broker takes.",
    ),
    _counter(
        "orderwatch_handler_failures_total",
        "tries",
        ("agent",),
        "Tries that ended in an unexpected error; the event is tried again, then parked.",
        "Any: it is a defect or damaged data. The log names the place.",
    ),
    _histogram(
        "orderwatch_handler_seconds",
        "seconds",
        ("agent",),
        "From taking an event to its acknowledgement, the wait in the gateway included.",
        "The 95th percentile of dispatch is far above the provider's own times: its limits are reached.",
        _CALL_S,
    ),
    _gauge(
        "orderwatch_in_flight",
        "events",
        ("agent",),
        "Events taken and not yet acknowledged.",
        "Near dispatch.max_in_flight for minutes: providers are slower than the orders come.",
    ),
    _counter(
        "orderwatch_dead_letters_total",
        "events",
        ("agent", "outcome"),
        "Events set aside. outcome: the reason, such as malformed or handler_failed.",
        "Any; above dispatch.max_dead_letter_ratio of the events the worker stops by itself.",
    ),
    _histogram(
        "orderwatch_check_lateness_seconds",
        "seconds",
        (),
        "How long after its due time a check was taken up.",
        "The 95th percentile is above 5 s: the workers do not keep up, or limits are reached.",
        _LATE_S,
    ),
    _counter(
        "orderwatch_checks_early_total",
        "checks",
        (),
        "Checks that were taken up more than 0.1 s before they were due.",
        "Any: nothing may be early. Compare orderwatch_clock_skew_seconds of the workers.",
    ),
    _counter(
        "orderwatch_provider_calls_total",
        "calls",
        ("integration", "kind", "outcome"),
        "Answers of providers, one per order asked about. kind: place, check, look_up. outcome: what it taught.",
        "The share of ambiguous, not_sent or query_error is above a few percent.",
    ),
    _histogram(
        "orderwatch_provider_call_seconds",
        "seconds",
        ("integration", "kind"),
        "Length of one call to a provider, without the wait in the gateway.",
        "Near limits.timeout: answers get lost and orders become unknown.",
        _CALL_S,
    ),
    _counter(
        "orderwatch_put_off_total",
        "orders",
        ("integration",),
        "Times that an order was sent to a later tier: its integration was full or off, or its breaker open.",
        "Grows faster than the calls: raise limits.rate if the provider allows it.",
    ),
    _gauge(
        "orderwatch_circuit_breaker_state",
        "1 or 0",
        ("integration", "state"),
        "The circuit breaker of an integration: 1 for the state it is in. state: closed (calls pass), open, half-open.",
        "Open: nothing is sent there. Its orders wait, or take their fallback where that is proven safe.",
    ),
    _gauge(
        "orderwatch_gateway_rate",
        "calls per second",
        ("integration",),
        "What this worker may send there now: its share of limits.rate, less while it starts slowly.",
        "The sum over the workers is not limits.rate: partitions are not all assigned.",
    ),
    _gauge(
        "orderwatch_gateway_in_flight",
        "calls",
        ("integration",),
        "Calls under way.",
        "At limits.concurrency for minutes.",
    ),
    _gauge(
        "orderwatch_gateway_waiting",
        "orders",
        ("integration",),
        "Orders and questions that wait in the gateway for the limits of their integration.",
        "Never empty while orderwatch_put_off_total grows.",
    ),
    _histogram(
        "orderwatch_batch_size",
        "items",
        ("kind",),
        "Items that shared one call or one commit. kind: check, look_up, or the statement of the store.",
        "Always 1 under load: nothing is shared, and the database is the bottleneck.",
        _SIZES,
    ),
    _histogram(
        "orderwatch_store_seconds",
        "seconds",
        ("kind",),
        "Length of one batch in PostgreSQL, by statement.",
        "The 95th percentile of apply is above 0.25 s: look at the disk and at locks.",
        _CALL_S,
    ),
    _counter(
        "orderwatch_events_written_total",
        "events",
        ("topic",),
        "Events that the broker acknowledged.",
        "Stands still while orders come.",
    ),
    _histogram(
        "orderwatch_write_seconds",
        "seconds",
        (),
        "From handing events over to the broker's acknowledgement.",
        "The 95th percentile is above 1 s: the broker is slow.",
        _CALL_S,
    ),
    _counter(
        "orderwatch_status_changes_total",
        "changes",
        ("outcome",),
        "Status changes that the projection showed. outcome: the new external status.",
        "The share of failed or unknown rises.",
    ),
    _counter(
        "orderwatch_swept_total",
        "orders",
        ("kind",),
        "What the sweep found and repaired. kind: overdue, waiting, unpublished, long_pending, expired.",
        "Overdue grows in every pass: checks get lost or are late.",
    ),
    _counter(
        "orderwatch_sweep_failures_total",
        "passes",
        ("kind",),
        "Passes in which a job of the sweep could not ask the database. kind: as in orderwatch_swept_total.",
        "It grows: that kind of repair stands still; see the log for the server's words.",
    ),
    _gauge(
        "orderwatch_delay_sleeping_partitions",
        "partitions",
        ("tier",),
        "Partitions of a retry tier whose first record is not due yet.",
        "Never by itself.",
    ),
    _counter(
        "orderwatch_delay_forwarded_total",
        "events",
        (),
        "Due checks that the delay line handed on.",
        "Stands still while checks are overdue.",
    ),
    _gauge(
        "orderwatch_assigned_partitions",
        "partitions",
        ("topic",),
        "Partitions that this worker owns.",
        "The sum over the workers is below kafka.partitions: nobody reads the rest.",
    ),
    _gauge(
        "orderwatch_consumer_lag",
        "events",
        ("topic",),
        "Events in this worker's partitions that are not committed yet.",
        "Grows for minutes: more workers, a faster provider, or a stuck partition.",
    ),
    _gauge(
        "orderwatch_unowned_partitions",
        "partitions",
        (),
        "Partitions that no live worker reads.",
        "Above 0 for longer than a rebalance: their orders wait unread. Restart the worker without partitions.",
    ),
    _gauge(
        "orderwatch_committed_beyond_end",
        "partitions",
        (),
        "Partitions of which more is committed than they hold.",
        'Above 0: the topic was lost or made anew. See "Losing Kafka" in docs/operating.md.',
    ),
    _counter(
        "orderwatch_log_lost_total",
        "partitions",
        (),
        "Partitions that were read from their beginning, as they held less than was read of them.",
        'Any: the topic was lost or made anew. See "Losing Kafka" in docs/operating.md.',
    ),
    _gauge(
        "orderwatch_configuration_refused",
        "1 or 0",
        (),
        "1 while the stored configuration has mistakes; the worker goes on with the one before.",
        "1: it is not in use, and a worker that restarts will not start. The log has the mistakes.",
    ),
    _gauge(
        "orderwatch_stuck",
        "partitions",
        (),
        "Partitions with a backlog and no progress for worker.stall_after; the worker restarts itself soon.",
        "Any.",
    ),
    _gauge(
        "orderwatch_loop_delay_seconds",
        "seconds",
        (),
        "How late the event loop ran a timer, at worst in the last two seconds.",
        "Above 0.5 s: the processor is saturated, or something blocks the loop.",
    ),
    _gauge(
        "orderwatch_clock_skew_seconds",
        "seconds",
        (),
        "By how much this host's clock is ahead of the database's; nothing is decided by it.",
        "Above 1 s: let NTP set the clocks.",
    ),
    _gauge(
        "orderwatch_ledger_behind",
        "1 or 0",
        (),
        "1: the ledger is older than what the log or this worker has seen; nothing is sent until it was reconciled.",
        "Any: see docs/operating.md, and run `orderwatch db recover`.",
    ),
    _counter(
        "orderwatch_alerts_total",
        "alerts",
        ("kind", "outcome"),
        "Alerts sent out. kind: webhook, command. outcome: delivered, failed (tried again), given_up.",
        "Given_up: somebody was not told.",
    ),
    _gauge(
        "orderwatch_orders_open",
        "orders",
        ("state",),
        "Orders without an end, by external status.",
        "Unknown or expired grows.",
        "dashboard",
    ),
    _gauge(
        "orderwatch_orders_waiting",
        "orders",
        (),
        "Open orders that wait for a person or a configuration.",
        "Any that is older than your own promise to customers.",
        "dashboard",
    ),
    _gauge(
        "orderwatch_attempts_at_risk",
        "attempts",
        ("integration", "state"),
        "Attempts whose money may be spent. state: sending, unknown.",
        "Unknown grows: answers get lost there.",
        "dashboard",
    ),
    _gauge(
        "orderwatch_money_at_risk",
        "money",
        ("integration", "currency"),
        "Cost of the attempts that are sending or unknown.",
        "Above what you would accept to lose at that provider.",
        "dashboard",
    ),
    _gauge(
        "orderwatch_checks_overdue",
        "checks",
        (),
        "Checks that are late by more than checks.sweep_slack.",
        "More than a handful, or any after two passes of the sweep.",
        "dashboard",
    ),
    _gauge(
        "orderwatch_oldest_overdue_seconds",
        "seconds",
        (),
        "How late the latest check is; 0 when none is overdue.",
        "Above 900 s.",
        "dashboard",
    ),
    _gauge(
        "orderwatch_projection_behind",
        "orders",
        (),
        "Orders whose last status change the view does not show yet, of the 10,000 newest changes of the past week:"
        " 10,000 means that many or more.",
        "Any for longer than a minute.",
        "dashboard",
    ),
    _gauge(
        "orderwatch_attention_open",
        "attentions",
        ("kind",),
        "What waits for a person and was not acknowledged. kind: the code.",
        "Any.",
        "dashboard",
    ),
    _gauge(
        "orderwatch_attention_oldest_seconds",
        "seconds",
        (),
        "Age of the oldest of them; 0 when there is none.",
        "Above 1800 s: nobody looks.",
        "dashboard",
    ),
    _gauge(
        "orderwatch_dead_letters_open",
        "events",
        ("kind",),
        "Dead letters that were not replayed. kind: the reason.",
        "Any.",
        "dashboard",
    ),
    _gauge(
        "orderwatch_sweep_age_seconds",
        "seconds",
        (),
        "Since the last pass of the sweep.",
        "Above twice checks.sweep_every: no worker sweeps.",
        "dashboard",
    ),
    _gauge(
        "orderwatch_workers",
        "workers",
        ("state",),
        "Workers by their heartbeat. state: alive, silent (killed, hung or cut off within the last hour).",
        "Alive is 0, or silent is not.",
        "dashboard",
    ),
    _gauge(
        "orderwatch_balance",
        "money",
        ("integration", "currency"),
        "Last known balance of the account.",
        "Below what an hour of sales costs; integrations[].low_balance raises attention.",
        "dashboard",
    ),
    _gauge(
        "orderwatch_measured_timestamp_seconds",
        "Unix time",
        (),
        "When the database last answered for the numbers above.",
        "Older than a minute.",
        "dashboard",
    ),
)

BY_NAME: Mapping[str, Declared] = {declared.name: declared for declared in DECLARED}


class Counter:
    """A number that only grows."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0

    def inc(self, by: int = 1) -> None:
        self.total += by


class Histogram:
    """How a number is histogram: a histogram."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Metrics(Collector):
    """The numbers of one process."""

    def __init__(self, source: Source = "worker") -> None:
        self._source = source
        self._counters: dict[Name, dict[tuple[str, ...], Counter]] = {}
        self._spreads: dict[Name, dict[tuple[str, ...], Histogram]] = {}
        self._gauges: dict[Name, dict[tuple[str, ...], float]] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def counter(self, name: Name, *labels: str) -> Counter:
        """The counter of these label values, in the declared order; resolve it once, not per event."""
        children = self._counters.setdefault(name, {})
        found = children.get(labels)
        if found is None:
            found = children.setdefault(self._bounded(labels, children), Counter())
        return found

    def histogram(self, name: Name, *labels: str) -> Histogram:
        """As ``counter``, for a histogram."""
        children = self._spreads.setdefault(name, {})
        found = children.get(labels)
        if found is None:
            found = children.setdefault(self._bounded(labels, children), Histogram(BY_NAME[name].bounds))
        return found

    def gauges(self, name: Name, values: Mapping[tuple[str, ...], float]) -> None:
        """All values of a gauge at once: what is not among them is no more."""
        self._gauges[name] = dict(values)

    def gauge(self, name: Name, value: float) -> None:
        """The value of a gauge without labels."""
        self._gauges[name] = {(): value}

    @staticmethod
    def _bounded(labels: tuple[str, ...], children: Mapping[tuple[str, ...], object]) -> tuple[str, ...]:
        return labels if len(children) < MOST_CHILDREN else tuple(_OTHER for _ in labels)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """For the client library."""
        for declared in DECLARED:
            if declared.source == self._source:
                yield self._family(declared)

    def describe(self) -> Iterable[Metric]:
        return ()

    def _family(self, declared: Declared) -> Metric:
        name, help_ = declared.name, f"{declared.meaning} [{declared.unit}]"
        if declared.kind == "counter":
            counted = CounterMetricFamily(name, help_, labels=declared.labels)
            for labels, counter in tuple(self._counters.get(name, {}).items()):
                counted.add_metric(labels, counter.total)
            return counted
        if declared.kind == "gauge":
            shown = GaugeMetricFamily(name, help_, labels=declared.labels)
            for labels, value in tuple(self._gauges.get(name, {}).items()):
                shown.add_metric(labels, value)
            return shown
        spread_out = HistogramMetricFamily(name, help_, labels=declared.labels)
        for labels, histogram in tuple(self._spreads.get(name, {}).items()):
            spread_out.add_metric(labels, _cumulated(histogram), histogram.sum)
        return spread_out


def _cumulated(histogram: Histogram) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else f"{bound:g}", float(total)))
    return buckets


#: The numbers of this worker process.
WORKER = Metrics()

counter, histogram, gauges, gauge = WORKER.counter, WORKER.histogram, WORKER.gauges, WORKER.gauge


_HEAD = """# Metrics

Generated from `streams/metrics.py`; a test compares it (`python -m streams.metrics > docs/metrics.md`).

- Each worker serves its own at `http://<ORDERWATCH_WORKER_BIND>:<port>/metrics/`; the port is 6066 for the first
  process of `orderwatch worker`, and counts up (`--web-port`).
- The dashboard serves at `/metrics` what is in the database: ledger, money at risk, attention, workers. It asks for a
  token: `orderwatch token create --name prometheus --scope metrics`.
- A counter is of one process and starts at 0 with it: use `rate()` and `sum()`. Label values are integrations, agents
  and fixed words only; there is no order, tenant, customer's word or secret in any of them.
- `ops/prometheus/alerts.yaml` has rules over these, `ops/grafana/orderwatch.json` a dashboard, `docs/runbook.md` what
  to do.
"""


def markdown() -> str:
    """The whole of docs/metrics.md."""
    parts = [_HEAD]
    for source, title in (("worker", "Of each worker"), ("dashboard", "Of the dashboard")):
        parts.append(f"## {title}\n")
        lines = ["| metric | kind, unit | labels | meaning | worry when |", "|---|---|---|---|---|"]
        for d in DECLARED:
            if d.source == source:
                labels = ", ".join(d.labels) or "none"
                lines.append(f"| `{d.name}` | {d.kind}, {d.unit} | {labels} | {d.meaning} | {d.worry} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


assert {declared.name for declared in DECLARED} == set(get_args(Name))

if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201 - a command
