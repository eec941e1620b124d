"""The ZDK adapter (barakat, apstore): JSON, an ``api-token`` header, and a uuid of ours that buys at most once."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote

from agents.providers.base import (
    MAX_BODY,
    Ask,
    Balance,
    CatalogueItem,
    OrderFacts,
    PlacedAnswer,
    Profile,
    Refusal,
    Reply,
    Seen,
    Setup,
    StatusAnswer,
)
from agents.providers.text import decode, fold
from agents.providers.wire import (
    DELIVERS_PIN,
    customers,
    filled,
    missing,
    own_marks,
    required,
    sent,
    unanswered,
    unfit_pins,
    unsent_or_unknown,
)
from agents.providers.zdk.products import read_products
from agents.providers.zdk.replies import CODES, WORDS, Code, Dialect, read_placement, read_profile, read_statuses
from streams.errors import InvalidOrder, ProviderError

_PRODUCT = "_product"
_OWN = frozenset({"order_uuid", "qty"})
_CATALOGUE_BYTES = 16 * 1024 * 1024
_LISTS = {"bracketed": "[{}]", "quoted": "[{}]", "bare": "{}"}
_METHODS = ("GET", "POST")
_WORDS = (Seen.PENDING, Seen.SUCCEEDED, Seen.FAILED)


class Barakat:
    """One account of a ZDK shop.

    Options: ``list_syntax`` (``bracketed``, ``quoted`` or ``bare``) of the ids in a check; ``method`` (``GET`` or
    ``POST``) of a placement; ``player_param``, the query key of the player, which a mapping may override by its own
    ``player_param``; ``error_codes`` (number -> a refusal, ``retry_later``, ``ambiguous`` or ``harmless``) and
    ``words`` (the shop's word -> ``pending``, ``succeeded`` or ``failed``) on top of the built-in tables.
    """

    profile: ClassVar[Profile] = Profile(repeat_safe=True, look_up=True, batch=50, quantity=True)
    credentials: ClassVar[frozenset[str]] = frozenset({"token"})
    mapping_keys: ClassVar[frozenset[str]] = frozenset({"provider_package_id"})
    options: ClassVar[frozenset[str]] = frozenset({"list_syntax", "method", "player_param", "error_codes", "words"})
    currency: ClassVar[str | None] = None
    reserved: ClassVar[frozenset[str]] = _OWN

    def __init__(self, setup: Setup) -> None:
        options = setup.options
        self._http = setup.http
        self._seal = setup.seal
        self._token = setup.credentials["token"]
        self._method = str(options.get("method") or "GET")
        self._list = str(options.get("list_syntax") or "bracketed")
        self._player = str(options.get("player_param") or "playerId")
        self._dialect = Dialect(
            setup.currency,
            {**WORDS, **{fold(str(word)): Seen(seen) for word, seen in (options.get("words") or {}).items()}},
            {**CODES, **{int(code): _meaning(name) for code, name in (options.get("error_codes") or {}).items()}},
            (self._token,),
        )

    @staticmethod
    def reference(tenant_id: str, order_id: str, attempt: int) -> str:
        """A uuid derived from the attempt, with the version bits of a random one: strict shops accept only those."""
        digest = hashlib.sha256("\0".join(("zdk", tenant_id, order_id, str(attempt))).encode()).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))

    @staticmethod
    def option_problems(options: Mapping[str, Any]) -> list[str]:
        """One line per option whose value cannot be used."""
        codes = [*Refusal, *Code]
        found = [
            f"options.{name} is {options[name]!r}; expected one of {', '.join(allowed)}"
            for name, allowed in (("list_syntax", tuple(_LISTS)), ("method", _METHODS))
            if name in options and options[name] not in allowed
        ]
        for name, allowed in (("error_codes", codes), ("words", _WORDS)):
            table = options.get(name) or {}
            if not isinstance(table, Mapping):
                found.append(f"options.{name} is {table!r}; expected a mapping")
                continue
            for key, value in table.items():
                if name == "error_codes" and not str(key).isdecimal():
                    found.append(f"options.{name}.{key} is not a code; expected a number")
                if value not in allowed:
                    found.append(f"options.{name}.{key} is {value!r}; expected one of {', '.join(allowed)}")
        return found

    def prepare(self, order: OrderFacts, mapping: Mapping[str, Any], quantity: int) -> dict[str, str]:
        if quantity < 1:
            raise InvalidOrder(f"quantity is {quantity}; expected 1 or more")
        parameter = str(mapping.get("player_param") or self._player)
        templates = {parameter: str(mapping.get("player") or "{user_identifier}")}
        wire = {_PRODUCT: required(mapping, "provider_package_id"), "qty": str(quantity)}
        return wire | filled(templates, mapping, order, quantity, _OWN) | own_marks(mapping)

    async def place(self, reference: str, wire: Mapping[str, str]) -> PlacedAnswer:
        if unfit := missing(wire, (_PRODUCT, "qty")):
            return unfit
        path = f"/client/api/newOrder/{quote(wire[_PRODUCT], safe='')}/params"
        query = sent({**wire, "order_uuid": reference}, ("qty", "order_uuid"))
        try:
            reply = await self._ask(self._method, path, query)
        except ProviderError as error:
            return unsent_or_unknown(error)
        answer = read_placement(
            reference,
            reply.status,
            decode(reply.body, reply.charset),
            self._masking(wire),
            delivers_pin=wire.get(DELIVERS_PIN) == "1",
            retry_after_s=reply.retry_after_s,
        )
        flags = ("pin_mismatch",) if unfit_pins(answer.pins, wire) else ()
        return replace(answer, pins=tuple(self._seal(pin) for pin in answer.pins), flags=(*answer.flags, *flags))

    async def check(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        """By the provider's ids where all are known, else by our own."""
        return await self._statuses(asks, by_uuid=any(ask.external_id is None for ask in asks))

    async def look_up(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        return await self._statuses(asks, by_uuid=True)

    async def balance(self) -> Balance:
        try:
            reply = await self._ask("GET", "/client/api/profile", {})
        except ProviderError as error:
            return Balance(None, str(error))
        return read_profile(reply.status, decode(reply.body, reply.charset), self._dialect)

    async def catalogue(self) -> Sequence[CatalogueItem]:
        reply = await self._ask("GET", "/client/api/products", {}, _CATALOGUE_BYTES)
        return read_products(reply.status, decode(reply.body, reply.charset), self._dialect.currency)

    async def _statuses(self, asks: Sequence[Ask], *, by_uuid: bool) -> list[StatusAnswer]:
        """One request; where a shop's rows do not say whose they are, one more for each order that stayed open."""
        answers = await self._asked(asks, by_uuid=by_uuid)
        if len(asks) == 1:
            return answers
        return [
            (await self._asked([ask], by_uuid=True))[0] if "anonymous_rows" in answer.flags else answer
            for ask, answer in zip(asks, answers, strict=True)
        ]

    async def _asked(self, asks: Sequence[Ask], *, by_uuid: bool) -> list[StatusAnswer]:
        if not asks:
            return []
        ids = [ask.reference if by_uuid else ask.external_id or ask.reference for ask in asks]
        listed = ",".join(f'"{name}"' if self._list == "quoted" else name for name in ids)
        query = {"orders": _LISTS[self._list].format(listed)} | ({"uuid": "1"} if by_uuid else {})
        try:
            reply = await self._ask("GET", "/client/api/check", query)
        except ProviderError as error:
            return [unanswered(error)] * len(asks)
        answers = read_statuses(
            asks,
            reply.status,
            decode(reply.body, reply.charset),
            self._masking(*(ask.wire for ask in asks)),
            by_uuid=by_uuid,
            retry_after_s=reply.retry_after_s,
        )
        return [self._sealed(answer, ask.wire) for ask, answer in zip(asks, answers, strict=True)]

    def _sealed(self, answer: StatusAnswer, wire: Mapping[str, str]) -> StatusAnswer:
        flags = ("pin_mismatch",) if unfit_pins(answer.pins, wire) else ()
        return replace(answer, pins=tuple(self._seal(pin) for pin in answer.pins), flags=(*answer.flags, *flags))

    def _masking(self, *wires: Mapping[str, str]) -> Dialect:
        """The dialect that also masks what these orders' customers said."""
        said = [word for wire in wires for word in customers(wire, _OWN)]
        return replace(self._dialect, secrets=(self._token, *said))

    async def _ask(self, method: str, path: str, query: Mapping[str, str], max_body: int = MAX_BODY) -> Reply:
        headers = {"api-token": self._token, "Accept": "application/json"}
        return await self._http.fetch(method, path, query=query, headers=headers, max_body=max_body)


def _meaning(name: str) -> Refusal | Code:
    return Code(name) if name in tuple(Code) else Refusal(name)
