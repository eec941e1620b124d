"""ZDK answers that do not say what happened. The purchase and its life stay as they are."""

from decimal import Decimal
from typing import Any

import msgspec

from orderwatch.simulator.faults import Fault, FaultKind
from orderwatch.simulator.orders import pin_of
from orderwatch.simulator.wire import Answer, as_json

Document = dict[str, Any]

STRANGERS_PIN = pin_of("stranger")
_PRICES = ("price", "price_usd")


def untrue(answer: Answer, fault: Fault) -> Answer:
    """The answer as the fault changes it; one that holds no order stays."""
    if answer.status != 200:
        return answer
    body = msgspec.json.decode(answer.body)
    if answer.label.startswith("found:"):
        rows = body if isinstance(body, list) else body["data"]
        if rows:
            at = next((n for n, row in enumerate(rows) if _is_meant(row, fault)), 0)
            rows[at : at + 1] = _rows(rows[at], fault)
    elif answer.label in ("accepted", "repeat"):
        body = _placement(body, fault)
    return as_json(body, answer.label)


def _is_meant(row: Document, fault: Fault) -> bool:
    """Of a batch the fault hits one order: the first whose player it names."""
    players = [str(value) for value in row["data"].values()]
    return (fault.player is None or fault.player in players) and any(
        (fault.player_contains or "") in player for player in players
    )


def _placement(body: Document, fault: Fault) -> Document:
    order = body.get("data", body)
    match fault.kind:
        case FaultKind.UNKNOWN_WORD:
            order["status"] = fault.text or "review"
        case FaultKind.CONTRADICTION:
            return {"status": "reject", "data": {**order, "status": "accept"}}
        case FaultKind.COST:
            _multiply(order, fault.factor)
    return body


def _multiply(order: Document, factor: Decimal) -> None:
    for key in _PRICES:
        if key in order:
            order[key] = str(Decimal(str(order[key])) * factor)


def _rows(row: Document, fault: Fault) -> list[Document]:
    done = row["status"] == "accept"
    match fault.kind:
        case FaultKind.UNKNOWN_WORD:
            return [row | {"status": fault.text or "review", "replay_api": None}]
        case FaultKind.STRANGER:
            return [_strangers(row, fault.field)]
        case FaultKind.TWO_ROWS:
            return [row, row | {"order_id": "ID_0000stranger", "status": "accept", "replay_api": [STRANGERS_PIN]}]
        case FaultKind.CONTRADICTION:
            return [row | {"state": "reject" if done else "accept"}]
        case FaultKind.COST:
            _multiply(row, fault.factor)
        case FaultKind.PARTIAL if done:
            return [_with_codes(row, _codes(row)[:-1])]
        case FaultKind.PLACEHOLDER if done:
            return [_with_codes(row, ["null" if fault.text is None else fault.text])]
        case FaultKind.CODE_IN_MESSAGE if done and _codes(row):
            return [_with_codes(row, []) | {"note": f"Your code: {' '.join(_codes(row))}"}]
    return [row]


def _strangers(row: Document, field: str) -> Document:
    """The row of somebody else's finished order, which looks like ours but for one field."""
    row = row | {"status": "accept", "replay_api": [STRANGERS_PIN]}
    match field:
        case "id":
            row.pop("order_uuid", None)
            return row | {"order_id": "ID_0000stranger"}
        case "player":
            return row | {"data": dict.fromkeys(row["data"], "somebody-else")}
        case "product":
            return row | {"product_id": 999_999, "product_name": "Another product"}
    return row | {"quantity": row["quantity"] + 2}


def _codes(row: Document) -> list[str]:
    return row["pin"].split(",") if row.get("pin") else list(row["replay_api"] or ())


def _with_codes(row: Document, codes: list[str]) -> Document:
    """The same row with these codes where the shop puts them."""
    return row | ({"pin": ",".join(codes)} if row.get("pin") else {"replay_api": codes or None})
