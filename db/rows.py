"""The ledger's rows as the agents see them. Instants are database time."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from streams.order import LIVE, AttemptState, ExternalStatus, Status

Key = tuple[str, str]

_encode = msgspec.json.Encoder(decimal_format="string").encode


def parameters(rows: Sequence[Any]) -> tuple[str, int]:
    """The two parameters of a statement that unpacks rows: a JSON array, and how many they are, for its ``limit``.

    PostgreSQL takes any array for a hundred rows, and would read a table of some thousand orders from end to end for
    one of them.
    """
    return _encode(rows).decode(), len(rows)


class Raised(msgspec.Struct, kw_only=True):
    """An attention that was raised; kept so that a redelivered event can say it again under the same id."""

    code: str
    message: str
    since: datetime
    discriminator: str = ""


class Attempt(msgspec.Struct, kw_only=True):
    """One intent to buy one line of an order at one integration; columns of ``attempts``."""

    attempt: int
    state: AttemptState
    integration_id: str
    provider: str
    reference: str
    wire: dict[str, str]
    line: int = 1
    quantity: int = 1
    external_order_id: str | None = None
    delivers_pin: bool = False
    expected_cost: Decimal | None = None
    cost_amount: Decimal | None = None
    cost_currency: str | None = None
    balance_amount: Decimal | None = None
    balance_currency: str | None = None
    pins: list[str] = []
    lease_token: str | None = None
    lease_until: datetime | None = None
    sends: int = 0
    sent_at: datetime | None = None
    next_check_at: datetime | None = None
    check_number: int = 0
    checks: int = 0
    absent_answers: int = 0
    absent_since: datetime | None = None
    refusal: str | None = None
    message: str = ""
    evidence: dict[str, Any] = {}
    created_at: datetime | None = None
    settled_at: datetime | None = None
    watch_until: datetime | None = None

    @property
    def live(self) -> bool:
        """True while money may still be spent on it."""
        return self.state in LIVE


class Order(msgspec.Struct, kw_only=True):
    """The head of an order in the ledger; columns of ``ledger_orders``."""

    tenant_id: str
    order_id: str
    fingerprint: str
    request: dict[str, Any]
    deadline_at: datetime
    accepted_at: datetime
    rev: int = 0
    status: Status = Status.PENDING
    external_status: ExternalStatus = ExternalStatus.NOT_SENT
    version: int = 0
    last_event: dict[str, Any] | None = None
    last_event_at: datetime | None = None
    lines: int = 0
    attempts: int = 0
    waiting: str | None = None
    waiting_since: datetime | None = None
    raised: list[Raised] = []
    next_check_at: datetime | None = None
    check_number: int = 0
    finished_at: datetime | None = None
    look_up_to: int = 0

    @property
    def key(self) -> Key:
        """(tenant_id, order_id)."""
        return (self.tenant_id, self.order_id)


class OrderState(msgspec.Struct):
    """One order with its attempts, oldest first, as read in one moment."""

    order: Order
    attempts: list[Attempt]

    def attempt(self, number: int) -> Attempt | None:
        """The attempt with this number, if there is one."""
        return next((a for a in self.attempts if a.attempt == number), None)

    def latest(self, line: int) -> Attempt | None:
        """The newest attempt of a line."""
        return next((a for a in reversed(self.attempts) if a.line == line), None)


class Step(msgspec.Struct, kw_only=True):
    """One row of the timeline (``order_events``). ``details`` carry no secret."""

    step: str
    actor: str
    attempt: int | None = None
    details: dict[str, Any] = {}


class CommandRecord(msgspec.Struct, kw_only=True):
    """What a person asked for, and what became of it; columns of ``commands``. ``done`` is None until decided.

    ``tenant_id`` is empty and ``order_id`` None where no single one is meant; ``moved`` are the ids of attentions or
    dead letters that it was carried out on.
    """

    command_id: str
    tenant_id: str
    order_id: str | None
    action: str
    by: str
    reason: str
    issued_at: datetime
    done: bool | None = None
    said: str | None = None
    asked: list[tuple[int, int]] | None = None
    decided_at: datetime | None = None
    moved: list[str | int] | None = None


class Replay(msgspec.Struct, frozen=True):
    """A dead letter that the broker has again; ``corrected`` names the fields that a person wrote anew."""

    letter: int
    tenant_id: str | None
    order_id: str | None
    event_id: str | None
    corrected: list[str] = []


class Answer(msgspec.Struct, kw_only=True):
    """The answer to a command, for the person. ``asked``: (attempt, check_number) of checks that follow from it."""

    tenant_id: str
    command_id: str
    done: bool
    said: str
    asked: list[tuple[int, int]] = []


class Change(msgspec.Struct, kw_only=True):
    """What one decision writes, all or nothing, provided that nobody wrote since ``order.rev`` was read.

    ``order`` is the new head (its ``rev`` still the one that was read), ``attempts`` those that are new or changed,
    ``steps`` the timeline. ``lease``: (attempt, seconds) sets that attempt's lease end from the database's clock.
    ``only_expired``: the number of a ``sending`` attempt whose lease must be over by the database's clock.
    ``answer``: to the command that this decides; nothing is written when that command was decided before. Only a
    change with an answer writes ``deadline_at``.
    """

    order: Order
    attempts: list[Attempt] = []
    steps: list[Step] = []
    lease: tuple[int, float] | None = None
    only_expired: int | None = None
    answer: Answer | None = None
