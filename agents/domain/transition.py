"""What a provider's answer means for an order. Pure: state and answer in, one change of the ledger out.

Nothing settles by elapsed time, by a failed question or by an unknown word; an open outcome never starts another
attempt. Every function returns ``None`` when there is nothing to write, and may be called again with the same answer
after the order moved: it then decides on what it finds.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from agents.domain.routing import Routing, Waiting
from agents.domain.schedule import Schedule
from agents.providers.base import Money, Placed, PlacedAnswer, Refusal, Seen, StatusAnswer
from db.rows import Attempt, Change, Order, OrderState, Raised, Step
from streams.errors import ConfigError
from streams.events import Amount, StatusChanged
from streams.order import (
    ATTEMPT_MOVES,
    TERMINAL,
    AttemptState,
    AttentionCode,
    ExternalStatus,
    StatusReason,
    buyer_status,
)

S = AttemptState

#: States that prove that the provider took the order.
PLACED = frozenset({S.ACCEPTED, S.COMPLETED, S.FAILED})

#: After this many questions without evidence a person is told about an unknown outcome.
TELL_AFTER_CHECKS = 5

#: A line is sent again so often when an answer came each time and none of them proved anything; then a person decides.
MOST_RESENDS = 3

#: A reference that a provider takes twice is sent so often at the most.
MOST_SENDS = 5


def closed(order: Order) -> bool:
    """True when nothing more is bought or asked by itself: at its end, or past its deadline."""
    return order.external_status in TERMINAL or order.external_status is ExternalStatus.EXPIRED


def nothing_bought(row: Attempt) -> bool:
    """True for an attempt that ended without an order and without a word against the order: its line may go on."""
    return row.state is S.NOT_SENT or (row.state is S.REJECTED and row.refusal == Refusal.ACCESS)


def delivered(row: Attempt) -> int:
    """Units of an attempt that reached the buyer."""
    if (units := row.evidence.get("delivered")) is not None:
        return int(units)
    return row.quantity if row.state is S.COMPLETED else 0


class OrderTransition:
    """A change in the making: copies of the rows it touches, and the order's status derived from them at the end."""

    def __init__(self, state: OrderState, routing: Routing, now: datetime, actor: str) -> None:
        self.routing = routing
        self.now = now
        self.actor = actor
        self.order: Order = msgspec.structs.replace(state.order, raised=list(state.order.raised))
        self.attempts = {a.attempt: a for a in state.attempts}
        self.changed: set[int] = set()
        self.progress = False
        self.steps: list[Step] = []
        self.reopened = False

    def __getitem__(self, number: int) -> Attempt:
        return self.attempts[number]

    def set(self, number: int, **fields: Any) -> Attempt:
        """Change columns of an attempt, not its state."""
        row: Attempt = msgspec.structs.replace(self.attempts[number], **fields)
        self.attempts[number] = row
        self.changed.add(number)
        return row

    def move(self, number: int, to: AttemptState, **fields: Any) -> Attempt:
        """Move an attempt along one of the arrows; a settled one is never asked about again unless watched."""
        row = self.attempts[number]
        assert to in ATTEMPT_MOVES[row.state], f"attempt cannot move from {row.state} to {to}"
        if to is not S.SENDING:
            fields = {"lease_token": None, "lease_until": None, **fields}
        if to in (S.COMPLETED, S.FAILED, S.REJECTED, S.NOT_SENT):
            # A new number: a check that was under way, or comes again, finds out that it is stale.
            fields = {"settled_at": self.now, "next_check_at": None, "check_number": row.check_number + 1, **fields}
        if to is S.COMPLETED and self.order.external_status is ExternalStatus.FAILED:
            self.raise_attention(
                AttentionCode.REVERSAL,
                f"attempt {number} at {row.integration_id} was delivered after the order had failed",
                discriminator=f"{number}:delivered",
            )
        return self.set(number, state=to, **fields)

    def step(self, step: str, number: int | None = None, **details: Any) -> None:
        """Add a row to the timeline."""
        shown = {key: value for key, value in details.items() if value not in (None, "", (), [])}
        self.steps.append(Step(step=step, actor=self.actor, attempt=number, details=shown))

    def schedule(self, number: int, delay_s: float) -> None:
        """Ask about this attempt again after ``delay_s``."""
        row = self.attempts[number]
        due = self.now + timedelta(seconds=delay_s)
        self.set(number, next_check_at=due, check_number=row.check_number + 1)

    def watch(self, number: int, schedule: Schedule) -> None:
        """Keep cheap checks on a settled attempt for the configured while."""
        row = self.attempts[number]
        account = self.routing.accounts.get(row.integration_id)
        if account is None or not account.profile.watch or schedule.watch_for_s <= 0:
            return
        if not account.profile.look_up and row.state in (S.NOT_SENT, S.REJECTED):
            return  # only a look-up could tell
        until = row.watch_until or self.now + timedelta(seconds=schedule.watch_for_s)
        self.set(number, watch_until=until)
        if self.now + timedelta(seconds=schedule.watch_every_s) <= until:
            self.schedule(number, schedule.watch_every_s)

    def raise_attention(self, code: AttentionCode, message: str, discriminator: str = "") -> None:
        """Raise an attention, once per code and discriminator."""
        if any(r.code == code and r.discriminator == discriminator for r in self.order.raised):
            return
        self.order.raised.append(Raised(code=code, message=message, since=self.now, discriminator=discriminator))
        self.step("attention", None, code=code.value, message=message)

    def block(self, waiting: Waiting) -> None:
        """No attempt is live and none can start: the order waits with this code."""
        if self.order.waiting != waiting.code:
            self.order.waiting_since = self.now
        self.order.waiting = waiting.code.value
        self.raise_attention(waiting.code, waiting.message, discriminator=str(self.order.attempts))

    def add(self, attempts: Iterable[Attempt], delay_s: float = 0.0) -> None:
        """Start further attempts, at once or after ``delay_s``."""
        for row in attempts:
            self.attempts[row.attempt] = row
            self.changed.add(row.attempt)
            self.order.attempts = max(self.order.attempts, row.attempt)
            self.order.lines = max(self.order.lines, row.line)
            if row.attempt <= self.order.look_up_to:  # a ledger that is lost may have sent it
                self.doubt(row.attempt)
                schedule_look_up(self, row.attempt, delay_s)
            else:
                self.schedule(row.attempt, delay_s)
            self.step(
                "intent",
                row.attempt,
                integration=row.integration_id,
                provider=row.provider,
                reference=row.reference,
                line=row.line,
                quantity=row.quantity,
                expected_cost=_text(row.expected_cost),
                wire=sorted(name for name in row.wire if not name.startswith("_")),
            )
        self.order.next_check_at = None
        if not any(nothing_bought(row) for row in self.newest()):  # another line may still wait
            self.order.waiting = None
            self.order.waiting_since = None

    def doubt(self, number: int) -> None:
        """A lost ledger may have sent this attempt: at the earliest when the shop ordered, at the latest now."""
        row = self.attempts[number]
        kept = {name: value for name, value in row.evidence.items() if name not in ("repeat", "repeated", "unproven")}
        ordered_at = min(datetime.fromisoformat(self.order.request["created_at"]), self.now)
        self.set(
            number,
            state=S.UNKNOWN,
            lease_token=None,
            lease_until=None,
            sent_at=row.sent_at or ordered_at,
            absent_answers=0,
            absent_since=None,
            evidence={**kept, "looked_up_first": True, "sent_again_at": self.now.isoformat()},
        )

    def newest(self) -> list[Attempt]:
        """The newest attempt of each line."""
        return list({row.line: row for row in sorted(self.attempts.values(), key=lambda r: r.attempt)}.values())

    def change(self, reason: StatusReason, message: str = "", attempt: int | None = None, **extra: Any) -> Change:
        """The finished change; says a new status when the attempts add up to another one than before."""
        external = self._external()
        before = self.order.external_status
        if external is not before or self.progress:
            self.set_status(external, reason, message, attempt)
        if closed(self.order):
            for row in list(self.attempts.values()):  # past the deadline only people ask
                if row.live and row.state is not S.SENDING and row.next_check_at is not None and not self._watched(row):
                    self.set(row.attempt, next_check_at=None)
        rows = [self.attempts[number] for number in sorted(self.changed)]
        return Change(order=self.order, attempts=rows, steps=self.steps, **extra)

    def _watched(self, row: Attempt) -> bool:
        """True for what a failed order left open: a late delivery must not go unnoticed."""
        account = self.routing.accounts.get(row.integration_id)
        if self.order.external_status is ExternalStatus.EXPIRED or account is None or row.state is S.INTENT:
            return False
        until = row.watch_until or self.now + timedelta(seconds=account.schedule.watch_for_s)
        if row.watch_until is None:
            self.set(row.attempt, watch_until=until)
        return row.next_check_at is not None and row.next_check_at <= until

    def set_status(
        self, external: ExternalStatus, reason: StatusReason, message: str, number: int | None = None
    ) -> None:
        """Move the order to another delivery status and keep the event that tells it."""
        order = self.order
        before = order.external_status
        order.version += 1
        order.external_status = external
        order.status = buyer_status(external)
        order.finished_at = (order.finished_at or self.now) if external in TERMINAL else None
        if external in TERMINAL:
            order.waiting, order.waiting_since, order.next_check_at = None, None, None
        rows = list(self.attempts.values())
        row = self.attempts.get(number) if number else (rows[-1] if rows else None)
        pins = [pin for r in rows if delivered(r) for pin in r.pins]
        units = sum(delivered(r) for r in rows)
        event = StatusChanged(
            order_id=order.order_id,
            tenant_id=order.tenant_id,
            version=order.version,
            status=order.status.value,
            external_status=external.value,
            previous_external_status=before.value,
            reason=reason.value,
            checks=sum(r.checks for r in rows),
            occurred_at=self.now,
            attempt=row.attempt if row else None,
            integration_id=row.integration_id if row else None,
            provider_referans=row.reference if row else None,
            message=message or None,
            pins=pins if (external is ExternalStatus.COMPLETED or self.progress) and pins else None,
            cost=_total(rows),
            delivered_quantity=units or None,
            refunded=_refunded(rows),
        )
        order.last_event = msgspec.to_builtins(event, builtin_types=(), str_keys=True)
        order.last_event_at = self.now
        self.step(
            "status",
            row.attempt if row else None,
            external_status=external.value,
            previous=before.value,
            reason=reason.value,
            message=message,
            version=order.version,
        )

    def _external(self) -> ExternalStatus:
        """Delivery of the whole order, from the newest attempt of each line."""
        order = self.order
        if order.external_status in TERMINAL:
            return order.external_status  # only a person moves a settled order
        newest = self.newest()
        states = [row.state for row in newest]
        if not states:
            return order.external_status
        if all(state is S.COMPLETED for state in states):
            return ExternalStatus.COMPLETED
        dead = [state in (S.FAILED, S.REJECTED, S.NOT_SENT) for state in states]
        if all(dead) and order.waiting is None:
            return ExternalStatus.FAILED
        if order.external_status is ExternalStatus.EXPIRED and not self.reopened:
            return ExternalStatus.EXPIRED
        if any(r.state is S.UNKNOWN or (r.state is S.SENDING and r.evidence.get("repeated")) for r in newest):
            return ExternalStatus.UNKNOWN
        if any(state is S.ACCEPTED for state in states):
            working = any(r.state is S.ACCEPTED and r.evidence.get("processing") for r in newest)
            started = working or any(state is S.COMPLETED for state in states)
            return ExternalStatus.PROCESSING if started else ExternalStatus.SENT
        if any(state is S.COMPLETED for state in states):
            return ExternalStatus.PROCESSING
        return ExternalStatus.NOT_SENT


def may_have_been_sent(lines: int, known: int) -> int:
    """Up to which attempt a lost ledger may have sent: one round at both integrations beyond what is ``known``."""
    return known + 2 * max(lines, 1)


# -- before the send ------------------------------------------------------------------------------------------------


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


# -- after the send -------------------------------------------------------------------------------------------------


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
    fields = _facts(row, answer)
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
            _delivered(draft, number, fields, answer, schedule)
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
            _refused(draft, draft[number], answer, schedule)
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
        fields = _facts(draft[row.attempt], answer)
        if answer.kind is Placed.COMPLETED:
            _delivered(draft, row.attempt, fields, answer, schedule)
        else:
            draft.move(row.attempt, S.ACCEPTED, **fields)
            draft.schedule(row.attempt, schedule.first_after_s)
    elif bought:
        _contradiction(draft, row, f"bought after all ({answer.kind.value})")
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
        _delivered(draft, row.attempt, _facts(row, answer), answer, schedule)
    elif answer.kind is Seen.FAILED:
        draft.move(row.attempt, S.FAILED, **_facts(row, answer))
        draft.watch(row.attempt, schedule)
        line_failed(draft, row)
    else:
        if answer.kind is Seen.NOT_FOUND or "negative" in answer.flags:
            message = f"attempt {row.attempt}: {row.integration_id} accepted it and does not know it any more"
            draft.raise_attention(AttentionCode.UNRECOGNISED_ANSWER, message, discriminator=f"{row.attempt}:forgotten")
        if answer.kind is Seen.PENDING:
            draft.set(row.attempt, evidence={**row.evidence, "processing": True}, **_facts(row, answer))
        draft.schedule(row.attempt, schedule.retry_after_s(answer.retry_after_s, schedule.backoff_s(row.checks)))


def _seen_unknown(draft: OrderTransition, row: Attempt, answer: StatusAnswer, schedule: Schedule) -> None:
    match answer.kind:
        case Seen.PENDING:
            draft.move(row.attempt, S.ACCEPTED, **_facts(row, answer), evidence={**row.evidence, "processing": True})
            draft.schedule(row.attempt, schedule.backoff_s(1))
        case Seen.SUCCEEDED | Seen.PARTIAL:
            _delivered(draft, row.attempt, _facts(row, answer), answer, schedule)
        case Seen.FAILED:
            draft.move(row.attempt, S.FAILED, **_facts(row, answer))
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


def may_repeat(routing: Routing, row: Attempt, now: datetime) -> bool:
    """True where the provider promises that this reference, sent again, buys at most once."""
    account = routing.accounts.get(row.integration_id)
    if account is None or not account.profile.repeat_safe or row.sends >= MOST_SENDS:
        return False
    limit_s = account.profile.repeat_safe_for_s
    return limit_s is None or row.sent_at is None or (now - row.sent_at).total_seconds() < limit_s


def schedule_look_up(draft: OrderTransition, number: int, delay_s: float) -> None:
    """Schedule the way out of an unknown outcome, or tell a person when there is none or it takes long."""
    row = draft[number]
    account = draft.routing.accounts.get(row.integration_id)
    means = account is not None and (account.profile.look_up or may_repeat(draft.routing, row, draft.now))
    if means:
        draft.schedule(number, delay_s)
    else:
        draft.set(number, next_check_at=None, check_number=row.check_number + 1)
    if not means or max(row.checks, row.sends - 1) >= TELL_AFTER_CHECKS:
        draft.raise_attention(
            AttentionCode.OUTCOME_UNKNOWN,
            f"attempt {number} at {row.integration_id}: it is not known whether it was bought",
            discriminator=str(number),
        )


def _delivered(
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


def _refused(draft: OrderTransition, row: Attempt, answer: PlacedAnswer, schedule: Schedule) -> None:
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
        _contradiction(draft, row, f"the provider now says {answer.kind.value}")
    draft.watch(row.attempt, schedule)


def _contradiction(draft: OrderTransition, row: Attempt, what: str) -> None:
    others = [r for r in draft.attempts.values() if r.attempt != row.attempt and (r.live or r.state is S.COMPLETED)]
    also = f"; attempt {others[-1].attempt} at {others[-1].integration_id} is {others[-1].state}" if others else ""
    message = f"attempt {row.attempt} at {row.integration_id} was settled as {row.state}, but {what}{also}"
    known = len(draft.order.raised)
    draft.raise_attention(AttentionCode.REVERSAL, message, discriminator=f"{row.attempt}:{what}")
    if len(draft.order.raised) > known:
        draft.set_status(draft.order.external_status, StatusReason.REVERSAL, message, row.attempt)


# -- time and people ------------------------------------------------------------------------------------------------


def expired(state: OrderState, routing: Routing, now: datetime, *, fail: bool, actor: str) -> Change | None:
    """The deadline: stop asking by itself. The outcome stays open unless the operator configured otherwise."""
    order = state.order
    if order.external_status in TERMINAL or order.external_status is ExternalStatus.EXPIRED:
        return None
    draft = OrderTransition(state, routing, now, actor)
    for row in state.attempts:
        if row.state is S.INTENT:
            draft.move(row.attempt, S.NOT_SENT, message="deadline")
        elif row.live and row.state is not S.SENDING:
            draft.set(row.attempt, next_check_at=None)
            if fail and (account := routing.accounts.get(row.integration_id)) is not None:
                draft.watch(row.attempt, account.schedule)  # a late delivery must not go unnoticed
    draft.order.next_check_at = None
    if not draft.attempts or not all(row.live for row in draft.newest()):
        # Without this a line that nobody asks about any more would let a refusal of another one fail the order.
        draft.order.waiting = draft.order.waiting or AttentionCode.EXPIRED.value
        draft.order.waiting_since = draft.order.waiting_since or now
    draft.step("deadline", deadline_at=order.deadline_at.isoformat())
    if not fail:
        again_at = order.deadline_at.isoformat() if AttentionCode.EXPIRED in {r.code for r in order.raised} else ""
        draft.raise_attention(
            AttentionCode.EXPIRED,
            f"no final answer by the deadline; last known: {order.external_status}",
            discriminator=again_at,
        )
    target = ExternalStatus.FAILED if fail else ExternalStatus.EXPIRED
    draft.set_status(target, StatusReason.DEADLINE, "deadline")
    return draft.change(StatusReason.DEADLINE)


def long_pending(state: OrderState, routing: Routing, now: datetime, threshold_s: float) -> Change | None:
    """An order that is open longer than a threshold: told once per threshold."""
    if state.order.external_status in TERMINAL or state.order.external_status is ExternalStatus.EXPIRED:
        return None
    draft = OrderTransition(state, routing, now, "sweep")
    draft.raise_attention(
        AttentionCode.LONG_PENDING,
        f"open for more than {threshold_s / 60:g} minutes; delivery is {state.order.external_status}",
        discriminator=threshold_key(threshold_s),
    )
    return draft.change(StatusReason.PROVIDER)


def threshold_key(threshold_s: float) -> str:
    """The discriminator of a long-pending threshold."""
    return f"{threshold_s:g}s"


def _facts(row: Attempt, answer: PlacedAnswer | StatusAnswer) -> dict[str, Any]:
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


def _evidence(row: Attempt, answer: StatusAnswer, now: datetime) -> dict[str, Any]:
    last = {"at": now.isoformat(), "kind": answer.kind.value, "message": answer.message, "raw": answer.raw}
    return {**row.evidence, "last_check": last}


def _total(rows: Iterable[Attempt]) -> Amount | None:
    """What the order cost so far, when every part is in one currency."""
    costs = [(r.cost_amount, r.cost_currency) for r in rows if r.state in PLACED - {S.FAILED} and r.cost_currency]
    if not costs or len({currency for _, currency in costs}) != 1:
        return None
    total = sum((amount or Decimal(0) for amount, _ in costs), Decimal(0))
    return Amount(amount=total, currency=str(costs[0][1]))


def _refunded(rows: Iterable[Attempt]) -> Amount | None:
    """What the provider gave back, when every part is in one currency."""
    parts = [r.evidence["refunded"] for r in rows if r.evidence.get("refunded")]
    if not parts or len({part["currency"] for part in parts}) != 1:
        return None
    return Amount(amount=sum((Decimal(p["amount"]) for p in parts), Decimal(0)), currency=parts[0]["currency"])


def _money_text(money: Money | None) -> str | None:
    return None if money is None else f"{money.amount} {money.currency}"


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)


def schedule_of(routing: Routing, row: Attempt) -> Schedule:
    """The delays of the integration that holds this attempt. It may be gone from the configuration: say so."""
    account = routing.accounts.get(row.integration_id)
    if account is None:
        raise ConfigError(f"integration {row.integration_id} holds open attempts but is not configured")
    return account.schedule
