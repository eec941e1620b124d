"""Acts on due checks: asks the provider about one attempt, or continues what a crash or a full lane left behind.

A check that does not match the ledger's number is stale, doubled or cancelled: it costs one indexed read. A question
that follows from what this process wrote last costs none.
"""

import structlog

from agents.domain import deadlines, placement, status_answers, transition
from agents.domain.routing import Account
from agents.gateway.gateway import Busy
from agents.handlers import account_watch
from agents.handlers.context import HandlerContext, commit, publish, republish, require
from agents.handlers.dispatch import defer, place, place_due, reroute
from agents.providers.base import Ask, Seen
from agents.runtime import in_flight
from agents.runtime.guard import Delivery
from db.rows import Attempt, Change, OrderState
from streams import metrics
from streams.errors import EventError
from streams.events import Check, decode, rfc3339
from streams.order import AttemptState, AttentionCode, CheckReason, ExternalStatus
from streams.topics import RETRY

log = structlog.get_logger(__name__)

S = AttemptState

#: People and providers may ask about an order that the engine has stopped asking about.
_ASKED_FOR = (CheckReason.OPERATOR, CheckReason.CALLBACK)


#: More than the clock of the database may ever step back.
_AHEAD_S = 3600.0
_lateness = metrics.histogram("orderwatch_check_lateness_seconds")
_early = metrics.counter("orderwatch_checks_early_total")
#: Workers know the database's clock to within a round trip, so two of them differ by about that much.
_CLOCKS_S = 0.1


async def check(deps: HandlerContext, delivery: Delivery) -> None:
    """One due check."""
    event = decode(Check, delivery.value)
    if RETRY in delivery.topic and (event.due_at - deps.clock.now()).total_seconds() > _AHEAD_S:
        # The delay line hands it over before its time only when its topic would have forgotten it by then.
        raise EventError(f"due_at: {rfc3339(event.due_at)}; expected at most a day after its tier has passed")
    key = (event.tenant_id, event.order_id)
    state = deps.recall(key)
    if state is None or delivery.repeated or not _only_to_be_asked(deps, event, state):
        state = await require(deps, key)
    current = _number(state, event.attempt)
    if event.reason not in _ASKED_FOR:
        _late(deps, event)
    if current is None:
        return
    row = state.attempt(event.attempt)
    if current != event.check_number:
        if delivery.repeated and current > event.check_number:
            # Its decisions were stored, but perhaps not told: the process may have died between the two.
            await republish(deps, state, row.line if row is not None else 0)
            await place_due(deps, state)
        return
    if delivery.repeated and not _untouched(deps, event, state, row):
        # The number of attempt 0 never becomes stale, so its repeat wakes what the first delivery started. Where that
        # one put the attempt off, the later check was perhaps not written.
        defer = row is not None and _deferred_since(deps, event, row)
        await republish(deps, state, None if row is None else row.line if defer else 0)
    if await _past_deadline(deps, state, event.reason):
        return
    if event.attempt == 0:
        await reroute(deps, state)
        return
    assert row is not None
    if event.reason in _ASKED_FOR or not _deferred_since(deps, event, row):
        await _act(deps, state, row)


def _only_to_be_asked(deps: HandlerContext, event: Check, remembered: OrderState) -> bool:
    """True when all that follows from this check is a question, also if somebody has moved the order since."""
    row = remembered.attempt(event.attempt)
    return (
        row is not None
        and row.state is S.ACCEPTED
        and row.check_number == event.check_number
        and deps.clock.now() < remembered.order.deadline_at
        and not _deferred_since(deps, event, row)
    )


def _untouched(deps: HandlerContext, event: Check, state: OrderState, row: Attempt | None) -> bool:
    """True when this very check is what the ledger waits for: nothing was decided since it was written."""
    return row is not None and row.next_check_at == event.due_at and deps.clock.now() < state.order.deadline_at


def _deferred_since(deps: HandlerContext, event: Check, row: Attempt) -> bool:
    """True for a copy of a check that was put off: a later one is on its way, and two would become four."""
    return row.next_check_at is not None and event.due_at < row.next_check_at > deps.clock.now()


def _late(deps: HandlerContext, event: Check) -> None:
    late_s = (deps.clock.now() - event.due_at).total_seconds()
    _lateness.observe(late_s)
    if late_s < -_CLOCKS_S:
        _early.inc()


def _number(state: OrderState, attempt: int) -> int | None:
    if attempt == 0:
        return state.order.check_number
    row = state.attempt(attempt)
    return None if row is None else row.check_number


async def _past_deadline(deps: HandlerContext, state: OrderState, reason: str) -> bool:
    """Expire an order that is due to; True when nothing is to be asked any more."""
    order = state.order
    if order.finished_at is not None or deps.clock.now() < order.deadline_at or reason in _ASKED_FOR:
        return False
    await expire(deps, state, "check")
    row_in_flight = any(row.state is S.SENDING for row in state.attempts)
    return not row_in_flight


async def expire(deps: HandlerContext, state: OrderState, actor: str) -> None:
    """Give up asking about an order by itself, and tell; not if a person has given it more time meanwhile."""
    fail = deps.config.checks.on_deadline == "fail"

    def decided(state: OrderState) -> Change | None:
        if (now := deps.clock.now()) < state.order.deadline_at:
            return None
        return deadlines.expired(state, deps.routing, now, fail=fail, actor=actor)

    after = await commit(deps, state, decided)
    await publish(deps, state, after)


async def _act(deps: HandlerContext, state: OrderState, row: Attempt) -> None:
    account = deps.account(row)
    if account is None:
        why = f"integration {row.integration_id} is not configured"
        await defer(deps, state, row.attempt, why, AttentionCode.INTEGRATION_DISABLED)
        return
    match row.state:
        case S.INTENT:
            if state.order.external_status is not ExternalStatus.EXPIRED:
                await place_due(deps, await place(deps, state, row))
        case S.SENDING:
            await _lease_over(deps, state, row)
        case S.UNKNOWN if _may_repeat(deps, state, row, account):
            await place_due(deps, await place(deps, state, row))
        case S.UNKNOWN if account.profile.look_up:
            await ask(deps, state, row, look_up=True)
        case S.UNKNOWN:
            after = await commit(
                deps, state, lambda s: status_answers.on_missing_integration(s, row, deps.routing, deps.clock.now())
            )
            await publish(deps, state, after)
        case S.ACCEPTED | S.COMPLETED | S.FAILED:
            await ask(deps, state, row, look_up=False)
        case S.NOT_SENT | S.REJECTED:
            if row.watch_until is not None:
                await ask(deps, state, row, look_up=True)


def _may_repeat(deps: HandlerContext, state: OrderState, row: Attempt, account: Account) -> bool:
    """True when the way out of this unknown outcome is the same request once more."""
    if state.order.finished_at is not None or state.order.external_status is ExternalStatus.EXPIRED:
        return False
    wanted = bool(row.evidence.get("repeat")) or not account.profile.look_up
    return wanted and transition.may_repeat(deps.routing, row, deps.clock.now())


async def _lease_over(deps: HandlerContext, state: OrderState, row: Attempt) -> None:
    """The database says whether the lease is over; while it is not, the sender still has its turn."""
    account = deps.account(row)
    assert account is not None
    after = await commit(
        deps,
        state,
        lambda s: (
            None
            if _lease_runs(deps, s, row)
            else placement.on_lease_expired(s, row.attempt, deps.routing, account.schedule, deps.clock.now(), "check")
        ),
    )
    if after is state:
        await republish(deps, state, row.line)  # comes back when the lease is over
    else:
        await publish(deps, state, after)


def _lease_runs(deps: HandlerContext, state: OrderState, row: Attempt) -> bool:
    newest = state.attempt(row.attempt)
    return newest is not None and newest.lease_until is not None and newest.lease_until > deps.clock.now()


async def ask(deps: HandlerContext, state: OrderState, row: Attempt, *, look_up: bool) -> OrderState:
    """Put one question to the provider and write down what it taught."""
    account, lane = deps.account(row), deps.lanes.get(row.integration_id)
    assert account is not None
    if lane is None:
        return await defer(deps, state, row.attempt, f"integration {row.integration_id} has no lane")
    in_flight.bind_attempt(row.attempt, row.integration_id)
    question = Ask(row.reference, row.external_order_id, row.delivers_pin, row.quantity, row.wire)
    try:
        answer = await lane.ask(question, look_up=look_up)
    except Busy as busy:
        return await defer(deps, state, row.attempt, busy.why, reserve=busy.reserve)

    def decided(state: OrderState) -> Change | None:
        newest = state.attempt(row.attempt)
        if answer.kind is Seen.NOT_FOUND and (newest is None or newest.check_number != row.check_number):
            return None  # asked before somebody else asked or sent: an absence counts once, and only for what it saw
        if answer.kind is Seen.PENDING and newest is not None and not newest.live and row.live:
            return None  # asked before somebody else saw the end: it does not withdraw it
        return status_answers.on_status_answer(
            state, row.attempt, answer, deps.routing, account.schedule, deps.clock.now()
        )

    after = await commit(deps, state, decided)
    await publish(deps, state, after)
    await account_watch.on_cost(deps, after, row, answer.cost)
    return await place_due(deps, after)
