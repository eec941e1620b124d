"""What one order is waiting for, in plain words: a pure function over what the ledger and the log say.

Nothing is guessed: where the facts are missing, the words say so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from db.queries import Snapshot
from db.rows import Attempt, Order
from orderwatch.evidence import flags, proof
from orderwatch.wording import count, duration
from streams.order import AttemptState, AttentionCode, ExternalStatus, StatusReason

ENGINE = "the engine"
PROVIDER = "the provider"
OPERATOR = "an operator"
SHOP = "the shop"
NOBODY = "nobody"

#: A check this much past its time is called overdue; until then it is on its way through the topics.
OVERDUE_S = 60


@dataclass(frozen=True, slots=True)
class Explanation:
    """One screen. ``known`` is False when nobody ever heard of the order; ``when`` is None when no time is set."""

    headline: str
    since: datetime | None
    next: str
    when: datetime | None
    actor: str
    evidence: tuple[str, ...] = ()
    known: bool = True


def explain(state: Snapshot, now: datetime) -> Explanation:
    """What the order waits for, since when, what happens next and when, who must act, and the evidence."""
    evidence = tuple(proof(state, now))
    order = state.order
    if order is None:
        return _never_accepted(state, evidence)
    live = [attempt for attempt in state.attempts if attempt.live]
    if order.finished_at is not None:
        return _finished(state, order, evidence)
    if order.external_status is ExternalStatus.EXPIRED:
        return _expired(order, live, evidence)
    if live:
        return _live(state, order, _most_urgent(live), now, evidence)
    if order.waiting is not None:
        return _waiting(order, order.waiting, now, evidence)
    return _between_attempts(state, order, now, evidence)


def _never_accepted(state: Snapshot, evidence: tuple[str, ...]) -> Explanation:
    if not state.dead_letters:
        return Explanation(
            headline=f"No order {state.order_id} of tenant {state.tenant_id} is known",
            since=None,
            next="nothing: no event of this order was ever accepted. Check the spelling of tenant and order, then"
                 " whether the shop's event is in orders.created (`orderwatch tail orders.created`) and a worker runs",
            when=None,
            actor=SHOP,
            evidence=evidence,
            known=False,
        )
    letter = state.dead_letters[-1]
    if letter["replayed_at"] is not None:
        return Explanation(
            headline=f"Not accepted yet: its event was a dead letter ({letter['reason']}) and was sent again",
            since=letter["replayed_at"],
            next="dispatch reads it, and accepts it or sets it aside again",
            when=None,
            actor=ENGINE,
            evidence=evidence,
        )
    return Explanation(
        headline=f"Never accepted: its event could not be used ({letter['reason']}) and is in the dead letters",
        since=letter["at"],
        next=f"nothing by itself. See it with `orderwatch dlq show {letter['id']}`; the shop sends a corrected order,"
             f" or after the cause is repaired: `orderwatch dlq replay {letter['id']}`",
        when=None,
        actor=OPERATOR,
        evidence=evidence,
    )


def _finished(state: Snapshot, order: Order, evidence: tuple[str, ...]) -> Explanation:
    completed = order.external_status is ExternalStatus.COMPLETED
    word = "Completed" if completed else f"Failed: {_last_message(state) or 'the provider gave no reason'}"
    if any(row["code"] == AttentionCode.REVERSAL and row["acknowledged_at"] is None for row in state.attention):
        return Explanation(
            headline=f"{word}, but the provider says otherwise since",
            since=order.finished_at,
            next="nothing by itself: a person compares both answers with the provider, settles the money with the shop,"
                 " then acknowledges it with `orderwatch attention ack`",
            when=None,
            actor=OPERATOR,
            evidence=evidence,
        )
    shown = state.view["version"] if state.view is not None else 0
    if shown < order.version:
        return Explanation(
            headline=f"{word}. The ledger knows it; the view of orders does not show it yet"
                     f" (version {shown} of {order.version})",
            since=order.finished_at,
            next="the projection reads the status-changed event; the sweeper says it again when it was lost",
            when=None,
            actor=ENGINE,
            evidence=evidence,
        )
    if completed:
        done = next((a for a in reversed(state.attempts) if a.state is AttemptState.COMPLETED), None)
        by = f" by {done.integration_id} under reference {done.reference}" if done and order.lines <= 1 else ""
        if (order.last_event or {}).get("reason") == StatusReason.OPERATOR:
            by = f" by the word of a person ({_last_message(state)})"
        pins = sum(len(attempt.pins) for attempt in state.attempts)
        return Explanation(
            headline=f"Completed{by}" + (f", {order.lines} lines" if order.lines > 1 else ""),
            since=order.finished_at,
            next=f"nothing. {count(pins, 'PIN')} can be released with `orderwatch order pin`" if pins else "nothing",
            when=None,
            actor=NOBODY,
            evidence=evidence,
        )
    return Explanation(
        headline=word, since=order.finished_at,
        next="nothing here: the buyer's status is rejected, the shop gives the money back",
        when=None, actor=SHOP, evidence=evidence,
    )


def _expired(order: Order, live: Sequence[Attempt], evidence: tuple[str, ...]) -> Explanation:
    number = _most_urgent(live).attempt if live else 0
    return Explanation(
        headline="The deadline has passed without an outcome; the engine stopped asking by itself."
                 " The buyer's money is still held",
        since=order.deadline_at,
        next=f"a person asks once more with `orderwatch order check {order.tenant_id} {order.order_id}`, or settles it"
             f" with {_resolve(order.tenant_id, order.order_id, number)}",
        when=None,
        actor=OPERATOR,
        evidence=evidence,
    )


def _live(state: Snapshot, order: Order, attempt: Attempt, now: datetime, evidence: tuple[str, ...]) -> Explanation:
    explain_one = {
        AttemptState.INTENT: _intent,
        AttemptState.SENDING: _sending,
        AttemptState.ACCEPTED: _accepted,
        AttemptState.UNKNOWN: _unknown,
    }[attempt.state]
    headline, since, then, when, actor = explain_one(state, attempt, now)
    if order.lines > 1:
        done = len({a.line for a in state.attempts if a.state is AttemptState.COMPLETED})
        headline = f"{done} of {order.lines} lines done; line {attempt.line}: {headline}"
    return Explanation(headline, since, then, when, actor, evidence)


_Words = tuple[str, datetime | None, str, datetime | None, str]


def _intent(state: Snapshot, attempt: Attempt, now: datetime) -> _Words:
    since = attempt.created_at
    then = f"the order is sent to {attempt.integration_id}{_lateness(attempt.next_check_at, now)}"
    if attempt.sends:
        said = f" ({attempt.message})" if attempt.message else ""
        return (
            f"{attempt.integration_id} asked to try the same reference later{said}; nothing was bought",
            since, then, attempt.next_check_at, ENGINE,
        )
    if lane := attempt.evidence.get("lane"):
        return (
            f"Waiting for a place in the lane of {attempt.integration_id} ({lane}); nothing was sent",
            since, then, attempt.next_check_at, ENGINE,
        )
    if attempt.next_check_at is not None and attempt.next_check_at > now:
        return (
            f"Attempt {attempt.attempt} at {attempt.integration_id} waits for its time; nothing was sent",
            since, then, attempt.next_check_at, ENGINE,
        )
    return (
        f"Written down, and on its way to {attempt.integration_id}; nothing was sent",
        since, then, attempt.next_check_at, ENGINE,
    )


def _sending(state: Snapshot, attempt: Attempt, now: datetime) -> _Words:
    if attempt.lease_until is not None and attempt.lease_until <= now:
        return (
            f"The sender of attempt {attempt.attempt} did not come back within its lease; the request to"
            f" {attempt.integration_id} may have left",
            attempt.lease_until,
            f"the next check marks it unknown and looks it up by its reference, it is not sent again"
            f"{_lateness(attempt.next_check_at, now)}",
            attempt.next_check_at or attempt.lease_until,
            ENGINE,
        )
    return (
        f"Being sent to {attempt.integration_id} under a lease: the request may be on the wire",
        attempt.sent_at or attempt.created_at,
        "the answer settles it; without one it is marked unknown at the end of the lease and looked up",
        attempt.lease_until,
        PROVIDER,
    )


def _accepted(state: Snapshot, attempt: Attempt, now: datetime) -> _Words:
    since = attempt.sent_at or attempt.created_at
    if _pin_is_missing(state, attempt):
        return (
            f"{attempt.integration_id} says it is done, but gave no PIN",
            since,
            f"it is asked again for the PIN{_lateness(attempt.next_check_at, now)}; if none comes, a person asks the"
            " provider by the reference",
            attempt.next_check_at,
            OPERATOR,
        )
    if attempt.next_check_at is None:
        return (
            f"{attempt.integration_id} accepted it, and no check is planned", since,
            "a person asks with `orderwatch order check`", None, OPERATOR,
        )
    return (
        f"{attempt.integration_id} accepted it and works on it",
        since,
        f"check {attempt.check_number} asks for its status{_lateness(attempt.next_check_at, now)}",
        attempt.next_check_at,
        PROVIDER,
    )


def _unknown(state: Snapshot, attempt: Attempt, now: datetime) -> _Words:
    needed = state.absent_needed.get(attempt.integration_id)
    absent = f"{attempt.absent_answers} of {needed}" if needed else f"{attempt.absent_answers}"
    progress = f"{absent} consistent answers so far say that it does not exist there"
    headline = (
        f"It is not known whether {attempt.integration_id} bought it; it is never sent again blindly. {progress}"
    )
    since = attempt.sent_at or attempt.created_at
    settle = _resolve(state.tenant_id, state.order_id, attempt.attempt)
    if attempt.evidence.get("repeat"):
        then = f"the same reference is sent again, which {attempt.integration_id} promises to buy at most once"
        return headline, since, f"{then}{_lateness(attempt.next_check_at, now)}", attempt.next_check_at, ENGINE
    if attempt.next_check_at is None:
        then = f"no look-up is planned: a person asks the provider and settles it with {settle}"
        return headline, since, then, None, OPERATOR
    return (
        headline,
        since,
        f"look-up {attempt.check_number} by reference {attempt.reference}{_lateness(attempt.next_check_at, now)};"
        f" whoever has other proof settles it with {settle}",
        attempt.next_check_at,
        ENGINE,
    )


#: Waiting for a person: what is wrong, and the act that helps.
_CODES: Mapping[str, tuple[str, str]] = {
    AttentionCode.NO_ROUTING: ("no route is configured for this package", "add a route for the package"),
    AttentionCode.MANUAL_ROUTE: (
        "its route is manual: a person delivers it", "deliver it by hand, or change the route to auto",
    ),
    AttentionCode.NO_MAPPING: (
        "the package has no mapping for its integration", "add a mapping of the package for the integration",
    ),
    AttentionCode.INTEGRATION_DISABLED: (
        "its integration is switched off", "enable the integration, or change the route",
    ),
    AttentionCode.INVALID_ORDER: (
        "it lacks something that the mapping needs; nothing was sent", "correct the mapping, or refuse the order",
    ),
    AttentionCode.OUTCOME_UNKNOWN: ("its outcome is unknown", "find out at the provider and resolve it"),
    AttentionCode.PARTLY_DELIVERED: (
        "some units were delivered and the rest refused", "decide with the shop what the buyer gets",
    ),
    AttentionCode.LOW_BALANCE: ("the account has too little balance", "top up the account"),
    AttentionCode.INTEGRATION_DOWN: ("its integration does not work", "repair the access to the integration"),
}


def _waiting(order: Order, code: str, now: datetime, evidence: tuple[str, ...]) -> Explanation:
    wrong, act = _CODES.get(code, (f"it waits with code {code}", "see the attention with `orderwatch attention list`"))
    said = next((raised.message for raised in reversed(order.raised) if raised.code == code), "")
    again = (
        f"; dispatch also tries again by itself{_lateness(order.next_check_at, now)}" if order.next_check_at
        else f"; then it goes on by itself, or at once with `orderwatch order check {order.tenant_id} {order.order_id}`"
    )
    return Explanation(
        headline=f"Waiting for a person: {wrong} [{code}]" + (f". {said}" if said else ""),
        since=order.waiting_since or order.accepted_at,
        next=f"{act}{again}. Whoever settled it by hand says so with {_resolve(order.tenant_id, order.order_id, 0)}",
        when=order.next_check_at,
        actor=OPERATOR,
        evidence=evidence,
    )


def _between_attempts(state: Snapshot, order: Order, now: datetime, evidence: tuple[str, ...]) -> Explanation:
    last = state.attempts[-1] if state.attempts else None
    if last is None:
        headline, since = "Accepted, and waiting for its first dispatch; nothing was sent", order.accepted_at
    else:
        why = f" ({last.message})" if last.message else ""
        headline = f"Attempt {last.attempt} at {last.integration_id} ended {last.state.value.replace('_', ' ')}{why}"
        since = last.settled_at or order.accepted_at
    if order.next_check_at is not None:
        then = f"dispatch decides again{_lateness(order.next_check_at, now)}"
    else:
        then = (
            "dispatch reads its event; if nothing moves within minutes:"
            f" `orderwatch order check {order.tenant_id} {order.order_id}`"
        )
    return Explanation(headline, since, then, order.next_check_at, ENGINE, evidence)


_URGENCY = (AttemptState.UNKNOWN, AttemptState.SENDING, AttemptState.INTENT, AttemptState.ACCEPTED)


def _most_urgent(live: Sequence[Attempt]) -> Attempt:
    return min(live, key=lambda attempt: (_URGENCY.index(attempt.state), attempt.attempt))


def _pin_is_missing(state: Snapshot, attempt: Attempt) -> bool:
    code = AttentionCode.PIN_MISSING.value
    return bool(attempt.evidence.get(code)) or code in set(flags(attempt.evidence)) or any(
        row["code"] == code and row["acknowledged_at"] is None for row in state.attention
    )


def _last_message(state: Snapshot) -> str:
    said = (state.order.last_event or {}).get("message") if state.order else None
    return said or next((a.message for a in reversed(state.attempts) if a.message), "")


def _resolve(tenant_id: str, order_id: str, attempt: int) -> str:
    return f"`orderwatch order resolve {tenant_id} {order_id} --attempt {attempt} --as ... --reason ...`"


def _lateness(at: datetime | None, now: datetime) -> str:
    if at is None or now - at <= timedelta(seconds=OVERDUE_S):
        return ""
    return f" (overdue by {duration((now - at).total_seconds())}: the sweeper repairs it while a worker runs)"
