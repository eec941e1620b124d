"""The other side of the wire: the shop that a provider is, and four kinds of provider to explore without an adapter.

A shop answers requests at once and keeps the book that judges every run. It must keep the promises that the adapter's
profile makes in the provider's name (``repeat_safe``, ``look_up``); the explorer then shows that they suffice.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from agents.providers.base import (
    MAX_BODY,
    Ask,
    Balance,
    CatalogueItem,
    OrderFacts,
    Placed,
    PlacedAnswer,
    Profile,
    Refusal,
    Reply,
    Seen,
    Setup,
    StatusAnswer,
)
from agents.providers.wire import unanswered, unsent_or_unknown
from streams.errors import ProviderError


class Shop(Protocol):
    """What the explorer needs of a provider's server. Made anew for every run; ``now`` tells virtual seconds."""

    def __init__(self, now: Callable[[], float]) -> None: ...

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        max_body: int = MAX_BODY,
    ) -> Reply:
        """Answer one request of the adapter, as ``base.Http`` promises; waits for nothing."""

    def purchases(self) -> Sequence[str]:
        """Our reference of every purchase that stands (was not given back), one entry per purchase."""


@dataclass(slots=True)
class Purchase:
    """One entry of the plain shop's book."""

    reference: str
    number: str
    at: float


#: Words of a script that sell.
_DOUBTFUL = ("review", "stranger", "rows")
_SOLD = ("fails", "back", "duplicate", *_DOUBTFUL)


class PlainShop:
    """Sells at once and delivers ``WORKS_S`` later. ``script`` says what the next placements meet instead.

    Words: a refusal (``stock``, ``access``...), ``later`` (not now), ``fails`` (taken, and given up in the end).
    Of these it sells and says something else: ``duplicate`` (that it was sold before), ``review`` (a state of no
    protocol, for the first answers), ``stranger`` and ``rows`` (the first questions are answered with the row of
    somebody else, with two rows), ``back`` (done, then in work again, then given back).
    """

    WORKS_S = 40.0
    BACK_S, GIVEN_BACK_S = 300.0, 900.0
    DOUBTFUL_ANSWERS = 3
    dedupes: ClassVar[bool] = False

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.script: list[str] = []
        self.book: list[Purchase] = []
        self.failing: set[str] = set()
        self.back: set[str] = set()
        #: Reference -> what is wrong with the answers about it, and how many of them are left.
        self.doubtful: dict[str, tuple[str, int]] = {}

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        max_body: int = MAX_BODY,
    ) -> Reply:
        if method == "POST":
            return self._place((query or {})["reference"])
        kind, _, wanted = path.removeprefix("/").partition("/")
        for purchase in self.book:
            if wanted == (purchase.reference if kind == "references" else purchase.number):
                return self._told(purchase)
        return _reply(404, unknown=wanted)

    def _place(self, reference: str) -> Reply:
        known = next((purchase for purchase in self.book if purchase.reference == reference), None)
        if known is not None and self.dedupes:
            return _reply(200, state=self._state(known), id=known.number)
        word = self.script.pop(0) if self.script else ""
        if word == "later":
            return _reply(429)
        if word and word not in _SOLD:
            return _reply(422, refused=word)
        purchase = Purchase(reference, f"n{len(self.book) + 1}", self._now())
        self.book.append(purchase)
        if word == "fails":
            self.failing.add(reference)
        if word == "back":
            self.back.add(reference)
        if word in _DOUBTFUL:
            self.doubtful[reference] = (word, self.DOUBTFUL_ANSWERS)
        if word == "duplicate":
            return _reply(409, duplicate=reference)
        if word == "review":
            return self._told(purchase)
        return _reply(200, state=self._state(purchase), id=purchase.number)

    def _told(self, purchase: Purchase) -> Reply:
        """The answer to a question about an order."""
        word, left = self.doubtful.pop(purchase.reference, ("", 0))
        if left > 1:
            self.doubtful[purchase.reference] = (word, left - 1)
        state = "review" if word == "review" else self._state(purchase)
        if word == "stranger":
            return _reply(200, state="done", id="n0", reference="somebody-else")
        rows = {"others": [{"state": "done", "id": "n0"}]} if word == "rows" else {}
        return _reply(200, state=state, id=purchase.number, reference=purchase.reference, **rows)

    def _state(self, purchase: Purchase) -> str:
        if self._now() < purchase.at + self.WORKS_S:
            return "working"
        if purchase.reference in self.back and self._now() >= purchase.at + self.BACK_S:
            return "working" if self._now() < purchase.at + self.GIVEN_BACK_S else "failed"
        return "failed" if purchase.reference in self.failing else "done"

    def purchases(self) -> Sequence[str]:
        return [purchase.reference for purchase in self.book if self._state(purchase) != "failed"]


class DedupingShop(PlainShop):
    """A reference buys once, however often it is sent."""

    dedupes = True


def _reply(status: int, **body: Any) -> Reply:
    return Reply(status, json.dumps(body).encode(), "utf-8", 5.0 if status == 429 else None)


class _PlainAdapter:
    """Speaks to the plain shop; each class below is one kind of provider."""

    profile: ClassVar[Profile]
    credentials: ClassVar[frozenset[str]] = frozenset()
    mapping_keys: ClassVar[frozenset[str]] = frozenset()
    options: ClassVar[frozenset[str]] = frozenset()
    currency: ClassVar[str | None] = "EUR"

    def __init__(self, setup: Setup) -> None:
        self._http = setup.http

    @staticmethod
    def reference(tenant_id: str, order_id: str, attempt: int) -> str:
        return f"{tenant_id}-{order_id}-{attempt}"

    def prepare(self, order: OrderFacts, mapping: Mapping[str, Any], quantity: int) -> dict[str, str]:
        return {"player": order.user_identifier, "quantity": str(quantity)}

    async def place(self, reference: str, wire: Mapping[str, str]) -> PlacedAnswer:
        try:
            reply = await self._http.fetch("POST", "/orders", query={"reference": reference, **wire})
        except ProviderError as error:
            return unsent_or_unknown(error)
        said = _said(reply)
        if reply.status == 429:
            return PlacedAnswer(Placed.RETRY_LATER, retry_after_s=reply.retry_after_s)
        if reply.status == 422 and "refused" in said:
            return PlacedAnswer(Placed.REJECTED, reason=Refusal(said["refused"]), message="refused")
        if reply.status == 409 and "duplicate" in said:
            return PlacedAnswer(Placed.DUPLICATE, message="duplicate")
        kind = {"working": Placed.ACCEPTED, "done": Placed.COMPLETED, "failed": Placed.REFUSED_AFTER_ACCEPT}
        placed = kind.get(said.get("state", "")) if reply.status == 200 else None
        return PlacedAnswer(placed or Placed.AMBIGUOUS, external_id=said.get("id"))

    async def check(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        return [
            await self._ask(f"/orders/{ask.external_id}", ask.reference)
            if ask.external_id
            else StatusAnswer(Seen.QUERY_ERROR, message="the provider's own id is not known")
            for ask in asks
        ]

    async def look_up(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        return [await self._ask(f"/references/{ask.reference}", ask.reference) for ask in asks]

    async def _ask(self, path: str, reference: str) -> StatusAnswer:
        try:
            reply = await self._http.fetch("GET", path)
        except ProviderError as error:
            return unanswered(error)
        said = _said(reply)
        if reply.status == 404 and "unknown" in said:
            return StatusAnswer(Seen.NOT_FOUND)
        if said.get("reference", reference) != reference:
            return StatusAnswer(Seen.UNRECOGNISED, message="the row of another order", flags=("not_ours",))
        if "others" in said:
            return StatusAnswer(Seen.UNRECOGNISED, message="two orders under one reference", flags=("two_orders",))
        kind = {"working": Seen.PENDING, "done": Seen.SUCCEEDED, "failed": Seen.FAILED}.get(said.get("state", ""))
        if kind is None and "state" in said:
            return StatusAnswer(Seen.UNRECOGNISED, message="unknown word", external_id=said.get("id"))
        return StatusAnswer(kind or Seen.QUERY_ERROR, external_id=said.get("id"))

    async def balance(self) -> Balance:
        return Balance(None, "the plain shop has no balance")

    async def catalogue(self) -> Sequence[CatalogueItem]:
        return []


def _said(reply: Reply) -> dict[str, Any]:
    try:
        said = json.loads(reply.body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _profile(*, repeat_safe: bool, look_up: bool) -> Profile:
    return Profile(repeat_safe=repeat_safe, look_up=look_up, batch=1, quantity=False)


class RepeatSafe(_PlainAdapter):
    """A repeated reference buys once; nobody can be asked by it."""

    profile = _profile(repeat_safe=True, look_up=False)


class LookUp(_PlainAdapter):
    """Can be asked by our reference; a repeated one buys again."""

    profile = _profile(repeat_safe=False, look_up=True)


class Both(_PlainAdapter):
    """A repeated reference buys once, and can be asked for."""

    profile = _profile(repeat_safe=True, look_up=True)


class Neither(_PlainAdapter):
    """After a lost answer only a person can tell."""

    profile = _profile(repeat_safe=False, look_up=False)


#: Name -> adapter and shop.
CLASSES: dict[str, tuple[type[Any], type[PlainShop]]] = {
    "repeat": (RepeatSafe, DedupingShop),
    "look-up": (LookUp, PlainShop),
    "both": (Both, DedupingShop),
    "neither": (Neither, PlainShop),
}
