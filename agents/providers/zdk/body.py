"""The JSON of ZDK shops, in all its shapes: where the order is, its word, its ids, its texts, its error code.

Pure functions that never raise. An unreadable document is None.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from agents.providers.text import MASK, clean, code_like, evidence, fold, read_json, read_pin

Document = Mapping[str, Any]

#: Keys under which shops put codes; compared without case, blanks, dashes and underscores.
HOLDS_PIN = frozenset(
    {
        "pin", "pins", "pincode", "epin", "replay", "replayapi", "replaypin", "serial", "serials", "serialnumber",
        "voucher", "vouchers", "vouchercode", "kod", "kodlar", "kupon", "giftcode", "giftcard", "cardcode",
        "cardnumber", "purchasedcode", "redeemcode", "redemptioncode", "activationcode", "licensekey", "license",
        "codes", "secret",
    }
)  # fmt: skip
_FIRST_PIN = re.compile(
    r'(?i)"(?:e?pins?|pin_?code|replay|replay_(?:api|pin)|serials?|serial_?number|vouchers?|voucher_?code|kod|kupon|gift_?code'
    r'|card_?(?:code|number)|(?:purchased|redeem|activation)_?code|license_?key|codes)"'
)
_ERROR_WORDS = ("error", "fail")


def read_document(text: str, *, rows_allowed: bool = False) -> Document | None:
    """The object of a body; with ``rows_allowed`` a bare array counts as ``{"data": array}``."""
    try:
        document = read_json(text)
    except ValueError:
        return None
    if rows_allowed and isinstance(document, list):
        return {"data": document}
    return document if isinstance(document, dict) else None


def error_code(document: Document, harmless: Collection[int]) -> int | None:
    """The number that stands where an error code belongs; None without one, and for a harmless one."""
    for key in ("code", "error_code", "errorCode", "status"):
        value = document.get(key)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value not in harmless:
            return value
    return None


def says_error(document: Document) -> bool:
    """Whether the envelope calls itself a failure."""
    word = document.get("status")
    return document.get("success") is False or (isinstance(word, str) and fold(clean(word)) in _ERROR_WORDS)


def order_of(document: Document) -> Document:
    """The order in the answer of a placement: ``data``, its only element, or the document itself when it is flat."""
    data = document.get("data", document)
    if isinstance(data, list):
        if len(data) > 1:
            return {}
        data = data[0] if data else {}
    if isinstance(data, dict) and (ids_of(data) or not ids_of(document)):
        return data
    return document if ids_of(document) else {}


def orders_in(document: Document) -> list[Document]:
    """Everything in the answer of a placement that can be an order."""
    data = document.get("data", document)
    return [document, *(row for row in (data if isinstance(data, list) else [data]) if isinstance(row, dict))]


def rows_of(document: Document) -> Sequence[Document] | None:
    """The orders in the answer of a check; None when this is not a list of orders."""
    if says_error(document):
        return None
    data = document.get("data")
    if not data and (note_of(document) or document.get("errors")):
        return None  # an empty list beside a complaint is no list
    if data is None and decision(document) and ids_of(document):
        data = document
    rows = [data] if isinstance(data, dict) else data
    return rows if isinstance(rows, list) and all(isinstance(row, dict) for row in rows) else None


def decision(row: Document) -> str | None:
    """The decision word, folded; the envelope's own OK and ERROR are not decisions."""
    for key in ("status", "state"):
        value = row.get(key)
        if isinstance(value, str) and (word := fold(clean(value))) and word not in ("ok", *_ERROR_WORDS):
            return word
    return None


def ids_of(row: Document) -> list[str]:
    """Every id the provider gives this order that can be kept, the most specific first."""
    return [text for text in _names(row) if len(text) <= 255]


def named(row: Document) -> bool:
    """Whether an id stands here at all, and be it one that is too long to be kept: there may be an order."""
    return bool(_names(row))


def _names(row: Document) -> list[str]:
    values = (row.get(key) for key in ("order_id", "orderId", "id"))
    return [text for value in values if (text := read_pin(value)) and not text.startswith("-")]


def first_id(row: Document) -> str | None:
    return next(iter(ids_of(row)), None)


def texts(value: Any, levels: int = 6) -> Iterator[str]:
    """The texts of a reply in any of its shapes: text, list of texts, list of ``{"replay": [...]}`` or of objects with
    another key for codes, a list written as text."""
    if isinstance(value, str) and value.startswith("[") and levels:
        try:
            value = read_json(value)
        except ValueError:
            pass
    if isinstance(value, dict) and levels:
        for key, inner in value.items():
            if key_of(key) in HOLDS_PIN or _code_of_letters(key, inner):
                yield from texts(inner, levels - 1)
    elif isinstance(value, list) and levels:
        for inner in value:
            yield from texts(inner, levels - 1)
    elif (text := read_pin(value)) is not None:
        yield text


def sentences(value: Any) -> str:
    """Every text of a reply, words that are no code included, as one."""
    if isinstance(value, dict):
        return sentences(list(value.values()))
    if isinstance(value, list):
        return " ".join(filter(None, map(sentences, value)))
    return clean(value) if isinstance(value, str) else ""


def note_of(row: Document) -> str:
    """The provider's words beside a reply."""
    for key in ("note", "message", "msg", "error"):
        value = row.get(key)
        words = " ".join(value) if isinstance(value, list) and all(isinstance(word, str) for word in value) else value
        if isinstance(words, str) and words.strip():
            return words
    return ""


def redact(text: str, secrets: Sequence[str], *, delivers_pin: bool = False, known: Sequence[str] = ()) -> str:
    """Evidence without codes: every value where a PIN can stand is masked; an unreadable rest is cut off there.

    With ``delivers_pin`` everything that could be a code is masked too, except the ids in ``known``.
    """
    try:
        document = read_json(text)
    except ValueError:
        found = _FIRST_PIN.search(text)
        text = text[: found.start()] + MASK if found else text
        return evidence(text, (*secrets, *(code_like(text, known) if delivers_pin else ())))
    return redact_document(document, secrets, delivers_pin=delivers_pin, known=known)


def redact_document(
    document: Any, secrets: Sequence[str], *, delivers_pin: bool = False, known: Sequence[str] = ()
) -> str:
    """As ``redact``, for what is already read."""
    pins: list[str] = []
    text = json.dumps(_masked(document, pins), ensure_ascii=False, default=str)
    if delivers_pin:
        ids = [name for row in _objects(document) for name in (*_names(row), str(row.get("order_uuid") or ""))]
        pins += code_like(text, (*known, *ids))
    return evidence(text, (*secrets, *pins))


def _objects(value: Any) -> Iterator[Document]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(inner)


def _masked(value: Any, pins: list[str]) -> Any:
    """A copy without the values that can be PINs, which are collected in ``pins``: a note may repeat one."""
    if isinstance(value, list):
        return [_masked(inner, pins) for inner in value]
    if not isinstance(value, dict):
        return value
    copy: dict[str, Any] = {}
    for key, inner in value.items():
        secret = inner not in (None, "", []) and (key_of(key) in HOLDS_PIN or _code_of_letters(key, inner))
        if secret:
            pins.extend(texts(inner))
        copy[key] = MASK if secret else _masked(inner, pins)
    return copy


def key_of(key: str) -> str:
    """A key as ``HOLDS_PIN`` has it."""
    return key.lower().translate({ord(sign): None for sign in " -_"})


def _code_of_letters(key: str, value: object) -> bool:
    """``code`` is an error code when it is a number; a shop that puts a voucher there must not reach the evidence."""
    return key.lower() == "code" and isinstance(value, str) and not value.isdigit()
