"""What a ledger that went back learns from the log: every attempt that may have been sent is looked up first."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agents.domain import outbound_events, placement, status_answers
from agents.domain.recovery import Facts, reconciled, unopened, without_created
from agents.domain.routing import facts_of
from agents.providers.base import Placed, PlacedAnswer, Seen, StatusAnswer
from db.rows import OrderState
from streams.events import Created, Referenced, StatusChanged
from streams.order import AttemptState, AttentionCode, ExternalStatus
from tests.fakes import CAREFUL, NOW, REPEATABLE, SCHEDULE, order, routing

S = AttemptState
BLIND = replace(CAREFUL, look_up=False)


def created(quantity: int = 1) -> Created:
    return Created(
        order_id="o", tenant_id="t", package_id="p", user_identifier="player", created_at=NOW, quantity=quantity
    )


def referenced(attempt: int, at: str = "one") -> Referenced:
    return Referenced(
        order_id="o",
        tenant_id="t",
        attempt=attempt,
        integration_id=at,
        provider="fake",
        provider_referans=f"{at}-t-o-{attempt}",
        external_status="sent",
        sent_at=NOW,
    )


def status(external: str, version: int = 3, attempt: int | None = 1, **more: Any) -> StatusChanged:
    buyer = {"completed": "approved", "failed": "rejected"}.get(external, "pending")
    return StatusChanged(
        order_id="o",
        tenant_id="t",
        version=version,
        status=buyer,
        external_status=external,
        previous_external_status="sent",
        reason="provider",
        checks=1,
        occurred_at=NOW,
        attempt=attempt,
        **more,
    )


def learned(state: OrderState, facts: Facts, by: Any = None) -> OrderState:
    return outbound_events.after(state, reconciled(state, facts, by or routing(), NOW))


def forgotten(facts: Facts, by: Any = None) -> OrderState:
    assert facts.created is not None
    return learned(unopened(facts.created, NOW, 86400.0), facts, by)


def held(by: Any, *, sent: bool = False) -> OrderState:
    made = order()
    found = by.first(facts_of(made))
    state = outbound_events.after(OrderState(made, []), placement.open_order(made, by, found, NOW))
    if sent:
        lease = placement.Lease("l", 35.0)
        change = placement.start_sending(state, 1, by, NOW, lease)
        assert change is not None
        state = outbound_events.after(state, change)
    return state


def states(state: OrderState) -> list[tuple[int, str, str]]:
    return [(row.attempt, row.integration_id, row.state.value) for row in state.attempts]


FORGOTTEN = {
    "only created": (Facts(created()), [(1, "one", "unknown")]),
    "sent": (Facts(created(), referenced={1: referenced(1)}), [(1, "one", "unknown")]),
    "sent elsewhere": (Facts(created(), referenced={1: referenced(1, "two")}), [(1, "two", "unknown")]),
    "fell back": (
        Facts(created(), referenced={2: referenced(2, "two")}),
        [(1, "one", "not_sent"), (2, "two", "unknown")],
    ),
    "both sent": (
        Facts(created(), referenced={1: referenced(1), 2: referenced(2, "two")}),
        [(1, "one", "not_sent"), (2, "two", "unknown")],
    ),
    "three units": (
        Facts(created(3), referenced={2: referenced(2)}),
        [(1, "one", "unknown"), (2, "one", "unknown"), (3, "one", "unknown")],
    ),
    "completed": (Facts(created(), status("completed"), {1: referenced(1)}), [(1, "one", "completed")]),
    "refused": (Facts(created(), status("failed")), []),
    "failed after it was sent": (Facts(created(), status("failed"), {1: referenced(1)}), [(1, "one", "failed")]),
    "only a check": (Facts(created(), checks={1: 4}), [(1, "one", "unknown")]),
}


@pytest.mark.parametrize(("facts", "expected"), FORGOTTEN.values(), ids=FORGOTTEN)
def test_a_forgotten_order_is_opened_with_what_may_have_been_sent_as_unknown(facts: Facts, expected: Any) -> None:
    after = forgotten(facts)
    assert states(after) == expected
    assert not any(row.state is S.INTENT for row in after.attempts)
    assert all(row.next_check_at is not None for row in after.attempts if row.state is S.UNKNOWN)


@pytest.mark.parametrize("sent", [False, True], ids=["intent", "sending"])
def test_what_the_backup_holds_as_not_answered_is_looked_up(sent: bool) -> None:
    by = routing()
    after = learned(held(by, sent=sent), Facts(), by)
    [row] = after.attempts
    assert (row.state, row.lease_until, row.lease_token) == (S.UNKNOWN, None, None)
    assert after.order.external_status is ExternalStatus.UNKNOWN


def test_an_attempt_that_the_backup_holds_as_accepted_is_only_asked_about() -> None:
    by = routing()
    state = held(by, sent=True)
    answer = PlacedAnswer(Placed.ACCEPTED)
    change = placement.on_placement_answer(state, 1, "l", answer, by, SCHEDULE, NOW)
    assert change is not None
    state = outbound_events.after(state, change)
    assert states(learned(state, Facts(), by)) == [(1, "one", "accepted")]
    fell_back = learned(state, Facts(referenced={1: referenced(1), 2: referenced(2, "two")}), by)
    assert states(fell_back) == [(1, "one", "failed"), (2, "two", "unknown")]


def absent(state: OrderState, number: int, by: Any, at: Any) -> OrderState:
    for n in range(10):
        row = state.attempt(number)
        if row is None or row.state is not S.UNKNOWN:
            break
        later = at + timedelta(hours=n + 1)
        change = status_answers.on_status_answer(state, number, StatusAnswer(Seen.NOT_FOUND), by, SCHEDULE, later)
        assert change is not None
        state = outbound_events.after(state, change)
    return state


def test_both_integrations_are_looked_up_before_anything_is_sent_anew() -> None:
    by = routing()
    state = absent(forgotten(Facts(created())), 1, by, NOW)
    assert states(state) == [(1, "one", "not_sent"), (2, "two", "unknown")]
    state = absent(state, 2, by, NOW + timedelta(days=1))
    assert states(state)[2:] == [(3, "one", "intent")]


def test_a_later_attempt_of_an_open_order_is_looked_up_too() -> None:
    """The backup holds it as accepted; since then the provider failed it, and the fallback may have been bought."""
    by = routing()
    assert learned(held(by), Facts(), by).order.look_up_to >= 2


@pytest.mark.parametrize(("profile", "asked"), [(CAREFUL, False), (REPEATABLE, False), (BLIND, True)])
def test_a_person_is_asked_where_the_provider_cannot_be(profile: Any, asked: bool) -> None:
    by = routing(profile)
    after = forgotten(Facts(created()), by)
    assert (AttentionCode.OUTCOME_UNKNOWN in {raised.code for raised in after.order.raised}) is asked


def test_versions_go_on_above_what_the_log_has_seen() -> None:
    after = forgotten(Facts(created(), status("sent", version=7), {1: referenced(1)}))
    assert (after.order.version, after.order.external_status) == (8, ExternalStatus.UNKNOWN)
    final = forgotten(Facts(created(), status("completed", version=7, pins=["sealed"]), {1: referenced(1)}))
    assert (final.order.version, final.order.finished_at, final.attempts[0].pins) == (7, NOW, ["sealed"])


def test_reconciling_again_changes_no_state() -> None:
    facts = Facts(created(), status("sent"), {1: referenced(1)}, {1: 2})
    once = forgotten(facts)
    assert states(learned(once, facts)) == states(once)


def test_an_order_that_only_the_log_knows_names_its_references() -> None:
    said = without_created(Facts(None, status("sent"), {1: referenced(1)}))
    assert "one-t-o-1" in said and "sent" in said
