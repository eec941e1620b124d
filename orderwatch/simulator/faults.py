"""The ways a provider can misbehave, and which request is hit by which."""

import hashlib
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal

import msgspec


class FaultKind(StrEnum):
    """What happens to one request. "After" and "before" speak of the purchase."""

    TIMEOUT_AFTER = "timeout_after"  # buys, then holds the connection open without a byte
    TIMEOUT_BEFORE = "timeout_before"
    HANG_UP_AFTER = "hang_up_after"  # buys, then closes the connection without a byte
    HANG_UP_BEFORE = "hang_up_before"
    RESET_AFTER = "reset_after"  # as hang_up, with a TCP reset
    RESET_BEFORE = "reset_before"
    ERROR_AFTER = "error_after"  # buys, then an HTTP error of ``status``
    ERROR_BEFORE = "error_before"
    EXECUTE_TWICE = "execute_twice"  # buys two times, answers once
    HIDE = "hide"  # buys and answers; look-ups do not see it for a while (``hidden_*``)
    REVERSE = "reverse"  # place: the order is called off after its first success; check: at once
    REFUSE = "refuse"  # a business refusal with ``code`` and ``text``
    LOCK_OUT = "lock_out"  # as if the caller's address were not allowed
    STALE = "stale"  # check: every order still looks as on its first day
    SLOW = "slow"  # ``ms`` more before the first byte
    DRIP = "drip"  # the body arrives byte by byte, ``ms`` apart
    HTML = "html"
    EMPTY = "empty"
    TRUNCATED = "truncated"  # half of the promised body, then closed
    WRONG_CHARSET = "wrong_charset"  # windows-1254 bytes, not declared
    PHP_WARNING = "php_warning"  # a warning of PHP in front of the answer
    REDIRECT = "redirect"  # 302 to the same request
    HUGE = "huge"  # 10 MB of spaces behind the answer
    GZIP_BOMB = "gzip_bomb"  # 100 MB behind the answer, compressed
    SAY = "say"  # ``text`` as it is in the place of the answer, with HTTP ``status`` (200)
    FIREWALL = "firewall"  # a page of HTTP ``status`` (403); the shop never sees the request
    SECOND_ANSWER = "second_answer"  # another whole answer (``text``, or the same again) follows on the connection
    LATE_408 = "late_408"  # an HTTP 408 that nobody asked for follows, and the connection stays open
    UNKNOWN_WORD = "unknown_word"  # the state is the word ``text`` ("review"; znet "7")
    STRANGER = "stranger"  # the row is of another order: ``field`` differs; znet, which repeats nothing, adds its PIN
    TWO_ROWS = "two_rows"  # one more order, with another PIN, under the same reference
    CONTRADICTION = "contradiction"  # inner and outer state say different things
    PARTIAL = "partial"  # one code fewer than there are units
    PLACEHOLDER = "placeholder"  # the word ``text`` ("null") where the codes belong
    CODE_IN_MESSAGE = "code_in_message"  # the codes stand in the text for people, none where it belongs
    LATE_PIN = "late_pin"  # success at once, the PIN with the third answer that says so
    RELAPSE = "relapse"  # success once, then twice in work again, then called off
    COST = "cost"  # the cost that is told is the true one times ``factor``; what is taken stays the same
    SAME_ID = "same_id"  # the order gets the id of the account's order before it
    SAME_PIN = "same_pin"  # the order delivers the PIN of the account's order before it


#: Purchases made by one hit placement; 1 where a kind is not listed.
EXECUTIONS = {
    FaultKind.TIMEOUT_BEFORE: 0,
    FaultKind.HANG_UP_BEFORE: 0,
    FaultKind.RESET_BEFORE: 0,
    FaultKind.ERROR_BEFORE: 0,
    FaultKind.REFUSE: 0,
    FaultKind.LOCK_OUT: 0,
    FaultKind.REDIRECT: 0,
    FaultKind.FIREWALL: 0,
    FaultKind.EXECUTE_TWICE: 2,
}

#: Kinds that only make sense for one kind of request.
ONLY_FOR = {
    FaultKind.EXECUTE_TWICE: frozenset({"place"}),
    FaultKind.HIDE: frozenset({"place"}),
    FaultKind.REVERSE: frozenset({"place", "check"}),
    FaultKind.STALE: frozenset({"check"}),
    FaultKind.UNKNOWN_WORD: frozenset({"place", "check"}),
    FaultKind.STRANGER: frozenset({"check"}),
    FaultKind.TWO_ROWS: frozenset({"check"}),
    FaultKind.CONTRADICTION: frozenset({"place", "check"}),
    FaultKind.PARTIAL: frozenset({"check"}),
    FaultKind.PLACEHOLDER: frozenset({"check"}),
    FaultKind.CODE_IN_MESSAGE: frozenset({"check"}),
    FaultKind.LATE_PIN: frozenset({"place"}),
    FaultKind.RELAPSE: frozenset({"place"}),
    FaultKind.COST: frozenset({"place", "check"}),
    FaultKind.SAME_ID: frozenset({"place"}),
    FaultKind.SAME_PIN: frozenset({"place"}),
}

#: Kinds that change what a whole answer says about an order.
UNTRUE = frozenset(
    {
        FaultKind.UNKNOWN_WORD,
        FaultKind.STRANGER,
        FaultKind.TWO_ROWS,
        FaultKind.CONTRADICTION,
        FaultKind.PARTIAL,
        FaultKind.PLACEHOLDER,
        FaultKind.CODE_IN_MESSAGE,
        FaultKind.COST,
    }
)

#: HTTP status of an answer that a fault makes; 503 where a kind is not listed.
STATUSES = {FaultKind.SAY: 200, FaultKind.FIREWALL: 403}

Operation = Literal["place", "check", "balance", "catalogue"]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule: which requests are hit, how often, and what happens to them.

    ``times`` is the number of requests hit: 1 when absent, no limit when null or when only a probability below 1 is
    given. ``executions`` overrides how many purchases a hit placement makes. ``hidden_checks`` and ``hidden_ms`` keep
    those purchases out of sight of status look-ups, whatever the kind. ``player`` is the whole player id,
    ``player_contains`` a part of it, as a firewall sees it. In ``text`` of ``say`` and of ``second_answer`` the word
    ``{reference}`` stands for the reference that was asked about.
    """

    kind: FaultKind
    operation: Operation = "place"
    package: str | None = None
    player: str | None = None
    player_contains: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    times: Annotated[int, msgspec.Meta(ge=1)] | msgspec.UnsetType | None = msgspec.UNSET
    probability: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    executions: Annotated[int, msgspec.Meta(ge=0, le=10)] | None = None
    hidden_checks: Annotated[int, msgspec.Meta(ge=0)] = 0
    hidden_ms: Annotated[float, msgspec.Meta(ge=0)] = 0
    ms: Annotated[float, msgspec.Meta(ge=0)] = 100
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None  # None: as STATUSES has it
    code: int | None = None  # refuse: None is znet 3, zdk 110
    text: str | None = None
    field: Literal["id", "player", "product", "quantity"] = "id"  # stranger: what is not ours
    factor: Decimal = Decimal(10)  # cost
    retry_after_s: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        allowed = ONLY_FOR.get(self.kind)
        if allowed is not None and self.operation not in allowed:
            raise ValueError(f"operation of {self.kind} is {self.operation!r}; expected {' or '.join(sorted(allowed))}")
        if self.executions is not None and (self.operation != "place" or self.kind is FaultKind.LOCK_OUT):
            raise ValueError("executions of a fault that no purchase can follow; expected operation place, no lock_out")
        if self.kind is FaultKind.HIDE and not (self.hidden_checks or self.hidden_ms):
            raise ValueError("hide without a duration; expected hidden_checks or hidden_ms above 0")
        if self.kind is FaultKind.SAY and self.text is None:
            raise ValueError("say without a text; expected text, which may be empty")
        if self.status is not None and self.status < 400 and self.kind is not FaultKind.SAY:
            raise ValueError(f"status of {self.kind} is {self.status}; expected 400 to 599")
        named = (self.package, self.player, self.player_contains) != (None, None, None)
        if self.operation in ("balance", "catalogue") and named:
            raise ValueError(f"a {self.operation} request has no package and no player; expected neither")

    @property
    def purchases(self) -> int:
        """How many purchases a hit placement makes."""
        return EXECUTIONS.get(self.kind, 1) if self.executions is None else self.executions

    @property
    def http_status(self) -> int:
        """The status of an answer that the fault makes."""
        return STATUSES.get(self.kind, 503) if self.status is None else self.status

    @property
    def limit(self) -> int | None:
        """How many requests may be hit; None: all."""
        if self.times is msgspec.UNSET:
            return 1 if self.probability == 1.0 else None
        return self.times


class Rule:
    """A fault with the number of hits it has left."""

    __slots__ = ("fault", "left", "number")

    def __init__(self, fault: Fault, number: int) -> None:
        self.fault = fault
        self.left = fault.limit
        self.number = number


class Faults:
    """The rules of one account, tried in the order they were given; the first that matches hits.

    Draws depend on the seed, the account, the rule, the reference and how often this reference was drawn for, not on
    the order in which requests arrive: a concurrent run hits the same orders as a sequential one.
    """

    def __init__(self, key: str, faults: tuple[Fault, ...]) -> None:
        self._key = key
        self._rules: dict[str, list[Rule]] = {}
        self._draws: dict[tuple[int, str], int] = {}
        self._count = 0
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Behind the rules there are."""
        self._rules.setdefault(fault.operation, []).append(Rule(fault, self._count))
        self._count += 1

    def pending(self) -> list[dict[str, object]]:
        """The rules that can still hit, with ``left``."""
        rules = sorted((rule for rules in self._rules.values() for rule in rules), key=lambda rule: rule.number)
        return [{**msgspec.to_builtins(rule.fault), "left": rule.left} for rule in rules]

    def watches(self, operation: str) -> bool:
        """Whether any rule could hit such a request."""
        return bool(self._rules.get(operation))

    def hit(self, operation: str, reference: str, goods: list[tuple[str, str]]) -> Fault | None:
        """The fault of this request, which is thereby used up once. ``goods`` are (package, player) pairs."""
        for rule in self._rules.get(operation, ()):
            if matches(rule.fault, goods) and self._drawn(rule, reference):
                if rule.left is not None:
                    rule.left -= 1
                    if not rule.left:
                        self._rules[operation].remove(rule)
                return rule.fault
        return None

    def _drawn(self, rule: Rule, reference: str) -> bool:
        if rule.fault.probability == 1.0:
            return True
        nth = self._draws.get((rule.number, reference), 0)
        self._draws[rule.number, reference] = nth + 1
        return fraction(f"{self._key}:{rule.number}:{reference}:{nth}") < rule.fault.probability


def matches(fault: Fault, goods: list[tuple[str, str]]) -> bool:
    """Whether one of these (package, player) pairs is meant; a rule naming neither means every request."""
    if fault.package is None and fault.player is None and fault.player_contains is None:
        return True
    return any(
        fault.package in (None, package) and fault.player in (None, player) and (fault.player_contains or "") in player
        for package, player in goods
    )


def fraction(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) / (1 << 48)
