"""Orders over HTTP: placed once and only when the broker has them, shown with what they wait for, PINs released."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from db import models as m
from orderwatch.localservers.bundled import Broker
from streams import events, topics
from streams.events import Created
from streams.kafka.producer import Told, apply_topics, follow
from tests.contract.ledger_rows import BORN, put_attempt, put_dead_letter, put_order
from tests.dashboard import NOWHERE, Answer, Dashboard, dashboard, settings
from tests.waiting import wait_until

ORDER = {
    "tenant_id": "demo",
    "order_id": "A-1",
    "package_id": "pubg-60",
    "user_identifier": "player-77",
    "quantity": 2,
    "params": {"server": "eu"},
    "sell_price": {"amount": "12.50", "currency": "TRY"},
    "created_at": "2026-01-31T12:00:00Z",
}


def place(site: Dashboard, key: str | None, token: str, **changes: Any) -> Answer:
    headers = {} if key is None else {"idempotency-key": key}
    order = {name: value for name, value in {**ORDER, **changes}.items() if value is not ...}
    return site.ask("POST", "/api/orders", order, token=token, headers=headers)


def placed(site: Dashboard, order_id: str) -> list[Told]:
    """What is on the topic of this order."""
    told = follow(site.config.kafka, topics.CREATED, from_start=True, until_end=True)
    return [record for record in told if record.key == order_id.encode()]


def test_an_order_is_accepted_when_the_broker_has_it(site: Dashboard) -> None:
    answer = place(site, "k-1", site.token("orders:write", tenant="demo"), order_id="first")
    assert answer.status == 202
    assert answer.document()["href"] == "/api/orders/demo/first"
    [record] = placed(site, "first")
    created = events.decode(Created, record.value)
    assert events.header(record.headers, "ce_id") == answer.document()["event_id"] == events.event_id(created)
    assert (created.quantity, created.params, created.user_identifier) == (2, {"server": "eu"}, "player-77")
    assert created.sell_price == events.Amount(msgspec.convert("12.50", events.Decimal), "TRY")


def test_the_same_key_and_body_give_the_same_answer_and_one_event(site: Dashboard) -> None:
    token = site.token("orders:write", tenant="demo")
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: place(site, "k-2", token, order_id="same", created_at=...), range(4)))
    answers.append(place(site, "k-2", token, order_id="same", created_at=...))
    assert {(answer.status, answer.body) for answer in answers} == {(202, answers[0].body)}
    told = placed(site, "same")
    assert len({record.value for record in told}) == 1  # also the instant is that of the first request
    assert len({events.header(record.headers, "ce_id") for record in told}) == 1


def test_the_same_key_with_another_body_is_refused(site: Dashboard) -> None:
    token = site.token("orders:write", tenant="demo")
    assert place(site, "k-3", token, order_id="one").status == 202
    other = place(site, "k-3", token, order_id="two")
    assert other.status == 409
    assert other.document()["errors"][0]["field"] == "Idempotency-Key"
    assert placed(site, "two") == []


def test_two_tenants_may_use_the_same_key(site: Dashboard) -> None:
    for tenant in ("demo", "kral"):
        answer = place(site, "k-4", site.token("orders:write", tenant=tenant), tenant_id=tenant, order_id="both")
        assert answer.status == 202
    assert len(placed(site, "both")) == 2


def test_an_order_id_that_is_known_with_another_content_is_refused(site: Dashboard) -> None:
    put_order(site.engine, "taken", fingerprint="of something else")
    answer = place(site, "k-5", site.token("orders:write"), order_id="taken")
    assert answer.status == 409
    assert answer.document()["errors"][0]["field"] == "order_id"
    assert placed(site, "taken") == []


def test_two_orders_with_one_id_are_told_apart_while_no_worker_runs(site: Dashboard) -> None:
    token = site.token("orders:write", tenant="demo")
    assert place(site, "k-51", token, order_id="one-id").status == 202
    other = place(site, "k-52", token, order_id="one-id", quantity=3)
    assert (other.status, other.document()["errors"][0]["field"]) == (409, "order_id")
    assert place(site, "k-53", token, order_id="one-id").status == 202  # the same order under a new key
    assert {json.loads(record.value or b"")["quantity"] for record in placed(site, "one-id")} == {2}

    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda n: place(site, f"k-54-{n}", token, order_id="at-once", quantity=n), range(1, 9))
        )
    assert sorted(answer.status for answer in answers) == [202] + [409] * 7
    assert len({record.value for record in placed(site, "at-once")}) == 1


def test_a_crash_between_the_broker_and_the_answer_is_healed_by_asking_again(site: Dashboard) -> None:
    token = site.token("orders:write", tenant="demo")
    first = place(site, "k-6", token, order_id="healed", created_at=...)
    with site.engine.begin() as connection:  # as if the process had died before it noted the acknowledgement
        connection.execute(sa.update(m.submissions).values(accepted_at=None))
    again = place(site, "k-6", token, order_id="healed", created_at=...)
    assert (again.status, again.body) == (first.status, first.body)
    assert len({record.value for record in placed(site, "healed")}) == 1


def test_without_a_broker_nothing_is_pretended_and_asking_again_places_it(database: str, broker: Broker) -> None:
    with dashboard(settings(database, NOWHERE, query_timeout=1)) as away:
        token = away.token("orders:write", tenant="demo")
        answer = place(away, "k-7", token, order_id="later")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert "may have been done nevertheless: send it again with the same Idempotency-Key" in answer.text
    config = settings(database, broker.address)
    apply_topics(config.kafka, topics.specs(config))
    with dashboard(config) as back:
        assert placed(back, "later") == []
        assert place(back, "k-7", token, order_id="later").status == 202
        assert len(placed(back, "later")) == 1


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"quantity": "two"}, "quantity", "int"),
        ({"quantity": 0}, "quantity", ">= 1"),
        ({"quantity": "2"}, "quantity", "int"),
        ({"quantity": True}, "quantity", "int"),
        ({"order_id": "a b"}, "order_id", "regex"),
        ({"order_id": ...}, "order_id", "required"),
        ({"quantitty": 1}, "quantitty", "unknown"),
        ({"sell_price": {"amount": 12.5, "currency": "TRY"}}, "sell_price.amount", "str"),
        ({"sell_price": {"amount": "12.50", "currency": "lira"}}, "sell_price.currency", "regex"),
        ({"created_at": "yesterday"}, "created_at", "RFC3339"),
        ({"created_at": "2026-01-31T12:00:00"}, "created_at", "timezone"),
        ({"created_at": "0001-01-01T00:00:00Z"}, "created_at", "calendar"),
        ({"params": {"server": 5}}, "params", "str"),
    ],
)
def test_what_is_wrong_with_an_order_is_named(
    site: Dashboard, changes: dict[str, Any], field: str, expected: str
) -> None:
    answer = place(site, "k-8", site.token("orders:write"), **changes)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/problem+json"
    [wrong] = answer.document()["errors"]
    assert wrong["field"].startswith(field)
    assert expected in wrong["message"]
    assert wrong["field"] in answer.document()["detail"]
    with site.engine.connect() as connection:
        assert connection.execute(sa.select(m.submissions)).all() == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff", b'{"order_id": "\xff"}', b'"order"', b'{"order_id": ' * 10_000]
)
def test_what_is_no_order_at_all_is_refused(site: Dashboard, body: bytes) -> None:
    answer = site.ask("POST", "/api/orders", body, token=site.token(), headers={"idempotency-key": "k"})
    assert answer.status == 400
    assert answer.document()["detail"]


def test_a_body_that_is_too_large_is_not_read(site: Dashboard) -> None:
    body = json.dumps({**ORDER, "extra_field": "x" * 2_000_000}).encode()
    answer = site.ask("POST", "/api/orders", body, token=site.token(), headers={"idempotency-key": "k"})
    assert answer.status == 413


@pytest.mark.parametrize("key", [None, "", "a b", "x" * 201, "schlüssel"])
def test_an_order_needs_a_usable_key(site: Dashboard, key: str | None) -> None:
    answer = place(site, key, site.token("orders:write"))
    assert answer.status == 400
    assert "Idempotency-Key" in answer.document()["errors"][0]["field"]


def test_an_order_is_explained_without_what_its_customer_is_called(site: Dashboard) -> None:
    put_order(site.engine, lines=1, attempts=1)
    put_attempt(
        site.engine,
        "unknown",
        sent_at=BORN,
        expected_cost="31.50",
        cost_amount="31.5",
        cost_currency="TRY",
        pins=["gAAAA-sealed"],
    )
    answer = site.get("/api/orders/demo/o-1", site.token("orders:read", tenant="demo"))
    said = answer.document()
    assert said["why"]["headline"].startswith("It is not known whether znet-main bought it")
    assert "0 of 5 consistent answers" in said["why"]["headline"]  # five is what the znet profile asks for
    assert said["order"]["package_id"] == "pubg-60"
    [attempt] = said["attempts"]
    assert (attempt["state"], attempt["cost"], attempt["pins"]) == ("unknown", {"amount": "31.5", "currency": "TRY"}, 1)
    assert attempt["sent_at"] == "2026-01-01T12:00:00Z"
    assert [(offer["action"], offer["attempt"]) for offer in said["acts"]][:1] == [("check", None)]
    for secret in ("player-123456", "5551112233", "gAAAA"):
        assert secret not in answer.text


def test_an_order_that_is_only_a_dead_letter_is_explained(site: Dashboard) -> None:
    put_dead_letter(site.engine, order_id="o-7", tenant_id="demo")
    said = site.get("/api/orders/demo/o-7", site.token("orders:read")).document()
    assert said["order"] is None
    assert "Never accepted" in said["why"]["headline"]
    assert len(said["dead_letters"]) == 1


@pytest.mark.parametrize("path", ["/api/orders/demo/nothing", "/api/orders/demo/nothing/timeline"])
def test_an_order_that_nobody_knows_is_404(site: Dashboard, path: str) -> None:
    assert site.get(path, site.token()).status == 404


def test_lists_come_page_by_page_and_their_places_are_opaque(site: Dashboard) -> None:
    for number in range(5):
        put_order(site.engine, f"o-{number}")
    token = site.token("orders:read")
    first = site.get("/api/orders?limit=3", token).document()
    last = site.get(f"/api/orders?limit=3&after={first['next']}", token).document()
    assert [row["order_id"] for row in first["rows"] + last["rows"]] == ["o-0", "o-1", "o-2", "o-3", "o-4"]
    assert last["next"] is None
    assert "demo" not in first["next"]
    for wrong in ("x", "Zm9v", "%00", "%C3%BC", "eA=="):
        answer = site.get(f"/api/orders?after={wrong}", token)
        assert (answer.status, answer.document()["errors"][0]["field"]) == (400, "after")


@pytest.mark.parametrize(
    "query",
    ["status=sideways", "limit=0", "limit=9999", "older_than_s=-1", "waiting=nowhere", "tenant=a%20b", "open=perhaps"],
)
def test_a_wrong_filter_is_named(site: Dashboard, query: str) -> None:
    answer = site.get(f"/api/orders?{query}", site.token("orders:read"))
    assert answer.status == 400
    assert answer.document()["errors"][0]["field"] == query.split("=")[0]


def test_pins_are_released_with_their_own_scope_and_an_audit_row(site: Dashboard) -> None:
    done = {"status": "approved", "external_status": "completed"}
    put_order(site.engine, **done, finished_at=BORN, view=done)
    put_attempt(site.engine, "completed", pins=[site.sealer.seal("TR-1234-ĞÜ")])
    path = "/api/orders/demo/o-1/pin"
    may = site.token("pins", tenant="demo", name="ayse")
    assert site.ask("POST", path, token=site.token("orders:read", "actions", "admin")).status == 403
    assert site.ask("POST", path, token=site.token("pins", tenant="kral")).status == 403

    answer = site.ask("POST", path, token=may)

    assert (answer.status, answer.document()) == (200, {"pins": ["TR-1234-ĞÜ"]})
    assert answer.headers["cache-control"] == "no-store"
    with site.engine.connect() as connection:
        [row] = connection.execute(sa.select(m.audit).where(m.audit.c.action == "pin.release")).mappings()
    assert (row["actor"], row["tenant_id"], row["order_id"]) == ("ayse", "demo", "o-1")
    assert row["details"] == {"pins": 1, "through": f"API token {may.split('_')[1]}"}


def test_an_order_without_a_pin_or_of_another_key_releases_none(site: Dashboard) -> None:
    put_order(site.engine, "open")
    done = {"status": "approved", "external_status": "completed"}
    put_order(site.engine, "foreign", **done, finished_at=BORN, view=done)
    put_attempt(site.engine, "completed", "foreign", pins=["gAAAA"])
    token = site.token("pins")
    assert site.ask("POST", "/api/orders/demo/open/pin", token=token).status == 409
    assert site.ask("POST", "/api/orders/demo/foreign/pin", token=token).status == 503
    assert site.ask("POST", "/api/orders/demo/nothing/pin", token=token).status == 404


def test_old_keys_are_forgotten(site: Dashboard) -> None:
    from datetime import timedelta

    from db.control import idempotency_keys

    place(site, "k-9", site.token("orders:write"), order_id="old")
    assert idempotency_keys.forget(site.engine, timedelta(days=1)) == 0
    wait_until(lambda: idempotency_keys.forget(site.engine, timedelta(0)) == 1)
