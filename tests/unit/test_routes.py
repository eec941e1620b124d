"""Order -> integration: the first usable one, in the order of the route, or the reason why it waits."""

from dataclasses import replace
from typing import Any

import pytest

from agents.domain.routing import Routing, Waiting, facts_of
from streams.order import AttemptState, AttentionCode
from tests.fakes import CAREFUL, REPEATABLE, account, config, order, routing


def test_the_primary_comes_first_and_the_reference_is_its_own() -> None:
    (attempt,) = routing().first(facts_of(order()))
    assert (attempt.integration_id, attempt.attempt, attempt.line) == ("one", 1, 1)
    assert (attempt.reference, attempt.state) == ("one-t-o-1", AttemptState.INTENT)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"mode": "manual", "primary": None, "fallback": None}, AttentionCode.MANUAL_ROUTE),
        ({"mapped": (), "fallback": None}, AttentionCode.NO_MAPPING),
    ],
)
def test_what_cannot_be_routed_waits_with_its_reason(options: dict[str, Any], code: AttentionCode) -> None:
    found = routing(**options).first(facts_of(order()))
    assert isinstance(found, Waiting) and found.code is code


def test_an_unknown_package_waits_for_a_route() -> None:
    found = routing().first(replace(facts_of(order()), package_id="other"))
    assert isinstance(found, Waiting) and found.code is AttentionCode.NO_ROUTING


def test_an_order_without_its_player_waits_as_invalid() -> None:
    found = routing().first(replace(facts_of(order()), user_identifier=""))
    assert isinstance(found, Waiting) and found.code is AttentionCode.INVALID_ORDER


def test_a_primary_that_is_switched_off_gives_way_to_the_fallback() -> None:
    accounts = {"one": account("one", enabled=False), "two": account("two")}
    (attempt,) = Routing(config(), accounts).first(facts_of(order()))
    assert attempt.integration_id == "two"


def test_both_switched_off_waits_with_the_reason_of_the_primary() -> None:
    accounts = {name: account(name, enabled=False) for name in ("one", "two")}
    found = Routing(config(), accounts).first(facts_of(order()))
    assert isinstance(found, Waiting) and found.code is AttentionCode.INTEGRATION_DISABLED and "one" in found.message


def test_a_quantity_is_one_line_per_unit_where_the_provider_knows_no_quantity() -> None:
    attempts = routing(CAREFUL).first(facts_of(order(3)))
    assert not isinstance(attempts, Waiting)
    assert [(a.attempt, a.line, a.quantity) for a in attempts] == [(1, 1, 1), (2, 2, 1), (3, 3, 1)]
    assert len({a.reference for a in attempts}) == 3


def test_a_quantity_is_one_line_where_the_provider_takes_it() -> None:
    (attempt,) = routing(REPEATABLE).first(facts_of(order(3)))
    assert (attempt.line, attempt.quantity) == (1, 3)


def test_a_fallback_that_knows_no_quantity_keeps_the_line_and_opens_further_ones() -> None:
    made = routing(REPEATABLE, CAREFUL)
    (dead,) = made.first(facts_of(order(3)))
    attempts = made.following(order(3, attempts=1, lines=1), dead, skip=frozenset({"one"}))
    assert not isinstance(attempts, Waiting)
    assert [(a.attempt, a.line, a.integration_id) for a in attempts] == [(2, 1, "two"), (3, 2, "two"), (4, 3, "two")]


def test_a_fallback_of_one_unit_never_buys_the_whole_quantity() -> None:
    made = routing(CAREFUL, REPEATABLE)
    attempts = made.first(facts_of(order(3)))
    assert not isinstance(attempts, Waiting)
    (second,) = made.following(order(3, attempts=3, lines=3), attempts[1], skip=frozenset({"one"}))
    assert (second.attempt, second.line, second.quantity) == (4, 2, 1)
