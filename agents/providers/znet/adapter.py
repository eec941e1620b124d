"""The znet adapter: GET with credentials in the query, pipe-separated answers, one unit per order, liras only.

What a repeated ``referans`` does there is not known, so a reference is never sent twice.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from agents.providers.base import (
    Ask,
    Balance,
    CatalogueItem,
    OrderFacts,
    PlacedAnswer,
    Profile,
    Reply,
    Seen,
    Setup,
    StatusAnswer,
)
from agents.providers.text import decode
from agents.providers.wire import (
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
from agents.providers.znet import replies
from streams.errors import InvalidOrder, ProviderError

_OWN = frozenset({"kod", "sifre", "referans", "oyun", "kupur"})
_ORDER = ("kod", "sifre", "oyun", "kupur", "referans", "oyuncu_bilgi", "musteri_tel")
_CATALOGUE_BYTES = 8 * 1024 * 1024


class Znet:
    """One dealer account of a znet shop. Mappings carry ``oyun`` and ``kupur``; ``player`` may hold the template of
    ``oyuncu_bilgi``. Option ``phone_placeholder`` is sent as ``musteri_tel`` when the order has no phone."""

    profile: ClassVar[Profile] = Profile(
        repeat_safe=False,
        look_up=True,
        batch=1,
        quantity=False,
        absent_settle_s=60.0,
        absent_answers=5,
        absent_window_s=900.0,
    )
    credentials: ClassVar[frozenset[str]] = frozenset({"kod", "sifre"})
    mapping_keys: ClassVar[frozenset[str]] = frozenset({"oyun", "kupur"})
    options: ClassVar[frozenset[str]] = frozenset({"phone_placeholder"})
    currency: ClassVar[str | None] = replies.CURRENCY
    reserved: ClassVar[frozenset[str]] = _OWN

    def __init__(self, setup: Setup) -> None:
        self._http = setup.http
        self._seal = setup.seal
        self._access = {name: setup.credentials[name] for name in ("kod", "sifre")}
        self._secrets = tuple(self._access.values())
        self._phone = str(setup.options.get("phone_placeholder") or "")

    @staticmethod
    def reference(tenant_id: str, order_id: str, attempt: int) -> str:
        """Eighteen decimal digits."""
        digest = hashlib.sha256("\0".join(("znet", tenant_id, order_id, str(attempt))).encode()).digest()
        return str(10**17 + int.from_bytes(digest) % (9 * 10**17))

    def prepare(self, order: OrderFacts, mapping: Mapping[str, Any], quantity: int) -> dict[str, str]:
        if quantity != 1:
            raise InvalidOrder(f"quantity is {quantity}; expected 1, znet buys one unit per request")
        wire = {"oyun": required(mapping, "oyun"), "kupur": required(mapping, "kupur")}
        templates = {"oyuncu_bilgi": str(mapping.get("player") or "{user_identifier}")}
        if order.customer_phone.strip():
            templates["musteri_tel"] = "{customer_phone}"
        elif self._phone:
            templates["musteri_tel"] = self._phone
        return wire | filled(templates, mapping, order, quantity, _OWN) | own_marks(mapping)

    async def place(self, reference: str, wire: Mapping[str, str]) -> PlacedAnswer:
        if unfit := missing(wire, ("oyun", "kupur", "oyuncu_bilgi")):
            return unfit
        try:
            reply = await self._get("pin_ekle", {**wire, "referans": reference})
        except ProviderError as error:
            return unsent_or_unknown(error)
        return replies.read_placement(
            reference,
            reply.status,
            decode(reply.body, reply.charset),
            retry_after_s=reply.retry_after_s,
            secrets=(*self._secrets, *customers(wire, _OWN)),
        )

    async def check(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        """One request per ask: znet takes one reference at a time."""
        return [await self._status(ask) for ask in asks]

    async def look_up(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        """An unknown reference and broken access look alike there: a negative answer counts as NOT_FOUND only between
        two readings of the balance."""
        before = await self.balance()
        answers = [await self._status(ask) for ask in asks]
        if not any("negative" in answer.flags for answer in answers):
            return answers
        after = await self.balance() if before.money else before
        return [_absent(answer, before, after) if "negative" in answer.flags else answer for answer in answers]

    async def balance(self) -> Balance:
        try:
            reply = await self._get("bakiye_kontrol", {})
        except ProviderError as error:
            return Balance(None, str(error))
        return replies.read_balance(reply.status, decode(reply.body, reply.charset), secrets=self._secrets)

    async def catalogue(self) -> Sequence[CatalogueItem]:
        reply = await self._get("pin_listesi", {}, _CATALOGUE_BYTES)
        return replies.read_catalogue(reply.status, decode(reply.body, reply.charset), secrets=self._secrets)

    async def _status(self, ask: Ask) -> StatusAnswer:
        try:
            reply = await self._get("pin_kontrol", {"tahsilat_api_islem_id": ask.reference})
        except ProviderError as error:
            return unanswered(error)
        answer = replies.read_status(
            ask.reference,
            reply.status,
            decode(reply.body, reply.charset),
            retry_after_s=reply.retry_after_s,
            secrets=(*self._secrets, *customers(ask.wire, _OWN)),
            delivers_pin=ask.delivers_pin,
        )
        flags = ("pin_mismatch",) if unfit_pins(answer.pins, ask.wire) else ()
        return replace(answer, pins=tuple(self._seal(pin) for pin in answer.pins), flags=(*answer.flags, *flags))

    async def _get(self, service: str, parameters: Mapping[str, str], max_body: int | None = None) -> Reply:
        query = sent({**parameters, **self._access}, _ORDER)
        path = f"/servis/{service}.php"
        if max_body is None:
            return await self._http.fetch("GET", path, query=query)
        return await self._http.fetch("GET", path, query=query, max_body=max_body)


def _absent(answer: StatusAnswer, before: Balance, after: Balance) -> StatusAnswer:
    if before.money and after.money:
        return replace(answer, kind=Seen.NOT_FOUND, message="the account answers and does not know this reference")
    probe = after if before.money else before
    return replace(answer, message=f"the account does not answer: {probe.reason}", tripped=probe.tripped)
