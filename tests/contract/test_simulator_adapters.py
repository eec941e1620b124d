"""Our adapters and the simulated shops understand each other: the whole way over sockets, without a fault and with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.providers.base import Ask, Money, OrderFacts, Placed, Provider, Refusal, Seen, Setup
from agents.providers.http import HttpClient
from agents.providers.registry import build
from orderwatch.simulator.orders import pin_of
from orderwatch.simulator.scenario import load
from tests.shops import Shops, open_shops

ROOT = Path(__file__).parents[2]
CREDENTIALS = {"znet": {"kod": "5320000000", "sifre": "gizli"}, "barakat": {"token": "jeton"}}
ACCOUNTS = {"znet": "znet-main", "barakat": "barakat-1"}
CURRENCIES = {"znet": "TRY", "barakat": "USD"}
MAPPINGS: dict[str, dict[str, Any]] = {
    "znet": {"provider_package_id": "12345", "oyun": "100", "kupur": "UC60", "delivers_pin": True},
    "barakat": {"provider_package_id": "365", "delivers_pin": True},
}
ORDER = OrderFacts("demo", "o-1", "pubg-60", 1, "pl4yer-77")
BOTH = pytest.mark.parametrize("name", ["znet", "barakat"])


@pytest.fixture
async def shops() -> AsyncIterator[Shops]:
    opened = await open_shops()
    yield opened
    await opened.running.stop()


@asynccontextmanager
async def adapter(shops: Shops, name: str, timeout_s: float = 10.0, **options: Any) -> AsyncIterator[Provider]:
    client = HttpClient(shops.running.base_url(ACCOUNTS[name]), timeout_s=timeout_s)
    access, currency = CREDENTIALS[name], CURRENCIES[name]
    try:
        yield build(name, Setup("main", "demo", currency, client, lambda pin: f"sealed:{pin}", None, access, options))
    finally:
        await client.close()


@BOTH
async def test_an_order_is_placed_followed_and_delivered(shops: Shops, name: str) -> None:
    async with adapter(shops, name) as provider:
        reference = provider.reference("demo", "o-1", 1)
        placed = await provider.place(reference, provider.prepare(ORDER, MAPPINGS[name], 1))
        assert placed.kind is Placed.ACCEPTED
        assert placed.cost == Money(Decimal({"znet": "10.12", "barakat": "1.26048"}[name]), CURRENCIES[name])
        (answer,) = await provider.check([Ask(reference, placed.external_id, delivers_pin=True)])
        assert (answer.kind, answer.pins) == (Seen.SUCCEEDED, (f"sealed:{pin_of(reference)}",))
        balance = await provider.balance()
        assert balance.money is not None
        assert str(balance.money.amount) == (await shops.summary(ACCOUNTS[name]))["balance"]


@BOTH
@pytest.mark.parametrize(
    "kind", ["hang_up_after", "reset_after", "error_after", "timeout_after", "truncated", "empty", "html", "gzip_bomb"]
)
async def test_a_lost_answer_is_one_request_and_found_by_reference(shops: Shops, name: str, kind: str) -> None:
    await shops.fault(kind, ACCOUNTS[name])
    async with adapter(shops, name, timeout_s=0.5 if kind == "timeout_after" else 10) as provider:
        reference = provider.reference("demo", "o-1", 1)
        placed = await provider.place(reference, provider.prepare(ORDER, MAPPINGS[name], 1))
        assert placed.kind is Placed.AMBIGUOUS
        (answer,) = await provider.look_up([Ask(reference, delivers_pin=True)])
        assert answer.kind is Seen.SUCCEEDED
    sent = (await shops.control("GET", "/requests?operation=place")).json
    assert [row["reference"] for row in sent] == [reference]
    summary = await shops.summary(ACCOUNTS[name])
    assert (summary["executed"], summary["executed_twice"]) == (1, [])


@BOTH
async def test_an_order_that_was_never_bought_is_not_found(shops: Shops, name: str) -> None:
    await shops.fault("hang_up_before", ACCOUNTS[name])
    async with adapter(shops, name) as provider:
        reference = provider.reference("demo", "o-1", 1)
        placed = await provider.place(reference, provider.prepare(ORDER, MAPPINGS[name], 1))
        (answer,) = await provider.look_up([Ask(reference)])
    assert (placed.kind, answer.kind) == (Placed.AMBIGUOUS, Seen.NOT_FOUND)
    assert await shops.ledger() == []


@BOTH
@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ({"balance": 0}, Placed.REJECTED, Refusal.FUNDS),
        ({"catalogue": []}, Placed.REJECTED, Refusal.PACKAGE),
        ({"ip_allowed": False}, None, Refusal.ACCESS),  # znet cannot say for sure, barakat can
    ],
)
async def test_refusals_are_read_for_what_they_are(
    shops: Shops, name: str, change: dict[str, Any], kind: Placed | None, reason: Refusal
) -> None:
    await shops.change(ACCOUNTS[name], **change)
    async with adapter(shops, name) as provider:
        wire = provider.prepare(ORDER, MAPPINGS[name], 1)
        placed = await provider.place(provider.reference("demo", "o-1", 1), wire)
    expected = kind or {"znet": Placed.AMBIGUOUS, "barakat": Placed.REJECTED}[name]
    assert (placed.kind, placed.reason, placed.tripped) == (expected, reason, reason is Refusal.ACCESS)


async def test_a_batch_is_one_request_and_every_order_gets_its_own_answer(shops: Shops) -> None:
    await shops.control("POST", "/lives", {"player": "bad", "final": "fail"})
    async with adapter(shops, "barakat") as provider:
        asks = []
        for number in range(12):
            order = OrderFacts("demo", f"o-{number}", "pubg-60", 1, "bad" if number % 3 == 0 else "good")
            reference = provider.reference("demo", order.order_id, 1)
            placed = await provider.place(reference, provider.prepare(order, MAPPINGS["barakat"], 1))
            asks.append(Ask(reference, placed.external_id, delivers_pin=True))
        answers = await provider.check([*asks, Ask("00000000-0000-4000-8000-000000000000")])
    assert [answer.kind for answer in answers] == [Seen.FAILED, Seen.SUCCEEDED, Seen.SUCCEEDED] * 4 + [Seen.NOT_FOUND]
    assert [answer.pins for answer in answers[1:3]] == [(f"sealed:{pin_of(ask.reference)}",) for ask in asks[1:3]]
    assert len((await shops.control("GET", "/requests?operation=check")).json) == 1


@BOTH
async def test_many_at_once_are_all_bought_once(shops: Shops, name: str) -> None:
    await shops.change(ACCOUNTS[name], balance=100000)
    async with adapter(shops, name) as provider:
        wire = provider.prepare(ORDER, MAPPINGS[name], 1)
        references = [provider.reference("demo", f"o-{number}", 1) for number in range(200)]
        answers = await asyncio.gather(*(provider.place(reference, wire) for reference in references))
    assert {answer.kind for answer in answers} == {Placed.ACCEPTED}
    summary = await shops.summary(ACCOUNTS[name])
    assert (summary["references"], summary["executed"]) == (200, 200)
    assert Decimal(summary["balance"]) == 100000 - Decimal(summary["cost"])


def test_the_shipped_configuration_maps_to_what_the_shipped_scenario_sells() -> None:
    accounts = {account.id: account for account in load(ROOT / "orderwatch" / "simulator" / "demo.yaml").accounts}
    document = yaml.safe_load((ROOT / "config.yaml").read_text("utf-8"))
    simulated = [mapping for mapping in document["mappings"] if mapping["integration"] in accounts]
    assert len(simulated) >= len(accounts)
    for mapping in simulated:
        rows = {row.id: row for row in accounts[mapping["integration"]].catalogue}
        row: Any = rows[mapping["provider_package_id"]]
        assert (mapping.get("oyun"), mapping.get("kupur")) == (getattr(row, "oyun", None), getattr(row, "kupur", None))
