"""A provider for Orderwatch: one order is ``PUT /orders/<our reference>``, which buys at most once by itself."""

import hashlib
from dataclasses import replace

from agents.providers.base import (
    Balance,
    CatalogueItem,
    Money,
    Placed,
    PlacedAnswer,
    Profile,
    Refusal,
    Seen,
    StatusAnswer,
)
from agents.providers.money import read_amount
from agents.providers.text import decode
from agents.providers.wire import filled, missing, required, sent, unanswered, unsent_or_unknown
from agents.providers.zdk.body import read_document, redact
from streams.errors import ProviderError

STATES = {"queued": Seen.PENDING, "done": Seen.SUCCEEDED, "refused": Seen.FAILED}
PLACED = {"queued": Placed.ACCEPTED, "done": Placed.COMPLETED, "refused": Placed.REFUSED_AFTER_ACCEPT}


class Topup:
    profile = Profile(repeat_safe=True, look_up=True, batch=1, quantity=False)
    credentials = frozenset({"key"})
    mapping_keys = frozenset({"sku"})
    options = frozenset()
    currency = "EUR"

    def __init__(self, setup):
        self.http, self.seal, self.key = setup.http, setup.seal, setup.credentials["key"]

    @staticmethod
    def reference(tenant_id, order_id, attempt):
        return hashlib.sha256(f"topup\0{tenant_id}\0{order_id}\0{attempt}".encode()).hexdigest()[:32]

    def prepare(self, order, mapping, quantity):
        return {"sku": required(mapping, "sku")} | filled({"player": "{user_identifier}"}, mapping, order, 1, {"sku"})

    async def place(self, reference, wire):
        if unfit := missing(wire, ("sku", "player")):
            return unfit
        try:
            status, body, raw = await self.ask("PUT", f"/orders/{reference}", sent(wire, ("sku", "player")))
        except ProviderError as error:
            return unsent_or_unknown(error)
        if status == 422 and body and body.get("error"):
            return PlacedAnswer(Placed.REJECTED, reason=Refusal.OTHER, message="refused", raw=raw)
        kind = PLACED.get(str(body.get("state"))) if status == 200 and body else None
        return PlacedAnswer(kind or Placed.AMBIGUOUS, pins=self.pins(body) if kind is Placed.COMPLETED else (), raw=raw)

    async def check(self, asks):
        return [await self.status(ask.reference) for ask in asks]

    look_up = check

    async def status(self, reference):
        try:
            status, body, raw = await self.ask("GET", f"/orders/{reference}", {})
        except ProviderError as error:
            return unanswered(error)
        if status == 404 and body and body.get("error") == "unknown order":
            return StatusAnswer(Seen.NOT_FOUND, raw=raw)
        if status != 200 or not body or "state" not in body:
            return StatusAnswer(Seen.QUERY_ERROR, message=f"HTTP {status}", raw=raw)
        answer = StatusAnswer(STATES.get(str(body["state"]), Seen.UNRECOGNISED), raw=raw)
        return replace(answer, pins=self.pins(body)) if answer.kind is Seen.SUCCEEDED else answer

    async def balance(self):
        try:
            status, body, _ = await self.ask("GET", "/balance", {})
        except ProviderError as error:
            return Balance(None, str(error))
        amount = read_amount(body.get("amount")) if status == 200 and body else None
        return Balance(Money(amount, self.currency)) if amount is not None else Balance(None, f"HTTP {status}")

    async def catalogue(self):
        status, body, _ = await self.ask("GET", "/skus", {})
        if status != 200 or not body:
            raise ProviderError(f"the catalogue cannot be read (HTTP {status}); expected a JSON object")
        return [CatalogueItem(sku, name, None, {"sku": sku}) for sku, name in body.items()]

    async def ask(self, method, path, query):
        reply = await self.http.fetch(method, path, query=query, headers={"x-key": self.key})
        text = decode(reply.body, reply.charset)
        return reply.status, read_document(text), redact(text, (self.key,))

    def pins(self, body):
        return (self.seal(body["pin"]),) if isinstance(body.get("pin"), str) else ()
