"""Who may use the dashboard and its API: tokens, scopes, log-ins, and what surrounds every answer."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa

from db import models as m
from db.control import api_tokens
from orderwatch.dashboard import auth
from orderwatch.dashboard.api import system as site_of_itself
from tests.contract.ledger_rows import put
from tests.dashboard import Answer, Dashboard, dashboard, settings
from tests.waiting import wait_until


def log_in(site: Dashboard, token: str, goes_to: str = "/") -> tuple[Answer, dict[str, str]]:
    """The answer to the form, and the cookies a browser would hold then."""
    page = site.get("/login")
    [csrf] = re.findall(r'name="_csrf_token" value="(\w+)"', page.text)
    jar = cookies_of(page)
    form = urlencode({"token": token, "next": goes_to, "_csrf_token": csrf}).encode()
    answer = site.ask(
        "POST", "/login", form, headers={"content-type": "application/x-www-form-urlencoded", "cookie": cookie(jar)}
    )
    return answer, jar | cookies_of(answer)


def cookies_of(answer: Answer) -> dict[str, str]:
    return dict(line.split(";")[0].split("=", 1) for line in answer.cookies)


def cookie(jar: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in jar.items())


def test_a_token_says_what_it_may_do(site: Dashboard) -> None:
    text = site.token("orders:read", "pins", tenant="demo", name="ayse")
    answer = site.get("/api/token", text)
    assert answer.status == 200
    assert answer.document() == {"name": "ayse", "tenant_id": "demo", "scopes": ["orders:read", "pins"]}


def test_without_a_usable_token_nothing_is_shown(site: Dashboard) -> None:
    right = site.token("orders:read")
    wrong = right[:-1] + ("A" if right[-1] != "A" else "B")
    for said in (None, "Bearer", "Bearer ", f"Bearer {wrong}", f"Basic {right}", f"Bearer ow_{'0' * 12}_{'x' * 43}"):
        answer = site.ask("GET", "/api/token", headers={"authorization": said} if said else {})
        assert answer.status == 401, said
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.document()["detail"] == "a token is needed"


def test_a_token_is_kept_as_a_hash_only(site: Dashboard) -> None:
    text = site.token("orders:read")
    with site.engine.connect() as connection:
        [row] = connection.execute(sa.select(m.tokens)).mappings()
        [audited] = connection.execute(sa.select(m.audit)).mappings()
    assert row["hash"] == api_tokens.hashed(text)
    assert text.split("_")[2] not in f"{dict(row)} {dict(audited)}"
    assert audited["action"] == "token.create"


def test_a_scope_that_is_missing_is_named(site: Dashboard) -> None:
    answer = site.get("/api/token", site.token("pins"))
    assert answer.status == 403
    assert answer.document()["detail"] == "this token has not the scope orders:read"


def test_a_revoked_or_expired_token_ends_within_seconds_with_its_log_ins(site: Dashboard) -> None:
    text = site.token("orders:read")
    _, jar = log_in(site, text)
    assert site.get("/api/token", text).status == 200
    assert site.ask("GET", "/", headers={"cookie": cookie(jar)}).status == 200

    assert api_tokens.revoke(site.engine, text.split("_")[1], "ayse")
    assert not api_tokens.revoke(site.engine, text.split("_")[1], "ayse")

    wait_until(lambda: site.get("/api/token", text).status == 401, timeout_s=3 * auth.REMEMBER_S)
    wait_until(lambda: site.ask("GET", "/", headers={"cookie": cookie(jar)}).status == 303, timeout_s=6)
    over = site.token("orders:read")
    with site.engine.begin() as connection:
        connection.execute(
            sa.update(m.tokens).where(m.tokens.c.id == over.split("_")[1]).values(expires_at=sa.func.now())
        )
    assert site.get("/api/token", over).status == 401


def test_the_use_of_a_token_is_noted_to_the_minute(site: Dashboard) -> None:
    text = site.token("orders:read")
    assert [token.last_used_at for token in api_tokens.listing(site.engine)] == [None]
    site.get("/api/token", text)
    [first] = api_tokens.listing(site.engine)
    assert first.last_used_at is not None
    time.sleep(auth.REMEMBER_S)  # the dashboard asks again after that
    site.get("/api/token", text)
    assert api_tokens.listing(site.engine) == [first]


def test_a_person_logs_in_with_a_token_and_gets_where_they_wanted(site: Dashboard) -> None:
    wanted = site.get("/")
    assert (wanted.status, wanted.headers["location"]) == (303, "/login?next=%2F")

    answer, jar = log_in(site, site.token("orders:read", tenant="demo", name="ayşe"), "/?q=1")

    assert (answer.status, answer.headers["location"]) == (303, "/?q=1")
    [session] = [line for line in answer.cookies if line.startswith(auth.COOKIE)]
    assert "HttpOnly" in session and "SameSite=lax" in session and "Secure" not in session
    page = site.ask("GET", "/", headers={"cookie": cookie(jar)})
    assert page.status == 200
    assert site.ask("GET", "/api/token", headers={"cookie": cookie(jar)}).document()["name"] == "ayşe"


def test_behind_https_cookies_need_it(database: str) -> None:
    with dashboard(settings(database, https=True)) as site:
        answer, _ = log_in(site, site.token("orders:read"))
        assert len(answer.cookies) == 1 and "Secure" in answer.cookies[0]
        assert "Secure" in site.get("/login").cookies[0]
        assert "max-age" in answer.headers["strict-transport-security"]


@pytest.mark.parametrize("elsewhere", ["//evil.example/", "https://evil.example/", "/\\evil.example", "", "/\r\nx: y"])
def test_a_log_in_never_leads_to_another_site(site: Dashboard, elsewhere: str) -> None:
    answer, _ = log_in(site, site.token("orders:read"), elsewhere)
    assert (answer.status, answer.headers["location"]) == (303, "/")


def test_a_wrong_token_gets_the_form_again_and_no_cookie(site: Dashboard) -> None:
    answer, jar = log_in(site, "ow_nothing")
    assert answer.status == 401
    assert 'role="alert"' in answer.text
    assert auth.COOKIE not in jar


def test_a_log_in_cannot_be_forged_or_outlived(database: str) -> None:
    with dashboard(settings(database, session_key="k" * 32, session=1)) as site:
        _, jar = log_in(site, site.token("orders:read"))
        number, until, seal = jar[auth.COOKIE].split(".")
        for forged in (f"{number}.{int(until) + 999}.{seal}", f"{'0' * 12}.{until}.{seal}", seal, "..", "ü", ""):
            assert site.ask("GET", "/", headers={"cookie": f"{auth.COOKIE}={forged}".encode()}).status == 303, forged
        wait_until(lambda: site.ask("GET", "/", headers={"cookie": cookie(jar)}).status == 303, timeout_s=5)


def test_a_log_out_removes_the_cookie(site: Dashboard) -> None:
    _, jar = log_in(site, site.token("orders:read"))
    answer = site.ask("POST", "/logout", headers={"cookie": cookie(jar), "x-csrf-token": jar["orderwatch_csrf"]})
    assert answer.status == 303
    assert f"{auth.COOKIE}=" in answer.cookies[0] and "Max-Age=0" in answer.cookies[0]


def test_a_page_of_another_site_can_make_a_browser_do_nothing(site: Dashboard) -> None:
    _, jar = log_in(site, site.token())
    for path in ("/logout", "/login"):
        for headers in ({}, {"x-csrf-token": "made up"}, {"x-csrf-token": jar["orderwatch_csrf"][:-1] + "x"}):
            answer = site.ask("POST", path, headers={"cookie": cookie(jar), **headers})
            assert answer.status == 403, (path, headers)


def test_every_answer_has_strict_headers(site: Dashboard) -> None:
    token = site.token()
    for path in ("/login", "/api/token", "/nowhere", "/api/nowhere", "/static/login.js", "/api/openapi.json"):
        headers = site.get(path, token).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
        assert path.startswith("/static/") or headers["cache-control"] == "no-store"


def test_a_path_tells_which_methods_it_has(site: Dashboard) -> None:
    answer = site.ask("OPTIONS", "/api/orders")
    assert (answer.status, answer.headers["allow"]) == (204, "GET, OPTIONS, POST")
    assert site.ask("DELETE", "/api/orders", token=site.token()).status == 405


def test_no_page_has_an_inline_script_or_style(site: Dashboard) -> None:
    _, jar = log_in(site, site.token())
    for path in ("/", "/login", "/nowhere"):
        text = site.ask("GET", path, headers={"cookie": cookie(jar)}).text
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", text), path


def test_a_path_that_does_not_exist_is_told_in_the_language_of_its_asker(site: Dashboard) -> None:
    assert site.get("/api/nowhere").document()["status"] == 404
    page = site.get("/nowhere")
    assert (page.status, page.headers["content-type"]) == (404, "text/html; charset=utf-8")


def test_one_token_that_asks_too_often_is_slowed_down_and_others_are_not(database: str) -> None:
    with dashboard(settings(database, rate=3)) as site:
        fast, slow = site.token("orders:read"), site.token("orders:read")
        answers = [site.get("/api/token", fast) for _ in range(12)]
        refused = [answer for answer in answers if answer.status == 429]
        assert refused
        assert refused[0].headers["content-type"] == "application/problem+json"
        assert int(refused[0].headers["ratelimit-reset"]) <= 1
        assert site.get("/api/token", slow).status == 200


def test_made_up_tokens_reach_the_database_so_often_and_no_more(database: str) -> None:
    with dashboard(settings(database, rate=3, query_timeout=0.5)) as site, site.engine.begin() as holding:
        holding.execute(sa.text("lock table tokens"))
        with ThreadPoolExecutor(20) as threads:
            answers = list(threads.map(lambda n: site.get("/api/token", f"ow_{n:012}_{'x' * 43}"), range(20)))
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {503, 429}  # those that asked a table that does not answer, and those that did not
    assert statuses.count(503) <= 9  # three a second
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.headers["content-type"] == "application/problem+json"


def test_made_up_tokens_push_no_token_out_of_memory(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "REMEMBER_S", 60.0)
    monkeypatch.setattr(auth, "_MOST_REMEMBERED", 3)
    with dashboard(settings(database, query_timeout=0.5)) as site:
        text = site.token("orders:read")
        assert site.get("/api/token", text).status == 200
        for number in range(8):
            assert site.get("/api/token", f"ow_{number:012}_{'x' * 43}").status == 401
        with site.engine.begin() as holding:
            holding.execute(sa.text("lock table tokens"))
            assert site.get("/api/token", text).status == 200


def test_health_is_asked_of_the_database_once_for_many_who_ask(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_of_itself, "HEALTH_S", 60.0)
    with dashboard(settings(database)) as site:
        assert site.get("/health").status == 200
        took_at = site.server.parts.health
        assert [site.get("/health").status for _ in range(5)] == [200] * 5
        assert site.server.parts.health is took_at


def test_a_page_about_what_cannot_be_is_an_error_of_the_asker(site: Dashboard) -> None:
    token = site.token("orders:read")
    for path in ("/orders/demo/%00", "/orders/%00/o-1", "/routes/demo/%00", "/routes/%00/p"):
        assert site.get(path, token).status == 400, path


def test_health_is_for_everybody_and_metrics_are_not(site: Dashboard) -> None:
    assert site.get("/health").document() == {"status": "ok"}
    assert site.get("/metrics").status == 401
    assert site.get("/metrics", site.token("metrics", tenant="demo")).status == 403
    shown = site.get("/metrics", site.token("metrics"))
    assert shown.status == 200
    assert shown.headers["content-type"].startswith("text/plain")


def test_a_database_that_is_away_is_told_as_503() -> None:
    with dashboard(settings("postgresql://nobody:secret-word@127.0.0.1:1/none")) as site:
        health = site.get("/health")
        answer = site.get("/api/token", f"ow_{'0' * 12}_{'x' * 43}")
    assert (health.status, health.document()) == (503, {"status": "unavailable"})
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert "secret-word" not in answer.text


def test_a_question_that_takes_too_long_is_given_up(database: str) -> None:
    with dashboard(settings(database, query_timeout=0.2)) as site, site.engine.begin() as holding:
        holding.execute(sa.text("lock table tokens"))
        began = time.monotonic()
        assert site.get("/api/token", f"ow_{'0' * 12}_{'x' * 43}").status == 503
        assert time.monotonic() - began < 5


def test_an_actor_of_the_log_is_the_name_of_the_token(site: Dashboard) -> None:
    put(site.engine, m.tokens, id="0" * 12, name="n", hash="h", scopes=[], created_by="x")
    assert {token.name for token in api_tokens.listing(site.engine)} == {"n"}
