"""What every provider offers, and the shape of its answers.

An adapter is a wire codec with a capability profile: it knows no Kafka and no database, decides nothing about
orders and never retries. The engine reads the profile and the answers; it has no branch on a provider's name.
Source of the outcome classes: the provider protocol notes, section 6.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from streams.errors import InvalidOrder

#: Plain PIN -> sealed PIN. Adapters call it before a PIN leaves them.
Seal = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Money:
    """A decimal amount and its ISO currency. Unknown money is ``None``, never zero."""

    amount: Decimal
    currency: str


class Refusal(StrEnum):
    """Why a provider would not take an order."""

    FUNDS = "funds"
    STOCK = "stock"
    PACKAGE = "package"
    PLAYER = "player"
    QUANTITY = "quantity"
    ACCESS = "access"
    OTHER = "other"


class Placed(StrEnum):
    """What one placement taught us."""

    ACCEPTED = "accepted"  # the provider has the order and works on it
    COMPLETED = "completed"  # done already
    REFUSED_AFTER_ACCEPT = "refused_after_accept"  # the order exists and is rejected
    REJECTED = "rejected"  # certainly no order
    RETRY_LATER = "retry_later"  # certainly no order; the same reference again after a delay
    DUPLICATE = "duplicate"  # our reference exists there: ask for its status
    AMBIGUOUS = "ambiguous"  # may exist; only a look-up by our reference can tell
    NOT_SENT = "not_sent"  # proven: no byte of the request reached the provider


class Seen(StrEnum):
    """What one question about a placed attempt taught us."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    NOT_FOUND = "not_found"  # the channel is healthy and the provider does not know our reference
    QUERY_ERROR = "query_error"  # the question failed; says nothing about the order
    UNRECOGNISED = "unrecognised"  # understood as an answer, but not its word; never settles anything
    PARTIAL = "partial"  # final: only ``delivered`` of the ordered units were delivered


@dataclass(frozen=True, slots=True)
class PlacedAnswer:
    """Outcome of one placement.

    ``message`` is the provider's own text for people (no credential, no URL, no PIN). ``reason`` is set for
    REJECTED, and for AMBIGUOUS where a cause is known. ``tripped`` says that the account may be locked out: the lane
    asks for the balance and opens its breaker only when that is refused too. ``flags`` are machine words such as
    ``short_row``. ``raw`` is the redacted body, at most 2,000 characters, kept as evidence. ``pins`` are sealed.
    ``listed`` is False for a REJECTED whose code or text is in no explicit table of the adapter: it starts no
    fallback and is watched. ``delivered`` counts the units that were delivered, where the answer says so;
    ``refunded`` is what the provider gave back.
    """

    kind: Placed
    external_id: str | None = None
    cost: Money | None = None
    balance: Money | None = None
    pins: tuple[str, ...] = ()
    reason: Refusal | None = None
    message: str = ""
    retry_after_s: float | None = None
    tripped: bool = False
    flags: tuple[str, ...] = ()
    raw: str = ""
    listed: bool = True
    delivered: int | None = None
    refunded: Money | None = None


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """Outcome of one status question; fields as in ``PlacedAnswer``. ``pins`` only with SUCCEEDED, and sealed."""

    kind: Seen
    external_id: str | None = None
    cost: Money | None = None
    pins: tuple[str, ...] = ()
    message: str = ""
    retry_after_s: float | None = None
    tripped: bool = False
    flags: tuple[str, ...] = ()
    raw: str = ""
    delivered: int | None = None
    refunded: Money | None = None


@dataclass(frozen=True, slots=True)
class Balance:
    """Account balance; ``money`` is None when it could not be read, with the cause in ``reason``."""

    money: Money | None
    reason: str = ""
    tripped: bool = False


@dataclass(frozen=True, slots=True)
class CatalogueItem:
    """One sellable package of the provider. ``wire`` holds the mapping keys it needs (znet: ``oyun``, ``kupur``).

    ``quantities`` is None (exactly one), a (min, max) pair, or a frozenset of allowed numbers.
    """

    package_id: str
    name: str
    price: Money | None
    wire: Mapping[str, str] = field(default_factory=dict)
    orderable: bool = True
    available: bool = True
    category: str | None = None
    quantities: tuple[int, int] | frozenset[int] | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """One status question. ``reference`` is ours; ``external_id`` the provider's, when it gave one. ``wire`` is what
    the placement sent: the customer's part of it is masked in messages and evidence, should the provider repeat it.
    ``quantity`` is the number of units that the placement ordered."""

    reference: str
    external_id: str | None = None
    delivers_pin: bool = False
    quantity: int = 1
    wire: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """What an order brings to the wire: the accepted ``created`` event, nothing derived."""

    tenant_id: str
    order_id: str
    package_id: str
    quantity: int
    user_identifier: str
    extra_field: str = ""
    customer_phone: str = ""
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """Capabilities; every field can be overridden per integration in config.yaml (``profile:``).

    ``repeat_safe``: the same reference sent twice buys once, for ``repeat_safe_for_s`` seconds after the first send
    (None: for ever). ``look_up``: the provider can be asked by our own reference. ``batch``: references per status
    request. An order counts as absent after ``absent_answers`` consistent not-found answers, the first no earlier
    than ``absent_settle_s`` after the send, spread over at least ``absent_window_s``. ``quantity``: one request can
    buy several units; otherwise the engine makes one line per unit. ``watch``: a final answer may still be reversed,
    so settled attempts are asked about for a while. ``fallback_on``: refusals after which another
    integration may be tried.
    """

    repeat_safe: bool
    look_up: bool
    batch: int
    quantity: bool
    absent_settle_s: float = 60.0
    absent_answers: int = 3
    absent_window_s: float = 300.0
    repeat_safe_for_s: float | None = None
    two_phase: bool = False
    watch: bool = True
    fallback_on: frozenset[Refusal] = frozenset({Refusal.FUNDS, Refusal.STOCK, Refusal.PACKAGE})


#: Bytes of an answer on the way of an order; a longer one is not read to its end.
MAX_BODY = 256 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer, read whole. ``charset`` is the one declared by the server, if any."""

    status: int
    body: bytes
    charset: str | None = None
    retry_after_s: float | None = None


class Http(Protocol):
    """The only way an adapter reaches the network; see ``agents.providers.http``.

    ``fetch`` sends exactly one request: never a retry, never a redirect (a 3xx is a Reply). Raises ``NotSent`` when no
    byte can have left, ``OutcomeUnknown`` for everything else that is not a whole readable answer, such as one longer
    than ``max_body`` bytes (a catalogue may need more than the default).
    """

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        max_body: int = MAX_BODY,
    ) -> Reply: ...


class Stock(Protocol):
    """Codes kept in our own database, for the ``codes`` provider. Values are sealed."""

    async def take(self, tenant_id: str, group: str, reference: str, quantity: int) -> Sequence[str] | None:
        """The sealed codes of this reference: the same ones on every call; None when the group has too few."""

    async def taken(self, reference: str) -> Sequence[str]:
        """The sealed codes already given to this reference; empty when none."""

    async def left(self, tenant_id: str, group: str) -> int:
        """How many codes of this group are still available; may stop counting at 1,000."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What an adapter is built from. ``credentials`` are plain values: never log, format or store them."""

    integration_id: str
    tenant_id: str
    currency: str
    http: Http
    seal: Seal
    stock: Stock | None = None
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)


class Provider(Protocol):
    """One adapter class per provider; the entry point group ``orderwatch.providers`` names it.

    Class attributes let the configuration be checked without building anything: ``credentials`` are the required
    credential names, ``mapping_keys`` the wire keys that each mapping must carry, ``options`` the option names it
    understands, ``currency`` the only currency it can have (None: must be configured).
    """

    profile: ClassVar[Profile]
    credentials: ClassVar[frozenset[str]]
    mapping_keys: ClassVar[frozenset[str]]
    options: ClassVar[frozenset[str]]
    currency: ClassVar[str | None]

    def __init__(self, setup: Setup) -> None: ...

    @staticmethod
    def reference(tenant_id: str, order_id: str, attempt: int) -> str:
        """Our own unique id of this attempt: the same bytes for the same three arguments, for ever."""

    def prepare(self, order: OrderFacts, mapping: Mapping[str, Any], quantity: int) -> dict[str, str]:
        """The wire parameters of a placement, without credentials and reference; stored with the attempt.

        ``mapping`` is the mapping block of config.yaml as plain data. Raises ``InvalidOrder`` naming the field when
        something required is missing.
        """

    async def place(self, reference: str, wire: Mapping[str, str]) -> PlacedAnswer:
        """Ask the provider to buy. Exactly one request; never raises for what the provider or the network does."""

    async def check(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        """Status of accepted attempts: one answer per ask, in the order of ``asks``; at most ``profile.batch``."""

    async def look_up(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        """Does the provider know these references? NOT_FOUND only while the channel is proven healthy."""

    async def balance(self) -> Balance:
        """Balance of the account."""

    async def catalogue(self) -> Sequence[CatalogueItem]:
        """Everything sellable. Raises ``ProviderError`` when it cannot be read; never used on the way of an order."""


_OPEN, _CLOSE = "{", "}"


def fill(template: str, order: OrderFacts, quantity: int, key: str) -> str:
    """Fill ``{user_identifier}``, ``{extra_field}``, ``{customer_phone}``, ``{quantity}``, ``{order_id}`` and
    ``{params.NAME}``. Raises ``InvalidOrder`` naming ``key`` and the field when the order lacks it."""
    values = {
        "user_identifier": order.user_identifier,
        "extra_field": order.extra_field,
        "customer_phone": order.customer_phone,
        "order_id": order.order_id,
        "quantity": str(quantity),
        **{f"params.{name}": value for name, value in order.params.items()},
    }
    parts: list[str] = []
    rest = template
    while _OPEN in rest:
        before, _, rest = rest.partition(_OPEN)
        name, closed, rest = rest.partition(_CLOSE)
        value = values.get(name, "").strip()
        if not closed or not value:
            raise InvalidOrder(f"{key}: the order has no {name!r}, which the mapping needs")
        parts += (before, value)
    return "".join((*parts, rest)).strip()
