"""What an answer means: tables of state x answer, and the rules that have their own story."""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from agents.domain import deadlines, outbound_events, placement, status_answers
from agents.domain.routing import Routing, Waiting, facts_of
from agents.providers.base import Money, Placed, PlacedAnswer, Profile, Refusal, Seen, StatusAnswer
from db.rows import Attempt, Change, OrderState
from streams.order import AttemptState, AttentionCode, ExternalStatus, Status
from tests.fakes import CAREFUL, NOW, REPEATABLE, SCHEDULE, account, config, order, routing

S = AttemptState
E = ExternalStatus

#: Repeats are safe and nothing can be looked up: the only way out of an unknown outcome is the same request again.
BLIND = Profile(repeat_safe=True, look_up=False, batch=1, quantity=True, repeat_safe_for_s=600.0)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def kept(state: OrderState, change: Change | None, now: datetime = NOW) -> OrderState:
    """The order after the database stored a change: a lease gets its end."""
    assert change is not None
    if change.lease is not None:
        number, lease_s = change.lease
        for row in change.attempts:
            if row.attempt == number:
                row.lease_until = row.next_check_at = now + timedelta(seconds=lease_s)
    return outbound_events.after(state, change)


def opened(made: Routing, quantity: int = 1) -> OrderState:
    new = order(quantity)
    return kept(OrderState(new, []), placement.open_order(new, made, made.first(facts_of(new)), NOW))


def sending(state: OrderState, made: Routing, number: int = 1, now: datetime = NOW) -> OrderState:
    return kept(state, placement.start_sending(state, number, made, now, placement.Lease(f"me-{number}", 35.0)), now)


def placed(
    state: OrderState,
    made: Routing,
    answer: PlacedAnswer | Placed,
    number: int = 1,
    now: datetime = NOW,
    token: str | None = None,
) -> OrderState:
    answer = answer if isinstance(answer, PlacedAnswer) else PlacedAnswer(answer)
    change = placement.on_placement_answer(state, number, token or f"me-{number}", answer, made, SCHEDULE, now)
    return state if change is None else kept(state, change, now)


def seen(
    state: OrderState, made: Routing, answer: StatusAnswer | Seen, number: int = 1, now: datetime = NOW
) -> OrderState:
    answer = answer if isinstance(answer, StatusAnswer) else StatusAnswer(answer)
    return kept(state, status_answers.on_status_answer(state, number, answer, made, SCHEDULE, now), now)


def expired(state: OrderState, made: Routing, *, fail: bool = False, now: datetime = NOW) -> OrderState:
    return kept(state, deadlines.expired(state, made, now, fail=fail, actor="sweep"), now)


def at(made: Routing, where: AttemptState) -> OrderState:
    """An order whose only attempt is in this state."""
    state = sending(opened(made), made)
    match where:
        case S.ACCEPTED:
            return placed(state, made, Placed.ACCEPTED)
        case S.UNKNOWN:
            return placed(state, made, Placed.AMBIGUOUS)
        case S.COMPLETED:
            return placed(state, made, Placed.COMPLETED)
        case S.FAILED:
            return placed(state, made, Placed.REFUSED_AFTER_ACCEPT)
        case _:
            return state


def row(state: OrderState, number: int = 1) -> Attempt:
    found = state.attempt(number)
    assert found is not None
    return found


def delay(state: OrderState, number: int = 1, now: datetime = NOW) -> float | None:
    due = row(state, number).next_check_at
    return None if due is None else (due - now).total_seconds()


def codes(state: OrderState) -> list[str]:
    return [raised.code for raised in state.order.raised]


# -- the answer to a placement --------------------------------------------------------------------------------------

WATCH = 3600.0


@pytest.mark.parametrize(
    ("answer", "after", "due_s", "external", "status"),
    [
        (Placed.ACCEPTED, S.ACCEPTED, 60.0, E.SENT, Status.PENDING),
        (Placed.COMPLETED, S.COMPLETED, WATCH, E.COMPLETED, Status.APPROVED),
        (Placed.REFUSED_AFTER_ACCEPT, S.FAILED, WATCH, E.FAILED, Status.REJECTED),
        (Placed.RETRY_LATER, S.INTENT, 5.0, E.NOT_SENT, Status.PENDING),
        (PlacedAnswer(Placed.RETRY_LATER, retry_after_s=61.0), S.INTENT, 120.0, E.NOT_SENT, Status.PENDING),
        (Placed.AMBIGUOUS, S.UNKNOWN, 5.0, E.UNKNOWN, Status.PENDING),
        (PlacedAnswer(Placed.AMBIGUOUS, reason=Refusal.FUNDS), S.UNKNOWN, 5.0, E.UNKNOWN, Status.PENDING),
        (Placed.DUPLICATE, S.UNKNOWN, 5.0, E.UNKNOWN, Status.PENDING),
        (PlacedAnswer(Placed.REJECTED, reason=Refusal.PLAYER), S.REJECTED, None, E.FAILED, Status.REJECTED),
        (PlacedAnswer(Placed.REJECTED), S.REJECTED, None, E.FAILED, Status.REJECTED),
    ],
)
def test_an_answer_to_a_placement_moves_the_attempt(
    answer: PlacedAnswer | Placed, after: AttemptState, due_s: float | None, external: ExternalStatus, status: Status
) -> None:
    made = routing()
    state = placed(at(made, S.SENDING), made, answer)
    assert (row(state).state, delay(state)) == (after, due_s)
    assert (state.order.external_status, state.order.status) == (external, status)
    assert (state.order.finished_at is not None) == (external in (E.COMPLETED, E.FAILED))
    assert len(state.attempts) == 1 and row(state).lease_token is None


@pytest.mark.parametrize("reason", [Refusal.FUNDS, Refusal.STOCK, Refusal.PACKAGE])
def test_a_refusal_that_allows_it_goes_to_the_fallback_at_once(reason: Refusal) -> None:
    made = routing()
    state = placed(at(made, S.SENDING), made, PlacedAnswer(Placed.REJECTED, reason=reason))
    assert [(a.integration_id, a.state) for a in state.attempts] == [("one", S.REJECTED), ("two", S.INTENT)]
    assert delay(state, 2) == 0.0 and delay(state, 1) == WATCH  # a late success of the refused one must be seen
    assert state.order.external_status is E.NOT_SENT


@pytest.mark.parametrize("reason", [Refusal.PLAYER, Refusal.QUANTITY, Refusal.OTHER])
def test_a_refusal_that_is_about_the_order_ends_it(reason: Refusal) -> None:
    made = routing()
    state = placed(at(made, S.SENDING), made, PlacedAnswer(Placed.REJECTED, reason=reason))
    assert len(state.attempts) == 1 and state.order.external_status is E.FAILED


def test_both_integrations_refusing_ends_the_order() -> None:
    made = routing()
    state = placed(at(made, S.SENDING), made, PlacedAnswer(Placed.REJECTED, reason=Refusal.FUNDS))
    state = placed(sending(state, made, 2), made, PlacedAnswer(Placed.REJECTED, reason=Refusal.FUNDS), 2)
    assert len(state.attempts) == 2 and state.order.external_status is E.FAILED


def test_a_locked_account_keeps_the_order_and_never_falls_back() -> None:
    made = routing()
    state = at(made, S.SENDING)
    for number in range(1, 3):
        state = placed(state, made, PlacedAnswer(Placed.REJECTED, reason=Refusal.ACCESS), number)
        assert {a.integration_id for a in state.attempts} == {"one"}
        assert (delay(state, number + 1) or 0) >= 5.0 and state.order.external_status is E.NOT_SENT
        state = sending(state, made, number + 1)
    state = placed(state, made, PlacedAnswer(Placed.REJECTED, reason=Refusal.ACCESS), 3)
    assert len(state.attempts) == 3 and state.order.external_status is E.NOT_SENT  # a person decides now
    assert state.order.waiting == AttentionCode.REFUSED_REPEATEDLY


def test_an_order_whose_answers_prove_nothing_is_not_sent_without_end() -> None:
    """A firewall answers 403 each time, the look-up never finds it: three sends, then a person."""
    page = PlacedAnswer(Placed.AMBIGUOUS, reason=Refusal.ACCESS, tripped=True, flags=("http_403",), message="a page")
    made = routing(replace(CAREFUL, absent_settle_s=0.0, absent_window_s=0.0, absent_answers=1), fallback=None)
    state, now = at(made, S.SENDING), 0.0
    for number in range(1, 4):
        state = placed(state, made, page, number, now=later(now))
        state = seen(state, made, Seen.NOT_FOUND, number, now=later(now + 70))
        now += 1000
        if number < 3:
            state = sending(state, made, number + 1, now=later(now))
    assert [a.state for a in state.attempts] == [S.NOT_SENT] * 3
    assert state.order.waiting == AttentionCode.REFUSED_REPEATEDLY and state.order.external_status is E.NOT_SENT


def test_a_provider_that_cannot_be_reached_is_tried_without_end() -> None:
    made = routing(fallback=None)
    state = at(made, S.SENDING)
    for number in range(1, 8):
        state = placed(state, made, Placed.NOT_SENT, number)
        assert state.order.waiting is None
        state = sending(state, made, number + 1)


@pytest.mark.parametrize("reason", [Refusal.OTHER, Refusal.STOCK, Refusal.PACKAGE, Refusal.FUNDS])
def test_a_refusal_of_no_table_starts_no_fallback_and_is_watched(reason: Refusal) -> None:
    made = routing()
    state = placed(at(made, S.SENDING), made, PlacedAnswer(Placed.REJECTED, reason=reason, listed=False))
    assert len(state.attempts) == 1 and state.order.external_status is E.FAILED and delay(state) == WATCH
    state = seen(state, made, Seen.SUCCEEDED, now=later(WATCH))
    assert AttentionCode.REVERSAL in codes(state)


def test_a_repeat_refused_in_unknown_words_stays_unknown() -> None:
    made = routing(REPEATABLE)
    state = sending(placed(at(made, S.SENDING), made, Placed.RETRY_LATER), made, now=later(10))
    state = placed(state, made, PlacedAnswer(Placed.REJECTED, reason=Refusal.OTHER, listed=False))
    assert row(state).state is S.UNKNOWN and state.order.external_status is E.UNKNOWN


def test_nothing_sent_tries_the_fallback_once_then_the_primary_after_growing_delays() -> None:
    made = routing()
    state = at(made, S.SENDING)
    went = []
    for number in range(1, 6):
        state = placed(state, made, Placed.NOT_SENT, number)
        went.append((row(state, number + 1).integration_id, delay(state, number + 1)))
        state = sending(state, made, number + 1)
    assert went == [("two", 0.0), ("one", 60.0), ("one", 120.0), ("one", 240.0), ("one", 480.0)]


def test_nothing_sent_never_returns_to_an_integration_that_refused() -> None:
    made = routing()
    state = placed(at(made, S.SENDING), made, PlacedAnswer(Placed.REJECTED, reason=Refusal.FUNDS))
    state = placed(sending(state, made, 2), made, Placed.NOT_SENT, 2)
    assert row(state, 3).integration_id == "two" and (delay(state, 3) or 0) > 0


def test_completed_without_the_promised_pin_is_not_delivered() -> None:
    made = routing(delivers_pin=True)
    state = placed(at(made, S.SENDING), made, Placed.COMPLETED)
    assert row(state).state is S.ACCEPTED and delay(state) is not None
    assert state.order.external_status is E.PROCESSING and codes(state) == [AttentionCode.PIN_MISSING]
    state = seen(state, made, StatusAnswer(Seen.SUCCEEDED, pins=("sealed",)))
    assert state.order.external_status is E.COMPLETED and (state.order.last_event or {})["pins"] == ["sealed"]


def test_what_an_answer_tells_is_kept_and_never_overwritten_by_less() -> None:
    made = routing()
    told = PlacedAnswer(Placed.ACCEPTED, external_id="x1", cost=Money(Decimal("12.50"), "TRY"))
    state = seen(placed(at(made, S.SENDING), made, told), made, Seen.SUCCEEDED)
    assert (row(state).external_order_id, row(state).cost_amount) == ("x1", Decimal("12.50"))
    assert (state.order.last_event or {})["cost"] == {"amount": "12.50", "currency": "TRY"}


# -- the answer to a question ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "answer", "after", "due_s", "external"),
    [
        (S.ACCEPTED, Seen.PENDING, S.ACCEPTED, 30.0, E.PROCESSING),
        (S.ACCEPTED, Seen.SUCCEEDED, S.COMPLETED, WATCH, E.COMPLETED),
        (S.ACCEPTED, Seen.FAILED, S.FAILED, WATCH, E.FAILED),
        (S.ACCEPTED, Seen.NOT_FOUND, S.ACCEPTED, 30.0, E.SENT),  # it was accepted: no absence undoes that
        (S.ACCEPTED, Seen.QUERY_ERROR, S.ACCEPTED, 30.0, E.SENT),  # a failed question says nothing
        (S.ACCEPTED, Seen.UNRECOGNISED, S.ACCEPTED, 30.0, E.SENT),
        (S.UNKNOWN, Seen.PENDING, S.ACCEPTED, 30.0, E.PROCESSING),
        (S.UNKNOWN, Seen.SUCCEEDED, S.COMPLETED, WATCH, E.COMPLETED),
        (S.UNKNOWN, Seen.FAILED, S.FAILED, WATCH, E.FAILED),
        (S.UNKNOWN, Seen.NOT_FOUND, S.UNKNOWN, 30.0, E.UNKNOWN),  # one absence proves nothing
        (S.UNKNOWN, Seen.QUERY_ERROR, S.UNKNOWN, 30.0, E.UNKNOWN),
        (S.UNKNOWN, Seen.UNRECOGNISED, S.UNKNOWN, 30.0, E.UNKNOWN),
        (S.COMPLETED, Seen.SUCCEEDED, S.COMPLETED, WATCH, E.COMPLETED),
        (S.COMPLETED, Seen.FAILED, S.COMPLETED, WATCH, E.COMPLETED),  # a reversal: told, never settled
        (S.COMPLETED, Seen.PENDING, S.COMPLETED, WATCH, E.COMPLETED),  # withdrawn: it may be cancelled next
        (S.FAILED, Seen.SUCCEEDED, S.FAILED, WATCH, E.FAILED),
        (S.FAILED, Seen.QUERY_ERROR, S.FAILED, WATCH, E.FAILED),
    ],
)
def test_an_answer_to_a_question_moves_the_attempt(
    before: AttemptState, answer: Seen, after: AttemptState, due_s: float | None, external: ExternalStatus
) -> None:
    made = routing()
    state = seen(at(made, before), made, answer)
    assert (row(state).state, delay(state), state.order.external_status) == (after, due_s, external)
    told = AttentionCode.REVERSAL in codes(state)
    reversals = ((S.COMPLETED, Seen.FAILED), (S.COMPLETED, Seen.PENDING), (S.FAILED, Seen.SUCCEEDED))
    assert told == ((before, answer) in reversals)
    if told:
        event = state.order.last_event or {}
        assert event["reason"] == "reversal" and event["external_status"] == external
    forgotten = (before, answer) == (S.ACCEPTED, Seen.NOT_FOUND)
    assert (AttentionCode.UNRECOGNISED_ANSWER in codes(state)) == (answer is Seen.UNRECOGNISED or forgotten)


def test_a_reversal_is_published_once_and_keeps_the_end_of_the_order() -> None:
    made = routing()
    state = seen(at(made, S.ACCEPTED), made, Seen.SUCCEEDED)
    ended, version = state.order.finished_at, state.order.version
    state = seen(state, made, Seen.PENDING, now=later(WATCH))
    state = seen(state, made, Seen.PENDING, now=later(2 * WATCH))
    state = seen(state, made, Seen.FAILED, now=later(3 * WATCH))
    assert state.order.finished_at == ended and state.order.version == version + 2
    assert codes(state) == [AttentionCode.REVERSAL, AttentionCode.REVERSAL]
    assert (state.order.last_event or {})["external_status"] == "completed"


class TestPartialDelivery:
    """Fewer units than ordered, whatever the provider calls it."""

    def codes_of(self, *pins: str, kind: Seen = Seen.SUCCEEDED, **more: Any) -> OrderState:
        made = routing(REPEATABLE, delivers_pin=True)
        state = sending(opened(made, quantity=3), made)
        state = placed(state, made, Placed.ACCEPTED)
        return seen(state, made, StatusAnswer(kind, pins=pins, **more))

    @pytest.mark.parametrize(
        ("state", "due_s"),
        [
            (lambda self: self.codes_of("a", "b"), 30.0),
            (lambda self: self.codes_of("a", "b", delivered=2), 30.0),
            (lambda self: self.codes_of("a", "b", delivered=2, kind=Seen.PARTIAL), None),
        ],
        ids=["fewer codes", "a smaller number", "final"],
    )
    def test_is_no_completion_and_releases_what_came(self, state: Any, due_s: float | None) -> None:
        found = state(self)
        event = found.order.last_event or {}
        assert row(found).state is S.ACCEPTED and found.order.external_status is E.PROCESSING
        assert (event["pins"], event["delivered_quantity"]) == (["a", "b"], 2)
        assert AttentionCode.PARTLY_DELIVERED in codes(found) and delay(found) == due_s

    def test_the_rest_completes_it(self) -> None:
        made = routing(REPEATABLE, delivers_pin=True)
        state = seen(self.codes_of("a", "b"), made, StatusAnswer(Seen.SUCCEEDED, pins=("a", "b", "c")))
        event = state.order.last_event or {}
        assert state.order.external_status is E.COMPLETED
        assert (event["pins"], event["delivered_quantity"]) == (["a", "b", "c"], 3)

    def test_more_codes_than_ordered_are_kept(self) -> None:
        found = self.codes_of("a", "b", "c", "d")
        assert found.order.external_status is E.COMPLETED and row(found).pins == ["a", "b", "c", "d"]

    def test_what_was_given_back_is_told(self) -> None:
        found = self.codes_of("a", delivered=1, kind=Seen.PARTIAL, refunded=Money(Decimal("25.00"), "TRY"))
        assert (found.order.last_event or {})["refunded"] == {"amount": "25.00", "currency": "TRY"}

    def test_a_code_that_does_not_fit_is_held(self) -> None:
        found = self.codes_of("a", "b", "c", flags=("pin_mismatch",))
        assert row(found).state is S.ACCEPTED and row(found).pins == ["a", "b", "c"]
        assert codes(found) == [AttentionCode.PIN_MISSING] and not (found.order.last_event or {}).get("pins")


@pytest.mark.parametrize("where", [S.INTENT, S.SENDING])
def test_a_question_about_what_may_be_on_the_wire_changes_nothing(where: AttemptState) -> None:
    made = routing()
    state = opened(made) if where is S.INTENT else at(made, S.SENDING)
    assert status_answers.on_status_answer(state, 1, StatusAnswer(Seen.NOT_FOUND), made, SCHEDULE, NOW) is None


def test_questions_come_less_and_less_often() -> None:
    made = routing()
    state = at(made, S.ACCEPTED)
    delays = []
    for _ in range(7):
        state = seen(state, made, Seen.PENDING)
        delays.append(delay(state))
    assert delays == [30, 60, 120, 240, 480, 600, 600]


def test_every_decision_gives_the_next_check_a_new_number() -> None:
    made = routing()
    state, numbers = at(made, S.ACCEPTED), []
    for answer in (Seen.PENDING, Seen.QUERY_ERROR, Seen.SUCCEEDED, Seen.FAILED):
        numbers.append(row(state).check_number)
        state = seen(state, made, answer)
    numbers.append(row(state).check_number)
    assert len(set(numbers)) == 5 and numbers == sorted(numbers)


# -- absence --------------------------------------------------------------------------------------------------------


def test_absence_needs_enough_answers_late_enough_and_over_long_enough() -> None:
    made = routing()  # 3 answers, the first 60 s after the send, over 300 s
    state = seen(at(made, S.UNKNOWN), made, Seen.NOT_FOUND, now=later(59))
    assert row(state).absent_answers == 0  # too early to mean anything
    for seconds, answers in ((60, 1), (100, 2), (200, 3), (359, 4)):
        state = seen(state, made, Seen.NOT_FOUND, now=later(seconds))
        assert (row(state).state, row(state).absent_answers) == (S.UNKNOWN, answers)
    state = seen(state, made, Seen.NOT_FOUND, now=later(360))
    assert [(a.state, a.integration_id) for a in state.attempts] == [(S.NOT_SENT, "one"), (S.INTENT, "two")]


def test_a_long_time_between_two_answers_is_no_third_answer() -> None:
    made = routing()
    state = seen(at(made, S.UNKNOWN), made, Seen.NOT_FOUND, now=later(60))
    state = seen(state, made, Seen.NOT_FOUND, now=later(5000))
    assert row(state).state is S.UNKNOWN
    assert row(seen(state, made, Seen.NOT_FOUND, now=later(5001))).state is S.NOT_SENT


def test_a_failed_question_between_proves_nothing_and_counts_for_nothing() -> None:
    made = routing()
    state = at(made, S.UNKNOWN)
    for seconds in (60, 300, 600, 900, 1200):
        state = seen(state, made, Seen.QUERY_ERROR, now=later(seconds))
    assert (row(state).state, row(state).absent_answers) == (S.UNKNOWN, 0)
    assert codes(state) == [AttentionCode.OUTCOME_UNKNOWN]  # told once, after a while


def test_absence_where_a_repeat_is_safe_sends_the_same_reference_again() -> None:
    made = routing(REPEATABLE)
    state = absent(at(made, S.UNKNOWN), made)
    assert len(state.attempts) == 1 and row(state).state is S.UNKNOWN and delay(state, now=later(400)) == 0.0
    again = sending(state, made, now=later(400))
    assert (row(again).reference, row(again).wire, row(again).sends) == (row(state).reference, row(state).wire, 2)
    assert again.order.external_status is E.UNKNOWN


def absent(state: OrderState, made: Routing, start_s: float = 60.0) -> OrderState:
    """Three consistent not-found answers over long enough."""
    for seconds in (0, 100, 340):
        state = seen(state, made, Seen.NOT_FOUND, now=later(start_s + seconds))
    return state


def test_absence_is_measured_from_the_last_send() -> None:
    made = routing()
    state = placed(at(made, S.SENDING), made, Placed.RETRY_LATER)
    state = placed(sending(state, made, now=later(1000)), made, Placed.AMBIGUOUS, now=later(1001))
    state = seen(state, made, Seen.NOT_FOUND, now=later(1010))
    assert row(state).absent_answers == 0


def test_after_the_time_for_repeats_absence_leads_to_another_attempt() -> None:
    made = routing(replace(REPEATABLE, repeat_safe_for_s=300.0))
    state = absent(at(made, S.UNKNOWN), made)
    assert [(a.state, a.integration_id) for a in state.attempts] == [(S.NOT_SENT, "one"), (S.INTENT, "two")]


def test_a_success_after_proven_absence_raises_attention_with_both_facts() -> None:
    made = routing()
    state = absent(at(made, S.UNKNOWN), made)
    state = placed(sending(state, made, 2, later(401)), made, Placed.ACCEPTED, 2, later(402))
    state = seen(state, made, Seen.SUCCEEDED, 1, later(4000))
    (raised,) = state.order.raised
    assert raised.code == AttentionCode.REVERSAL and "attempt 2 at two is accepted" in raised.message
    assert row(state, 1).state is S.NOT_SENT and state.order.external_status is E.SENT


# -- repeats without proof ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        PlacedAnswer(Placed.NOT_SENT),
        PlacedAnswer(Placed.REJECTED, reason=Refusal.ACCESS),
        PlacedAnswer(Placed.REJECTED, reason=Refusal.FUNDS),
        PlacedAnswer(Placed.RETRY_LATER),
    ],
)
def test_a_repeat_that_bought_nothing_says_nothing_about_the_send_before_it(answer: PlacedAnswer) -> None:
    made = routing(BLIND)
    state = sending(at(made, S.UNKNOWN), made, now=later(5))
    state = placed(state, made, answer, now=later(6))
    assert len(state.attempts) == 1 and row(state).state is S.UNKNOWN and row(state).next_check_at is not None


def test_repeats_become_rarer_and_a_person_is_told() -> None:
    made = routing(replace(BLIND, repeat_safe_for_s=None))
    state, delays = at(made, S.UNKNOWN), []
    for _ in range(4):
        state = placed(sending(state, made), made, Placed.AMBIGUOUS)
        delays.append(delay(state))
    assert delays == [30, 60, 120, None] and codes(state) == [AttentionCode.OUTCOME_UNKNOWN]
    assert placement.start_sending(state, 1, made, later(9999), placement.Lease("me", 35.0)) is None


def test_an_outcome_that_nothing_can_find_out_is_told_and_no_longer_scheduled() -> None:
    made = routing(replace(BLIND, repeat_safe=False))
    state = at(made, S.UNKNOWN)
    assert delay(state) is None and codes(state) == [AttentionCode.OUTCOME_UNKNOWN]


def test_a_repeat_whose_time_is_over_is_told_instead_of_sent() -> None:
    made = routing(BLIND)
    state = at(made, S.UNKNOWN)
    assert placement.start_sending(state, 1, made, later(601), placement.Lease("me", 35.0)) is None
    state = kept(state, status_answers.on_missing_integration(state, row(state), made, later(601)))
    assert delay(state) is None and codes(state) == [AttentionCode.OUTCOME_UNKNOWN]


# -- leases and late answers ----------------------------------------------------------------------------------------


def test_only_an_intent_or_a_safe_repeat_takes_the_lease() -> None:
    made = routing()
    for where in (S.SENDING, S.UNKNOWN, S.ACCEPTED, S.COMPLETED, S.FAILED):
        assert placement.start_sending(at(made, where), 1, made, NOW, placement.Lease("other", 35.0)) is None


def test_a_lease_that_ended_is_unknown_and_only_the_database_may_say_so() -> None:
    made = routing()
    change = placement.on_lease_expired(at(made, S.SENDING), 1, made, SCHEDULE, later(36), "check")
    assert change is not None and change.only_expired == 1
    assert change.attempts[0].state is S.UNKNOWN and change.attempts[0].next_check_at == later(41)
    for where in (S.UNKNOWN, S.ACCEPTED):
        assert placement.on_lease_expired(at(made, where), 1, made, SCHEDULE, later(36), "check") is None


def lease_lost(made: Routing) -> OrderState:
    state = at(made, S.SENDING)
    return kept(state, placement.on_lease_expired(state, 1, made, SCHEDULE, later(36), "check"))


@pytest.mark.parametrize(
    ("answer", "after", "external"),
    [
        (Placed.ACCEPTED, S.ACCEPTED, E.SENT),
        (Placed.COMPLETED, S.COMPLETED, E.COMPLETED),
        (PlacedAnswer(Placed.REJECTED, reason=Refusal.FUNDS), S.UNKNOWN, E.UNKNOWN),
        (Placed.NOT_SENT, S.UNKNOWN, E.UNKNOWN),
        (Placed.AMBIGUOUS, S.UNKNOWN, E.UNKNOWN),
    ],
)
def test_a_late_answer_is_evidence_and_only_a_success_moves_the_attempt(
    answer: PlacedAnswer | Placed, after: AttemptState, external: ExternalStatus
) -> None:
    made = routing()
    state = placed(lease_lost(made), made, answer, now=later(50))
    assert (row(state).state, state.order.external_status, len(state.attempts)) == (after, external, 1)
    assert "late" in row(state).evidence


def test_a_late_success_after_the_order_went_elsewhere_raises_attention() -> None:
    made = routing()
    state = absent(lease_lost(made), made)
    state = placed(state, made, Placed.ACCEPTED, 1, later(500))
    assert row(state, 1).state is S.NOT_SENT and codes(state) == [AttentionCode.REVERSAL]


def test_the_same_late_answer_is_written_once() -> None:
    made = routing()
    state = placed(lease_lost(made), made, Placed.AMBIGUOUS, now=later(50))
    assert (
        placement.on_placement_answer(state, 1, "me-1", PlacedAnswer(Placed.AMBIGUOUS), made, SCHEDULE, later(60))
        is None
    )


def test_putting_off_never_touches_a_lease_and_never_changes_the_number() -> None:
    made = routing()
    assert placement.defer(at(made, S.SENDING), 1, made, NOW, 5.0, "full") is None
    state = opened(made)
    after = kept(state, placement.defer(state, 1, made, later(3), 5.0, "full"))
    assert (row(after).check_number, row(after).next_check_at) == (row(state).check_number, later(8))
    assert not after.order.raised


def test_an_attempt_whose_integration_is_switched_off_waits_and_tells_a_person_once() -> None:
    made = routing()
    off = "integration one is switched off"
    state = opened(made)
    for second in (0, 5, 10):
        state = kept(
            state, placement.defer(state, 1, made, later(second), 5.0, off, AttentionCode.INTEGRATION_DISABLED)
        )
    assert [raised.code for raised in state.order.raised] == [AttentionCode.INTEGRATION_DISABLED]


# -- lines ----------------------------------------------------------------------------------------------------------


def lines(made: Routing, *answers: PlacedAnswer | Placed) -> OrderState:
    state = opened(made, len(answers))
    for number, answer in enumerate(answers, 1):
        state = placed(sending(state, made, number), made, answer, number)
    return state


@pytest.mark.parametrize(
    ("answers", "external", "waiting"),
    [
        ((Placed.COMPLETED, Placed.COMPLETED), E.COMPLETED, None),
        ((Placed.COMPLETED, Placed.ACCEPTED), E.PROCESSING, None),
        ((Placed.ACCEPTED, Placed.AMBIGUOUS), E.UNKNOWN, None),
        ((Placed.REFUSED_AFTER_ACCEPT, Placed.REFUSED_AFTER_ACCEPT), E.FAILED, None),
        ((Placed.COMPLETED, Placed.REFUSED_AFTER_ACCEPT), E.PROCESSING, AttentionCode.PARTLY_DELIVERED),
        ((Placed.REFUSED_AFTER_ACCEPT, Placed.COMPLETED), E.PROCESSING, AttentionCode.PARTLY_DELIVERED),
        ((Placed.REFUSED_AFTER_ACCEPT, Placed.ACCEPTED), E.SENT, None),
    ],
)
def test_an_order_of_several_lines_ends_when_all_its_lines_did(
    answers: tuple[Placed, ...], external: ExternalStatus, waiting: str | None
) -> None:
    state = lines(routing(), *answers)
    assert (state.order.external_status, state.order.waiting) == (external, waiting)


def test_one_refused_line_falls_back_alone() -> None:
    made = routing()
    state = lines(made, Placed.ACCEPTED, PlacedAnswer(Placed.REJECTED, reason=Refusal.FUNDS))
    assert [(a.line, a.integration_id, a.state) for a in state.attempts] == [
        (1, "one", S.ACCEPTED),
        (2, "one", S.REJECTED),
        (2, "two", S.INTENT),
    ]


def test_a_line_that_waits_is_not_forgotten_when_another_one_goes_on() -> None:
    made = routing(fallback=None)
    state = lines(made, Placed.ACCEPTED, Placed.ACCEPTED)
    gone = routing(primary=None, mode="manual", fallback=None)
    state = sending(opened(made, 2), made, 1)
    state = placed(state, gone, Placed.NOT_SENT, 1)
    assert state.order.waiting == AttentionCode.MANUAL_ROUTE
    state = placed(sending(state, made, 2), made, Placed.NOT_SENT, 2)  # the route is back: line 2 goes on
    assert row(state, 3).line == 2 and state.order.waiting == AttentionCode.MANUAL_ROUTE
    line_1 = made.following(state.order, row(state, 1), skip=frozenset())
    assert not isinstance(line_1, Waiting)
    assert kept(state, placement.reroute(state, made, line_1, NOW)).order.waiting is None


# -- the deadline ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [S.ACCEPTED, S.UNKNOWN])
def test_past_its_deadline_an_order_keeps_its_money_and_waits_for_a_person(where: AttemptState) -> None:
    made = routing()
    state = expired(at(made, where), made)
    assert (state.order.external_status, state.order.status) == (E.EXPIRED, Status.PENDING)
    assert (row(state).state, delay(state)) == (where, None) and AttentionCode.EXPIRED in codes(state)
    assert deadlines.expired(state, made, NOW, fail=False, actor="sweep") is None


@pytest.mark.parametrize(
    ("answer", "external"), [(Seen.SUCCEEDED, E.COMPLETED), (Seen.FAILED, E.FAILED), (Seen.PENDING, E.EXPIRED)]
)
def test_evidence_settles_an_expired_order(answer: Seen, external: ExternalStatus) -> None:
    made = routing()
    state = seen(expired(at(made, S.ACCEPTED), made), made, answer)
    assert state.order.external_status is external
    assert external is not E.EXPIRED or delay(state) is None


@pytest.mark.parametrize("answer", [Placed.NOT_SENT, Placed.RETRY_LATER, Placed.ACCEPTED, Placed.AMBIGUOUS])
def test_an_answer_after_the_deadline_starts_nothing_new(answer: Placed) -> None:
    made = routing()
    state = placed(expired(at(made, S.SENDING), made), made, answer)
    assert len(state.attempts) == 1 and delay(state) is None and state.order.external_status is E.EXPIRED
    assert not any(outbound_events.due_intent(a, NOW) for a in state.attempts)
    assert placement.start_sending(state, 1, made, NOW, placement.Lease("other", 35.0)) is None


def test_absence_after_the_deadline_waits_for_a_person() -> None:
    made = routing(REPEATABLE)
    state = absent(expired(at(made, S.UNKNOWN), made), made)
    assert row(state).state is S.NOT_SENT and len(state.attempts) == 1
    assert (state.order.external_status, state.order.waiting) == (E.EXPIRED, AttentionCode.EXPIRED)


def test_an_intent_past_the_deadline_is_never_sent() -> None:
    made = routing()
    state = expired(opened(made), made)
    assert row(state).state is S.NOT_SENT and state.order.external_status is E.EXPIRED
    assert state.order.waiting == AttentionCode.EXPIRED


def test_a_refused_line_does_not_fail_an_order_whose_other_line_was_never_sent() -> None:
    made = routing()
    state = placed(sending(opened(made, 2), made, 2), made, Placed.ACCEPTED, 2)
    state = seen(expired(state, made), made, Seen.FAILED, 2)
    assert state.order.external_status is E.EXPIRED


def test_configured_to_fail_an_order_ends_at_its_deadline_and_a_late_delivery_is_told() -> None:
    made = routing()
    state = expired(at(made, S.ACCEPTED), made, fail=True)
    assert (state.order.external_status, state.order.status) == (E.FAILED, Status.REJECTED)
    assert delay(state) == WATCH
    state = seen(state, made, Seen.SUCCEEDED, now=later(WATCH))
    assert state.order.external_status is E.FAILED and codes(state) == [AttentionCode.REVERSAL]


@pytest.mark.parametrize("answer", [Placed.NOT_SENT, PlacedAnswer(Placed.REJECTED, reason=Refusal.FUNDS)])
def test_an_order_that_failed_at_its_deadline_starts_no_other_attempt(answer: PlacedAnswer | Placed) -> None:
    made = routing()
    state = placed(expired(at(made, S.SENDING), made, fail=True), made, answer)
    assert len(state.attempts) == 1 and state.order.external_status is E.FAILED


def test_what_a_failed_order_left_open_is_asked_about_no_longer_than_the_watch() -> None:
    made = routing()
    state = expired(at(made, S.ACCEPTED), made, fail=True)
    for hour in range(1, 8):
        if row(state).next_check_at is not None:
            state = seen(state, made, Seen.PENDING, now=later(hour * WATCH))
    assert delay(state) is None


# -- attention and people -------------------------------------------------------------------------------------------


def test_a_threshold_is_told_once() -> None:
    made = routing()
    state = kept(at(made, S.ACCEPTED), deadlines.long_pending(at(made, S.ACCEPTED), made, later(300), 300.0))
    state = kept(state, deadlines.long_pending(state, made, later(301), 300.0))
    state = kept(state, deadlines.long_pending(state, made, later(900), 900.0))
    assert [(r.code, r.discriminator) for r in state.order.raised] == [
        (AttentionCode.LONG_PENDING, "300s"),
        (AttentionCode.LONG_PENDING, "900s"),
    ]


def test_an_integration_that_left_the_configuration_loses_no_answer() -> None:
    made = routing()
    gone = Routing(config(primary="two", fallback=None), {"two": account("two")})
    for answer in (
        Placed.ACCEPTED,
        Placed.AMBIGUOUS,
        Placed.NOT_SENT,
        PlacedAnswer(Placed.REJECTED, reason=Refusal.FUNDS),
    ):
        assert row(placed(at(made, S.SENDING), gone, answer)).state is not S.SENDING
    assert row(seen(at(made, S.UNKNOWN), gone, Seen.NOT_FOUND, now=later(99))).state is S.UNKNOWN


def test_a_retry_is_not_reported_as_an_unknown_outcome() -> None:
    made = routing()
    state = placed(at(made, S.SENDING), made, Placed.RETRY_LATER)
    state = sending(state, made, now=later(10))
    assert state.order.external_status is E.NOT_SENT and state.order.version == 0


def test_deciding_never_changes_the_state_it_was_given() -> None:
    made = routing()
    state = at(made, S.SENDING)
    before = repr(state)
    placed(state, made, PlacedAnswer(Placed.REJECTED, reason=Refusal.FUNDS))
    expired(state, made)
    assert repr(state) == before
