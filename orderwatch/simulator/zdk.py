"""The ZDK shop (barakat, apstore): JSON under /client/api, purchases by GET, an ``api-token`` header."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from orderwatch.simulator import zdk_catalogue
from orderwatch.simulator.account import RELAPSED, Account
from orderwatch.simulator.faults import UNTRUE, Fault, FaultKind
from orderwatch.simulator.market import Market
from orderwatch.simulator.orders import Purchase
from orderwatch.simulator.scenario import QuantityRange, ZdkAccount, ZdkPackage
from orderwatch.simulator.wire import NOT_EXECUTED, Answer, Asked, Call, as_json, buys_nothing, refuses
from orderwatch.simulator.zdk_untrue import untrue

WORDS = {"pending": "wait", "success": "accept", "fail": "reject", "reversed": "reject"}
MESSAGES = {
    100: "Insufficient balance",
    105: "Quantity not available",
    106: "Quantity not allowed",
    107: "Player id is blocked",
    108: "Second factor required",
    109: "Product not found",
    110: "Product not available now",
    111: "Try again after 1 minute",
    112: "Quantity too small",
    113: "Quantity too large",
    114: "Missing or invalid parameter",
    120: "Api Token is required",
    121: "Token error",
    122: "Not allowed to use API",
    123: "IP not allowed",
    130: "Site under maintenance",
    429: "Too many requests",
    500: "Unknown error",
}
HTTP_STATUS = {120: 401, 121: 401, 122: 403, 123: 403, 130: 503, 429: 429, 500: 500}
UUID_FORM = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def asked(call: Call) -> Asked | None:
    """The service a call means; None for a path that does not exist."""
    if call.parts[:2] != ("client", "api") or call.method not in ("GET", "POST"):
        return None
    match call.parts[2:]:
        case ("newOrder", _, "params"):
            return Asked("place", call.query.get("order_uuid", ""))
        case ("check",) if call.method == "GET":
            return Asked("check", call.query.get("orders", ""))
        case ("profile",) if call.method == "GET":
            return Asked("balance")
        case ("products",) | ("content", _) if call.method == "GET":
            return Asked("catalogue")
    return None


def goods(account: Account, ask: Asked, call: Call) -> list[tuple[str, str]]:
    """The (package, player) pairs a call is about."""
    if ask.operation == "place":
        package = account.packages.get(call.parts[3])
        return [(call.parts[3], player_of(package, call) if isinstance(package, ZdkPackage) else "")]
    return [(purchase.package.id, purchase.player) for purchase in named(account, call)]


def answer(market: Market, account: Account, ask: Asked, call: Call, fault: Fault | None) -> Answer:
    """Do what the call asks, at once, and say so in the shop's words."""
    shut = locked(account, call, fault)
    if shut is not None:
        return error(account, shut, label="locked")
    if buys_nothing(fault) and ask.operation == "place":
        return refused(account, fault) if fault is not None and refuses(fault) else NOT_EXECUTED
    if ask.operation == "place":
        reply = place(market, account, call, fault)
    elif ask.operation == "check":
        reply = check(account, call, fault)
    elif ask.operation == "balance":
        reply = profile(account)
    else:
        reply = zdk_catalogue.answer(spec_of(account).catalogue, call)
    if fault is None:
        return reply
    return refused(account, fault) if refuses(fault) else untrue(reply, fault) if fault.kind in UNTRUE else reply


def place(market: Market, account: Account, call: Call, fault: Fault | None) -> Answer:
    """newOrder/{product}/params."""
    spec = spec_of(account)
    if spec.switches.new_order not in ("any", call.method.lower()):
        return Answer(b"<html><body><h1>405 Method Not Allowed</h1></body></html>", "405", 405)
    package = account.packages.get(call.parts[3])
    if not isinstance(package, ZdkPackage):
        return error(account, 109)
    uuid = call.query.get("order_uuid", "")
    if (uuid or spec.switches.uuid_required) and not UUID_FORM.match(uuid):
        return error(account, 114, "order_uuid is missing or invalid")
    earlier = account.orders.get(uuid) if uuid else None
    if earlier and spec.switches.repeat == "idempotent":
        return order_answer(account, earlier[0], "repeat")
    missing = [key for key in package.params if not call.query.get(key, "").strip()]
    if missing:
        return error(account, 114, f"{missing[0]} is required")
    quantity = call.query.get("qty", "")
    wrong = quantity_error(package, quantity)
    if wrong is not None:
        return error(account, wrong)
    if not package.available:
        return error(account, 110)
    if package.price * int(quantity) > account.spendable:
        return error(account, 100)
    data = {key: value for key, value in call.query.items() if key not in ("qty", "order_uuid")}
    reference = uuid or f"without-uuid-{account.executed + 1}"
    purchase = market.buy(account, reference, package, player_of(package, call), int(quantity), fault, data)
    return order_answer(account, purchase, "accepted")


def quantity_error(package: ZdkPackage, quantity: str) -> int | None:
    """The error code for a quantity the product does not allow."""
    if not (quantity.isascii() and quantity.isdigit() and len(quantity) <= 9):
        return 114
    values = package.qty_values
    if values is None:
        return None if int(quantity) == 1 else 106
    if isinstance(values, QuantityRange):
        return 112 if int(quantity) < values.min else 113 if int(quantity) > values.max else None
    return None if quantity in values else 106


def order_answer(account: Account, purchase: Purchase, label: str) -> Answer:
    """A placement's answer; for a repeated uuid the order as it stands now."""
    account.show(purchase, check=False)
    state, switches = purchase.state, spec_of(account).switches
    word = word_of(purchase, state)
    pins = purchase.released_pins()
    price = price_text(purchase.cost) if state in ("pending", "success") else 0
    if switches.envelope == "flat":
        body: dict[str, Any] = {
            "id": purchase.external_id,
            "order_uuid": purchase.reference,
            "status": word,
            "quantity": purchase.quantity,
            "price_usd" if account.spec.currency == "USD" else "price": float(purchase.cost),
            "reused": label == "repeat",
        }
        return as_json(body | ({"pin": ",".join(pins)} if pins else {}), label)
    replay: Any = reply_texts(purchase, state, pins)
    inner: dict[str, Any] = {
        "order_id": purchase.external_id,
        "status": word,
        "price": price,
        "data": purchase.data,
        "replay_api": [{"replay": pins}] if pins and switches.pin_in == "replay_api" else replay,
    }
    if pins and switches.pin_in == "pin":
        inner["pin"], inner["replay_api"] = ",".join(pins), None
    return as_json({"status": word if switches.envelope == "repeated" else "OK", "data": inner}, label)


def check(account: Account, call: Call, fault: Fault | None) -> Answer:
    """check: rows of the known orders, newest first; unknown ones are simply absent."""
    switches = spec_of(account).switches
    wanted = listed(call.query.get("orders", ""), switches.list_syntax)
    if wanted is None:
        return error(account, 114, "orders is required")
    if len(wanted) > switches.check_limit:
        return error(account, 114, f"at most {switches.check_limit} orders")
    by_uuid = call.query.get("uuid") == "1"
    rows = []
    for purchase, extra in account.look_up(purchases_of(account, wanted, by_uuid), fault):
        stale = fault is not None and fault.kind is FaultKind.STALE
        rows.append((purchase.number, check_row(account, purchase, "pending" if stale else purchase.state, extra)))
    body = [row for _, row in sorted(rows, key=lambda pair: -pair[0])]
    label = f"found:{len(body)}/{len(wanted)}"
    return as_json(body if switches.check_array else {"status": "OK", "data": body}, label)


def check_row(account: Account, purchase: Purchase, state: str, extra: str | None) -> dict[str, Any]:
    """One order as ``check`` shows it; ``created_at`` has no zone, as in the wild (it is UTC)."""
    switches = spec_of(account).switches
    if extra is not None:
        state = "pending"
        extra = None if extra is RELAPSED else extra
    pins = purchase.released_pins() if state == "success" else []
    row: dict[str, Any] = {
        "order_id": purchase.external_id,
        "quantity": purchase.quantity,
        "data": purchase.data,
        "created_at": datetime.fromtimestamp(purchase.executed_at_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "product_name": purchase.package.name,
        "price": price_text(purchase.cost),
        "status": extra or word_of(purchase, state),
        "replay_api": pins or reply_texts(purchase, state, pins),
    }
    if pins and switches.pin_in == "pin":
        row["pin"], row["replay_api"] = ",".join(pins), None
    if switches.uuid_in_rows:
        row["order_uuid"] = purchase.reference
    return row


def named(account: Account, call: Call) -> list[Purchase]:
    """The orders a check speaks of, without counting it."""
    wanted = listed(call.query.get("orders", ""), spec_of(account).switches.list_syntax)
    return purchases_of(account, wanted or [], call.query.get("uuid") == "1")


def purchases_of(account: Account, wanted: list[str], by_uuid: bool) -> list[Purchase]:
    """Known executions behind uuids or behind the shop's own ids, each once."""
    ids = dict.fromkeys(wanted)
    if by_uuid:
        return [purchase for uuid in ids for purchase in account.orders.get(uuid, ())]
    return [account.by_external_id[name] for name in ids if name in account.by_external_id]


def listed(value: str, syntax: str) -> list[str] | None:
    """``[a,b]``, ``["a","b"]`` or ``a,b``; a strict shop takes brackets and quotes it does not know for part of an id.

    None when nothing was asked for.
    """
    value = value.strip()
    if not value.strip("[] "):
        return None
    bracketed = value.startswith("[") and value.endswith("]")
    if syntax in ("any", "quoted") and bracketed and '"' in value:
        try:
            return [str(item) for item in json.loads(value)]
        except ValueError:
            return value.split(",")
    if syntax in ("any", "bracketed") and bracketed:
        value = value[1:-1]
    elif syntax in ("bracketed", "quoted"):
        return [value]
    return [item.strip() for item in value.split(",")]


def word_of(purchase: Purchase, state: str) -> str:
    """The shop's word for a state; the life may have another one for the end."""
    return WORDS[state] if state == "pending" else purchase.life.final_word or WORDS[state]


def reply_texts(purchase: Purchase, state: str, pins: list[str]) -> list[str] | None:
    """What the supplier wrote, where it delivered no code."""
    if state == "pending" or pins:
        return None
    if purchase.life.text is not None:
        return [purchase.life.text] if purchase.life.text else []
    return [] if state == "success" else ["player not found"] if state == "fail" else ["canceled"]


def profile(account: Account) -> Answer:
    """profile: the balance as a string, and what some shops add."""
    body: dict[str, Any] = {"balance": f"{account.balance:f}", "email": f"{account.spec.id}@example.com"}
    if account.spec.debt is not None:
        body["debt"] = f"{account.spec.debt:f}"
    if spec_of(account).switches.envelope == "flat":
        body["currency"] = account.spec.currency
    return as_json(body, "balance")


def locked(account: Account, call: Call, fault: Fault | None) -> int | None:
    """The code that keeps this caller out."""
    if not call.token:
        return 120
    if call.token != spec_of(account).credentials.token:
        return 121
    if not account.spec.permission:
        return 122
    shut = fault is not None and fault.kind is FaultKind.LOCK_OUT
    return 123 if shut or not account.spec.ip_allowed else None


def refused(account: Account, fault: Fault) -> Answer:
    """A refusal by order of a fault."""
    return error(account, 110 if fault.code is None else fault.code, fault.text)


def error(account: Account, code: int, message: str | None = None, label: str | None = None) -> Answer:
    """An error in the manner of this shop."""
    switches = spec_of(account).switches
    said = message if message is not None else MESSAGES.get(code, "Error")
    bodies: dict[str, dict[str, Any]] = {
        "status": {"status": "ERROR", "code": code, "message": said},
        "code": {"code": code, "message": said},
        "msg": {"status": code, "msg": said},
        "success": {"success": False, "error_code": code, "message": said},
    }
    status = HTTP_STATUS.get(code, 200) if switches.http_errors else 200
    return as_json(bodies[switches.error_style], label or f"refused:{code}", status)


def player_of(package: ZdkPackage, call: Call) -> str:
    """The value of the product's first parameter."""
    return call.query.get(package.params[0], "").strip()


def price_text(amount: Decimal) -> str:
    """Sixteen decimals, as the vendor prints them."""
    return f"{amount:.16f}"


def spec_of(account: Account) -> ZdkAccount:
    """The account's settings, known to be a ZDK dealer's."""
    assert isinstance(account.spec, ZdkAccount)
    return account.spec
