"""Every way in which the four books can differ is found and named; books that agree are left in peace."""

from collections.abc import Callable

import pytest

from orderwatch.reconcile import Books, Bought, compare, from_ledger

ONE, TWO = ("demo", "D-1"), ("kral", "K-1")


def books() -> Books:
    """One order completed with two lines, one refused."""
    return Books(
        sent={ONE, TWO},
        bought=[Bought("znet", "r1", 1, "success"), Bought("znet", "r2", 1, "success")],
        orders={ONE: "completed", TWO: "failed"},
        attempts={"r1": (ONE, 1, "completed"), "r2": (ONE, 2, "completed"), "r3": (TWO, 1, "rejected")},
        topic={ONE: "completed", TWO: "failed"},
        units={ONE: 2},
    )


def test_books_that_say_the_same_agree() -> None:
    verdict = compare(books())
    assert verdict.agree and verdict.differences == []
    assert (verdict.sent, verdict.bought, verdict.completed, verdict.failed, verdict.open) == (2, 2, 1, 1, 0)


def lost(b: Books) -> None:
    del b.orders[ONE]


def invented(b: Books) -> None:
    b.sent.remove(TWO)


def strange_reference(b: Books) -> None:
    b.bought.append(Bought("znet", "r9", 1, "success"))


def executed_twice(b: Books) -> None:
    b.bought[0] = Bought("znet", "r1", 2, "success")


def bought_at_two_places(b: Books) -> None:
    b.bought.append(Bought("barakat", "r4", 1, "pending"))
    b.attempts["r4"] = (ONE, 1, "unknown")


def too_few_units(b: Books) -> None:
    del b.bought[1]


def completed_but_never_bought(b: Books) -> None:
    b.bought.clear()


def completed_but_called_off(b: Books) -> None:
    b.bought[0] = Bought("znet", "r1", 1, "fail")


def failed_but_bought(b: Books) -> None:
    b.bought.append(Bought("znet", "r3", 1, "success"))


def failed_but_perhaps_bought(b: Books) -> None:
    b.bought.append(Bought("znet", "r3", 1, "pending"))


def still_open(b: Books) -> None:
    b.orders[TWO] = "unknown"


def unpublished(b: Books) -> None:
    del b.topic[ONE]


def told_otherwise(b: Books) -> None:
    b.topic[ONE] = "processing"


def told_of_a_stranger(b: Books) -> None:
    b.topic["demo", "D-9"] = "completed"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lost, "demo/D-1: sent by the shop, missing in PostgreSQL"),
        (invented, "kral/K-1: in PostgreSQL, never sent by the shop"),
        (strange_reference, "znet: bought r9, which is no attempt of ours"),
        (executed_twice, "demo/D-1: znet executed r1 2 times"),
        (bought_at_two_places, "demo/D-1: line 1 was bought 2 times (znet r1, barakat r4)"),
        (too_few_units, "demo/D-1: completed in PostgreSQL, but 1 units bought"),
        (completed_but_never_bought, "demo/D-1: completed in PostgreSQL, but 0 units bought"),
        (completed_but_called_off, "demo/D-1: completed in PostgreSQL, but 1 units bought"),
        (failed_but_bought, "kral/K-1: failed in PostgreSQL, but bought at the provider"),
        (failed_but_perhaps_bought, "kral/K-1: failed in PostgreSQL, but bought at the provider"),
        (still_open, "kral/K-1: still unknown"),
        (unpublished, "demo/D-1: completed in PostgreSQL, nothing on the status topic"),
        (told_otherwise, "demo/D-1: completed in PostgreSQL, processing on the status topic"),
        (told_of_a_stranger, "demo/D-9: on the status topic only"),
    ],
)
def test_a_difference_is_found_and_names_the_order(spoil: Callable[[Books], None], said: str) -> None:
    spoilt = books()
    spoil(spoilt)
    verdict = compare(spoilt)
    assert said in verdict.differences and not verdict.agree


def test_an_order_that_waits_by_design_is_no_difference() -> None:
    waits = books()
    waits.orders[TWO] = "not_sent"
    del waits.topic[TWO]
    assert compare(waits, open_allowed=[TWO]).agree
    assert not compare(waits).agree


def test_a_sale_that_failed_or_was_taken_back_fits_a_failed_order() -> None:
    for state in ("fail", "reversed"):
        taken_back = books()
        taken_back.bought.append(Bought("znet", "r3", 1, state))
        assert compare(taken_back).agree, state


def test_a_sale_of_several_units_counts_each() -> None:
    several = books()
    several.bought = [Bought("barakat", "r1", 1, "success", quantity=2)]
    assert compare(several).agree


def test_the_ledger_of_the_simulator_is_grouped_by_reference() -> None:
    row = {"account": "znet", "reference": "r1", "state": "success", "quantity": 3}
    assert from_ledger([row, row, {**row, "account": "other"}]) == [
        Bought("znet", "r1", 2, "success", 3),
        Bought("other", "r1", 1, "success", 3),
    ]
