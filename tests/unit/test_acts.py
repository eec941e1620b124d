"""What a person may do: a table per act, what is refused and why, and that the offer is the rule."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from agents.domain import operator_actions, placement
from agents.domain.routing import Routing, facts_of
from agents.providers.base import Placed, PlacedAnswer, Refusal, Seen
from db.rows import OrderState
from streams.events import Command
from streams.order import AttemptState, AttentionCode, CommandAction, ExternalStatus, Status
from tests.fakes import NOW, REPEATABLE, account, config, order, routing
from tests.unit.test_decide import at, codes, expired, kept, later, lines, opened, placed, row, seen, sending

S = AttemptState
E = ExternalStatus
A = CommandAction


def act(state: OrderState, made: Routing, action: CommandAction, *, now: Any = NOW, **words: Any) -> OrderState:
    """The order after an act that is accepted."""
    change = operator_actions.decided(state, said(action, now, **words), made, now)
    assert change.answer is not None and change.answer.done, change.answer
    return kept(state, change, now)


def refusal(state: OrderState, made: Routing, action: CommandAction, *, now: Any = NOW, **words: Any) -> str:
    """Why an act is refused; it leaves a row in the timeline and changes nothing."""
    change = operator_actions.decided(state, said(action, now, **words), made, now)
    assert change.answer is not None and not change.answer.done, change.answer
    assert change.order == state.order and not change.attempts
    [step] = change.steps
    assert (step.step, step.actor, step.details["reason"]) == ("refused", "operator:ayse", "phoned them")
    return change.answer.said


def said(action: CommandAction, now: Any, **words: Any) -> Command:
    return Command(
        command_id="c",
        tenant_id="t",
        order_id="o",
        action=action,
        reason="phoned them",
        by="ayse",
        issued_at=now,
        **words,
    )


def waiting(made: Routing) -> OrderState:
    """Nothing was bought, and no integration can take it now."""
    off = Routing(config(), {name: account(name, enabled=False) for name in ("one", "two")})
    state = placed(sending(opened(made), made), off, Placed.NOT_SENT)
    assert (row(state).state, state.order.waiting) == (S.NOT_SENT, AttentionCode.INTEGRATION_DISABLED)
    return state


def unrouted(**options: Any) -> tuple[OrderState, Routing]:
    made = routing(**options)
    new = order()
    return kept(OrderState(new, []), placement.open_order(new, made, made.first(facts_of(new)), NOW)), made


# -- check ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [S.INTENT, S.SENDING, S.ACCEPTED, S.UNKNOWN])
def test_what_is_live_is_asked_about_under_its_number(where: AttemptState) -> None:
    made = routing()
    state = opened(made) if where is S.INTENT else at(made, where)
    change = operator_actions.decided(state, said(A.CHECK, NOW), made, NOW)
    assert change.answer is not None and change.answer.asked == [(1, row(state).check_number)]
    assert (change.order, change.attempts, [s.step for s in change.steps]) == (state.order, [], ["asked"])


@pytest.mark.parametrize("action", [A.CHECK, A.PLACE_AGAIN, A.SEND_TO, A.CANCEL])
def test_attempt_0_is_the_whole_order(action: CommandAction) -> None:
    made = routing()
    state = opened(made) if action is A.CHECK else waiting(made)
    words = {"integration_id": "two"} if action is A.SEND_TO else {}
    whole, named = (
        operator_actions.decided(state, said(action, NOW, **words, **more), made, NOW) for more in ({}, {"attempt": 0})
    )
    assert (whole.answer, whole.order) == (named.answer, named.order)
    assert whole.answer is not None and whole.answer.done


def test_an_order_with_nothing_live_is_asked_for_its_route() -> None:
    state, made = unrouted(mode="manual", primary=None, fallback=None)
    change = operator_actions.decided(state, said(A.CHECK, NOW), made, NOW)
    assert change.answer is not None and change.answer.asked == [(0, state.order.check_number)]


def test_nothing_is_left_to_ask_at_the_end() -> None:
    made = routing()
    assert "completed" in refusal(at(made, S.COMPLETED), made, A.CHECK)
    assert "deadline" in refusal(expired(opened(made), made), made, A.CHECK)
    assert "attempt 1 is failed" in refusal(at(made, S.FAILED), made, A.CHECK, attempt=1)
    assert "no attempt 7" in refusal(at(made, S.ACCEPTED), made, A.CHECK, attempt=7)


def test_after_the_deadline_a_person_still_asks_about_what_is_live() -> None:
    made = routing()
    state = expired(at(made, S.ACCEPTED), made)
    change = operator_actions.decided(state, said(A.CHECK, NOW), made, NOW)
    assert change.answer is not None and change.answer.asked == [(1, row(state).check_number)]


# -- resolve --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "external", "attempts"),
    [("completed", E.COMPLETED, 1), ("failed", E.FAILED, 1), ("accepted", E.SENT, 1), ("not_sent", E.NOT_SENT, 2)],
)
def test_a_person_may_resolve_an_unknown_attempt(outcome: str, external: ExternalStatus, attempts: int) -> None:
    made = routing()
    state = act(at(made, S.UNKNOWN), made, A.RESOLVE, attempt=1, outcome=outcome, evidence="ticket 5")
    assert (state.order.external_status, len(state.attempts)) == (external, attempts)
    assert row(state).evidence["resolved"]["evidence"] == "ticket 5"


@pytest.mark.parametrize("where", [S.INTENT, S.SENDING, S.COMPLETED, S.FAILED])
def test_a_person_may_not_resolve_what_is_not_open(where: AttemptState) -> None:
    made = routing()
    state = opened(made) if where is S.INTENT else at(made, where)
    assert f"attempt 1 is {where}" in refusal(state, made, A.RESOLVE, attempt=1, outcome="not_sent")


def test_what_was_said_before_the_last_send_is_not_believed() -> None:
    made = routing(REPEATABLE)
    state = at(made, S.UNKNOWN)
    asks = msgspec.structs.replace(row(state), evidence={"repeat": True})
    again = placement.start_sending(OrderState(state.order, [asks]), 1, made, later(60), placement.Lease("me-2", 35.0))
    state = kept(state, again, later(60))
    state = placed(state, made, Placed.AMBIGUOUS, token="me-2", now=later(61))
    words = {"attempt": 1, "outcome": "not_sent"}
    change = operator_actions.decided(state, said(A.RESOLVE, later(30), **words), made, later(90))
    assert change.answer is not None and "sent again after this was said" in change.answer.said
    assert act(state, made, A.RESOLVE, now=later(90), **words).attempts[-1].attempt == 2


def test_a_person_may_not_end_an_order_over_a_live_attempt() -> None:
    made = routing()
    for where in (S.SENDING, S.UNKNOWN, S.ACCEPTED):
        why = refusal(at(made, where), made, A.RESOLVE, attempt=0, outcome="failed")
        assert "resolve that attempt first" in why


def test_a_person_ends_a_partly_delivered_order_and_its_pins_are_told() -> None:
    made = routing(delivers_pin=True)
    state = lines(made, PlacedAnswer(Placed.COMPLETED, pins=("sealed",)), Placed.REFUSED_AFTER_ACCEPT)
    state = act(state, made, A.RESOLVE, attempt=0, outcome="completed")
    assert state.order.external_status is E.COMPLETED and (state.order.last_event or {})["pins"] == ["sealed"]


# -- place again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "why"),
    [
        (S.INTENT, "on its way"),
        (S.SENDING, "being sent"),
        (S.UNKNOWN, "not known whether attempt 1 at one was bought"),
        (S.ACCEPTED, "works on it"),
        (S.COMPLETED, "the order is completed"),
        (S.FAILED, "the buyer's money goes back"),
    ],
)
def test_only_what_is_proven_dead_is_placed_again(where: AttemptState, why: str) -> None:
    made = routing()
    state = opened(made) if where is S.INTENT else at(made, where)
    assert why in refusal(state, made, A.PLACE_AGAIN)


def test_a_dead_attempt_is_followed_by_another_under_its_own_reference() -> None:
    made = routing()
    state = act(waiting(made), made, A.PLACE_AGAIN)
    assert [(r.state, r.integration_id) for r in state.attempts] == [(S.NOT_SENT, "one"), (S.INTENT, "one")]
    assert (state.order.waiting, row(state, 2).reference) == (None, "one-t-o-2")
    assert state.order.external_status is E.NOT_SENT


def test_what_cannot_be_routed_is_not_placed_again() -> None:
    made = routing()
    off = Routing(config(), {name: account(name, enabled=False) for name in ("one", "two")})
    assert "one is switched off" in refusal(waiting(made), off, A.PLACE_AGAIN)
    state, manual = unrouted(mode="manual", primary=None, fallback=None)
    assert "no attempt was made yet" in refusal(state, manual, A.PLACE_AGAIN)


def test_only_the_refused_unit_of_a_partly_delivered_order_is_placed_again() -> None:
    made = routing()
    state = lines(made, Placed.COMPLETED, Placed.REFUSED_AFTER_ACCEPT)
    assert state.order.waiting == AttentionCode.PARTLY_DELIVERED
    state = act(state, made, A.PLACE_AGAIN)
    assert [(r.line, r.state) for r in state.attempts] == [(1, S.COMPLETED), (2, S.FAILED), (2, S.INTENT)]
    assert (state.order.external_status, state.order.waiting) == (E.PROCESSING, None)
    state = placed(sending(state, made, 3), made, Placed.COMPLETED, 3)
    assert state.order.external_status is E.COMPLETED


def test_an_attempt_that_is_named_must_still_be_the_newest() -> None:
    made = routing()
    state = act(waiting(made), made, A.PLACE_AGAIN, attempt=1)
    assert "not the newest" in refusal(state, made, A.PLACE_AGAIN, attempt=1)


@pytest.mark.parametrize("action", [A.PLACE_AGAIN, A.SEND_TO, A.CANCEL])
def test_a_proof_that_was_contradicted_since_is_none(action: CommandAction) -> None:
    made = routing()
    state = at(made, S.UNKNOWN)
    off = Routing(config(), {name: account(name, enabled=False) for name in ("one", "two")})
    for seconds in (400, 800, 1200, 1600):
        if row(state).state is S.UNKNOWN:
            state = seen(state, off, Seen.NOT_FOUND, now=later(seconds))
    assert row(state).state is S.NOT_SENT
    state = seen(state, made, Seen.SUCCEEDED, now=later(2000))
    assert AttentionCode.REVERSAL in codes(state)
    assert "said otherwise" in refusal(state, made, action, integration_id="two" if action is A.SEND_TO else None)


def test_an_expired_order_gets_a_new_deadline_with_its_new_attempt() -> None:
    made = routing()
    state = expired(opened(made), made, now=later(90_000))
    assert (state.order.external_status, row(state).state) == (E.EXPIRED, S.NOT_SENT)
    now = later(100_000)
    state = act(state, made, A.PLACE_AGAIN, now=now)
    assert (state.order.external_status, state.order.status) == (E.NOT_SENT, Status.PENDING)
    assert state.order.deadline_at == now + timedelta(days=1)
    assert (state.order.last_event or {})["previous_external_status"] == "expired"
    state = placed(sending(state, made, 2, now), made, Placed.COMPLETED, 2, now)
    assert state.order.external_status is E.COMPLETED


def test_a_second_deadline_is_told_again() -> None:
    made = routing()
    state = act(expired(opened(made), made), made, A.PLACE_AGAIN)
    state = expired(state, made, now=later(200_000))
    assert codes(state).count(AttentionCode.EXPIRED) == 2


def test_what_else_was_open_at_the_deadline_is_asked_about_again() -> None:
    made = routing()
    state = lines(made, Placed.ACCEPTED, Placed.REFUSED_AFTER_ACCEPT)
    state = expired(state, made)
    assert row(state, 1).next_check_at is None
    state = act(state, made, A.PLACE_AGAIN)
    assert (row(state, 1).next_check_at, state.order.external_status) == (NOW, E.SENT)


# -- send to another integration ------------------------------------------------------------------------------------


def test_what_was_not_sent_yet_goes_to_the_integration_that_was_named() -> None:
    made = routing()
    state = act(opened(made), made, A.SEND_TO, integration_id="two")
    assert [(r.state, r.integration_id) for r in state.attempts] == [(S.NOT_SENT, "one"), (S.INTENT, "two")]
    assert state.order.version == 0


def test_an_order_without_a_route_goes_to_the_integration_that_was_named() -> None:
    state, made = unrouted(mode="manual", primary=None, fallback=None)
    state = act(state, made, A.SEND_TO, integration_id="two")
    assert [(r.attempt, r.integration_id) for r in state.attempts] == [(1, "two")]
    assert (state.order.waiting, state.order.lines) == (None, 1)


@pytest.mark.parametrize(
    ("integration", "why"),
    [("one", "on its way there already"), ("gone", "gone is not configured"), (None, "say which integration")],
)
def test_an_integration_that_cannot_take_it_is_refused(integration: str | None, why: str) -> None:
    made = routing()
    assert why in refusal(opened(made), made, A.SEND_TO, integration_id=integration)


def test_an_integration_without_a_mapping_or_switched_off_is_refused() -> None:
    made = routing(mapped=("one",))
    assert "no mapping at two" in refusal(opened(made), made, A.SEND_TO, integration_id="two")
    off = Routing(config(), {"one": account("one"), "two": account("two", enabled=False)})
    assert "two is switched off" in refusal(opened(routing()), off, A.SEND_TO, integration_id="two")


@pytest.mark.parametrize("where", [S.SENDING, S.UNKNOWN, S.ACCEPTED, S.COMPLETED, S.FAILED])
def test_what_may_have_been_bought_goes_nowhere_else(where: AttemptState) -> None:
    made = routing()
    refusal(at(made, where), made, A.SEND_TO, integration_id="two")


# -- cancel ---------------------------------------------------------------------------------------------------------


def test_an_order_of_which_nothing_was_sent_fails_by_the_word_of_a_person() -> None:
    made = routing()
    unsent = (
        opened(made),
        waiting(made),
        unrouted(mode="manual", primary=None, fallback=None)[0],
        expired(opened(made), made),
        opened(made, 3),
    )
    for state in unsent:
        ended = act(state, made, A.CANCEL)
        assert (ended.order.external_status, ended.order.status) == (E.FAILED, Status.REJECTED)
        assert (ended.order.last_event or {})["reason"] == "operator"
        assert ended.order.waiting is None and not any(r.live for r in ended.attempts)


@pytest.mark.parametrize("where", [S.SENDING, S.UNKNOWN, S.ACCEPTED, S.COMPLETED, S.FAILED])
def test_what_was_sent_is_not_cancelled(where: AttemptState) -> None:
    made = routing()
    refusal(at(made, where), made, A.CANCEL)
    assert "delivered" in refusal(lines(made, Placed.COMPLETED, Placed.REFUSED_AFTER_ACCEPT), made, A.CANCEL)


# -- offers ---------------------------------------------------------------------------------------------------------


def offered(state: OrderState, made: Routing) -> dict[str, Any]:
    return {
        f"{offer.action}" + (f" {offer.attempt}" if offer.attempt is not None else ""): offer.outcomes
        or offer.integrations
        for offer in operator_actions.offers(state, made, NOW)
    }


def test_what_is_offered_depends_on_where_the_order_stands() -> None:
    made = routing()
    ended = ("completed", "failed")
    assert offered(opened(made), made) == {"check": (), "resolve 0": ended, "send_to": ("two",), "cancel": ()}
    assert offered(at(made, S.SENDING), made) == {"check": ()}
    assert offered(at(made, S.ACCEPTED), made) == {"check": (), "resolve 1": ended}
    assert offered(at(made, S.UNKNOWN), made) == {
        "check": (),
        "resolve 1": ("completed", "failed", "accepted", "not_sent"),
    }
    assert offered(waiting(made), made) == {
        "check": (),
        "resolve 0": ended,
        "place_again": (),
        "send_to": ("one", "two"),
        "cancel": (),
    }
    for where in (S.COMPLETED, S.FAILED):
        assert offered(at(made, where), made) == {}


def test_a_refusal_for_funds_without_another_integration_is_the_end() -> None:
    made = routing(fallback=None)
    state = placed(at(made, S.SENDING), made, PlacedAnswer(Placed.REJECTED, reason=Refusal.FUNDS))
    assert (state.order.external_status, offered(state, made)) == (E.FAILED, {})
