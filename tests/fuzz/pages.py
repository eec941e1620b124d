"""The worker's own pages, over real sockets: any request is answered below 500, and the worker goes on working."""

import json
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from db import schema
from orderwatch.localservers.bundled import Broker, Postgres
from streams.events import Created
from tests.fuzz.engine import Report, attempt
from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import Target
from tests.system import System, http
from tests.waiting import wait_until

WORDS = [
    "GET",
    "HEAD",
    "POST",
    "/orders/",
    "/orders/known/",
    "/outcomes/",
    "/health/",
    "known",
    "%00",
    "%2e%2e",
    "%ff",
    "%ED%A0%80",
    "..",
    "//",
    "?",
    "&",
    "=",
    "#",
    ":",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/9.9",
    "\r\n",
    "Host: a",
    "Content-Length: 5",
    "Content-Length: -1",
    "Transfer-Encoding: chunked",
    "Connection: close",
    "Accept: */*",
    "X-Forwarded-For: 127.0.0.1",
    "é",
    "\x00",
    "a" * 300,
]
_STATUS = re.compile(rb"HTTP/\d\.\d (\d{3}) ")
_END = b"Connection: close\r\n\r\n"


def corpus() -> list[bytes]:
    """One good request per page and per kind of key."""
    paths = ["/health/", "/outcomes/", "/orders/known/", "/orders/nobody/", "/orders/%E2%98%83/", "/orders/a%2Fb/", "/"]
    return [f"GET {path} HTTP/1.1\r\nHost: a\r\n".encode() + _END for path in paths]


@contextmanager
def running(directory: Path) -> Iterator[System]:
    """A worker on bundled servers that has one order in its table."""
    with Broker(directory / "broker") as broker, Postgres(directory / "postgres", durable=False) as postgres:
        engine = sa.create_engine(postgres.url, poolclass=sa.NullPool)
        schema.upgrade(engine)
        engine.dispose()
        with System(directory / "system", broker.address, postgres.url) as system:
            with_an_order(system)
            yield system


def with_an_order(system: System) -> None:
    """Start a worker, and wait until one order is in its table."""
    port = system.start_worker().port  # type: ignore[attr-defined]
    system.send([order("known")])
    system.wait_for_ends(60)
    wait_until(lambda: http("GET", f"http://127.0.0.1:{port}/orders/known/")["tenants"], 30)


def order(order_id: str) -> Created:
    return Created(
        order_id=order_id, tenant_id="shop", package_id="sixty", user_identifier="555123", created_at=datetime.now(UTC)
    )


def target(port: int) -> Target:
    """Requests to the worker on this port."""

    def check(data: bytes) -> object:
        answer = exchange(port, data)
        found = _STATUS.match(answer)
        if found is None:
            assert not answer, "no HTTP answer"
            return "hung up"
        status = int(found[1])
        assert status < 500 and b"Traceback" not in answer, f"answered with {status}"
        body = answer.partition(b"\r\n\r\n")[2]
        if status == 200 and b"application/json" in answer and b"\r\nTransfer-Encoding" not in answer and body:
            json.loads(body.split(b"HTTP/1.")[0])
        return status, len(body) > 0

    return Target("pages of the worker", check, corpus, WORDS, 0)


def exchange(port: int, data: bytes) -> bytes:
    """Send a request and close our side; everything the worker says."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:
            return b""


def fuzz(system: System, inputs: int, seed: int) -> Report:
    """``inputs`` requests to the first worker; afterwards it must answer and have logged no error."""
    port = system.workers[0].port  # type: ignore[attr-defined]
    aim, report = target(port), Report("pages of the worker", "seeded")
    mutator, known, seen = Mutator(("pages", seed), WORDS), corpus(), set[object]()
    began = time.monotonic()
    while report.inputs < inputs:
        data = mutator.change(mutator.choose(known), known) if report.inputs >= len(corpus()) else known[report.inputs]
        result = attempt(aim, data, report)
        if result not in seen:
            seen.add(result)
            known.append(data)
    report.seconds = time.monotonic() - began
    http("GET", f"http://127.0.0.1:{port}/health/")
    report.findings |= {f"logged: {line}": "" for line in complaints(system.directory / "worker-0.log")}
    return report


def complaints(log: Path) -> set[str]:
    """What the worker logged as an error, without the requests that aiohttp itself refused to read."""
    found = set()
    for line in log.read_text(errors="replace").splitlines():
        said = json.loads(line) if line.startswith("{") else {"level": "error" if "Traceback" in line else "info"}
        if said["level"] in ("error", "critical"):
            trace = str(said.get("exception", ""))
            if not re.search(r"^aiohttp\.http_exceptions\.\w+: 400", trace, re.MULTILINE):
                found.add(f"{said.get('event', line)[:120]}: {trace[-160:]}")
    return found


def run(inputs: int, seed: int) -> Report:
    """As ``fuzz``, with everything it needs."""
    with tempfile.TemporaryDirectory(prefix="orderwatch-fuzz-") as directory:
        Path(directory).chmod(0o755)  # PostgreSQL under root is another user
        with running(Path(directory)) as system:
            return fuzz(system, inputs, seed)
