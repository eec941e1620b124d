"""One change of the ledger in the making: the rows it touches, and the order's status derived from them. Pure.

Nothing settles by elapsed time, by a failed question or by an unknown word; an open outcome never starts another
attempt. Deciding functions return ``None`` when there is nothing to write, and may be called again with the same answer
after the order moved: they then decide on what they find.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from agents.domain.routing import Routing, Waiting
from agents.domain.schedule import Schedule
from agents.providers.base import Refusal
from db.rows import Attempt, Change, Order, OrderState, Raised, Step
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


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)
