"""What every handler works with, and the two moves that all of them make: settle a decision, then tell it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import structlog

from agents.domain import outbound_events
from agents.domain.routing import Account, Routing
from agents.domain.schedule import topic_for
from agents.gateway.gateway import Lane
from agents.runtime import in_flight
from db.clock import Clock
from db.ledger import Ledger
from db.rows import Attempt, Change, Key, OrderState
from streams import metrics
from streams.config.loader import Config
from streams.errors import LedgerBehind, OrderNotFound, StoreUnavailable
from streams.kafka.producer import Emitter
from streams.order import AttemptState

log = structlog.get_logger(__name__)

#: Orders that are remembered as this process wrote them last.
_REMEMBERED = 4096
_HOLD_FIRST_S = 0.2
_HOLD_MAX_S = 5.0


@dataclass(slots=True)
class HandlerContext:
    """The parts a worker is made of. ``config``, ``routing`` and ``lanes`` are replaced when the configuration is."""

    config: Config
    routing: Routing
    lanes: Mapping[str, Lane]
    ledger: Ledger
    emitter: Emitter
    clock: Clock
    tiers: tuple[float, ...] = ()
    name: str = "worker"
    told: set[tuple[str, str]] = field(default_factory=set)
    #: What one unit cost last, by (integration, tenant, package); by the catalogue, (integration, provider's package).
    unit_costs: dict[tuple[str, str, str], Decimal] = field(default_factory=dict)
    catalogue_prices: Mapping[tuple[str, str], Decimal] = field(default_factory=dict)
    #: Orders that the shop made before this instant may have been sent by a ledger that is lost.
    look_first_before: Callable[[], datetime | None] = lambda: None
    #: Why nothing may be written or sent; empty when it may. See ``agents.maintenance.ledger_watch``.
    behind: Callable[[], str] = lambda: ""
    _written: dict[Key, OrderState] = field(default_factory=dict, init=False, repr=False)

    def remember(self, state: OrderState) -> None:
        """How this process wrote an order, if its provider is to be asked about it next; see ``recall``."""
        self._written.pop(state.order.key, None)
        if any(row.state is AttemptState.ACCEPTED for row in state.attempts):
            self._written[state.order.key] = state
            if len(self._written) > _REMEMBERED:
                del self._written[next(iter(self._written))]

    def recall(self, key: Key) -> OrderState | None:
        """The order as this process wrote it last, once. Somebody else may have moved it since, so only a question may
        follow from it, whose answer is written down on what the ledger holds by then."""
        return self._written.pop(key, None)

    def topic_for(self, delay_s: float) -> str:
        """``orders.check`` for what is due, else the shortest tier that is long enough."""
        return topic_for(self.tiers, delay_s)

    def account(self, row: Attempt) -> Account | None:
        """The integration of an attempt, unless it left the configuration."""
        return self.routing.accounts.get(row.integration_id)


async def require(deps: HandlerContext, key: Key) -> OrderState:
    """The order as it stands. Raises ``OrderNotFound`` naming it, and ``LedgerBehind`` while the ledger may have
    forgotten it."""
    state = await deps.ledger.load(key)
    if state is None and (why := deps.behind()):
        raise LedgerBehind(why)
    if state is None:
        raise OrderNotFound(f"order {key[1]} of tenant {key[0]} is not in the ledger")
    return state


async def commit(
    deps: HandlerContext, state: OrderState, decide: Callable[[OrderState], Change | None], *, keep: bool = False
) -> OrderState:
    """Write what ``decide`` makes of the order, deciding anew whenever it moved first; the order afterwards.

    With ``keep`` the decision rests on an answer that exists only in this process, so a store that is away is waited
    for in place instead of being raised. Telling follows: see ``tell``.
    """
    pause_s = _HOLD_FIRST_S
    lost = 0
    while True:
        try:
            change = decide(state)
            if change is None:
                return state
            stored = await deps.ledger.apply(change)
            if stored is not None:
                if stored.order.version > state.order.version:
                    metrics.counter("orderwatch_status_changes_total", stored.order.external_status.value).inc()
                after = outbound_events.after(state, stored)
                deps.remember(after)
                return after
            lost += 1
            if lost > 1:  # who loses twice in a row may be losing to a clock, not to a colleague
                await asyncio.sleep(min(0.05 * lost, 1.0))
            state = await require(deps, state.order.key)
        except StoreUnavailable as error:
            if not keep:
                raise
            in_flight.touch()
            log.warning("answer held", order=state.order.order_id, error=str(error))
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _HOLD_MAX_S)


async def publish(deps: HandlerContext, before: OrderState, now: OrderState) -> None:
    """Write the events that became true; returns when the broker has them."""
    await deps.emitter.send(outbound_events.events_between(before, now, deps.topic_for, deps.clock.now()))


async def republish(deps: HandlerContext, state: OrderState, line: int | None = None) -> None:
    """Write every event that must have been written about this order, with the same ids; see ``announce``."""
    await deps.emitter.send(outbound_events.all_events(state, deps.topic_for, deps.clock.now(), line))


def due(deps: HandlerContext, row: Attempt) -> bool:
    """True when this attempt may be sent now."""
    return outbound_events.due_intent(row, deps.clock.now())
