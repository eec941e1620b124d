"""One lane per integration: what it lets through, when it closes, and whose answer is whose."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from agents.gateway import gateway as module
from agents.gateway.gateway import Busy, Down, Lane
from agents.providers.base import Ask, Balance, Money, Placed, PlacedAnswer, Refusal, Seen, StatusAnswer
from streams.config.loader import BreakerConfig, LimitsConfig
from tests.fakes import FakeProvider
from tests.waiting import eventually

FAST = LimitsConfig(rate=10_000, concurrency=4)
#: How many questions travel together: each alone, as with znet, or many, as with barakat.
ways = pytest.mark.parametrize("batch", [1, 10])
BREAKER = BreakerConfig(fail_max=3, reset_after=30, slow_start=0, refusals_max=5, refusals_window=60)


class Watched(Lane):
    """A lane with a list of what it told about itself."""

    def __init__(
        self, provider: FakeProvider, limits: LimitsConfig = FAST, breaker: BreakerConfig = BREAKER, batch: int = 1
    ) -> None:
        self.told: list[Down] = []
        super().__init__("one", provider, limits, breaker, batch, self.told.append)


def lane(
    *placements: Placed | PlacedAnswer,
    answers: Sequence[Seen] = (Seen.PENDING,),
    limits: LimitsConfig = FAST,
    breaker: BreakerConfig = BREAKER,
    batch: int = 1,
) -> tuple[Watched, FakeProvider]:
    provider = FakeProvider(*(placements or (Placed.ACCEPTED,)), answers=answers)
    return Watched(provider, limits, breaker, batch), provider


async def send(one: Lane) -> PlacedAnswer:
    async with one.slot():
        return await one.place("r", {})


async def ask(one: Lane, reference: str = "r", *, look_up: bool = False) -> StatusAnswer:
    return await one.ask(Ask(reference), look_up=look_up)


@pytest.fixture
def move_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the monotonic clock of the lanes forward."""
    moved = 0.0
    real = module.time.monotonic

    def move(seconds: float) -> None:
        nonlocal moved
        moved += seconds

    monkeypatch.setattr(module.time, "monotonic", lambda: real() + moved)
    return move


def reopen_soon(one: Lane) -> None:
    """As if the breaker had been open for its time."""
    one._breaker._reset_after_s = 0


# -- the breaker ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [Placed.AMBIGUOUS, Placed.NOT_SENT])
async def test_failures_in_a_row_close_the_lane_and_are_told_once(answer: Placed) -> None:
    one, provider = lane(answer)
    for _ in range(3):
        await send(one)
    assert one.state == "open" and len(one.told) == 1
    for _ in range(5):
        with pytest.raises(Busy, match="the circuit breaker of one is open"):
            await send(one)
        with pytest.raises(Busy):
            await ask(one)
    assert len(provider.placed) == 3 and not provider.asked and len(one.told) == 1


async def test_an_answer_between_failures_starts_the_count_again() -> None:
    script = [Placed.AMBIGUOUS, Placed.AMBIGUOUS, Placed.ACCEPTED] * 3
    one, _ = lane(*script)
    for _ in script:
        await send(one)
    assert one.state == "closed"


LOCKED = Balance(None, "Kısıtlı Ip", tripped=True)
HEALTHY = Balance(Money(Decimal(5), "TRY"))
PAGE_403 = PlacedAnswer(Placed.AMBIGUOUS, reason=Refusal.ACCESS, tripped=True, message="a page", flags=("http_403",))


async def settled(one: Watched) -> None:
    """The balance question that a doubt asks has been answered."""
    await eventually(lambda: one._probe is None)


async def test_an_account_that_refuses_the_balance_too_opens_the_breaker_and_says_so_once() -> None:
    one, provider = lane(PAGE_403)
    provider.balances = [LOCKED]
    await send(one)
    await settled(one)
    assert one.state == "open" and [(down.access, down.message) for down in one.told] == [
        (True, "one refuses our access: Kısıtlı Ip")
    ]
    for _ in range(5):
        with pytest.raises(Busy):
            await send(one)
    assert len(one.told) == 1 and len(provider.placed) == 1


async def test_a_locked_account_seen_by_a_check_opens_it_too() -> None:
    one, provider = lane()
    provider.balances = [LOCKED]
    provider._answers = [StatusAnswer(Seen.QUERY_ERROR, tripped=True)]
    await ask(one)
    await settled(one)
    assert one.state == "open"


@pytest.mark.parametrize(
    "answer",
    [
        PAGE_403,
        PlacedAnswer(Placed.AMBIGUOUS, flags=("html", "http_404")),
        PlacedAnswer(Placed.AMBIGUOUS, flags=("http_400",)),
        PlacedAnswer(Placed.REJECTED, reason=Refusal.ACCESS, tripped=True),
    ],
    ids=["403", "404", "400", "refused by code"],
)
async def test_a_refusal_of_one_order_never_stops_the_others_of_a_healthy_account(answer: PlacedAnswer) -> None:
    one, provider = lane(*[answer, answer, Placed.ACCEPTED] * 10)
    provider.balances = [HEALTHY]
    for _ in range(30):
        await send(one)
        await settled(one)
    assert one.state == "closed" and not one.told and provider.asked_balance == 1  # it holds for a while


async def test_an_order_waits_for_the_balance_question_that_a_doubt_asks() -> None:
    one, provider = lane(PAGE_403, Placed.ACCEPTED)
    provider.balances = [LOCKED]
    await send(one)
    with pytest.raises(Busy):
        await send(one)
    assert len(provider.placed) == 1


async def test_the_trial_of_an_open_breaker_is_the_balance_question_and_never_an_order() -> None:
    one, provider = lane(PAGE_403, Placed.ACCEPTED)
    provider.balances = [LOCKED, LOCKED, LOCKED, HEALTHY]
    await send(one)
    await settled(one)
    reopen_soon(one)
    for _ in range(2):
        with pytest.raises(Busy):
            await send(one)
    assert len(provider.placed) == 1 and one.state == "open" and len(one.told) == 1
    await send(one)
    assert one.state == "closed" and len(provider.placed) == 2


async def test_an_unknown_reference_is_no_trouble_of_the_account() -> None:
    one, provider = lane()
    provider._answers = [StatusAnswer(Seen.QUERY_ERROR, flags=("negative",))]
    for _ in range(10):
        await ask(one)
    assert one.state == "closed"


@pytest.mark.parametrize("reason", [Refusal.PLAYER, Refusal.QUANTITY, Refusal.PACKAGE])
async def test_refusals_that_the_buyer_or_the_mapping_causes_do_not_count(reason: Refusal) -> None:
    one, _ = lane(PlacedAnswer(Placed.REJECTED, reason=reason))
    for _ in range(40):
        await send(one)
    assert one.state == "closed"


async def test_failed_checks_in_a_row_close_the_lane() -> None:
    one, _ = lane(answers=[Seen.QUERY_ERROR])
    for _ in range(3):
        await ask(one)
    assert one.state == "open"


@ways
async def test_half_open_lets_one_through_and_closes_on_its_success(batch: int) -> None:
    one, provider = lane(Placed.AMBIGUOUS, Placed.AMBIGUOUS, Placed.AMBIGUOUS, Placed.ACCEPTED, batch=batch)
    for _ in range(3):
        await send(one)
    reopen_soon(one)
    provider.gate = asyncio.Event()
    trial = asyncio.create_task(send(one))
    await eventually(lambda: len(provider.placed) == 4)
    for _ in range(3):
        with pytest.raises(Busy, match="being tried again"):
            await send(one)
    with pytest.raises(Busy):
        await ask(one)
    provider.gate.set()
    await trial
    assert one.state == "closed" and len(provider.placed) == 4
    await send(one)


@ways
async def test_half_open_lets_one_check_through_and_no_placement_beside_it(batch: int) -> None:
    one, provider = lane(Placed.AMBIGUOUS, batch=batch)
    for _ in range(3):
        await send(one)
    reopen_soon(one)
    provider.gate = asyncio.Event()
    trial = asyncio.create_task(ask(one))
    await eventually(lambda: provider.asked)
    with pytest.raises(Busy):
        await send(one)
    provider.gate.set()
    await trial
    assert one.state == "closed"


async def test_a_failed_trial_opens_again_and_is_told_again() -> None:
    one, _ = lane(Placed.AMBIGUOUS)
    for _ in range(3):
        await send(one)
    reopen_soon(one)
    await send(one)
    assert one.state == "open" and len(one.told) == 2


async def test_a_trial_that_never_reached_the_provider_leaves_room_for_the_next() -> None:
    one, _ = lane(Placed.AMBIGUOUS, Placed.AMBIGUOUS, Placed.AMBIGUOUS, Placed.ACCEPTED)
    for _ in range(3):
        await send(one)
    reopen_soon(one)
    with pytest.raises(RuntimeError):
        async with one.slot():
            raise RuntimeError
    await send(one)
    assert one.state == "closed"


async def test_a_mass_of_refusals_closes_the_lane() -> None:
    one, _ = lane(PlacedAnswer(Placed.REJECTED, reason=Refusal.FUNDS))
    for _ in range(5):
        await send(one)
    assert one.state == "open" and "5 refusals" in one.told[0].message


async def test_refusals_among_many_accepted_orders_do_not() -> None:
    script = [Placed.ACCEPTED, Placed.REJECTED, Placed.ACCEPTED] * 8
    one, _ = lane(*script)
    for _ in script:
        await send(one)
    assert one.state == "closed"


async def test_refusals_long_ago_do_not_count(move_clock: Callable[[float], None]) -> None:
    one, _ = lane(Placed.REJECTED)
    for _ in range(8):
        await send(one)
        move_clock(20)  # three per window
    assert one.state == "closed"


async def test_after_an_outage_the_rate_grows_from_a_tenth(move_clock: Callable[[float], None]) -> None:
    one, _ = lane(
        Placed.AMBIGUOUS,
        Placed.AMBIGUOUS,
        Placed.AMBIGUOUS,
        Placed.ACCEPTED,
        breaker=replace_block(BREAKER, slow_start=10),
    )
    assert one._scale() == 1.0
    for _ in range(3):
        await send(one)
    reopen_soon(one)
    await send(one)
    scales = []
    for _ in range(12):
        scales.append(one._scale())
        move_clock(1)
    assert scales[0] == 0.1 and scales == sorted(scales) and scales[-1] == 1.0 and len(set(scales)) == 10


def replace_block(block: BreakerConfig, **fields: float) -> BreakerConfig:
    return block.model_copy(update=fields)


# -- places ---------------------------------------------------------------------------------------------------------


async def test_no_more_calls_at_once_than_configured_and_the_rest_waits_or_is_sent_away() -> None:
    one, provider = lane(limits=LimitsConfig(rate=10_000, concurrency=2, queue=3))
    provider.gate = asyncio.Event()
    sends = [asyncio.create_task(send(one)) for _ in range(8)]
    await eventually(lambda: sum(task.done() for task in sends) == 3)
    assert len(provider.placed) == 2
    provider.gate.set()
    done = await asyncio.gather(*sends, return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in done) == 3 and len(provider.placed) == 5


async def test_checks_never_take_the_place_of_placements() -> None:
    one, provider = lane(limits=LimitsConfig(rate=10_000, check_rate=10_000, concurrency=1))
    provider.gate = asyncio.Event()
    asks = [asyncio.create_task(ask(one)) for _ in range(3)]
    await eventually(lambda: provider.asked)
    placing = asyncio.create_task(send(one))
    await eventually(lambda: provider.placed)
    provider.gate.set()
    await asyncio.gather(placing, *asks)


@ways
async def test_too_many_waiting_checks_are_sent_away(batch: int) -> None:
    one, provider = lane(limits=LimitsConfig(rate=10_000, check_rate=10_000, concurrency=1, queue=2), batch=batch)
    provider.gate = asyncio.Event()
    asks = [asyncio.create_task(ask(one)) for _ in range(6 * batch)]
    await eventually(lambda: any(task.done() for task in asks))
    provider.gate.set()
    done = await asyncio.gather(*asks, return_exceptions=True)
    assert 1 <= sum(isinstance(result, Busy) for result in done) < 6 * batch


async def test_a_lane_never_holds_more_than_its_part_of_the_events_in_flight() -> None:
    one, provider = lane(limits=LimitsConfig(rate=10_000, concurrency=4))
    one.set_most(10)
    provider.gate = asyncio.Event()
    sends = [asyncio.create_task(send(one)) for _ in range(40)]
    asks = [asyncio.create_task(ask(one)) for _ in range(40)]
    await eventually(lambda: len(provider.placed) == len(provider.asked) == 4)
    await eventually(lambda: sum(not task.done() for task in sends) == 10)
    assert sum(not task.done() for task in asks) <= 10 + 4
    provider.gate.set()
    await asyncio.gather(*sends, *asks, return_exceptions=True)


async def test_a_lane_that_is_known_to_be_fast_may_hold_what_it_works_off_soon() -> None:
    one, provider = lane(limits=LimitsConfig(rate=10_000, concurrency=4))
    one.set_most(10)
    for _ in range(3):
        await send(one)
    provider.gate = asyncio.Event()
    sends = [asyncio.create_task(send(one)) for _ in range(40)]
    await eventually(lambda: len(provider.placed) == 3 + 4)
    assert not any(task.done() for task in sends)
    provider.gate.set()
    await asyncio.gather(*sends)


async def test_who_is_sent_away_is_told_to_come_back_when_it_is_their_turn() -> None:
    one, provider = lane(limits=LimitsConfig(rate=10, concurrency=1, queue=1))
    provider.gate = asyncio.Event()
    sends = [asyncio.create_task(send(one)) for _ in range(22)]
    await eventually(lambda: sum(task.done() for task in sends) == 20)
    away = [task.exception() for task in sends if task.done()]
    turns = sorted(busy.reserve() for busy in away if isinstance(busy, Busy))
    assert len(turns) == 20 and turns[0] < 0.1
    assert turns[-1] - turns[0] == pytest.approx(1.9, abs=0.2)  # ten in a second
    provider.gate.set()
    await asyncio.gather(*sends, return_exceptions=True)


async def test_the_pace_of_a_slow_provider_is_learned_from_its_calls(move_clock: Callable[[float], None]) -> None:
    one, provider = lane(limits=LimitsConfig(rate=10_000, concurrency=1, queue=1))
    for _ in range(60):
        async with one.slot():
            move_clock(5.0)
    provider.gate = asyncio.Event()
    sends = [asyncio.create_task(send(one)) for _ in range(5)]
    await eventually(lambda: sum(task.done() for task in sends) == 3)
    turns = sorted(busy.reserve() for task in sends if task.done() and isinstance(busy := task.exception(), Busy))
    assert turns[2] - turns[0] == pytest.approx(10.0, rel=0.1)
    provider.gate.set()
    await asyncio.gather(*sends, return_exceptions=True)


async def test_a_new_order_waits_for_its_place_only_where_that_takes_a_moment(
    move_clock: Callable[[float], None],
) -> None:
    one, provider = lane(limits=LimitsConfig(rate=10_000, concurrency=1))
    assert one.soon
    provider.gate = asyncio.Event()
    first = asyncio.create_task(send(one))
    await eventually(lambda: len(provider.placed) == 1)
    assert not one.soon, "nobody knows yet how long a call takes"
    move_clock(0.1)
    provider.gate.set()
    await first
    provider.gate = asyncio.Event()
    sends = [asyncio.create_task(send(one)) for _ in range(4)]
    await eventually(lambda: len(provider.placed) == 2)
    assert one.soon, "three wait, a tenth of a second each"
    sends += [asyncio.create_task(send(one)) for _ in range(4)]
    await asyncio.sleep(0.01)
    assert not one.soon
    provider.gate.set()
    await asyncio.gather(*sends)
    for _ in range(BREAKER.fail_max):
        one.observe(PlacedAnswer(Placed.AMBIGUOUS))
    assert not one.soon


async def test_while_a_lane_is_closed_nobody_is_told_to_come_back_before_it_is_tried_again() -> None:
    one, _ = lane(Placed.AMBIGUOUS)
    for _ in range(BREAKER.fail_max):
        await send(one)
    with pytest.raises(Busy) as busy:
        await send(one)
    assert BREAKER.reset_after - 5 < busy.value.reserve() < BREAKER.reset_after + 5


async def test_a_place_is_given_back_whatever_happens_in_it() -> None:
    one, _ = lane(limits=LimitsConfig(rate=10_000, concurrency=1, queue=1))
    for _ in range(3):
        with pytest.raises(RuntimeError):
            async with one.slot():
                raise RuntimeError
    await send(one)


async def test_a_worker_uses_its_share_of_the_rate() -> None:
    one, _ = lane(limits=LimitsConfig(rate=100, concurrency=4))
    one.set_share(0.25)
    limiter = one._dispatch._limiter
    assert limiter.max_rate / limiter.time_period == pytest.approx(25)
    whole, _ = lane(limits=LimitsConfig(rate=100, concurrency=4))
    assert whole._dispatch._limiter.max_rate / whole._dispatch._limiter.time_period == pytest.approx(100)


async def test_who_waits_for_a_turn_goes_on_at_the_rate_of_now() -> None:
    one, provider = lane(limits=LimitsConfig(rate=100, concurrency=50, queue=50))
    one.set_share(0.001)
    sends = [asyncio.create_task(send(one)) for _ in range(30)]
    await eventually(lambda: len(provider.placed) == 1)
    one.set_share(1.0)  # at the rate of before the next turn is ten seconds away
    await asyncio.wait_for(sends[1], 5)
    one.set_share(0.001)
    placed = len(provider.placed)
    assert placed < 30
    await asyncio.sleep(0.5)  # at the rate of before all would have had a turn
    assert len(provider.placed) == placed
    one.set_share(1.0)
    await asyncio.gather(*sends)


# -- questions ------------------------------------------------------------------------------------------------------


async def test_questions_that_wait_together_travel_together_and_each_gets_its_own_answer() -> None:
    one, provider = lane(batch=10, limits=LimitsConfig(rate=10_000, concurrency=1))
    provider.gate = asyncio.Event()
    asks = [asyncio.create_task(ask(one, f"r{n}")) for n in range(21)]
    await eventually(lambda: provider.asked)
    provider.gate.set()
    answers = await asyncio.gather(*asks)
    assert [answer.message for answer in answers] == [f"r{n}" for n in range(21)]
    assert len(provider.asked) <= 4 and max(len(references) for _, references in provider.asked) == 10


async def test_a_question_that_travels_alone_waits_for_no_other_answer() -> None:
    one, provider = lane(limits=LimitsConfig(rate=10_000, concurrency=3))
    provider.gate = asyncio.Event()
    asks = []
    for under_way in (1, 2, 3):
        asks.append(asyncio.create_task(ask(one)))
        await eventually(lambda: len(provider.asked) == under_way)  # noqa: B023
    asks.append(asyncio.create_task(ask(one)))
    await asyncio.sleep(0.05)  # as long as the three before took, and more
    assert len(provider.asked) == 3
    provider.gate.set()
    await asyncio.gather(*asks)


async def test_a_question_that_travels_alone_leaves_in_the_turn_in_which_it_is_asked() -> None:
    one, provider = lane()
    asking = asyncio.create_task(ask(one))
    await asyncio.sleep(0)
    assert len(provider.asked) == 1
    await asking


async def test_checks_and_look_ups_never_share_a_request() -> None:
    one, provider = lane(batch=10)
    await asyncio.gather(*(ask(one, f"r{n}", look_up=n % 2 == 0) for n in range(8)))
    for kind, references in provider.asked:
        assert {int(reference[1:]) % 2 for reference in references} == {0 if kind == "look_up" else 1}


@ways
async def test_a_question_right_after_an_answer_is_asked_too(batch: int) -> None:
    one, provider = lane(batch=batch)
    async with asyncio.timeout(5):
        for n in range(5):
            await ask(one, f"r{n}")
    assert len(provider.asked) == 5


async def test_an_adapter_that_loses_an_answer_fails_the_whole_question() -> None:
    class Short(FakeProvider):
        async def check(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
            return (await super().check(asks))[1:]

    one = Watched(Short(Placed.ACCEPTED, answers=[Seen.PENDING]), batch=5)
    results = await asyncio.gather(*(ask(one, f"r{n}") for n in range(3)), return_exceptions=True)
    assert all(isinstance(result, RuntimeError) for result in results)


async def test_an_adapter_that_raises_fails_its_own_questions_only() -> None:
    class Sick(FakeProvider):
        async def check(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
            if asks[0].reference == "bad":
                raise ValueError
            return await super().check(asks)

    one = Watched(Sick(Placed.ACCEPTED, answers=[Seen.PENDING]))
    results = await asyncio.gather(*(ask(one, name) for name in ("a", "bad", "b")), return_exceptions=True)
    assert [type(result) for result in results] == [StatusAnswer, ValueError, StatusAnswer]
    assert replace(results[0], message="") == StatusAnswer(Seen.PENDING)  # type: ignore[type-var]


@ways
async def test_a_lane_that_closes_sends_the_waiting_questions_away(batch: int) -> None:
    one, provider = lane(answers=[Seen.QUERY_ERROR], limits=LimitsConfig(rate=10_000, concurrency=1), batch=batch)
    provider.gate = asyncio.Event()
    asks = [asyncio.create_task(ask(one, f"r{n}")) for n in range(3 * batch + 1)]
    await eventually(lambda: provider.asked)
    provider.gate.set()
    results = await asyncio.gather(*asks, return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == 1 and len(provider.asked) == 3


# -- what it shows --------------------------------------------------------------------------------------------------


async def test_a_lane_shows_what_people_ask_about_it() -> None:
    one, _ = lane(Placed.ACCEPTED, Placed.AMBIGUOUS)
    one.set_share(0.5)
    await send(one)
    await send(one)
    await ask(one)
    view = one.view()
    assert (view["state"], view["share"], view["rate"], view["concurrency"]) == ("closed", 0.5, 5_000, 4)
    assert (view["in_flight"], view["waiting"], view["calls"]) == (0, 0, 3)
    assert isinstance(view["p50_s"], float) and view["p50_s"] <= view["p95_s"] < 1  # type: ignore[operator]
    assert view["last_error_at"] is not None and view["reopens_in_s"] == 0


async def test_a_lane_shows_calls_under_way_and_calls_that_wait() -> None:
    one, _ = lane(limits=LimitsConfig(rate=10_000, concurrency=1))
    async with one.slot():
        waiting = asyncio.create_task(send(one))
        await eventually(lambda: one.view()["waiting"] == 1)
        assert one.view()["in_flight"] == 1
    await waiting
    assert (one.view()["in_flight"], one.view()["waiting"]) == (0, 0)


async def test_a_closed_lane_shows_why_and_until_when() -> None:
    one, _ = lane(Placed.NOT_SENT)
    for _ in range(3):
        await send(one)
    assert one.view()["state"] == "open" and 0 < one.view()["reopens_in_s"] <= 30  # type: ignore[operator]
