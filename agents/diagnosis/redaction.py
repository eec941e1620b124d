"""What belongs to a customer, and how it is hidden on every screen."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

#: Fields of an order that say something about the customer.
PERSONAL = frozenset({"user_identifier", "customer_phone", "extra_field"})


def hidden(text: object) -> object:
    """A personal value as it may be shown: its last two characters when enough is hidden before them."""
    if text is None or text == "":
        return text
    if not isinstance(text, str):
        return "***"
    return f"***{text[-2:]}" if len(text) >= 6 else "***"


def without_personal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with the customer's fields hidden, at any depth, and all of ``params`` and of a correction."""
    shown: dict[str, Any] = {}
    for name, value in fields.items():
        if name in PERSONAL:
            shown[name] = hidden(value)
        elif name in {"params", "wire", "fix"}:
            inner = value.items() if isinstance(value, Mapping) else ()
            shown[name] = {key: hidden(text) for key, text in inner} if inner else hidden(value)
        elif name == "pins" and value:
            shown[name] = [f"sealed ({len(value)})"]
        elif isinstance(value, Mapping):
            shown[name] = without_personal(value)
        else:
            shown[name] = value
    return shown


def readable(value: bytes, *, raw: bool = False) -> object:
    """An event as data; what is no JSON object is only measured unless ``raw``, for nobody knows what is in it."""
    import json

    try:
        said = json.loads(value)
    except (ValueError, RecursionError):
        said = None
    if raw:
        return said if said is not None else value.decode("utf-8", "replace")
    return without_personal(_expected(said)) if isinstance(said, dict) else f"{len(value)} bytes, not a JSON object"


def _expected(said: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event. What does not belong into its field may be a customer's, so it is hidden, unless it is
    too short to tell anything."""
    import msgspec

    from streams.events import EVENTS, Amount

    kinds: dict[str, list[Any]] = {"params": [Any], **{name: [Any] for name in PERSONAL}}
    structs: tuple[type[msgspec.Struct], ...] = (*EVENTS, Amount)
    for struct in structs:
        for field in msgspec.structs.fields(struct):
            kinds.setdefault(field.name, []).append(field.type)

    def shown(name: str, value: Any) -> Any:
        for kind in kinds.get(name, ()):
            with suppress(msgspec.ValidationError):
                msgspec.convert(value, kind)
                return value
        if isinstance(value, Mapping):
            return {key: shown(key, inner) for key, inner in value.items()}
        return "***" if isinstance(value, list) or len(str(value)) > 3 else value

    return {name: shown(name, value) for name, value in said.items()}
