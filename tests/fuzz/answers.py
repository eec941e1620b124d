"""Targets for the provider adapters: any answer, read by the adapter as in the product, judged by ``rules``."""

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from agents.providers import money
from agents.providers.base import Ask, Placed, Provider, Reply, Seen, Setup
from agents.providers.text import decode
from agents.providers.zdk.adapter import Barakat
from agents.providers.znet.adapter import Znet
from streams.errors import ProviderError
from tests.contract import test_providers_barakat as barakat_rows
from tests.contract import test_providers_znet as znet_rows
from tests.contract.provider_cases import CREDENTIALS, opened, seal
from tests.fuzz import rules

T = TypeVar("T")
PLAYER = "5551234567890"
REFERENCE = znet_rows.REFERENCE
UUID = barakat_rows.REFERENCE
ASKS = (
    Ask(UUID, "ID_9f"),
    Ask(Barakat.reference("demo", "o-2", 1), "ID_A0", delivers_pin=True),
    Ask("0" * 32, "ID_9F"),
)
STATUSES = (
    200,
    200,
    200,
    200,
    200,
    200,
    200,
    200,
    201,
    204,
    301,
    302,
    400,
    401,
    403,
    404,
    405,
    408,
    409,
    422,
    429,
    500,
    502,
    503,
)
CHARSETS = (None, None, None, None, "utf-8", "windows-1254", "iso-8859-9", "rot13", "no such")
ECHOES = [
    f"<html>GET /servis/pin_ekle.php?kod=5551112233&sifre=s3cret%2F%C5%9Fifre&oyuncu_bilgi={PLAYER}</html>",
    "3|kod=5551112233 sifre=s3cret%2f%c5%9fifre",
    "OK|2|P1|s3cret/şifre",
    "3|s3cret&#x2F;şifre http://a/?sifre=b",
]
WORDS = [
    "OK",
    "ok",
    "ERROR",
    "accept",
    "wait",
    "reject",
    "success",
    "pending",
    "processing",
    "refunded",
    "fail",
    "code",
    "status",
    "state",
    "data",
    "order_id",
    "orderId",
    "id",
    "order_uuid",
    "price",
    "price_usd",
    "pin",
    "replay_api",
    "replay",
    "message",
    "msg",
    "note",
    "error",
    "error_code",
    "errorCode",
    "reused",
    "duplicate",
    "balance",
    "debt",
    "bakiye",
    "borc",
    "currency",
    "ID_9f",
    "ID_A0",
    "ID_9F",
    UUID,
    UUID.upper(),
    REFERENCE,
    "100",
    "109",
    "111",
    "120",
    "200",
    "0",
    "1",
    "2",
    "3",
    "4",
    "8",
    "02",
    " - ",
    "-",
    "–",
    "P-17",
    "10.12",
    "1.234,56",
    "-20",
    "TL",
    "Yetersiz Bakiye",
    "Daha Önce Gönderilmiş (166189)",
    "Kupur Bilgisi Bulunamadı",
    "try again",
    "unknown",
    PLAYER,
    *CREDENTIALS["znet"].values(),
    *CREDENTIALS["barakat"].values(),
    "success",
    "result",
    "fiyat",
    "kupur",
    "oyun",
    "oyun_bilgi_id",
    "adi",
    "acc\x00ept",
    "t0ken\x00-999-abc",
    "<",
    "qty_values",
    "min",
    "max",
    "params",
    "name",
]


class Wire:
    """``base.Http`` that gives one answer to everything."""

    def __init__(self) -> None:
        self.reply = Reply(200, b"")

    async def fetch(self, method: str, path: str, **_: Any) -> Reply:
        return self.reply


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        call.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("the adapter waited for something else than its answer")


def framed(status: int, charset: str | None, option: int, body: bytes) -> bytes:
    """An answer as one input: three bytes say status, character set and what is asked, the body follows."""
    return bytes((STATUSES.index(status) if status in STATUSES else 0, CHARSETS.index(charset), option)) + body


def corpus(*tables: Mapping[str, Any]) -> list[bytes]:
    """Every answer of the contract's tables, each asked in every way, and pages that repeat the request."""
    answers = {part for table in tables for rows in table.values() for part in _bytes(rows)}
    bodies = {
        framed(int(head.split(b" ")[1]), None, option, body)
        for answer in answers
        for head, _, body in [answer.partition(b"\r\n\r\n")]
        if len(body) < 8000
        for option in range(2)
    }
    return sorted(bodies | {framed(200, None, 0, page.encode()) for page in ECHOES})


def _bytes(rows: Any) -> list[bytes]:
    if isinstance(rows, bytes):
        return [rows] if rows.startswith(b"HTTP/") else []
    return [found for part in rows for found in _bytes(part)] if isinstance(rows, list | tuple) else []


SURROGATES = frozenset(map(chr, range(0xD800, 0xE000)))
WIRE = Wire()


def adapter(name: str) -> Any:
    """An adapter whose network is ``WIRE``."""
    made: type[Provider] = {"znet": Znet, "barakat": Barakat}[name]
    return made(Setup("main", "demo", "TRY", WIRE, seal, None, CREDENTIALS[name]))


ZNET, BARAKAT = adapter("znet"), adapter("barakat")
ZNET_WIRE = {"oyun": "1", "kupur": "325", "oyuncu_bilgi": PLAYER, "musteri_tel": "5329998877"}
BARAKAT_WIRE = {"_product": "365", "qty": "1", "playerId": PLAYER}


def received(data: bytes) -> tuple[int, str, int]:
    """Put an input on the wire; its status, its text as the rules read it, and what is asked."""
    head, body = data[:3].ljust(3, b"\0"), data[3:]
    status, charset = STATUSES[head[0] % len(STATUSES)], CHARSETS[head[1] % len(CHARSETS)]
    WIRE.reply = Reply(status, body, charset)
    text = rules.text_of(body, charset)
    assert decode(body, charset) == text, "the text was read otherwise"
    return status, text, head[2]


def clean_of(answer: Any, text: str, *secrets: str) -> None:
    """No secret in what an answer says, and nothing in it that no column takes."""
    shown = repr((answer.message, answer.raw, answer.flags))
    for secret in secrets:
        assert secret not in shown, "a secret is repeated"
    for kept in (answer.raw, answer.message, answer.external_id or ""):
        assert not set(kept) & {"\x00", *SURROGATES}, "text that PostgreSQL cannot hold"
    assert len(answer.raw) <= 2000 and len(answer.message) <= 500


def znet_placement(data: bytes) -> object:
    status, text, _ = received(data)
    answer = at_once(ZNET.place(REFERENCE, ZNET_WIRE))
    assert answer.kind in rules.OPEN_PLACEMENT | rules.znet_placement(status, text), answer.kind
    assert answer.pins == ()
    if answer.kind is Placed.ACCEPTED and answer.cost:
        assert answer.cost.amount == +(rules.amount(rules.trimmed(text.split("|")[1])) or 0), "another cost"
    clean_of(answer, text, *CREDENTIALS["znet"].values(), PLAYER)
    return answer.kind, answer.reason, answer.flags, answer.tripped


def znet_status(data: bytes) -> object:
    status, text, _ = received(data)
    [answer] = at_once(ZNET.check([Ask(REFERENCE, wire=ZNET_WIRE)]))
    allowed, pin = rules.znet_question(status, text)
    assert answer.kind in rules.OPEN_QUESTION | allowed, answer.kind
    assert opened(answer.pins) == ([pin] if pin else []), "another PIN"
    clean_of(answer, text, *CREDENTIALS["znet"].values(), PLAYER, *([pin] if len(pin) > 6 else []))
    return answer.kind, answer.flags, answer.tripped


def znet_absence(data: bytes) -> object:
    """The same bytes as status and as balance: an order is absent only while the account tells its money."""
    status, text, _ = received(data)
    [answer] = at_once(ZNET.look_up([Ask(REFERENCE)]))
    told = at_once(ZNET.balance())
    if answer.kind is Seen.NOT_FOUND:
        assert status == 200 and told.money and text.startswith("3"), "absent without a healthy account"
    return answer.kind, told.reason[:12], told.money is not None, _catalogue(ZNET)


def barakat_placement(data: bytes) -> object:
    status, text, option = received(data)
    wire = BARAKAT_WIRE | ({"_delivers_pin": "1"} if option & 1 else {})
    answer = at_once(BARAKAT.place(UUID, wire))
    assert answer.kind in rules.OPEN_PLACEMENT | rules.zdk_placement(UUID, status, text), answer.kind
    assert not answer.pins or answer.kind is Placed.COMPLETED, "a PIN before the end"
    assert answer.kind not in (Placed.ACCEPTED, Placed.COMPLETED) or answer.external_id
    hidden = [pin for pin in opened(answer.pins) if len(pin) > 6]
    clean_of(answer, text, *CREDENTIALS["barakat"].values(), PLAYER, *hidden)
    return answer.kind, answer.reason, answer.flags, bool(answer.pins), answer.tripped


def barakat_status(data: bytes) -> object:
    status, text, option = received(data)
    asks = ASKS[: 1 + option % len(ASKS)]
    if by_uuid := bool(option & 4):
        asks = tuple(Ask(ask.reference, None, ask.delivers_pin) for ask in asks)
    asks = tuple(replace(ask, wire=BARAKAT_WIRE) for ask in asks)
    answers: Sequence[Any] = at_once(BARAKAT.look_up(asks) if by_uuid else BARAKAT.check(asks))
    told = at_once(BARAKAT.balance())
    assert len(answers) == len(asks)
    for ask, answer in zip(asks, answers, strict=True):
        allowed = rules.zdk_question(ask, len(asks), status, text, by_uuid=by_uuid)
        if by_uuid and len(asks) > 1:  # what cannot be told apart is asked again, alone
            allowed |= rules.zdk_question(ask, 1, status, text, by_uuid=True)
        assert answer.kind in rules.OPEN_QUESTION | allowed, answer.kind
        assert not answer.pins or answer.kind is Seen.SUCCEEDED, "a PIN before the end"
        hidden = [pin for pin in opened(answer.pins) if len(pin) > 6]
        clean_of(answer, text, *CREDENTIALS["barakat"].values(), PLAYER, *hidden)
    return tuple((answer.kind, answer.flags) for answer in answers), told.money is None, _catalogue(BARAKAT)


def _catalogue(adapter: Any) -> int:
    """How many of three things a catalogue has: items, sellable ones, prices."""
    try:
        items = at_once(adapter.catalogue())
    except ProviderError:
        return -1
    return bool(items) + any(item.orderable for item in items) + any(item.price for item in items)


def amounts(data: bytes) -> object:
    """Money is read as the rules say, or not at all."""
    text = data.decode("utf-8", "replace")[:80]
    amount = money.read_amount(text)
    assert amount is None or amount == +(rules.amount(text) or 0), "another amount"
    return amount is None, len(str(amount))
