"""A token of one tenant reads nothing of another and changes nothing there: every route of the application is tried.

The routes come from the application itself. A route with a parameter that is not in ``FILLED`` fails the test, so a
new one has to be thought about here.
"""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from db import models as m
from db.control import stored_config
from db.rows import CommandRecord
from orderwatch.dashboard.app import create, handlers
from orderwatch.dashboard.auth import PUBLIC
from orderwatch.dashboard.context import gather
from orderwatch.localservers.bundled import Broker
from tests.contract.ledger_rows import BORN, put, put_attempt, put_dead_letter, put_order
from tests.dashboard import Dashboard, dashboard, settings

#: In everything that belongs to the other tenant.
MARK = "kralsecret"
ORDER = f"{MARK}-order"

FILLED = {
    "tenant": "kral",
    "order": ORDER,
    "number": f"{MARK}-command",
    "integration": "znet-b",
    "letter": "2",
    "package": f"{MARK}-package",
    "language": "ar",
}
#: What may be sent to routes that change something; any other gets an empty object.
BODIES: dict[str, Any] = {
    "/api/orders": {"tenant_id": "kral", "order_id": f"{MARK}-new", "package_id": "p", "user_identifier": "u"},
    "/api/orders/{tenant}/{order}/commands": {"action": "check", "reason": "curious"},
    "/api/integrations/{integration}/switch": {"enabled": False, "reason": "curious"},
    "/api/dead-letters/replay": {"ids": [2], "group": "malformed", "reason": "curious"},
    "/api/routes/test": {"tenant_id": "kral", "package_id": f"{MARK}-package"},
    "/api/attention/ack": {"ids": [f"{MARK}-attention"], "code": "expired"},
}
NEVER_ENDS = "/api/live"
KEY = {"idempotency-key": "one"}


def routes() -> list[tuple[str, str, str]]:
    """(method, path, what it needs) of every route but those for everybody."""
    app = create(gather(settings("postgresql://nobody@127.0.0.1:1/none"), None, {}))
    found = [
        (method, re.sub(r"\{(\w+):\w+\}", r"{\1}", path), handler.opt["needs"])
        for path, handler in handlers(app)
        for method in sorted(getattr(handler, "http_methods", ["GET"]))
        if method != "HEAD"
    ]
    assert len(found) > 20
    return found


ROUTES = routes()
GUARDED = [(method, path) for method, path, needs in ROUTES if needs != PUBLIC]


@pytest.fixture(scope="module")
def site(broker: Broker, postgres: Any, template: str) -> Iterator[Dashboard]:
    """One dashboard for all of this, with an order of each tenant and all that hangs on it."""
    from tests.conftest import run_sql

    run_sql(postgres, f"create database tenants template {template}")
    config = settings(postgres.url_of("tenants"), broker.address, session_key="k" * 40)
    with dashboard(config) as running:
        fill(running.engine)
        yield running
    run_sql(postgres, "drop database tenants with (force)")


def fill(engine: sa.Engine) -> None:
    stored_config.seed(
        engine,
        stored_config.CatalogDocs(
            [
                {"id": name, "tenant_id": tenant, "provider": "codes", "options": {"note": note}}
                for name, tenant, note in (("znet-main", "demo", "ours"), ("znet-b", "kral", MARK))
            ],
            [
                {"tenant_id": tenant, "package_id": f"{mark}-package", "mode": "manual"}
                for tenant, mark in (("demo", "ours"), ("kral", MARK))
            ],
            [],
        ),
        "test",
    )
    for tenant, order in (("demo", "ours"), ("kral", ORDER)):
        done = {"status": "approved", "external_status": "completed"}
        put_order(engine, order, tenant, **done, finished_at=BORN, view=done)
        put_attempt(engine, "completed", order, tenant, pins=["gAAAA"], message=order)
        put(
            engine,
            m.attention,
            id=f"{order.removesuffix('-order')}-attention",
            tenant_id=tenant,
            order_id=order,
            code="expired",
            message=order,
            since=BORN,
        )
        put(engine, m.order_events, tenant_id=tenant, order_id=order, step="accepted", actor="dispatch", details={})
        value = json.dumps({"tenant_id": tenant, "order_id": order}).encode()
        put_dead_letter(
            engine, 1 if tenant == "kral" else 2, order_id=order, value=value, error=order, tenant_id=tenant
        )
    told = CommandRecord(
        command_id=f"{MARK}-command",
        tenant_id="kral",
        order_id=ORDER,
        action="check",
        by=MARK,
        reason=MARK,
        issued_at=BORN,
    )
    put(
        engine,
        m.commands,
        **{
            name: getattr(told, name)
            for name in ("command_id", "tenant_id", "order_id", "action", "by", "reason", "issued_at")
        },
    )


def filled(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda name: FILLED[name[1]], path)


def said(text: str) -> str:
    """Without what a page merely repeats of the question: a field of a form, and where a change of language leads."""
    return re.sub(r'value="[^"]*"|next=[^"]*"|<bdi>|</bdi>', "", text).replace(FILLED["number"], "")


def body_for(method: str, path: str) -> object:
    return None if method == "GET" else BODIES.get(path, {})


def everything_of_kral(engine: sa.Engine) -> list[Any]:
    """What a foreign token must not change."""
    with engine.connect() as connection:
        return [
            sorted(map(str, connection.execute(sa.select(table)).all()))
            for table in m.metadata.sorted_tables
            if table.name not in ("tokens",)
        ]


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_without_a_token_there_is_nothing(site: Dashboard, method: str, path: str) -> None:
    answer = site.ask(method, filled(path), body_for(method, path))
    expected = 401 if path.startswith(("/api", "/metrics")) else 303 if method == "GET" else 403
    assert answer.status == expected
    assert MARK not in answer.text.replace(ORDER, "") and "ours" not in answer.text


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_a_token_without_any_scope_gets_nothing(site: Dashboard, method: str, path: str) -> None:
    none = site.token("metrics", tenant="kral")
    answer = site.ask(method, filled(path), body_for(method, path), token=none)
    assert answer.status == 403


@pytest.mark.parametrize(("method", "path"), [route for route in GUARDED if route[1] != NEVER_ENDS])
def test_a_token_of_another_tenant_sees_and_changes_nothing(site: Dashboard, method: str, path: str) -> None:
    """With every scope there is, and asked for the other tenant in every way a route has."""
    foreign = site.token(tenant="demo")
    before = everything_of_kral(site.engine)
    for query in ("", "?tenant=kral", f"?number={ORDER}", "?limit=200"):
        answer = site.ask(method, filled(path) + query, body_for(method, path), token=foreign, headers=KEY)
        assert answer.status in ((403,) if "{tenant}" in path else (200, 202, 400, 403, 404)), (query, answer.text)
        assert MARK not in said(answer.text), (query, answer.text)
        assert '"kral"' not in answer.text, query
    after = everything_of_kral(site.engine)
    assert [row for table in after for row in table if MARK in row] == [
        row for table in before for row in table if MARK in row
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [route for route in GUARDED if route[0] == "GET" and route[1].startswith("/api/") and route[1] != NEVER_ENDS],
)
def test_the_tenants_own_token_sees_it(site: Dashboard, method: str, path: str) -> None:
    """Else the tests above would prove nothing."""
    answer = site.get(filled(path), site.token(tenant="kral"))
    assert answer.status == 200, answer.text
    assert any(word in answer.text for word in (MARK, '"kral"', "dispatch", "expired", "malformed", "completed"))
    assert "ours" not in answer.text


def test_a_token_of_all_tenants_sees_both(site: Dashboard) -> None:
    rows = site.get("/api/orders", site.token("orders:read")).document()["rows"]
    assert {row["tenant_id"] for row in rows} == {"demo", "kral"}
    only = site.get("/api/orders?tenant=kral", site.token("orders:read")).document()["rows"]
    assert {row["tenant_id"] for row in only} == {"kral"}


def test_every_parameter_of_a_route_is_known_to_this_test() -> None:
    named = {name for _, path, _ in ROUTES for name in re.findall(r"\{(\w+)\}", path)}
    assert named - {"file_path", "path"} <= FILLED.keys()


def test_the_routes_for_everybody_are_these() -> None:
    assert {path for _, path, needs in ROUTES if needs == PUBLIC} == {
        "/login",
        "/logout",
        "/language/{language}",
        "/health",
        "/hooks/{integration}",
        "/static/{file_path}",
        "/api/openapi.json",
        "/api/openapi.json/openapi.json",
        "/api/openapi.json/{path}",
    }


def test_the_age_of_an_order_filters(site: Dashboard) -> None:
    token = site.token("orders:read")
    assert site.get("/api/orders?older_than_s=60", token).document()["rows"]
    assert not site.get(f"/api/orders?older_than_s={int(timedelta(9000).total_seconds())}", token).document()["rows"]
