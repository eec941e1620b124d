"""The ledger and the views in memory, with the rules of the tables: revision, one live attempt per line, checks.

Kept honest by a contract test that runs the same cases on these and on PostgreSQL.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy.exc import IntegrityError

from db.ledger import EVERYTHING, Due, PublishWindow
from db.rows import Answer, Change, CommandRecord, Key, Order, OrderState, Step
from streams.order import AttemptState, AttentionCode, ExternalStatus, Status

S = AttemptState

_encode = msgspec.json.Encoder(decimal_format="string").encode
_decode = msgspec.json.Decoder(OrderState, strict=False).decode

#: What a change writes of an existing row is the rest.
_ORDER_FIXED = ("tenant_id", "order_id", "fingerprint", "request", "deadline_at", "accepted_at")
_ATTEMPT_FIXED = ("line", "quantity", "integration_id", "provider", "reference", "wire", "created_at")


class MemoryLedger:
    """What ``db.ledger.Ledger`` is to its callers; each call is one moment. ``now`` is the database's clock."""

    def __init__(self, now: Callable[[], datetime], views: "MemoryViews | None" = None) -> None:
        self._now = now
        self._views = views or MemoryViews()
        self._states: dict[Key, bytes] = {}
        self._references: dict[str, tuple[Key, int]] = {}
        self.timeline: list[tuple[Key, Step]] = []
        self.commands: dict[tuple[str, str], CommandRecord] = {}
        #: Called with (before, after) for every write.
        self.watcher: Callable[[OrderState | None, OrderState], None] = lambda before, after: None

    def states(self) -> Iterator[OrderState]:
        """Every order as it stands."""
        for state in self._states.values():
            yield _decode(state)

    def state(self, key: Key) -> OrderState | None:
        """One order as it stands."""
        kept = self._states.get(key)
        return None if kept is None else _decode(kept)

    async def open(self, change: Change) -> Change | None:
        """As ``Ledger.open``."""
        key = change.order.key
        if key in self._states:
            return None
        born: Order = msgspec.structs.replace(change.order, rev=0)
        stored = self._write(None, born, change)
        request = change.order.request
        self._views.born(
            key,
            {
                "package_id": request["package_id"],
                "quantity": request.get("quantity", 1),
                "version": 0,
                "status": "pending",
                "external_status": "not_sent",
            },
        )
        return msgspec.structs.replace(stored, order=change.order)

    async def apply(self, change: Change) -> Change | None:
        """As ``Ledger.apply``."""
        before = self.state(change.order.key)
        if before is None or before.order.rev != change.order.rev:
            return None
        if change.only_expired is not None:
            row = before.attempt(change.only_expired)
            if row is None or row.state is not S.SENDING or row.lease_until is None or row.lease_until >= self._now():
                return None
        kept = {name: getattr(before.order, name) for name in _ORDER_FIXED}
        if change.answer is not None:
            command = self.commands.get((change.answer.tenant_id, change.answer.command_id))
            if command is None or command.done is not None:
                return None
            del kept["deadline_at"]
        head: Order = msgspec.structs.replace(change.order, **kept, rev=change.order.rev + 1)
        stored = self._write(before, head, change)
        if change.answer is not None:
            await self.refuse(change.answer)
        return msgspec.structs.replace(stored, order=msgspec.structs.replace(change.order, rev=head.rev))

    async def receive(self, command: CommandRecord) -> CommandRecord:
        """As ``Ledger.receive``."""
        return self.commands.setdefault((command.tenant_id, command.command_id), command)

    async def refuse(self, answer: Answer) -> None:
        """As ``Ledger.refuse``."""
        key = (answer.tenant_id, answer.command_id)
        command = self.commands[key]
        if command.done is None:
            self.commands[key] = msgspec.structs.replace(
                command, done=answer.done, said=answer.said, asked=list(answer.asked), decided_at=self._now()
            )

    async def load(self, key: Key) -> OrderState | None:
        """As ``Ledger.load``."""
        return self.state(key)

    async def overdue(self, after: Due | None, slack_s: float, page: int) -> list[Due]:
        """As ``Ledger.overdue``."""
        before = self._now() - timedelta(seconds=slack_s)
        found = []
        for state in self.states():
            order = state.order
            if order.next_check_at is not None:
                found.append(Due(*order.key, 0, order.check_number, order.next_check_at))
            found += [
                Due(*order.key, row.attempt, row.check_number, row.next_check_at)
                for row in state.attempts
                if row.next_check_at is not None
            ]
        late = sorted((due for due in found if due.due_at < before), key=_by_due)
        return [due for due in late if after is None or _by_due(due) > _by_due(after)][:page]

    async def pending_longer(self, after: Key, older_s: float, code: str, discriminator: str, page: int) -> list[Key]:
        """As ``Ledger.pending_longer``."""
        before = self._now() - timedelta(seconds=older_s)
        return self._keys(
            after,
            page,
            lambda order: (
                order.accepted_at < before
                and not any((r.code, r.discriminator) == (code, discriminator) for r in order.raised)
            ),
        )

    async def past_deadline(self, after: Key, page: int) -> list[Key]:
        """As ``Ledger.past_deadline``."""
        now = self._now()
        return self._keys(after, page, lambda order: order.deadline_at < now)

    async def publish_window(self, slack_s: float, events: int) -> PublishWindow:
        """As ``Ledger.publish_window``: everything, every time."""
        return EVERYTHING

    async def publish_checked(self, window: PublishWindow, found: int) -> None:
        """As ``Ledger.publish_checked``."""

    async def unpublished(self, after: Key, slack_s: float, page: int, window: PublishWindow = EVERYTHING) -> list[Key]:
        """As ``Ledger.unpublished``."""
        before = self._now() - timedelta(seconds=slack_s)
        keys = (
            state.order.key
            for state in self.states()
            if (
                state.order.version > self._views.orders[state.order.key]["version"]
                and state.order.last_event_at is not None
                and state.order.last_event_at < before
            )
            or self._unraised(state.order, before)
        )
        return sorted(key for key in keys if key > after)[:page]

    def _unraised(self, order: Order, before: datetime) -> bool:
        raised = Counter(
            r.code
            for r in order.raised
            if r.since < before and (order.finished_at is None or r.code == AttentionCode.REVERSAL)
        )
        shown = Counter(
            row["code"] for row in self._views.raised.values() if (row["tenant_id"], row["order_id"]) == order.key
        )
        return any(count > shown[code] for code, count in raised.items())

    async def waiting(self, after: Key, codes: Sequence[str], page: int) -> list[Due]:
        """As ``Ledger.waiting``."""
        keys = self._keys(after, page, lambda order: order.waiting in codes and order.next_check_at is None)
        orders = [state.order for key in keys if (state := self.state(key)) is not None]
        return [Due(*order.key, 0, order.check_number, order.waiting_since or order.accepted_at) for order in orders]

    async def unsent(self, integration_id: str, after: Due | None, page: int) -> list[Due]:
        """As ``Ledger.unsent``."""
        found = [
            Due(*state.order.key, row.attempt, row.check_number, row.next_check_at)
            for state in self.states()
            for row in state.attempts
            if row.state is S.INTENT and row.integration_id == integration_id and row.next_check_at is not None
        ]
        return sorted(due for due in found if after is None or due[:3] > after[:3])[:page]

    def _keys(self, after: Key, page: int, wanted: Callable[[Order], bool]) -> list[Key]:
        """Orders that the engine still acts on by itself."""
        orders = (state.order for state in self.states())
        keys = (
            order.key
            for order in orders
            if order.finished_at is None and order.external_status is not ExternalStatus.EXPIRED and wanted(order)
        )
        return sorted(key for key in keys if key > after)[:page]

    def _write(self, before: OrderState | None, head: Order, change: Change) -> Change:
        now = self._now()
        rows = {row.attempt: row for row in before.attempts} if before is not None else {}
        written = []
        for row in change.attempts:
            if change.lease is not None and row.attempt == change.lease[0]:
                until = now + timedelta(seconds=change.lease[1])
                row = msgspec.structs.replace(row, lease_until=until, next_check_at=until)
            written.append(row)
            old = rows.get(row.attempt)
            fixed = {name: getattr(old, name) for name in _ATTEMPT_FIXED} if old is not None else {"created_at": now}
            rows[row.attempt] = msgspec.structs.replace(row, **fixed)
        after = OrderState(head, [rows[number] for number in sorted(rows)])
        self._check(after)
        self._references |= {row.reference: (head.key, row.attempt) for row in after.attempts}
        self._states[head.key] = _encode(after)
        self.timeline += [(head.key, step) for step in change.steps]
        self.watcher(before, after)
        return msgspec.structs.replace(change, attempts=written)

    def _check(self, state: OrderState) -> None:
        """The constraints of ``db.models``."""
        order = state.order
        _hold("ledger_orders_finished", (order.external_status in _ENDS) == (order.finished_at is not None))
        _hold("ledger_orders_approved", (order.status == Status.APPROVED) == (order.external_status == "completed"))
        _hold("ledger_orders_rejected", (order.status == Status.REJECTED) == (order.external_status == "failed"))
        live = [row.line for row in state.attempts if row.live]
        _hold("idx_attempts_one_live", len(set(live)) == len(live))
        for row in state.attempts:
            _hold("attempts_lease", (row.state is S.SENDING) == (row.lease_token is not None))
            owner = self._references.get(row.reference, (order.key, row.attempt))
            _hold("attempts_reference_key", owner == (order.key, row.attempt))


_ENDS = (ExternalStatus.COMPLETED, ExternalStatus.FAILED)


def _hold(constraint: str, holds: bool) -> None:
    if not holds:
        raise IntegrityError(constraint, None, Exception(constraint))


def _by_due(due: Due) -> tuple[Any, ...]:
    return (due.due_at, due.tenant_id, due.order_id, due.attempt)


class MemoryViews:
    """What ``db.views.Views`` is to its callers."""

    def __init__(self) -> None:
        self.orders: dict[Key, dict[str, Any]] = {}
        self.raised: dict[str, dict[str, Any]] = {}
        self.letters: dict[tuple[str, int, int, str], dict[str, Any]] = {}

    def born(self, key: Key, row: dict[str, Any]) -> None:
        """The row that comes with an order's first commit."""
        self.orders.setdefault(key, row)

    async def referenced(self, rows: Sequence[dict[str, Any]]) -> None:
        """As ``Views.referenced``."""
        for row in rows:
            shown = self.orders.get((row["tenant_id"], row["order_id"]))
            if shown is not None and row["attempt"] >= shown.get("attempts", 0):
                shown |= {
                    "integration_id": row["integration_id"],
                    "provider": row["provider"],
                    "provider_referans": row["provider_referans"],
                    "attempts": row["attempt"],
                    "external_order_id": row["external_order_id"] or shown.get("external_order_id"),
                    "sent_at": shown.get("sent_at") or row["sent_at"],
                }

    async def status(self, rows: Sequence[dict[str, Any]]) -> None:
        """As ``Views.status``."""
        for row in rows:
            shown = self.orders.get((row["tenant_id"], row["order_id"]))
            if shown is not None and row["version"] > shown["version"]:
                told = ("message", "integration_id", "provider_referans", "pins")
                shown |= {name: row[name] for name in ("version", "status", "external_status", "reason")}
                shown |= {name: row[name] for name in told if row[name] is not None}
                shown["attempts"] = max(shown.get("attempts", 0), row["attempt"] or 0)

    async def attention(self, rows: Sequence[dict[str, Any]]) -> None:
        """As ``Views.attention``."""
        for row in rows:
            self.raised.setdefault(row["id"], row)

    async def dead_letter(self, *, topic: str, partition: int, offset: int, agent: str, **rest: Any) -> None:
        """As ``Views.dead_letter``."""
        self.letters.setdefault((topic, partition, offset, agent), rest)
