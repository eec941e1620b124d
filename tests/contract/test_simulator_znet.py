"""The simulated znet shop over real sockets: bytes, money, lives of orders."""

from collections.abc import AsyncIterator

import pytest

from orderwatch.simulator.orders import pin_of
from tests.shops import ZNET, Shops, ask, open_shops
from tests.waiting import eventually

LOCKED = "8|Bağlantı Hatası,Kullanıcı Api Yetki, Kısıtlı Ip yada Kullanıcı Bilgileri Hatalı"


@pytest.fixture
async def shops() -> AsyncIterator[Shops]:
    opened = await open_shops()
    yield opened
    await opened.running.stop()


async def test_a_purchase_costs_its_price_and_is_delivered_at_the_first_check(shops: Shops) -> None:
    assert (await shops.place("1")).text == "OK|10.12|989.88"
    assert await shops.look("1") == f"OK|2|{pin_of('1')}|İşlem tamamlandı"
    assert (await shops.znet("bakiye_kontrol")).text == "OK|989.88"
    (entry,) = await shops.ledger()
    assert (entry["account"], entry["reference"]) == ("znet-main", "1")
    assert (entry["package"], entry["player"], entry["quantity"]) == ("12345", "77", 1)
    assert (entry["cost"], entry["execution"], entry["state"], entry["checks"]) == ("10.12", 1, "success", 1)


async def test_text_is_utf8_without_a_declared_charset_unless_switched(shops: Shops) -> None:
    await shops.place("1")
    got = await shops.znet("pin_kontrol", tahsilat_api_islem_id="1")
    assert got.headers["content-type"] == "text/html" and "İşlem" in got.body.decode("utf-8")
    await shops.change("znet-main", switches={"encoding": "windows-1254", "declare_charset": True})
    got = await shops.znet("pin_kontrol", tahsilat_api_islem_id="1")
    assert got.headers["content-type"] == "text/html; charset=windows-1254"
    assert "İşlem" in got.body.decode("windows-1254")


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ({"kupur": "UC61"}, "3|Kupur Bilgisi Bulunamadı"),
        ({"oyun": "12345"}, "3|Kupur Bilgisi Bulunamadı"),  # the row id is not the game id
        ({"oyuncu_bilgi": " "}, "3|Oyuncu Bilgisi Eksik"),
        ({"oyun": "200", "kupur": "RZ"}, "3|Stok Bulunamadı"),
        ({"oyun": "300", "kupur": "Y"}, "3|Yetersiz Bakiye"),
        ({"referans": ""}, ""),
        ({"referans": "9" * 51}, "3|Referans Hatalı"),
        ({"sifre": "yanlış"}, LOCKED),
        ({"kod": "1"}, LOCKED),
    ],
)
async def test_a_refused_placement_buys_nothing(shops: Shops, query: dict[str, str], answer: str) -> None:
    assert (await shops.place("1", **query)).text == answer
    assert await shops.ledger() == []
    assert (await shops.znet("bakiye_kontrol")).text == "OK|1000.00"


@pytest.mark.parametrize("gate", ["permission", "ip_allowed"])
async def test_a_locked_account_is_silent_about_its_balance(shops: Shops, gate: str) -> None:
    await shops.change("znet-main", **{gate: False})
    assert (await shops.znet("bakiye_kontrol")).raw.startswith(b"HTTP/1.1 200")
    assert (await shops.znet("bakiye_kontrol")).body == b""
    assert (await shops.place("1")).text == LOCKED
    assert await shops.look("1") == LOCKED
    assert (await shops.znet("pin_listesi")).json == {"success": False, "result": None, "error": "Yetki yok"}
    await shops.change("znet-main", switches={"locked_answer": "empty"})
    assert (await shops.place("1")).text == ""
    await shops.change("znet-main", **{gate: True})
    assert (await shops.place("1")).text == "OK|10.12|989.88"


@pytest.mark.parametrize(
    ("repeat", "answer", "bought"),
    [
        ("reject-4", "4|Daha Önce Gönderilmiş (166189)", 1),
        ("ok-8", "OK|8|Bu İşlem Daha Önce Gönderildi|0.00", 1),
        ("echo-first", "OK|10.12|989.88", 1),
        ("accept-again", "OK|10.12|979.76", 2),
    ],
)
async def test_a_repeated_reference_is_answered_as_switched(
    shops: Shops, repeat: str, answer: str, bought: int
) -> None:
    await shops.change("znet-main", switches={"repeat": repeat})
    await shops.place("1")
    assert (await shops.place("1")).text == answer
    summary = await shops.summary()
    assert (summary["references"], summary["executed"]) == (1, bought)
    assert summary["executed_twice"] == (["1"] if bought == 2 else [])


async def test_an_unknown_reference_is_a_failed_query_or_silence(shops: Shops) -> None:
    assert await shops.look("404") == "3|İşlem bulunamadı"
    await shops.change("znet-main", switches={"unknown_reference": "empty"})
    assert await shops.look("404") == ""


async def test_commas_stand_for_decimals_when_switched(shops: Shops) -> None:
    await shops.change("znet-main", balance="1244.68", debt="20", switches={"comma_decimals": True})
    assert (await shops.place("1")).text == "OK|10,12|1.234,56"
    assert (await shops.znet("bakiye_kontrol")).text == "OK|1.234,56|20,00"


async def test_the_debt_is_a_third_field_and_not_spendable(shops: Shops) -> None:
    await shops.change("znet-main", balance="15", debt="5")
    assert (await shops.znet("bakiye_kontrol")).text == "OK|15.00|5.00"
    assert (await shops.place("1")).text == "3|Yetersiz Bakiye"


async def test_the_catalogue_speaks_in_strings(shops: Shops) -> None:
    listing = (await shops.znet("pin_listesi")).json
    assert listing["success"] is True and listing["error"] is None
    assert listing["result"][0] == {
        "id": "12345",
        "adi": "PUBG Mobile 60 UC",
        "aciklama": "",
        "oyun_id": "1",
        "oyun_adi": "PUBG",
        "fiyat": "10.12",
        "kupur": "UC60",
        "oyun_bilgi_id": "100",
    }
    assert len(listing["result"]) == len(ZNET["catalogue"])


async def test_a_failed_order_gives_the_money_back(shops: Shops) -> None:
    await shops.control("POST", "/lives", {"player": "77", "final": "fail", "text": "Hatalı ID"})
    await shops.place("1")
    assert (await shops.znet("bakiye_kontrol")).text == "OK|989.88"
    assert await shops.look("1") == "OK|3| |Hatalı ID"
    assert (await shops.znet("bakiye_kontrol")).text == "OK|1000.00"
    await shops.change("znet-main", switches={"reason_in_pin": True})
    assert await shops.look("1") == "OK|3|Hatalı ID|"
    summary = await shops.summary()
    assert (summary["cost"], summary["returned"], summary["states"]) == ("10.12", "10.12", {"fail": 1})


async def test_the_balance_rises_by_itself_when_time_fails_an_order(shops: Shops) -> None:
    await shops.change("znet-main", life={"final": "fail", "after_ms": 20})
    await shops.place("1")

    async def given_back() -> bool:
        return (await shops.znet("bakiye_kontrol")).text == "OK|1000.00"

    await eventually(given_back)


async def test_a_reversed_success_shows_an_empty_description(shops: Shops) -> None:
    await shops.change("znet-main", life={"reversal_after_checks": 2, "pin": "P1"})
    await shops.place("1")
    answers = [await shops.look("1") for _ in range(4)]
    assert answers == ["OK|2|P1|İşlem tamamlandı", "OK|2|P1|İşlem tamamlandı", "OK|3| |", "OK|3| |"]
    assert (await shops.summary())["balance"] == "1000.00"


async def test_a_pin_may_come_later_than_the_success(shops: Shops) -> None:
    await shops.change("znet-main", life={"pin_after_checks": 1, "pin": "P1"}, switches={"no_pin": " - "})
    await shops.place("1")
    assert await shops.look("1") == "OK|2| - |İşlem tamamlandı"
    assert await shops.look("1") == "OK|2|P1|İşlem tamamlandı"


async def test_unknown_states_are_shown_before_the_end_and_as_the_end(shops: Shops) -> None:
    await shops.change("znet-main", life={"extra_states": ["0", "9"]})
    await shops.place("1")
    assert [(await shops.look("1"))[:5] for _ in range(3)] == ["OK|0|", "OK|9|", "OK|2|"]
    await shops.change("znet-main", life={"extra_states": [], "final_word": "4"})
    await shops.place("2")
    assert (await shops.look("2")).startswith("OK|4|")


@pytest.mark.parametrize("path", ["servis/yok.php", "servis", "client/api/profile", ""])
async def test_other_paths_do_not_exist(shops: Shops, path: str) -> None:
    assert (await ask("GET", f"{shops.running.base_url('znet-main')}/{path}")).status == 404
    assert (await ask("GET", f"{shops.running.provider_url}/nobody/servis/pin_ekle.php")).status == 404
