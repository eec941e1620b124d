"""What would become of a dead letter, judged on a real ledger; and what it may cost."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from agents.diagnosis import replay_preview
from agents.diagnosis.replay_preview import Verdict, judged
from agents.domain import dead_letters as sending
from agents.domain.routing import Routing
from db import models as m
from streams.errors import EventError
from streams.events import Created, decode
from tests.contract.ledger_rows import BORN, put, put_attempt, put_order, reading
from tests.fakes import CAREFUL, account, config

CREATED = {
    "order_id": "o-1",
    "tenant_id": "t",
    "package_id": "p",
    "user_identifier": "player-1",
    "created_at": "2026-01-01T12:00:00Z",
}
CHECK = {
    "order_id": "o-1",
    "tenant_id": "t",
    "attempt": 1,
    "check_number": 3,
    "reason": "backoff",
    "due_at": "2026-01-01T12:00:00Z",
}
COMMAND = {
    "command_id": "c-1",
    "order_id": "o-1",
    "tenant_id": "t",
    "action": "cancel",
    "reason": "r",
    "by": "ayse",
    "issued_at": "2026-01-01T12:00:00Z",
}


@pytest.fixture
def engine(database: str) -> Iterator[sa.Engine]:
    with reading(database) as made:
        yield made


def routing(**options: Any) -> Routing:
    made = config(**options).model_dump()
    made["mappings"] = [
        {**mapping, "cost": "12.50"} if mapping["integration"] == "one" else mapping for mapping in made["mappings"]
    ]
    made["integrations"] = [{**item, "currency": "TRY"} for item in made["integrations"]]
    made["database"] = {"url": "postgresql://nobody@127.0.0.1:1/none"}
    return Routing(type(config()).model_validate(made), {n: account(n, CAREFUL) for n in ("one", "two")})


def letter(number: int, value: Any, topic: str = "x.orders.created", **fields: Any) -> dict[str, Any]:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return {
        "id": number,
        "topic": topic,
        "value": data,
        "key": b"o-1",
        "headers": {"a": "b", "dlq.reason": "r"},
        "reason": "handler_failed",
        **fields,
    }


def one(engine: sa.Engine, *of: Any, made: Routing | None = None) -> Verdict:
    [verdict] = judged(engine, made or routing(), [letter(1, *of)], "x.")
    return verdict


def accepted(engine: sa.Engine, value: dict[str, Any], **fields: Any) -> None:
    event = decode(Created, json.dumps(value).encode())
    put_order(engine, event.order_id, event.tenant_id, fingerprint=event.fingerprint(), **fields)


def test_an_unknown_order_is_a_new_one_with_its_expected_cost(engine: sa.Engine) -> None:
    found = one(engine, {**CREATED, "quantity": 3})
    assert (found.word, found.integration_id, found.cost, found.currency) == ("new", "one", Decimal("37.50"), "TRY")
    assert "bought at one; expected cost 37.50 TRY" in found.says


@pytest.mark.parametrize("stored", [False, True])
def test_an_order_that_only_the_log_knows_is_not_sent(engine: sa.Engine, stored: bool) -> None:
    if stored:
        accepted(engine, CREATED)
    key = (CREATED["tenant_id"], CREATED["order_id"])
    asked: list[set[tuple[str, str]]] = []

    def heard(unknown: set[tuple[str, str]]) -> set[tuple[str, str]]:
        asked.append(unknown)
        return {key}

    [found] = judged(engine, routing(), [letter(1, CREATED)], "x.", heard=heard)
    assert (found.word, found.sends) == (("repeat", True) if stored else ("forgotten", False))
    assert asked == [set() if stored else {key}]


def test_an_order_that_would_wait_costs_nothing(engine: sa.Engine) -> None:
    found = one(engine, {**CREATED, "package_id": "other"})
    assert (found.word, found.cost, found.integration_id, found.sends) == ("new", None, None, True)
    assert "waits: no route for package other" in found.says


def test_the_same_content_is_a_repeat_and_other_content_a_clash(engine: sa.Engine) -> None:
    accepted(engine, CREATED)
    repeat, clash = one(engine, CREATED), one(engine, {**CREATED, "quantity": 2})
    assert (repeat.word, repeat.cost, clash.word, clash.cost) == ("repeat", None, "clash", None)


def test_letters_of_one_group_are_judged_one_after_the_other(engine: sa.Engine) -> None:
    rows = [
        letter(1, CREATED),
        letter(2, CREATED),
        letter(3, {**CREATED, "quantity": 2}),
        letter(4, {**CREATED, "order_id": "o-2"}),
        letter(5, b"junk"),
    ]
    found = judged(engine, routing(), rows, "x.")
    assert [verdict.word for verdict in found] == ["new", "repeat", "clash", "new", "malformed"]
    assert replay_preview.cost(found) == ({"TRY": Decimal("25.00")}, 0)
    assert replay_preview.cost(judged(engine, routing(primary="two", fallback=None), rows, "x.")) == ({}, 2)


@pytest.mark.parametrize(
    ("value", "topic", "why"),
    [
        ({**CREATED, "quantity": "x"}, "x.orders.created", "quantity: Expected `int`"),
        ({k: v for k, v in CREATED.items() if k != "tenant_id"}, "x.orders.created", "tenant_id: missing"),
        (b"\xff", "x.orders.created", "not JSON"),
        (b"", "x.orders.created", "empty"),
        ({**CHECK, "due_at": "soon"}, "x.orders.retry.30s", "due_at: "),
        (CREATED, "x.orders.elsewhere", "topic orders.elsewhere is read by no agent"),
        (CREATED, "x.orders.dead-letter", "read by no agent"),
    ],
)
def test_what_is_still_malformed_names_its_field_and_is_not_sent(
    engine: sa.Engine, value: Any, topic: str, why: str
) -> None:
    found = one(engine, value, topic)
    assert (found.word, found.sends) == ("malformed", False)
    assert why in found.says and "player-1" not in found.says


def test_a_check_is_asked_stale_or_about_nobody(engine: sa.Engine) -> None:
    for topic in ("x.orders.check", "x.orders.retry.30s"):
        assert (one(engine, {**CHECK, "order_id": "gone"}, topic).word) == "unknown_order"
    put_order(engine, "o-1", "t", check_number=7)
    put_attempt(engine, "accepted", "o-1", "t", check_number=3)
    assert one(engine, CHECK, "x.orders.check").word == "handled"
    assert one(engine, {**CHECK, "check_number": 2}, "x.orders.check").word == "stale"
    assert one(engine, {**CHECK, "attempt": 0, "check_number": 7}, "x.orders.check").word == "handled"
    assert one(engine, {**CHECK, "attempt": 9}, "x.orders.check").word == "stale"


def test_a_command_that_was_decided_is_a_repeat(engine: sa.Engine) -> None:
    assert one(engine, COMMAND, "x.orders.command").word == "handled"
    put(engine, m.commands, **{**COMMAND, "issued_at": BORN}, done=True, said="s", decided_at=BORN)
    assert one(engine, COMMAND, "x.orders.command").word == "repeat"


def test_a_letter_goes_as_it_came_and_a_correction_under_its_own_id() -> None:
    came = letter(1, CREATED)
    as_it_came = sending.record(came, "x.")
    assert (as_it_came.topic, as_it_came.key, as_it_came.value) == ("orders.created", b"o-1", came["value"])
    assert as_it_came.headers == [("a", b"b")]
    fixed = sending.event_of(came, "x.", json.dumps({**CREATED, "order_id": "o-2"}).encode())
    corrected = sending.record(came, "x.", fixed)
    assert (corrected.key, dict(corrected.headers)["ce_subject"]) == (b"o-2", b"o-2")
    assert sending.corrected(came, "x.", {"quantity": 2}) == decode(
        Created, json.dumps({**CREATED, "quantity": 2}).encode()
    )
    assert sending.corrected(letter(2, b"junk"), "x.", CREATED) == decode(Created, json.dumps(CREATED).encode())
    for topic in ("x.orders.command", "x.orders.status-changed", "x.orders.check"):
        with pytest.raises(EventError, match=r"only one of orders\.created"):
            sending.corrected(letter(3, COMMAND, topic), "x.", {"by": "somebody else"})
    for name in ("order_id", "tenant_id"):
        for word in ("another", None):
            with pytest.raises(EventError, match=f"{name}: cannot be corrected"):
                sending.corrected(came, "x.", {name: word})
    unreadable = letter(4, {**CREATED, "order_id": "o 1"})
    assert sending.corrected(unreadable, "x.", {"order_id": "o-1"}) == decode(Created, json.dumps(CREATED).encode())
    with pytest.raises(EventError, match="quantity"):
        sending.event_of(came, "x.", json.dumps({**CREATED, "quantity": 0}).encode())
