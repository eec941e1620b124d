"""The HTTP API and the dashboard's pages, over real sockets: paths, queries and bodies of any kind.

An input is a line ``METHOD path?query`` and a body. Each is sent with a token that may do everything.
"""

import hashlib
import json
import logging
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import sqlalchemy as sa

from db import schema
from orderwatch.dashboard.api import commands
from orderwatch.localservers.bundled import Broker, Postgres
from streams import topics
from streams.kafka.producer import apply_topics
from tests.contract.ledger_rows import put_attempt, put_dead_letter, put_order
from tests.contract.test_web_orders import ORDER
from tests.dashboard import Dashboard, dashboard, settings
from tests.fuzz.engine import Report, run_seeded
from tests.fuzz.targets import Target

WORDS = [
    "GET",
    "POST",
    "/api/",
    "/api/orders",
    "/orders",
    "demo",
    "o-1",
    "?",
    "&",
    "=",
    "limit",
    "after",
    "tenant",
    "number",
    "open",
    "status",
    "pending",
    "older_than_s",
    "-1",
    "9999999999999",
    "%00",
    "%ff",
    "%ED%A0%80",
    "%2F",
    "action",
    "reason",
    "resolve",
    "cancel",
    "check",
    "attempt",
    "outcome",
    "quantity",
    "params",
    "sell_price",
    "amount",
    "currency",
    "created_at",
    "0001-01-01T00:00:00Z",
    "order_id",
    "tenant_id",
    "ids",
    "code",
    "dry_run",
    "\x00",
    "\ud800",
    "é",
    "x" * 65,
]
#: A stream of events has no end.
_ENDLESS = "/api/live"
#: How the log of a failed request begins; also what an error must not show.
_CARELESS = re.compile(rb"Traceback|File \"|psycopg2|sqlalchemy|player-123456")
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def corpus() -> list[bytes]:
    """One good request of every kind that hands something in, and of every list."""
    command = {"action": "check", "reason": "asked", "command_id": "c-1"}
    resolve = {"action": "resolve", "attempt": 1, "outcome": "failed", "evidence": "seen", "reason": "the shop says so"}
    posts = [
        ("/api/orders", ORDER),
        ("/api/orders/demo/o-1/commands", command),
        ("/api/orders/demo/o-1/commands", resolve),
        ("/api/orders/demo/o-1/pin", {}),
        ("/api/attention/ack", {"ids": ["1"], "code": "expired"}),
        ("/api/dead-letters/replay", {"ids": [1], "dry_run": True, "fix": {"quantity": 2}}),
        ("/api/integrations/znet-main/switch", {"enabled": True, "reason": "it is back"}),
        ("/api/routes/test", {"tenant_id": "demo", "package_id": "pubg-60"}),
        ("/hooks/znet-main", {"reference": "demo-o-1-1"}),
        ("/login", {"token": "none"}),
    ]
    gets = [
        "/api/overview",
        "/api/orders?limit=5&open=true&tenant=demo",
        "/api/orders?number=o-1&status=pending",
        "/api/orders?integration=znet-main&waiting=expired&older_than_s=5&after=bm9uZQ==",
        "/api/orders/demo/o-1",
        "/api/orders/demo/o-1/timeline",
        "/api/commands/c-1",
        "/api/attention?code=expired&limit=2",
        "/api/attention/groups",
        "/api/dead-letters?limit=3",
        "/api/dead-letters/1",
        "/api/integrations",
        "/api/routes",
        "/health",
        "/metrics",
        "/api/token",
        "/",
        "/orders?number=player",
        "/orders/demo/o-1",
        "/attention",
        "/dead-letters",
        "/dead-letters/1",
        "/integrations",
        "/routes",
        "/routes/demo/pubg-60",
        "/language/tr",
    ]
    return [
        *(f"POST {path}\n{json.dumps(body)}".encode() for path, body in posts),
        *(f"GET {path}\n".encode() for path in gets),
    ]


@contextmanager
def running(directory: Path) -> Iterator[Dashboard]:
    """A dashboard on bundled servers that has an order, an attempt and a dead letter to show."""
    with Broker(directory / "broker") as broker, Postgres(directory / "postgres", durable=False) as postgres:
        engine = sa.create_engine(postgres.url, poolclass=sa.NullPool)
        schema.upgrade(engine)
        put_order(engine)
        put_attempt(engine, "unknown")
        put_dead_letter(engine)
        engine.dispose()
        config = settings(postgres.url, broker.address)
        apply_topics(config.kafka, topics.specs(config))
        with dashboard(config) as site:
            yield site


def target(site: Dashboard) -> Target:
    """Requests to this dashboard."""
    port = urlsplit(site.url).port
    assert port is not None
    return Target("HTTP API", partial(_check, port, site.token(tenant=None)), corpus, WORDS, 0)


def _check(port: int, token: str, data: bytes) -> object:
    line, _, body = data.partition(b"\n")
    method, _, path = line.partition(b" ")
    method = method if re.fullmatch(rb"[A-Z]{1,8}", method) else b"POST"
    path = b"/" + quote(path.lstrip(b"/"), safe="%/?&=:;,+#@[]").encode()  # what is no HTTP is the server's to refuse
    if unquote(path.split(b"?")[0].decode()).rstrip("/").endswith(_ENDLESS):
        return "endless"
    head = [
        b"%s %s HTTP/1.1" % (method, path),
        b"Host: a",
        b"Connection: close",
        b"Authorization: Bearer " + token.encode(),
        b"Content-Type: application/json",
        b"Idempotency-Key: " + hashlib.sha256(body).hexdigest()[:16].encode(),
        b"Content-Length: %d" % len(body),
    ]
    answer = _said(port, b"\r\n".join(head) + b"\r\n\r\n" + body)
    found = _STATUS.match(answer)
    if found is None:
        assert not answer, "no HTTP answer"
        return "hung up"
    status, (headers, _, shown) = int(found[1]), answer.partition(b"\r\n\r\n")
    assert status < 500, f"answered with {status}"
    if status in (404, 405) and b"such thing" not in shown:
        return status
    if status >= 400:
        assert not _CARELESS.search(shown), "a careless error"
    if status >= 400 and b"application/problem+json" in headers:
        problem = json.loads(shown)
        assert problem["status"] == status and problem["detail"], "an error that explains nothing"
        return path.split(b"?")[0][:30], status, re.sub(r"[^a-z ]", "", problem["detail"].lower())[:40]
    if b"application/json" in headers and b"chunked" not in headers:
        json.loads(shown)
    return method, path.split(b"?")[0][:30], status


def _said(port: int, request: bytes) -> bytes:
    """The whole answer; the server closes after it."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:
            return b""


def run(inputs: int, seed: int) -> Report:
    """``inputs`` requests to a dashboard that this starts."""
    commands.WAIT_S = 0.0  # nobody decides what is asked for here
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="orderwatch-fuzz-") as directory:
        Path(directory).chmod(0o755)  # PostgreSQL under root is another user
        with running(Path(directory)) as site:
            return run_seeded(target(site), inputs, seed)
