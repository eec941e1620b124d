"""Decides what is sent, under which lease, and what the answer to a placement means. Pure."""

from datetime import datetime, timedelta
from typing import NamedTuple

from agents.domain.resolution import contradict, deliver, learned, line_failed, refuse, retry_line
from agents.domain.routing import Routing, Waiting
from agents.domain.schedule import Schedule
from agents.domain.transition import MOST_SENDS, PLACED, OrderTransition, S, closed, may_repeat, schedule_look_up
from agents.providers.base import Money, Placed, PlacedAnswer, Refusal
from db.rows import Attempt, Change, Order, OrderState
from streams.order import AttentionCode, StatusReason


class Lease(NamedTuple):
    """Who takes an attempt to send it, and for how many seconds."""

    token: str
    for_s: float


def open_order(
    order: Order, routing: Routing, found: list[Attempt] | Waiting, now: datetime, lease: Lease | None = None
) -> Change:
    """A new order: written down together with its first attempts, or with the reason why it waits.

    With ``lease`` the first attempt is ``sending`` from the start: its request may leave after this commit.
    """
    draft = OrderTransition(OrderState(order, []), routing, now, "dispatch")
    draft.step(
        "accepted",
        package=order.request["package_id"],
        quantity=order.request.get("quantity", 1),
        tenant=order.tenant_id,
    )
    _route(draft, found)
    if lease is None or isinstance(found, Waiting):
        return draft.change(StatusReason.ROUTING)
    return _leased(draft, found[0].attempt, lease)


def reroute(state: OrderState, routing: Routing, found: list[Attempt] | Waiting, now: datetime) -> Change:
    """An order that waited for its route, asked again."""
    draft = OrderTransition(state, routing, now, "dispatch")
    _route(draft, found)
    return draft.change(StatusReason.ROUTING)


def _route(draft: OrderTransition, found: list[Attempt] | Waiting) -> None:
    if isinstance(found, Waiting):
        draft.step("not_routed", code=found.code.value, message=found.message)
        draft.block(found)
        return
    draft.step("routed", integration=found[0].integration_id, lines=len(found))
    draft.add(found)


def start_sending(state: OrderState, number: int, routing: Routing, now: datetime, lease: Lease) -> Change | None:
    """Take the lease: after this commit, and only then, the request may leave. None when it must not."""
    row = state.attempt(number)
    if row is None or closed(state.order):
        return None
    if row.state is not S.INTENT and not (row.state is S.UNKNOWN and may_repeat(routing, row, now)):
        return None
    return _leased(OrderTransition(state, routing, now, "dispatch"), number, lease)


def _leased(draft: OrderTransition, number: int, lease: Lease) -> Change:
    row = draft[number]
    evidence = {key: value for key, value in row.evidence.items() if key not in ("repeat", "repeated", "lane", "turn")}
    if row.state is S.UNKNOWN:
        evidence |= {"repeated": True, "unproven": not row.evidence.get("repeat")}
    if row.sends:
        evidence["sent_again_at"] = draft.now.isoformat()
    draft.move(
        number,
        S.SENDING,
        lease_token=lease.token,
        sends=row.sends + 1,
        sent_at=row.sent_at or draft.now,
        evidence=evidence,
        check_number=row.check_number + 1,
        absent_answers=0,
        absent_since=None,
    )
    draft.step(
        "sending",
        number,
        integration=row.integration_id,
        reference=row.reference,
        send=row.sends + 1,
        lease_s=lease.for_s,
    )
    return draft.change(StatusReason.ROUTING, lease=(number, lease.for_s))


def defer(
    state: OrderState,
    number: int,
    routing: Routing,
    now: datetime,
    delay_s: float,
    why: str,
    code: AttentionCode | None = None,
    turn: datetime | None = None,
) -> Change | None:
    """The lane is full, open or gone: the same question again after ``delay_s``, its number unchanged.

    With ``code`` a person is told, once per attempt. ``turn`` is when the lane expects to have a place for it.
    """
    row = state.attempt(number)
    if row is None or row.state is S.SENDING:
        return None  # a lease has its own end
    draft = OrderTransition(state, routing, now, "dispatch")
    evidence = {**row.evidence, "lane": why} | ({"turn": turn.isoformat()} if turn is not None else {})
    draft.set(number, next_check_at=now + timedelta(seconds=delay_s), evidence=evidence)
    if code is not None:
        draft.raise_attention(code, why, discriminator=f"{number}:{row.integration_id}")
    return draft.change(StatusReason.ROUTING)


def on_placement_answer(
    state: OrderState,
    number: int,
    token: str,
    answer: PlacedAnswer,
    routing: Routing,
    schedule: Schedule,
    now: datetime,
) -> Change | None:
    """What the answer to a placement means."""
    row = state.attempt(number)
    assert row is not None
    if row.state is not S.SENDING or row.lease_token != token:
        return _late(state, row, answer, routing, schedule, now)
    draft = OrderTransition(state, routing, now, "dispatch")
    draft.step(
        "answered",
        number,
        outcome=answer.kind.value,
        reason=answer.reason and answer.reason.value,
        message=answer.message,
        external_id=answer.external_id,
        cost=_money_text(answer.cost),
        balance=_money_text(answer.balance),
        flags=list(answer.flags),
        raw=answer.raw,
    )
    fields = learned(row, answer)
    again_s = schedule.requeue_s if row.sends <= 1 else max(schedule.requeue_s, schedule.backoff_s(row.sends - 1))
    match answer.kind:
        case Placed.REJECTED | Placed.NOT_SENT | Placed.RETRY_LATER if row.evidence.get("unproven"):
            # This request bought nothing; the one before it, whose outcome is unknown, still may have.
            draft.move(number, S.UNKNOWN, **fields)
            schedule_look_up(draft, number, schedule.retry_after_s(answer.retry_after_s, again_s))
        case Placed.ACCEPTED:
            draft.move(number, S.ACCEPTED, **fields)
            draft.schedule(number, schedule.first_after_s)
        case Placed.COMPLETED:
            deliver(draft, number, fields, answer, schedule)
        case Placed.REFUSED_AFTER_ACCEPT:
            draft.move(number, S.FAILED, **fields)
            draft.watch(number, schedule)
            line_failed(draft, row)
            return draft.change(StatusReason.REFUSED, answer.message, number)
        case Placed.REJECTED if not answer.listed and row.sends > 1:
            # A repeat that is refused in words of no table: the send before it may be what it is refused for.
            draft.move(number, S.UNKNOWN, **fields)
            schedule_look_up(draft, number, again_s)
        case Placed.REJECTED:
            draft.move(number, S.REJECTED, refusal=(answer.reason or Refusal.OTHER).value, **fields)
            refuse(draft, draft[number], answer, schedule)
            return draft.change(StatusReason.REFUSED, answer.message, number)
        case Placed.NOT_SENT | Placed.RETRY_LATER if answer.kind is Placed.NOT_SENT or closed(draft.order):
            draft.move(number, S.NOT_SENT, **fields)
            retry_line(draft, row, schedule, answer.message)
        case Placed.RETRY_LATER:
            draft.move(number, S.INTENT, **fields)
            draft.schedule(number, schedule.retry_after_s(answer.retry_after_s, again_s))
            if row.sends >= MOST_SENDS:
                message = f"attempt {number}: {row.integration_id} puts it off each time: {answer.message}"
                draft.raise_attention(AttentionCode.REFUSED_REPEATEDLY, message, discriminator=str(number))
        case Placed.DUPLICATE | Placed.AMBIGUOUS:
            if "network" not in answer.flags:
                fields["evidence"] = {**draft[number].evidence, "answered": answer.message or answer.kind.value}
            draft.move(number, S.UNKNOWN, **fields)
            schedule_look_up(draft, number, again_s)
    return draft.change(StatusReason.PROVIDER, answer.message, number)


def _late(
    state: OrderState, row: Attempt, answer: PlacedAnswer, routing: Routing, schedule: Schedule, now: datetime
) -> Change | None:
    """An answer that comes after its lease was lost: kept as evidence, and a success is never thrown away."""
    late = {"at": now.isoformat(), "kind": answer.kind.value, "external_id": answer.external_id, "raw": answer.raw}
    bought = answer.kind in (Placed.ACCEPTED, Placed.COMPLETED)
    told = row.evidence.get("late", {}).get("kind") == answer.kind.value
    if told or (row.state in PLACED and bought):
        return None
    draft = OrderTransition(state, routing, now, "dispatch")
    draft.set(row.attempt, evidence={**row.evidence, "late": late})
    draft.step("late_answer", row.attempt, outcome=answer.kind.value, message=answer.message, raw=answer.raw)
    if bought and row.state is S.UNKNOWN:
        fields = learned(draft[row.attempt], answer)
        if answer.kind is Placed.COMPLETED:
            deliver(draft, row.attempt, fields, answer, schedule)
        else:
            draft.move(row.attempt, S.ACCEPTED, **fields)
            draft.schedule(row.attempt, schedule.first_after_s)
    elif bought:
        contradict(draft, row, f"bought after all ({answer.kind.value})")
    return draft.change(StatusReason.PROVIDER, answer.message, row.attempt)


def on_lease_expired(
    state: OrderState, number: int, routing: Routing, schedule: Schedule, now: datetime, actor: str
) -> Change | None:
    """A sender that never came back: its attempt may or may not have been bought. The database checks the lease."""
    row = state.attempt(number)
    if row is None or row.state is not S.SENDING:
        return None
    draft = OrderTransition(state, routing, now, actor)
    draft.move(number, S.UNKNOWN, evidence={**row.evidence, "lease_over": now.isoformat()})
    draft.step("lease_over", number, lease_until=row.lease_until and row.lease_until.isoformat())
    schedule_look_up(draft, number, schedule.requeue_s)
    return draft.change(StatusReason.PROVIDER, "", number, only_expired=number)


def _money_text(money: Money | None) -> str | None:
    return None if money is None else f"{money.amount} {money.currency}"
