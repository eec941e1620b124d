"""What a log line says by itself, and what it cannot be made to say."""

import io
import json
import logging
import logging.config
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from agents.runtime import in_flight
from agents.runtime.in_flight import InFlight
from streams import logs, traces
from streams.config.loader import AlertsConfig, Config, DatabaseConfig, IntegrationConfig, KafkaConfig, secrets
from streams.logs import logging_config

SECRET = "şifre/Qv7+planted&x"
PASSWORD = "db-pass-planted"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Reads what was logged since the last time, as the worker writes it."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    monkeypatch.setattr(logs, "_secrets", ())
    monkeypatch.setattr(logs, "_about", [])
    said = io.StringIO()
    made = logging_config("info", "json")
    made["handlers"]["stderr"]["stream"] = said
    logging.config.dictConfig(made)
    structlog.configure(cache_logger_on_first_use=False)

    def read() -> list[dict[str, Any]]:
        text = said.getvalue()
        said.seek(0)
        said.truncate()
        return [json.loads(line) for line in text.splitlines()]

    yield read
    root.handlers[:], level = before
    root.setLevel(level)


def test_a_known_secret_is_printed_nowhere_in_a_line(lines: Any) -> None:
    logs.hide([SECRET, PASSWORD, "demo"])
    log = structlog.get_logger("mine")
    event = f"said {SECRET}"
    log.warning(event, url=f"http://x/?sifre={SECRET}", deep={"list": [{SECRET: (SECRET,)}]}, odd=Odd())
    log.warning("quoted", query="kod=1&x=%C5%9Fifre%2FQv7%2Bplanted%26x", text=ascii(SECRET))
    logging.getLogger("foreign").warning("of a library: %s %r", SECRET, {"a": SECRET}, extra={"also": SECRET})
    try:
        raise ValueError(f"with {PASSWORD}")
    except ValueError:
        log.exception("failed")
    found = lines()
    assert len(found) == 4
    text = json.dumps(found, ensure_ascii=False)
    assert "planted" not in text and "demo" not in logs._secrets
    assert found[0]["event"] == "said ***" and "ValueError" in found[3]["exception"]


class Odd:
    def __repr__(self) -> str:
        return f"Odd({SECRET})"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://user:hunter22@db/name", "postgresql://***@db/name"),
        ("GET /?kod=1&sifre=hunter22&x=2", "GET /?kod=1&sifre=***&x=2"),
        ('{"password": "hunter22"}', '{"password": "***"}'),
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer ***"),
        ("kafka.security.password is missing", "kafka.security.password is missing"),
        ("3 secrets, 2 tokens", "3 secrets, 2 tokens"),
        ("http://127.0.0.1:9100/znet-main", "http://127.0.0.1:9100/znet-main"),
    ],
)
def test_what_looks_like_a_secret_is_masked_though_nobody_told_of_it(text: str, shown: str) -> None:
    assert logs.masked(text) == shown


def test_every_secret_of_a_configuration_is_known() -> None:
    config = Config(
        kafka=KafkaConfig(bootstrap_servers="b:1", security={"password": "kafka-planted"}),  # type: ignore[arg-type]
        database=DatabaseConfig(url="postgresql://u:p-planted@h/n"),
        alerts=AlertsConfig(webhook_secret="whsec_planted"),
        telemetry={"otlp_headers": {"x-token": "otlp-planted"}},  # type: ignore[arg-type]
        integrations=(IntegrationConfig(id="a", tenant_id="t", provider="znet", credentials={"sifre": SECRET}),),
    )
    assert set(secrets(config)) == {
        "kafka-planted",
        "postgresql://u:p-planted@h/n",
        "whsec_planted",
        "otlp-planted",
        SECRET,
    }


async def test_a_line_says_what_its_task_has_in_hand(lines: Any) -> None:
    logs.tell_also(in_flight.log_context)
    in_flight.begin(InFlight(SimpleNamespace(message=SimpleNamespace(key=b"o-1", topic="orders.created", partition=0))))
    log = structlog.get_logger("mine")
    log.warning("before")
    in_flight.bind_attempt(2, "znet-main")
    log.warning("during", order="said-itself")
    found = lines()
    assert (found[0]["order"], "attempt" in found[0]) == ("o-1", False)
    assert (found[1]["order"], found[1]["attempt"], found[1]["integration"]) == ("said-itself", 2, "znet-main")
    in_flight.begin(None)


def test_a_line_within_a_span_carries_its_trace(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log = structlog.get_logger("mine")
    log.warning("off")
    monkeypatch.setattr(traces, "tracer", None)
    traces.use(TracerProvider())
    with traces.sending("orders.created", "o-1", "shop"):
        log.warning("on")
        expected = traces.current_id()
    off, on = lines()
    assert "trace_id" not in off and on["trace_id"] == expected and len(str(expected)) == 32
