"""The product list of ZDK shops as catalogue items."""

import re
from typing import Any

from agents.providers.base import CatalogueItem, Money
from agents.providers.money import read_amount
from agents.providers.text import clean, read_json
from agents.providers.zdk.body import error_code, note_of, says_error
from streams.errors import ProviderError

_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

Quantities = tuple[int, int] | frozenset[int] | None


def read_products(status: int, text: str, currency: str) -> list[CatalogueItem]:
    """Rows of ``products``. Raises ``ProviderError``: the caller keeps its last good catalogue."""
    try:
        document = read_json(text)
    except ValueError:
        document = None
    rows = document.get("data") if isinstance(document, dict) else document
    if isinstance(document, dict) and (says_error(document) or error_code(document, (0, 200)) is not None):
        raise ProviderError("the catalogue was refused: the answer is an error")
    if isinstance(rows, list) and not rows and isinstance(document, dict) and note_of(document):
        raise ProviderError("the catalogue was refused: an empty list beside a complaint")
    if status != 200 or not isinstance(rows, list):
        raise ProviderError(f"the catalogue cannot be read (HTTP {status}); expected a JSON array of products")
    return [_item(row, currency) for row in rows if isinstance(row, dict) and _text(row.get("id"))]


def _item(row: dict[str, Any], currency: str) -> CatalogueItem:
    amount = read_amount(row.get("price"))
    quantities, quantity_note = _quantities(row.get("qty_values"))
    wire, parameter_note = _parameter(row.get("params"))
    category = _text(row.get("category_name"))
    return CatalogueItem(
        _text(row.get("id")),
        _text(row.get("name")),
        Money(amount, currency) if amount is not None else None,
        wire,
        orderable=not quantity_note,
        available=_text(row.get("available")).lower() not in ("0", "false", "no"),
        category=None if category in ("", "null") else category,
        quantities=quantities,
        note="; ".join(filter(None, (quantity_note, parameter_note))),
    )


def _quantities(value: Any) -> tuple[Quantities, str]:
    if value is None:
        return None, ""
    if isinstance(value, list):
        return frozenset(number for item in value if (number := _whole(item)) is not None), ""
    low, high = (_whole(value.get(key)) for key in ("min", "max")) if isinstance(value, dict) else (None, None)
    if low is None or high is None or low > high:
        return None, "not orderable: qty_values cannot be read"
    return (low, high), ""


def _parameter(params: Any) -> tuple[dict[str, str], str]:
    """The query key of the player: some shops list the key, others a label for people."""
    labels = [_text(label) for label in params] if isinstance(params, list) else []
    if len(labels) == 1 and _PARAMETER.fullmatch(labels[0]):
        return {"player_param": labels[0]}, ""
    if not labels:
        return {}, ""
    return {}, f"parameters are labels ({', '.join(labels)}): the mapping must set player_param"


def _whole(value: Any) -> int | None:
    amount = read_amount(value)
    return int(amount) if amount is not None and amount > 0 and amount == int(amount) else None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return clean(str(value)) if isinstance(value, (str, int)) else ""
