"""What every HTTP adapter shares: wire parameters of a placement, and answers that do not depend on the protocol."""

from collections.abc import Iterable, Mapping
from typing import Any

from agents.providers.base import OrderFacts, Placed, PlacedAnswer, Refusal, Seen, StatusAnswer, fill
from streams.errors import InvalidOrder, LeaseOver, NotSent, ProviderError

#: Wire keys that begin with this are ours and are never sent.
OURS = "_"
DELIVERS_PIN = "_delivers_pin"

_ACCESS_STATUS = frozenset({401, 403})
_REFUSED_STATUS = frozenset({400, 404, 405})


def own_marks(mapping: Mapping[str, Any]) -> dict[str, str]:
    """The reserved wire keys of a mapping."""
    return {DELIVERS_PIN: "1"} if mapping.get("delivers_pin") is True else {}


def required(mapping: Mapping[str, Any], key: str) -> str:
    """A mapping value that a placement cannot do without."""
    value = mapping.get(key)
    text = "" if value is None or isinstance(value, bool) else str(value).strip()
    if not text:
        raise InvalidOrder(f"mapping.{key} is missing; expected the provider's value for this package")
    return text


def filled(
    templates: Mapping[str, str], mapping: Mapping[str, Any], order: OrderFacts, quantity: int, reserved: Iterable[str]
) -> dict[str, str]:
    """Wire parameters from the adapter's default templates and the mapping's own ``params``, which win."""
    chosen = {**templates, **(mapping.get("params") or {})}
    for name in chosen:
        if name in reserved or name.startswith(OURS):
            raise InvalidOrder(f"mapping.params.{name} is not allowed; expected a parameter the adapter does not set")
    wire = {name: fill(str(template), order, quantity, name) for name, template in chosen.items()}
    for name, value in wire.items():
        if not value:
            raise InvalidOrder(f"{name} is empty; expected a value from the order")
    return wire


def sent(wire: Mapping[str, str], first: Iterable[str]) -> dict[str, str]:
    """The parameters to send in one fixed order, whatever order the database returned them in."""
    leading = {name: wire[name] for name in first if name in wire}
    return leading | {name: wire[name] for name in sorted(wire) if name not in leading and not name.startswith(OURS)}


def customers(wire: Mapping[str, str], own: Iterable[str]) -> tuple[str, ...]:
    """What the order brought to the wire, to be masked where a provider repeats it. Words below four characters are
    left: they say little about a customer, and masking them would garble every other text."""
    values = [value for name, value in wire.items() if name not in own and not name.startswith(OURS)]
    return tuple(word for value in values for word in (value, *value.split()) if len(word) >= 4)


def missing(wire: Mapping[str, str], names: Iterable[str]) -> PlacedAnswer | None:
    """NOT_SENT naming the parameters that ``wire`` lacks; None when it is complete."""
    absent = [name for name in names if not wire.get(name, "").strip()]
    if not absent:
        return None
    return PlacedAnswer(Placed.NOT_SENT, message=f"wire parameter {', '.join(absent)} is missing", flags=("invalid",))


def unsent_or_unknown(error: ProviderError) -> PlacedAnswer:
    """A placement that brought no answer."""
    kind = Placed.NOT_SENT if isinstance(error, NotSent) else Placed.AMBIGUOUS
    return PlacedAnswer(kind, message=str(error), flags=("late",) if isinstance(error, LeaseOver) else ("network",))


def unanswered(error: ProviderError) -> StatusAnswer:
    """A status question that brought no answer."""
    return StatusAnswer(Seen.QUERY_ERROR, message=str(error), flags=("network",))


def placement_by_status(status: int, retry_after_s: float | None, raw: str, **known: Any) -> PlacedAnswer:
    """What an answer without a readable body says about a placement: refusals made before the application certainly
    bought nothing; 408, 3xx, 5xx and everything rare may have. ``known`` are fields for the ambiguous case."""
    if status == 429:
        return PlacedAnswer(
            Placed.RETRY_LATER,
            message="the provider asks to slow down (HTTP 429)",
            retry_after_s=60.0 if retry_after_s is None else retry_after_s,
            raw=raw,
        )
    if status in _ACCESS_STATUS or status in _REFUSED_STATUS:
        reason = Refusal.ACCESS if status in _ACCESS_STATUS else Refusal.OTHER
        return PlacedAnswer(
            Placed.REJECTED, reason=reason, message=f"refused with HTTP {status}", tripped=True, raw=raw
        )
    message = known.pop("message", "") or f"no readable answer (HTTP {status})"
    return PlacedAnswer(Placed.AMBIGUOUS, message=message, raw=raw, **known)


def question_by_status(status: int, retry_after_s: float | None, raw: str) -> StatusAnswer:
    """A status question answered with something else than 200."""
    return StatusAnswer(
        Seen.QUERY_ERROR,
        message=f"the question failed (HTTP {status})",
        retry_after_s=retry_after_s,
        tripped=status in _ACCESS_STATUS,
        flags=(f"http_{status}",),
        raw=raw,
    )
