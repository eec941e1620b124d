"""A real browser before the real stack: PostgreSQL, bundled broker, simulator, one worker, the dashboard's process.

Screenshots go to ``.cache/screenshots``. A browser that cannot start fails the suite: nothing is skipped.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from db.control import api_tokens
from db.engine import connect
from orderwatch.localservers.bundled import Broker, Postgres
from orderwatch.localservers.child_process import ChildProcess
from streams.events import Created
from streams.kafka.producer import Outgoing
from tests.conftest import run_sql
from tests.malformed import raw_producer
from tests.system import ROOT, System, _catalogue

SCREENSHOTS = ROOT / ".cache" / "screenshots"
PLAYER = "5551234567890"
FAULTS = "/accounts/znet-main/faults"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("browser")


def until(condition: Callable[[], object], timeout_s: float) -> None:
    """Wait for it. Not ``tests.waiting``: the browser's driver has the event loop of this thread."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, f"did not come true within {timeout_s:g} s"
        time.sleep(0.1)


@dataclass
class Stack:
    """What the browser talks to."""

    system: System
    url: str
    made: dict[str, str] = field(default_factory=dict)

    def token(self, *scopes: str, tenant: str | None = None, name: str = "ayşe") -> str:
        """A token with these scopes; none given: all of them."""
        key = f"{scopes}{tenant}{name}"
        if key not in self.made:
            engine = connect(self.system.database, 1)
            self.made[key] = api_tokens.create(engine, name, scopes or api_tokens.SCOPES.keys(), tenant, "test").text
            engine.dispose()
        return self.made[key]

    def send(self, *orders: tuple[str, str]) -> None:
        """Orders of the shop: (order id, package)."""
        self.system.send(
            Created(
                order_id=name,
                tenant_id="shop",
                package_id=package,
                user_identifier=PLAYER,
                created_at=datetime.now(UTC),
            )
            for name, package in orders
        )

    def state(self, order_id: str) -> str | None:
        return self.system.statuses().get(("shop", order_id))


@pytest.fixture(scope="session")
def stack(postgres: Postgres, template: str, broker: Broker, parts_directory: Path) -> Iterator[Stack]:
    """Some orders ended well, one was refused, two wait for a person, one is unknown, one event was no order."""
    name = f"browser_{uuid4().hex}"
    run_sql(postgres, f"create database {name} template {template}")
    checks = {"first_after": "500ms", "backoff": {"base": "1s", "factor": 2, "max": "8s"}}
    by_hand = {"tenant_id": "shop", "package_id": "by-hand", "integration": "barakat-1", "provider_package_id": "10"}
    settings = {"checks": checks, "mappings": [*_catalogue("")["mappings"], by_hand]}
    with System(parts_directory / name, broker.address, postgres.url_of(name), settings=settings) as system:
        system.start_worker()
        dashboard = _dashboard(system)
        stack = Stack(system, _address(dashboard[1]))
        _fill(stack)
        yield stack
        dashboard[0].stop()
    run_sql(postgres, f"drop database {name} with (force)")


def _dashboard(system: System) -> tuple[ChildProcess, Path]:
    log = system.directory / "dashboard.log"
    env = {**os.environ, "ORDERWATCH_PIN_KEYS": system.pin_keys}
    command = [sys.executable, "-m", "orderwatch", "dashboard", "--port", "0", "--config", str(system.config_path)]
    return ChildProcess(command, log=log, cwd=ROOT, env=env), log


def _address(log: Path) -> str:
    def said() -> list[str]:
        return [line for line in log.read_text().splitlines() if line.startswith("dashboard at ")]

    until(said, 30)
    return said()[0].removeprefix("dashboard at ").split()[0]


def _fill(stack: Stack) -> None:
    system = stack.system
    stack.send(*((f"done-{number}", "sixty") for number in range(12)), ("card-1", "card"), ("refused-1", "gone"))
    stack.send(("hand-1", "by-hand"), ("hand-2", "by-hand"), ("hand-3", "by-hand"))
    until(lambda: stack.state("done-11") == "completed", 60)
    # This account takes two orders without an answer, and from here on no question of ours gets one: nobody can know.
    system.control("POST", FAULTS, {"kind": "hang_up_after", "operation": "place", "times": 2})
    for operation in ("check", "balance"):
        system.control("POST", FAULTS, {"kind": "hang_up_before", "operation": operation, "times": None})
    stack.send(("lost-1", "sixty"), ("lost-2", "sixty"))
    with raw_producer(system.config.kafka) as send:
        for number in range(3):
            value = {
                "order_id": f"bad-{number}",
                "tenant_id": "shop",
                "package_id": "sixty",
                "quantity": "many",
                "user_identifier": PLAYER,
                "created_at": datetime.now(UTC).isoformat(),
            }
            headers = [("ce_type", b"orderwatch.order.created.v1")]
            send([Outgoing("orders.created", f"bad-{number}".encode(), json.dumps(value).encode(), headers)])
    until(lambda: stack.state("lost-1") == "unknown" and stack.state("lost-2") == "unknown", 60)
    until(lambda: len(system.rows("select 1 from dead_letters")) == 3, 30)
    until(lambda: len(system.rows("select 1 from attention where code = 'manual_route'")) == 3, 30)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = os.environ.get("ORDERWATCH_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "no chromium; install it (Debian: apt-get install chromium) or name one in ORDERWATCH_CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """Somebody with a browser, logged in. ``troubles`` are errors of scripts and refusals of the content policy."""

    stack: Stack
    page: Page
    name: str
    troubles: list[str]

    def go(self, path: str) -> Page:
        self.page.goto(self.stack.url + path)
        return self.page

    def shoot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{self.name}-{name}.png", full_page=True)


class Visits:
    """Opens browsers, each with a cookie jar of its own."""

    def __init__(self, chromium: Browser, stack: Stack) -> None:
        self._chromium = chromium
        self._stack = stack
        self._open: list[tuple[BrowserContext, Visit]] = []

    def __call__(
        self, *scopes: str, language: str = "en", theme: str = "light", width: int = 1280, tenant: str | None = None
    ) -> Visit:
        context = self._chromium.new_context(
            viewport={"width": width, "height": 844 if width < 600 else 860},
            locale=language,
            color_scheme=theme,  # type: ignore[arg-type]
        )
        page = context.new_page()
        page.set_default_timeout(15_000)
        troubles: list[str] = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda said: troubles.append(said.text) if "Content Security Policy" in said.text else None)
        size = "phone" if width < 600 else "desk"
        visit = Visit(self._stack, page, f"{language}-{theme}-{size}", troubles)
        self._open.append((context, visit))
        visit.go("/login")
        page.fill("#token", self._stack.token(*scopes, tenant=tenant))
        page.click("#login button")
        page.wait_for_selector("nav")
        return visit

    def close(self) -> None:
        for context, _ in self._open:
            context.close()
        troubles = [trouble for _, visit in self._open for trouble in visit.troubles]
        assert not troubles


@pytest.fixture
def visit(chromium: Browser, stack: Stack) -> Iterator[Any]:
    """``visit(*scopes, language=, theme=, width=)``: fails the test when a page had an error in its script."""
    visits = Visits(chromium, stack)
    yield visits
    visits.close()
