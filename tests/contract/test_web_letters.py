"""Dead letters and rehearsals over HTTP: what would happen is said first, and nothing is sent by asking."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from agents.domain.routing import Routing
from agents.handlers import commands as handler_commands
from agents.handlers.context import HandlerContext
from agents.runtime.guard import Delivery
from db import models as m
from db.control import stored_config
from orderwatch.dashboard.api import commands
from streams import events, topics
from streams.errors import BrokerUnavailable
from streams.events import Command, Created
from streams.kafka.producer import Told, follow
from tests.contract.ledger_rows import put_dead_letter
from tests.contract.store import store_on
from tests.dashboard import Dashboard, dashboard, settings
from tests.fakes import Sent

GOOD = {
    "order_id": "",
    "tenant_id": "demo",
    "package_id": "pubg-60",
    "user_identifier": "player-123456",
    "quantity": 1,
    "created_at": "2026-01-01T12:00:00Z",
}


def letter(site: Dashboard, order: str, offset: int, tenant: str | None = "demo", **changes: Any) -> int:
    """A created event that was set aside; its number."""
    value = json.dumps({**GOOD, "order_id": order, "tenant_id": tenant, **changes}).encode()
    put_dead_letter(site.engine, offset, order_id=order, value=value, tenant_id=tenant)
    with site.engine.connect() as connection:
        return int(connection.execute(sa.select(sa.func.max(m.dead_letters.c.id))).scalar_one())


def told(site: Dashboard, order: str) -> list[Told]:
    records = follow(site.config.kafka, topics.CREATED, from_start=True, until_end=True)
    return [record for record in records if record.key == order.encode()]


@pytest.fixture
def stocked(site: Dashboard) -> Dashboard:
    """With the catalogue in the database that workers would follow."""
    account = {
        "provider": "znet",
        "currency": "TRY",
        "base_url": "http://127.0.0.1:1/",
        "credentials": {"kod": "${KOD:-one-secret}", "sifre": "${SIFRE:-another-secret}"},
    }
    stored_config.seed(
        site.engine,
        stored_config.CatalogDocs(
            [{"id": "znet-main", "tenant_id": "demo", **account}],
            [{"tenant_id": "demo", "package_id": "pubg-60", "mode": "auto", "primary": "znet-main"}],
            [
                {
                    "tenant_id": "demo",
                    "package_id": "pubg-60",
                    "integration": "znet-main",
                    "provider_package_id": "1",
                    "oyun": "1",
                    "kupur": "UC60",
                    "cost": "31.50",
                }
            ],
        ),
        "test",
    )
    return site


def replay(site: Dashboard, token: str, **asked: Any) -> Any:
    return site.ask("POST", "/api/dead-letters/replay", {"reason": "repaired", **asked}, token=token)


def test_a_letter_is_shown_with_its_event_and_without_its_customer(site: Dashboard) -> None:
    number = letter(site, "w-shown", 1, quantity="two")
    token = site.token("orders:read", tenant="demo")
    [row] = site.get("/api/dead-letters", token).document()["rows"]
    [group] = site.get("/api/dead-letters/groups", token).document()
    answer = site.get(f"/api/dead-letters/{number}", token)
    assert (row["id"], group["reason"], group["count"]) == (number, "malformed", 1)
    assert answer.document()["value"]["order_id"] == "w-shown"
    assert "player-123456" not in answer.text
    assert site.get("/api/dead-letters/99", token).status == 404


def test_a_dry_run_says_what_would_happen_and_cost_and_sends_nothing(stocked: Dashboard) -> None:
    good, bad = letter(stocked, "w-dry", 1), letter(stocked, "w-bad", 2, quantity="two")
    answer = replay(stocked, stocked.token("actions", tenant="demo"), group="malformed", dry_run=True).document()
    first, second = answer["letters"]
    assert (first["id"], first["word"], first["sends"]) == (good, "new", True)
    assert first["cost"] == {"amount": "31.50", "currency": "TRY"}
    assert (second["id"], second["word"], second["sends"]) == (bad, "malformed", False)
    assert (answer["sent"], answer["not_sent"], answer["expected_cost"]) == (0, 1, {"TRY": "31.50"})
    assert told(stocked, "w-dry") == []
    assert len(stocked.get("/api/dead-letters", stocked.token()).document()["rows"]) == 2


def test_letters_are_sent_again_in_the_name_of_the_token(stocked: Dashboard, hands: None) -> None:
    number = letter(stocked, "w-again", 1)
    letter(stocked, "w-still-bad", 2, quantity="two")
    answer = replay(stocked, stocked.token("actions", tenant="demo", name="ayse"), group="malformed").document()
    assert (answer["sent"], answer["not_sent"]) == (1, 1)
    [record] = told(stocked, "w-again")
    assert json.loads(record.value or b"")["order_id"] == "w-again"
    with stocked.engine.connect() as connection:
        [row] = connection.execute(sa.select(m.audit).where(m.audit.c.action == "dead_letter.replay")).mappings()
    assert (row["actor"], row["tenant_id"], row["order_id"]) == ("ayse", "demo", "w-again")
    said = {
        "dead_letter": number,
        "event": None,
        "corrected": [],
        "reason": "repaired",
        "command": answer["command_id"],
    }
    assert row["details"] == said
    command = stocked.get(f"/api/commands/{answer['command_id']}", stocked.token(tenant="demo")).document()
    assert (command["action"], command["by"], command["said"]) == ("replay", "ayse", "sent again: 1")
    again = replay(stocked, stocked.token("actions", tenant="demo"), ids=[number])
    assert (again.status, again.document()["errors"][0]["field"]) == (409, "ids")
    assert len(told(stocked, "w-again")) == 1


def test_a_replay_needs_a_reason_and_a_dry_run_does_not(stocked: Dashboard) -> None:
    number = letter(stocked, "w-why", 1)
    token = stocked.token("actions")
    answer = stocked.ask("POST", "/api/dead-letters/replay", {"ids": [number]}, token=token)
    assert (answer.status, answer.document()["errors"][0]["field"]) == (409, "reason")
    assert told(stocked, "w-why") == []
    asked = {"ids": [number], "dry_run": True}
    assert stocked.ask("POST", "/api/dead-letters/replay", asked, token=token).status == 200


def test_a_replay_is_an_event_that_is_carried_out_once_per_command_id(
    stocked: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "WAIT_S", 0.1)
    number, key = letter(stocked, "w-once", 1), f"id-{uuid4().hex}"
    token = stocked.token("actions", tenant="demo", name="ayse")
    waiting = replay(stocked, token, ids=[number], command_id=key)
    assert (waiting.status, waiting.document()["done"], waiting.document()["sent"]) == (202, None, 0)
    assert told(stocked, "w-once") == []
    records = follow(stocked.config.kafka, topics.COMMAND, from_start=True, until_end=True)
    [record] = [record for record in records if record.key == key.encode()]
    asked = events.decode(Command, record.value)
    assert (asked.action, asked.letters, asked.by, asked.reason) == ("replay", [number], "ayse", "repaired")

    async def deliver(away: int, repeated: bool) -> None:
        delivery = Delivery(topics.COMMAND, 0, 0, record.key, record.value, [], repeated)
        with store_on(stocked.config.database.url.get_secret_value(), 2) as store:
            sent.away = away
            await handler_commands.command(
                HandlerContext(stocked.config, Routing(stocked.config, {}), {}, store.ledger, sent, store.clock),  # type: ignore[arg-type]
                delivery,
            )

    sent = Sent()
    with pytest.raises(BrokerUnavailable):
        asyncio.run(deliver(1, False))
    for repeated in (True, False, True):
        asyncio.run(deliver(0, repeated))
    assert [record.topic for record in sent.records] == [topics.CREATED]
    assert replay(stocked, token, ids=[number], command_id=key).document()["sent"] == 1
    with stocked.engine.connect() as connection:
        assert (
            connection.execute(
                sa.select(sa.func.count()).select_from(m.audit).where(m.audit.c.action == "dead_letter.replay")
            ).scalar_one()
            == 1
        )


def test_a_replay_that_the_broker_did_not_confirm_may_be_asked_for_again(database: str) -> None:
    with dashboard(settings(database, query_timeout=1)) as away:
        number = letter(away, "w-doubt", 1)
        answer = replay(away, away.token("actions"), ids=[number])
        assert (answer.status, "may have been done nevertheless" in answer.document()["detail"]) == (503, True)
        with away.engine.connect() as connection:
            assert connection.execute(sa.select(m.dead_letters.c.replayed_at)).scalar_one() is None


def test_a_corrected_field_replaces_the_wrong_one(stocked: Dashboard, hands: None) -> None:
    number = letter(stocked, "w-fixed", 1, quantity="two")
    token = stocked.token("actions", "orders:write", tenant="demo")
    assert replay(stocked, stocked.token("actions"), ids=[number], fix={"quantity": 2}).status == 403
    wrong = replay(stocked, token, ids=[number], fix={"quantity": "three"})
    assert (wrong.status, wrong.document()["errors"][0]["field"]) == (400, "fix")
    assert "quantity" in wrong.document()["detail"]
    assert replay(stocked, token, ids=[number], fix={"quantity": 2}).document()["sent"] == 1
    [record] = told(stocked, "w-fixed")
    created = events.decode(Created, record.value)
    assert (created.quantity, created.user_identifier) == (2, "player-123456")
    with stocked.engine.connect() as connection:
        [row] = connection.execute(sa.select(m.audit).where(m.audit.c.action == "dead_letter.replay")).mappings()
    said = {"dead_letter": number, "event": events.event_id(created), "corrected": ["quantity"], "reason": "repaired"}
    assert {name: row["details"][name] for name in said} == said


@pytest.mark.parametrize("topic", [topics.COMMAND, topics.STATUS_CHANGED, topics.CHECK])
def test_only_an_order_of_a_shop_can_be_corrected(stocked: Dashboard, topic: str) -> None:
    value = json.dumps({"order_id": "w-forged", "tenant_id": "demo", "by": "ayse"}).encode()
    put_dead_letter(stocked.engine, 1, order_id="w-forged", value=value, tenant_id="demo", topic=topic)
    answer = replay(stocked, stocked.token(), ids=[1], fix={"by": "mehmet"})
    assert (answer.status, answer.document()["errors"][0]["field"]) == (400, "fix")
    assert "only one of orders.created" in answer.document()["detail"]


def test_a_correction_cannot_reach_another_tenant_and_foreign_letters_are_not_there(stocked: Dashboard) -> None:
    mine, theirs = letter(stocked, "w-mine", 1), letter(stocked, "w-theirs", 2, "kral")
    nobodys = letter(stocked, "w-nobodys", 3, None)
    token = stocked.token("actions", "orders:write", tenant="demo")
    for fix in ({"tenant_id": "kral"}, {"order_id": "w-theirs"}):
        assert replay(stocked, token, ids=[mine], fix=fix).status == 400
    for number in (theirs, nobodys):
        assert replay(stocked, token, ids=[mine, number]).status == 404
    seen = replay(stocked, token, group="malformed", dry_run=True).document()["letters"]
    assert [row["id"] for row in seen] == [mine]
    assert [told(stocked, order) for order in ("w-mine", "w-theirs", "w-nobodys")] == [[], [], []]


def test_a_correction_is_for_one_letter(stocked: Dashboard) -> None:
    numbers = [letter(stocked, f"w-two-{n}", n) for n in (1, 2)]
    answer = replay(stocked, stocked.token(), ids=numbers, fix={"quantity": 1})
    assert (answer.status, answer.document()["errors"][0]["field"]) == (409, "ids")


def test_a_route_is_tried_with_the_exact_request_and_without_credentials(stocked: Dashboard) -> None:
    sample = {"tenant_id": "demo", "package_id": "pubg-60", "user_identifier": "player-9"}
    answer = stocked.ask("POST", "/api/routes/test", sample, token=stocked.token("orders:read", tenant="demo"))
    said = answer.document()
    assert (answer.status, said["integration"], said["code"]) == (200, "znet-main", None)
    assert [step["step"] for step in said["steps"]][-1] == "request"
    assert said["steps"][-1]["request"].startswith("GET http://127.0.0.1:1/")
    assert "player-9" in said["steps"][-1]["request"]
    assert "secret" not in answer.text
    foreign = stocked.ask("POST", "/api/routes/test", sample, token=stocked.token("orders:read", tenant="kral"))
    assert foreign.status == 403


def test_a_route_that_is_not_there_says_what_the_order_would_wait_for(stocked: Dashboard) -> None:
    answer = stocked.ask(
        "POST", "/api/routes/test", {"tenant_id": "demo", "package_id": "nothing"}, token=stocked.token("orders:read")
    )
    assert answer.document()["code"] == "no_routing"
    assert answer.document()["integration"] is None
