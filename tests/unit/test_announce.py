"""The same rows give the same events with the same ids, told for the first time or again."""

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from agents.domain import outbound_events, placement, status_answers
from agents.domain.routing import facts_of
from agents.providers.base import Money, Placed, PlacedAnswer, Refusal, Seen, StatusAnswer
from db.rows import OrderState
from streams.events import Check, Referenced, StatusChanged, decode
from streams.kafka.producer import Outgoing
from tests.fakes import NOW, SCHEDULE, order, routing

ROUTING = routing()


def tier(seconds: float) -> str:
    return "orders.check" if seconds <= 0 else f"orders.retry.{seconds:g}s"


def opened(quantity: int = 1) -> OrderState:
    made = order(quantity)
    change = placement.open_order(made, ROUTING, ROUTING.first(facts_of(made)), NOW)
    return outbound_events.after(OrderState(made, []), change)


def sent(state: OrderState, number: int = 1) -> OrderState:
    change = placement.start_sending(state, number, ROUTING, NOW, placement.Lease("me", 35.0))
    assert change is not None
    for row in change.attempts:
        row.lease_until = row.next_check_at = NOW + timedelta(seconds=35)
    return outbound_events.after(state, change)


def answered(state: OrderState, answer: PlacedAnswer | Placed, number: int = 1) -> OrderState:
    answer = answer if isinstance(answer, PlacedAnswer) else PlacedAnswer(answer)
    change = placement.on_placement_answer(state, number, "me", answer, ROUTING, SCHEDULE, NOW)
    assert change is not None
    return outbound_events.after(state, change)


def asked(state: OrderState, answer: Seen, number: int = 1) -> OrderState:
    change = status_answers.on_status_answer(state, number, StatusAnswer(answer), ROUTING, SCHEDULE, NOW)
    assert change is not None
    return outbound_events.after(state, change)


def news(before: OrderState, now: OrderState, at: datetime = NOW) -> list[Outgoing]:
    return outbound_events.events_between(before, now, tier, at)


def ids(records: list[Outgoing]) -> list[tuple[str, str]]:
    return [(record.topic, dict(record.headers)["ce_id"].decode()) for record in records]


def test_an_accepted_placement_tells_its_reference_its_status_and_its_first_check() -> None:
    before = opened()
    now = answered(sent(before), PlacedAnswer(Placed.ACCEPTED, external_id="x1"))
    reference, status, check = news(before, now)
    assert (reference.topic, status.topic, check.topic) == (
        "orders.referenced",
        "orders.status-changed",
        "orders.retry.60s",
    )
    told = decode(Referenced, reference.value)
    assert (told.provider_referans, told.external_order_id, told.attempt) == ("one-t-o-1", "x1", 1)
    assert decode(StatusChanged, status.value).external_status == "sent"
    due = decode(Check, check.value)
    assert (due.reason, due.due_at, due.check_number) == ("first", NOW + timedelta(seconds=60), 3)
    assert all(record.key == b"o" for record in (reference, status, check))


def test_an_attempt_that_is_sent_right_away_needs_no_wake_up() -> None:
    made = order()
    assert news(OrderState(made, []), opened()) == []


def test_a_put_off_attempt_wakes_up_under_the_same_number() -> None:
    before = opened()
    change = placement.defer(before, 1, ROUTING, NOW, 5.0, "full")
    assert change is not None
    (check,) = news(before, outbound_events.after(before, change))
    due = decode(Check, check.value)
    assert (check.topic, due.reason) == ("orders.retry.5s", "dispatch")
    assert due.check_number == before.attempts[0].check_number


def test_an_unknown_outcome_is_to_be_reconciled() -> None:
    before = opened()
    *_, check = news(before, answered(sent(before), Placed.AMBIGUOUS))
    assert decode(Check, check.value).reason == "reconcile"


def test_nothing_new_tells_nothing() -> None:
    state = answered(sent(opened()), Placed.ACCEPTED)
    assert news(state, state) == []


def test_a_reference_is_told_once_and_only_for_what_the_provider_took() -> None:
    before = opened()
    refused = answered(sent(before), PlacedAnswer(Placed.REJECTED, reason=Refusal.FUNDS))
    assert "orders.referenced" not in [record.topic for record in news(before, refused)]
    accepted = answered(sent(opened()), Placed.ACCEPTED)
    assert "orders.referenced" not in [record.topic for record in news(accepted, asked(accepted, Seen.SUCCEEDED))]


def test_a_reference_found_by_a_look_up_is_told() -> None:
    unknown = answered(sent(opened()), Placed.AMBIGUOUS)
    assert "orders.referenced" in [record.topic for record in news(unknown, asked(unknown, Seen.PENDING))]


def test_everything_that_was_told_can_be_told_again_with_the_same_ids() -> None:
    state = opened()
    for step in (
        lambda s: answered(sent(s), Placed.AMBIGUOUS),
        lambda s: asked(s, Seen.UNRECOGNISED),
        lambda s: asked(s, Seen.PENDING),
        lambda s: asked(s, Seen.SUCCEEDED),
    ):
        now = step(state)
        told = {each for _, each in ids(news(state, now))}
        for later in (timedelta(), timedelta(days=1)):
            assert told and told <= {each for _, each in ids(outbound_events.all_events(now, tier, NOW + later))}
        state = now


def test_what_went_through_the_database_gives_the_same_ids() -> None:
    state = answered(sent(opened()), PlacedAnswer(Placed.ACCEPTED, cost=Money(Decimal("1.50"), "TRY")))
    stored = msgspec.json.decode(msgspec.json.encode(state), type=OrderState, strict=False)
    assert ids(outbound_events.all_events(stored, tier, NOW)) == ids(outbound_events.all_events(state, tier, NOW))


def test_a_lease_is_waited_for_when_told_again() -> None:
    state = sent(opened())
    (check,) = [
        record for record in outbound_events.all_events(state, tier, NOW) if record.topic.startswith("orders.retry")
    ]
    due = decode(Check, check.value)
    assert (due.reason, due.due_at) == ("reconcile", NOW + timedelta(seconds=35))


def test_checks_can_be_left_out_or_kept_to_one_line() -> None:
    state = opened(3)
    for number in (1, 2, 3):
        state = answered(sent(state, number), Placed.ACCEPTED, number)

    def lines(line: int | None) -> list[int]:
        records = outbound_events.all_events(state, tier, NOW, line)
        return [decode(Check, r.value).attempt for r in records if r.topic.startswith("orders.retry")]

    assert (lines(None), lines(0), lines(2)) == ([1, 2, 3], [], [2])


def test_the_last_status_is_said_again_as_it_was() -> None:
    state = answered(sent(opened()), Placed.ACCEPTED)
    (again,) = [r for r in outbound_events.all_events(state, tier, NOW) if r.topic == "orders.status-changed"]
    (first,) = [r for r in news(opened(), state) if r.topic == "orders.status-changed"]
    assert again == first
    assert "orders.status-changed" not in [r.topic for r in outbound_events.all_events(opened(), tier, NOW)]


def test_the_status_comes_after_everything_that_only_it_lets_the_sweep_say_again() -> None:
    before = answered(sent(opened()), Placed.AMBIGUOUS)
    now = asked(before, Seen.FAILED)
    for records in (news(before, now), outbound_events.all_events(now, tier, NOW)):
        topics = [r.topic for r in records]
        assert topics.index("orders.referenced") < topics.index("orders.status-changed")


def test_an_attention_is_told_once() -> None:
    before = answered(sent(opened()), Placed.ACCEPTED)
    now = asked(before, Seen.UNRECOGNISED)
    assert [r.topic for r in news(before, now)].count("orders.attention") == 1
    assert [r.topic for r in news(now, asked(now, Seen.UNRECOGNISED))].count("orders.attention") == 0
