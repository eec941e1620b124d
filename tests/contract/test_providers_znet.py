"""znet, row by row of its protocol table, over a real socket."""

import itertools

import pytest

from agents.providers.base import Ask, Placed, Refusal, Seen
from agents.providers.testing import raw_server as raw
from agents.providers.testing.raw_server import http
from streams.errors import InvalidOrder, ProviderError
from tests.contract.provider_cases import ORDER, adapter_at, adapter_on, expect, money

REFERENCE = "4711000000000001"
MAPPING = {"provider_package_id": "2", "oyun": "1", "kupur": "325"}
WIRE = {"oyun": "1", "kupur": "325", "oyuncu_bilgi": "pl4yer-77"}
ASK = Ask(REFERENCE)
PAGE = "<!DOCTYPE html><html><body>403 Forbidden</body></html>"
LOCKED = "8|Bağlantı Hatası,Kullanıcı Api Yetki, Kısıtlı Ip yada Kullanıcı Bilgileri Hatalı"


def tl(amount):
    return money(amount, "TRY")


def accepted(cost, balance, **more):
    return {"kind": Placed.ACCEPTED, "cost": cost and tl(cost), "balance": balance and tl(balance), **more}


#: id -> whole HTTP answer, expected fields
PLACEMENTS = {
    "ZP01": (http("OK|10.12|980.88"), accepted("10.12", "980.88", flags=())),
    "ZP02": (http("OK|45.50|1234.50"), accepted("45.50", "1234.50")),
    "ZP03": (http("OK|37,60|1.234,56"), accepted("37.60", "1234.56")),
    "ZP04": (http("OK|1,234.56|-20.00"), accepted("1234.56", "-20.00")),
    "ZP05": (http("ok|7.30|0\r\n"), accepted("7.30", "0")),
    "ZP06": (http("OK | 7.30 | 100.00"), accepted("7.30", "100.00")),
    "ZP07": (http("\ufeffOK|7.30|100.00"), accepted("7.30", "100.00")),
    "ZP08": (http("OK|7.30"), accepted("7.30", None, flags=("short_row",))),
    "ZP09": (http("OK"), accepted(None, None, flags=("short_row", "cost_unknown"))),
    "ZP11": (http("OK|Sistemsel hata Tekrar Deneyin|0.00"), {"kind": Placed.AMBIGUOUS}),
    "ZP13": (http("OK|8|Bu İşlem Daha Önce Gönderildi|0.00"), {"kind": Placed.DUPLICATE}),
    "ZP14": (http("4|Daha Önce Gönderilmiş (166189)"), {"kind": Placed.DUPLICATE, "external_id": "166189"}),
    "ZP15": (
        http("3|Kupur Bilgisi Bulunamadı"),
        {"kind": Placed.REJECTED, "reason": Refusal.PACKAGE, "flags": ("mapping",)},
    ),
    "ZP16": (http("3|Açıklama"), {"kind": Placed.REJECTED, "reason": Refusal.OTHER, "message": "Açıklama"}),
    "ZP17": (http("3|Yetersiz Bakiye"), {"kind": Placed.REJECTED, "reason": Refusal.FUNDS}),
    "ZP18": (http("3|"), {"kind": Placed.REJECTED, "reason": Refusal.OTHER, "message": ""}),
    "ZP20": (http(LOCKED), {"kind": Placed.AMBIGUOUS, "reason": Refusal.ACCESS, "tripped": True}),
    "ZP21": (http("5|bilinmeyen"), {"kind": Placed.AMBIGUOUS, "reason": None}),
    "ZP22": (http(""), {"kind": Placed.AMBIGUOUS, "reason": Refusal.ACCESS}),
    "ZP23": (http(" \r\n \u00a0"), {"kind": Placed.AMBIGUOUS, "reason": Refusal.ACCESS}),
    "ZP24": (http(PAGE), {"kind": Placed.AMBIGUOUS, "flags": ("html",)}),
    "ZP27": (http('{"status":"OK"}'), {"kind": Placed.AMBIGUOUS}),
    "ZP28": (http("Service Unavailable", 503), {"kind": Placed.AMBIGUOUS, "tripped": False}),
    "ZP30": (http(PAGE, 403), {"kind": Placed.AMBIGUOUS, "reason": Refusal.ACCESS, "tripped": True}),
    "ZP35": (
        http("3|Küpür Bilgisi Bulunamadı".encode("cp1254")),
        {"kind": Placed.REJECTED, "reason": Refusal.PACKAGE, "message": "Küpür Bilgisi Bulunamadı"},
    ),
}

#: beyond the table: what must not be taken for an acceptance or a refusal
EDGES = {
    "three amounts": (http("OK|1|2|3"), {"kind": Placed.AMBIGUOUS}),
    "a bar at the end": (http("OK|1|2|"), accepted("1", "2")),
    "eight liras": (http("OK|8|12.50"), accepted("8", "12.50")),
    "a warning first": (http("<br />\n<b>Warning</b>: x\nOK|10.12|980.88"), {"kind": Placed.AMBIGUOUS}),
    "a warning last": (http("OK|10.12|980.88\n<b>Warning</b>"), {"kind": Placed.AMBIGUOUS}),
    "accepted inside a 500": (http("OK|10.12|980.88", 500), {"kind": Placed.AMBIGUOUS}),
    "accepted inside a 403": (http("OK|10.12|980.88", 403), {"kind": Placed.AMBIGUOUS}),
    "refused inside a 502": (http("3|Yetersiz Bakiye", 502), {"kind": Placed.AMBIGUOUS}),
    "sent before, said with a 3": (http("3|Bu referans daha önce kullanılmış"), {"kind": Placed.DUPLICATE}),
    "a redirect": (raw.redirect(), {"kind": Placed.AMBIGUOUS}),
    "request timeout": (http("", 408), {"kind": Placed.AMBIGUOUS}),
    "too many requests": (http("", 429, "Retry-After: 7"), {"kind": Placed.AMBIGUOUS, "retry_after_s": 7.0}),
    "not found": (http(PAGE, 404), {"kind": Placed.AMBIGUOUS, "reason": None, "tripped": False}),
    "10 MB": (http(b"x" * 10_000_000), {"kind": Placed.AMBIGUOUS}),
    "a gzip bomb": (raw.gzip_bomb(), {"kind": Placed.AMBIGUOUS}),
    "truncated": (raw.truncated(b"OK|10.12|980.8"), {"kind": Placed.AMBIGUOUS}),
    "a reset": (raw.reset, {"kind": Placed.AMBIGUOUS}),
    "a page that repeats the request": (raw.echo, {"kind": Placed.AMBIGUOUS, "flags": ("html",)}),
}


@pytest.mark.parametrize("case", [*PLACEMENTS, *EDGES])
async def test_a_placement_answer_has_one_meaning(case):
    answer, expected = (PLACEMENTS | EDGES)[case]
    async with adapter_on("znet", answer) as (znet, server):
        expect(await znet.place(REFERENCE, WIRE), expected)
        assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [raw.silence, raw.drip])
async def test_zp31_a_timeout_is_ambiguous_and_was_sent_once(fault):
    async with adapter_on("znet", fault, timeout_s=0.3) as (znet, server):
        expect(await znet.place(REFERENCE, WIRE), {"kind": Placed.AMBIGUOUS})
        assert len(server.requests) == 1


async def test_zp32_a_hang_up_is_ambiguous_and_was_sent_once():
    async with adapter_on("znet", raw.hang_up) as (znet, server):
        expect(await znet.place(REFERENCE, WIRE), {"kind": Placed.AMBIGUOUS})
        assert len(server.requests) == 1


@pytest.mark.parametrize("host", ["a refused port", "no such host"])
async def test_zp33_what_never_left_is_not_sent(host):
    url = await raw.refused_url() if host == "a refused port" else "http://nobody.invalid"
    async with adapter_at("znet", url) as znet:
        expect(await znet.place(REFERENCE, WIRE), {"kind": Placed.NOT_SENT})


@pytest.mark.parametrize("lacking", ["oyun", "kupur", "oyuncu_bilgi"])
async def test_zp36_an_incomplete_placement_is_not_sent(lacking):
    async with adapter_on("znet", http("OK|1|2")) as (znet, server):
        expect(await znet.place(REFERENCE, WIRE | {lacking: " "}), {"kind": Placed.NOT_SENT, "flags": ("invalid",)})
        assert server.requests == []
        if lacking != "oyuncu_bilgi":
            with pytest.raises(InvalidOrder, match=lacking):
                znet.prepare(ORDER, MAPPING | {lacking: ""}, 1)


#: id -> answers, each with expected fields
STATUSES = {
    "ZS01": [
        (
            http("OK|2|AB12-CD34-EF56-GH78|Açıklama"),
            {"kind": Seen.SUCCEEDED, "pins": ["AB12-CD34-EF56-GH78"], "message": "Açıklama"},
        )
    ],
    "ZS02": [(http("OK|1| |Açıklama"), {"kind": Seen.PENDING, "message": "Açıklama"})],
    "ZS03": [(http("OK|3| |Açıklama"), {"kind": Seen.FAILED, "message": "Açıklama"})],
    "ZS04": [(http("OK|1| - |İşlem bekleniyor"), {"kind": Seen.PENDING, "message": "İşlem bekleniyor"})],
    "ZS05": [(http("OK|2| - |İşlem tamamlandı"), {"kind": Seen.SUCCEEDED, "message": "İşlem tamamlandı"})],
    "ZS06": [(http("OK|2|-|"), {"kind": Seen.SUCCEEDED, "message": ""})],
    "ZS07": [(http("OK|3| |"), {"kind": Seen.FAILED, "message": ""})],
    "ZS08": [(http("OK|3|Hatalı ID|"), {"kind": Seen.FAILED, "message": "Hatalı ID"})],
    "ZS10": [(http("OK|2|P1"), {"kind": Seen.SUCCEEDED, "pins": ["P1"], "flags": ("short_row",)})],
    "ZS11": [(http("OK|2"), {"kind": Seen.SUCCEEDED, "flags": ("short_row",)})],
    "ZS14": [(http(f"OK|{state}||x"), {"kind": Seen.UNRECOGNISED}) for state in ("0", "4", "9", "")],
    "ZS16": [(http("3|Açıklama"), {"kind": Seen.QUERY_ERROR, "message": "Açıklama"})],
    "ZS17": [(http("3|İşlem bulunamadı"), {"kind": Seen.QUERY_ERROR, "flags": ("negative",)})],
    "ZS18": [(http(LOCKED), {"kind": Seen.QUERY_ERROR, "tripped": True, "flags": ("access",)})],
    "ZS19": [
        (http("2|Onay"), {"kind": Seen.QUERY_ERROR, "flags": ("unexpected_form",)}),
        (http("1|x"), {"kind": Seen.QUERY_ERROR, "flags": ("unexpected_form",)}),
    ],
    "ZS21": [(http(""), {"kind": Seen.QUERY_ERROR, "flags": ("negative",)})],
    "ZS22": [(http(PAGE), {"kind": Seen.QUERY_ERROR, "flags": ("html",)})],
    "ZS23": [
        (http("OK|2|P1|x", 500), {"kind": Seen.QUERY_ERROR}),
        (raw.silence, {"kind": Seen.QUERY_ERROR}),
        (raw.reset, {"kind": Seen.QUERY_ERROR}),
        (raw.hang_up, {"kind": Seen.QUERY_ERROR}),
    ],
    "ZS25": [
        (
            http("OK|2|PİN-ÇŞ|İşlem tamamlandı", 200, "Content-Type: text/html"),
            {"kind": Seen.SUCCEEDED, "pins": ["PİN-ÇŞ"], "message": "İşlem tamamlandı"},
        )
    ],
    "ZS27": [(http(f"OK|2|{'ABC' * 100}|x"), {"kind": Seen.SUCCEEDED, "pins": ["ABC" * 100]})],
    "ZS28": [
        (http("OK|1"), {"kind": Seen.PENDING}),
        (http("OK|2|P1|"), {"kind": Seen.SUCCEEDED, "pins": ["P1"]}),
        (http("OK|3||iptal"), {"kind": Seen.FAILED, "message": "iptal"}),
    ],
    "a leading zero": [(http("OK|02||x"), {"kind": Seen.SUCCEEDED})],
    "a bar in the text": [(http("OK|3||a|b"), {"kind": Seen.FAILED, "message": "a|b"})],
    "a pin in the text": [(http("OK|2|P-17|kod P-17"), {"kind": Seen.SUCCEEDED, "pins": ["P-17"]})],
    "a declared charset": [
        (
            http("OK|2|Ş1|ü".encode("iso8859-9"), 200, "Content-Type: text/plain; charset=iso-8859-9"),
            {"kind": Seen.SUCCEEDED, "pins": ["Ş1"], "message": "ü"},
        )
    ],
    "a charset that is none": [
        (http("OK|2||ü", 200, "Content-Type: text/plain; charset=rot13"), {"kind": Seen.SUCCEEDED, "message": "ü"})
    ],
}


@pytest.mark.parametrize("case", STATUSES)
async def test_a_status_answer_has_one_meaning(case):
    rows = STATUSES[case]
    timeout_s = 0.3 if any(answer is raw.silence for answer, _ in rows) else 10.0
    async with adapter_on("znet", *(answer for answer, _ in rows), timeout_s=timeout_s) as (znet, server):
        for _, expected in rows:
            [answer] = await znet.check([ASK])
            expect(answer, expected)
        assert len(server.requests) == len(rows)


#: id -> answer, money or None, start of the reason
BALANCES = {
    "ZB01": (http("OK|12755.23"), tl("12755.23"), ""),
    "ZB03": (http("OK|1.234,56"), tl("1234.56"), ""),
    "ZB04": (http(""), None, "access"),
    "ZB06": (http('{"bakiye":"43,55"}'), tl("43.55"), ""),
    "ZB07": (http("ERROR|Invalid credentials"), None, "access"),
    "ZB08": (http(PAGE), None, "html"),
    "debt": (http("OK|123.45|10.00"), tl("113.45"), ""),
    "words": (http("OK|yok"), None, "unreadable"),
    "an error page": (http("OK|1", 500), None, "HTTP 500"),
}


@pytest.mark.parametrize("case", BALANCES)
async def test_a_balance_is_money_or_unknown(case):
    answer, expected, reason = BALANCES[case]
    async with adapter_on("znet", answer) as (znet, _):
        balance = await znet.balance()
    assert balance.money == expected
    assert balance.reason.startswith(reason) and bool(balance.reason) == (expected is None)


ROW = (
    '{"id":"2","adi":"PUBG Mobile 325 UC","aciklama":"…","oyun_id":"1","oyun_adi":"PUBG","fiyat":"35.00","kupur":"325",'
    '"oyun_bilgi_id":"7"}'
)


def catalogue(rows):
    return http(f'{{"success":true,"result":[{rows}],"error":null}}')


async def test_zc01_a_catalogue_row_holds_what_a_mapping_needs():
    async with adapter_on("znet", catalogue(ROW)) as (znet, _):
        [item] = await znet.catalogue()
    assert (item.package_id, item.name, item.category, item.price) == ("2", "PUBG Mobile 325 UC", "PUBG", tl("35.00"))
    assert item.wire == {"oyun": "7", "kupur": "325"} and item.orderable


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(http('{"success":false,"result":null,"error":"Yetki yok"}'), "Yetki yok", id="ZC02"),
        pytest.param(catalogue(ROW + ROW), "expected a JSON object", id="ZC04"),
        pytest.param(http(ROW, 500), "HTTP 500", id="an error page"),
    ],
)
async def test_zc02_zc04_a_catalogue_that_cannot_be_read_is_an_error(answer, words):
    async with adapter_on("znet", answer) as (znet, _):
        with pytest.raises(ProviderError, match=words):
            await znet.catalogue()


async def test_zc03_a_row_without_kupur_cannot_be_ordered():
    async with adapter_on("znet", catalogue(ROW.replace('"kupur":"325",', ""))) as (znet, _):
        [item] = await znet.catalogue()
    assert not item.orderable and "kupur" in item.note


async def test_zc06_a_price_may_have_a_comma():
    async with adapter_on("znet", catalogue(ROW.replace("35.00", "35,00"))) as (znet, _):
        [item] = await znet.catalogue()
    assert item.price == tl("35.00")


async def test_a_catalogue_may_be_longer_than_an_answer_about_an_order():
    rows = ",".join(itertools.repeat(ROW, 4000))
    async with adapter_on("znet", catalogue(rows)) as (znet, _):
        assert len(await znet.catalogue()) == 4000


OK_BALANCE, ABSENT = http("OK|100.00"), http("3|İşlem bulunamadı")

#: answers in the order they are given -> what the look-up says
LOOK_UPS = {
    "unknown there, account healthy": ([OK_BALANCE, ABSENT, OK_BALANCE], Seen.NOT_FOUND),
    "empty answer, account healthy": ([OK_BALANCE, http(""), OK_BALANCE], Seen.NOT_FOUND),
    "account broken before": ([http(""), ABSENT], Seen.QUERY_ERROR),
    "account broken after": ([OK_BALANCE, ABSENT, http("")], Seen.QUERY_ERROR),
    "account silent after": ([OK_BALANCE, ABSENT, raw.hang_up], Seen.QUERY_ERROR),
    "locked out": ([OK_BALANCE, http(LOCKED)], Seen.QUERY_ERROR),
    "a page": ([OK_BALANCE, http(PAGE)], Seen.QUERY_ERROR),
    "known and pending": ([OK_BALANCE, http("OK|1|-|")], Seen.PENDING),
    "known although the balance fails": ([http("", 500), http("OK|3|-|iptal")], Seen.FAILED),
    "a form of its own": ([OK_BALANCE, http("2|Onay")], Seen.QUERY_ERROR),
}


@pytest.mark.parametrize("case", LOOK_UPS)
async def test_not_found_needs_a_negative_answer_between_two_healthy_balances(case):
    answers, expected = LOOK_UPS[case]
    async with adapter_on("znet", *answers) as (znet, server):
        [answer] = await znet.look_up([ASK])
        assert answer.kind is expected
        assert len(server.requests) == len(answers)


async def test_a_placement_is_the_same_bytes_however_the_database_returns_it():
    async with adapter_on("znet", http("OK|1|2")) as (znet, server):
        wire = znet.prepare(ORDER, MAPPING | {"delivers_pin": True, "params": {"zone": "Ş-1"}}, 1)
        await znet.place(REFERENCE, wire)
        await znet.place(REFERENCE, dict(sorted(wire.items(), reverse=True)))
        assert server.requests[0] == server.requests[1]
        target = server.requests[0].split()[1].decode()
    assert target == (
        "/servis/pin_ekle.php?kod=5551112233&sifre=s3cret%2F%C5%9Fifre&oyun=1&kupur=325&referans=4711000000000001"
        "&oyuncu_bilgi=pl4yer-77&zone=%C5%9E-1"
    )
