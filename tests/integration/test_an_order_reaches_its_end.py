"""The whole life of an order on the bundled broker: events in, one purchase, delayed checks, status out."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.control import stored_config
from db.control.integration_state import SealedCode, load_codes
from db.engine import connect
from orderwatch.localservers.bundled import Broker
from streams.events import Created, Referenced, decode
from streams.kafka.producer import Outgoing
from tests.integration.conftest import Start
from tests.malformed import raw_producer
from tests.system import System, http
from tests.waiting import wait_until

PLAYER = "5551234567890"


@pytest.fixture(scope="module")
def system(system_of: Start, broker: Broker) -> Iterator[System]:
    running = system_of(broker.address)
    running.start_worker()
    yield running


def order(order_id: str, package: str = "sixty", **fields: Any) -> Created:
    return Created(
        order_id=order_id,
        tenant_id="shop",
        package_id=package,
        user_identifier=PLAYER,
        created_at=datetime.now(UTC),
        **fields,
    )


def timeline(system: System, order_id: str) -> list[str]:
    rows = system.rows("select step from order_events where order_id = :o order by id", o=order_id)
    return [row["step"] for row in rows]


def test_orders_end_and_the_four_books_agree(system: System) -> None:
    orders = [order(f"end-{i}", ["sixty", "batch"][i % 2]) for i in range(30)]
    system.send(orders)
    system.send(orders[:10])  # the shop was not sure
    system.wait_for_ends(60)
    verdict = system.books()
    assert verdict.agree, verdict.differences
    assert verdict.completed == 30


def test_each_status_is_written_to_the_table_once(system: System) -> None:
    """Fetches that were written down side by side wrote what was on its way again: five records for two statuses."""
    for n in range(40):  # one by one, so that each comes in a fetch of its own
        system.send([order(f"once-{n}")])
    system.wait_for_ends(60)
    ours = [f"once-{n}".encode() for n in range(40)]
    changes = [record for record in system.read("orders.status-changed") if record.key() in ours]
    health = f"http://127.0.0.1:{system.workers[0].port}/health/"
    wait_until(lambda: http("GET", health)["in_flight"]["projection-status"] == 0)
    written = [record for record in system.read("orderwatch-order-status-changelog") if record.key() in ours]
    assert len(ours) <= len(written) <= len(changes)


def test_an_order_leaves_every_step_in_its_timeline(system: System) -> None:
    system.send([order("steps")])
    system.wait_for_ends(30)
    assert timeline(system, "steps") == [
        "accepted",
        "routed",
        "intent",
        "sending",
        "answered",
        "status",
        "checked",
        "status",
    ]
    referenced = [decode(Referenced, record.value()) for record in system.read("orders.referenced")]
    assert [event.attempt for event in referenced if event.order_id == "steps"] == [1]


def test_a_plain_refusal_is_bought_at_the_fallback_once(system: System) -> None:
    system.send([order("refused", "gone")])
    system.wait_for_ends(30)
    found = system.rows("select integration_id, state from attempts where order_id = 'refused' order by attempt")
    assert [(row["integration_id"], row["state"]) for row in found] == [
        ("znet-main", "rejected"),
        ("barakat-1", "completed"),
    ]
    assert system.books().agree


LOST = ("hang_up_after", "timeout_after", "error_after", "html", "truncated", "hang_up_before")


@pytest.mark.parametrize("package", ["sixty", "batch"])
@pytest.mark.parametrize("kind", LOST)
def test_a_lost_answer_is_found_by_looking_it_up_and_bought_once(system: System, package: str, kind: str) -> None:
    account = {"sixty": "znet-main", "batch": "barakat-1"}[package]
    system.control("POST", f"/accounts/{account}/faults", {"kind": kind, "operation": "place", "times": 1})
    name = f"lost-{package}-{kind}"
    system.send([order(name, package)])
    system.wait_for_ends(60)
    verdict = system.books()
    assert verdict.agree, verdict.differences
    assert system.statuses()["shop", name] == "completed"
    assert "answered" in timeline(system, name)
    executed = [row for row in system.control("GET", "/ledger") if row["reference"] in _references(system, name)]
    assert len(executed) == 1


def _references(system: System, order_id: str) -> set[str]:
    return {row["reference"] for row in system.rows("select reference from attempts where order_id = :o", o=order_id)}


def test_a_quantity_becomes_lines_where_the_provider_sells_single_units(system: System) -> None:
    system.send([order("three", "sixty", quantity=3), order("three-batch", "batch", quantity=3)])
    system.wait_for_ends(60)
    assert len(_references(system, "three")) == 3
    assert len(_references(system, "three-batch")) == 1
    pins = system.rows("select order_id, cardinality(pins) as n from orders where order_id like 'three%'")
    assert {row["order_id"]: row["n"] for row in pins} == {"three": 3, "three-batch": 3}
    assert system.books().agree


def test_codes_come_from_our_own_stock_each_once_and_a_low_stock_is_told(system: System) -> None:
    engine = connect(system.database)
    load_codes(engine, "shop", "cards", [SealedCode(f"sealed-{i}", f"print-{i}") for i in range(4)], "test")
    engine.dispose()
    orders = [order(f"card-{i}", "card") for i in range(5)]
    system.send([*orders, *orders])
    system.wait_for_ends(30)
    ends = [status for (_, order_id), status in system.statuses().items() if order_id.startswith("card-")]
    assert sorted(ends) == ["completed"] * 4 + ["failed"]
    pins = [pin for row in system.rows("select pins from orders where package_id = 'card'") for pin in row["pins"]]
    assert sorted(pins) == [f"sealed-{i}" for i in range(4)]
    wait_until(lambda: system.rows("select 1 from attention where code = 'low_balance'"), 20)
    assert system.books().agree


def test_a_manual_route_waits_for_a_person_and_says_so(system: System) -> None:
    system.send([order("by-hand", "by-hand"), order("nowhere", "nowhere")])

    def raised() -> set[tuple[str, str]]:
        rows = system.rows("select order_id, code from attention where order_id in ('by-hand', 'nowhere')")
        return {(row["order_id"], row["code"]) for row in rows}

    wait_until(lambda: raised() == {("by-hand", "manual_route"), ("nowhere", "no_routing")}, 30)
    assert system.statuses()["shop", "by-hand"] == "not_sent"
    assert not [row for row in system.control("GET", "/ledger") if row["reference"] in _references(system, "by-hand")]
    system.sent -= {("shop", "by-hand")}


def test_a_route_that_is_added_later_is_taken_up_by_the_running_worker(system: System) -> None:
    document = yaml.safe_load(system.config_path.read_text())
    document["routes"].append(
        {
            "tenant_id": "shop",
            "package_id": "nowhere",
            "mode": "auto",
            "provider_type": "external",
            "primary": "znet-main",
        }
    )
    document["mappings"].append(
        {
            "tenant_id": "shop",
            "package_id": "nowhere",
            "integration": "znet-main",
            "provider_package_id": "1",
            "oyun": "1",
            "kupur": "60",
        }
    )
    engine = connect(system.database)
    docs = stored_config.CatalogDocs(document["integrations"], document["routes"], document["mappings"])
    stored_config.replace(engine, docs, "test")
    engine.dispose()
    system.send([order("somewhere", "nowhere")])
    system.wait_for_ends(30)  # "nowhere", which waited since the test before, ends as well
    assert system.statuses()["shop", "somewhere"] == "completed"


def test_the_same_id_with_other_content_is_told_and_the_first_one_wins(system: System) -> None:
    system.send([order("twice")])
    system.wait_for_ends(30)
    system.send([order("twice", "batch")])
    wait_until(lambda: system.rows("select 1 from attention where order_id = 'twice' and code = 'invalid_order'"), 20)
    assert len(_references(system, "twice")) == 1


def test_the_table_answers_for_an_order(system: System) -> None:
    system.send([order("in-table")])
    system.wait_for_ends(30)
    port = system.workers[0].port  # type: ignore[attr-defined]

    def shown() -> Any:
        try:
            return http("GET", f"http://127.0.0.1:{port}/orders/in-table/")
        except HTTPError as missing:
            assert missing.code == 404
            return None

    found = wait_until(shown, 20)
    wait_until(lambda: shown()["tenants"]["shop"]["external_status"] == "completed", 20)
    assert found["order_id"] == "in-table"
    outcomes = http("GET", f"http://127.0.0.1:{port}/outcomes/")["outcomes"]
    assert outcomes["znet-main"]["completed"] > 0


@st.composite
def malformed(draw: st.DrawFn) -> tuple[bytes, str]:
    """A created event with exactly one wrong field, and that field's name."""
    good: dict[str, Any] = {
        "order_id": "bad",
        "tenant_id": "shop",
        "package_id": "sixty",
        "user_identifier": PLAYER,
        "created_at": "2026-01-01T00:00:00Z",
        "quantity": 1,
    }
    field, wrong = draw(
        st.sampled_from(
            [
                ("order_id", st.one_of(st.integers(), st.none(), st.text("äö /\\ü"), st.just("x" * 65))),
                ("tenant_id", st.one_of(st.integers(), st.none(), st.just(""), st.just("a b"))),
                ("package_id", st.one_of(st.integers(), st.none(), st.just(""), st.lists(st.integers()))),
                ("user_identifier", st.one_of(st.integers(), st.none(), st.booleans(), st.just("nul\x00"))),
                ("created_at", st.one_of(st.integers(), st.just("yesterday"), st.just("2026-01-01T00:00:00"))),
                ("quantity", st.one_of(st.integers(max_value=0), st.floats(1.1, 1.9), st.text(max_size=3), st.none())),
                (
                    "params",
                    st.one_of(st.text(max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), min_size=1)),
                ),
                (
                    "sell_price",
                    st.one_of(st.integers(), st.just({"amount": "x", "currency": "TRY"}), st.just({"amount": "1"})),
                ),
            ]
        )
    )
    return json.dumps({**good, field: draw(wrong)}).encode(), field


def test_malformed_events_become_dead_letters_that_name_the_field_and_the_partition_goes_on(system: System) -> None:
    bad: list[tuple[bytes, str]] = []

    @settings(max_examples=320, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(malformed())
    def collect(case: tuple[bytes, str]) -> None:
        bad.append(case)

    collect()
    assert len(bad) >= 300
    before = system.rows("select count(*) as n from dead_letters")[0]["n"]
    with raw_producer(system.config.kafka) as send:
        send(Outgoing("orders.created", b"bad", value, []) for value, _ in bad)
        send([Outgoing("orders.created", b"bad", value, []) for value in (b"", b"{", b"\xff\xfe", b"[]", b"null")])
    system.send([order(f"after-{i}") for i in range(8)])  # every partition
    system.wait_for_ends(60)
    total = before + len(bad) + 5
    wait_until(lambda: system.rows("select count(*) as n from dead_letters")[0]["n"] == total, 30)
    letters = {
        bytes(row["value"]): row["error"]
        for row in system.rows("select value, error from dead_letters where value is not null")
    }
    for value, field in bad:
        assert field in letters[value], (value, letters[value])
    names = {name for name, _ in system.read("orders.dead-letter")[0].headers()}
    assert {f"dlq.{name}" for name in ("reason", "error", "topic", "partition", "offset", "at", "agent")} <= names


def test_no_secret_and_no_player_reaches_a_log_or_a_key(system: System) -> None:
    logs = "\n".join(path.read_text(errors="replace") for path in system.directory.glob("worker-*.log"))
    assert PLAYER not in logs
    assert {row["player"] for row in system.control("GET", "/ledger")} == {PLAYER}
    for topic in ("orders.created", "orders.referenced", "orders.check", "orders.status-changed", "orders.attention"):
        for record in system.read(topic):
            assert PLAYER.encode() not in (record.key() or b"")
            if topic != "orders.created":
                assert PLAYER.encode() not in record.value()
