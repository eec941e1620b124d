"""Planted secrets, orders through every path, and then a search of everything that a person or program can read."""

import contextlib
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
import yaml

from orderwatch.cli.main import main
from orderwatch.localservers.bundled import Broker
from streams.events import Created
from streams.kafka.producer import Outgoing
from streams.seal import VARIABLE, Sealer
from tests import planted
from tests.integration.conftest import Start
from tests.malformed import raw_producer
from tests.parts import ROOT
from tests.planted import CREDENTIALS, PHONE, PIN, leaks
from tests.system import System
from tests.waiting import wait_until

PLAYER, EXTRA, ZONE = "player-7781-planted", "extra-3x-planted", "zone-4y-planted"
_GOOD = {
    "order_id": "bad",
    "tenant_id": "shop",
    "package_id": "sixty",
    "created_at": "2026-01-01T00:00:00Z",
    "user_identifier": PLAYER,
}
_WRONG = (
    ("user_identifier", [PLAYER]),
    ("quantity", PLAYER),
    ("created_at", PLAYER),
    ("order_id", f"{PIN}/{PLAYER}"),
    ("params", {"zone": [ZONE]}),
    ("params", ZONE),
    ("sell_price", {"amount": PLAYER, "currency": PIN}),
    ("kullanici", PLAYER),
    ("attempt", PLAYER),
)
#: What nobody can read, full of secrets; the last one is unreadable as a check and as an order.
MALFORMED = [
    b"\xff" + PLAYER.encode(),
    json.dumps([PLAYER]).encode(),
    PLAYER.encode(),
    *(json.dumps({**_GOOD, "quantity": 0, field: wrong}).encode() for field, wrong in _WRONG),
]
PACKAGES = ("page", "row", "doubt", "json", "jsonlist")


class Echo(BaseHTTPRequestHandler):
    """A careless shop: whatever it says, it repeats the request, headers and all."""

    seen: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        form = self.path.split("/")[1]
        placing = "pin_ekle" in self.path or "newOrder" in self.path
        said = f"{self.path} {dict(self.headers)}"
        body = {
            "page": f"<html><h1>Fatal</h1>{said}</html>",
            "row": f"3|{said}",
            "doubt": "OK|10.00|500.00" if placing else f"OK|3||{said}",
            "json": json.dumps({"status": "ERROR", "message": said, "code": 109}),
            "jsonlist": json.dumps(
                {
                    "status": "OK",
                    "data": {
                        "order_id": "E-1",
                        "status": "wait" if placing else said,
                        "data": {"playerId": PLAYER},
                        "note": said,
                    },
                }
            ),
        }[form]
        Echo.seen.add(form)
        content = body.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def careless() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def scenario() -> dict[str, Any]:
    life = {"after_checks": 1, "pin": PIN, "text": f"kod {PIN}"}
    return {
        "accounts": [
            {
                "id": "znet-main",
                "kind": "znet",
                "currency": "TRY",
                "balance": 100000,
                "life": life,
                "credentials": {"kod": CREDENTIALS["ZNET_KOD"], "sifre": CREDENTIALS["ZNET_SIFRE"]},
                "catalogue": [
                    {"id": "1", "name": "Sixty", "oyun": "1", "kupur": "60", "price": "10.00"},
                    {"id": "2", "name": "Gone", "oyun": "1", "kupur": "99", "price": "10.00", "available": False},
                ],
            },
            {
                "id": "barakat-1",
                "kind": "zdk",
                "currency": "USD",
                "balance": 100000,
                "life": life,
                "credentials": {"token": CREDENTIALS["BARAKAT_TOKEN"]},
                "catalogue": [
                    {"id": "10", "name": "Sixty", "price": "0.90", "qty_values": {"min": 1, "max": 9}},
                    {"id": "20", "name": "Gone", "price": "0.90"},
                ],
            },
        ]
    }


@pytest.fixture(scope="module")
def system(system_of: Start, broker: Broker, careless: str) -> Iterator[System]:
    running = system_of(broker.address, scenario=scenario(), environ=CREDENTIALS)
    document = yaml.safe_load(running.config_path.read_text(encoding="utf-8"))
    by_id = {block["id"]: block for block in document["integrations"]}
    znet, barakat = by_id["znet-main"], by_id["barakat-1"]
    forms = {package: znet if package in ("page", "row", "doubt") else barakat for package in PACKAGES}
    for form, like in {**forms, "down": znet}.items():
        base_url = "http://127.0.0.1:1" if form == "down" else f"{careless}/{form}"
        document["integrations"].append({**like, "id": form, "base_url": base_url})
        document["routes"].append(
            {"tenant_id": "shop", "package_id": form, "mode": "auto", "primary": form, "provider_type": "external"}
        )
        document["mappings"].append(
            {
                "tenant_id": "shop",
                "package_id": form,
                "integration": form,
                "oyun": "1",
                "kupur": "60",
                "provider_package_id": "1",
                "delivers_pin": True,
            }
        )
    for mapping in document["mappings"]:
        mapping["params"] = {"zone": "{params.zone}"}
    running.config_path.write_text(yaml.safe_dump(document), encoding="utf-8")
    running.start_worker()
    take_every_path(running)
    yield running


def order(order_id: str, package: str, player: str = PLAYER) -> Created:
    return Created(
        order_id=order_id,
        tenant_id="shop",
        package_id=package,
        user_identifier=player,
        extra_field=EXTRA,
        customer_phone=PHONE,
        params={"zone": ZONE},
        created_at=datetime.now(UTC),
    )


def take_every_path(system: System) -> None:
    """Success, refusal, lost and unreadable answers, answers that repeat the request, a provider that is down, events
    that cannot be read, and a handler that crashes with the order in its error."""
    for kind in ("hang_up_after", "html", "truncated", "php_warning"):
        for account in ("znet-main", "barakat-1"):
            system.control("POST", f"/accounts/{account}/faults", {"kind": kind, "operation": "place", "times": 1})
            system.control("POST", f"/accounts/{account}/faults", {"kind": kind, "operation": "check", "times": 1})
    for player, final in (("fail-planted", "fail"), ("odd-planted", "success")):
        words = ["tuhaf"] if final == "success" else []
        system.control(
            "POST",
            "/lives",
            {
                "player": player,
                "final": final,
                "text": f"{player} {ZONE} is blocked",
                "pin": final == "success" and PIN,
                "extra_states": words,
            },
        )
    names = [f"{package}-{number}" for package in ("sixty", "batch") for number in range(8)]
    system.send([order(name, name.split("-")[0]) for name in names])
    system.send(
        [
            order(f"{player}-{package}", package, f"{player}-planted")
            for player in ("fail", "odd")
            for package in ("sixty", "batch")
        ]
    )
    system.send([order("refused", "gone"), order("by-hand", "by-hand"), order("nowhere", "nowhere")])
    echoed = [*PACKAGES, "down"]
    system.send([order(package, package) for package in echoed])
    with raw_producer(system.config.kafka) as send:
        send(Outgoing("orders.created", b"bad", value, []) for value in MALFORMED)
        send([Outgoing("orders.check", b"bad", MALFORMED[-1], [])])
    answered = """select count(distinct order_id) as n from order_events where order_id = any(:names)
                  and step in ('answered', 'checked', 'defer', 'late_answer')"""
    wait_until(lambda: system.rows(answered, names=list(PACKAGES))[0]["n"] == len(PACKAGES), 60)
    wait_until(lambda: Echo.seen == set(PACKAGES), 60)
    open_allowed = {("shop", name) for name in ("by-hand", "nowhere", *echoed)}
    system.wait_for_ends(90, open_allowed)
    wait_until(lambda: system.rows("select count(*) as n from dead_letters")[0]["n"] == len(MALFORMED) + 1, 30)
    crash(system)


def crash(system: System) -> None:
    """PostgreSQL refuses one order with an error that quotes it whole."""
    with system.engine.begin() as connection:
        connection.exec_driver_sql("""
            create function refuse() returns trigger language plpgsql as $$ begin
            if new.order_id = 'crash' then raise exception 'cannot take %%', new.request; end if; return new; end $$""")
        connection.exec_driver_sql(
            "create trigger refuse before insert on ledger_orders for each row execute function refuse()"
        )
    system.send([order("crash", "sixty")])
    crashed = "select 1 from dead_letters where reason = 'handler_failed'"
    wait_until(lambda: system.rows(crashed), 60)
    system.sent.discard(("shop", "crash"))


def test_the_paths_were_taken(system: System) -> None:
    found = system.rows("select order_id, external_status, pins from orders where cardinality(pins) > 0")
    assert len(found) >= 16
    sealer = Sealer([system.pin_keys])
    assert {sealer.open(pin) for row in found for pin in row["pins"]} == {PIN}
    outcomes = {row["o"] for row in system.rows("select distinct details->>'outcome' as o from order_events")}
    assert {"accepted", "ambiguous", "rejected", "succeeded", "failed"} <= outcomes, outcomes


def test_no_log_holds_a_secret(system: System) -> None:
    assert list(planted.in_logs(system)) == []


def test_no_topic_holds_a_secret_outside_the_shops_own_words(system: System) -> None:
    assert leaks(system.read("orders.created")[0].value()), "the search is blind"
    assert {b"sixty-1", b"refused"} <= {record.key() for record in system.read("orders.status-changed")}
    assert system.read("orders.attention") and system.read("orders.dead-letter")
    assert list(planted.in_topics(system, MALFORMED)) == []


def test_no_database_row_holds_a_secret_outside_its_own_columns(system: System) -> None:
    assert list(planted.in_rows(system)) == []


def run(*arguments: str) -> str:
    """What a command says, on stdout and stderr."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code in (0, 1), said.getvalue()
    return said.getvalue()


def test_no_command_says_a_secret(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**CREDENTIALS, VARIABLE: system.pin_keys, "USER": "ayse"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(system.directory)
    letters = system.rows("select id from dead_letters")
    commands = [("orders", "list"), ("attention", "list"), ("dlq", "list"), ("doctor",), ("config", "check")]
    orders = ["sixty-1", "batch-1", "fail-sixty", "odd-batch", "refused", "nowhere", "down", *PACKAGES]
    commands += [("order", verb, "shop", name) for verb in ("show", "why") for name in orders]
    commands += [("dlq", "show", str(row["id"])) for row in letters]
    topics = ("created", "referenced", "check", "status-changed", "attention", "dead-letter")
    commands += [("tail", f"orders.{topic}", "--from-start", "--until-end") for topic in topics]
    for command in commands:
        for form in ((), ("--json",)) if command[0] != "config" else ((),):
            said = run(*command, *form)
            assert leaks(said) == [], (command, form)
            assert system.pin_keys not in said
            assert command[0] == "attention" or said.strip(), command
    assert leaks(run("config", "export")) == []


def test_no_page_of_the_worker_shows_a_secret(system: System) -> None:
    port = system.workers[0].port  # type: ignore[attr-defined]
    assert list(planted.in_pages(port, ("/orders/sixty-1/", "/orders/page/"))) == []


MISPLACED: dict[str, Mapping[str, Any]] = {
    "a wrong credential name": {"credentials": {"kod": "${ZNET_KOD}", "password": "${ZNET_SIFRE}"}},
    "credentials as text": {"credentials": "${ZNET_SIFRE}"},
    "credentials as a list": {"credentials": ["${ZNET_SIFRE}"]},
    "a credential beside its block": {"sifre": "${ZNET_SIFRE}"},
    "a variable that is missing": {"credentials": {"kod": "${ZNET_KOD}", "sifre": "${NOT_SET}"}},
    "a user in the address": {"base_url": "ftp://${ZNET_KOD}:tok-9Kq-planted@shop/"},
}


@pytest.mark.parametrize("mistake", MISPLACED)
def test_a_worker_that_cannot_start_does_not_say_why_with_a_secret(system: System, mistake: str) -> None:
    document = yaml.safe_load(system.config_path.read_text(encoding="utf-8"))
    document["integrations"][0] |= MISPLACED[mistake]
    path = system.directory / "wrong.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "orderwatch", "config", "check", "--config", str(path)],
        cwd=ROOT,
        env={"PATH": "", **CREDENTIALS, VARIABLE: "key-planted"},
        capture_output=True,
    )
    assert done.returncode == 2 and b"integrations[0]" in done.stdout + done.stderr
    assert leaks(done.stdout + done.stderr) == []


def test_a_worker_with_a_wrong_sealing_key_does_not_show_it(system: System) -> None:
    env = {"PATH": "", **CREDENTIALS, VARIABLE: "key-planted", "ORDERWATCH_CONFIG": str(system.config_path)}
    done = subprocess.run(
        [sys.executable, "-m", "faust", "-A", "streams.app", "worker"],
        cwd=ROOT,
        env=env,
        timeout=60,
        capture_output=True,
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0 and VARIABLE.encode() in said
    assert leaks(said) == []
