"""Every way an order can wait, and the one screen that says so."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agents.diagnosis.explain import ENGINE, NOBODY, OPERATOR, PROVIDER, SHOP, explain
from db.reads.queries import Snapshot
from db.rows import Attempt, Order, Raised
from streams.order import AttemptState, AttentionCode, ExternalStatus, Status

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
S = AttemptState


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def soon(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def order(**fields: Any) -> Order:
    made: dict[str, Any] = {
        "tenant_id": "demo",
        "order_id": "o-1",
        "fingerprint": "f",
        "request": {"package_id": "pubg-60"},
        "accepted_at": ago(120),
        "deadline_at": soon(86_000),
        "lines": 1,
        "version": 1,
    }
    return Order(**{**made, **fields})


def finished(external: ExternalStatus, status: Status, **fields: Any) -> Order:
    return order(external_status=external, status=status, finished_at=ago(10), **{"version": 3, **fields})


def attempt(state: AttemptState, number: int = 1, **fields: Any) -> Attempt:
    made: dict[str, Any] = {
        "integration_id": "znet-main",
        "provider": "znet",
        "reference": f"700000000000000{number}",
        "wire": {},
        "created_at": ago(100),
    }
    return Attempt(attempt=number, state=state, **{**made, **fields})


def state(head: Order | None, *attempts: Attempt, **fields: Any) -> Snapshot:
    made: dict[str, Any] = {
        "view": {"version": head.version} if head else None,
        "events": [],
        "attention": [],
        "dead_letters": [],
    }
    return Snapshot(tenant_id="demo", order_id="o-1", now=NOW, order=head, attempts=attempts, **{**made, **fields})


def waiting(code: AttentionCode, message: str = "", **fields: Any) -> Order:
    raised = [Raised(code=code.value, message=message, since=ago(50))]
    return order(waiting=code.value, waiting_since=ago(50), raised=raised, lines=0, **fields)


def letter(**fields: Any) -> dict[str, Any]:
    made = {
        "id": 7,
        "reason": "malformed",
        "error": "quantity: Expected `int`",
        "topic": "orders.created",
        "at": ago(40),
        "replayed_at": None,
        "replayed_by": None,
    }
    return {**made, **fields}


SENT = {"sends": 1, "sent_at": ago(90)}

#: what is the case; the state; words of the headline; words of what happens next; who must act; when
TABLE = {
    "no route": (state(waiting(AttentionCode.NO_ROUTING)), "no route is configured", "add a route", OPERATOR, None),
    "a manual route": (
        state(waiting(AttentionCode.MANUAL_ROUTE)),
        "route is manual",
        "deliver it by hand",
        OPERATOR,
        None,
    ),
    "no mapping": (state(waiting(AttentionCode.NO_MAPPING)), "no mapping", "add a mapping", OPERATOR, None),
    "a disabled integration, tried again by itself": (
        state(waiting(AttentionCode.INTEGRATION_DISABLED, next_check_at=soon(30))),
        "switched off",
        "tries again by itself",
        OPERATOR,
        soon(30),
    ),
    "an invalid order says which field": (
        state(waiting(AttentionCode.INVALID_ORDER, "playerId: the order has no 'user_identifier'")),
        "playerId: the order has no 'user_identifier'",
        "correct the mapping",
        OPERATOR,
        None,
    ),
    "partly delivered": (
        state(waiting(AttentionCode.PARTLY_DELIVERED), attempt(S.COMPLETED), attempt(S.FAILED, 2, line=2)),
        "some units were delivered",
        "decide with the shop",
        OPERATOR,
        None,
    ),
    "an unheard-of code": (
        state(order(waiting="new_code", waiting_since=ago(5))),
        "new_code",
        "attention list",
        OPERATOR,
        None,
    ),
    "accepted, not dispatched": (
        state(order(lines=0)),
        "waiting for its first dispatch",
        "dispatch reads its event",
        ENGINE,
        None,
    ),
    "an intent on its way": (
        state(order(), attempt(S.INTENT)),
        "nothing was sent",
        "is sent to znet-main",
        ENGINE,
        None,
    ),
    "an intent of the next round": (
        state(order(), attempt(S.NOT_SENT), attempt(S.INTENT, 2, next_check_at=soon(30))),
        "Attempt 2 at znet-main waits for its time",
        "is sent to znet-main",
        ENGINE,
        soon(30),
    ),
    "an intent that waits for its lane": (
        state(order(), attempt(S.INTENT, next_check_at=soon(5), evidence={"lane": "breaker open"})),
        "until znet-main may be called (breaker open)",
        "is sent to znet-main",
        ENGINE,
        soon(5),
    ),
    "an intent the provider asked to repeat later": (
        state(order(), attempt(S.INTENT, next_check_at=soon(5), message="sistem yogun", **SENT)),
        "same reference later (sistem yogun)",
        "is sent to znet-main",
        ENGINE,
        soon(5),
    ),
    "sending under a lease": (
        state(order(), attempt(S.SENDING, lease_token="x", lease_until=soon(20), **SENT)),
        "may be on the wire",
        "end of the lease",
        PROVIDER,
        soon(20),
    ),
    "sending beyond its lease": (
        state(order(), attempt(S.SENDING, lease_token="x", lease_until=ago(20), next_check_at=ago(20), **SENT)),
        "did not come back within its lease",
        "marks it unknown",
        ENGINE,
        ago(20),
    ),
    "accepted": (
        state(order(), attempt(S.ACCEPTED, next_check_at=soon(25), check_number=2, **SENT)),
        "accepted it and works on it",
        "check 2 asks",
        PROVIDER,
        soon(25),
    ),
    "accepted, its check overdue": (
        state(order(), attempt(S.ACCEPTED, next_check_at=ago(600), check_number=2, **SENT)),
        "works on it",
        "overdue by 10 min",
        PROVIDER,
        ago(600),
    ),
    "accepted, nothing planned": (
        state(order(), attempt(S.ACCEPTED, **SENT)),
        "no check is planned",
        "order check",
        OPERATOR,
        None,
    ),
    "done without its PIN": (
        state(order(), attempt(S.ACCEPTED, next_check_at=soon(60), evidence={"pin_missing": True}, **SENT)),
        "gave no PIN",
        "asked again for the PIN",
        OPERATOR,
        soon(60),
    ),
    "done without its PIN, as a flag of the answer": (
        state(order(), attempt(S.ACCEPTED, next_check_at=soon(60), evidence={"last": {"flags": ["pin_missing"]}})),
        "gave no PIN",
        "asked again for the PIN",
        OPERATOR,
        soon(60),
    ),
    "unknown": (
        state(
            order(),
            attempt(S.UNKNOWN, next_check_at=soon(45), check_number=3, absent_answers=2, **SENT),
            absent_needed={"znet-main": 5},
        ),
        "2 of 5 consistent answers",
        "look-up 3 by reference 7000000000000001",
        ENGINE,
        soon(45),
    ),
    "unknown, and the number of proofs is not known": (
        state(order(), attempt(S.UNKNOWN, next_check_at=soon(45), absent_answers=2, **SENT)),
        ". 2 consistent answers",
        "look-up",
        ENGINE,
        soon(45),
    ),
    "unknown, absent, and safe to repeat": (
        state(order(), attempt(S.UNKNOWN, next_check_at=soon(1), evidence={"repeat": True}, **SENT)),
        "not known whether",
        "same reference is sent again",
        ENGINE,
        soon(1),
    ),
    "unknown without a way to look it up": (
        state(order(), attempt(S.UNKNOWN, **SENT)),
        "not known whether",
        "order resolve demo o-1 --attempt 1",
        OPERATOR,
        None,
    ),
    "unknown beats accepted": (
        state(order(lines=2), attempt(S.ACCEPTED, next_check_at=soon(5)), attempt(S.UNKNOWN, 2, line=2)),
        "line 2: It is not known",
        "person asks",
        OPERATOR,
        None,
    ),
    "some lines done": (
        state(
            order(lines=3),
            attempt(S.COMPLETED),
            attempt(S.COMPLETED, 2, line=2),
            attempt(S.ACCEPTED, 3, line=3, next_check_at=soon(9)),
        ),
        "2 of 3 lines done; line 3",
        "asks for its status",
        PROVIDER,
        soon(9),
    ),
    "an attempt ended, the next one is due": (
        state(order(next_check_at=soon(30)), attempt(S.NOT_SENT, message="connection refused", settled_at=ago(5))),
        "ended not sent (connection refused)",
        "dispatch decides again",
        ENGINE,
        soon(30),
    ),
    "expired": (
        state(order(external_status=ExternalStatus.EXPIRED, deadline_at=ago(60)), attempt(S.UNKNOWN, **SENT)),
        "deadline has passed",
        "order check demo o-1",
        OPERATOR,
        None,
    ),
    "completed": (
        state(finished(ExternalStatus.COMPLETED, Status.APPROVED), attempt(S.COMPLETED, pins=["sealed"], **SENT)),
        "Completed by znet-main under reference 7000000000000001",
        "PINs can be released: 1",
        NOBODY,
        None,
    ),
    "completed by a person": (
        state(
            finished(
                ExternalStatus.COMPLETED,
                Status.APPROVED,
                lines=0,
                last_event={"reason": "operator", "message": "by hand"},
            )
        ),
        "Completed by the word of a person (by hand)",
        "nothing",
        NOBODY,
        None,
    ),
    "completed, not projected yet": (
        state(finished(ExternalStatus.COMPLETED, Status.APPROVED), attempt(S.COMPLETED), view={"version": 2}),
        "version 2 of 3",
        "projection reads",
        ENGINE,
        None,
    ),
    "completed, never projected": (
        state(finished(ExternalStatus.COMPLETED, Status.APPROVED), attempt(S.COMPLETED), view=None),
        "version 0 of 3",
        "projection reads",
        ENGINE,
        None,
    ),
    "completed, and then denied": (
        state(
            finished(ExternalStatus.COMPLETED, Status.APPROVED),
            attempt(S.COMPLETED),
            attention=[{"code": "reversal", "since": ago(3), "message": "m", "acknowledged_at": None}],
        ),
        "the provider says otherwise",
        "compares both answers",
        OPERATOR,
        None,
    ),
    "refused": (
        state(finished(ExternalStatus.FAILED, Status.REJECTED), attempt(S.REJECTED, message="Yetersiz stok")),
        "Failed: Yetersiz stok",
        "gives the money back",
        SHOP,
        None,
    ),
    "unheard of": (state(None), "No order o-1 of tenant demo", "Check the spelling", SHOP, None),
    "only in the dead letters": (
        state(None, dead_letters=[letter()]),
        "Never accepted",
        "orderwatch dlq replay 7",
        OPERATOR,
        None,
    ),
    "only in the dead letters, replayed": (
        state(None, dead_letters=[letter(replayed_at=ago(4), replayed_by="ayse")]),
        "sent again",
        "dispatch reads it",
        ENGINE,
        None,
    ),
}


@pytest.mark.parametrize("case", TABLE, ids=str)
def test_an_order_says_what_it_waits_for(case: str) -> None:
    snapshot, headline, then, actor, when = TABLE[case]

    said = explain(snapshot, NOW)

    assert headline in said.headline
    assert then in said.next
    assert said.actor == actor
    assert said.when == when
    assert said.known is (snapshot.order is not None or bool(snapshot.dead_letters))
    assert said.since is None or said.since <= NOW


def test_every_open_order_says_since_when() -> None:
    for case, (snapshot, *_) in TABLE.items():
        if snapshot.order is not None:
            assert explain(snapshot, NOW).since is not None, case


def test_every_attention_code_an_order_can_wait_with_has_words_of_its_own() -> None:
    of_an_order = {
        AttentionCode.NO_ROUTING,
        AttentionCode.MANUAL_ROUTE,
        AttentionCode.NO_MAPPING,
        AttentionCode.INTEGRATION_DISABLED,
        AttentionCode.INVALID_ORDER,
        AttentionCode.PARTLY_DELIVERED,
    }
    for code in of_an_order:
        assert "waits with code" not in explain(state(waiting(code)), NOW).headline


def test_the_evidence_names_attempts_answers_attention_and_the_last_steps() -> None:
    row = attempt(
        S.UNKNOWN,
        next_check_at=soon(45),
        check_number=3,
        checks=2,
        external_order_id="E9",
        message="zaman asimi",
        evidence={"last": {"kind": "not_found", "raw": "3|yok"}},
        **SENT,
    )
    steps = [{"at": ago(60 - i), "actor": "check", "step": f"step{i}", "attempt": 1, "details": {}} for i in range(20)]
    attention = [
        {
            "code": "outcome_unknown",
            "since": ago(30),
            "message": "m",
            "acknowledged_at": ago(2),
            "acknowledged_by": "ayse",
        }
    ]

    text = "\n".join(explain(state(order(), row, events=steps, attention=attention), NOW).evidence)

    for words in (
        "attempt 1: unknown at znet-main (znet)",
        "reference 7000000000000001",
        "provider's id E9",
        "2 questions asked",
        "check 3 at 2026-03-01 12:00:45Z (in 45 s)",
        "zaman asimi",
        "kind=not_found raw=3|yok",
        "attention outcome_unknown",
        "acknowledged by ayse",
        "last 8 of 20 steps",
        "step19",
    ):
        assert words in text
    assert "step11" not in text


def test_the_words_do_not_depend_on_the_machine_of_the_reader() -> None:
    snapshot = state(order(), attempt(S.ACCEPTED, next_check_at=soon(25)))
    assert explain(snapshot, NOW) == explain(replace(snapshot, now=ago(1)), NOW)


@pytest.mark.parametrize(
    ("facts", "headline"),
    [
        ({"heard": ["log orders.referenced: attempt 1 at znet-main"]}, "the log does"),
        ({"dead_letters": [letter(reason="order_not_found")]}, "an event speaks of it"),
        ({"heard": ["log"], "dead_letters": [letter()]}, "the log does"),
    ],
)
def test_an_order_that_was_forgotten_is_never_called_never_accepted(facts: dict[str, Any], headline: str) -> None:
    said = explain(state(None, **facts), NOW)
    assert headline in said.headline and "accepted" not in said.headline
    assert "orderwatch db recover" in said.next and "do not replay" in said.next
    assert (said.actor, said.known) == (OPERATOR, True)
