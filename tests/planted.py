"""A search for planted secrets in everything that a system leaves behind.

Each secret but the phone holds the word "planted", so that no way of writing it escapes the search.
"""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from confluent_kafka.admin import AdminClient

from streams.kafka.producer import client_settings
from tests.system import System

CREDENTIALS = {"ZNET_KOD": "kod-Zx81-planted", "ZNET_SIFRE": "şifre/Qv7+planted&x", "BARAKAT_TOKEN": "tok-9Kq-planted"}
PHONE = "+905550007781"
PIN = "PIN-55a-planted"
CUSTOMER = ("planted", PHONE)
#: What may stand nowhere at all, in the ways it can be written.
NOWHERE = ("Zx81-planted", "Qv7+planted", "Qv7%2Bplanted", "9Kq-planted", "PIN-55a")
#: Where the contract lets a customer's own words stand: never credentials, never a PIN.
ALLOWED_COLUMNS = {
    ("orders", "user_identifier"),
    ("orders", "extra_field"),
    ("ledger_orders", "request"),
    ("attempts", "wire"),
    ("dead_letters", "value"),
}
ALLOWED_TOPICS = {"orders.created", "orders.dead-letter"}
PAGES = ("/health/", "/outcomes/", "/", "/metrics", "/metrics/")


def leaks(text: str | bytes, words: tuple[str, ...] = CUSTOMER) -> list[str]:
    """Where a secret stands: the text around it."""
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    found = re.finditer("(?i)" + "|".join(map(re.escape, words)), shown)
    return [shown[max(place.start() - 60, 0) : place.end() + 20] for place in found]


def in_logs(system: System, more: Collection[Path] = ()) -> Iterator[str]:
    """In what workers, simulator and the servers in ``more`` wrote, and in the simulator's request log."""
    for path in (*system.directory.glob("worker-*.log"), system.directory / "simulator.log", *more):
        said = path.read_bytes()
        yield from (f"{path.name}: {found}" for found in leaks(said))
        if system.pin_keys.encode() in said:
            yield f"{path.name}: the key that seals PINs"
    requests = json.dumps(system.control("GET", "/requests"), ensure_ascii=False)
    yield from (f"request log: {found}" for found in leaks(requests))


def in_topics(system: System, unreadable: Collection[bytes] = ()) -> Iterator[str]:
    """In keys and headers anywhere, and in values but the shop's own; ``unreadable`` values are the shop's doing."""
    names = AdminClient(client_settings(system.config.kafka)).list_topics(timeout=10).topics
    for topic in (name.removeprefix(system.prefix) for name in names if name.startswith(system.prefix)):
        for record in system.read(topic):
            value = b"" if (record.value() or b"") in unreadable else record.value() or b""
            yield from (f"{topic}: {found}" for found in leaks(repr((record.key(), record.headers()))))
            yield from (f"{topic}: {found}" for found in leaks(value, NOWHERE if topic in ALLOWED_TOPICS else CUSTOMER))


def in_rows(system: System) -> Iterator[str]:
    """In every column of every table; a dead letter keeps what the shop wrote."""
    columns = system.rows("""select table_name as t, column_name as c, data_type as d from information_schema.columns
                             where table_schema = 'public' order by 1, 2""")
    assert len({row["t"] for row in columns}) > 10
    for table, column, kind in ((row["t"], row["c"], row["d"]) for row in columns):
        words = NOWHERE if (table, column) in ALLOWED_COLUMNS else CUSTOMER
        if (table, column) == ("dead_letters", "value"):
            continue
        text = f"""encode("{column}", 'escape')""" if kind == "bytea" else f'"{column}"::text'
        wanted = "|".join(map(re.escape, words))
        found = system.rows(f'select {text} as said from "{table}" where {text} ~* :wanted limit 20', wanted=wanted)
        yield from (f"{table}.{column}: {leak}" for row in found for leak in leaks(row["said"], words))


def in_pages(port: int, more: Collection[str] = ()) -> Iterator[str]:
    """In what a worker shows to whoever asks, metrics included."""
    for path in (*PAGES, *more):
        try:
            with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                said = answer.read()
        except HTTPError as error:
            with error:
                said = error.read()
        yield from (f"{path}: {found}" for found in leaks(said))
