"""The stream processors: decode nothing, decide nothing, hand each event to the guard. Discovered by Faust."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import faust
import msgspec
import structlog
from faust.web import Request, Response, View

from agents.bootstrap import Parts
from agents.handlers import check, dispatch
from agents.handlers import commands as handler_commands
from agents.handlers import projections as handler_projections
from agents.runtime.guard import Delivery, where
from agents.runtime.ordered_pool import Pool
from streams import metrics, traces
from streams.app import App, Arrival, CacheTable, arrivals
from streams.app import app as _app
from streams.delay_queue import Due
from streams.errors import BrokerUnavailable
from streams.kafka.producer import Outgoing
from streams.order import TERMINAL
from streams.topics import OUTCOME_TABLE, RETRY, STATUS_TABLE

log = structlog.get_logger(__name__)

app: App = _app
settings = app.settings
_prefix = settings.kafka.topic_prefix
#: Of an agent that writes whole fetches down: while these are written the next ones gather. A partition whose fetches
#: wait holds up the reading of every other one, for a tenth of a second each time.
_FETCHES_AT_ONCE = 16
#: An agent with so many events in flight does not wait for the next one.
_PLENTY = 50

#: Whatever comes may have been begun with.
_ALL_OF_IT = 2**63

#: (topic, partition) -> end of the log when it became ours: what lies before may have been begun by another worker.
_ours_from: dict[tuple[str, int], int] = {}


async def _stop(error: BaseException) -> None:
    log.error("worker stops", error=str(error) if isinstance(error, Exception) else type(error).__name__)
    await app.crash(error)


parts = Parts(settings, _stop)
_pools: dict[str, Pool] = {}


def topic(name: str) -> Any:
    """A topic of the contract as raw bytes; it is created by `orderwatch topics apply`, not by Faust."""
    return app.topic(
        _prefix + name,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        partitions=settings.kafka.partitions,
        internal=False,
    )


created, checks, referenced = topic("orders.created"), topic("orders.check"), topic("orders.referenced")
commands = topic("orders.command")
changed, attention = topic("orders.status-changed"), topic("orders.attention")
dead_letters = topic("orders.dead-letter")

#: What every order's status is now, by order id and tenant; a cache for readers, never a guard.
statuses = app.tables.add(
    CacheTable(
        app,
        name=STATUS_TABLE,
        key_type=bytes,
        value_type=bytes,
        partitions=settings.kafka.partitions,
        use_partitioner=True,
        beacon=app.tables.beacon,
        help="order id -> tenant -> Standing, as JSON",
    )
)

#: Ends per partition, integration and outcome in each window. A replay after a crash may count twice.
outcomes = app.Table(
    OUTCOME_TABLE,
    default=int,
    partitions=settings.kafka.partitions,
    help="partition|integration|outcome -> ends in the window",
).tumbling(settings.table.window, expires=settings.table.keep_windows)


class Standing(msgspec.Struct):
    """Where one tenant's order stands, as the table keeps it. ``at`` is a Unix time."""

    version: int
    status: str
    external_status: str
    at: float

    @property
    def final(self) -> bool:
        """True when only a person moves it."""
        return self.external_status in TERMINAL


class _News(msgspec.Struct):
    """What the table keeps of a status change; everything of it was checked by the projection."""

    order_id: str
    tenant_id: str
    version: int
    status: str
    external_status: str
    occurred_at: datetime
    integration_id: str | None = None


Standings = dict[str, Standing]

_read_news = msgspec.json.Decoder(_News).decode
_read_standings = msgspec.json.Decoder(Standings).decode
_write_standings = msgspec.json.Encoder().encode


def _standings(order_id: bytes) -> Standings:
    held = statuses.get(order_id)
    return _read_standings(held) if held else {}


def _each(
    name: str,
    handler: Callable[[Delivery], Awaitable[None]],
    tiers: AsyncIterable[Due] | None = None,
    **limits: Callable[[], int],
) -> Callable[[Any], Awaitable[None]]:
    """Many records at a time, those of one order one after the other; also what comes from ``tiers``."""

    async def run(stream: Any) -> None:
        pool = _pools[name] = Pool(settings.dispatch.max_in_flight, **limits)

        async def one(arrival: Arrival) -> None:
            delivery = _delivery(arrival.message)
            if traces.tracer is None:
                return await parts.guard(name, handler, delivery)
            with traces.handling(name, [_arrived(delivery)]):
                await parts.guard(name, handler, delivery)

        beside = None if tiers is None else parts.beside(pool.run(tiers, one), f"{name}-tiers")
        try:
            await pool.run(arrivals(app, stream), one)
        finally:
            if beside is not None:
                beside.cancel()

    return run


def _whole(name: str, handler: Callable[[Sequence[Delivery]], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """Whole fetches, in any order: for what only writes down."""

    async def run(stream: Any) -> None:
        pool = _pools[name] = Pool(_FETCHES_AT_ONCE)

        async def one(fetch: Any) -> None:
            deliveries = [_delivery(record) for record in fetch.value]
            if traces.tracer is None:
                return await parts.guard.together(name, handler, deliveries)
            with traces.handling(name, [_arrived(delivery) for delivery in deliveries]):
                await parts.guard.together(name, handler, deliveries)

        await pool.run(stream.noack().events(), one)

    return run


def _arrived(delivery: Delivery) -> traces.Arrived:
    topic = delivery.topic.removeprefix(_prefix)
    return traces.Arrived(topic, delivery.partition, delivery.offset, delivery.key, delivery.headers)


def _delivery(record: Any) -> Delivery:
    if isinstance(record, Due):
        repeated = record.repeated
    else:
        repeated = record.offset < _ours_from.get((record.topic, record.partition), record.offset + 1)
    return Delivery(record.topic, record.partition, record.offset, record.key, record.value, record.headers, repeated)


def _new_per_turn() -> int:
    return dispatch.per_turn(0.0 if parts.delay is None else parts.delay.late_s)


@app.agent(created, name="dispatch")
async def dispatch_orders(stream: Any) -> None:
    """Place new orders."""
    await _each("dispatch", lambda delivery: dispatch.created(parts.deps, delivery), per_turn=_new_per_turn)(stream)


@app.agent(checks, name="check")
async def check_orders(stream: Any) -> None:
    """Act on due checks: those that the delay line hands over, and those that somebody asks for."""
    await _each("check", lambda delivery: check.check(parts.deps, delivery), parts.delay)(stream)


@app.agent(commands, name="command")
async def carry_out_commands(stream: Any) -> None:
    """Do what people ask for, where the ledger allows it."""
    await _each("command", lambda delivery: handler_commands.command(parts.deps, delivery))(stream)


@app.agent(referenced, name="projection-referenced")
async def project_references(stream: Any) -> None:
    """Show references in the ``orders`` view."""
    await _whole("projection-referenced", lambda deliveries: handler_projections.referenced(parts.views, deliveries))(
        stream
    )


@app.agent(changed, name="projection-status")
async def project_statuses(stream: Any) -> None:
    """Show status changes in the ``orders`` view and in the table."""
    await _whole("projection-status", _status_changed)(stream)


@app.agent(attention, name="attention")
async def keep_attention(stream: Any) -> None:
    """Show what waits for a person."""
    await _whole("attention", lambda deliveries: handler_projections.attention(parts.views, deliveries))(stream)


@app.agent(dead_letters, name="dead-letter")
async def keep_dead_letters(stream: Any) -> None:
    """Show what was set aside, and tell a person."""
    await _each("dead-letter", lambda delivery: handler_projections.dead_letter(parts.deps, parts.views, delivery))(
        stream
    )


async def _status_changed(deliveries: Sequence[Delivery]) -> None:
    await handler_projections.status_changed(parts.views, deliveries)
    try:
        _keep(deliveries)
    except Exception as error:  # noqa: BLE001 - a cache that fails must not stop what is written beside it
        log.error("status not kept in the table", error=where(error))
    await _write_changelog()


def _keep(deliveries: Sequence[Delivery]) -> None:
    ended: Counter[str] = Counter()
    for delivery in deliveries:
        change = _read_news(delivery.value or b"")
        key = change.order_id.encode()
        tenants = _standings(key)
        before = tenants.get(change.tenant_id)
        if before is not None and change.version <= before.version:
            continue
        now = Standing(change.version, change.status, change.external_status, change.occurred_at.timestamp())
        tenants[change.tenant_id] = now
        statuses[key] = _write_standings(tenants)
        if now.final:
            ended[_outcome_key(delivery.partition, change.integration_id, change.external_status)] += 1
    for outcome, count in ended.items():
        outcomes[outcome] += count


async def _write_changelog() -> None:
    """Returns when the broker has every change of the table; raises ``BrokerUnavailable``, and then it is repeated."""
    topic = statuses.changelog_topic_name.removeprefix(_prefix)
    await statuses.write(
        lambda changes: parts.deps.emitter.send([Outgoing(topic, key, value, []) for key, value in changes.items()])
    )


def _outcome_key(partition: int, integration_id: str | None, outcome: str) -> str:
    """Partitions count apart, so that each count has one owner."""
    return f"{partition}|{integration_id or '-'}|{outcome}"


@app.timer(interval=min(settings.table.keep_finished, 30.0), name="forget-finished")
async def forget_finished() -> None:
    """Finished orders leave the table after ``table.keep_finished``."""
    before = time.time() - settings.table.keep_finished
    for order_id in list(statuses):
        tenants = _standings(order_id)
        kept = {tenant: held for tenant, held in tenants.items() if not (held.final and held.at < before)}
        if len(kept) == len(tenants):
            continue
        if kept:
            statuses[order_id] = _write_standings(kept)
        else:
            del statuses[order_id]
    try:
        await _write_changelog()
    except BrokerUnavailable as error:  # Faust stops a worker whose timer raises; the next write says it again
        log.warning("table not written", error=str(error))


@app.page("/orders/{order_id}/")
class OrderStatus(View):  # type: ignore[misc]
    """One order's status from the table, answered by the worker that owns the key."""

    @app.table_route(table=statuses, match_info="order_id")
    async def get(self, request: Request, order_id: str) -> Response:
        """200 with tenant -> status, 404 when the table does not hold the order."""
        tenants = _standings(order_id.encode())
        if not tenants:
            return self.json({"error": f"order {order_id} is not in the table"}, status=404)
        return self.json({"order_id": order_id, "tenants": msgspec.to_builtins(tenants)})


@app.page("/outcomes/")
class Outcomes(View):  # type: ignore[misc]
    """Ends per integration and outcome in the current window, of the partitions that this worker owns."""

    async def get(self, request: Request) -> Response:
        """200 with integration -> outcome -> count."""
        counts: dict[str, dict[str, int]] = {}
        for integration in (*parts.deps.lanes, "-"):
            for outcome in sorted(TERMINAL):
                found = sum(
                    outcomes[_outcome_key(tp.partition, integration, outcome)].now()
                    for tp in app.consumer.assignment()
                    if tp.topic == _prefix + "orders.status-changed"
                )
                if found:
                    counts.setdefault(integration, {})[outcome.value] = found
        return self.json({"window_s": settings.table.window, "outcomes": counts})


@app.page("/health/")
class Health(View):  # type: ignore[misc]
    """What this worker is doing."""

    async def get(self, request: Request) -> Response:
        """200 while the worker gets on, 503 when something makes no progress."""
        stuck = parts.stuck
        return self.json(
            {
                "stuck": stuck,
                "ledger_behind": parts.deps.behind() or None,
                "assigned": len(app.consumer.assignment()),
                "in_flight": {name: pool.in_flight for name, pool in _pools.items()},
                "lanes": {name: lane.state for name, lane in parts.deps.lanes.items()},
            },
            status=503 if stuck else 200,
        )


@app.page("/metrics/")
class Metrics(View):  # type: ignore[misc]
    """What Prometheus scrapes, see docs/metrics.md."""

    async def get(self, request: Request) -> Response:
        """200 with the text format."""
        return self.bytes(metrics.WORKER.text(), content_type=metrics.CONTENT_TYPE)


@app.on_partitions_revoked.connect
async def _revoked(app: Any, revoked: set[Any], **_: Any) -> None:
    for pool in _pools.values():
        pool.forget((tp.topic, tp.partition) for tp in revoked)


@app.on_partitions_assigned.connect
async def _assigned(app: Any, assigned: set[Any], **_: Any) -> None:
    # First of all: until then due checks of partitions that went may still be handed out here.
    parts.own({tp.partition for tp in assigned if tp.topic == _prefix + "orders.check"})
    ours = [tp for tp in assigned if not tp.topic.endswith("-changelog")]
    try:
        ends = await app.consumer.highwaters(*ours) if ours else {}
    except BrokerUnavailable as error:
        log.warning("where the new partitions end is not known", error=str(error))
        ends = dict.fromkeys(ours, _ALL_OF_IT)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # The worker was told to stop in the middle of a rebalance, and the question was dropped; to raise this would
        # end the consumer's thread before it has left the group.
        ends = dict.fromkeys(ours, _ALL_OF_IT)
    _ours_from.clear()
    _ours_from.update({(tp.topic, tp.partition): end for tp, end in ends.items() if end is not None})


def _activity() -> dict[str, Any]:
    assigned: dict[str, list[int]] = {}
    for tp in sorted(app.consumer.assignment()):
        if not tp.topic.endswith("-changelog"):
            assigned.setdefault(tp.topic.removeprefix(_prefix), []).append(tp.partition)
    in_flight = {name: pool.in_flight for name, pool in _pools.items()}
    return {"in_flight": in_flight, "assigned": assigned, "stuck": parts.stuck}


def _signs() -> dict[tuple[str, int], float] | None:
    if app.rebalancing or app.in_recovery:
        return None
    found = {}
    for tp in app.consumer.assignment():
        if not tp.topic.endswith("-changelog"):
            seen = (pool.heartbeat_at((tp.topic, tp.partition)) for pool in tuple(_pools.values()))
            newest = max((at for at in seen if at is not None), default=0.0)
            found[tp.topic.removeprefix(_prefix), tp.partition] = newest
    return found


def _due_at() -> float:
    """The last sign of life of what is due in the tiers: of those that take it, or of its oldest event in hand, of the
    partition where that is the longest ago."""
    pool, delay = _pools.get("check"), parts.delay
    if pool is None or delay is None:
        return math.inf
    seen = [pool.heartbeat_at(place) for place in pool.places if place[0].startswith(_prefix + RETRY)]
    return min(at for at in (*seen, delay.taken_at if pool.takes else math.inf) if at is not None)


async def _drain() -> None:
    pools = dict(_pools)
    for name, left in zip(
        pools, await asyncio.gather(*(pool.drain(settings.worker.drain) for pool in pools.values())), strict=True
    ):
        if left:
            log.warning("stopped with work in flight", agent=name, events=left)


def _busy() -> bool:
    return any(pool.in_flight > _PLENTY for pool in _pools.values())


parts.activity = _activity
parts.signs = _signs
parts.due_at = _due_at
app.opening = parts.open
app.draining = _drain
app.closing = parts.close
app.busy = _busy

__all__ = ["app", "faust"]
