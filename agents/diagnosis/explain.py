"""What one order is waiting for, in plain words: a pure function over what the ledger and the log say.

Nothing is guessed: where the facts are missing, the words say so. The words are English patterns, said through a
``Say`` that may know another language.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agents.diagnosis.evidence import flags, proof
from agents.diagnosis.wording import Say, duration, english
from agents.domain.operator_actions import Offer, offers
from agents.domain.routing import Routing
from db.reads.queries import Snapshot
from db.rows import Attempt, Order, OrderState
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


def explain(state: Snapshot, now: datetime, say: Say = english) -> Explanation:
    """What the order waits for, since when, what happens next and when, who must act, and the evidence.

    ``say`` speaks headline and next in its language; the evidence stays as it was written.
    """
    evidence = (*proof(state, now), *state.heard)
    order = state.order
    if order is None and (state.heard or _spoken_of(state)):
        return _forgotten(say, state, evidence)
    if order is None:
        return _never_accepted(say, state, evidence)
    live = [attempt for attempt in state.attempts if attempt.live]
    if order.finished_at is not None:
        return _finished(say, state, order, evidence)
    if order.external_status is ExternalStatus.EXPIRED:
        return _expired(say, order, live, evidence)
    if live:
        return _live(say, state, order, _most_urgent(live), now, evidence)
    if order.waiting is not None:
        return _waiting(say, order, order.waiting, now, evidence)
    return _between_attempts(say, state, order, now, evidence)


def offered(state: Snapshot, routing: Routing, now: datetime) -> list[Offer]:
    """What a person may do to this order now: exactly what a command would not be refused for.

    ``routing`` is that of the configuration in use, see ``agents.diagnosis.dry_run.dry_routing``.
    """
    return [] if state.order is None else offers(OrderState(state.order, list(state.attempts)), routing, now)


def _spoken_of(state: Snapshot) -> bool:
    """True when a dead letter is about an order that must have been known once: somebody checked or commanded it."""
    return any(row["reason"] == "order_not_found" and row["replayed_at"] is None for row in state.dead_letters)


def _forgotten(say: Say, state: Snapshot, evidence: tuple[str, ...]) -> Explanation:
    """The ledger does not know an order that others speak of: it may have been bought."""
    if state.heard:
        headline = say("The ledger does not know this order, but the log does: it may have been bought")
    else:
        headline = say("The ledger does not know this order, but an event speaks of it: it may have been bought")
    return Explanation(
        headline=headline,
        since=None,
        next=say(
            "nothing by itself. Do not send it again and do not replay it: run `orderwatch db recover`, which"
            " looks it up at its provider first"
        ),
        when=None,
        actor=OPERATOR,
        evidence=evidence,
    )


def _never_accepted(say: Say, state: Snapshot, evidence: tuple[str, ...]) -> Explanation:
    if not state.dead_letters:
        return Explanation(
            headline=say("No order {order} of tenant {tenant} is known", order=state.order_id, tenant=state.tenant_id),
            since=None,
            next=say(
                "nothing: no event of this order was ever accepted. Check the spelling of tenant and order, then"
                " whether the shop's event is in orders.created (`orderwatch tail orders.created`) and a worker"
                " runs"
            ),
            when=None,
            actor=SHOP,
            evidence=evidence,
            known=False,
        )
    letter = state.dead_letters[-1]
    if letter["replayed_at"] is not None:
        return Explanation(
            headline=say(
                "Not accepted yet: its event was a dead letter ({reason}) and was sent again", reason=letter["reason"]
            ),
            since=letter["replayed_at"],
            next=say("dispatch reads it, and accepts it or sets it aside again"),
            when=None,
            actor=ENGINE,
            evidence=evidence,
        )
    return Explanation(
        headline=say(
            "Never accepted: its event could not be used ({reason}) and is in the dead letters", reason=letter["reason"]
        ),
        since=letter["at"],
        next=say(
            "nothing by itself. See it with `orderwatch dlq show {letter}`; the shop sends a corrected order,"
            " or after the cause is repaired: `orderwatch dlq replay {letter}`",
            letter=letter["id"],
        ),
        when=None,
        actor=OPERATOR,
        evidence=evidence,
    )


def _finished(say: Say, state: Snapshot, order: Order, evidence: tuple[str, ...]) -> Explanation:
    completed = order.external_status is ExternalStatus.COMPLETED
    word = (
        say("Completed")
        if completed
        else say("Failed: {message}", message=_last_message(state) or say("the provider gave no reason"))
    )
    if any(row["code"] == AttentionCode.REVERSAL and row["acknowledged_at"] is None for row in state.attention):
        return Explanation(
            headline=say("{what}, but the provider says otherwise since", what=word),
            since=order.finished_at,
            next=say(
                "nothing by itself: a person compares both answers with the provider, settles the money with the"
                " shop, then acknowledges it with `orderwatch attention ack`"
            ),
            when=None,
            actor=OPERATOR,
            evidence=evidence,
        )
    shown = state.view["version"] if state.view is not None else 0
    if shown < order.version:
        return Explanation(
            headline=say(
                "{what}. The ledger knows it; the view of orders does not show it yet (version {shown} of {version})",
                what=word,
                shown=shown,
                version=order.version,
            ),
            since=order.finished_at,
            next=say("the projection reads the status-changed event; the sweeper says it again when it was lost"),
            when=None,
            actor=ENGINE,
            evidence=evidence,
        )
    if completed:
        pins = sum(len(attempt.pins) for attempt in state.attempts)
        return Explanation(
            headline=_completed(say, state, order, word),
            since=order.finished_at,
            next=say("nothing. With `orderwatch order pin` PINs can be released: {pins}", pins=pins)
            if pins
            else say("nothing"),
            when=None,
            actor=NOBODY,
            evidence=evidence,
        )
    return Explanation(
        headline=word,
        since=order.finished_at,
        next=say("nothing here: the buyer's status is rejected, the shop gives the money back"),
        when=None,
        actor=SHOP,
        evidence=evidence,
    )


def _completed(say: Say, state: Snapshot, order: Order, word: str) -> str:
    if (order.last_event or {}).get("reason") == StatusReason.OPERATOR:
        return say("Completed by the word of a person ({message})", message=_last_message(state))
    if order.lines > 1:
        return say("{what}, {lines} lines", what=word, lines=order.lines)
    done = next((a for a in reversed(state.attempts) if a.state is AttemptState.COMPLETED), None)
    if done is None:
        return word
    return say(
        "Completed by {integration} under reference {reference}",
        integration=done.integration_id,
        reference=done.reference,
    )


def _expired(say: Say, order: Order, live: Sequence[Attempt], evidence: tuple[str, ...]) -> Explanation:
    number = _most_urgent(live).attempt if live else 0
    return Explanation(
        headline=say(
            "The deadline has passed without an outcome; the engine stopped asking by itself."
            " The buyer's money is still held"
        ),
        since=order.deadline_at,
        next=say(
            "a person asks once more with {check}, or settles it with {resolve}",
            check=_check(order),
            resolve=_resolve(order.tenant_id, order.order_id, number),
        ),
        when=None,
        actor=OPERATOR,
        evidence=evidence,
    )


def _live(
    say: Say, state: Snapshot, order: Order, attempt: Attempt, now: datetime, evidence: tuple[str, ...]
) -> Explanation:
    explain_one = {
        AttemptState.INTENT: _intent,
        AttemptState.SENDING: _sending,
        AttemptState.ACCEPTED: _accepted,
        AttemptState.UNKNOWN: _unknown,
    }[attempt.state]
    headline, since, then, when, actor = explain_one(say, state, attempt, now)
    if order.lines > 1:
        done = len({a.line for a in state.attempts if a.state is AttemptState.COMPLETED})
        headline = say(
            "{done} of {lines} lines done; line {line}: {headline}",
            done=done,
            lines=order.lines,
            line=attempt.line,
            headline=headline,
        )
    return Explanation(headline, since, then, when, actor, evidence)


_Words = tuple[str, datetime | None, str, datetime | None, str]


def _intent(say: Say, state: Snapshot, attempt: Attempt, now: datetime) -> _Words:
    since = attempt.created_at
    where = attempt.integration_id
    then = say("the order is sent to {integration}", integration=where) + _lateness(say, attempt.next_check_at, now)
    if attempt.sends:
        said = f" ({attempt.message})" if attempt.message else ""
        return (
            say(
                "{integration} asked to try the same reference later{said}; nothing was bought",
                integration=where,
                said=said,
            ),
            since,
            then,
            attempt.next_check_at,
            ENGINE,
        )
    if lane := attempt.evidence.get("lane"):
        return (
            say("Waiting until {integration} may be called ({lane}); nothing was sent", integration=where, lane=lane),
            since,
            then,
            attempt.next_check_at,
            ENGINE,
        )
    if attempt.next_check_at is not None and attempt.next_check_at > now:
        return (
            say(
                "Attempt {attempt} at {integration} waits for its time; nothing was sent",
                attempt=attempt.attempt,
                integration=where,
            ),
            since,
            then,
            attempt.next_check_at,
            ENGINE,
        )
    return (
        say("Written down, and on its way to {integration}; nothing was sent", integration=where),
        since,
        then,
        attempt.next_check_at,
        ENGINE,
    )


def _sending(say: Say, state: Snapshot, attempt: Attempt, now: datetime) -> _Words:
    if attempt.lease_until is not None and attempt.lease_until <= now:
        return (
            say(
                "The sender of attempt {attempt} did not come back within its lease; the request to {integration} may"
                " have left",
                attempt=attempt.attempt,
                integration=attempt.integration_id,
            ),
            attempt.lease_until,
            say("the next check marks it unknown and looks it up by its reference, it is not sent again")
            + _lateness(say, attempt.next_check_at, now),
            attempt.next_check_at or attempt.lease_until,
            ENGINE,
        )
    return (
        say(
            "Being sent to {integration} under a lease: the request may be on the wire",
            integration=attempt.integration_id,
        ),
        attempt.sent_at or attempt.created_at,
        say("the answer settles it; without one it is marked unknown at the end of the lease and looked up"),
        attempt.lease_until,
        PROVIDER,
    )


def _accepted(say: Say, state: Snapshot, attempt: Attempt, now: datetime) -> _Words:
    since = attempt.sent_at or attempt.created_at
    if _pin_is_missing(state, attempt):
        return (
            say("{integration} says it is done, but gave no PIN", integration=attempt.integration_id),
            since,
            say(
                "it is asked again for the PIN{late}; if none comes, a person asks the provider by the reference",
                late=_lateness(say, attempt.next_check_at, now),
            ),
            attempt.next_check_at,
            OPERATOR,
        )
    if attempt.next_check_at is None:
        return (
            say("{integration} accepted it, and no check is planned", integration=attempt.integration_id),
            since,
            say("a person asks with {check}", check="`orderwatch order check`"),
            None,
            OPERATOR,
        )
    return (
        say("{integration} accepted it and works on it", integration=attempt.integration_id),
        since,
        say("check {number} asks for its status", number=attempt.check_number)
        + _lateness(say, attempt.next_check_at, now),
        attempt.next_check_at,
        PROVIDER,
    )


def _unknown(say: Say, state: Snapshot, attempt: Attempt, now: datetime) -> _Words:
    needed = state.absent_needed.get(attempt.integration_id)
    absent = say("{some} of {all}", some=attempt.absent_answers, all=needed) if needed else attempt.absent_answers
    headline = say(
        "It is not known whether {integration} bought it; it is never sent again blindly. {absent} consistent answers"
        " so far say that it does not exist there",
        integration=attempt.integration_id,
        absent=absent,
    )
    late = _lateness(say, attempt.next_check_at, now)
    since = attempt.sent_at or attempt.created_at
    settle = _resolve(state.tenant_id, state.order_id, attempt.attempt)
    if attempt.evidence.get("repeat"):
        then = say(
            "the same reference is sent again, which {integration} promises to buy at most once",
            integration=attempt.integration_id,
        )
        return headline, since, then + late, attempt.next_check_at, ENGINE
    if attempt.next_check_at is None:
        then = say("no look-up is planned: a person asks the provider and settles it with {resolve}", resolve=settle)
        return headline, since, then, None, OPERATOR
    return (
        headline,
        since,
        say(
            "look-up {number} by reference {reference}{late}; whoever has other proof settles it with {resolve}",
            number=attempt.check_number,
            reference=attempt.reference,
            late=late,
            resolve=settle,
        ),
        attempt.next_check_at,
        ENGINE,
    )


#: How an attempt ended, as the end of a sentence.
ENDED: Mapping[AttemptState, str] = {
    AttemptState.NOT_SENT: "not sent",
    AttemptState.REJECTED: "rejected",
    AttemptState.COMPLETED: "completed",
    AttemptState.FAILED: "failed",
}

#: Waiting for a person: what is wrong, and the act that helps.
_CODES: Mapping[str, tuple[str, str]] = {
    AttentionCode.NO_ROUTING: ("no route is configured for this package", "add a route for the package"),
    AttentionCode.MANUAL_ROUTE: (
        "its route is manual: a person delivers it",
        "deliver it by hand, or change the route to auto",
    ),
    AttentionCode.NO_MAPPING: (
        "the package has no mapping for its integration",
        "add a mapping of the package for the integration",
    ),
    AttentionCode.INTEGRATION_DISABLED: (
        "its integration is switched off",
        "enable the integration, or change the route",
    ),
    AttentionCode.INVALID_ORDER: (
        "it lacks something that the mapping needs; nothing was sent",
        "correct the mapping, or refuse the order",
    ),
    AttentionCode.OUTCOME_UNKNOWN: ("its outcome is unknown", "find out at the provider and resolve it"),
    AttentionCode.PARTLY_DELIVERED: (
        "some units were delivered and the rest refused",
        "decide with the shop what the buyer gets",
    ),
    AttentionCode.LOW_BALANCE: ("the account has too little balance", "top up the account"),
    AttentionCode.ACCESS_REFUSED: (
        "the provider refuses our access",
        "repair credentials, API permission or the allowed IP address",
    ),
    AttentionCode.REFUSED_REPEATEDLY: (
        "it was sent several times, and no answer proved anything",
        "look for it in the provider's panel, then place it again, send it elsewhere or cancel it",
    ),
    AttentionCode.COST_CHANGED: (
        "it costs more than the mapping allows",
        "raise max_cost of the mapping, or change the route",
    ),
    AttentionCode.INTEGRATION_DOWN: ("its integration does not work", "repair the access to the integration"),
}


def _waiting(say: Say, order: Order, code: str, now: datetime, evidence: tuple[str, ...]) -> Explanation:
    wrong, act = _CODES.get(code, ("it waits with code {code}", "see the attention with `orderwatch attention list`"))
    said = next((raised.message for raised in reversed(order.raised) if raised.code == code), "")
    headline = say("Waiting for a person: {wrong} [{code}]", wrong=say(wrong, code=code), code=code)
    again = (
        say("dispatch also tries again by itself") + _lateness(say, order.next_check_at, now)
        if order.next_check_at
        else say("then it goes on by itself, or at once with {check}", check=_check(order))
    )
    return Explanation(
        headline=headline + (f". {said}" if said else ""),
        since=order.waiting_since or order.accepted_at,
        next=say(
            "{act}; {again}. Whoever settled it by hand says so with {resolve}",
            act=say(act),
            again=again,
            resolve=_resolve(order.tenant_id, order.order_id, 0),
        ),
        when=order.next_check_at,
        actor=OPERATOR,
        evidence=evidence,
    )


def _between_attempts(say: Say, state: Snapshot, order: Order, now: datetime, evidence: tuple[str, ...]) -> Explanation:
    last = state.attempts[-1] if state.attempts else None
    if last is None:
        headline, since = say("Accepted, and waiting for its first dispatch; nothing was sent"), order.accepted_at
    else:
        headline = say(
            "Attempt {attempt} at {integration} ended {state}",
            attempt=last.attempt,
            integration=last.integration_id,
            state=say(ENDED.get(last.state, last.state.value)),
        )
        headline += f" ({last.message})" if last.message else ""
        since = last.settled_at or order.accepted_at
    if order.next_check_at is not None:
        then = say("dispatch decides again") + _lateness(say, order.next_check_at, now)
    else:
        then = say("dispatch reads its event; if nothing moves within minutes: {check}", check=_check(order))
    return Explanation(headline, since, then, order.next_check_at, ENGINE, evidence)


_URGENCY = (AttemptState.UNKNOWN, AttemptState.SENDING, AttemptState.INTENT, AttemptState.ACCEPTED)


def _most_urgent(live: Sequence[Attempt]) -> Attempt:
    return min(live, key=lambda attempt: (_URGENCY.index(attempt.state), attempt.attempt))


def _pin_is_missing(state: Snapshot, attempt: Attempt) -> bool:
    code = AttentionCode.PIN_MISSING.value
    return (
        bool(attempt.evidence.get(code))
        or code in set(flags(attempt.evidence))
        or any(row["code"] == code and row["acknowledged_at"] is None for row in state.attention)
    )


def _last_message(state: Snapshot) -> str:
    said = (state.order.last_event or {}).get("message") if state.order else None
    return said or next((a.message for a in reversed(state.attempts) if a.message), "")


def _check(order: Order) -> str:
    return f"`orderwatch order check {order.tenant_id} {order.order_id}`"


def _resolve(tenant_id: str, order_id: str, attempt: int) -> str:
    return f"`orderwatch order resolve {tenant_id} {order_id} --attempt {attempt} --as ... --reason ...`"


def _lateness(say: Say, at: datetime | None, now: datetime) -> str:
    if at is None or now - at <= timedelta(seconds=OVERDUE_S):
        return ""
    late = duration((now - at).total_seconds(), say)
    return " " + say("(overdue by {time}: the sweeper repairs it while a worker runs)", time=late)
