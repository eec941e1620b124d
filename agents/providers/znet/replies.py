"""Reading znet: pipe-separated lines, one JSON catalogue. Pure functions; they never raise, whatever the text is.

In this family the first ``OK`` only means "request understood": what follows decides, and the codes differ per service.
PINs leave these functions in plain text; the adapter seals them at once.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from agents.providers.base import Balance, CatalogueItem, Money, Placed, PlacedAnswer, Refusal, Seen, StatusAnswer
from agents.providers.money import read_amount, read_cost
from agents.providers.text import MASK, clean, code_like, evidence, fold, hide, is_html, one_line, read_json, read_pin
from agents.providers.wire import placement_by_status, question_by_status, refused
from agents.providers.words import says_duplicate, says_not_found
from streams.errors import ProviderError

CURRENCY = "TRY"

_HINT = re.compile(r"\((\w{1,64})\)", re.ASCII)
_ROW = re.compile(r"(?im)^\s*ok\s*\|")
_PIN_FIELD = re.compile(r"(?i)(\bok\s*\|\s*(?:\w+\s*)?\|)([^|\n]*)")
_BARE_STATE = re.compile(r"\s*(\d{1,9})\s*\|")


def read_placement(
    reference: str, status: int, text: str, *, retry_after_s: float | None = None, secrets: Sequence[str] = ()
) -> PlacedAnswer:
    """Answer of ``pin_ekle``. Accepted only when everything behind ``OK`` is money."""
    raw = evidence(text, secrets)
    known = 200 <= status < 300 or 400 <= status < 500
    answer = _placement_row(_unquoted(text), status, retry_after_s, raw, secrets) if known and status != 408 else None
    if answer is not None and answer.kind is Placed.ACCEPTED and status >= 300:
        return replace(answer, kind=Placed.AMBIGUOUS, message=f"accepted, yet HTTP {status}", flags=("contradiction",))
    if answer is not None:
        return answer
    return placement_by_status(status, retry_after_s, raw, **_unreadable(text, status))


def _unquoted(text: str) -> str:
    """Without one pair of quotation marks around the whole row."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _placement_row(
    text: str, status: int, retry_after_s: float | None, raw: str, secrets: Sequence[str]
) -> PlacedAnswer | None:
    """The answer of a row whose form is known; None otherwise."""
    if is_html(text):
        return None
    head, *fields = (clean(field) for field in text.split("|"))
    said = "|".join(fields)  # decided by what was said, not by what is left of it once secrets are masked
    note = one_line(said, secrets)
    if head.lower() == "ok":
        return _after_ok(fields, raw, note)
    if not fields:
        return None
    if head == "3":
        return refused(said, note, status, retry_after_s, raw)
    if head == "4":
        hint = _HINT.search(note) if says_duplicate(said) else None
        return PlacedAnswer(Placed.DUPLICATE, external_id=hint[1] if hint else None, message=note, raw=raw)
    if head == "8":
        if says_duplicate(said):
            return PlacedAnswer(Placed.DUPLICATE, message=note, raw=raw)
        return PlacedAnswer(Placed.AMBIGUOUS, reason=Refusal.ACCESS, message=note, tripped=True, raw=raw)
    return None


def _after_ok(fields: list[str], raw: str, note: str) -> PlacedAnswer:
    filled = [field for field in fields if field]
    amounts = [read_amount(field) for field in fields]
    leading = fields[: len(filled)] == filled  # `OK|3||0.00` is a sibling service's "state 3, no text"
    if len(filled) <= 2 and leading and None not in amounts[: len(filled)]:
        price, odd = read_cost(fields[0]) if fields else (None, ())
        cost, balance = _money([price]), _money(amounts[1:2])
        flags = (*(("short_row",) if len(filled) < 2 else ()), *(("cost_unknown",) if cost is None else ()), *odd)
        return PlacedAnswer(Placed.ACCEPTED, cost=cost, balance=balance, flags=flags, raw=raw)
    if fields[0] == "8":
        return PlacedAnswer(Placed.DUPLICATE, message=note, raw=raw)
    return PlacedAnswer(Placed.AMBIGUOUS, message=note, flags=("unrecognised",), raw=raw)


def _unreadable(text: str, status: int) -> dict[str, Any]:
    if not text and status != 200:
        return {"message": "empty answer", "flags": ("empty",)}
    if not text:
        message = "empty answer: unknown dealer, no API permission, or an IP address that is not allowed"
        return {"reason": Refusal.ACCESS, "message": message, "flags": ("empty",)}
    if is_html(text):
        return {"message": "the answer is a page, not a znet row", "flags": ("html",)}
    return {"message": "", "flags": ("unrecognised",)}


def read_status(
    reference: str,
    status: int,
    text: str,
    *,
    retry_after_s: float | None = None,
    secrets: Sequence[str] = (),
    delivers_pin: bool = False,
) -> StatusAnswer:
    """Answer of ``pin_kontrol``: ``OK|state|pin|text``. Flag ``negative`` marks the two forms an unknown reference is
    answered with, nothing or a text that says so; what they mean only the not-found procedure can tell."""
    text = _unquoted(text)
    raw = _status_evidence(text, secrets, delivers_pin)
    if status != 200:
        return question_by_status(status, retry_after_s, raw)
    if not text:
        return StatusAnswer(Seen.QUERY_ERROR, message="empty answer", flags=("negative", "empty"), raw=raw)
    if is_html(text):
        return StatusAnswer(Seen.QUERY_ERROR, message="the answer is a page, not a znet row", flags=("html",), raw=raw)
    if len(_ROW.findall(text)) > 1:
        return StatusAnswer(Seen.UNRECOGNISED, message="two rows under one reference", flags=("two_orders",), raw=raw)
    head, *fields = text.split("|", 3)
    if clean(head).lower() == "ok":
        return _without_codes(_state(fields, raw, secrets), fields) if delivers_pin else _state(fields, raw, secrets)
    return _failed_question(clean(head), fields, raw, secrets)


def _failed_question(head: str, fields: list[str], raw: str, secrets: Sequence[str]) -> StatusAnswer:
    note = one_line("|".join(fields), secrets)
    if head == "3" and fields:
        flags = ("negative",) if says_not_found("|".join(fields)) else ()
        return StatusAnswer(Seen.QUERY_ERROR, message=note, flags=flags, raw=raw)
    if head == "8":
        return StatusAnswer(Seen.QUERY_ERROR, message=note, tripped=True, flags=("access",), raw=raw)
    # "2|..." could carry a code where a text is expected, so its words are not repeated
    return StatusAnswer(Seen.QUERY_ERROR, message="an answer of unknown form", flags=("unexpected_form",), raw=raw)


def _state(fields: list[str], raw: str, secrets: Sequence[str]) -> StatusAnswer:
    state = clean(fields[0]).lstrip("0") if fields else ""
    pin = read_pin(fields[1]) if len(fields) > 1 else None
    note = one_line(fields[2], (*secrets, pin or "")) if len(fields) > 2 else ""
    flags = () if len(fields) == 3 else ("short_row",)
    if state == "1":
        return StatusAnswer(Seen.PENDING, message=note, flags=flags, raw=raw)
    if state == "2":
        return StatusAnswer(Seen.SUCCEEDED, pins=(pin,) if pin else (), message=note, flags=flags, raw=raw)
    if state == "3":
        return StatusAnswer(Seen.FAILED, message=note or one_line(pin or "", secrets), flags=flags, raw=raw)
    message = f"unknown state {one_line(state, secrets)[:20]!r}"
    return StatusAnswer(Seen.UNRECOGNISED, message=message, flags=flags, raw=raw)


def _without_codes(answer: StatusAnswer, fields: list[str]) -> StatusAnswer:
    """No code leaves in a text: what could be one beside the PIN field is held for a person, with the PIN."""
    beside = fields[2] if len(fields) > 2 else ""
    others = code_like(beside, answer.pins)
    if not others and not code_like(answer.message):
        return answer
    message = one_line(hide(answer.message, code_like(answer.message)))
    if answer.kind is not Seen.SUCCEEDED or not others:
        return replace(answer, message=message)
    return replace(answer, pins=(*answer.pins, clean(beside)), message="", flags=(*answer.flags, "pin_mismatch"))


def _status_evidence(text: str, secrets: Sequence[str], delivers_pin: bool) -> str:
    """The pin field is masked even where the row around it is broken, and so is what could be a code elsewhere."""
    bare = _BARE_STATE.match(text)
    if bare and bare[1] not in ("3", "8"):
        return bare[0] + MASK
    fields = [*(row[2] for row in _PIN_FIELD.finditer(text)), *text.split("|", 3)[2:3]]  # a field may be two lines
    pins = [pin for field in fields if (pin := read_pin(field))]
    return evidence(text, (*secrets, *pins, *(code_like(text) if delivers_pin else ())))


def read_balance(status: int, text: str, *, secrets: Sequence[str] = ()) -> Balance:
    """Answer of ``bakiye_kontrol``: ``OK|balance`` or ``OK|balance|debt`` (the spendable rest is the difference)."""
    if status != 200:
        return Balance(None, f"HTTP {status}", tripped=status in (401, 403))
    if not text:
        return Balance(None, "access: empty answer; unknown dealer, no API permission, or IP not allowed", tripped=True)
    if is_html(text):
        return Balance(None, "html: the answer is a page, not a znet row")
    if text.startswith("{"):
        return _json_balance(text)
    head, *fields = (clean(field) for field in text.split("|"))
    amounts = [read_amount(field) for field in fields if field]
    if head.lower() != "ok":
        note = one_line("|".join(fields), secrets)
        return Balance(None, f"access: {note}" if fields else "unreadable answer", tripped=bool(fields))
    if not 1 <= len(amounts) <= 2 or None in amounts:
        return Balance(None, "unreadable answer")
    return _net(*amounts)


def _json_balance(text: str) -> Balance:
    try:
        document = read_json(text)
    except ValueError:
        return Balance(None, "unreadable answer")
    if document.get("success") is False or fold(str(document.get("status", ""))) in ("error", "fail", "failed"):
        return Balance(None, "the account is not told: the answer is an error")
    inner = document.get("data")
    body = inner if isinstance(inner, dict) else document
    amount = read_amount(body.get("balance", body.get("bakiye")))
    return _net(amount, read_amount(body.get("debt") or body.get("borc") or 0))


def _net(balance: Decimal | None, debt: Decimal | None = Decimal(0)) -> Balance:
    if balance is None or debt is None:
        return Balance(None, "unreadable answer")
    return Balance(Money(balance - debt, CURRENCY))


def read_catalogue(status: int, text: str, *, secrets: Sequence[str] = ()) -> list[CatalogueItem]:
    """Rows of ``pin_listesi``. Raises ``ProviderError``: the caller keeps its last good catalogue."""
    try:
        document = read_json(text)
    except ValueError:
        document = None
    if status != 200 or not isinstance(document, dict):
        raise ProviderError(f"the catalogue cannot be read (HTTP {status}); expected a JSON object")
    rows = document.get("result")
    if document.get("success") is not True or not isinstance(rows, list):
        reason = one_line(str(document.get("error") or "no reason given"), secrets)
        raise ProviderError(f"the catalogue was refused: {reason}")
    return [_item(row) for row in rows if isinstance(row, dict) and _field(row, "id")]


def _item(row: dict[str, Any]) -> CatalogueItem:
    wire = {name: value for name, key in (("oyun", "oyun_bilgi_id"), ("kupur", "kupur")) if (value := _field(row, key))}
    lacking = [key for key in ("oyun", "kupur") if key not in wire]
    note = f"not orderable: the row has no {' and no '.join(lacking)}" if lacking else ""
    return CatalogueItem(
        _field(row, "id"),
        _field(row, "adi"),
        _money([read_amount(row.get("fiyat"))]),
        wire,
        orderable=not lacking,
        category=_field(row, "oyun_adi") or None,
        note=note,
    )


def _field(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    return clean(str(value)) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _money(amounts: Sequence[Decimal | None]) -> Money | None:
    return Money(amounts[0], CURRENCY) if amounts and amounts[0] is not None else None
