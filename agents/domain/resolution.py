"""Decides how a line goes on: delivered, refused, sent again, contradicted. Pure."""

from typing import Any

from agents.domain.routing import Waiting
from agents.domain.schedule import Schedule
from agents.domain.transition import OrderTransition, S, closed, delivered
from agents.providers.base import PlacedAnswer, Refusal, Seen, StatusAnswer
from db.rows import Attempt
from streams.order import AttentionCode, ExternalStatus, StatusReason

#: A line is sent again so often when an answer came each time and none of them proved anything; then a person decides.
MOST_RESENDS = 3


def deliver(
    draft: OrderTransition, number: int, fields: dict[str, Any], answer: PlacedAnswer | StatusAnswer, schedule: Schedule
) -> None:
    """The provider says done. What the customer does not have in hand is asked about on, and told to a person."""
    row = draft[number]
    pins = list(answer.pins)
    held = "pin_mismatch" in answer.flags or (row.delivers_pin and not pins)
    units = answer.delivered if answer.delivered is not None else (len(pins) if row.delivers_pin else row.quantity)
    partial = answer.kind is Seen.PARTIAL or units < row.quantity
    if not held and not partial:
        evidence = {name: value for name, value in draft[number].evidence.items() if name != "delivered"}
        draft.move(number, S.COMPLETED, **{**fields, "pins": pins, "evidence": evidence})
        draft.watch(number, schedule)
        line_failed(draft, row)
        return
    if row.state is not S.ACCEPTED:
        draft.move(number, S.ACCEPTED, **fields)
    before = delivered(row)
    evidence = {**draft[number].evidence, "processing": True, "pin_missing": held}
    if not held:
        evidence["delivered"] = units
        draft.progress = units > before
    refunded = answer.refunded
    if refunded is not None:
        evidence["refunded"] = {"amount": str(refunded.amount), "currency": refunded.currency}
    draft.set(number, evidence=evidence, **({"pins": pins} if pins else {}))
    if answer.kind is Seen.PARTIAL:
        draft.set(number, next_check_at=None, check_number=draft[number].check_number + 1)
    else:
        draft.schedule(number, schedule.backoff_s(max(row.checks, 1)))
    if held:
        what = "gave a code that does not look like one" if pins else "gave no PIN"
        message = f"attempt {number}: the provider says completed and {what}"
        draft.raise_attention(AttentionCode.PIN_MISSING, message, discriminator=str(number))
    else:
        message = f"attempt {number}: {units} of {row.quantity} units were delivered"
        draft.raise_attention(AttentionCode.PARTLY_DELIVERED, message, discriminator=f"{number}:{units}")


def refuse(draft: OrderTransition, row: Attempt, answer: PlacedAnswer, schedule: Schedule) -> None:
    """A plain refusal: certainly no order there. Another integration where the profile allows it, else the end.

    A refusal of no table is watched like a settled attempt, and nothing is bought elsewhere because of it.
    """
    reason, message = answer.reason or Refusal.OTHER, answer.message
    if reason is Refusal.PACKAGE:
        draft.raise_attention(
            AttentionCode.NO_MAPPING,
            f"{row.integration_id} refuses the mapping of this package: {message}",
            discriminator=row.integration_id,
        )
    if reason is Refusal.ACCESS:
        # The account is locked out: that says nothing about the order, so it waits instead of failing.
        retry_line(draft, row, schedule, message, elsewhere=False)
        return
    if not answer.listed:
        draft.watch(row.attempt, schedule)
        line_failed(draft, row)
        return
    account = draft.routing.accounts.get(row.integration_id)
    tried = frozenset(r.integration_id for r in draft.attempts.values() if r.line == row.line and r.state is S.REJECTED)
    if account is not None and reason in account.profile.fallback_on and not closed(draft.order):
        found = draft.routing.following(draft.order, row, skip=tried)
        if not isinstance(found, Waiting):
            draft.step("fallback", row.attempt, integration=found[0].integration_id, refusal=reason.value)
            draft.watch(row.attempt, schedule)  # a late success of the refused one must not go unnoticed
            draft.add(found)
            return
    line_failed(draft, row)


def retry_line(
    draft: OrderTransition, row: Attempt, schedule: Schedule, message: str, *, elsewhere: bool = True
) -> None:
    """Nothing was bought: the other integration at once, or the next round after a growing delay."""
    if draft.order.external_status is ExternalStatus.EXPIRED:
        draft.block(Waiting(AttentionCode.EXPIRED, "nothing was bought, and the deadline has passed"))
        return
    if closed(draft.order):
        return
    mine = sorted((r for r in draft.attempts.values() if r.line == row.line), key=lambda r: r.attempt)
    refused_at = frozenset(r.integration_id for r in mine if r.state is S.REJECTED and r.refusal != Refusal.ACCESS)
    in_vain = 0
    for r in reversed(mine):
        if r.state is not S.NOT_SENT and r.refusal != Refusal.ACCESS:
            break
        in_vain += 1
    if sum(r.refusal == Refusal.ACCESS or "answered" in r.evidence for r in mine) >= MOST_RESENDS:
        what = f"{row.integration_id} was asked {len(mine)} times and never took it: {message}"
        draft.block(Waiting(AttentionCode.REFUSED_REPEATEDLY, what))
        return
    found: list[Attempt] | Waiting | None = None
    if elsewhere and in_vain == 1:
        found = draft.routing.following(draft.order, row, skip=refused_at | {row.integration_id})
    delay_s = 0.0
    if found is None or isinstance(found, Waiting):
        found = draft.routing.following(draft.order, row, skip=refused_at)
        delay_s = max(schedule.requeue_s, schedule.backoff_s(in_vain))
    if isinstance(found, Waiting):
        draft.block(found)
        return
    draft.step("again", row.attempt, integration=found[0].integration_id, after_s=delay_s, message=message)
    draft.add(found, delay_s)


def line_failed(draft: OrderTransition, row: Attempt) -> None:
    """Some units delivered and the rest refused: neither approved nor rejected, a person decides."""
    newest = draft.newest()
    done = sum(r.state is S.COMPLETED for r in newest)
    open_ = sum(r.live for r in newest)
    if len(newest) > 1 and 0 < done < len(newest) and not open_:
        draft.block(Waiting(AttentionCode.PARTLY_DELIVERED, f"{done} of {len(newest)} units were delivered"))


def contradict(draft: OrderTransition, row: Attempt, what: str) -> None:
    others = [r for r in draft.attempts.values() if r.attempt != row.attempt and (r.live or r.state is S.COMPLETED)]
    also = f"; attempt {others[-1].attempt} at {others[-1].integration_id} is {others[-1].state}" if others else ""
    message = f"attempt {row.attempt} at {row.integration_id} was settled as {row.state}, but {what}{also}"
    known = len(draft.order.raised)
    draft.raise_attention(AttentionCode.REVERSAL, message, discriminator=f"{row.attempt}:{what}")
    if len(draft.order.raised) > known:
        draft.set_status(draft.order.external_status, StatusReason.REVERSAL, message, row.attempt)


def learned(row: Attempt, answer: PlacedAnswer | StatusAnswer) -> dict[str, Any]:
    """What an answer tells about an attempt; known values are never overwritten by missing ones."""
    fields: dict[str, Any] = {}
    if answer.external_id:
        fields["external_order_id"] = answer.external_id
    if answer.cost is not None:
        fields |= {"cost_amount": answer.cost.amount, "cost_currency": answer.cost.currency}
    balance = getattr(answer, "balance", None)
    if balance is not None:
        fields |= {"balance_amount": balance.amount, "balance_currency": balance.currency}
    if answer.message:
        fields["message"] = answer.message
    return fields
