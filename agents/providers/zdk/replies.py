"""Reading ZDK, the software of barakat and apstore. Pure functions; they never raise, whatever the text is.

An error code is looked for first, then the decision word of the order itself; the outer ``status`` only says that the
request was understood. A word that is not in the table settles nothing.
PINs leave these functions in plain text; the adapter seals them at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agents.providers.base import Ask, Balance, Money, Placed, PlacedAnswer, Refusal, Seen, StatusAnswer
from agents.providers.money import read_amount
from agents.providers.text import fold, hide, is_html, one_line
from agents.providers.wire import placement_by_status, question_by_status
from agents.providers.zdk.body import (
    Document,
    decision,
    error_code,
    first_id,
    ids_of,
    named,
    note_of,
    order_of,
    orders_in,
    read_document,
    redact,
    redact_document,
    rows_of,
    says_error,
    texts,
)


class Code(StrEnum):
    """What an error code can mean when it is not a refusal."""

    RETRY_LATER = "retry_later"
    AMBIGUOUS = "ambiguous"
    HARMLESS = "harmless"


#: Decision words. A shop's own words are added by option ``words``.
WORDS: Mapping[str, Seen] = {
    "accept": Seen.SUCCEEDED,
    "success": Seen.SUCCEEDED,
    "wait": Seen.PENDING,
    "pending": Seen.PENDING,
    "processing": Seen.PENDING,
    "reject": Seen.FAILED,
}

#: Error codes. Shops that use them otherwise override them by option ``error_codes``.
CODES: Mapping[int, Refusal | Code] = {
    0: Code.HARMLESS,
    200: Code.HARMLESS,
    100: Refusal.FUNDS,
    105: Refusal.STOCK,
    106: Refusal.QUANTITY,
    107: Refusal.PLAYER,
    108: Refusal.ACCESS,
    109: Refusal.PACKAGE,
    110: Refusal.STOCK,
    111: Code.RETRY_LATER,
    112: Refusal.QUANTITY,
    113: Refusal.QUANTITY,
    114: Code.AMBIGUOUS,
    120: Refusal.ACCESS,
    121: Refusal.ACCESS,
    122: Refusal.ACCESS,
    123: Refusal.ACCESS,
    130: Code.RETRY_LATER,
    429: Code.RETRY_LATER,
    500: Code.AMBIGUOUS,
}

_RETRY_AFTER_S = 60.0
_REASONS = (
    (Refusal.FUNDS, ("balance", "bakiye", "fund")),
    (Refusal.ACCESS, ("token", "not allowed", "permission")),
    (Refusal.STOCK, ("stock", "stok", "not available")),
    (Refusal.PACKAGE, ("product", "package")),
    (Refusal.PLAYER, ("player",)),
    (Refusal.QUANTITY, ("quantity",)),
)
_UNSURE = ("unknown", "internal", "timeout", "timed out", "server error", "try again")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one shop speaks: its words and codes, the currency of the account, and the texts to mask."""

    currency: str
    words: Mapping[str, Seen] = field(default_factory=lambda: WORDS)
    codes: Mapping[int, Refusal | Code] = field(default_factory=lambda: CODES)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def code(self, document: Document) -> int | None:
        harmless = [code for code, meaning in self.codes.items() if meaning is Code.HARMLESS]
        return error_code(document, harmless)

    def note(self, document: Document) -> str:
        """The provider's words, without what can be a PIN."""
        pins = tuple(texts(document.get("pin")))
        return one_line(hide(note_of(document), pins), self.secrets)


def read_placement(
    reference: str,
    status: int,
    text: str,
    dialect: Dialect,
    *,
    delivers_pin: bool = False,
    retry_after_s: float | None = None,
) -> PlacedAnswer:
    """Answer of ``newOrder``. A decision word counts only together with the provider's order id."""
    raw = redact(text, dialect.secrets)
    document = read_document(text)
    if document is None or 300 <= status < 400 or status == 408:
        return placement_by_status(status, retry_after_s, raw, **_unreadable(text))
    note, code, row = dialect.note(document), dialect.code(document), order_of(document)
    if code is not None and not any(_may_live(order, dialect) for order in orders_in(document)):
        return _by_code(code, note, retry_after_s, raw, dialect)
    word = decision(row) or decision(document)
    if code is None and word is None and not any(map(named, orders_in(document))):
        if says_error(document) and status != 429:
            return _by_envelope(status, fold(note_of(document)), note, raw)
        if not 200 <= status < 300:
            return placement_by_status(status, retry_after_s, raw, message=note)
    if code is not None or says_error(document) or says_error(row) or not 200 <= status < 300:
        message = f"an order inside an error (HTTP {status})"
        return PlacedAnswer(Placed.AMBIGUOUS, first_id(row), message=message, flags=("contradiction",), raw=raw)
    if _is_of_another({**document, **row}, reference):
        return PlacedAnswer(
            Placed.AMBIGUOUS, first_id(row), message="an order under another uuid", flags=("unrecognised",), raw=raw
        )
    return _by_word(row, word, dialect, delivers_pin, raw)


def _by_word(row: Document, word: str | None, dialect: Dialect, delivers_pin: bool, raw: str) -> PlacedAnswer:
    external_id, seen = first_id(row), dialect.words.get(word or "")
    if external_id is None or seen is None:
        message = "not an order with an id and a known word"
        return PlacedAnswer(Placed.AMBIGUOUS, external_id, message=message, flags=("unrecognised",), raw=raw)
    flags = ("idempotent_hit",) if row.get("reused") is True or row.get("duplicate") is True else ()
    kind = {
        Seen.SUCCEEDED: Placed.COMPLETED,
        Seen.PENDING: Placed.ACCEPTED,
        Seen.FAILED: Placed.REFUSED_AFTER_ACCEPT,
    }.get(seen, Placed.AMBIGUOUS)
    pins, message = _delivered(row, seen, dialect, delivers_pin)
    return PlacedAnswer(kind, external_id, _price(row, dialect), pins=pins, message=message, flags=flags, raw=raw)


def _by_code(code: int, note: str, retry_after_s: float | None, raw: str, dialect: Dialect) -> PlacedAnswer:
    meaning = dialect.codes.get(code)
    flags: tuple[str, ...] = (_flag(code),)
    if meaning is Code.RETRY_LATER:
        wait_s = _RETRY_AFTER_S if retry_after_s is None else retry_after_s
        return PlacedAnswer(Placed.RETRY_LATER, message=note, retry_after_s=wait_s, flags=flags, raw=raw)
    if not isinstance(meaning, Refusal):
        return PlacedAnswer(Placed.AMBIGUOUS, message=note, flags=flags, raw=raw)
    if meaning is Refusal.PACKAGE:
        flags = (*flags, "mapping")
    tripped = meaning is Refusal.ACCESS
    return PlacedAnswer(Placed.REJECTED, reason=meaning, message=note, tripped=tripped, flags=flags, raw=raw)


def _may_live(order: Document, dialect: Dialect) -> bool:
    """Whether this is an order that was not rejected: beside an error code nobody knows which of them holds."""
    return named(order) and dialect.words.get(decision(order) or "") is not Seen.FAILED


def _by_envelope(status: int, words: str, note: str, raw: str) -> PlacedAnswer:
    """An error without a code: a refusal, unless the server or its words are in doubt."""
    if status >= 500 or any(word in words for word in _UNSURE):
        return PlacedAnswer(Placed.AMBIGUOUS, message=note, flags=("no_code",), raw=raw)
    reason = next((reason for reason, found in _REASONS if any(word in words for word in found)), Refusal.OTHER)
    if status in (401, 403):
        reason = Refusal.ACCESS
    tripped = reason is Refusal.ACCESS
    return PlacedAnswer(Placed.REJECTED, reason=reason, message=note, tripped=tripped, flags=("no_code",), raw=raw)


def read_statuses(
    asks: Sequence[Ask], status: int, text: str, dialect: Dialect, *, by_uuid: bool, retry_after_s: float | None = None
) -> list[StatusAnswer]:
    """Answer of ``check``: one per ask, matched by id. An absent row of a well-formed list is NOT_FOUND.

    The vendor's rows carry no uuid. Asked ``by_uuid`` for one order, a single such row is its answer; of several
    orders nobody can tell whose it is, and the unmatched ones are QUERY_ERROR with flag ``anonymous_rows``.
    """
    raw = redact(text, dialect.secrets)
    document = read_document(text, rows_allowed=True)
    code = dialect.code(document) if document is not None else None
    if document is not None and code is not None:
        meaning = dialect.codes.get(code)
        if meaning is Code.RETRY_LATER and retry_after_s is None:
            retry_after_s = _RETRY_AFTER_S
        failed = StatusAnswer(
            Seen.QUERY_ERROR,
            message=dialect.note(document),
            retry_after_s=retry_after_s,
            tripped=meaning is Refusal.ACCESS,
            flags=(_flag(code),),
            raw=raw,
        )
        return [failed] * len(asks)
    if status != 200:
        return [question_by_status(status, retry_after_s, raw)] * len(asks)
    rows = rows_of(document) if document is not None else None
    if rows is None:
        message = "the answer is a page" if is_html(text) else "the answer is not a list of orders"
        return [StatusAnswer(Seen.QUERY_ERROR, message=message, flags=("unreadable",), raw=raw)] * len(asks)
    nameless = [row for row in rows if not any(_belongs(row, ask) for ask in asks) and _anonymous(row, by_uuid)]
    return [_answer_of(ask, asks, rows, nameless, dialect, by_uuid) for ask in asks]


def _answer_of(
    ask: Ask,
    asks: Sequence[Ask],
    rows: Sequence[Document],
    nameless: Sequence[Document],
    dialect: Dialect,
    by_uuid: bool,
) -> StatusAnswer:
    own = [row for row in rows if _belongs(row, ask)]
    if not own and nameless:
        owned = any(_is_of_another(row, ask.reference) for row in nameless)
        if not by_uuid or owned or len(asks) > 1 or len(rows) > 1 or ask.external_id is not None:
            return StatusAnswer(Seen.QUERY_ERROR, message="a row cannot be told apart", flags=("anonymous_rows",))
        own = list(nameless)
    if not own:
        return StatusAnswer(Seen.NOT_FOUND, message="the provider does not list this order")
    answers = [_read_row(row, ask, dialect) for row in own]
    if any(answer.kind is not answers[0].kind for answer in answers):
        return StatusAnswer(Seen.UNRECOGNISED, message="rows of one order contradict each other", raw=answers[0].raw)
    return answers[0]


def _read_row(row: Document, ask: Ask, dialect: Dialect) -> StatusAnswer:
    word = None if says_error(row) else decision(row)
    seen = dialect.words.get(word or "")
    external_id, cost, raw = first_id(row), _price(row, dialect), redact_document(row, dialect.secrets)
    if seen is None:
        message = f"unknown word {one_line(word or '', dialect.secrets)[:40]!r}"
        return StatusAnswer(Seen.UNRECOGNISED, external_id, cost, message=message, raw=raw)
    pins, message = _delivered(row, seen, dialect, ask.delivers_pin)
    return StatusAnswer(seen, external_id, cost, pins=pins, message=message, raw=raw)


def _is_of_another(row: Document, reference: str) -> bool:
    """Whether a row says that it is not ours."""
    owner = row.get("order_uuid")
    return bool(owner) and (not isinstance(owner, str) or owner.lower() != reference.lower())


def _belongs(row: Document, ask: Ask) -> bool:
    owner = row.get("order_uuid")
    if isinstance(owner, str) and owner:
        return owner.lower() == ask.reference.lower()
    ids = ids_of(row)
    return ask.reference.lower() in (value.lower() for value in ids) or ask.external_id in ids


def _anonymous(row: Document, by_uuid: bool) -> bool:
    """Whether nobody can tell whose row this is: asked by uuid, the provider's own id says nothing."""
    owner = row.get("order_uuid")
    return not (isinstance(owner, str) and owner) and (by_uuid or not ids_of(row))


def _delivered(row: Document, seen: Seen, dialect: Dialect, delivers_pin: bool) -> tuple[tuple[str, ...], str]:
    """PINs and message of an order. ``pin`` is a PIN; ``replay_api`` is one only where the mapping says so, and is
    not repeated before the end of such an order."""
    pins, replies = tuple(texts(row.get("pin"))), tuple(texts(row.get("replay_api")))
    if delivers_pin and not pins and seen is not Seen.FAILED:
        pins, replies = replies, ()
    message = one_line(hide(" ".join(replies) or note_of(row), pins), dialect.secrets)
    return (pins if seen is Seen.SUCCEEDED else ()), message


def _price(row: Document, dialect: Dialect) -> Money | None:
    for key, currency in (("price", dialect.currency), ("price_usd", "USD")):
        amount = read_amount(row.get(key))
        if amount is not None:
            return Money(amount, currency)
    return None


def read_profile(status: int, text: str, dialect: Dialect) -> Balance:
    """Answer of ``profile``; a balance that is missing is unknown, never zero."""
    document = read_document(text)
    if document is None:
        reason = "html: the answer is a page" if is_html(text) else f"unreadable answer (HTTP {status})"
        return Balance(None, reason, tripped=status in (401, 403))
    code = dialect.code(document)
    if code is not None:
        access = dialect.codes.get(code) is Refusal.ACCESS
        return Balance(None, f"{'access' if access else 'refused'}: {_flag(code)}", tripped=access)
    if status != 200:
        return Balance(None, f"HTTP {status}", tripped=status in (401, 403))
    inner = document.get("data")
    body = inner if isinstance(inner, dict) else document
    amount = read_amount(body.get("balance"))
    if amount is None:
        return Balance(None, "the answer has no readable balance")
    return Balance(Money(amount, _iso(body.get("currency")) or dialect.currency))


def _flag(code: int) -> str:
    """The machine word of an error code; a number that is none is not repeated."""
    return f"code_{code}" if 0 <= code < 100_000 else "code_unreadable"


def _iso(value: object) -> str | None:
    code = value.strip().upper() if isinstance(value, str) else ""
    return code if len(code) == 3 and code.isascii() and code.isalpha() else None


def _unreadable(text: str) -> dict[str, Any]:
    if not text:
        return {"message": "empty answer", "flags": ("empty",)}
    if is_html(text):
        return {"message": "the answer is a page, not JSON", "flags": ("html",)}
    return {"flags": ("unrecognised",)}
