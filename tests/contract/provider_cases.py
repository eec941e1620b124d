"""What the provider contract tests share: an adapter on a raw server, and plain facts of an order."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from agents.providers.base import Money, OrderFacts, Provider, Setup
from agents.providers.http import HttpClient
from agents.providers.registry import build
from agents.providers.testing.raw_server import Answer, RawServer, say

CREDENTIALS = {"znet": {"kod": "5551112233", "sifre": "s3cret/şifre"}, "barakat": {"token": "t0ken-999-abc"}}
ORDER = OrderFacts("demo", "o-1", "pubg-60", 1, "pl4yer-77")


def seal(pin: str) -> str:
    """A reversible stand-in that shows whether sealing happened."""
    return f"sealed:{pin[::-1]}"


def opened(pins: tuple[str, ...]) -> list[str]:
    assert all(pin.startswith("sealed:") for pin in pins), "a PIN left the adapter in plain text"
    return [pin.removeprefix("sealed:")[::-1] for pin in pins]


def money(amount: str, currency: str) -> Money:
    return Money(Decimal(amount), currency)


@asynccontextmanager
async def adapter_at(
    name: str, base_url: str, *, timeout_s: float = 10.0, currency: str = "TRY", **options: Any
) -> AsyncIterator[Provider]:
    client = HttpClient(base_url, timeout_s=timeout_s)
    try:
        yield build(name, Setup("main", "demo", currency, client, seal, None, CREDENTIALS[name], options))
    finally:
        await client.close()


@asynccontextmanager
async def adapter_on(name: str, *answers: Answer | bytes, **settings: Any) -> AsyncIterator[tuple[Provider, RawServer]]:
    """An adapter whose server gives these answers, one after the other."""
    scripted = [say(answer) if isinstance(answer, bytes) else answer for answer in answers]
    async with RawServer(*scripted) as server, adapter_at(name, server.base_url, **settings) as adapter:
        yield adapter, server


def expect(answer: Any, expected: Mapping[str, Any]) -> None:
    """Every named field has the value; ``flags`` must be among the answer's; ``pins`` are compared opened."""
    for field, value in expected.items():
        if field == "flags":
            assert set(value) <= set(answer.flags), answer
        elif field == "pins":
            assert opened(answer.pins) == value, answer
        else:
            assert getattr(answer, field) == value, (field, answer)
    if "pins" not in expected:
        assert answer.pins == ()
    assert len(answer.raw) <= 2000
    for secret in (*CREDENTIALS["znet"].values(), *CREDENTIALS["barakat"].values(), *expected.get("pins", ())):
        assert secret not in repr(answer)
