"""What people and providers make happen over HTTP: commands, acknowledgements, callbacks."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from agents.domain.routing import Routing
from agents.handlers import commands as handler_commands
from agents.handlers.context import HandlerContext
from agents.runtime.guard import Delivery
from db import models as m
from db.control import commands, stored_config, webhook_receipts
from db.rows import Answer as Decided
from db.rows import CommandRecord
from orderwatch.dashboard.api import commands as web_commands
from orderwatch.localservers.bundled import Broker
from streams import events, topics
from streams.events import Check, Command
from streams.kafka.producer import Told, apply_topics, follow
from tests.contract.ledger_rows import BORN, put, put_attempt, put_order
from tests.contract.store import store_on
from tests.dashboard import Answer, Dashboard, dashboard, settings

SECRET = "a secret of the account"


def told(site: Dashboard, topic: str, order_id: str) -> list[Told]:
    """What is on a topic about one order."""
    records = follow(site.config.kafka, topic, from_start=True, until_end=True)
    return [record for record in records if record.key == order_id.encode()]


def act(site: Dashboard, order_id: str, token: str, **asked: Any) -> Answer:
    asked = {"action": "check", "reason": "the customer asks", **asked}
    return site.ask("POST", f"/api/orders/demo/{order_id}/commands", asked, token=token)


class Worker(threading.Thread):
    """Decides the next command about one order as a worker would: receives it, then answers."""

    def __init__(self, site: Dashboard, order_id: str, said: str) -> None:
        super().__init__()
        self._site, self._order_id, self._said = site, order_id, said
        self.start()

    def run(self) -> None:
        while not (records := told(self._site, topics.COMMAND, self._order_id)):
            time.sleep(0.05)
        asked = events.decode(Command, records[0].value)
        commands.receive(
            self._site.engine,
            CommandRecord(
                command_id=asked.command_id,
                tenant_id=asked.tenant_id,
                order_id=asked.order_id,
                action=asked.action,
                by=asked.by,
                reason=asked.reason,
                issued_at=asked.issued_at,
            ),
        )
        commands.answer(
            self._site.engine,
            Decided(tenant_id=asked.tenant_id, command_id=asked.command_id, done=True, said=self._said),
        )


def test_a_command_goes_out_as_an_event_with_its_actor_and_its_decision_comes_back(site: Dashboard) -> None:
    order = f"c-{uuid4().hex}"
    token = site.token("actions", "orders:read", tenant="demo", name="ayse")
    worker = Worker(site, order, "asked for attempt 1")

    answer = act(site, order, token, command_id=f"id-{order}", attempt=1)
    worker.join()

    assert answer.status == 200
    said = answer.document()
    assert (said["done"], said["said"], said["by"]) == (True, "asked for attempt 1", "ayse")
    [record] = told(site, topics.COMMAND, order)
    asked = events.decode(Command, record.value)
    assert (asked.by, asked.reason, asked.attempt, asked.tenant_id) == ("ayse", "the customer asks", 1, "demo")
    assert site.get(f"/api/commands/id-{order}", token).document() == said
    assert site.get(f"/api/commands/id-{order}", site.token(tenant="kral")).status == 404


def test_a_command_that_no_worker_decided_yet_is_202_and_can_be_asked_for(
    site: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_commands, "WAIT_S", 0.1)
    answer = act(site, f"c-{uuid4().hex}", site.token("actions"))
    assert answer.status == 202
    assert answer.document()["done"] is None
    assert answer.document()["command_id"]


def test_a_command_that_was_sent_is_not_called_undone_when_the_database_goes_away(
    database: str, broker: Broker
) -> None:
    config = settings(database, broker.address, query_timeout=3)
    apply_topics(config.kafka, topics.specs(config))
    order = f"c-{uuid4().hex}"
    with dashboard(config) as site, site.engine.connect() as holding:
        token, answers = site.token("actions"), []
        asking = threading.Thread(target=lambda: answers.append(act(site, order, token, command_id=f"id-{order}")))
        asking.start()
        while asking.is_alive() and not told(site, topics.COMMAND, order):
            time.sleep(0.05)
        holding.execute(sa.text("lock table commands"))
        asking.join()
    [answer] = answers
    assert answer.status == 202, answer.text
    assert (answer.document()["command_id"], answer.document()["done"]) == (f"id-{order}", None)


def test_a_command_that_may_have_been_sent_says_so_and_names_its_id(database: str) -> None:
    with dashboard(settings(database, query_timeout=1)) as site:
        answer = act(site, "c-away", site.token("actions"), command_id="id-away")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert "may have been done nevertheless: ask again with command_id id-away" in answer.document()["detail"]


def test_the_same_command_id_goes_out_once_it_is_decided_only_once(site: Dashboard) -> None:
    order, token = f"c-{uuid4().hex}", site.token("actions")
    worker = Worker(site, order, "done")
    first = act(site, order, token, command_id=f"id-{order}")
    worker.join()
    again = act(site, order, token, command_id=f"id-{order}")
    assert (again.status, again.body) == (200, first.body)
    assert len(told(site, topics.COMMAND, order)) == 1
    other = act(site, order, token, command_id=f"id-{order}", action="cancel")
    assert other.status == 409


def test_an_id_of_another_tenant_neither_shows_nor_stands_in_the_way(
    site: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_commands, "WAIT_S", 0.1)
    order, number = f"c-{uuid4().hex}", f"id-{uuid4().hex}"
    commands.receive(
        site.engine,
        CommandRecord(
            command_id=number,
            tenant_id="demo",
            order_id="theirs",
            action="cancel",
            by="ayse",
            reason="r",
            issued_at=BORN,
        ),
    )
    mine = site.token(tenant="kral")
    assert site.get(f"/api/commands/{number}", mine).status == 404
    answer = site.ask(
        "POST",
        f"/api/orders/kral/{order}/commands",
        {"action": "check", "reason": "x", "command_id": number},
        token=mine,
    )
    assert (answer.status, answer.document()["order_id"]) == (202, order)
    [record] = told(site, topics.COMMAND, order)
    asked = events.decode(Command, record.value)
    commands.receive(
        site.engine,
        CommandRecord(
            command_id=number,
            tenant_id="kral",
            order_id=order,
            action="check",
            by=asked.by,
            reason=asked.reason,
            issued_at=BORN,
        ),
    )
    everybodys = site.token()
    found = {
        tenant: site.get(f"/api/commands/{number}?tenant={tenant}", everybodys).document()["order_id"]
        for tenant in ("demo", "kral")
    }
    assert found == {"demo": "theirs", "kral": order}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"action": "buy"}, "action"),
        ({"reason": ""}, "reason"),
        ({"reason": "  "}, "reason"),
        ({"attempt": -1}, "attempt"),
        ({"outcome": "gone"}, "outcome"),
        ({"command_id": "a b"}, "command_id"),
        ({"force": True}, "force"),
    ],
)
def test_what_is_wrong_with_a_command_is_named_and_nothing_goes_out(
    site: Dashboard, asked: dict[str, Any], field: str
) -> None:
    order = f"c-{uuid4().hex}"
    answer = act(site, order, site.token("actions"), **asked)
    assert answer.status == 400
    assert answer.document()["errors"][0]["field"] == field
    assert told(site, topics.COMMAND, order) == []


def test_attention_is_acknowledged_by_id_and_by_code_with_the_name_of_who_did(site: Dashboard, hands: None) -> None:
    for number, (tenant, code) in enumerate(
        (("demo", "expired"), ("demo", "expired"), ("demo", "reversal"), ("kral", "expired"))
    ):
        put(
            site.engine,
            m.attention,
            id=f"a-{number}",
            tenant_id=tenant,
            order_id="o",
            code=code,
            message="m",
            since=BORN,
        )
    token = site.token("actions", "orders:read", tenant="demo", name="ayse")

    one = site.ask("POST", "/api/attention/ack", {"ids": ["a-2", "a-2", "a-3", "nothing"]}, token=token)
    group = site.ask("POST", "/api/attention/ack", {"code": "expired", "reason": "the shop knows"}, token=token)

    assert (one.status, group.status) == (200, 200)
    assert (one.document()["ids"], one.document()["said"]) == (["a-2"], "seen: 1; not there, or seen before: 2")
    assert (group.document()["ids"], group.document()["done"]) == (["a-0", "a-1"], True)
    shown = site.get(f"/api/commands/{group.document()['command_id']}", token).document()
    assert (shown["action"], shown["by"], shown["reason"]) == ("acknowledge", "ayse", "the shop knows")
    assert (shown["tenant_id"], shown["order_id"], shown["done"]) == ("demo", None, True)
    assert site.get("/api/attention", token).document()["rows"] == []
    assert site.get("/api/attention/groups", token).document() == []
    [left] = site.get("/api/attention", site.token("orders:read")).document()["rows"]
    assert left["id"] == "a-3"
    with site.engine.connect() as connection:
        actors = connection.execute(sa.select(m.audit.c.actor).where(m.audit.c.action == "attention.ack")).scalars()
        assert list(actors) == ["ayse"] * 3
        reasons = connection.execute(
            sa.select(m.audit.c.details["reason"].astext)
            .order_by(m.audit.c.id)
            .where(m.audit.c.action == "attention.ack")
        ).scalars()
        assert list(reasons) == ["seen", "the shop knows", "the shop knows"]
        steps = connection.execute(
            sa.select(m.order_events.c.actor, m.order_events.c.details["command"].astext).where(
                m.order_events.c.step == "acknowledged"
            )
        ).all()
        assert {tuple(step) for step in steps} == {
            ("operator:ayse", one.document()["command_id"]),
            ("operator:ayse", group.document()["command_id"]),
        }


def test_an_acknowledgement_is_an_event_that_is_carried_out_once_per_command_id(
    site: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_commands, "WAIT_S", 0.1)
    put(site.engine, m.attention, id="a-0", tenant_id="demo", order_id="o", code="expired", message="m", since=BORN)
    token, number = site.token("actions", "orders:read", tenant="demo", name="ayse"), f"id-{uuid4().hex}"

    def acknowledge(**asked: Any) -> Answer:
        return site.ask("POST", "/api/attention/ack", {"command_id": number, **asked}, token=token)

    waiting = acknowledge(ids=["a-0"], reason="the shop knows")
    assert (waiting.status, waiting.document()["done"], waiting.document()["ids"]) == (202, None, [])
    [record] = told(site, topics.COMMAND, number)
    asked = events.decode(Command, record.value)
    assert (asked.action, asked.attentions, asked.tenant_id) == ("acknowledge", ["a-0"], "demo")
    assert (asked.by, asked.reason, asked.issued_at is not None) == ("ayse", "the shop knows", True)
    with store_on(site.config.database.url.get_secret_value(), 2) as store:
        deps = HandlerContext(site.config, Routing(site.config, {}), {}, store.ledger, None, store.clock)  # type: ignore[arg-type]
        for repeated in (False, False, True):
            delivery = Delivery(topics.COMMAND, 0, 0, record.key, record.value, [], repeated)
            asyncio.run(handler_commands.command(deps, delivery))
    assert acknowledge(ids=["a-0"]).document()["ids"] == ["a-0"]
    assert len(told(site, topics.COMMAND, number)) == 1
    with site.engine.connect() as connection:
        assert (
            connection.execute(
                sa.select(sa.func.count()).select_from(m.audit).where(m.audit.c.action == "attention.ack")
            ).scalar_one()
            == 1
        )
    clash = site.ask("POST", "/api/dead-letters/replay", {"ids": [1], "reason": "r", "command_id": number}, token=token)
    assert (clash.status, clash.document()["errors"][0]["field"]) == (409, "command_id")


def signed(body: bytes, secret: str = SECRET, *, at: float | None = None, number: str = "msg-1") -> dict[str, str]:
    """The headers of a callback, by the letter of Standard Webhooks and without its library."""
    stamp = str(int(time.time() if at is None else at))
    key = base64.b64decode(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else secret.encode()
    mac = hmac.new(key, f"{number}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": number,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


@pytest.fixture
def hooked(database: str, broker: Broker) -> Iterator[Dashboard]:
    """A dashboard whose znet-main has a callback secret in the environment, named in the stored catalogue."""
    config = settings(database, broker.address)
    apply_topics(config.kafka, topics.specs(config))
    with dashboard(config, {"ZNET_CALLBACK": SECRET}) as site:
        known(site)
        yield site


def known(site: Dashboard) -> None:
    """The accounts of the stored catalogue; the first one may call back."""
    account = {"provider": "znet", "currency": "TRY", "base_url": "http://127.0.0.1:1/"}
    names = {"kod": "${KOD:-demo}", "sifre": "${SIFRE:-demo}"}
    stored_config.seed(
        site.engine,
        stored_config.CatalogDocs(
            [
                {
                    "id": "znet-main",
                    "tenant_id": "demo",
                    **account,
                    "credentials": {**names, "callback_secret": "${ZNET_CALLBACK}"},
                },
                {"id": "znet-b", "tenant_id": "kral", **account, "credentials": names},
            ],
            [],
            [],
        ),
        "test",
    )


def call(site: Dashboard, said: object, integration: str = "znet-main", **how: Any) -> Answer:
    how = {"number": uuid4().hex, **how}
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return site.ask("POST", f"/hooks/{integration}", body, headers=signed(body, **how))


def the_attempt(site: Dashboard) -> dict[str, Any]:
    with site.engine.connect() as connection:
        return dict(connection.execute(sa.select(m.attempts)).mappings().one())


def test_a_signed_callback_asks_the_provider_now_and_settles_nothing(hooked: Dashboard) -> None:
    order = f"h-{uuid4().hex}"
    put_order(hooked.engine, order, lines=1, attempts=1)
    put_attempt(hooked.engine, "accepted", order, reference="7001", external_order_id="X-1", check_number=3)
    before = the_attempt(hooked)

    for said in ({"reference": "7001"}, {"external_order_id": "X-1", "status": "completed", "pin": "1234"}):
        answer = call(hooked, said)
        assert (answer.status, answer.document()) == (202, {"asked": True})

    checks = [events.decode(Check, record.value) for record in told(hooked, topics.CHECK, order)]
    assert {(check.reason, check.attempt, check.check_number) for check in checks} == {("callback", 1, 3)}
    assert the_attempt(hooked) == before


def test_a_callback_that_comes_again_asks_nothing_more(hooked: Dashboard) -> None:
    order = f"h-{uuid4().hex}"
    put_order(hooked.engine, order, lines=1, attempts=1)
    put_attempt(hooked.engine, "accepted", order, reference="7011")
    answers = [call(hooked, {"reference": "7011"}, number=number) for number in ("one", "one", "two")]
    assert [(answer.status, answer.document()["asked"]) for answer in answers] == [
        (202, True),
        (202, False),
        (202, True),
    ]
    with hooked.engine.begin() as connection:
        connection.execute(sa.update(m.callbacks).values(at=sa.func.now() - webhook_receipts.KEPT * 2))
    webhook_receipts.forget(hooked.engine)
    assert call(hooked, {"reference": "7011"}, number="one").document() == {"asked": True}


def test_a_callback_that_could_not_be_passed_on_may_come_again(database: str) -> None:
    with dashboard(settings(database, query_timeout=1), {"ZNET_CALLBACK": SECRET}) as site:
        known(site)
        put_order(site.engine, "h-away", lines=1, attempts=1)
        put_attempt(site.engine, "accepted", "h-away", reference="7012")
        assert call(site, {"reference": "7012"}, number="one").status == 503
        with site.engine.connect() as connection:
            assert connection.execute(sa.select(m.callbacks)).all() == []


def test_a_callback_about_an_attempt_that_ended_asks_nothing(hooked: Dashboard) -> None:
    put_order(hooked.engine, "h-ended", lines=1)
    put_attempt(hooked.engine, "failed", "h-ended", reference="7002")
    assert call(hooked, {"reference": "7002"}).document() == {"asked": False}
    assert told(hooked, topics.CHECK, "h-ended") == []


def test_a_callback_that_is_not_genuine_is_refused_and_tells_nothing(hooked: Dashboard) -> None:
    put_order(hooked.engine, "h-safe", lines=1)
    put_attempt(hooked.engine, "accepted", "h-safe", reference="7003")
    body = b'{"reference": "7003"}'
    right = signed(body)
    attempts = [
        ("znet-main", signed(body, "another secret")),
        ("znet-main", signed(b'{"reference": "7004"}')),
        ("znet-main", signed(body, at=time.time() - 600)),
        ("znet-main", signed(body, at=time.time() + 600)),
        ("znet-main", {**right, "webhook-id": "msg-2"}),
        ("znet-main", {**right, "webhook-timestamp": "nan"}),
        ("znet-main", {**right, "webhook-signature": "v1"}),
        ("znet-main", {**right, "webhook-signature": "v1,%%%"}),
        ("znet-main", {**right, "webhook-signature": right["webhook-signature"].replace("v1", "v0")}),
        ("znet-b", right),  # has no secret
        ("nowhere", right),
    ]
    answers = [hooked.ask("POST", f"/hooks/{name}", body, headers=headers) for name, headers in attempts]
    assert {(answer.status, answer.body) for answer in answers} == {(401, answers[0].body)}
    assert told(hooked, topics.CHECK, "h-safe") == []


def test_a_callback_names_an_attempt_of_its_own_integration(hooked: Dashboard) -> None:
    put_order(hooked.engine, "h-kral", "kral", lines=1)
    put_attempt(hooked.engine, "accepted", "h-kral", "kral", reference="7005", integration_id="znet-b")
    assert call(hooked, {"reference": "7005"}).status == 404
    nothing = call(hooked, {"status": "completed"})
    assert (nothing.status, nothing.document()["errors"][0]["field"]) == (400, "reference")


def test_the_numbers_of_the_moment_and_the_accounts_are_shown(hooked: Dashboard) -> None:
    put_order(hooked.engine, "h-open", lines=1)
    put_attempt(hooked.engine, "unknown", "h-open", expected_cost="31.50")
    token = hooked.token("orders:read", tenant="demo")
    numbers = hooked.get("/api/overview", token).document()
    assert numbers["overview"]["states"] == {"not_sent": 1}
    [risk] = numbers["overview"]["risk"]
    assert (risk["amount"], risk["currency"]) == ("31.50", "TRY")
    [account] = hooked.get("/api/integrations", token).document()
    assert account["integration"]["integration_id"] == "znet-main"
    assert SECRET not in hooked.get("/api/integrations", token).text
