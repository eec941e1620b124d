"""Reading ZDK, the software of barakat and apstore. Pure functions; they never raise, whatever the text is.

An error code is looked for first, then the decision word of the order itself; the outer ``status`` only says that the
request was understood. A word that is not in the table settles nothing.
PINs leave these functions in plain text; the adapter seals them at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agents.providers import words
from agents.providers.base import Ask, Balance, Money, Placed, PlacedAnswer, Refusal, Seen, StatusAnswer
from agents.providers.money import read_amount, read_cost
from agents.providers.text import clean, code_like, fold, hide, is_html, one_line, read_pin
from agents.providers.wire import RETRY_AFTER_S, placement_by_status, question_by_status, refused
from agents.providers.zdk.body import (
    HOLDS_PIN,
    Document,
    decision,
    error_code,
    first_id,
    ids_of,
    key_of,
    named,
    note_of,
    order_of,
    orders_in,
    read_document,
    redact,
    redact_document,
    rows_of,
    says_error,
    sentences,
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
    raw = redact(text, dialect.secrets, delivers_pin=delivers_pin, known=(reference,))
    document = read_document(text)
    if document is None or 300 <= status < 400 or status == 408:
        return placement_by_status(status, retry_after_s, raw, **_unreadable(text))
    note, code, row = dialect.note(document), dialect.code(document), order_of(document)
    if code == status and code not in dialect.codes:
        code = None  # an error page as JSON repeats the HTTP status
    orders = orders_in(document)
    if code is not None and not any(_may_live(order, dialect) for order in orders):
        return _by_code(code, status, note, retry_after_s, raw, dialect)
    seen_words = {seen for order in orders if (seen := dialect.words.get(decision(order) or ""))}
    if len(seen_words) > 1 or sum(map(named, orders[1:])) > 1:
        message = "the answer contradicts itself"
        return PlacedAnswer(Placed.AMBIGUOUS, first_id(row), message=message, flags=("contradiction",), raw=raw)
    word = decision(row) or decision(document)
    if not any(map(named, orders)) and seen_words == {Seen.FAILED} and status < 400 and code is None:
        said = " ".join((note_of(document), sentences(row.get("replay_api"))))
        return refused(said, one_line(said, dialect.secrets), status, retry_after_s, raw, ("no_order",))
    if code is None and word is None and not any(map(named, orders[1:] or orders)):
        if says_error(document):
            return refused(note_of(document), note, status, retry_after_s, raw, ("no_code",))
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
    pins, message, odd_pin = _delivered(row, seen, dialect, delivers_pin)
    cost, odd_cost = _price(row, dialect)
    flags = (*flags, *odd_pin, *odd_cost)
    delivered = _units(row, seen, pins, delivers_pin)
    return PlacedAnswer(kind, external_id, cost, pins=pins, message=message, flags=flags, raw=raw, delivered=delivered)


def _by_code(
    code: int, status: int, note: str, retry_after_s: float | None, raw: str, dialect: Dialect
) -> PlacedAnswer:
    meaning = dialect.codes.get(code)
    if words.says_duplicate(note):
        return PlacedAnswer(Placed.DUPLICATE, message=note, flags=(_flag(code),), raw=raw)
    flags: tuple[str, ...] = (_flag(code),)
    if meaning is Code.RETRY_LATER:
        wait_s = RETRY_AFTER_S if retry_after_s is None else retry_after_s
        return PlacedAnswer(Placed.RETRY_LATER, message=note, retry_after_s=wait_s, flags=flags, raw=raw)
    if not isinstance(meaning, Refusal) or status == 409:
        return PlacedAnswer(Placed.AMBIGUOUS, message=note, flags=flags, raw=raw)
    if meaning is Refusal.PACKAGE:
        flags = (*flags, "mapping")
    tripped = meaning is Refusal.ACCESS
    return PlacedAnswer(Placed.REJECTED, reason=meaning, message=note, tripped=tripped, flags=flags, raw=raw)


def _may_live(order: Document, dialect: Dialect) -> bool:
    """Whether this is an order that was not rejected: beside an error code nobody knows which of them holds. A bare
    ``id`` beside an error is the number of the request."""
    is_order = bool(decision(order)) or order.get("order_id") is not None or order.get("orderId") is not None
    return named(order) and is_order and dialect.words.get(decision(order) or "") is not Seen.FAILED


def read_statuses(
    asks: Sequence[Ask], status: int, text: str, dialect: Dialect, *, by_uuid: bool, retry_after_s: float | None = None
) -> list[StatusAnswer]:
    """Answer of ``check``: one per ask, matched by id. An absent row of a well-formed list is NOT_FOUND.

    The vendor's rows carry no uuid. Asked ``by_uuid`` for one order, a single such row is its answer; of several
    orders nobody can tell whose it is, and the unmatched ones are QUERY_ERROR with flag ``anonymous_rows``.
    """
    hold_codes = any(ask.delivers_pin for ask in asks)
    ids = [name for ask in asks for name in (ask.reference, ask.external_id) if name]
    raw = redact(text, dialect.secrets, delivers_pin=hold_codes, known=ids)
    document = read_document(text, rows_allowed=True)
    code = dialect.code(document) if document is not None else None
    if code == 1 and document is not None and document.get("status") in (1, "1") and 1 not in dialect.codes:
        code = None  # a flag, as in {"status": 1, "data": [...]}
    if document is not None and code is not None:
        meaning = dialect.codes.get(code)
        if meaning is Code.RETRY_LATER and retry_after_s is None:
            retry_after_s = RETRY_AFTER_S
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
    if not own and any(not any(_belongs(row, asked) for asked in asks) for row in rows):
        message = "the answer lists an order that nobody asked about, and not ours"
        return StatusAnswer(Seen.QUERY_ERROR, message=message, flags=("not_ours",))
    if not own:
        return StatusAnswer(Seen.NOT_FOUND, message="the provider does not list this order")
    answers = [_read_row(row, ask, dialect) for row in own]
    if len({answer.external_id for answer in answers}) > 1:
        message = "two orders under our reference"
        return StatusAnswer(Seen.UNRECOGNISED, message=message, flags=("two_orders",), raw=answers[0].raw)
    if any((answer.kind, answer.pins) != (answers[0].kind, answers[0].pins) for answer in answers):
        message = "rows of one order contradict each other"
        return StatusAnswer(Seen.UNRECOGNISED, message=message, flags=("contradiction",), raw=answers[0].raw)
    return answers[0]


def _read_row(row: Document, ask: Ask, dialect: Dialect) -> StatusAnswer:
    word = None if says_error(row) else decision(row)
    seen = dialect.words.get(word or "")
    external_id, (cost, odd_cost) = first_id(row), _price(row, dialect)
    ids = (ask.reference, ask.external_id or "")
    raw = redact_document(row, dialect.secrets, delivers_pin=ask.delivers_pin, known=ids)
    if wrong := _not_ours(row, ask):
        message = f"the row is not about our order: another {wrong}"
        return StatusAnswer(Seen.UNRECOGNISED, external_id, message=message, flags=(_NOT_OURS[wrong],), raw=raw)
    other = row.get("state") if isinstance(row.get("status"), str) else None
    if isinstance(other, str) and dialect.words.get(fold(clean(other)), seen) is not seen:
        message = "status and state contradict each other"
        return StatusAnswer(Seen.UNRECOGNISED, external_id, message=message, flags=("contradiction",), raw=raw)
    if seen is None:
        message = f"unknown word {one_line(word or '', dialect.secrets)[:40]!r}"
        return StatusAnswer(Seen.UNRECOGNISED, external_id, cost, message=message, raw=raw)
    pins, message, odd_pin = _delivered(row, seen, dialect, ask.delivers_pin)
    return StatusAnswer(
        seen,
        external_id,
        cost,
        pins=pins,
        message=message,
        flags=(*odd_cost, *odd_pin),
        raw=raw,
        delivered=_units(row, seen, pins, ask.delivers_pin),
    )


_NOT_OURS = {"product": "not_ours", "player": "not_ours", "quantity": "other_quantity"}
_PRODUCT_KEYS = ("product_id", "productId")
_PLAYER_KEYS = frozenset({"playerid", "player", "uid", "userid", "gameid", "accountid", "oyuncu", "oyuncubilgi"})


def _not_ours(row: Document, ask: Ask) -> str | None:
    """What the row repeats of the order and is not what we sent: ``product``, ``player`` or ``quantity``."""
    product = ask.wire.get("_product")
    for key in _PRODUCT_KEYS:
        if product and (told := read_pin(row.get(key))) and told != product:
            return "product"
    sent = {key_of(name): value for name, value in ask.wire.items() if not name.startswith("_")}
    players = [value for name, value in sent.items() if name in _PLAYER_KEYS]
    data = row.get("data")
    for name, value in (data if isinstance(data, dict) else {}).items():
        told = words.plain(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else ""
        expected = [sent[key_of(name)]] if key_of(name) in sent else players if key_of(name) in _PLAYER_KEYS else []
        if told and expected and told not in map(words.plain, expected):
            return "player"
    number = read_amount(row.get("quantity", row.get("qty")))
    if ask.wire.get("qty") and number is not None and number > ask.quantity:
        return "quantity"
    return None


def _units(row: Document, seen: Seen, pins: tuple[str, ...], delivers_pin: bool) -> int | None:
    """Units that were delivered, where the answer says so: by codes, or by its own number."""
    if seen is not Seen.SUCCEEDED:
        return None
    if delivers_pin:
        return len(pins) or None
    number = read_amount(row.get("quantity", row.get("qty")))
    return int(number) if number is not None and 0 < number == int(number) else None


def _is_of_another(row: Document, reference: str) -> bool:
    """Whether a row says that it is not ours."""
    owner = row.get("order_uuid")
    return bool(owner) and (not isinstance(owner, str) or owner.lower() != reference.lower())


def _belongs(row: Document, ask: Ask) -> bool:
    owner = row.get("order_uuid")
    if isinstance(owner, str) and owner:
        return owner.lower() == ask.reference.lower()
    ids = ids_of(row)  # where the order's own id stands, no other number of the row counts
    return ask.reference.lower() in (value.lower() for value in ids) or (bool(ids) and ask.external_id == ids[0])


def _anonymous(row: Document, by_uuid: bool) -> bool:
    """Whether nobody can tell whose row this is: asked by uuid, the provider's own id says nothing."""
    owner = row.get("order_uuid")
    return not (isinstance(owner, str) and owner) and (by_uuid or not ids_of(row))


def _delivered(
    row: Document, seen: Seen, dialect: Dialect, delivers_pin: bool
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """PINs, message and flags of an order. ``pin`` is a PIN; ``replay_api`` and the other keys for codes hold one only
    where the mapping says so, and are not repeated before the end of such an order. A code in a text that is for
    people is held for a person."""
    pins, reply = tuple(texts(row.get("pin"))), sentences(row.get("replay_api"))
    if delivers_pin and seen is not Seen.FAILED:
        held = (name for name in row if key_of(name) in HOLDS_PIN and name not in ("pin", "replay_api"))
        others = (*texts(row.get("replay_api")), *(text for name in held for text in texts(row[name])))
        reply = "" if others else reply
        pins = tuple(dict.fromkeys((*pins, *others)))
    message = one_line(hide(reply or note_of(row), pins), dialect.secrets)
    if not delivers_pin or seen is Seen.FAILED or not (found := code_like(message, ids_of(row))):
        return (pins if seen is Seen.SUCCEEDED else ()), message, ()
    if seen is not Seen.SUCCEEDED or pins:
        return (pins if seen is Seen.SUCCEEDED else ()), hide(message, found), ()
    return (note_of(row),), "", ("pin_mismatch",)


def _price(row: Document, dialect: Dialect) -> tuple[Money | None, tuple[str, ...]]:
    """Cost of an order and its flags; the row's own currency counts more than the account's."""
    for key, currency in (("price", _iso(row.get("currency")) or dialect.currency), ("price_usd", "USD")):
        value = row.get(key)
        amount, flags = read_cost(value)
        if amount is not None or flags:
            dollars = isinstance(value, str) and "$" in value
            return (Money(amount, "USD" if dollars else currency) if amount is not None else None), flags
    return None, ()


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
    if says_error(document):
        access = words.refusal(note_of(document)).reason is Refusal.ACCESS
        return Balance(None, f"refused: {dialect.note(document) or 'no reason given'}", tripped=access)
    inner = document.get("data")
    body = inner if isinstance(inner, dict) else document
    amount, debt = read_amount(body.get("balance")), read_amount(body.get("debt") or 0)
    if amount is None or debt is None:
        return Balance(None, "the answer has no readable balance")
    return Balance(Money(amount - debt, _iso(body.get("currency")) or dialect.currency))


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
