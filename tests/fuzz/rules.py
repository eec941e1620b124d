"""The reading rules of both provider protocols, written a second time: the judge of the fuzzed parsers.

Nothing here imports a parser. Each function gives the outcomes that an answer *may* have besides those that leave the
order open; a parser that settles an order otherwise is wrong. Where the rules leave room, the stricter reading counts.
"""

import html
import json
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from agents.providers.base import Ask, Placed, Seen

#: Outcomes of a placement after which nothing more happens than a question about it.
OPEN_PLACEMENT = frozenset({Placed.AMBIGUOUS, Placed.DUPLICATE, Placed.NOT_SENT})
#: Outcomes of a question that leave the order as it was.
OPEN_QUESTION = frozenset({Seen.QUERY_ERROR, Seen.UNRECOGNISED})

_BLANK = " \t\r\n\f\v\u00a0"
_DROPPED = dict.fromkeys([*range(0x09), *range(0x0E, 0x20), 0x7F, *range(0xD800, 0xE000)])
_WORDS = {"accept": "done", "success": "done", "wait": "open", "pending": "open", "processing": "open", "reject": "no"}
_PLACED = {"done": Placed.COMPLETED, "open": Placed.ACCEPTED, "no": Placed.REFUSED_AFTER_ACCEPT}
_SEEN = {"done": Seen.SUCCEEDED, "open": Seen.PENDING, "no": Seen.FAILED}
_REFUSED_CODES = {100, 105, 106, 107, 108, 109, 110, 112, 113, 120, 121, 122, 123}
_LATER_CODES = {111, 130, 429}
_REFUSED_HTTP = {400, 401, 403, 404, 405}
_UNSURE = ("unknown", "internal", "timeout", "timed out", "server error", "try again")
_SENT_BEFORE = ("daha once", "zaten gonder", "already")


def text_of(body: bytes, charset: str | None) -> str:
    """Rule 1, for the character sets that are used here."""
    if body[:3] == b"\xef\xbb\xbf":
        body, charset = body[3:], None
    for name in (charset if charset in ("utf-8", "windows-1254", "iso-8859-9") else None, "utf-8"):
        if name:
            try:
                return trimmed(body.decode(name))
            except UnicodeDecodeError:
                pass
    return trimmed(body.decode("windows-1254", "replace"))


def trimmed(text: str) -> str:
    text = text[1:] if text[:1] == "\ufeff" else text
    return text.translate(_DROPPED).strip(_BLANK)


def amount(text: str) -> Decimal | None:
    """Rule 4."""
    text = "".join(text.split())
    for noise in ("TRY", "TL", "₺"):
        text = re.sub(re.escape(noise), "", text, flags=re.IGNORECASE)
    sign, text = (text[0], text[1:]) if text[:1] in ("+", "-") else ("", text)
    if not text or not text.isascii() or set(text) - set("0123456789.,"):
        return None
    dot, comma = text.rfind("."), text.rfind(",")
    if dot >= 0 and comma >= 0:
        mark = max(dot, comma)
    elif text.count(".") + text.count(",") == 1:
        mark = max(dot, comma)
    else:
        mark = len(text)
    whole, part = (re.sub("[.,]", "", half) for half in (text[:mark], text[mark:]))
    return Decimal(f"{sign}{whole or 0}.{part or 0}") if whole or part else None


def no_pin(field: str) -> bool:
    """Rule 7: nothing, blanks, dashes."""
    return not field.strip(_BLANK + "-–—")


def znet_placement(status: int, text: str) -> frozenset[Placed]:
    """Rule 5 and the table of HTTP statuses."""
    row = None if text.startswith("<") or not text else [trimmed(field) for field in text.split("|")]
    if status == 408 or not (200 <= status < 300 or 400 <= status < 500):
        return frozenset()
    if row and row[0].lower() == "ok":
        filled = [field for field in row[1:] if field]
        fine = len(filled) <= 2 and all(amount(field) is not None for field in filled)
        return frozenset({Placed.ACCEPTED} if fine and status < 300 else ())
    if row and len(row) > 1 and row[0] == "3":
        before = any(words in _plain("|".join(row[1:])) for words in _SENT_BEFORE)
        return frozenset() if before else frozenset({Placed.REJECTED})
    if row and len(row) > 1 and row[0] in ("4", "8"):
        return frozenset()
    return _by_http(status)


def znet_question(status: int, text: str) -> tuple[frozenset[Seen], str]:
    """Rules 6 and 7: the outcomes, and the PIN that goes with a success."""
    if status != 200 or text.startswith("<"):
        return frozenset(), ""
    row = [trimmed(field) for field in text.split("|", 3)]
    if row[0].lower() != "ok" or len(row) < 2:
        return frozenset(), ""
    seen = {"1": Seen.PENDING, "2": Seen.SUCCEEDED, "3": Seen.FAILED}.get(row[1].lstrip("0"))
    pin = row[2] if len(row) > 2 and seen is Seen.SUCCEEDED and not no_pin(row[2]) else ""
    return frozenset({seen} if seen else ()), pin


def zdk_placement(reference: str, status: int, text: str) -> frozenset[Placed]:
    """Rule 8: the error first, then the decision word of our own order."""
    document = _json(text)
    if 300 <= status < 400 or status == 408:
        return frozenset()
    if not isinstance(document, dict):
        return _by_http(status)
    shown = list(_orders(document))
    code = _code(document)
    if code is not None:
        if any(_ids(order) and _word(order) != "no" for order in shown):
            return frozenset()  # an error, and an order beside it: nobody knows
        if code in _REFUSED_CODES:
            return frozenset({Placed.REJECTED})
        return frozenset({Placed.RETRY_LATER} if code in _LATER_CODES else ())
    if any(_ids(order) for order in shown):
        return _order_of(reference, status, document, shown)
    if _is_error(document):
        unsure = status >= 500 or any(words in _plain(_note(document)) for words in _UNSURE)
        return frozenset({Placed.RETRY_LATER} if status == 429 else () if unsure else {Placed.REJECTED})
    return _by_http(status)


def _order_of(reference: str, status: int, document: Any, shown: Sequence[Any]) -> frozenset[Placed]:
    named = [order for order in shown if _ids(order)]
    lists = isinstance(document.get("data"), list) and len(document["data"]) > 1
    if _is_error(document) or not 200 <= status < 300 or len(named) != 1 or lists:
        return frozenset()
    [order] = named
    owner = order.get("order_uuid", document.get("order_uuid"))
    if owner and (not isinstance(owner, str) or owner.lower() != reference.lower()):
        return frozenset()
    word = _word(order) if _says(order) else _word(document)
    return frozenset({_PLACED[word]} if word else ())


def zdk_question(ask: Ask, asks: int, status: int, text: str, *, by_uuid: bool) -> frozenset[Seen]:
    """Rule 8 for one of ``asks`` orders: rows are matched by id, never by position."""
    document = _json(text)
    if isinstance(document, list):
        document = {"data": document}
    if status != 200 or not isinstance(document, dict) or _code(document) is not None or _is_error(document):
        return frozenset()
    data = document.get("data")
    if data is None:
        data = document if _ids(document) and _says(document) else None
    rows = [data] if isinstance(data, dict) else data
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return frozenset()
    own = [row for row in rows if _is_of(row, ask)]
    if not own and by_uuid and asks == 1 and len(rows) == 1 and not ask.external_id and not rows[0].get("order_uuid"):
        own = rows
    if not own:
        named = all(_ids(row) or isinstance(row.get("order_uuid"), str) for row in rows)
        return frozenset({Seen.NOT_FOUND} if named else ())
    words = {_word(row) for row in own}
    return frozenset({_SEEN[word] for word in words if word} if len(words) == 1 else ())


def _is_of(row: Any, ask: Ask) -> bool:
    owner = row.get("order_uuid")
    if isinstance(owner, str) and owner:
        return owner.lower() == ask.reference.lower()
    return any(name == ask.external_id or name.lower() == ask.reference.lower() for name in _ids(row))


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda name: 1 / 0)
    except (ValueError, RecursionError, ArithmeticError):
        return None


def _orders(document: Any) -> Iterator[Any]:
    data = document.get("data", document)
    found = [order for order in (data if isinstance(data, list) else [data]) if isinstance(order, dict)]
    yield from found
    if "data" in document and not any(_ids(order) for order in found) and _ids(document):
        yield document


def _ids(order: Any) -> list[str]:
    values = [order.get(key) for key in ("order_id", "orderId", "id")]
    texts = [trimmed(str(value)) for value in values if isinstance(value, str | int) and not isinstance(value, bool)]
    return [text for text in texts if not no_pin(text)]


def _says(order: Any) -> bool:
    return any(isinstance(order.get(key), str) and _plain(order[key]) not in ("", "ok") for key in ("status", "state"))


def _word(order: Any) -> str | None:
    """The meaning of an order's own word; an error in its place is no decision."""
    for key in ("status", "state"):
        value = order.get(key)
        if isinstance(value, str) and (word := _plain(value)) not in ("", "ok"):
            return _WORDS.get(word)
    return None


def _is_error(document: Any) -> bool:
    status = document.get("status")
    return document.get("success") is False or (isinstance(status, str) and _plain(status) in ("error", "fail"))


def _code(document: Any) -> int | None:
    for key in ("code", "error_code", "errorCode", "status"):
        value = document.get(key)
        if isinstance(value, str) and re.fullmatch("[0-9]{1,5}", value):
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value not in (0, 200):
            return value
    return None


def _note(document: Any) -> str:
    texts = [document.get(key) for key in ("note", "message", "msg", "error")]
    return next((text for text in texts if isinstance(text, str) and text.strip()), "")


def _by_http(status: int) -> frozenset[Placed]:
    if status == 429:
        return frozenset({Placed.RETRY_LATER})
    return frozenset({Placed.REJECTED} if status in _REFUSED_HTTP else ())


def _plain(text: str) -> str:
    marks = str.maketrans("İIıÜüŞşĞğÇçÖöÂâÎîÛû", "iiiuussggccooaaiiuu")
    return (
        html.unescape(trimmed(text)).translate(marks).lower()
        if "&" in text
        else (trimmed(text).translate(marks).lower())
    )
