"""A client of the simulated shops that sends every request once, and the shops themselves.

aiohttp's client re-sends a GET after a hang-up, so the judge of hang-ups cannot be asked with it.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from orderwatch.simulator.scenario import Scenario
from orderwatch.simulator.server import Running, Settings, start

ZNET: dict[str, Any] = {
    "id": "znet-main",
    "kind": "znet",
    "credentials": {"kod": "5320000000", "sifre": "gizli"},
    "balance": "1000",
    "catalogue": [
        {"id": "12345", "name": "PUBG Mobile 60 UC", "oyun": "100", "kupur": "UC60", "price": "10.12"},
        {"id": "12350", "name": "Razer Gold", "oyun": "200", "kupur": "RZ", "price": "5", "available": False},
        {"id": "12360", "name": "Yat", "oyun": "300", "kupur": "Y", "price": "5000"},
    ],
}
ZDK: dict[str, Any] = {
    "id": "barakat-1",
    "kind": "zdk",
    "credentials": {"token": "jeton"},
    "currency": "USD",
    "balance": "100",
    "catalogue": [
        {"id": "365", "name": "60 UC", "price": "1.26048"},
        {"id": "410", "name": "Razer", "price": "2", "available": False},
        {"id": "500", "name": "Coins", "price": "0.5", "category": "Live", "qty_values": {"min": 3, "max": 20}},
        {"id": "600", "name": "Points", "price": "0.01", "qty_values": ["110", "150"]},
        {"id": "700", "name": "Yacht", "price": "5000"},
    ],
}


@dataclass(frozen=True)
class Got:
    """What came back on one connection: ``raw`` is every byte of it, ``body`` what follows the headers."""

    raw: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Got:
    """One request on its own connection, read to the end. Raises ``ConnectionResetError`` after a reset."""
    reader, writer = await asyncio.open_connection(*(await sent_to(url)))
    try:
        writer.write(request_bytes(method, url, headers or {}, body))
        return parsed(await reader.read())
    finally:
        writer.close()


async def sent_to(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port


def request_bytes(method: str, url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    parts = urlsplit(url)
    target = parts.path + ("?" + parts.query if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def parsed(raw: bytes) -> Got:
    if not raw:
        return Got(raw, 0, {}, b"")
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Got(raw, int(first.split(" ")[1]), headers, body)


class Shops:
    """A simulator with one znet and one ZDK dealer, spoken to as their clients do."""

    def __init__(self, running: Running) -> None:
        self.running = running

    def znet_url(self, service: str, **query: str) -> str:
        known = {"kod": "5320000000", "sifre": "gizli"} | query
        return f"{self.running.base_url('znet-main')}/servis/{service}.php?{urlencode(known)}"

    async def znet(self, service: str, **query: str) -> Got:
        return await ask("GET", self.znet_url(service, **query))

    def place_url(self, reference: str, **query: str) -> str:
        wanted = {"oyun": "100", "kupur": "UC60", "referans": reference, "oyuncu_bilgi": "77"} | query
        return self.znet_url("pin_ekle", **wanted)

    async def place(self, reference: str, **query: str) -> Got:
        return await ask("GET", self.place_url(reference, **query))

    async def look(self, reference: str) -> str:
        return (await self.znet("pin_kontrol", tahsilat_api_islem_id=reference)).text

    async def zdk(self, path: str, token: str | None = "jeton", method: str = "GET", body: bytes = b"") -> Got:
        headers = {} if token is None else {"api-token": token}
        return await ask(method, f"{self.running.base_url('barakat-1')}/client/api/{path}", headers, body)

    async def order(self, uuid: str, product: str = "365", qty: str = "1", player: str = "p1") -> Got:
        query = urlencode({"qty": qty, "order_uuid": uuid, "playerId": player})
        return await self.zdk(f"newOrder/{product}/params?{query}")

    async def rows(self, orders: str, uuid: bool = True) -> list[dict[str, Any]]:
        got = await self.zdk(f"check?orders={quote(orders)}{'&uuid=1' if uuid else ''}")
        rows: list[dict[str, Any]] = got.json["data"]
        return rows

    async def control(self, method: str, path: str, data: Any = None) -> Got:
        body = b"" if data is None else msgspec.json.encode(data)
        return await ask(method, self.running.control_url + path, body=body)

    async def change(self, account: str, **settings: Any) -> None:
        got = await self.control("PATCH", f"/accounts/{account}", settings)
        assert got.status == 200, got.text

    async def fault(self, kind: str, account: str = "znet-main", **settings: Any) -> None:
        got = await self.control("POST", f"/accounts/{account}/faults", {"kind": kind, **settings})
        assert got.status == 201, got.text

    async def ledger(self, query: str = "") -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = (await self.control("GET", f"/ledger{query}")).json
        return entries

    async def summary(self, account: str = "znet-main") -> dict[str, Any]:
        found: dict[str, Any] = (await self.control("GET", "/ledger/summary")).json["accounts"][account]
        return found


async def open_shops(seed: int = 7, **settings: Any) -> Shops:
    """Both dealers, freshly opened; the caller stops ``running``."""
    scenario = msgspec.convert({"accounts": [ZNET, ZDK], **settings}, Scenario)
    return Shops(await start(Settings(seed=seed, scenario=scenario)))
