"""What a ledger that went back in time learns of one order from the log. Pure: row and records in, one change out.

Every attempt that may have been sent becomes unknown, to be looked up by its reference before anything is sent. What a
lost ledger has published as final stays final: it was committed before it was published.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from agents.domain.routing import Routing, Waiting, facts_of
from agents.domain.transition import OrderTransition, may_have_been_sent, schedule_look_up
from db.rows import Attempt, Change, Order, OrderState
from streams.events import Created, Referenced, StatusChanged
from streams.order import LIVE, TERMINAL, AttemptState, AttentionCode, ExternalStatus, Status, StatusReason

S = AttemptState


@dataclass(slots=True)
class Facts:
    """What the log says about one order: the newest status, each reference, and the numbers of its checks."""

    created: Created | None = None
    status: StatusChanged | None = None
    referenced: dict[int, Referenced] = field(default_factory=dict)
    #: attempt -> highest number of a check.
    checks: dict[int, int] = field(default_factory=dict)

    @property
    def known(self) -> int:
        """The highest attempt that the log speaks of."""
        named = self.status.attempt if self.status is not None and self.status.attempt is not None else 0
        return max(named, *self.referenced, *self.checks, 0)

    @property
    def speaks_of_attempts(self) -> bool:
        """True when the order got as far as an attempt."""
        return self.known > 0


def unopened(created: Created, now: datetime, deadline_s: float) -> OrderState:
    """An order that the ledger forgot, before anything is known about it."""
    request = msgspec.to_builtins(created, builtin_types=(), str_keys=True)
    order = Order(
        tenant_id=created.tenant_id,
        order_id=created.order_id,
        fingerprint=created.fingerprint(),
        request=request,
        accepted_at=now,
        deadline_at=now + timedelta(seconds=deadline_s),
    )
    return OrderState(order, [])


def reconciled(state: OrderState, facts: Facts, routing: Routing, now: datetime) -> Change:
    """What to write about an order that is not final in the ledger; see ``unopened`` for one that it forgot."""
    order: Order = msgspec.structs.replace(state.order)
    quantity = int(order.request.get("quantity", 1))
    final = _follow_status(order, facts.status)
    if not final:
        known = max(order.attempts, facts.known)
        order.look_up_to = may_have_been_sent(max(order.lines, quantity), known)
    draft = OrderTransition(OrderState(order, list(state.attempts)), routing, now, "recover")
    draft.step("recovered", None, known=facts.known, version=facts.status.version if facts.status else None)
    _add_first(draft, facts)
    _add_later(draft, facts)
    if final:
        _settle(draft, facts)
    else:
        _doubt(draft, facts)
    return draft.change(StatusReason.ROUTING)


def _follow_status(order: Order, status: StatusChanged | None) -> bool:
    """Take over a status that the ledger has lost; True when it is final."""
    if status is None or status.version <= order.version:
        return False
    order.version = status.version
    order.status, order.external_status = Status(status.status), ExternalStatus(status.external_status)
    order.last_event = msgspec.to_builtins(status, builtin_types=(), str_keys=True)
    order.last_event_at = status.occurred_at
    if order.external_status not in TERMINAL:
        return False
    order.finished_at = status.occurred_at
    order.waiting, order.waiting_since, order.next_check_at, order.look_up_to = None, None, None, 0
    return True


def _add_first(draft: OrderTransition, facts: Facts) -> None:
    """The first attempt of each line, where the ledger has none."""
    if draft.attempts or (draft.order.external_status in TERMINAL and not facts.referenced):
        return
    of = facts_of(draft.order)
    first = min(facts.referenced, default=0)
    at = facts.referenced[first].integration_id if first and first <= of.quantity else None
    found = draft.routing.first(of) if at is None else draft.routing.first_at(at, of)
    if isinstance(found, Waiting):
        found = [] if facts.referenced else found
    if isinstance(found, Waiting):
        draft.block(found)
        return
    for row in found:
        _insert(draft, row)


def _add_later(draft: OrderTransition, facts: Facts) -> None:
    """Attempts that the log speaks of and the ledger does not know. What came before them on their line had ended."""
    for number, told in sorted(facts.referenced.items()):
        row = draft.attempts.get(number)
        if row is None or row.reference != told.provider_referans:
            row = _row(draft, told)
            for older in list(draft.attempts.values()):
                if older.line == row.line and older.attempt != number and older.state in LIVE:
                    _superseded(draft, older)
            _insert(draft, row)
        if row.external_order_id is None and row.state in LIVE:
            draft.set(number, external_order_id=told.external_order_id, sent_at=row.sent_at or told.sent_at)


def _row(draft: OrderTransition, told: Referenced) -> Attempt:
    """An attempt as it must have been: the reference is known, the rest follows from order and configuration."""
    made = draft.routing.first_at(told.integration_id, facts_of(draft.order))
    like = None if isinstance(made, Waiting) else made[0]
    settled = [row.line for row in draft.newest() if row.attempt not in draft.changed and row.state not in LIVE]
    return Attempt(
        attempt=told.attempt,
        state=S.UNKNOWN,
        integration_id=told.integration_id,
        provider=told.provider,
        reference=told.provider_referans,
        wire=like.wire if like else {},
        line=settled[0] if settled else 1,
        quantity=like.quantity if like else 1,
        delivers_pin=bool(like and like.delivers_pin),
        external_order_id=told.external_order_id,
        sent_at=told.sent_at,
    )


def _insert(draft: OrderTransition, row: Attempt) -> None:
    draft.attempts[row.attempt] = row
    draft.changed.add(row.attempt)
    draft.order.attempts = max(draft.order.attempts, row.attempt)
    draft.order.lines = max(draft.order.lines, row.line)
    draft.order.waiting, draft.order.waiting_since, draft.order.next_check_at = None, None, None


def _superseded(draft: OrderTransition, row: Attempt) -> None:
    """A line has one live attempt at a time: as a later one was sent, this one had ended without an order."""
    ended = S.FAILED if row.state is S.ACCEPTED else S.NOT_SENT
    draft.set(
        row.attempt,
        state=ended,
        lease_token=None,
        lease_until=None,
        settled_at=draft.now,
        next_check_at=None,
        check_number=row.check_number + 1,
        message="a later attempt of this line was sent",
    )
    draft.step("superseded", row.attempt)


def _doubt(draft: OrderTransition, facts: Facts) -> None:
    for row in list(draft.attempts.values()):
        if row.state not in (S.INTENT, S.SENDING, S.UNKNOWN):
            continue
        draft.doubt(row.attempt)
        draft.set(row.attempt, check_number=max(row.check_number, facts.checks.get(row.attempt, 0)))
        schedule_look_up(draft, row.attempt, 0.0)
        draft.step("doubted", row.attempt, reference=row.reference, integration=row.integration_id)


def _settle(draft: OrderTransition, facts: Facts) -> None:
    """The lost ledger had published the end: its attempts ended as the order did."""
    status = facts.status
    assert status is not None
    completed = status.external_status == ExternalStatus.COMPLETED
    pins = list(status.pins or ())
    for row in list(draft.attempts.values()):
        if row.state not in LIVE:
            continue
        done = completed and all(other.line != row.line or other.attempt <= row.attempt for other in draft.newest())
        draft.set(
            row.attempt,
            state=S.COMPLETED if done else S.FAILED if row.attempt in facts.referenced else S.NOT_SENT,
            lease_token=None,
            lease_until=None,
            settled_at=status.occurred_at,
            next_check_at=None,
            check_number=row.check_number + 1,
            pins=pins if done else [],
        )
        if done:
            pins = []


def without_created(facts: Facts) -> str:
    """What a person has to know about an order of which the log holds no order any more."""
    told = [
        f"attempt {number} at {sent.integration_id} under reference {sent.provider_referans}"
        for number, sent in facts.referenced.items()
    ]
    ended = f"; its status was {facts.status.external_status}" if facts.status is not None else ""
    return "the log speaks of this order, but the order itself is no longer there: " + ", ".join(told) + ended


ATTENTION = AttentionCode.LEDGER_BEHIND
