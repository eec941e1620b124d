"""What every HTTP adapter shares: wire parameters of a placement, and answers that do not depend on the protocol."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agents.providers import words
from agents.providers.base import OrderFacts, Placed, PlacedAnswer, Refusal, Seen, StatusAnswer, fill
from streams.errors import InvalidOrder, LeaseOver, NotSent, ProviderError

#: Wire keys that begin with this are ours and are never sent.
OURS = "_"
DELIVERS_PIN = "_delivers_pin"

PIN_PATTERN = "_pin_pattern"

_ACCESS_STATUS = frozenset({401, 403})


def own_marks(mapping: Mapping[str, Any]) -> dict[str, str]:
    """The reserved wire keys of a mapping."""
    marks = {DELIVERS_PIN: "1"} if mapping.get("delivers_pin") is True else {}
    return marks | ({PIN_PATTERN: str(mapping["pin_pattern"])} if mapping.get("pin_pattern") else {})


def unfit_pins(pins: Iterable[str], wire: Mapping[str, str]) -> bool:
    """Whether one of these plain PINs does not have the form that the mapping of the package states."""
    pattern = wire.get(PIN_PATTERN)
    return pattern is not None and not all(re.fullmatch(pattern, pin) for pin in pins)


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


#: Seconds until an answer that asks to slow down without saying for how long is taken up again.
RETRY_AFTER_S = 60.0


def refused(
    text: str, note: str, status: int, retry_after_s: float | None, raw: str, flags: tuple[str, ...] = ()
) -> PlacedAnswer:
    """A placement answered with the provider's own error envelope and no known code: ``text`` decides.

    ``note`` is the text as people may read it. HTTP 409 and 5xx are never a refusal.
    """
    kind, reason, listed = words.refusal(text)
    if kind is Placed.REJECTED and (status == 409 or status >= 500):
        kind, reason, listed = Placed.AMBIGUOUS, None, True
    if kind is Placed.REJECTED and status == 429:
        kind, reason, listed = Placed.RETRY_LATER, None, True
    if kind is Placed.REJECTED and status in _ACCESS_STATUS and not listed:
        kind, reason, listed = Placed.AMBIGUOUS, Refusal.ACCESS, True
    if kind is Placed.RETRY_LATER:
        retry_after_s = RETRY_AFTER_S if retry_after_s is None else retry_after_s
    if reason is Refusal.PACKAGE:
        flags = (*flags, "mapping")
    return PlacedAnswer(
        kind,
        reason=reason,
        message=note if status == 200 else f"{note} (HTTP {status})",
        retry_after_s=retry_after_s,
        tripped=reason is Refusal.ACCESS,
        flags=flags,
        raw=raw,
        listed=listed,
    )


def unsent_or_unknown(error: ProviderError) -> PlacedAnswer:
    """A placement that brought no answer."""
    kind = Placed.NOT_SENT if isinstance(error, NotSent) else Placed.AMBIGUOUS
    return PlacedAnswer(kind, message=str(error), flags=("late",) if isinstance(error, LeaseOver) else ("network",))


def unanswered(error: ProviderError) -> StatusAnswer:
    """A status question that brought no answer."""
    return StatusAnswer(Seen.QUERY_ERROR, message=str(error), flags=("network",))


def placement_by_status(status: int, retry_after_s: float | None, raw: str, **known: Any) -> PlacedAnswer:
    """What an answer without the provider's own envelope says about a placement: it may have been bought.

    A firewall, a proxy or a gateway may say 401, 403, 404 or 429 after the shop has sold. 401 and 403 ask for a
    look at the account. ``known`` are fields of the answer.
    """
    message = known.pop("message", "") or "no readable answer"
    message = message if status == 200 else f"{message} (HTTP {status})"
    if status in _ACCESS_STATUS:
        known |= {"reason": Refusal.ACCESS, "tripped": True}
    elif status != 200:
        known.pop("reason", None)  # an empty page of a gateway says nothing about the account
    flags = (*known.pop("flags", ()), *((f"http_{status}",) if status != 200 else ()))
    return PlacedAnswer(Placed.AMBIGUOUS, message=message, retry_after_s=retry_after_s, raw=raw, flags=flags, **known)


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
