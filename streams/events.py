"""The facts that travel: one struct per event of the contract, its envelope, and its deterministic id.

Readers ignore unknown fields; fields are only ever added, with defaults. Money is a decimal string beside its ISO
currency, an instant is RFC 3339 UTC. The wire form is CloudEvents 1.0 in Kafka's binary mode.
"""

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

import msgspec

from streams.errors import EventError
from streams.order import CommandAction

Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:-]{1,64}\Z", description="1-64 of [A-Za-z0-9._:-]")]
Text = Annotated[str, msgspec.Meta(max_length=4000)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
Headers = list[tuple[str, bytes]]

SOURCE = "orderwatch"
CONTENT_TYPE = "application/json"


class Amount(msgspec.Struct, frozen=True):
    """Money on the wire."""

    amount: Decimal
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every event has: a CloudEvents type and an id made of what it says."""

    TYPE: ClassVar[str]

    def identity(self) -> tuple[object, ...]:
        """What makes this fact this fact; equal identities give equal ``ce_id``."""
        raise NotImplementedError


class Created(Event, frozen=True, kw_only=True):
    """A customer's order, as the shop says it. Key: order id."""

    TYPE: ClassVar[str] = "orderwatch.order.created.v1"

    order_id: Id
    tenant_id: Id
    package_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    user_identifier: Annotated[str, msgspec.Meta(max_length=500)]
    created_at: Instant
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    extra_field: Text | None = None
    customer_phone: Annotated[str, msgspec.Meta(max_length=100)] | None = None
    params: dict[str, Text] | None = None
    sell_price: Amount | None = None

    def identity(self) -> tuple[object, ...]:
        return (self.tenant_id, self.order_id)

    def fingerprint(self) -> str:
        """sha256 of what was ordered; ``created_at`` and the price do not make another order."""
        content = (
            self.package_id,
            self.quantity,
            self.user_identifier,
            self.extra_field or "",
            self.customer_phone or "",
            sorted((self.params or {}).items()),
        )
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


class Referenced(Event, frozen=True, kw_only=True):
    """An attempt was placed at a provider under our reference."""

    TYPE: ClassVar[str] = "orderwatch.order.referenced.v1"

    order_id: Id
    tenant_id: Id
    attempt: int
    integration_id: str
    provider: str
    provider_referans: str
    external_status: str
    sent_at: Instant
    external_order_id: str | None = None
    cost: Amount | None = None
    provider_balance: Amount | None = None

    def identity(self) -> tuple[object, ...]:
        """What is learned later, the provider's id or another cost, is another fact with another id."""
        later = () if self.external_order_id is None and self.cost is None else (self.external_order_id, str(self.cost))
        return (self.tenant_id, self.order_id, self.attempt, *later)


class Check(Event, frozen=True, kw_only=True):
    """A question that is due at ``due_at``. Attempt 0 asks for the next dispatch of an order with no live attempt."""

    TYPE: ClassVar[str] = "orderwatch.order.check.v1"

    order_id: Id
    tenant_id: Id
    attempt: Annotated[int, msgspec.Meta(ge=0)]
    check_number: Annotated[int, msgspec.Meta(ge=0)]
    due_at: Instant
    reason: str

    def identity(self) -> tuple[object, ...]:
        return (self.tenant_id, self.order_id, self.attempt, self.check_number, self.reason, self.due_at)


class StatusChanged(Event, frozen=True, kw_only=True):
    """Where an order stands now. ``version`` only grows per order."""

    TYPE: ClassVar[str] = "orderwatch.order.status-changed.v1"

    order_id: Id
    tenant_id: Id
    version: Annotated[int, msgspec.Meta(ge=1)]
    status: str
    external_status: str
    previous_external_status: str
    reason: str
    checks: int
    occurred_at: Instant
    attempt: int | None = None
    integration_id: str | None = None
    provider_referans: str | None = None
    message: str | None = None
    pins: list[str] | None = None
    cost: Amount | None = None
    delivered_quantity: int | None = None
    refunded: Amount | None = None

    def identity(self) -> tuple[object, ...]:
        return (self.tenant_id, self.order_id, self.version)


class Attention(Event, frozen=True, kw_only=True):
    """Something waits for a person. ``discriminator`` keeps thresholds of the same code apart."""

    TYPE: ClassVar[str] = "orderwatch.order.attention.v1"

    code: str
    message: str
    since: Instant
    order_id: Id | None = None
    tenant_id: Id | None = None
    integration_id: str | None = None
    discriminator: str = ""

    def identity(self) -> tuple[object, ...]:
        return (self.tenant_id, self.order_id, self.integration_id, self.code, self.discriminator)


class Command(Event, frozen=True, kw_only=True):
    """What a person asks for. The same ``command_id`` is carried out once, and keeps its first answer.

    ``issued_at`` is by the database's clock: what was sent after it, the person cannot have known about. ``attempt``
    0 is the order itself. ``outcome`` goes with ``resolve``, ``integration_id`` with ``send_to``. ``acknowledge`` is
    about ``attentions`` (ids), ``replay`` about ``letters`` (ids) or, with ``fix``, about one letter with these fields
    corrected: both about no order, and only about what is ``tenant_id``'s, if one is given. The others need an order.
    """

    TYPE: ClassVar[str] = "orderwatch.order.command.v1"

    command_id: Id
    order_id: Id | None = None
    tenant_id: Id | None = None
    action: CommandAction
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=4000)]
    by: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    issued_at: Instant
    attempt: Annotated[int, msgspec.Meta(ge=0)] | None = None
    outcome: Literal["accepted", "completed", "failed", "not_sent"] | None = None
    integration_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    evidence: Text | None = None
    attentions: Annotated[list[Text], msgspec.Meta(max_length=1000)] | None = None
    letters: Annotated[list[int], msgspec.Meta(max_length=1000)] | None = None
    fix: dict[str, Any] | None = None

    @property
    def tenant(self) -> str:
        """The tenant that it is about; empty when it is about no single one."""
        return self.tenant_id or ""

    @property
    def order(self) -> tuple[str, str]:
        """Tenant and id of the order that it is about."""
        assert self.tenant_id is not None and self.order_id is not None, "decoding refuses it"
        return self.tenant_id, self.order_id

    def lacks(self) -> str | None:
        """The field that the action needs and that is not there."""
        needed = {CommandAction.ACKNOWLEDGE: ("attentions",), CommandAction.REPLAY: ("letters",)}
        names = needed.get(self.action, ("order_id", "tenant_id"))
        return next((name for name in names if getattr(self, name) is None), None)

    def identity(self) -> tuple[object, ...]:
        return (self.tenant_id, self.order_id, self.command_id)


EVENTS: tuple[type[Event], ...] = (Created, Referenced, Check, StatusChanged, Attention, Command)

_encoder = msgspec.json.Encoder(decimal_format="string")
_E = TypeVar("_E", bound=Event)
_decoders: dict[type[Event], msgspec.json.Decoder[Event]] = {kind: msgspec.json.Decoder(kind) for kind in EVENTS}
_INSTANT = "RFC 3339 with a time zone, like 2026-01-31T12:00:00Z"
_PATH = re.compile(r" - at `(?P<path>[^`]*)`$")
_MISSING = re.compile(r"missing required field `(?P<name>[^`]*)`")


def encode(event: Event) -> bytes:
    """The JSON value of an event."""
    return _encoder.encode(event)


def decode(kind: type[_E], value: bytes | None) -> _E:
    """Read one event. Raises ``EventError`` naming the field and what was expected, never its content."""
    if not value:
        raise EventError(f"{kind.TYPE}: the value is empty; expected a JSON object")
    try:
        event = _decoders[kind].decode(value)
    except msgspec.ValidationError as error:
        raise EventError(f"{kind.TYPE}: {_field_and_expectation(kind, str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EventError(f"{kind.TYPE}: the value is not JSON in UTF-8 ({type(error).__name__})") from None
    except RecursionError:  # a field we would ignore can still nest deep enough to exhaust the C stack's guard
        raise EventError(f"{kind.TYPE}: the value is nested too deeply; expected a flat JSON object") from None
    assert isinstance(event, kind)
    _check(event, b"\\u0000" in value)  # JSON has no other way to write a NUL
    return event


def _field_and_expectation(kind: type[Event], text: str) -> str:
    path = _PATH.search(text)
    what = _PATH.sub("", text)
    name = path["path"].removeprefix("$").lstrip(".") if path else ""
    missing = _MISSING.search(what)
    if missing:
        return f"{name}.{missing['name']}".lstrip(".") + ": missing; it is required"
    if "matching regex" in what and name.endswith("_id"):
        what = "Expected 1-64 characters of [A-Za-z0-9._:-]"
    if what.startswith("Invalid enum value"):  # it would quote the value
        what = f"Expected one of {', '.join(_words(kind, name))}"
    if "datetime" in what:
        what = f"Expected {_INSTANT}"
    return f"{name or 'value'}: {what[:200]}"


def _words(kind: type[Event], name: str) -> list[str]:
    """What a field may say that takes one of a few words."""
    said = next((field.type for field in msgspec.structs.fields(kind) if field.name == name), None)
    parts = [said, *get_args(said)]
    words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    words += [word.value for part in parts if isinstance(part, type) and issubclass(part, Enum) for word in part]
    return words or ["the documented words"]


def _check(event: Event, may_hold_nul: bool) -> None:
    """What the type system does not say: text, money and instants that PostgreSQL can store."""
    if isinstance(event, Command) and (lacking := event.lacks()) is not None:
        raise EventError(f"{event.TYPE}: {lacking}: missing; {event.action.value} requires it")
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if isinstance(value, datetime) and not 1 < value.year < 9999:  # in UTC it could be the year 0 or 10000
            raise EventError(f"{event.TYPE}: {name}: is at the end of the calendar; expected {_INSTANT}")
        if isinstance(value, Amount) and not _is_money(value.amount):
            raise EventError(
                f"{event.TYPE}: {name}.amount: is not a finite amount of at most 15 digits "
                "before and 10 after the point; expected a decimal string, like 12.50"
            )
        if may_hold_nul and _has_nul(value):
            raise EventError(f"{event.TYPE}: {name}: holds a NUL character; expected text")


def _is_money(amount: Decimal) -> bool:
    return amount.is_finite() and amount.adjusted() < 15 and int(amount.as_tuple().exponent) >= -10


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    if isinstance(value, list):
        return any(_has_nul(item) for item in value)
    return False


def event_id(event: Event) -> str:
    """Deterministic id: the same fact emitted twice carries the same one, in whatever zone its instants are written."""
    text = "\x1f".join([event.TYPE, *map(_part, event.identity())])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _part(part: object) -> str:
    return str(_in_utc(part) if isinstance(part, datetime) else part)


def _in_utc(at: datetime) -> datetime:
    return at if at.tzinfo is UTC else at.astimezone(UTC)


def headers(
    event: Event, *, source: str = SOURCE, at: datetime | None = None, extra: Iterable[tuple[str, bytes]] = ()
) -> Headers:
    """CloudEvents 1.0 attributes as Kafka headers (binary mode); ``at`` is the instant of the fact, default now."""
    subject = getattr(event, "order_id", None)
    made: Headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id(event).encode()),
        *_same_for_all(event.TYPE, source),
        ("ce_time", rfc3339(at or datetime.now(UTC)).encode()),
    ]
    if subject:
        made.append(("ce_subject", subject.encode()))
    made += extra
    return made


@lru_cache
def _same_for_all(kind: str, source: str) -> tuple[tuple[str, bytes], ...]:
    """The attributes that every event of a type and source shares."""
    return (("ce_source", source.encode()), ("ce_type", kind.encode()), ("content-type", CONTENT_TYPE.encode()))


def header(headers: Iterable[tuple[str, bytes | None]] | None, name: str) -> str | None:
    """The first header of that name as text; None when it is absent or empty."""
    for key, value in headers or ():
        if key == name and value:
            return value.decode(errors="replace")
    return None


def rfc3339(at: datetime) -> str:
    """UTC with a Z, as the contract writes instants."""
    return _in_utc(at).isoformat().replace("+00:00", "Z")
