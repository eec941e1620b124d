"""The codes provider against a stock in memory; the real stock has its own contract tests."""

from collections.abc import Sequence

import pytest

from agents.providers.base import Ask, OrderFacts, Placed, Refusal, Seen, Setup
from agents.providers.codes import Codes
from streams.errors import ConfigError, InvalidOrder, StoreUnavailable

ORDER = OrderFacts("demo", "o-1", "gift-10", 2, "p")


class Shelf:
    """Follows base.Stock; ``away`` makes it a database that does not answer."""

    def __init__(self, *codes: str, away: bool = False) -> None:
        self._codes, self._given, self._away = list(codes), dict[str, list[str]](), away

    async def take(self, tenant_id: str, group: str, reference: str, quantity: int) -> Sequence[str] | None:
        if self._away:
            raise StoreUnavailable("away")
        if reference not in self._given:
            if len(self._codes) < quantity:
                return None
            self._given[reference], self._codes = self._codes[:quantity], self._codes[quantity:]
        return self._given[reference]

    async def taken(self, reference: str) -> Sequence[str]:
        if self._away:
            raise StoreUnavailable("away")
        return self._given.get(reference, [])

    async def left(self, tenant_id: str, group: str) -> int:
        return len(self._codes)


def stock_of(*codes: str, away: bool = False) -> Codes:
    return Codes(Setup("codes-1", "demo", "EUR", None, str, Shelf(*codes, away=away)))


async def test_an_order_gets_its_codes_once_and_the_same_ones_again():
    provider = stock_of("a", "b", "c")
    wire = provider.prepare(ORDER, {"code_group": "gift"}, 2)
    first, again = await provider.place("r-1", wire), await provider.place("r-1", wire)
    assert first == again and (first.kind, first.pins) == (Placed.COMPLETED, ("a", "b"))


async def test_a_stock_that_runs_low_is_flagged_for_people_and_not_told_to_the_buyer():
    shelf = Shelf(*(str(i) for i in range(4)))
    provider = Codes(Setup("codes-1", "demo", "EUR", None, str, shelf, options={"low_stock": 3}))
    wire = provider.prepare(ORDER, {"code_group": "gift"}, 1)
    first, second = await provider.place("r-1", wire), await provider.place("r-2", wire)
    assert (first.flags, second.flags) == ((), ("low_stock",))
    assert second.raw == "2 codes are left in group gift" and second.message == ""


@pytest.mark.parametrize("least", ["many", -1, 2.5])
def test_a_low_stock_that_is_no_number_is_told(least: object):
    assert Codes.option_problems({"low_stock": least})[0].startswith("options.low_stock is ")


async def test_too_few_codes_are_a_refusal_for_stock_and_none_is_given():
    provider = stock_of("a")
    wire = provider.prepare(ORDER, {"code_group": "gift"}, 2)
    answer = await provider.place("r-1", wire)
    assert (answer.kind, answer.reason, answer.pins) == (Placed.REJECTED, Refusal.STOCK, ())
    assert [seen.kind for seen in await provider.look_up([Ask("r-1")])] == [Seen.NOT_FOUND]


async def test_given_codes_are_found_by_reference():
    provider = stock_of("a", "b")
    await provider.place("r-1", provider.prepare(ORDER, {"code_group": "gift"}, 1))
    known, unknown = await provider.check([Ask("r-1"), Ask("r-2")])
    assert (known.kind, known.pins, unknown.kind) == (Seen.SUCCEEDED, ("a",), Seen.NOT_FOUND)


async def test_a_stock_that_does_not_answer_settles_nothing():
    provider = stock_of(away=True)
    placed = await provider.place("r-1", provider.prepare(ORDER, {"code_group": "gift"}, 1))
    [seen] = await provider.look_up([Ask("r-1")])
    assert (placed.kind, seen.kind) == (Placed.AMBIGUOUS, Seen.QUERY_ERROR)


@pytest.mark.parametrize(
    ("mapping", "quantity", "field"), [({}, 1, "code_group"), ({"code_group": "g"}, 0, "quantity")]
)
def test_an_order_that_does_not_fit_names_the_field(mapping, quantity, field):
    with pytest.raises(InvalidOrder, match=field):
        stock_of().prepare(ORDER, mapping, quantity)


def test_without_a_stock_there_is_no_provider():
    with pytest.raises(ConfigError, match="codes-1"):
        Codes(Setup("codes-1", "demo", "EUR", None, str))
