"""What becomes of a bought order, with a hand-moved clock."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from orderwatch.simulator.account import Account
from orderwatch.simulator.market import Market
from orderwatch.simulator.orders import Purchase, pin_of
from orderwatch.simulator.scenario import Scenario
from tests.shops import ZDK, ZNET


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def pass_ms(self, ms: float) -> None:
        self.now_s += ms / 1000


@pytest.fixture
def clock() -> Clock:
    return Clock()


def market(clock: Clock, life: dict[str, Any], lives: list[dict[str, Any]] | None = None) -> Market:
    data = {"accounts": [{**ZNET, "life": life}, ZDK], "lives": lives or []}
    return Market(msgspec.convert(data, Scenario), clock=clock)


def bought(shop: Market, reference: str = "1", player: str = "77") -> tuple[Account, Purchase]:
    account = shop.accounts["znet-main"]
    return account, shop.buy(account, reference, account.packages["12345"], player, 1, None)


def states(account: Account, purchase: Purchase, checks: int) -> list[str]:
    found = []
    for _ in range(checks):
        ((_, extra),) = account.look_up([purchase], None)
        found.append(extra or purchase.state)
    return found


@pytest.mark.parametrize(
    ("life", "seen"),
    [
        ({}, ["success", "success"]),
        ({"after_checks": 3}, ["pending", "pending", "success"]),
        ({"final": "fail", "after_checks": 2}, ["pending", "fail"]),
        ({"final": "pending"}, ["pending", "pending"]),
        ({"extra_states": ["x"], "after_checks": 3}, ["x", "pending", "success"]),
        ({"reversal_after_checks": 1}, ["success", "reversed"]),
        ({"after_ms": 1}, ["pending", "pending"]),  # checks alone do not end it
    ],
)
def test_checks_move_an_order_along(clock: Clock, life: dict[str, Any], seen: list[str]) -> None:
    account, purchase = bought(market(clock, life))
    assert states(account, purchase, len(seen)) == seen


def test_time_ends_an_order_that_nobody_asks_about(clock: Clock) -> None:
    shop = market(clock, {"final": "fail", "after_ms": 500})
    account, purchase = bought(shop)
    clock.pass_ms(499)
    assert [entry.state for entry in shop.entries()] == ["pending"]
    clock.pass_ms(2)
    assert [entry.state for entry in shop.entries()] == ["fail"]
    assert account.balance == Decimal(1000) and purchase.checks == 0


def test_each_order_ends_at_its_own_time(clock: Clock) -> None:
    shop = market(clock, {}, [{"player": "slow", "after_ms": 900}, {"player": "quick", "after_ms": 100}])
    for player in ("slow", "quick", "slow"):
        bought(shop, player + str(clock()), player)
        clock.pass_ms(10)
    clock.pass_ms(200)
    assert [entry.state for entry in shop.entries()] == ["pending", "success", "pending"]
    clock.pass_ms(1000)
    assert [entry.state for entry in shop.entries()] == ["success", "success", "success"]


def test_time_and_checks_must_both_be_reached(clock: Clock) -> None:
    account, purchase = bought(market(clock, {"after_ms": 500, "after_checks": 2}))
    assert states(account, purchase, 2) == ["pending", "pending"]
    clock.pass_ms(501)
    account.advance()
    assert purchase.state == "success"
    other = bought(market(clock, {"after_ms": 500, "after_checks": 2}))
    clock.pass_ms(501)
    assert states(*other, 2) == ["pending", "success"]


def test_time_reverses_a_success_and_gives_the_money_back_once(clock: Clock) -> None:
    account, purchase = bought(market(clock, {"after_ms": 10, "reversal_after_ms": 20}))
    clock.pass_ms(15)
    account.advance()
    assert (purchase.state, account.balance) == ("success", Decimal("989.88"))
    clock.pass_ms(15)
    account.advance()
    account.finish(purchase, "reversed")
    assert (purchase.state, account.balance) == ("reversed", Decimal("1000.00"))


def test_an_order_called_off_before_its_end_has_failed(clock: Clock) -> None:
    account, purchase = bought(market(clock, {"final": "pending"}))
    account.finish(purchase, "reversed")
    account.finish(purchase, "success")
    assert (purchase.state, account.balance) == ("fail", Decimal("1000.00"))


def test_the_most_special_script_wins(clock: Clock) -> None:
    lives = [
        {"package": "12345", "text": "package"},
        {"player": "77", "text": "player"},
        {"account": "znet-main", "package": "12345", "text": "account and package"},
        {"account": "znet-main", "player": "77", "text": "account and player"},
    ]
    expectations = ["account and player", "account and package", "player", "package", None]
    for count, expected in zip((4, 3, 2, 1, 0), expectations, strict=True):
        _, purchase = bought(market(clock, {}, lives[:count]))
        assert purchase.life.text == expected


def test_hiding_by_time_ends_with_the_time(clock: Clock) -> None:
    shop = market(clock, {})
    shop.change(shop.accounts["znet-main"], {"faults": [{"kind": "hide", "hidden_ms": 300}]})
    account = shop.accounts["znet-main"]
    fault = account.faults.hit("place", "1", [])
    purchase = shop.buy(account, "1", account.packages["12345"], "77", 1, fault)
    assert account.look_up([purchase], None) == []
    clock.pass_ms(301)
    assert states(account, purchase, 1) == ["success"]


def test_a_code_depends_on_reference_execution_and_unit_alone() -> None:
    codes = {pin_of(reference, execution, unit) for reference in "ab" for execution in (1, 2) for unit in (1, 2)}
    assert len(codes) == 8
    assert pin_of("1") == pin_of("1", 1, 1) and len(pin_of("1")) == 19


def test_answer_times_repeat_with_the_seed_and_keep_their_bounds() -> None:
    latency = {"kind": "lognormal", "median_ms": 50, "sigma": 1, "max_ms": 90}
    scenario = msgspec.convert({"accounts": [{**ZNET, "latency": latency}]}, Scenario)

    def drawn(seed: int) -> list[float]:
        account = Market(scenario, seed).accounts["znet-main"]
        return [account.latency_s(None) for _ in range(50)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert max(drawn(1)) == 0.09 and min(drawn(1)) < 0.05
