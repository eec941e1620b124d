"""What people ask about orders, on real PostgreSQL."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from db import models as m
from db.control import integration_state
from db.reads import queries
from db.reads.queries import OrderFilter
from streams.errors import EventError, OrderNotFound
from tests.contract.ledger_rows import BORN, put, put_attempt, put_dead_letter, put_order, reading


@pytest.fixture
def engine(database: str) -> Iterator[sa.Engine]:
    with reading(database) as made:
        yield made


def ids(rows: list[queries.Row]) -> list[str]:
    return [row["order_id"] for row in rows]


def test_pages_meet_without_gap_or_repeat_even_where_instants_are_equal(engine: sa.Engine) -> None:
    for number in range(7):  # o-2 to o-6 share one instant
        put_order(engine, f"o-{number}", created_at=BORN + timedelta(seconds=min(number, 2)))
    put_order(engine, "o-2", "kral", created_at=BORN + timedelta(seconds=2))
    seen, place = [], None
    while True:
        rows, place = queries.orders(engine, OrderFilter(), after=place, limit=3)
        seen += [(row["tenant_id"], row["order_id"]) for row in rows]
        if place is None:
            break
        put_order(engine, f"late-{len(seen)}", created_at=BORN + timedelta(days=1))  # shifts nothing

    demo = [("demo", f"o-{number}") for number in (2, 3, 4, 5, 6)]
    assert seen == [*demo, ("kral", "o-2"), ("demo", "o-1"), ("demo", "o-0")]


def test_the_last_full_page_says_that_it_is_the_last(engine: sa.Engine) -> None:
    for number in range(3):
        put_order(engine, f"o-{number}")
    assert queries.orders(engine, OrderFilter(), limit=3)[1] is None


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (OrderFilter(tenant_id="kral"), ["kral-1"]),
        (OrderFilter(status="approved"), ["done"]),
        (OrderFilter(status="rejected"), []),
        (OrderFilter(status="pending", older_than_s=3600), ["old"]),
        (OrderFilter(external_status="completed"), ["done"]),
        (OrderFilter(integration_id="barakat-1"), ["done"]),
        (OrderFilter(older_than_s=3600), ["old"]),
        (OrderFilter(waiting="any"), ["stuck"]),
        (OrderFilter(waiting="no_mapping"), ["stuck"]),
        (OrderFilter(waiting="no_routing"), []),
        (OrderFilter(tenant_id="demo", waiting="any"), ["stuck"]),
    ],
)
def test_each_filter_leaves_what_it_says(engine: sa.Engine, wanted: OrderFilter, expected: list[str]) -> None:
    now = datetime.now(UTC)
    put_order(engine, "kral-1", "kral", created_at=now)
    put_order(engine, "old", created_at=now - timedelta(days=1))
    put_order(engine, "stuck", created_at=now, waiting="no_mapping", waiting_since=now)
    done = {"status": "approved", "external_status": "completed"}
    put_order(engine, "done", created_at=now, **done, finished_at=now, view={**done, "integration_id": "barakat-1"})

    assert ids(queries.orders(engine, wanted)[0]) == expected


def test_a_snapshot_has_everything_about_one_order_and_nothing_about_its_neighbour(engine: sa.Engine) -> None:
    put_order(engine, "o-1", lines=1)
    put_attempt(engine, "rejected")
    put_attempt(engine, "unknown", attempt=2, absent_answers=2, evidence={"last": {"kind": "not_found"}})
    put_order(engine, "o-1", "kral")
    put_attempt(engine, "intent", tenant_id="kral")
    for number in range(5):
        put(engine, m.order_events, tenant_id="demo", order_id="o-1", step=f"s{number}", actor="check")
    put(engine, m.attention, id="a", tenant_id="demo", order_id="o-1", code="outcome_unknown", message="m", since=BORN)
    put_dead_letter(engine, order_id="o-1")
    put_dead_letter(engine, 1, order_id="o-1", value=b'{"tenant_id": "kral", "order_id": "o-1"}')
    put_dead_letter(engine, 2, order_id="o-1", value=b"\xff nobody knows whose")

    found = queries.snapshot(engine, "demo", "o-1", steps=3)

    assert found.order is not None
    assert found.order.request["package_id"] == "pubg-60"
    assert [(row.attempt, row.state) for row in found.attempts] == [(1, "rejected"), (2, "unknown")]
    assert found.attempts[1].evidence == {"last": {"kind": "not_found"}}
    assert [row["step"] for row in found.events] == ["s2", "s3", "s4"]
    assert [row["id"] for row in found.attention] == ["a"]
    assert [row["offset"] for row in found.dead_letters] == [0, 2]
    assert found.view is not None
    assert found.now.tzinfo is not None


def test_a_snapshot_of_nothing_is_empty(engine: sa.Engine) -> None:
    found = queries.snapshot(engine, "demo", "nothing")
    assert (found.order, found.view, list(found.attempts), list(found.dead_letters)) == (None, None, [], [])


def test_an_order_is_found_by_each_of_its_numbers(engine: sa.Engine) -> None:
    put_order(engine, "o-1")
    put_attempt(engine, "accepted", reference="7000000000000001", external_order_id="E-5")
    for number in ("o-1", "7000000000000001", "E-5"):
        assert queries.find(engine, number) == [("demo", "o-1")]
    assert queries.find(engine, "else") == []


def test_health_counts_what_is_late_by_more_than_the_slack(engine: sa.Engine) -> None:
    now = queries.database_now(engine)
    late, recent = now - timedelta(minutes=20), now - timedelta(seconds=5)
    put_order(engine, "late")
    put_attempt(engine, "unknown", "late", next_check_at=late)
    put_order(engine, "recent")
    put_attempt(engine, "accepted", "recent", next_check_at=recent)
    put_order(engine, "waits", next_check_at=late, waiting="no_routing")
    put_order(engine, "behind", version=2, last_event_at=late, view={"version": 1})
    put_order(engine, "just-behind", version=2, last_event_at=recent, view={"version": 1})
    put(engine, m.attention, id="a", code="low_balance", message="m", since=late)
    put(engine, m.attention, id="b", code="low_balance", message="m", since=late, acknowledged_at=now)
    put_dead_letter(engine)
    put_dead_letter(engine, 1, replayed_at=now)
    put(engine, m.service_state, key="sweep", value={"overdue": 0}, at=recent)

    seen = queries.health(engine, slack_s=60)

    assert (seen.overdue, seen.overdue_since) == (2, late)
    assert (seen.behind, seen.behind_since) == (1, late)
    assert (seen.unknown, seen.open_orders) == (1, 5)
    assert (seen.attention, seen.attention_since, seen.dead_letters) == (1, late, 1)
    assert (seen.swept, seen.swept_at) == ({"overdue": 0}, recent)


def test_health_compares_the_newest_changes_only(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "RECENT", 2)
    now = queries.database_now(engine)
    for age in range(1, 5):
        put_order(engine, f"o-{age}", version=2, last_event_at=now - timedelta(hours=age), view={"version": 1})
    seen = queries.health(engine, slack_s=60)
    assert (seen.behind, seen.behind_since) == (2, now - timedelta(hours=2))


def test_a_search_for_a_player_is_not_filled_with_orders_of_other_tenants(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "PLAYER_ORDERS", 2)
    put_order(engine, "mine", created_at=BORN)
    for number in range(3):
        put_order(engine, f"theirs-{number}", "kral", created_at=BORN + timedelta(days=1))
    wanted = OrderFilter(tenant_id="demo", number="player-123456")
    assert ids(queries.orders(engine, wanted)[0]) == ["mine"]


def test_the_dead_letters_of_an_order_are_found_by_an_index_and_a_key_may_be_long(engine: sa.Engine) -> None:
    put_dead_letter(engine, order_id="k" * 9000)
    with engine.connect() as connection:
        connection.execute(sa.text("set local enable_seqscan = off"))
        plan = connection.execute(sa.text("explain select id from dead_letters where key = 'o-1'")).scalars().all()
    assert any("idx_dead_letters_key" in line for line in plan)


def audited(engine: sa.Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        rows = connection.execute(sa.select(m.audit.c.actor, m.audit.c.action).order_by(m.audit.c.id))
        return [(row.actor, row.action) for row in rows]


def completed(engine: sa.Engine, pins: list[str]) -> None:
    put_order(engine, status="approved", external_status="completed", finished_at=BORN)
    put_attempt(engine, "rejected", pins=["of a refused attempt"])
    put_attempt(engine, "completed", attempt=2, pins=pins)


def test_released_pins_are_those_of_completed_attempts_and_leave_an_audit_row(engine: sa.Engine) -> None:
    completed(engine, ["s1", "s2"])
    assert integration_state.release_pins(engine, "demo", "o-1", "ayse", str.upper) == ["S1", "S2"]
    assert audited(engine) == [("ayse", "pin.release")]


def test_pins_of_an_order_that_is_not_completed_stay_sealed(engine: sa.Engine) -> None:
    put_order(engine, lines=2)
    put_attempt(engine, "completed", pins=["s1"])
    put_attempt(engine, "accepted", attempt=2, line=2)
    assert integration_state.release_pins(engine, "demo", "o-1", "ayse", str.upper) == []
    with pytest.raises(OrderNotFound, match="o-2"):
        integration_state.release_pins(engine, "demo", "o-2", "ayse", str.upper)
    assert audited(engine) == []


def test_pins_of_the_units_that_came_are_released_while_the_rest_is_open(engine: sa.Engine) -> None:
    put_order(engine, lines=1, waiting="partly_delivered")
    put_attempt(engine, "accepted", pins=["s1"], evidence={"delivered": 1})
    assert integration_state.release_pins(engine, "demo", "o-1", "ayse", str.upper) == ["S1"]
    assert len(audited(engine)) == 1


def test_a_pin_that_cannot_be_opened_releases_and_audits_nothing(engine: sa.Engine) -> None:
    completed(engine, ["s1", "s2"])

    def opened(sealed: str) -> str:
        if sealed == "s2":
            raise EventError("pins: sealed with another key")
        return sealed

    with pytest.raises(EventError):
        integration_state.release_pins(engine, "demo", "o-1", "ayse", opened)
    assert audited(engine) == []


def test_codes_are_loaded_once_per_group_and_counted(engine: sa.Engine) -> None:
    first = [integration_state.SealedCode(f"sealed-{n}", f"print-{n}") for n in range(1500)]
    again = [
        integration_state.SealedCode("another sealing", "print-7"),
        integration_state.SealedCode("sealed-new", "print-new"),
    ]
    assert len(integration_state.load_codes(engine, "demo", "steam", first, "ayse")) == 1500
    assert integration_state.load_codes(engine, "demo", "steam", again, "ayse") == {"print-new"}
    assert integration_state.load_codes(engine, "demo", "other", again[:1], "ayse") == {"print-7"}
    counted = {(row["code_group"], row["available"], row["taken"]) for row in queries.code_stock(engine)}
    assert counted == {("steam", 1501, 0), ("other", 1, 0)}


def test_the_key_of_fingerprints_is_made_once(engine: sa.Engine) -> None:
    made = [
        integration_state.fingerprint_key(engine, lambda key: f"sealed {key}", lambda key=key: key)
        for key in ("a", "b")
    ]
    assert made == ["sealed a", "sealed a"]
