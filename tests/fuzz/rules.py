"""The reading rules of both provider protocols, written a second time: the judge of the fuzzed parsers.

Nothing here imports a parser; the tables of words are shared data. Each function gives the outcomes that an answer
*may* have besides those that leave the order open; a parser that settles an order otherwise is wrong. Where the rules
leave room, the stricter reading counts.
"""

import html
import json
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from agents.providers.base import Ask, Placed, Seen
from agents.providers.words import is_no_code, refusal, says_duplicate

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


def text_of(body: bytes, charset: str | None) -> str:
    """Rule 1, for the character sets that are used here."""
    if body[:3] == b"\xef\xbb\xbf":
        body, charset = body[3:], None
    for name in ("utf-8", charset if charset in ("windows-1254", "iso-8859-9") else None):
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
    for noise in ("TRY", "TL", "USD", "EUR", "₺", "$", "€"):
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
    """Rule 7: nothing, blanks, punctuation, and the words of the table."""
    return is_no_code(field)


def in_quotes(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def znet_placement(status: int, text: str) -> frozenset[Placed]:
    """Rule 5 and the table of HTTP statuses."""
    text = in_quotes(text)
    row = None if text.startswith("<") or not text else [trimmed(field) for field in text.split("|")]
    if status == 408 or not (200 <= status < 300 or 400 <= status < 500):
        return frozenset()
    if row and row[0].lower() == "ok":
        filled = [field for field in row[1:] if field]
        fine = len(filled) <= 2 and row[1 : 1 + len(filled)] == filled and all(amount(f) is not None for f in filled)
        return frozenset({Placed.ACCEPTED} if fine and status < 300 else ())
    if row and len(row) > 1 and row[0] == "3":
        return _by_text("|".join(row[1:]), status)
    return frozenset()


def znet_question(status: int, text: str) -> tuple[frozenset[Seen], str]:
    """Rules 6 and 7: the outcomes, and the PIN that goes with a success."""
    text = in_quotes(text)
    if status != 200 or text.startswith("<") or len(re.findall(r"(?im)^\s*ok\s*\|", text)) > 1:
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
        return frozenset()
    shown = list(_orders(document))
    code = _code(document)
    if code == status and code not in (*_REFUSED_CODES, *_LATER_CODES):
        code = None
    if code is not None:
        if any(_is_order(order) and _word(order) != "no" for order in shown):
            return frozenset()  # an error, and an order beside it: nobody knows
        if says_duplicate(_note(document)) or (status == 409 and code not in _LATER_CODES):
            return frozenset()
        if code in _REFUSED_CODES:
            return frozenset({Placed.REJECTED})
        return frozenset({Placed.RETRY_LATER} if code in _LATER_CODES else ())
    if any(_ids(order) for order in shown):
        return _order_of(reference, status, document, shown)
    said = {_word(order) for order in (*shown, document)} - {None}
    if said == {"no"} and status < 400:
        return frozenset(Placed) - {Placed.ACCEPTED, Placed.COMPLETED, Placed.NOT_SENT}
    if _is_error(document):
        return _by_text(_note(document), status)
    return frozenset()


def _is_order(order: Any) -> bool:
    """An id beside an error is the number of the request, unless the order's own key or a word stands there."""
    own = order.get("order_id") is not None or order.get("orderId") is not None
    return bool(_ids(order)) and (own or _says(order))


def _by_text(text: str, status: int) -> frozenset[Placed]:
    """An envelope without a code: what the table says of its text, and never a refusal with 409 or 5xx."""
    kind = refusal(text).kind
    if kind is not Placed.REJECTED:
        return frozenset({kind})
    if status == 409 or status >= 500:
        return frozenset()
    return frozenset({Placed.RETRY_LATER if status == 429 else Placed.REJECTED})


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
    names = _ids(row)
    return names[:1] == [ask.external_id] or any(name.lower() == ask.reference.lower() for name in names)


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda name: 1 / 0, object_pairs_hook=_distinct)
    except (ValueError, RecursionError, ArithmeticError):
        return None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice")
    return document


def _orders(document: Any) -> Iterator[Any]:
    data = document.get("data", document)
    found = [order for order in (data if isinstance(data, list) else [data]) if isinstance(order, dict)]
    yield from found
    if "data" in document and not any(_ids(order) for order in found) and _ids(document):
        yield document


def _ids(order: Any) -> list[str]:
    values = [order.get(key) for key in ("order_id", "orderId", "id")]
    texts = [trimmed(str(value)) for value in values if isinstance(value, str | int) and not isinstance(value, bool)]
    return [text for text in texts if not no_pin(text) and not text.startswith("-")]


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


def _plain(text: str) -> str:
    marks = str.maketrans("İIıÜüŞşĞğÇçÖöÂâÎîÛû", "iiiuussggccooaaiiuu")
    return (
        html.unescape(trimmed(text)).translate(marks).lower()
        if "&" in text
        else (trimmed(text).translate(marks).lower())
    )
