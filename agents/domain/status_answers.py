"""Decides what the answer to a status question or a look-up means. Pure."""

from datetime import datetime
from typing import Any

from agents.domain.resolution import contradict, deliver, learned, line_failed, retry_line
from agents.domain.routing import Routing
from agents.domain.schedule import Schedule
from agents.domain.transition import OrderTransition, S, closed, may_repeat, schedule_look_up
from agents.providers.base import Seen, StatusAnswer
from db.rows import Attempt, Change, OrderState
from streams.order import AttentionCode, StatusReason


def on_missing_integration(state: OrderState, row: Attempt, routing: Routing, now: datetime) -> Change | None:
    """An unknown outcome that can no longer be found out, because the time for a repeat is over: tell a person."""
    if state.attempt(row.attempt) != row:
        return None
    draft = OrderTransition(state, routing, now, "check")
    schedule_look_up(draft, row.attempt, 0.0)
    return draft.change(StatusReason.PROVIDER)


def on_status_answer(
    state: OrderState,
    number: int,
    answer: StatusAnswer,
    routing: Routing,
    schedule: Schedule,
    now: datetime,
    actor: str = "check",
) -> Change | None:
    """What the answer to a status question or look-up means."""
    row = state.attempt(number)
    if row is None or row.state in (S.INTENT, S.SENDING):
        return None
    draft = OrderTransition(state, routing, now, actor)
    draft.set(number, checks=row.checks + 1, evidence=_evidence(row, answer, now))
    settled = row.state not in (S.ACCEPTED, S.UNKNOWN)
    if answer.kind is not Seen.PENDING or settled or not row.evidence.get("processing"):
        draft.step(
            "checked",
            number,
            outcome=answer.kind.value,
            message=answer.message,
            check=row.check_number,
            flags=list(answer.flags),
            raw=answer.raw,
        )
    if answer.kind is Seen.UNRECOGNISED:
        draft.raise_attention(
            AttentionCode.UNRECOGNISED_ANSWER,
            f"attempt {number}: the provider's word is not known",
            discriminator=str(number),
        )
    if row.state is S.ACCEPTED:
        _seen_accepted(draft, draft[number], answer, schedule)
    elif row.state is S.UNKNOWN:
        _seen_unknown(draft, draft[number], answer, schedule)
    else:
        _seen_settled(draft, draft[number], answer, schedule)
    return draft.change(StatusReason.PROVIDER, answer.message, number)


def _seen_accepted(draft: OrderTransition, row: Attempt, answer: StatusAnswer, schedule: Schedule) -> None:
    if answer.kind in (Seen.SUCCEEDED, Seen.PARTIAL):
        deliver(draft, row.attempt, learned(row, answer), answer, schedule)
    elif answer.kind is Seen.FAILED:
        draft.move(row.attempt, S.FAILED, **learned(row, answer))
        draft.watch(row.attempt, schedule)
        line_failed(draft, row)
    else:
        if answer.kind is Seen.NOT_FOUND or "negative" in answer.flags:
            message = f"attempt {row.attempt}: {row.integration_id} accepted it and does not know it any more"
            draft.raise_attention(AttentionCode.UNRECOGNISED_ANSWER, message, discriminator=f"{row.attempt}:forgotten")
        if answer.kind is Seen.PENDING:
            draft.set(row.attempt, evidence={**row.evidence, "processing": True}, **learned(row, answer))
        draft.schedule(row.attempt, schedule.retry_after_s(answer.retry_after_s, schedule.backoff_s(row.checks)))


def _seen_unknown(draft: OrderTransition, row: Attempt, answer: StatusAnswer, schedule: Schedule) -> None:
    match answer.kind:
        case Seen.PENDING:
            draft.move(row.attempt, S.ACCEPTED, **learned(row, answer), evidence={**row.evidence, "processing": True})
            draft.schedule(row.attempt, schedule.backoff_s(1))
        case Seen.SUCCEEDED | Seen.PARTIAL:
            deliver(draft, row.attempt, learned(row, answer), answer, schedule)
        case Seen.FAILED:
            draft.move(row.attempt, S.FAILED, **learned(row, answer))
            draft.watch(row.attempt, schedule)
            line_failed(draft, row)
        case Seen.NOT_FOUND:
            _absent(draft, row, schedule)
        case Seen.QUERY_ERROR | Seen.UNRECOGNISED:
            schedule_look_up(
                draft, row.attempt, schedule.retry_after_s(answer.retry_after_s, schedule.backoff_s(row.checks))
            )


def _absent(draft: OrderTransition, row: Attempt, schedule: Schedule) -> None:
    """One more consistent not-found answer; enough of them, late enough and over long enough, prove absence."""
    account = draft.routing.accounts.get(row.integration_id)
    wait_s = schedule.backoff_s(row.checks)
    if account is None:
        schedule_look_up(draft, row.attempt, wait_s)
        return
    profile = account.profile
    sent_at = last_sent_at(row)
    if sent_at is not None and (draft.now - sent_at).total_seconds() < profile.absent_settle_s:
        schedule_look_up(draft, row.attempt, wait_s)
        return
    since = row.absent_since or draft.now
    answers = row.absent_answers + 1
    draft.set(row.attempt, absent_answers=answers, absent_since=since)
    over_s = (draft.now - since).total_seconds()
    if answers < profile.absent_answers or over_s < profile.absent_window_s:
        schedule_look_up(draft, row.attempt, wait_s)
        return
    draft.step("proven_absent", row.attempt, answers=answers, over_s=round(over_s))
    if may_repeat(draft.routing, row, draft.now) and not closed(draft.order):
        # Stays unknown: the same bytes go out again, and the provider buys once whatever happened before.
        draft.set(row.attempt, evidence={**row.evidence, "repeat": True})
        draft.schedule(row.attempt, 0.0)
        return
    draft.move(row.attempt, S.NOT_SENT, message="looked up: the provider does not have it")
    draft.watch(row.attempt, schedule)
    retry_line(draft, row, schedule, "looked up: the provider does not have it")


def last_sent_at(row: Attempt) -> datetime | None:
    again = row.evidence.get("sent_again_at")
    return datetime.fromisoformat(again) if again else row.sent_at


def _seen_settled(draft: OrderTransition, row: Attempt, answer: StatusAnswer, schedule: Schedule) -> None:
    """The watch after the end: contrary evidence raises attention and settles nothing."""
    draft.set(row.attempt, next_check_at=None, check_number=row.check_number + 1)
    contrary = {
        S.COMPLETED: {Seen.FAILED, Seen.PENDING, Seen.PARTIAL},
        S.FAILED: {Seen.SUCCEEDED},
        S.NOT_SENT: {Seen.SUCCEEDED, Seen.PENDING},
        S.REJECTED: {Seen.SUCCEEDED, Seen.PENDING},
    }
    if answer.kind in contrary.get(row.state, set()):
        contradict(draft, row, f"the provider now says {answer.kind.value}")
    draft.watch(row.attempt, schedule)


def _evidence(row: Attempt, answer: StatusAnswer, now: datetime) -> dict[str, Any]:
    last = {"at": now.isoformat(), "kind": answer.kind.value, "message": answer.message, "raw": answer.raw}
    return {**row.evidence, "last_check": last}
