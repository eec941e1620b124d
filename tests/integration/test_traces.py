"""One connected trace of one order: shop, worker, provider, retry tier, projection, downstream service.

The collector is a real OTLP/HTTP receiver; the worker sends to it from its own process, shop and downstream service
from this one.
"""

import json
import os
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from db.control import api_tokens
from orderwatch.localservers.bundled import Broker
from orderwatch.localservers.child_process import ChildProcess
from streams import traces
from streams.clients import Change, OrderProducer, StatusChanges
from streams.config.loader import TelemetryConfig
from streams.events import Created
from tests.integration.conftest import Start
from tests.system import ROOT, System
from tests.waiting import wait_until

PLAYER = "player-7781-planted"
TOKEN = "collector-token-planted"


class Collector(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        self.resources: list[KeyValue] = []
        self.tokens: set[str | None] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/traces"
        self.server.bodies.append(body)
        self.server.tokens.add(self.headers["x-token"])
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.resources.extend(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                self.server.spans.extend(of_scope.spans)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def traced_here(collector: Collector) -> Iterator[None]:
    telemetry = TelemetryConfig.model_validate({"otlp_endpoint": collector.url, "otlp_headers": {"x-token": TOKEN}})
    traces.start(telemetry, "test", "0")
    yield
    traces.stop()


def order(order_id: str) -> Created:
    return Created(
        order_id=order_id, tenant_id="shop", package_id="sixty", user_identifier=PLAYER, created_at=datetime.now(UTC)
    )


def test_one_order_is_one_connected_trace_from_the_shop_to_the_downstream_service(
    system_of: Start, broker: Broker, collector: Collector, traced_here: None
) -> None:
    system = system_of(
        broker.address,
        settings={
            "telemetry": {"otlp_endpoint": collector.url, "otlp_headers": {"x-token": TOKEN}},
            "worker": {"log_level": "debug"},
        },
    )
    worker = system.start_worker()
    with OrderProducer(system.config.kafka) as producer:
        producer.place(order("traced"))
    system.sent.add(("shop", "traced"))
    system.wait_for_ends(60)
    seen: list[Change] = []
    changes = StatusChanges(system.config.kafka, f"{system.prefix}downstream-{uuid4().hex}")

    def handle(change: Change) -> None:
        seen.append(change)
        if change.event.external_status == "completed":
            changes.stop()

    changes.run(handle)
    traces.stop()
    system.stop_worker(worker)

    def named(part: str) -> list[Span]:
        return [span for span in collector.spans if part in span.name]

    wait_until(lambda: named("orders.created send") and named("projection-status"), 20)
    [root] = named("orders.created send")
    trace = [span for span in collector.spans if span.trace_id == root.trace_id]
    names = {span.name for span in trace}
    group = changes._group
    assert {
        "orders.created send",
        "dispatch orders.created",
        "provider place",
        "check orders.retry.500ms",
        "provider check",
        "projection-referenced orders.referenced",
        "projection-status orders.status-changed",
        f"{group} orders.status-changed",
    } <= names
    ids = {span.span_id for span in trace}
    assert not root.parent_span_id
    assert all(span.parent_span_id in ids for span in trace if span is not root), "every span hangs on another one"
    assert {span.trace_id for span in collector.spans} == {root.trace_id}, "nothing of the order is elsewhere"
    assert root.trace_id.hex() in str(seen[-1].traceparent)
    [placed] = [span for span in trace if span.name == "provider place"]
    attributes = {item.key: item.value.string_value for item in placed.attributes}
    assert attributes["orderwatch.integration"] == "znet-main" and attributes["orderwatch.outcome"] == "accepted"
    log = (system.directory / "worker-0.log").read_text(errors="replace")
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    [line] = [line for line in lines if line["event"] == "placed"]
    assert (line["order"], line["attempt"], line["integration"]) == ("traced", 1, "znet-main")
    assert line["trace_id"] == root.trace_id.hex()
    assert TOKEN not in log
    assert collector.tokens == {TOKEN}
    everything = b"".join(collector.bodies)
    assert PLAYER.encode() not in everything and TOKEN.encode() not in everything


@contextmanager
def dashboard_of(system: System) -> Iterator[str]:
    """The process that an operator starts; its address."""
    log = system.directory / "dashboard.log"
    command = [sys.executable, "-m", "orderwatch", "dashboard", "--port", "0", "--config", str(system.config_path)]
    process = ChildProcess(command, log=log, cwd=ROOT, env={**os.environ, "ORDERWATCH_PIN_KEYS": system.pin_keys})
    wait_until(lambda: "dashboard at " in log.read_text(errors="replace"), 30)
    yield log.read_text(errors="replace").partition("dashboard at ")[2].split()[0]
    process.stop()


@pytest.mark.parametrize("came_from", [None, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])
def test_what_comes_in_over_http_begins_a_trace_there_that_goes_on_in_the_worker(
    system_of: Start, broker: Broker, collector: Collector, came_from: str | None
) -> None:
    telemetry = {"otlp_endpoint": collector.url, "otlp_headers": {"x-token": TOKEN}}
    slow = {"first_after": "5m", "backoff": {"base": "5m", "factor": 1, "max": "5m"}}
    system = system_of(broker.address, settings={"telemetry": telemetry, "checks": slow})
    token = api_tokens.create(system.engine, "ayse", api_tokens.SCOPES.keys(), "shop", "test").text
    placed = {"tenant_id": "shop", "order_id": "over-http", "package_id": "sixty", "user_identifier": PLAYER}
    worker = system.start_worker()

    def named(name: str) -> list[Span]:
        return [span for span in collector.spans if span.name == name]

    with dashboard_of(system) as url:

        def post(path: str, body: dict[str, str]) -> None:
            headers = {
                "authorization": f"Bearer {token}",
                "content-type": "application/json",
                "idempotency-key": "k",
                **({"traceparent": came_from} if came_from else {}),
            }
            request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
            urllib.request.urlopen(request, timeout=20).close()

        post("/api/orders", placed)
        wait_until(lambda: system.statuses().get(("shop", "over-http")) == "sent", 30)
        post("/api/orders/shop/over-http/commands", {"action": "check", "reason": "the customer asks"})
        wait_until(lambda: named("provider check"), 30)
        post("/api/orders/shop/over-http/commands", {"action": "check", "reason": "and again", "command_id": "last"})
    system.stop_worker(worker)
    for first, sent, later in (  # the last one was sent right before the end
        ("orders.created send", 1, {"dispatch orders.created", "provider place"}),
        ("orders.command send", 2, {"command orders.command", "check orders.check", "provider check"}),
    ):
        root, *others = named(first)
        assert 1 + len(others) == sent
        assert root.parent_span_id.hex() == (came_from.split("-")[2] if came_from else "")
        assert came_from is None or root.trace_id.hex() == came_from.split("-")[1]
        assert later <= {span.name for span in collector.spans if span.trace_id == root.trace_id}
    services = {item.value.string_value for item in collector.resources if item.key == "service.name"}
    assert services == {"orderwatch-dashboard", "orderwatch-worker"}


def test_a_collector_that_is_away_costs_no_order(system_of: Start, broker: Broker) -> None:
    system = system_of(broker.address, settings={"telemetry": {"otlp_endpoint": "http://127.0.0.1:1"}})
    worker = system.start_worker()
    system.send([order(f"untraced-{n}") for n in range(10)])
    system.wait_for_ends(60)
    system.stop_worker(worker)
    assert system.books().agree
