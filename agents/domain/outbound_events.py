"""The events that follow from what the ledger says. Pure.

The same rows give the same events with the same ids, whether they are told for the first time or again after a crash.
"""

from collections.abc import Callable
from datetime import datetime

import msgspec

from agents.domain.transition import PLACED
from db.rows import Attempt, Change, Order, OrderState
from streams.events import Amount, Attention, Check, Referenced, StatusChanged
from streams.kafka.producer import Outgoing, message
from streams.order import AttemptState, CheckReason, ExternalStatus

S = AttemptState

#: (seconds until due) -> logical topic: ``orders.check`` when due, else the tier that is long enough.
TierOf = Callable[[float], str]


def after(state: OrderState, change: Change) -> OrderState:
    """The order as it stands once ``change`` is stored."""
    changed = {row.attempt: row for row in change.attempts}
    kept = [changed.pop(row.attempt, row) for row in state.attempts]
    return OrderState(change.order, [*kept, *(changed[number] for number in sorted(changed))])


def events_between(before: OrderState, now: OrderState, tier_of: TierOf, at: datetime) -> list[Outgoing]:
    """What became true between two states. Attempts that the caller sends itself need no wake-up."""
    known = {row.attempt: row for row in before.attempts}
    told: list[Outgoing] = []
    for row in now.attempts:
        old = known.get(row.attempt)
        if row.state in PLACED and (old is None or old.state not in PLACED or _facts(row) != _facts(old)):
            told.append(_referenced(now.order, row))
    old_raised = {(r.code, r.discriminator) for r in before.order.raised}
    told += _attention(now.order, lambda code, which: (code, which) not in old_raised)
    if now.order.version > before.order.version:
        told.append(_status(now.order))  # last of what nobody waits for: the sweep says all again when this is missing
    for row in now.attempts:
        old = known.get(row.attempt)
        moved = old is None or (row.check_number, row.next_check_at) != (old.check_number, old.next_check_at)
        if moved and row.state is not S.SENDING and not due_intent(row, at):
            told += _check(now.order, row, tier_of, at)
    if (now.order.check_number, now.order.next_check_at) != (before.order.check_number, before.order.next_check_at):
        told += _dispatch(now.order, tier_of, at)
    return told


def all_events(state: OrderState, tier_of: TierOf, at: datetime, line: int | None = None) -> list[Outgoing]:
    """All that must have been said about this order, once more: for a redelivered event.

    With ``line`` only the checks of that line (0: none), so that the repeat of one check wakes one line at most.
    """
    order = state.order
    told = [_referenced(order, row) for row in state.attempts if row.state in PLACED]
    told += _attention(order, lambda code, which: True)
    if order.last_event is not None:
        told.append(_status(order))
    for row in state.attempts:
        if line is None or row.line == line:
            told += _check(order, row, tier_of, at)
    return [*told, *_dispatch(order, tier_of, at)]


def due_intent(row: Attempt, at: datetime) -> bool:
    """True for an attempt that may be sent right now."""
    return row.state is S.INTENT and (row.next_check_at is None or row.next_check_at <= at)


def _facts(row: Attempt) -> tuple[object, ...]:
    """What a reference event says besides the reference."""
    return (row.external_order_id, row.cost_amount, row.cost_currency)


def _referenced(order: Order, row: Attempt) -> Outgoing:
    event = Referenced(
        order_id=order.order_id,
        tenant_id=order.tenant_id,
        attempt=row.attempt,
        integration_id=row.integration_id,
        provider=row.provider,
        provider_referans=row.reference,
        external_status=ExternalStatus.SENT.value,
        sent_at=row.sent_at or order.accepted_at,
        external_order_id=row.external_order_id,
        cost=_amount(row.cost_amount, row.cost_currency),
        provider_balance=_amount(row.balance_amount, row.balance_currency),
    )
    return message(event, "orders.referenced", at=event.sent_at)


def _status(order: Order) -> Outgoing:
    event = msgspec.convert(order.last_event, StatusChanged)
    return message(event, "orders.status-changed", at=event.occurred_at)


def _check(order: Order, row: Attempt, tier_of: TierOf, at: datetime) -> list[Outgoing]:
    if row.next_check_at is None:
        return []
    return [_due(order, row.attempt, row.check_number, row.next_check_at, _reason(row), tier_of, at)]


def _dispatch(order: Order, tier_of: TierOf, at: datetime) -> list[Outgoing]:
    if order.next_check_at is None:
        return []
    return [_due(order, 0, order.check_number, order.next_check_at, CheckReason.DISPATCH, tier_of, at)]


def _due(
    order: Order, attempt: int, number: int, due_at: datetime, reason: CheckReason, tier_of: TierOf, at: datetime
) -> Outgoing:
    event = Check(
        order_id=order.order_id,
        tenant_id=order.tenant_id,
        attempt=attempt,
        check_number=number,
        due_at=due_at,
        reason=reason.value,
    )
    return message(event, tier_of((due_at - at).total_seconds()), at=at)


def _reason(row: Attempt) -> CheckReason:
    if row.state is S.INTENT:
        return CheckReason.DISPATCH
    if row.state in (S.SENDING, S.UNKNOWN):
        return CheckReason.RECONCILE
    return CheckReason.BACKOFF if row.checks else CheckReason.FIRST


def _attention(order: Order, wanted: Callable[[str, str], bool]) -> list[Outgoing]:
    return [
        message(
            Attention(
                code=r.code,
                message=r.message,
                since=r.since,
                order_id=order.order_id,
                tenant_id=order.tenant_id,
                discriminator=r.discriminator,
            ),
            "orders.attention",
            at=r.since,
        )
        for r in order.raised
        if wanted(r.code, r.discriminator)
    ]


def _amount(amount: object, currency: str | None) -> Amount | None:
    return (
        None
        if amount is None or currency is None
        else msgspec.convert({"amount": str(amount), "currency": currency}, Amount)
    )
