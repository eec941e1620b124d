"""News over server-sent events: of the caller's tenant, without secrets, and nobody is waited for."""

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from db.control import api_tokens
from orderwatch.dashboard import event_stream as web_live
from orderwatch.dashboard.api import live as api_live
from streams import topics
from streams.events import Amount, Attention, Event, StatusChanged
from streams.kafka.producer import ProducerThread, message
from tests.contract.test_web_access import cookie, log_in
from tests.dashboard import Dashboard, dashboard, settings
from tests.waiting import wait_until

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Stream:
    """An open connection to /api/live."""

    def __init__(self, site: Dashboard, token: str, **headers: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=20)
        self._connection.request("GET", "/api/live", headers={"authorization": f"Bearer {token}", **headers})
        self.answer = self._connection.getresponse()
        assert self.answer.status == 200
        assert self.answer.headers["content-type"] == "text/event-stream; charset=utf-8"

    def next(self) -> tuple[str, Any]:
        """The next event; comments are events of the kind ``:``."""
        kind, data = "", ""
        while line := self.answer.readline().decode().strip():
            name, _, value = line.partition(":")
            kind = ":" if not name else value.strip() if name == "event" else kind
            data = value if name == "data" else data
        return kind, json.loads(data) if data else None

    def until(self, kind: str, order_id: str) -> Any:
        """The next event of a kind about an order."""
        while True:
            found, said = self.next()
            if not found:
                raise AssertionError("the stream ended")
            if found == kind and said.get("order_id") == order_id:
                return said

    def close(self) -> None:
        self.answer.close()
        self._connection.close()


@contextmanager
def stream(site: Dashboard, token: str, **headers: str) -> Iterator[Stream]:
    opened = Stream(site, token, **headers)
    try:
        assert opened.next() == ("open", {})
        yield opened
    finally:
        opened.close()


@pytest.fixture
def pump(site: Dashboard) -> Iterator[ProducerThread]:
    """A producer of ours; the dashboard follows both topics when the test begins."""
    made = ProducerThread(site.config.kafka)
    heard = site.server.live.heard

    def both_are_heard() -> bool:
        say(made, changed(f"probe-{uuid4().hex}"), topics.STATUS_CHANGED)
        say(made, raised(f"probe-{uuid4().hex}"), topics.ATTENTION)
        return all(heard.values())

    wait_until(both_are_heard, timeout_s=30)
    yield made
    made.close()


def say(pump: ProducerThread, event: Event, topic: str) -> None:
    pump.submit(message(event, topic), lambda error, record: None)


def changed(order_id: str, tenant_id: str = "demo", version: int = 1) -> StatusChanged:
    return StatusChanged(
        tenant_id=tenant_id,
        order_id=order_id,
        version=version,
        status="approved",
        external_status="completed",
        previous_external_status="sent",
        reason="provider",
        checks=2,
        occurred_at=NOW,
        pins=["gAAAA-sealed"],
        message="for player-123456",
        cost=Amount(31, "TRY"),
        provider_referans="7000",
    )


def raised(order_id: str, tenant_id: str | None = "demo") -> Attention:
    return Attention(tenant_id=tenant_id, order_id=order_id, code="expired", message="late", since=NOW)


def test_changes_and_attention_are_told_as_they_happen_and_without_secrets(
    site: Dashboard, pump: ProducerThread
) -> None:
    order = f"l-{uuid4().hex}"
    with stream(site, site.token("orders:read", tenant="demo")) as heard:
        say(pump, changed(order), topics.STATUS_CHANGED)
        said = heard.until("status", order)
        say(pump, raised(order), topics.ATTENTION)
        attention = heard.until("attention", order)
    assert said == {
        "tenant_id": "demo",
        "order_id": order,
        "version": 1,
        "status": "approved",
        "external_status": "completed",
        "previous_external_status": "sent",
        "reason": "provider",
        "checks": 2,
        "occurred_at": "2026-01-01T12:00:00Z",
        "cost": {"amount": "31", "currency": "TRY"},
    }
    assert (attention["code"], attention["message"]) == ("expired", "late")


def test_a_listener_hears_its_own_tenant_only(site: Dashboard, pump: ProducerThread) -> None:
    mine, theirs = f"l-{uuid4().hex}", f"l-{uuid4().hex}"
    of_kral, of_all = site.token("orders:read", tenant="kral"), site.token("orders:read")
    with stream(site, of_kral) as kral, stream(site, of_all) as all_:
        for event in (changed(theirs), raised(theirs), raised(f"of-nobody-{theirs}", None), changed(mine, "kral")):
            say(pump, event, topics.STATUS_CHANGED if isinstance(event, StatusChanged) else topics.ATTENTION)
        told: set[str] = set()
        while not told >= {theirs, f"of-nobody-{theirs}", mine}:
            told.add(all_.next()[1]["order_id"])
        say(pump, raised(mine, "kral"), topics.ATTENTION)
        heard = [(kind, said["order_id"]) for kind, said in (kral.next(), kral.next())]
    assert sorted(heard) == [("attention", mine), ("status", mine)]


def test_an_older_version_of_an_order_is_not_told(site: Dashboard, pump: ProducerThread) -> None:
    order = f"l-{uuid4().hex}"
    with stream(site, site.token("orders:read")) as heard:
        for version in (2, 1, 2, 3):
            say(pump, changed(order, version=version), topics.STATUS_CHANGED)
        assert [heard.until("status", order)["version"] for _ in range(2)] == [2, 3]


def test_a_last_event_id_is_tolerated(site: Dashboard, pump: ProducerThread) -> None:
    order = f"l-{uuid4().hex}"
    with stream(site, site.token("orders:read"), **{"last-event-id": "17"}) as heard:
        say(pump, changed(order), topics.STATUS_CHANGED)
        assert heard.until("status", order)["version"] == 1


def test_silence_is_filled_and_ends_when_the_token_is_revoked(site: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_live, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(api_live, "LOOK_S", 0.2)
    token = site.token("orders:read")
    with stream(site, token) as heard:
        while heard.next() != (":", None):
            pass
        api_tokens.revoke(site.engine, token.split("_")[1], "test")
        while heard.next() != ("", None):
            pass


def test_a_revoked_token_hears_nothing_more_while_events_flow(site: Dashboard, pump: ProducerThread) -> None:
    token = site.token("orders:read")
    with stream(site, token) as heard:
        api_tokens.revoke(site.engine, token.split("_")[1], "test")
        give_up_at = time.monotonic() + 3 * api_live.LOOK_S
        kind = "status"
        while kind:
            assert time.monotonic() < give_up_at
            say(pump, raised(f"l-{uuid4().hex}"), topics.ATTENTION)
            kind, _ = heard.next()


def test_a_stream_ends_with_its_log_in(database: str) -> None:
    with dashboard(settings(database, session_key="k" * 32, session=2)) as site:
        _, jar = log_in(site, site.token("orders:read"))
        began = time.monotonic()
        opened = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=20)
        opened.request("GET", "/api/live", headers={"cookie": cookie(jar)})
        answer = opened.getresponse()
        assert (answer.status, b"event: open" in answer.read()) == (200, True)  # read returns at the end
        assert time.monotonic() - began < 6
        opened.close()


def test_one_token_takes_so_many_streams_and_no_more(site: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_live, "MOST_PER_TOKEN", 2)
    mine, other = site.token("orders:read"), site.token("orders:read")
    with stream(site, mine), stream(site, mine):
        answer = site.get("/api/live", mine)
        assert (answer.status, "listeners of this token" in answer.document()["detail"]) == (429, True)
        with stream(site, other):
            pass


def test_who_takes_nothing_is_let_go_and_others_are_served(
    site: Dashboard, pump: ProducerThread, monkeypatch: pytest.MonkeyPatch, expect_errors: Callable[[str], None]
) -> None:
    """Its queue is bounded, and so is the time for one send: it holds neither memory nor a place for ever."""
    expect_errors("ASGI callable returned without completing response")
    monkeypatch.setattr(web_live, "SEND_TIMEOUT_S", 0.5)
    live = site.server.live
    before = live.listening()
    slow = socket.create_connection(("127.0.0.1", urlsplit(site.url).port or 0))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    asked = ("GET /api/live HTTP/1.1", "host: x", f"authorization: Bearer {site.token('orders:read')}", "", "")
    slow.sendall("\r\n".join(asked).encode())
    wait_until(lambda: live.listening() == before + 1)
    order = f"l-{uuid4().hex}"
    with stream(site, site.token("orders:read")) as quick:

        def told_on() -> bool:
            for _ in range(500):
                say(pump, raised("of-no-interest"), topics.ATTENTION)
            last = f"l-{uuid4().hex}"
            say(pump, raised(last), topics.ATTENTION)
            quick.until("attention", last)
            return live.listening() == before + 1

        wait_until(told_on, timeout_s=30)
        say(pump, raised(order), topics.ATTENTION)
        assert quick.until("attention", order)
    slow.close()


def test_a_queue_holds_no_more_than_it_may() -> None:
    listener = web_live.Listener(lambda tenant: True)
    for _ in range(web_live.MOST_WAITING + 10):
        listener.put(web_live.News(None, b"x"))
    assert listener.lost
    assert listener._queue.qsize() == web_live.MOST_WAITING


def test_a_dashboard_that_stops_ends_its_streams_at_once(database: str) -> None:
    with dashboard(settings(database)) as site:
        opened = Stream(site, site.token("orders:read"))
        assert opened.next() == ("open", {})
        site.server.let_go()
        assert opened.next() == ("", None)
        opened.close()
