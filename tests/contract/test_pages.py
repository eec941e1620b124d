"""The pages, from the real server on real PostgreSQL: whole without a script, and honest about trouble."""

from dataclasses import dataclass

import pytest

from db import identity
from db import models as m
from db.control import stored_config
from tests.contract.ledger_rows import BORN, put, put_attempt, put_dead_letter, put_order
from tests.dashboard import Answer, Dashboard

PAGES = [
    "/",
    "/orders",
    "/orders?state=open",
    "/orders/demo/o-1",
    "/attention",
    "/dead-letters",
    "/dead-letters/1",
    "/integrations",
    "/routes",
    "/routes/demo/pubg-60",
]


@dataclass
class Site:
    """A dashboard with a little of everything in it."""

    dashboard: Dashboard

    def get(self, path: str, *scopes: str, tenant: str | None = None, language: str = "en") -> Answer:
        token = self.dashboard.token(*scopes, tenant=tenant)
        headers = {"accept-language": language}
        return self.dashboard.ask("GET", path, token=token, headers=headers)


@pytest.fixture
def empty(site: Dashboard) -> Site:
    return Site(site)


@pytest.fixture
def full(empty: Site) -> Site:
    engine = empty.dashboard.engine
    stored_config.seed(engine, _Docs, "test")
    put_order(engine, lines=1, external_status="unknown", view={"user_identifier": "player-123456"})
    put_attempt(engine, "unknown", sent_at=BORN, message="<b>zaman aşımı</b>")
    put(
        engine,
        m.order_events,
        tenant_id="demo",
        order_id="o-1",
        step="checked",
        actor="check",
        attempt=1,
        details={"outcome": "not_found", "raw": "<script>alert(1)</script>"},
    )
    put(engine, m.attention, id="a", tenant_id="demo", order_id="o-1", code="outcome_unknown", message="m", since=BORN)
    put_dead_letter(engine, tenant_id="demo")
    return empty


class _Docs:
    integrations = (
        {
            "id": "znet-main",
            "tenant_id": "demo",
            "provider": "znet",
            "currency": "TRY",
            "base_url": "http://127.0.0.1:1",
            "credentials": {"kod": "${NONE:-demo}", "sifre": "${NONE:-demo}"},
        },
    )
    routes = ({"tenant_id": "demo", "package_id": "pubg-60", "mode": "auto", "primary": "znet-main"},)
    mappings = ()


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_whole_in_every_language(full: Site, path: str) -> None:
    for language, direction in (("en", "ltr"), ("ar", "rtl"), ("tr", "ltr")):
        answer = full.get(path, language=f"{language},en;q=0.5")
        assert answer.status == 200, answer.text
        assert f'<html lang="{language}" dir="{direction}"' in answer.text
        assert "<h1" in answer.text
        assert "{{" not in answer.text and "None" not in answer.text


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_an_inline_style_or_script_or_an_address_elsewhere(full: Site, path: str) -> None:
    text = full.get(path).text
    assert " style=" not in text
    assert text.count("<script") == text.count('<script src="/static/')
    assert "http://" not in text.replace("http://127.0.0.1", "") and "https://" not in text


def test_what_a_provider_said_is_text_and_never_markup(full: Site) -> None:
    text = full.get("/orders/demo/o-1").text
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text
    assert "<b>zaman" not in text


def test_no_field_of_a_customer_is_shown_whole(full: Site) -> None:
    for path in PAGES:
        assert "player-123456" not in full.get(path).text, path


def test_an_order_says_what_it_waits_for_and_what_may_be_done(full: Site) -> None:
    text = full.get("/orders/demo/o-1").text
    assert "It is not known whether znet-main bought it" in text
    assert 'data-post="/api/orders/demo/o-1/commands"' in text


def test_a_token_that_may_only_look_is_offered_no_act(full: Site) -> None:
    for path in PAGES:
        text = full.get(path, "orders:read").text
        assert 'data-open="act-' not in text and 'data-post="/api/orders' not in text
        assert 'data-open="ack-' not in text and 'data-open="switch-' not in text
        assert 'data-open="replay' not in text
    assert "lacks the scope actions" in full.get("/orders/demo/o-1", "orders:read").text


def test_a_tenant_sees_its_own_pages_and_is_told_when_one_is_not(full: Site) -> None:
    assert full.get("/orders/demo/o-1", tenant="demo").status == 200
    foreign = full.get("/orders/demo/o-1", tenant="kral")
    assert foreign.status == 403 and "Not allowed" in foreign.text
    assert full.get("/dead-letters/1", tenant="kral").status == 404
    for path in ("/", "/orders", "/attention", "/dead-letters", "/integrations", "/routes"):
        assert "o-1" not in full.get(path, tenant="kral").text.replace("no-1", ""), path


def test_empty_and_absent_and_wrong_and_unavailable_look_different(empty: Site) -> None:
    assert "No order ever came." in empty.get("/orders").text
    assert "No order fits." in empty.get("/orders?number=x").text
    assert "Not here" in empty.get("/orders/demo/none").text
    wrong = empty.get("/orders?state=sideways")
    assert wrong.status == 400 and "This cannot be asked like that" in wrong.text
    assert empty.get("/orders?after=x").status == 400
    assert "Nothing waits for a person." in empty.get("/attention").text


def test_a_search_that_finds_one_order_opens_it(full: Site) -> None:
    answer = full.get("/orders?number=demo-o-1-1")
    assert (answer.status, answer.headers["location"]) == (303, "/orders/demo/o-1")


def test_a_language_is_remembered_and_never_leads_elsewhere(empty: Site) -> None:
    answer = empty.dashboard.get("/language/ar?next=/orders%3Fstate%3Dopen")
    assert (answer.status, answer.headers["location"]) == (303, "/orders?state=open")
    assert any(cookie.startswith("orderwatch_language=ar") for cookie in answer.cookies)
    assert empty.dashboard.get("/language/ar?next=//elsewhere.example/").headers["location"] == "/"


def test_a_page_asks_a_stranger_to_log_in_in_his_language(empty: Site) -> None:
    answer = empty.dashboard.ask("GET", "/login", headers={"accept-language": "ar"})
    assert answer.status == 200 and 'dir="rtl"' in answer.text


def test_the_overview_says_that_nothing_is_sent_while_the_ledger_is_behind(empty: Site) -> None:
    sentence = "Nothing is sent: the database is older than the log."
    before = identity.read(empty.dashboard.engine)
    assert sentence not in empty.get("/").text
    identity.set_behind(empty.dashboard.engine, "restored")
    shown = empty.get("/").text
    assert sentence in shown and "orderwatch db recover" in shown
    identity.recovered(empty.dashboard.engine, before.identity, before.epoch, "tester", {})
    assert sentence not in empty.get("/").text
