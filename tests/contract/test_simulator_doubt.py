"""Shops that say what did not happen: each fault on a real socket, read by the real adapters, judged by the ledger."""

import html
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents.providers.base import Ask, OrderFacts, Placed, PlacedAnswer, Provider, Refusal, Seen, Setup, StatusAnswer
from agents.providers.http import HttpClient
from agents.providers.registry import build
from orderwatch.simulator.faults import ONLY_FOR, Fault, FaultKind
from orderwatch.simulator.orders import pin_of
from orderwatch.simulator.scenario import ScenarioError, read
from tests.contract.provider_cases import opened, seal
from tests.shops import Shops, open_shops

CREDENTIALS = {"znet": {"kod": "5320000000", "sifre": "gizli"}, "barakat": {"token": "jeton"}}
ACCOUNTS = {"znet": "znet-main", "barakat": "barakat-1"}
CURRENCIES = {"znet": "TRY", "barakat": "USD"}
MAPPINGS: dict[str, dict[str, Any]] = {
    "znet": {"provider_package_id": "12345", "oyun": "100", "kupur": "UC60", "delivers_pin": True},
    "barakat": {"provider_package_id": "365", "delivers_pin": True},
}
#: What an answer of our own order looks like that is in work and that is done: nothing settles wrongly by it.
OPEN = {Seen.PENDING, Seen.UNRECOGNISED, Seen.QUERY_ERROR}
BOTH = pytest.mark.parametrize("name", ["znet", "barakat"])
WORDS = ("Daha Önce Gönderilmiş", "Mükerrer işlem", "Duplicate order", "order_uuid already exists", "الطلب مكرر")


@pytest.fixture
async def shops() -> AsyncIterator[Shops]:
    opened_shops = await open_shops()
    yield opened_shops
    await opened_shops.running.stop()


class Dealer:
    """One dealer's adapter, and orders placed with it."""

    def __init__(self, name: str, provider: Provider, shops: Shops) -> None:
        self.name = name
        self.provider = provider
        self.shops = shops

    async def fault(self, kind: str, **settings: Any) -> None:
        await self.shops.fault(kind, ACCOUNTS[self.name], **settings)

    def ask(self, order: str, quantity: int = 1, player: str = "pl4yer-77", package: str = "") -> Ask:
        facts = OrderFacts("demo", order, "pubg-60", quantity, player)
        mapping = MAPPINGS[self.name] | ({"provider_package_id": package} if package else {})
        reference = self.provider.reference("demo", order, 1)
        return Ask(reference, None, True, quantity, self.provider.prepare(facts, mapping, quantity))

    async def place(self, ask: Ask) -> PlacedAnswer:
        return await self.provider.place(ask.reference, ask.wire)

    async def look_up(self, ask: Ask) -> StatusAnswer:
        (answer,) = await self.provider.look_up([ask])
        return answer

    async def executed(self) -> int:
        summary = await self.shops.summary(ACCOUNTS[self.name])
        assert summary["executed_twice"] == []
        return int(summary["executed"])


@asynccontextmanager
async def dealer(shops: Shops, name: str) -> AsyncIterator[Dealer]:
    client = HttpClient(shops.running.base_url(ACCOUNTS[name]), timeout_s=10.0)
    access, currency = CREDENTIALS[name], CURRENCIES[name]
    try:
        yield Dealer(name, build(name, Setup("main", "demo", currency, client, seal, None, access, {})), shops)
    finally:
        await client.close()


def forms(text: str) -> list[str]:
    """The same words as entities, decomposed, with blanks that do not break, and in capitals."""
    entities = "".join(f"&#{ord(letter)};" if ord(letter) > 127 else letter for letter in text)
    assert html.unescape(entities) == text
    return [text, entities, unicodedata.normalize("NFD", text), text.replace(" ", "\u00a0"), text.upper()]


async def sold_and_found(dealer: Dealer, kinds: set[Placed]) -> PlacedAnswer:
    """Place one order whose answer is untrue; it was bought once, is not refused, and is found by its reference."""
    ask = dealer.ask("o-1")
    placed = await dealer.place(ask)
    assert placed.kind in kinds, placed
    assert await dealer.executed() == 1
    found = await dealer.look_up(ask)
    assert found.kind is Seen.SUCCEEDED and opened(found.pins) == [pin_of(ask.reference)]
    return placed


# -- sells, and says that it did not --


@BOTH
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 502])
@pytest.mark.parametrize("text", ["", "Blocked", "<html><title>403</title></html>"])
async def test_sells_and_answers_an_error_page(shops: Shops, name: str, status: int, text: str) -> None:
    async with dealer(shops, name) as one:
        await one.fault("error_after", status=status, text=text)
        await sold_and_found(one, {Placed.AMBIGUOUS})


@BOTH
@pytest.mark.parametrize("text", [form for word in WORDS for form in forms(word)])
async def test_sells_and_answers_that_it_is_there_already(shops: Shops, name: str, text: str) -> None:
    said = {"znet": f"3|{text}", "barakat": f'{{"status":"ERROR","message":"{text}"}}'}[name]
    async with dealer(shops, name) as one:
        await one.fault("say", text=said)
        await sold_and_found(one, {Placed.DUPLICATE})


async def test_sells_and_answers_a_duplicate_with_409(shops: Shops) -> None:
    async with dealer(shops, "barakat") as one:
        await one.fault("say", status=409, text='{"success":false,"message":"{reference} is a duplicate order_uuid"}')
        placed = await sold_and_found(one, {Placed.DUPLICATE})
        assert one.ask("o-1").reference in placed.message


@pytest.mark.parametrize(
    "text", ["Bilinmeyen hata", "Zaman aşımı", "İşleminiz alındı", "İşlem devam ediyor", "Sunucu yanıt vermedi"]
)
async def test_sells_and_says_that_it_does_not_know(shops: Shops, text: str) -> None:
    async with dealer(shops, "znet") as one:
        await one.fault("refuse", executions=1, text=text)
        await sold_and_found(one, {Placed.AMBIGUOUS})


@BOTH
async def test_a_firewall_stops_the_requests_with_one_word_and_no_other(shops: Shops, name: str) -> None:
    async with dealer(shops, name) as one:
        await one.fault("firewall", player_contains="<script", times=None)
        poisoned = one.ask("o-1", player="<script>1</script>")
        for _ in range(2):
            placed = await one.place(poisoned)
            assert (placed.kind, placed.reason, placed.tripped) == (Placed.AMBIGUOUS, Refusal.ACCESS, True)
        assert await one.executed() == 0
        assert (await one.look_up(poisoned)).kind is Seen.NOT_FOUND
        assert (await one.place(one.ask("o-2"))).kind is Placed.ACCEPTED
        assert (await one.provider.balance()).money is not None


@BOTH
async def test_a_firewall_on_the_way_out_hides_a_purchase(shops: Shops, name: str) -> None:
    async with dealer(shops, name) as one:
        await one.fault("firewall", executions=1)
        await sold_and_found(one, {Placed.AMBIGUOUS})


@BOTH
@pytest.mark.parametrize("kind", ["unknown_word", "contradiction"])
async def test_a_placement_that_cannot_be_understood_is_an_open_outcome(shops: Shops, name: str, kind: str) -> None:
    async with dealer(shops, name) as one:
        await one.fault(kind)
        await sold_and_found(one, {Placed.AMBIGUOUS})


# -- the right connection --


@BOTH
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("second_answer", None),
        ("second_answer", "3|Yetersiz Bakiye"),
        ("second_answer", "OK|2|AAAA-BBBB-CCCC-DDDD|"),
        ("second_answer", '{"status":"ERROR","code":100,"message":"Insufficient balance"}'),
        ("late_408", None),
    ],
)
async def test_an_answer_nobody_asked_for_is_not_the_next_ones(
    shops: Shops, name: str, kind: str, text: str | None
) -> None:
    async with dealer(shops, name) as one:
        await one.fault(kind, text=text, times=3)
        answers = [await one.place(one.ask(f"o-{number}")) for number in range(4)]
        assert {answer.kind for answer in answers} == {Placed.ACCEPTED}
        assert await one.executed() == 4
        assert len((await shops.control("GET", "/requests?operation=place")).json) == 4
        for number in range(4):
            found = await one.look_up(one.ask(f"o-{number}"))
            assert opened(found.pins) == [pin_of(one.ask(f"o-{number}").reference)]


# -- the right order --


@BOTH
@pytest.mark.parametrize("kind", ["unknown_word", "two_rows", "contradiction"])
@pytest.mark.parametrize("final", ["pending", "success", "fail"])
async def test_a_row_that_cannot_be_believed_settles_nothing(shops: Shops, name: str, kind: str, final: str) -> None:
    await shops.control("POST", "/lives", {"player": "pl4yer-77", "final": final})
    async with dealer(shops, name) as one:
        ask = one.ask("o-1")
        await one.place(ask)
        await one.look_up(ask)
        await one.fault(kind, operation="check")
        doubted = await one.look_up(ask)
        assert doubted.kind in OPEN and doubted.pins == ()
        ends = {"pending": Seen.PENDING, "success": Seen.SUCCEEDED, "fail": Seen.FAILED}
        assert (await one.look_up(ask)).kind is ends[final]


@pytest.mark.parametrize("field", ["id", "player", "product", "quantity"])
@pytest.mark.parametrize("final", ["pending", "fail"])
async def test_the_row_of_a_stranger_settles_nothing(shops: Shops, field: str, final: str) -> None:
    await shops.control("POST", "/lives", {"player": "pl4yer-77", "final": final})
    async with dealer(shops, "barakat") as one:
        ask = one.ask("o-1")
        placed = await one.place(ask)
        await one.fault("stranger", operation="check", field=field)
        (doubted,) = await one.provider.check([replace(ask, external_id=placed.external_id)])
        assert doubted.kind in OPEN and doubted.pins == ()


@pytest.mark.parametrize(
    "row",
    [
        '{"order_id":"ID_other","order_uuid":"0b56b0b4-1111-4222-8333-444455556666","status":"reject"}',
        '{"order_id":"ID_other","order_uuid":"0b56b0b4-1111-4222-8333-444455556666","status":"accept"}',
        '{"order_id":"ID_a","order_uuid":"x-1","status":"wait"},{"order_id":"ID_b","order_uuid":"x-2","status":"wait"}',
    ],
)
@pytest.mark.parametrize("times", [1, 3])
async def test_a_list_of_other_orders_does_not_prove_that_ours_is_absent(shops: Shops, row: str, times: int) -> None:
    async with dealer(shops, "barakat") as one:
        ask = one.ask("o-1")
        await one.fault("hang_up_after")
        await one.place(ask)
        await one.fault("say", operation="check", times=times, text=f'{{"status":"OK","data":[{row}]}}')
        for _ in range(times):
            doubted = await one.look_up(ask)
            assert (doubted.kind, doubted.flags) == (Seen.QUERY_ERROR, ("not_ours",))
        assert (await one.look_up(ask)).kind is Seen.SUCCEEDED


async def test_znets_rows_name_nobody_so_that_only_the_pin_shows_the_stranger(shops: Shops) -> None:
    async with dealer(shops, "znet") as one:
        await one.place(one.ask("o-1"))
        await one.fault("stranger", operation="check")
        assert opened((await one.look_up(one.ask("o-1"))).pins) == [pin_of("stranger")]


@pytest.mark.parametrize("text", ["Sistem bakımda", "Çok sık sorgulama yaptınız, 10 sn bekleyiniz", "Yetkiniz yok"])
async def test_a_question_that_was_not_answered_says_nothing(shops: Shops, text: str) -> None:
    async with dealer(shops, "znet") as one:
        await one.fault("hang_up_after")
        await one.place(one.ask("o-1"))
        await one.fault("refuse", operation="check", text=text)
        assert (await one.look_up(one.ask("o-1"))).kind is Seen.QUERY_ERROR
        assert (await one.look_up(one.ask("o-1"))).kind is Seen.SUCCEEDED


async def test_of_a_batch_one_row_is_hit_and_the_others_are_true(shops: Shops) -> None:
    async with dealer(shops, "barakat") as one:
        asks = [one.ask(f"o-{number}", player=f"p{number}") for number in range(3)]
        placed = [await one.place(ask) for ask in asks]
        asks = [replace(ask, external_id=answer.external_id) for ask, answer in zip(asks, placed, strict=True)]
        await one.fault("two_rows", operation="check", player="p1")
        answers = await one.provider.check(asks)
        assert [answer.kind for answer in answers] == [Seen.SUCCEEDED, Seen.UNRECOGNISED, Seen.SUCCEEDED]


# -- what is delivered --


async def test_fewer_codes_than_units_are_counted(shops: Shops) -> None:
    async with dealer(shops, "barakat") as one:
        ask = one.ask("o-1", quantity=3, package="500")
        await one.place(ask)
        await one.fault("partial", operation="check")
        partly = await one.look_up(ask)
        assert (partly.kind, partly.delivered) == (Seen.SUCCEEDED, 2)
        assert opened(partly.pins) == [pin_of(ask.reference, 1, unit) for unit in (1, 2)]
        assert (await one.look_up(ask)).delivered == 3


@BOTH
@pytest.mark.parametrize("kind", ["partial", "placeholder"])
@pytest.mark.parametrize("text", ["null", "Kod yok", "&nbsp;", "-", "قيد الانتظار"])
async def test_what_is_no_code_is_delivered_to_nobody(shops: Shops, name: str, kind: str, text: str) -> None:
    async with dealer(shops, name) as one:
        ask = one.ask("o-1")
        await one.place(ask)
        await one.fault(kind, operation="check", text=text)
        bare = await one.look_up(ask)
        assert (bare.kind, bare.pins) == (Seen.SUCCEEDED, ())
        assert opened((await one.look_up(ask)).pins) == [pin_of(ask.reference)]


@BOTH
async def test_a_code_in_the_text_is_sealed_and_held(shops: Shops, name: str) -> None:
    async with dealer(shops, name) as one:
        ask = one.ask("o-1")
        await one.place(ask)
        await one.fault("code_in_message", operation="check")
        held = await one.look_up(ask)
        code = pin_of(ask.reference)
        assert "pin_mismatch" in held.flags and any(code in text for text in opened(held.pins))
        assert code not in held.message + held.raw


@BOTH
async def test_a_pin_comes_with_the_third_answer(shops: Shops, name: str) -> None:
    async with dealer(shops, name) as one:
        ask = one.ask("o-1")
        await one.fault("late_pin")
        await one.place(ask)
        answers = [await one.look_up(ask) for _ in range(3)]
        assert {answer.kind for answer in answers} == {Seen.SUCCEEDED}
        assert [opened(answer.pins) for answer in answers] == [[], [], [pin_of(ask.reference)]]


@BOTH
async def test_a_state_that_goes_back(shops: Shops, name: str) -> None:
    async with dealer(shops, name) as one:
        await one.fault("relapse")
        ask = one.ask("o-1")
        await one.place(ask)
        seen = [(await one.look_up(ask)).kind for _ in range(5)]
    assert seen == [Seen.SUCCEEDED, Seen.PENDING, Seen.PENDING, Seen.FAILED, Seen.FAILED]
    summary = await shops.summary(ACCOUNTS[name])
    assert (summary["cost"], summary["states"]) == (summary["returned"], {"reversed": 1})


# -- what it costs --


@BOTH
@pytest.mark.parametrize("factor", ["10", "0.1", "1000"])
async def test_a_cost_that_is_not_the_price(shops: Shops, name: str, factor: str) -> None:
    async with dealer(shops, name) as one:
        true = await one.place(one.ask("o-1"))
        await one.fault("cost", factor=factor)
        told = await one.place(one.ask("o-2"))
        assert true.cost is not None and told.cost is not None
        assert told.cost.amount == true.cost.amount * Decimal(factor)
        first, second = (row["cost"] for row in await shops.ledger())
        assert first == second


@BOTH
async def test_a_negative_cost_is_no_cost(shops: Shops, name: str) -> None:
    async with dealer(shops, name) as one:
        await one.fault("cost", factor="-1")
        told = await one.place(one.ask("o-1"))
        assert told.kind is Placed.ACCEPTED and told.cost is None and told.flags


# -- two orders for one --


async def test_two_orders_may_get_the_same_id(shops: Shops) -> None:
    async with dealer(shops, "barakat") as one:
        first = await one.place(one.ask("o-1"))
        await one.fault("same_id")
        second = await one.place(one.ask("o-2"))
        third = await one.place(one.ask("o-3"))
        assert first.external_id == second.external_id != third.external_id
        assert await one.executed() == 3


@BOTH
async def test_two_orders_may_deliver_the_same_pin(shops: Shops, name: str) -> None:
    async with dealer(shops, name) as one:
        await one.place(one.ask("o-1"))
        await one.fault("same_pin")
        await one.place(one.ask("o-2"))
        pins = [opened((await one.look_up(one.ask(f"o-{number}"))).pins) for number in (1, 2)]
        assert pins[0] == pins[1] == [pin_of(one.ask("o-1").reference)]


# -- how they are scripted --


@pytest.mark.parametrize("kind", sorted({FaultKind.UNKNOWN_WORD, FaultKind.TWO_ROWS, FaultKind.COST}))
@pytest.mark.parametrize("player", ["88", "89"])
async def test_a_fault_is_meant_for_some_players_of_one_account(shops: Shops, kind: FaultKind, player: str) -> None:
    operation = "place" if kind is FaultKind.COST else "check"
    await shops.fault(kind, operation=operation, player_contains="8")
    await shops.place("1", oyuncu_bilgi="77")
    first = await shops.look("1")
    assert first.startswith("OK|2|") and "\n" not in first
    account = {row["id"]: row for row in (await shops.control("GET", "/accounts")).json}
    assert [row["left"] for row in account["znet-main"]["faults"]] == [1]
    await shops.place("2", oyuncu_bilgi=player)
    await shops.look("2")
    account = {row["id"]: row for row in (await shops.control("GET", "/accounts")).json}
    assert account["znet-main"]["faults"] == account["barakat-1"]["faults"] == []


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ({"kind": "say"}, "text"),
        ({"kind": "error_after", "status": 200}, "status"),
        ({"kind": "stranger", "operation": "check", "field": "name"}, "field"),
        ({"kind": "firewall", "operation": "balance", "player_contains": "x"}, "player"),
        ({"kind": "firewall", "player_contains": ""}, "player_contains"),
        ({"kind": "cost", "factor": "much"}, "factor"),
        *(
            ({"kind": kind, "operation": operation}, f"operation of {kind}")
            for kind, allowed in ONLY_FOR.items()
            for operation in ("place", "check", "balance", "catalogue")
            if operation not in allowed
        ),
    ],
)
def test_a_wrong_fault_is_explained(fault: dict[str, Any], named: str) -> None:
    with pytest.raises(ScenarioError, match=named):
        read(fault, Fault, "body")


def test_every_fault_is_in_the_documents() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text("utf-8")
    pairs = {kind: f"{kind.rpartition('_')[0]}_*" for kind in FaultKind}
    assert [kind for kind in FaultKind if f"`{kind}`" not in page and f"`{pairs[kind]}`" not in page] == []
