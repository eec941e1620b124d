"""Places accepted orders, each attempt at most once.

The old system placed an order in fifteen steps inside one request. Here a new order is one commit (accepted, routed,
intent, and the lease of its first send where the lane has a place soon), a later send is one of its own (its lease),
the answer another; each leaves its rows in the order's timeline.
"""

import itertools
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
import structlog

from agents.domain import placement, transition
from agents.domain.routing import Account, Waiting, facts_of, facts_of_event
from agents.domain.schedule import tier_within
from agents.gateway.gateway import Busy, Lane
from agents.handlers import account_watch
from agents.handlers.context import HandlerContext, commit, due, publish, republish, require
from agents.providers.base import PlacedAnswer
from agents.providers.http import instant_s, sending_until
from agents.runtime import in_flight
from agents.runtime.guard import Delivery
from db.rows import Attempt, Change, Order, OrderState
from streams import metrics
from streams.events import Attention, Created, decode
from streams.kafka.producer import message
from streams.order import AttentionCode

log = structlog.get_logger(__name__)

#: How long an attempt for an integration that is off sleeps: a million of them must not keep the ledger busy.
_SWITCHED_OFF_S = 60.0

#: So many new orders begin in one turn of the event loop. A check takes many turns from its tier to its answer: a burst
#: that begins all at once makes each turn a tenth of a second long, and due checks seconds late. While they are so late
#: nevertheless, one begins: each brings checks of its own, and what has not begun waits in Kafka.
_NEW_PER_TURN, _LATE_S = 16, 0.1

#: Tokens of leases: of this process, whatever its name, and counted.
_PROCESS = secrets.token_hex(8)
_leases = itertools.count(1)


def per_turn(late_s: float) -> int:
    """How many new orders may begin in one turn of the event loop, by how late due checks are."""
    return _NEW_PER_TURN if late_s < _LATE_S else 1


async def created(deps: HandlerContext, delivery: Delivery) -> None:
    """A customer's order came in: write it down, then place it. A repeat continues where the first one stopped."""
    event = decode(Created, delivery.value)
    now = deps.clock.now()
    order = Order(
        tenant_id=event.tenant_id,
        order_id=event.order_id,
        fingerprint=event.fingerprint(),
        request=msgspec.to_builtins(event, builtin_types=(), str_keys=True),
        accepted_at=now,
        deadline_at=now + timedelta(seconds=deps.config.checks.deadline),
    )
    if (before := deps.look_first_before()) is not None and event.created_at <= before:
        order.look_up_to = transition.may_have_been_sent(event.quantity, 0)
    found = deps.routing.first(facts_of_event(event))
    sender = None if order.look_up_to or isinstance(found, Waiting) else _sender(deps, found[0])
    if sender is not None and sender.lane.soon and not isinstance(found, Waiting):
        state = await _open_and_send(deps, order, found, sender)
    else:
        state = await _open(deps, order, found)
    if state is None:
        state = await require(deps, order.key)
        if state.order.fingerprint != order.fingerprint:
            return await _clash(deps, event, state)
        await republish(deps, state)
    await place_due(deps, state)


async def _open(deps: HandlerContext, order: Order, found: list[Attempt] | Waiting) -> OrderState | None:
    """Write a new order down and tell it; None when it is known already."""
    stored = await deps.ledger.open(placement.open_order(order, deps.routing, found, deps.clock.now()))
    if stored is None:
        return None
    state = OrderState(stored.order, stored.attempts)
    await publish(deps, OrderState(order, []), state)
    return state


async def _open_and_send(
    deps: HandlerContext, order: Order, found: list[Attempt], sender: "_Sender"
) -> OrderState | None:
    """As ``_open``, and place the first attempt with the lease that came with the same commit."""
    try:
        async with sender.lane.slot():
            if _sender(deps, found[0]) is None:
                return await _open(deps, order, found)  # switched off while this waited for its turn
            lease, not_after = _lease(deps, sender)
            change = placement.open_order(order, deps.routing, found, deps.clock.now(), lease)
            stored = await deps.ledger.open(change)
            if stored is None:
                return None
            leased = OrderState(stored.order, stored.attempts)
            answer = await _request(sender, leased.attempts[0], not_after)
    except Busy:  # the moment became longer; nothing is written yet
        return await _open(deps, order, found)
    return await _answered(deps, OrderState(order, []), leased, leased.attempts[0], lease, answer, sender)


async def _clash(deps: HandlerContext, event: Created, state: OrderState) -> None:
    """The same id with other content: the first one wins, and somebody must look at the shop."""
    attention = Attention(
        code=AttentionCode.INVALID_ORDER.value,
        message="the shop sent this order id again with other content; the first one counts",
        since=state.order.accepted_at,
        order_id=event.order_id,
        tenant_id=event.tenant_id,
        discriminator=event.fingerprint()[:16],
    )
    await deps.emitter.send([message(attention, "orders.attention", at=state.order.accepted_at)])


async def reroute(deps: HandlerContext, state: OrderState) -> None:
    """An order whose lines wait without a live attempt asks for its route again."""
    order = state.order
    if transition.closed(order):
        return
    before = state
    if not state.attempts:
        state = await _route_again(deps, state, None)
    for line in range(1, order.lines + 1):
        newest = state.latest(line)
        if newest is not None and transition.nothing_bought(newest):
            state = await _route_again(deps, state, newest)
    await publish(deps, before, state)
    await place_due(deps, state)


async def _route_again(deps: HandlerContext, state: OrderState, dead: Attempt | None) -> OrderState:
    def decided(state: OrderState) -> Change | None:
        if transition.closed(state.order):
            return None
        if dead is None:
            found = deps.routing.first(facts_of(state.order))
        else:
            found = deps.routing.following(state.order, dead, skip=frozenset())
        if isinstance(found, Waiting) and found.code == state.order.waiting:
            return None  # nothing new
        if not isinstance(found, Waiting) and state.attempts and state.latest(found[0].line) != dead:
            return None  # somebody else routed it
        return placement.reroute(state, deps.routing, found, deps.clock.now())

    return await commit(deps, state, decided)


async def place_due(deps: HandlerContext, state: OrderState) -> OrderState:
    """Place every attempt of an order that may be sent now, one after the other, until none is left."""
    while True:
        row = next((a for a in state.attempts if due(deps, a)), None)
        late = deps.clock.now() >= state.order.deadline_at  # its check, or the sweep, expires it
        if row is None or late or transition.closed(state.order):
            return state
        state = await place(deps, state, row)


class _Sender(NamedTuple):
    account: Account
    lane: Lane


def _sender(deps: HandlerContext, row: Attempt) -> _Sender | None:
    """Who sends an attempt; None while its integration is switched off or gone."""
    account, lane = deps.account(row), deps.lanes.get(row.integration_id)
    return None if account is None or lane is None or not account.enabled else _Sender(account, lane)


def _lease(deps: HandlerContext, sender: _Sender) -> tuple[placement.Lease, float]:
    """A lease of our own from now on, and the instant until which its request may leave."""
    account = sender.account
    lease = placement.Lease(f"{deps.name}:{_PROCESS}:{next(_leases):x}", account.lease_s)
    return lease, instant_s() + account.lease_s - account.call_s


async def place(deps: HandlerContext, state: OrderState, row: Attempt) -> OrderState:
    """Send one attempt: lease, request, answer. A busy lane sends it to a tier instead."""
    number = row.attempt
    sender = _sender(deps, row)
    if sender is None:
        return await _switched_off(deps, state, row)
    if why := account_watch.over_limit(deps, state, row):
        return await defer(deps, state, number, why, AttentionCode.COST_CHANGED, after_s=_SWITCHED_OFF_S)
    try:
        async with sender.lane.slot():
            if _sender(deps, row) is None:
                return await _switched_off(deps, state, row)  # while this waited for its turn
            lease, not_after = _lease(deps, sender)
            leased = await commit(
                deps, state, lambda s: placement.start_sending(s, number, deps.routing, deps.clock.now(), lease)
            )
            mine = leased.attempt(number)
            if mine is None or mine.lease_token != lease.token:
                return leased  # somebody else was faster; the answer is theirs
            answer = await _request(sender, mine, not_after)
    except Busy as busy:
        return await defer(deps, state, number, busy.why, reserve=busy.reserve)
    return await _answered(deps, state, leased, mine, lease, answer, sender)


async def _request(sender: _Sender, row: Attempt, not_after: float) -> PlacedAnswer:
    in_flight.bind_attempt(row.attempt, row.integration_id)
    with sending_until(not_after):
        return await sender.lane.place(row.reference, row.wire)


async def _answered(
    deps: HandlerContext,
    before: OrderState,
    leased: OrderState,
    row: Attempt,
    lease: placement.Lease,
    answer: PlacedAnswer,
    sender: _Sender,
) -> OrderState:
    """Write down what a placement brought, and tell what is new since ``before``."""
    log.debug(
        "placed",
        order=leased.order.order_id,
        attempt=row.attempt,
        integration=row.integration_id,
        outcome=answer.kind.value,
    )
    schedule = sender.account.schedule
    after = await commit(
        deps,
        leased,
        lambda s: placement.on_placement_answer(
            s, row.attempt, lease.token, answer, deps.routing, schedule, deps.clock.now()
        ),
        keep=True,
    )
    await publish(deps, before, after)
    await account_watch.on_placement(deps, after, row, answer)
    return after


async def _switched_off(deps: HandlerContext, state: OrderState, row: Attempt) -> OrderState:
    """It waits, comes back now and then, and is woken when the integration is on again."""
    why = f"integration {row.integration_id} is switched off"
    return await defer(deps, state, row.attempt, why, AttentionCode.INTEGRATION_DISABLED, after_s=_SWITCHED_OFF_S)


async def defer(
    deps: HandlerContext,
    state: OrderState,
    number: int,
    why: str,
    code: AttentionCode | None = None,
    *,
    after_s: float = 0.0,
    reserve: Callable[[], float] = lambda: 0.0,
) -> OrderState:
    """The same attempt again later, telling a person when there is a ``code``; nothing was sent.

    Not before ``after_s``. An attempt that a full lane refused takes a turn by ``reserve``, once, and sleeps in the
    longest tier that does not pass it: a backlog that came back all the time would keep everybody busy with sending
    it away.
    """
    row = state.attempt(number)
    if row is None:
        return state
    metrics.counter("orderwatch_put_off_total", row.integration_id).inc()
    now = deps.clock.now()
    turn = datetime.fromisoformat(row.evidence["turn"]) if "turn" in row.evidence else now
    if turn <= now:
        turn = now + timedelta(seconds=reserve())
    checks = deps.config.checks
    until_s = min(max((turn - now).total_seconds(), after_s), checks.backoff.max)
    delay_s = max(checks.requeue_after, tier_within(deps.tiers, until_s))

    def decided(found: OrderState) -> Change | None:
        newest = found.attempt(number)
        if newest is None or (newest.state, newest.check_number) != (row.state, row.check_number):
            return None  # it went on meanwhile, and has a check of its own
        return placement.defer(found, number, deps.routing, deps.clock.now(), delay_s, why, code, turn)

    after = await commit(deps, state, decided)
    await publish(deps, state, after)
    return after
