"""What screens show, on real PostgreSQL: counted rightly, for one tenant or all, and through an index."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from db import models as m
from db.reads import lists, queries
from db.reads.lists import OrderFilter
from tests.contract.ledger_rows import BORN, put, put_attempt, put_dead_letter, put_order, reading
from tests.contract.many_orders import ASKED, fill

MINUTE = timedelta(minutes=1)


@pytest.fixture
def engine(database: str) -> Iterator[sa.Engine]:
    with reading(database) as made:
        yield made


def finished(status: str = "completed", at: datetime = BORN) -> dict[str, Any]:
    return {"external_status": status, "status": "approved" if status == "completed" else "rejected", "finished_at": at}


def put_integration(engine: sa.Engine, name: str, tenant_id: str = "demo", **doc: Any) -> None:
    whole = {
        "id": name,
        "tenant_id": tenant_id,
        "provider": "znet",
        "currency": "TRY",
        "credentials": {"kod": "${SECRET_NAME}"},
        "limits": {"rate": "10/s"},
        **doc,
    }
    put(engine, m.integrations, id=name, tenant_id=tenant_id, doc=whole, updated_by="ayse")


def test_the_flow_counts_each_whole_minute_of_the_last_hour(engine: sa.Engine) -> None:
    now = queries.database_now(engine)
    for number, age in enumerate((0.1, 5, 5, 59, 61)):
        put_order(engine, f"o-{number}", created_at=now - age * MINUTE)
    put_order(engine, "done", created_at=now - 90 * MINUTE, **finished(at=now - 5 * MINUTE))
    put_order(engine, "refused", "kral", created_at=now - 90 * MINUTE, **finished("failed", now - 5 * MINUTE))

    flow = lists.overview(engine).flow

    assert len(flow) == 60
    assert {b.minute - a.minute for a, b in pairwise(flow)} == {MINUTE}
    assert flow[-1].minute == now.replace(second=0, microsecond=0)
    assert sum(row.accepted for row in flow) >= 3
    assert (flow[-6].accepted, flow[-6].completed, flow[-6].failed) == (2, 1, 1)
    mine = lists.overview(engine, "demo").flow
    assert (mine[-6].accepted, mine[-6].completed, mine[-6].failed) == (2, 1, 0)


def test_open_orders_are_counted_by_delivery_and_the_settled_are_not(engine: sa.Engine) -> None:
    put_order(engine, "a")
    put_order(engine, "b", external_status="processing")
    put_order(engine, "c", "kral", external_status="processing", waiting="no_mapping", waiting_since=BORN)
    put_order(engine, "d", **finished())

    seen = lists.overview(engine)

    assert seen.states == {"not_sent": 1, "processing": 2}
    assert (seen.waiting, seen.waiting_since) == (1, BORN)
    assert lists.overview(engine, "demo").states == {"not_sent": 1, "processing": 1}
    assert lists.overview(engine, "demo").waiting == 0


def test_checks_are_counted_by_when_they_are_due_and_late_ones_with_the_oldest(engine: sa.Engine) -> None:
    now = queries.database_now(engine)
    for number, seconds in enumerate((-600, -100, -30, 30, 200, 2000, 90000)):
        put_order(engine, f"o-{number}", created_at=now)
        put_attempt(engine, "accepted", f"o-{number}", next_check_at=now + timedelta(seconds=seconds))
    put_order(engine, "waits", "kral", created_at=now, next_check_at=now + timedelta(seconds=400))
    put_order(engine, "watched", created_at=now, **finished(at=now))
    put_attempt(engine, "completed", "watched", next_check_at=now - timedelta(days=1), settled_at=now)

    seen = lists.overview(engine, slack_s=60)

    assert (seen.overdue, seen.overdue_since) == (2, now - timedelta(seconds=600))
    assert {row.within_s: row.checks for row in seen.due} == {60: 2, 300: 1, 900: 1, 3600: 1, None: 1}
    assert {row.within_s: row.checks for row in lists.overview(engine, "kral").due}[900] == 1
    assert lists.overview(engine, "kral").overdue == 0


def test_money_is_at_risk_while_an_attempt_is_sent_or_unknown(engine: sa.Engine) -> None:
    put_integration(engine, "znet-main")
    lease = {"lease_token": "t", "lease_until": BORN}
    rows: list[tuple[str, dict[str, Any]]] = [
        ("sending", {"expected_cost": Decimal("10.50"), **lease}),
        ("unknown", {"expected_cost": Decimal("10"), "cost_amount": Decimal("12.25"), "cost_currency": "TRY"}),
        ("unknown", {}),
        ("unknown", {"cost_amount": Decimal("4"), "cost_currency": "USD"}),
        ("accepted", {"cost_amount": Decimal("99"), "cost_currency": "TRY"}),
        ("intent", {"expected_cost": Decimal("99")}),
    ]
    for number, (state, fields) in enumerate(rows):
        put_order(engine, f"o-{number}")
        put_attempt(engine, state, f"o-{number}", **fields)
    put_order(engine, "k", "kral")
    put_attempt(engine, "unknown", "k", "kral", integration_id="znet-b", expected_cost=Decimal("7"))

    def told(tenant: str | None) -> list[tuple[Any, ...]]:
        return [
            (r.integration_id, r.currency, r.sending, r.unknown, r.unpriced, r.amount)
            for r in lists.overview(engine, tenant).risk
        ]

    own = [("znet-main", "TRY", 1, 2, 1, Decimal("22.75")), ("znet-main", "USD", 0, 1, 0, Decimal("4"))]
    assert told("demo") == own
    assert told(None) == [("znet-b", "", 0, 1, 0, Decimal("7")), *own]
    [main] = lists.integrations(engine, "demo")
    assert (main.open_attempts, [risk.amount for risk in main.risk]) == (6, [Decimal("22.75"), Decimal("4")])


def test_an_integration_shows_its_balance_with_its_age_and_no_credential(engine: sa.Engine) -> None:
    put_integration(engine, "znet-main", enabled=False, low_balance="500")
    put_integration(engine, "znet-b", "kral")
    put(
        engine,
        m.integration_state,
        integration_id="znet-main",
        balance_amount=Decimal("1234.5"),
        balance_currency="TRY",
        balance_at=BORN,
    )

    [main] = lists.integrations(engine, "demo")

    assert (main.enabled, main.low_balance, main.balance_amount, main.balance_at) == (
        False,
        Decimal("500"),
        Decimal("1234.5"),
        BORN,
    )
    assert b"SECRET_NAME" not in msgspec.json.encode(lists.integrations(engine))
    assert [row.balance_amount for row in lists.integrations(engine)] == [Decimal("1234.5"), None]


def test_orders_come_page_by_page_with_the_ledgers_word(engine: sa.Engine) -> None:
    for number in range(5):
        put_order(engine, f"o-{number}", created_at=BORN + number * MINUTE)
    put_order(engine, "o-9", created_at=BORN, **finished(), view={"external_status": "sent"})

    first = lists.orders(engine, OrderFilter(), limit=4)
    last = lists.orders(engine, OrderFilter(), after=first.next, limit=4)

    assert [row.order_id for row in (*first.rows, *last.rows)] == ["o-4", "o-3", "o-2", "o-1", "o-0", "o-9"]
    assert last.next is None
    assert last.rows[-1].external_status == "completed"
    assert b"player-123456" not in msgspec.json.encode(first)


@pytest.mark.parametrize("text", ["", "x", "2026-01-01/t/o", "2026-01-01T00:00:00Z/t", "2026-01-01T00:00:00Z/t/\0"])
def test_a_place_that_no_page_gave_is_refused(engine: sa.Engine, text: str) -> None:
    with pytest.raises(ValueError):
        lists.orders(engine, OrderFilter(), after=text)


@pytest.mark.parametrize("number", ["o-1", "demo-o-1-1", "E-5", "player-77"])
def test_an_order_is_found_by_any_of_its_numbers_and_by_its_own_tenant_only(engine: sa.Engine, number: str) -> None:
    put_order(engine, view={"user_identifier": "player-77"})
    put_attempt(engine, "accepted", external_order_id="E-5")
    put_order(engine, "o-2", created_at=BORN - MINUTE)

    for tenant, expected in ((None, ["o-1"]), ("demo", ["o-1"]), ("kral", [])):
        found = lists.orders(engine, OrderFilter(tenant_id=tenant, number=number))
        assert [row.order_id for row in found.rows] == expected
    assert queries.find(engine, number) == [("demo", "o-1")]


def test_a_search_for_a_number_that_no_column_can_hold_finds_nothing(engine: sa.Engine) -> None:
    assert lists.orders(engine, OrderFilter(number="a\0b")).rows == []


def test_lists_by_state_go_by_acceptance_and_every_page_goes_on_there(engine: sa.Engine) -> None:
    for number in range(4):  # the shop's clock ran backwards
        put_order(engine, f"o-{number}", created_at=BORN - number * MINUTE, accepted_at=BORN + number * MINUTE)
    first = lists.orders(engine, OrderFilter(open=True), limit=3)
    rest = lists.orders(engine, OrderFilter(open=True), after=first.next, limit=3)
    assert [row.order_id for row in (*first.rows, *rest.rows)] == ["o-3", "o-2", "o-1", "o-0"]
    assert [row.order_id for row in lists.orders(engine, OrderFilter()).rows] == ["o-0", "o-1", "o-2", "o-3"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (OrderFilter(status="pending"), ["late", "open"]),
        (OrderFilter(status="pending", external_status="expired"), ["late"]),
        (OrderFilter(status="approved"), ["good"]),
        (OrderFilter(status="rejected", external_status="failed"), ["bad"]),
        (OrderFilter(open=True, external_status="not_sent"), ["open"]),
        (OrderFilter(open=True, status="approved"), []),
        (OrderFilter(status="pending", external_status="completed"), []),
    ],
    ids=str,
)
def test_conditions_on_the_state_go_together(engine: sa.Engine, wanted: OrderFilter, found: list[str]) -> None:
    put_order(engine, "open")
    put_order(engine, "late", external_status="expired")
    put_order(engine, "good", **finished())
    put_order(engine, "bad", **finished("failed"))
    assert sorted(row.order_id for row in lists.orders(engine, wanted).rows) == found


def test_open_leaves_out_what_is_settled(engine: sa.Engine) -> None:
    put_order(engine, "open", external_status="expired")
    put_order(engine, "done", **finished("failed"))
    assert [row.order_id for row in lists.orders(engine, OrderFilter(open=True)).rows] == ["open"]


def put_attention(engine: sa.Engine, name: str, code: str, age_m: int, **fields: Any) -> None:
    values = {"tenant_id": "demo", "message": "m", "since": BORN - age_m * MINUTE, **fields}
    put(engine, m.attention, id=name, code=code, **values)


def test_attention_is_grouped_and_listed_oldest_first(engine: sa.Engine) -> None:
    put_attention(engine, "a", "expired", 10)
    put_attention(engine, "b", "no_mapping", 30)
    put_attention(engine, "c", "expired", 20)
    put_attention(engine, "d", "expired", 20)
    put_attention(engine, "k", "expired", 50, tenant_id="kral")
    put_attention(engine, "seen", "expired", 90, acknowledged_at=BORN)
    put_attention(engine, "account", "low_balance", 5, tenant_id=None, integration_id="znet-main")

    groups = [(group.reason, group.count) for group in lists.attention_groups(engine)]
    assert groups == [("expired", 4), ("no_mapping", 1), ("low_balance", 1)]
    assert [(g.reason, g.count) for g in lists.attention_groups(engine, "demo")] == [("no_mapping", 1), ("expired", 3)]
    first = lists.attention(engine, "demo", code="expired", limit=2)
    assert [row.id for row in first.rows] == ["c", "d"]
    assert [row.id for row in lists.attention(engine, "demo", code="expired", after=first.next).rows] == ["a"]


def test_dead_letters_are_grouped_listed_and_kept_from_other_tenants(engine: sa.Engine) -> None:
    for number, (reason, tenant) in enumerate([("malformed", "demo"), ("conflict", "kral"), ("malformed", None)]):
        put_dead_letter(engine, number, reason=reason, tenant_id=tenant, at=BORN - number * MINUTE)
    put_dead_letter(engine, 9, replayed_at=BORN, tenant_id="demo")

    assert [(group.reason, group.count) for group in lists.letter_groups(engine)] == [("malformed", 2), ("conflict", 1)]
    assert [(group.reason, group.count) for group in lists.letter_groups(engine, "kral")] == [("conflict", 1)]
    first = lists.letters(engine, limit=2)
    assert [row.offset for row in (*first.rows, *lists.letters(engine, after=first.next).rows)] == [0, 1, 2]
    assert [row.offset for row in lists.letters(engine, "demo").rows] == [0]
    assert [row.offset for row in lists.letters(engine, reason="conflict").rows] == [1]
    assert (lists.overview(engine).dead_letters, lists.overview(engine, "demo").dead_letters) == (3, 1)


def test_a_route_names_the_integrations_that_lack_a_mapping(engine: sa.Engine) -> None:
    for tenant in ("demo", "kral"):
        doc = {"tenant_id": tenant, "package_id": "p", "mode": "auto", "primary": "one", "fallback": "two"}
        put(engine, m.routes, tenant_id=tenant, package_id="p", doc=doc, updated_by="ayse")
    put(engine, m.mappings, tenant_id="demo", package_id="p", integration="one", doc={}, updated_by="ayse")

    assert [(row.tenant_id, row.unmapped) for row in lists.routes(engine)] == [
        ("demo", ["two"]),
        ("kral", ["one", "two"]),
    ]
    assert [row.tenant_id for row in lists.routes(engine, "kral")] == ["kral"]
    assert lists.tenants(engine) == ["demo", "kral"]


@pytest.fixture
def crowded(engine: sa.Engine) -> sa.Engine:
    """Enough orders that a planner who may use an index will."""
    fill(engine, 20_000)
    return engine


def plans(engine: sa.Engine, ask: Callable[[], Any]) -> list[str]:
    """The plan of every statement that ``ask`` runs."""
    asked: list[tuple[str, Any]] = []

    def heard(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", heard)
    try:
        ask()
    finally:
        sa.event.remove(engine, "before_cursor_execute", heard)
    with engine.connect() as connection:
        return [
            "\n".join(row[0] for row in connection.exec_driver_sql("explain " + statement, parameters))
            for statement, parameters in asked
        ]


@pytest.mark.parametrize("wanted", ASKED, ids=str)
def test_no_list_or_search_walks_through_all_orders(crowded: sa.Engine, wanted: OrderFilter) -> None:
    for plan in plans(crowded, lambda: lists.orders(crowded, wanted)):
        assert not re.search(r"Seq Scan on (orders|ledger_orders|attempts)\b", plan), plan


@pytest.mark.parametrize(
    "wanted",
    [
        OrderFilter(open=True),
        OrderFilter(open=True, integration_id="main"),
        OrderFilter(status="pending"),
        OrderFilter(external_status="processing"),
        OrderFilter(open=True, older_than_s=600),
        OrderFilter(open=True, tenant_id="demo"),
    ],
    ids=str,
)
def test_what_is_open_is_read_in_its_order_and_only_as_far_as_the_page(engine: sa.Engine, wanted: OrderFilter) -> None:
    """A backlog of any size costs one page."""
    fill(engine, 20_000, open_every=2)
    [plan, _] = plans(engine, lambda: lists.orders(engine, wanted))
    assert "idx_ledger_orders_open" in plan, plan
    assert not re.search(r"(->|^) *Sort ", plan), plan


def test_a_later_page_starts_at_its_place(crowded: sa.Engine) -> None:
    place = lists.orders(crowded, OrderFilter()).next
    plan = plans(crowded, lambda: lists.orders(crowded, OrderFilter(), after=place))[0]
    assert "idx_orders_created" in plan
    assert re.search(r"Index Cond: \(.*created_at", plan)


@pytest.mark.parametrize("tenant", [None, "small"])
@pytest.mark.parametrize("ask", [lists.overview, lists.integrations])
def test_no_number_of_the_overview_walks_through_all_orders(
    crowded: sa.Engine, ask: Callable[[sa.Engine, str | None], Any], tenant: str | None
) -> None:
    for plan in plans(crowded, lambda: ask(crowded, tenant)):
        assert not re.search(r"Seq Scan on (orders|ledger_orders|attempts)\b", plan), plan


def test_the_clock_of_a_page_is_the_databases(engine: sa.Engine) -> None:
    assert abs(lists.orders(engine, OrderFilter()).now - datetime.now(UTC)) < timedelta(minutes=1)
