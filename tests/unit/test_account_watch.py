"""Attention about money: a low balance, refused funds, a changed cost, a limit that a mapping sets."""

import asyncio
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from agents.domain import placement
from agents.domain.routing import facts_of
from agents.handlers import account_watch
from agents.providers.base import Money, Placed, PlacedAnswer, Refusal
from db.rows import OrderState
from streams.config.loader import Config
from tests.fakes import NOW, HandClock, Sent, config, order, routing


def context(low_balance: str | None = None, max_cost: str | None = None, cost: str | None = None) -> Any:
    """What ``account_watch`` reads of a handler's context."""
    raw = config().model_dump(mode="json")
    raw["kafka"]["bootstrap_servers"], raw["database"]["url"] = "127.0.0.1:1", "postgresql://nobody@127.0.0.1:1/none"
    raw["integrations"][0]["low_balance"] = low_balance
    raw["mappings"][0]["max_cost"], raw["mappings"][0]["cost"] = max_cost, cost
    return SimpleNamespace(
        config=Config.model_validate(raw),
        emitter=Sent(),
        clock=HandClock(),
        told=set(),
        unit_costs={},
        catalogue_prices={},
    )


def placed(quantity: int = 1, order_id: str = "o") -> OrderState:
    by = routing()
    made = order(quantity, order_id)
    found = by.first(facts_of(made))
    assert isinstance(found, list)
    opened = placement.open_order(made, by, found, NOW)
    return OrderState(opened.order, tuple(opened.attempts))


def money(amount: str) -> Money:
    return Money(Decimal(amount), "TRY")


def told(deps: Any) -> list[str]:
    return [str(record.value) for record in deps.emitter.records]


def on(deps: Any, answer: PlacedAnswer, quantity: int = 1) -> None:
    state = placed(quantity)
    asyncio.run(account_watch.on_placement(deps, state, state.attempts[0], answer))


@pytest.mark.parametrize(("balance", "expected"), [("9.99", 1), ("10", 0), ("10.01", 0)])
def test_a_balance_below_the_limit_is_told_once(balance: str, expected: int) -> None:
    deps = context(low_balance="10")
    for _ in range(3):
        on(deps, PlacedAnswer(kind=Placed.ACCEPTED, external_id="1", balance=money(balance)))
    assert len(told(deps)) == expected


def test_a_refusal_for_lack_of_funds_is_a_low_balance_without_any_limit() -> None:
    deps = context()
    on(deps, PlacedAnswer(kind=Placed.REJECTED, reason=Refusal.FUNDS, message="Bakiye yetersiz"))
    assert len(told(deps)) == 1 and "low_balance" in told(deps)[0] and "Bakiye yetersiz" in told(deps)[0]
    deps.clock.move(86400)
    on(deps, PlacedAnswer(kind=Placed.REJECTED, reason=Refusal.FUNDS, message="Bakiye yetersiz"))
    assert len(told(deps)) == 2, "a new day tells it again"


@pytest.mark.parametrize(
    ("costs", "quantity", "expected"),
    [
        (["10", "10"], 1, 0),
        (["10", "10.40"], 1, 0),
        (["10", "100"], 1, 1),
        (["100", "10"], 1, 1),
        (["20", "200"], 2, 1),
        (["10", "100", "100", "100"], 1, 1),
    ],
)
def test_a_cost_far_from_the_last_one_is_told_once(costs: list[str], quantity: int, expected: int) -> None:
    deps = context()
    for cost in costs:
        on(deps, PlacedAnswer(kind=Placed.ACCEPTED, external_id="1", cost=money(cost)), quantity)
    assert len(told(deps)) == expected
    assert all("cost_changed" in text for text in told(deps))


@pytest.mark.parametrize(
    ("catalogue", "last", "mapped", "why"),
    [
        (None, None, None, ""),
        (None, None, "5", ""),
        (None, None, "6", "by the mapping"),
        (None, "7", "5", "by the last order"),
        ("8", "5", "5", "by the catalogue"),
        ("5", "9", "9", ""),
    ],
)
def test_the_newest_known_cost_is_held_against_max_cost(
    catalogue: str | None, last: str | None, mapped: str | None, why: str
) -> None:
    deps = context(max_cost="5", cost=mapped)
    state = placed()
    if last:
        deps.unit_costs["one", "t", "p"] = Decimal(last)
    if catalogue:
        deps.catalogue_prices["one", "1"] = Decimal(catalogue)
    found = account_watch.over_limit(deps, state, state.attempts[0])
    assert found.endswith("above max_cost 5") and why in found if why else found == ""
