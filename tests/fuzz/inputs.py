"""Targets for what people and other programs hand in: events, configuration, files of orders, headers."""

import json
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import yaml

from agents.config_check import problems
from agents.handlers import projections as handler_projections
from agents.runtime.guard import Delivery, dead_letter
from db.rows import parameters
from orderwatch.support.order_files import Rejects, read_orders
from streams import delay_queue, events
from streams.config.loader import CatalogueDocs, load, with_catalog
from streams.delay_queue import DelayQueue
from streams.errors import ConfigError, EventError
from streams.events import Check, Created, decode, encode, event_id
from streams.kafka.producer import Outgoing
from tests.fuzz.answers import PLAYER, SURROGATES, at_once
from tests.unit.test_config import TEXT

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SAMPLES = Path(__file__).parents[1] / "contract" / "samples"
PLANTED = "hunter2-7f3a"
ENVIRON = {"KP": f"{PLANTED}-kp", "KOD": f"{PLANTED}-kod", "SIFRE": f"{PLANTED}-sifre"}
_SCRATCH = tempfile.TemporaryDirectory(prefix="orderwatch-fuzz-")
_FILE = Path(_SCRATCH.name) / "input"

EVENT_WORDS = [
    *{name for kind in events.EVENTS for name in kind.__struct_fields__},
    "amount",
    "currency",
    "TRY",
    PLAYER,
    "2026-01-31T12:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "2026-01-31T12:00:00",
    "1E+30",
    "-0.0000000001",
    "NaN",
    "x" * 65,
    "o-1",
    "shop",
    "a/b",
    "\x00",
    "\ud800",
    "first",
    "completed",
]


def event_corpus() -> list[bytes]:
    """The samples of every kind, read as every kind."""
    samples = [json.loads(path.read_bytes()) for path in sorted(SAMPLES.glob("*.json"))]
    values = [json.dumps(sample.get("value", sample)).encode() for sample in samples]
    return [bytes((kind,)) + value for kind in range(len(events.EVENTS)) for value in values]


def event(data: bytes) -> object:
    """An event is read whole and can be stored and said again, or its error names a field and quotes nothing."""
    kind, value = events.EVENTS[(data[:1] or b"\0")[0] % len(events.EVENTS)], data[1:]
    try:
        told = decode(kind, value)
    except EventError as error:
        text = str(error)
        assert text.startswith(kind.TYPE) and PLAYER not in text and len(text) < 400, "a careless error"
        assert text.encode() and "\n" not in text
        return kind.TYPE, text[:60]
    assert decode(kind, encode(told)) == told and event_id(told) == event_id(decode(kind, encode(told)))
    assert not any("\0" in text for text in _texts(json.loads(encode(told)))), "text that PostgreSQL cannot hold"
    for name, header in events.headers(told):
        assert name and header
    if isinstance(told, Created):
        assert len(told.fingerprint()) == 64 and 1 <= told.quantity <= 1000
    return kind.TYPE, "read", sum(getattr(told, name) is None for name in told.__struct_fields__)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON document, names too."""
    if isinstance(value, str):
        yield value
    for inner in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from _texts(inner)


CONFIG_WORDS = [
    "kafka",
    "database",
    "web",
    "checks",
    "dispatch",
    "worker",
    "table",
    "integrations",
    "routes",
    "mappings",
    "credentials",
    "limits",
    "backoff",
    "breaker",
    "profile",
    "options",
    "id",
    "tenant_id",
    "provider",
    "url",
    "base_url",
    "currency",
    "mode",
    "primary",
    "fallback",
    "params",
    "extra",
    "30s",
    "500ms",
    "10/s",
    "-1s",
    "znet",
    "barakat",
    "codes",
    "auto",
    "manual",
    "true",
    "null",
    "1e9",
    ".nan",
    ".inf",
    "${KOD}",
    "${NONE}",
    "${X:-y}",
    "${",
    "&a",
    "*a",
    "<<",
    "!!python/object:os.system",
    "- ",
    "  ",
    "? ",
    ": ",
    "{",
    "[",
    "'",
    '"',
    "http://u:p@h/",
    "{user_identifier}",
    "{params.x}",
    "{",
    "error_codes",
    "words",
    "list_syntax",
    "2026-01-01",
    "0x1F",
    "0b1",
    "1:30",
    "partitions",
    "max_in_flight",
    "\U0001f4a3",
    "a" * 300,
]


def config_corpus() -> list[bytes]:
    """A whole file, the shipped file, and the blocks of each alone."""
    text = TEXT.replace("${KP}", ENVIRON["KP"]).replace("${SIFRE}", ENVIRON["SIFRE"])
    shipped = (Path(__file__).parents[2] / "config.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    lines = [json.dumps({key: value for key, value in document.items() if key != left}).encode() for left in document]
    return [text.encode(), *lines, shipped.encode()[:6000]]


def config(data: bytes) -> object:
    """A file is a configuration, and the same one from the database, or every mistake is a line without a secret."""
    _FILE.write_bytes(data)
    try:
        read = load(_FILE, ENVIRON, problems)
    except ConfigError as error:
        lines = str(error).splitlines()
        assert lines and all("; expected " in line and len(line) < 2000 for line in lines), "a careless line"
        assert not _only_where_secrets_belong(data) or PLANTED not in str(error), "a secret is repeated"
        return len(lines), lines[0][:60]
    again = with_catalog(read, CatalogueDocs(*read.docs), ENVIRON, problems)
    assert again.docs == read.docs and again.fingerprint() == read.fingerprint()
    assert PLANTED not in repr(read), "a secret is printed"
    return "read", len(read.integrations), len(read.routes), len(read.mappings)


def _only_where_secrets_belong(data: bytes) -> bool:
    """Whether the planted text stands nowhere else than below credentials and in passwords."""
    try:
        document = yaml.load(data.decode("utf-8-sig"), yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError, TypeError):
        return False
    return not any(PLANTED in text or any(f"{{{name}}}" in text for name in ENVIRON) for text in _outside(document, 0))


def _outside(value: Any, depth: int) -> Iterator[str]:
    if depth > 30:
        yield PLANTED
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            if key not in ("credentials", "password"):
                yield from _outside(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _outside(inner, depth + 1)
    else:
        yield str(value)


LINE = json.dumps(
    {
        "order_id": "o-1",
        "tenant_id": "shop",
        "package_id": "sixty",
        "user_identifier": PLAYER,
        "quantity": 2,
        "params": {"server": "EU"},
        "sell_price": {"amount": "1.50", "currency": "TRY"},
    }
)
TABLE = "order_id,package_id,user_identifier,quantity,params.server,sell_price_amount,sell_price_currency"
FILE_WORDS = [*EVENT_WORDS, *TABLE.split(","), '"', '""', ",", ";", "\n", "\r\n", "params.", "\u2028", "1" * 5000]


def file_corpus() -> list[bytes]:
    """Small files of both kinds: the first byte says which."""
    rows = f'{TABLE}\r\no-1,sixty,{PLAYER},2,EU,1.50,TRY\r\no-2,sixty,"a\nb",,,,\r\n'
    two = f"{LINE}\n\n{LINE.replace('o-1', 'o-2')}\n"
    return [
        b"j" + two.encode(),
        b"c" + rows.encode(),
        b"c" + rows.encode("utf-16"),
        b"j\xef\xbb\xbf" + LINE.encode(),
        b"c\xef\xbb\xbf" + TABLE.encode(),
    ]


def order_file(data: bytes) -> object:
    """Every line is an order or a reason; what was set aside is bad again when it is read again."""
    ending = ".jsonl" if data[:1] == b"j" else ".csv"
    path = _FILE.with_suffix(ending)
    path.write_bytes(data[1:])
    with Rejects(path) as rejects:
        try:
            lines = list(read_orders(path, NOW, "shop"))
        except ConfigError as error:
            assert "expected" in str(error)
            return ending, "no file of orders"
        for line in lines:
            assert (line.created is None) == bool(line.error) and PLAYER not in line.error
            if line.created is None:
                rejects.add(line, line.error)
    assert [line.number for line in lines] == sorted({line.number for line in lines}) and all(n.number for n in lines)
    bad = [line for line in lines if line.created is None]
    if bad:
        again = list(read_orders(rejects.path, NOW, "shop"))
        told = [line for line in bad if line.text.strip()]
        assert [line.error for line in again if line.created is None and line.text.strip()][: len(told)] == [
            line.error for line in told
        ], "set aside otherwise than read"
        rejects.path.unlink()
    return ending, len(lines), tuple(sorted({line.error[:30] for line in lines}))


class Heads:
    """A consumer that has one record."""

    def __init__(self) -> None:
        self.record: Any = None

    def consume(self, number: int, timeout_s: float) -> list[Any]:
        return [self.record]

    def store_offsets(self, **_: Any) -> None:
        pass


DELAY_WORDS = [
    *EVENT_WORDS,
    "due_at",
    "2026-03-01T12:00:00Z",
    "2026-03-01T12:00:01Z",
    "ce_id",
    "dlq.reason",
    "dlq.offset",
]


def _line_of(heads: Heads) -> DelayQueue:
    line = DelayQueue.__new__(DelayQueue)  # without its consumer and its thread
    line.__dict__.update(
        _now=lambda: NOW,
        _held={},
        _handed={},
        _due=deque(),
        _paused=set(),
        _ours={("orders.retry.30s", 0): NOW},
        _next={("orders.retry.30s", 0): 0},
        _lock=threading.Lock(),
        _taker=None,
        _consumer=heads,
        _decode=msgspec.json.Decoder(delay_queue._Written).decode,
    )
    return line


def delayed_corpus() -> list[bytes]:
    """A check that is due and one that is not, with their headers as a JSON object in front."""
    checks = [json.loads((SAMPLES / "check.json").read_bytes())]
    values = [
        {**check.get("value", check), "due_at": at}
        for check in checks
        for at in ("2026-03-01T11:59:59Z", "2026-03-01T12:00:01Z", "2026-03-01T15:00:00+03:00")
    ]
    headers = {"ce_id": "a", "ce_type": "orderwatch.order.check.v1", "dlq.reason": None, "traceparent": "00-1-2-01"}
    return [json.dumps(headers).encode() + b"\n" + json.dumps(value).encode() for value in values]


def _record(data: bytes) -> Any:
    """The record in an input: a line of headers, then the value; a first line that is no object is a raw header."""
    first, _, value = data.partition(b"\n")
    try:
        said = json.loads(first)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict):
        headers = [
            (name.encode("utf-8", "replace").decode(), None if text is None else str(text).encode("utf-8", "replace"))
            for name, text in said.items()
        ]
    else:
        headers = [("h", first)]
    return SimpleNamespace(
        topic=lambda: "orders.retry.30s",
        partition=lambda: 0,
        offset=lambda: 7,
        key=lambda: first[:9] or None,
        value=lambda: value or None,
        headers=lambda: headers,
        error=lambda: None,
    )


def delayed(data: bytes) -> object:
    """A record waits, or goes on untouched: once it is due, or at once to whoever says what is wrong with it."""
    heads = Heads()
    line = _line_of(heads)
    heads.record = _record(data)
    line._turn()
    line._take()
    if sleeping := line.heads():
        assert not line._due and sleeping["orders.retry.30s", 0] > NOW
        return "sleeps"
    [out] = line._due
    assert (out.key, out.value, list(out.headers)) == (heads.record.key(), heads.record.value(), heads.record.headers())
    try:
        due_at = decode(Check, out.value).due_at
    except EventError:
        return "cannot be read", len(out.headers)
    assert due_at <= NOW or due_at - NOW > timedelta(days=1, seconds=30), "early"
    return "goes on", due_at <= NOW, len(out.headers)


class Kept:
    """Views and an emitter that keep what they are given, as far as PostgreSQL and a broker could."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.sent: list[Outgoing] = []
        self.emitter = self

    async def dead_letter(self, **row: Any) -> None:
        shown = {**row, **{name: (row[name] or b"").hex() for name in ("key", "value")}}
        parameters([shown])  # as the view does
        told = "".join((row["topic"], row["agent"], row["reason"], row["error"], *sum(row["headers"].items(), ())))
        assert not set(told) & {"\x00", *SURROGATES}, "text that PostgreSQL cannot hold"
        assert -1 <= row["partition"] < 2**31 and -1 <= row["offset"] < 2**63
        assert row["at"].tzinfo is not None
        self.rows.append(row)

    async def send(self, records: Sequence[Outgoing]) -> None:
        self.sent += records


def letter_corpus() -> list[bytes]:
    """Records of every kind as they are set aside, once as we do it and once as somebody else might."""
    ours = [delivery for data in delayed_corpus() for delivery in (_delivery(_record(data)),)]
    outs = [dead_letter("check", delivery, "malformed", "value: Expected `object`") for delivery in ours]
    heads = [json.dumps({name: value.decode() for name, value in out.headers if value}) for out in outs]
    return [head.encode() + b"\n" + (out.value or b"") for head, out in zip(heads, outs, strict=True)]


def _delivery(record: Any) -> Delivery:
    return Delivery(record.topic(), record.partition(), record.offset(), record.key(), record.value(), record.headers())


def letter(data: bytes) -> object:
    """Whatever lies in the dead-letter topic is recorded once and told once."""
    kept: Any = Kept()
    delivery = _delivery(_record(data))
    out = dead_letter("check", delivery, "malformed", "x")
    assert (out.key, out.value) == (delivery.key, delivery.value)
    for found in (delivery, Delivery(out.topic, 0, 1, out.key, out.value, out.headers)):
        at_once(handler_projections.dead_letter(kept, kept, found))
    told = [decode(events.Attention, sent.value) for sent in kept.sent]
    assert len(kept.rows) == len(told) == 2 and kept.rows[1]["reason"] == "malformed"
    return kept.rows[0]["reason"][:20], kept.rows[0]["offset"] < 0, told[0].order_id is None
