"""znet answers that do not say what happened. The purchase and its life stay as they are."""

from collections.abc import Callable
from decimal import Decimal

from orderwatch.simulator.account import Account
from orderwatch.simulator.faults import Fault, FaultKind
from orderwatch.simulator.orders import pin_of
from orderwatch.simulator.wire import Answer

#: ``OK``, state, PIN, text; or ``OK``, cost, balance.
Row = list[str]

STRANGERS_PIN = pin_of("stranger")
_DONE = "İşlem tamamlandı"


def untrue(account: Account, answer: Answer, fault: Fault, text: Callable[[Account, str, str], Answer]) -> Answer:
    """The answer as the fault changes it; one that is no row of an order stays. ``text`` encodes a line."""
    encoding = account.spec.switches.encoding  # type: ignore[union-attr]  # it is a znet account
    row = answer.body.decode(encoding, "replace").split("|")
    if answer.label.startswith("found:"):
        body = _status(row, fault)
    elif answer.label in ("accepted", "repeat") and row[0] == "OK":
        body = _placement(row, fault)
    else:
        return answer
    return text(account, body, answer.label)


def _placement(row: Row, fault: Fault) -> str:
    if fault.kind is FaultKind.UNKNOWN_WORD:
        return f"OK|{fault.text or 'inceleniyor'}"
    if fault.kind is FaultKind.CONTRADICTION:
        return "OK|3||0.00"
    if fault.kind is FaultKind.COST:
        return "|".join(["OK", str(_amount(row[1]) * fault.factor), *row[2:]])
    return "|".join(row)


def _amount(text: str) -> Decimal:
    return Decimal(text.replace(".", "").replace(",", ".") if "," in text else text)


def _status(row: Row, fault: Fault) -> str:
    _, state, pin, note = (*row, "", "", "")[:4]
    done = state == "2"
    match fault.kind:
        case FaultKind.UNKNOWN_WORD:
            return f"OK|{fault.text or '7'}| |{note if not done else ''}"
        case FaultKind.STRANGER:
            return f"OK|2|{STRANGERS_PIN}|{_DONE}"
        case FaultKind.TWO_ROWS:
            return f"{'|'.join(row)}\nOK|2|{STRANGERS_PIN}|{_DONE}"
        case FaultKind.CONTRADICTION:
            other = "OK|3| |İşlem iptal edildi" if done else f"OK|2|{STRANGERS_PIN}|{_DONE}"
            return f"{other}\n{'|'.join(row)}"
        case FaultKind.PARTIAL if done:
            return f"OK|2| |{note}"
        case FaultKind.PLACEHOLDER if done:
            return f"OK|2|{'null' if fault.text is None else fault.text}|{note}"
        case FaultKind.CODE_IN_MESSAGE if done and pin.strip():
            return f"OK|2| |Kodunuz: {pin}"
    return "|".join(row)
