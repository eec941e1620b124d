"""Answers that look like proof and are none: each kind with its neighbours, as bytes on a real socket."""

import asyncio
import gzip
import json
import os
import socket
import zlib
from typing import Any

import pytest

from agents.providers.base import Ask, Placed, Refusal, Seen
from agents.providers.testing.raw_server import Answer, RawServer, http, say
from agents.providers.words import is_no_code, plain, refusal, says_duplicate, says_not_found
from tests.contract.provider_cases import adapter_at, adapter_on, expect, money, opened

ZNET = {"oyun": "1", "kupur": "325", "oyuncu_bilgi": "pl4yer-77"}
ZDK = {"_product": "365", "qty": "1", "playerId": "pl4yer-77"}
REFERENCE = "4711000000000001"
UUID = "0b56b0b4-1111-4222-8333-444455556666"
PAGE = "<html><head><title>Forbidden</title></head></html>"


def error(message: str, **more: Any) -> str:
    return json.dumps({"status": "ERROR", "message": message, **more}, ensure_ascii=False)


class TestStatusPages:
    """A page of a firewall, a proxy or a gateway proves nothing about the order."""

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 409, 410, 418, 422, 429, 451])
    @pytest.mark.parametrize(
        "body", [PAGE, "", "Blocked", '{"statusCode":400,"message":["qty must not be less than 1"]}']
    )
    @pytest.mark.parametrize(("name", "wire", "reference"), [("znet", ZNET, REFERENCE), ("barakat", ZDK, UUID)])
    async def test_is_an_unknown_outcome(
        self, name: str, wire: dict[str, str], reference: str, status: int, body: str
    ) -> None:
        async with adapter_on(name, http(body, status)) as (adapter, _):
            answer = await adapter.place(reference, wire)
        assert answer.kind is Placed.AMBIGUOUS
        assert answer.tripped is (status in (401, 403)) and (answer.reason is Refusal.ACCESS) is answer.tripped
        assert str(status) in answer.message

    @pytest.mark.parametrize(
        ("status", "body", "kind", "reason"),
        [
            (403, '{"code":123,"message":"IP not allowed"}', Placed.REJECTED, Refusal.ACCESS),
            (401, '{"code":120,"message":"Api Token is required"}', Placed.REJECTED, Refusal.ACCESS),
            (422, '{"status":"ERROR","code":100,"message":"Insufficient balance"}', Placed.REJECTED, Refusal.FUNDS),
            (401, '{"status":401,"message":"Unauthorized"}', Placed.AMBIGUOUS, Refusal.ACCESS),
            (403, error("blocked by policy 7"), Placed.AMBIGUOUS, Refusal.ACCESS),
            (429, error("Too many requests"), Placed.RETRY_LATER, None),
            (409, error("Product conflict"), Placed.AMBIGUOUS, None),
            (409, '{"success":false,"message":"Duplicate order_uuid"}', Placed.DUPLICATE, None),
        ],
    )
    async def test_only_the_providers_own_refusal_counts(
        self, status: int, body: str, kind: Placed, reason: Refusal | None
    ) -> None:
        async with adapter_on("barakat", http(body, status)) as (adapter, _):
            answer = await adapter.place(UUID, ZDK)
        assert (answer.kind, answer.reason) == (kind, reason)


DUPLICATES = (
    "Daha &Ouml;nce G&ouml;nderilmi&#351; (166189)",
    "Daha  önce  gönderilmiş",
    "Daha\u00a0önce\u00a0gönderilmiş",
    "Daha o\u0308nce go\u0308nderilmis\u0327",
    "DAHA ÖNCE GÖNDERİLMİŞ",
    "daha \u200bönce gönderilmiş",
    "Mükerrer işlem",
    "MÜKERRER İŞLEM",
    "Mükerrer paket talebi",
    "Bu referans kullanılmış",
    "Aynı referans numarası ile işlem mevcut",
    "Bu sipariş daha önce gönderildi",
    "Zaten gönderilmiş",
    "Duplicate reference",
    "Duplicate order for this product",
    "DUPLICATE ORDER",
    "This order was already placed, your balance is 90.00",
    "order_uuid already exists",
    "Order already processed",
    "الطلب مكرر",
    "تم إرسال الطلب مسبقا",
    "الطَّلَب مُكَرَّر",
)

#: text -> kind, reason, listed
REFUSALS: dict[str, tuple[Placed, Refusal | None, bool]] = {
    "Yetersiz Bakiye": (Placed.REJECTED, Refusal.FUNDS, True),
    "YETERSİZ BAKİYE": (Placed.REJECTED, Refusal.FUNDS, True),
    "رصيدك غير كافي": (Placed.REJECTED, Refusal.FUNDS, True),
    "K&uuml;p&uuml;r Bilgisi Bulunamadı": (Placed.REJECTED, Refusal.PACKAGE, True),
    "Ku\u0308pu\u0308r Bilgisi Bulunamadı": (Placed.REJECTED, Refusal.PACKAGE, True),
    "Stok mevcut değil": (Placed.REJECTED, Refusal.STOCK, True),
    "Stok yok, daha sonra tekrar deneyin": (Placed.REJECTED, Refusal.STOCK, True),
    "Token pack is out of stock": (Placed.REJECTED, Refusal.STOCK, True),
    "Yetkili bayi stoğunda ürün yok": (Placed.REJECTED, Refusal.STOCK, True),
    "Quantity not allowed": (Placed.REJECTED, Refusal.QUANTITY, True),
    "Player region not allowed": (Placed.REJECTED, Refusal.PLAYER, True),
    "Bu oyuncu bu paketi daha önce almış": (Placed.REJECTED, Refusal.PLAYER, True),
    "Hatalı oyuncu ID, bakiyeniz iade edildi": (Placed.REJECTED, Refusal.OTHER, False),
    "Player not found, amount refunded to your balance": (Placed.REJECTED, Refusal.OTHER, False),
    "Açıklama": (Placed.REJECTED, Refusal.OTHER, False),
    "Not today": (Placed.REJECTED, Refusal.OTHER, False),
    "Çok sık işlem yapıyorsunuz, 10 sn sonra tekrar deneyin": (Placed.RETRY_LATER, None, True),
    "Çok fazla istek, lütfen bekleyin": (Placed.RETRY_LATER, None, True),
    "Rate limit exceeded": (Placed.RETRY_LATER, None, True),
    **{
        text: (Placed.AMBIGUOUS, None, True)
        for text in (
            "Something went wrong", "حدث خطأ غير متوقع", "Bilinmeyen hata", "Bilinmeyen Hata", "Zaman aşımı", "Request time-out",
            "SQLSTATE[HY000]: General error: 2006 MySQL server has gone away", "Deadlock found when trying to get lock",
            "Your order is being processed", "Order created but the supplier did not answer", "Product supplier connection lost",
            "İşleminiz devam ediyor", "İşleminiz alındı", "İşlem zaman aşımına uğradı, durumunu kontrol ediniz", "Tekrar deneyiniz",
            "Try again later", "حاول لاحقا", "الطلب قيد المعالجة", "Tedarikçi yanıt vermedi", "Sistem bakımda", "Gateway Timeout",
        )
    },
}  # fmt: skip


class TestErrorTexts:
    @pytest.mark.parametrize("text", DUPLICATES)
    async def test_already_there_is_never_a_refusal(self, text: str) -> None:
        assert says_duplicate(text)
        for name, wire, reference, bodies in (
            ("znet", ZNET, REFERENCE, (f"3|{text}", f"8|{text}")),
            ("barakat", ZDK, UUID, (error(text), error(text, code=109), error(text, code=100))),
        ):
            for body in bodies:
                async with adapter_on(name, http(body)) as (adapter, _):
                    assert (await adapter.place(reference, wire)).kind is Placed.DUPLICATE, body

    @pytest.mark.parametrize("text", REFUSALS)
    async def test_a_text_without_a_code_is_what_the_table_says(self, text: str) -> None:
        kind, reason, listed = REFUSALS[text]
        assert refusal(text) == (kind, reason, listed)
        for name, wire, reference, body in (
            ("znet", ZNET, REFERENCE, f"3|{text}"),
            ("barakat", ZDK, UUID, error(text)),
        ):
            async with adapter_on(name, http(body)) as (adapter, _):
                answer = await adapter.place(reference, wire)
            assert (answer.kind, answer.reason, answer.listed) == (kind, reason, listed), body


class TestNotFound:
    """Only an answer that says so counts towards absence."""

    @pytest.mark.parametrize(
        "text",
        [
            "İşlem bulunamadı",
            "Islem bulunamadi",
            "İŞLEM BULUNAMADI",
            "Kayıt bulunamadı",
            "Order not found",
            "Geçersiz referans",
        ],
    )
    async def test_a_text_that_says_so(self, text: str) -> None:
        answers = (http("OK|100.00"), http(f"3|{text}"), http("OK|100.00"))
        async with adapter_on("znet", *answers) as (adapter, _):
            assert [a.kind for a in await adapter.look_up([Ask(REFERENCE)])] == [Seen.NOT_FOUND]

    @pytest.mark.parametrize(
        "text",
        [
            "Sistem bakımda", "Çok sık sorgulama yaptınız, 10 sn bekleyiniz", "İşlem devam ediyor", "Pin kontrol yetkiniz yok",
            "Kullanıcı bulunamadı", "Bayi bulunamadı", "Servis bulunamadı", "Açıklama", "Page not found", "Şu anda yanıt alınamadı",
            "İşlem bulunamadı, lütfen daha sonra tekrar deneyin", "",
        ],
    )  # fmt: skip
    async def test_everything_else_says_nothing(self, text: str) -> None:
        answers = (http("OK|100.00"), http(f"3|{text}"), http("OK|100.00"))
        async with adapter_on("znet", *answers) as (adapter, _):
            assert [a.kind for a in await adapter.look_up([Ask(REFERENCE)])] == [Seen.QUERY_ERROR]

    @pytest.mark.parametrize(
        "balance",
        [
            '{"success":false,"error":"Yetki yok","bakiye":0}', '{"status":"ERROR","message":"maintenance","balance":0}', "3|Yetki yok",
            "", PAGE, "OK|yok",
        ],
    )  # fmt: skip
    async def test_both_balances_must_be_plain_success(self, balance: str) -> None:
        for answers in ((balance, "", "OK|1.00"), ("OK|1.00", "", balance)):
            async with adapter_on("znet", *map(http, answers)) as (adapter, _):
                assert [a.kind for a in await adapter.look_up([Ask(REFERENCE)])] == [Seen.QUERY_ERROR]

    @pytest.mark.parametrize(
        "body",
        [
            '{"status":"OK","data":[],"message":"uuid parameter is not supported"}',
            '{"data":[],"errors":["rate limit"]}',
            '{"status":"ERROR","data":[]}',
            '{"success":false,"data":[]}',
        ],
    )
    async def test_an_empty_list_beside_a_complaint_is_no_list(self, body: str) -> None:
        async with adapter_on("barakat", http(body)) as (adapter, _):
            assert [a.kind for a in await adapter.look_up([Ask(UUID)])] == [Seen.QUERY_ERROR]


def row(**fields: Any) -> bytes:
    order = {"order_id": "ID_1", "order_uuid": UUID, "status": "accept", "quantity": 1, **fields}
    return http(json.dumps({"status": "OK", "data": [order]}, ensure_ascii=False))


class TestRightOrder:
    """A row counts only when it is ours."""

    @pytest.mark.parametrize(
        ("fields", "flag"),
        [
            ({"product_id": 999}, "not_ours"),
            ({"productId": "999"}, "not_ours"),
            ({"data": {"playerId": "somebody-else"}}, "not_ours"),
            ({"data": {"player": "somebody-else"}}, "not_ours"),
            ({"data": {"uid": 12345}}, "not_ours"),
            ({"quantity": 5}, "other_quantity"),
            ({"status": "accept", "state": "reject"}, "contradiction"),
        ],
    )
    async def test_a_row_about_something_else_never_settles(self, fields: dict[str, Any], flag: str) -> None:
        ask = Ask(UUID, None, True, 1, ZDK)
        async with adapter_on("barakat", row(replay_api=["FF-CODE-OF-OTHER"], **fields)) as (adapter, _):
            (answer,) = await adapter.look_up([ask])
        assert answer.kind is Seen.UNRECOGNISED and flag in answer.flags and answer.pins == ()
        assert "FF-CODE" not in answer.message + answer.raw

    @pytest.mark.parametrize(
        "fields",
        [
            {"product_id": 365},
            {"data": {"playerId": "PL4YER-77"}},
            {"data": {"playerId": " pl4yer-77 "}},
            {"quantity": "1"},
        ],
    )
    async def test_a_row_that_repeats_our_order_counts(self, fields: dict[str, Any]) -> None:
        async with adapter_on("barakat", row(replay_api=["C-1"], **fields)) as (adapter, _):
            (answer,) = await adapter.look_up([Ask(UUID, None, True, 1, ZDK)])
        assert answer.kind is Seen.SUCCEEDED and opened(answer.pins) == ["C-1"]

    async def test_two_orders_under_our_reference_are_told(self) -> None:
        rows = [
            {"order_id": f"ID_{n}", "order_uuid": UUID, "status": "accept", "replay_api": [f"TW-{n}"]} for n in (1, 2)
        ]
        async with adapter_on("barakat", http(json.dumps({"status": "OK", "data": rows}))) as (adapter, _):
            (answer,) = await adapter.look_up([Ask(UUID, None, True)])
        expect(answer, {"kind": Seen.UNRECOGNISED, "flags": ("two_orders",)})

    async def test_one_order_with_two_pins_is_told(self) -> None:
        rows = [
            {"order_id": "ID_1", "order_uuid": UUID, "status": "accept", "replay_api": [pin]} for pin in ("A-1", "B-2")
        ]
        async with adapter_on("barakat", http(json.dumps({"status": "OK", "data": rows}))) as (adapter, _):
            (answer,) = await adapter.look_up([Ask(UUID, None, True)])
        expect(answer, {"kind": Seen.UNRECOGNISED, "flags": ("contradiction",)})

    @pytest.mark.parametrize("status", ["accept", "reject"])
    async def test_a_secondary_id_is_not_the_orders_id(self, status: str) -> None:
        body = json.dumps({"data": [{"order_id": "1002", "id": "1001", "status": status, "replay_api": ["OTHER-PIN"]}]})
        async with adapter_on("barakat", http(body)) as (adapter, _):
            (answer,) = await adapter.check([Ask(UUID, "1001", True)])
        assert answer.kind in (Seen.NOT_FOUND, Seen.QUERY_ERROR) and answer.pins == ()

    @pytest.mark.parametrize("number", ["0", 0, "null", -1, "-1", "undefined", ""])
    async def test_what_is_no_id_is_not_kept(self, number: object) -> None:
        body = json.dumps({"status": "OK", "data": {"order_id": number, "status": "wait"}})
        async with adapter_on("barakat", http(body)) as (adapter, _):
            answer = await adapter.place(UUID, ZDK)
        assert answer.external_id is None and answer.kind is Placed.AMBIGUOUS

    @pytest.mark.parametrize(
        "document",
        [
            {"status": "reject", "data": {"order_id": "ID_9", "status": "accept", "replay_api": ["P-1"]}},
            {"status": "wait", "data": {"order_id": "ID_9", "status": "accept", "replay_api": ["P-1"]}},
            {"status": "accept", "data": {"order_id": "ID_9", "status": "reject"}},
        ],
    )
    async def test_a_placement_that_contradicts_itself_is_unknown(self, document: dict[str, Any]) -> None:
        async with adapter_on("barakat", http(json.dumps(document))) as (adapter, _):
            answer = await adapter.place(UUID, {**ZDK, "_delivers_pin": "1"})
        assert answer.kind is Placed.AMBIGUOUS and answer.pins == () and "P-1" not in answer.raw + answer.message

    @pytest.mark.parametrize(
        "body", ["OK|3||iptal\nOK|2|P-1|x", "OK|2|P-1|x\nOK|3||iptal", "OK|1||x\nOK|2|ABCD-JKLM-EFGH|y"]
    )
    async def test_two_rows_of_znet_settle_nothing(self, body: str) -> None:
        async with adapter_on("znet", http(body)) as (adapter, _):
            (answer,) = await adapter.check([Ask(REFERENCE, None, True)])
        assert answer.kind is Seen.UNRECOGNISED and answer.pins == () and "ABCD-JKLM" not in answer.raw + answer.message

    async def test_a_key_that_stands_twice_makes_the_answer_unreadable(self) -> None:
        body = '{"status":"OK","data":{"order_id":"1","status":"reject","status":"accept"}}'
        async with adapter_on("barakat", http(body)) as (adapter, _):
            assert (await adapter.place(UUID, ZDK)).kind is Placed.AMBIGUOUS


NO_CODES = (
    "null", "NULL", "N/A", "0", "none", "undefined", "yok", "Kod yok", "bekliyor", "Bekleniyor...", "&nbsp;", "&#45;", "\u200b",
    "\u3000", "\u202f", "\u2011", "\u2212", "_", ".", "*", "***", "''", '""', "[]", "{}", "false", "#N/A", "-", "- -", "—", "000", "pending",
    "HAZIRLANIYOR", "لا يوجد", "قيد الانتظار", "nan", "Tamamlandı",
)  # fmt: skip
CODES = (
    "AB12-CD34", "0012345", "A B C", "A;B;C", "https://redeem.example/x?c=1", "ŞİFRE-1", "7", "yok-1", "NULL-7F3A", "0x00A1", "pin-4711",
    "A&amp;B", "O0O0",
)  # fmt: skip


class TestPins:
    @pytest.mark.parametrize("text", NO_CODES)
    async def test_a_placeholder_is_no_pin(self, text: str) -> None:
        assert is_no_code(text)
        async with adapter_on("znet", http(f"OK|2|{text}|İşlem tamamlandı")) as (adapter, _):
            (answer,) = await adapter.check([Ask(REFERENCE, None, True)])
        assert answer.kind is Seen.SUCCEEDED and answer.pins == ()
        async with adapter_on("barakat", row(replay_api=[text])) as (adapter, _):
            (answer,) = await adapter.look_up([Ask(UUID, None, True)])
        assert answer.kind is Seen.SUCCEEDED and answer.pins == ()

    @pytest.mark.parametrize("text", CODES)
    async def test_a_real_code_is_kept_byte_for_byte(self, text: str) -> None:
        async with adapter_on("barakat", row(replay_api=[text])) as (adapter, _):
            (answer,) = await adapter.look_up([Ask(UUID, None, True)])
        assert opened(answer.pins) == [text]

    @pytest.mark.parametrize(
        "body",
        [
            "OK|2||Kodunuz: ABCD-JKLM-EFGH", "OK|1||Kod: ABCD-JKLM-EFGH hazır", "OK||2|ABCD-JKLM-EFGH|x", "OK;2;ABCD-JKLM-EFGH;x",
            "OK\t2\tABCD-JKLM-EFGH\tx", "2:ABCD-JKLM-EFGH:7.30", '{"durum":"2","pin":"ABCD-JKLM-EFGH"}', "OK|3|ABCD-JKLM-EFGH|",
            "OK|2|SN:778899|PIN:ABCD-JKLM-EFGH|tamam",
        ],
    )  # fmt: skip
    async def test_a_code_in_a_place_where_none_belongs_never_travels_in_the_clear(self, body: str) -> None:
        async with adapter_on("znet", http(body)) as (adapter, _):
            (answer,) = await adapter.check([Ask(REFERENCE, None, True)])
        assert "ABCD-JKLM" not in answer.raw + answer.message + "".join(answer.flags)
        if answer.kind is Seen.SUCCEEDED and "ABCD" in body:
            assert "pin_mismatch" in answer.flags and any("ABCD-JKLM-EFGH" in pin for pin in opened(answer.pins))

    @pytest.mark.parametrize(
        "fields",
        [
            {"note": "Your code: ABCD-JKLM-EFGH"}, {"kod": "ABCD-JKLM-EFGH"}, {"voucher_code": "ABCD-JKLM-EFGH"},
            {"purchased_code": "ABCD-JKLM-EFGH"}, {"pins": [{"code": "ABCD-JKLM-EFGH"}]}, {"replay_api": '["ABCD-JKLM-EFGH"]'},
            {"replay_api": [{"code": "ABCD-JKLM-EFGH"}]}, {"data": {"x": [{"serialNumber": "ABCD-JKLM-EFGH"}]}},
        ],
    )  # fmt: skip
    async def test_a_code_under_another_key_is_masked(self, fields: dict[str, Any]) -> None:
        async with adapter_on("barakat", row(**fields)) as (adapter, _):
            (answer,) = await adapter.look_up([Ask(UUID, None, True)])
        assert "ABCD-JKLM" not in answer.raw + answer.message

    async def test_a_second_code_beside_the_first_is_kept(self) -> None:
        async with adapter_on("barakat", row(pin="A-111", replay_api=["A-111", "B-222"])) as (adapter, _):
            (answer,) = await adapter.look_up([Ask(UUID, None, True)])
        assert opened(answer.pins) == ["A-111", "B-222"] and answer.delivered == 2
        assert "B-222" not in answer.message + answer.raw

    @pytest.mark.parametrize(
        ("code", "fits"), [("AB12-CD34", True), ("ERROR 7", False), ("AB12-CD34 ", True), ("AB12", False)]
    )
    async def test_a_mapping_may_say_what_a_code_looks_like(self, code: str, fits: bool) -> None:
        wire = {**ZDK, "_delivers_pin": "1", "_pin_pattern": "[A-Z0-9]{4}-[A-Z0-9]{4}"}
        async with adapter_on("barakat", row(replay_api=[code])) as (adapter, _):
            (answer,) = await adapter.look_up([Ask(UUID, None, True, 1, wire)])
        assert ("pin_mismatch" not in answer.flags) is fits and opened(answer.pins) == [code.strip()]


class TestMoney:
    @pytest.mark.parametrize("price", ["-1.26", -1.26, "-99999999999999.99", "5000000000"])
    async def test_an_odd_cost_is_flagged_and_not_stored(self, price: object) -> None:
        body = json.dumps({"status": "OK", "data": {"order_id": "ID_1", "status": "wait", "price": price}})
        async with adapter_on("barakat", http(body)) as (adapter, _):
            expect(await adapter.place(UUID, ZDK), {"kind": Placed.ACCEPTED, "cost": None, "flags": ("odd_cost",)})

    async def test_an_odd_cost_of_znet(self) -> None:
        async with adapter_on("znet", http("OK|-7.30|100.00")) as (adapter, _):
            answer = await adapter.place(REFERENCE, ZNET)
        expect(answer, {"kind": Placed.ACCEPTED, "cost": None, "flags": ("odd_cost",), "balance": money("100", "TRY")})

    @pytest.mark.parametrize("body", ["OK|3||0.00", "OK|8||0.00"])
    async def test_a_sibling_services_answer_is_not_an_acceptance(self, body: str) -> None:
        async with adapter_on("znet", http(body)) as (adapter, _):
            assert (await adapter.place(REFERENCE, ZNET)).kind in (Placed.AMBIGUOUS, Placed.DUPLICATE)

    @pytest.mark.parametrize(
        "body",
        [
            '{"status":"ERROR","message":"maintenance","balance":0}',
            '{"success":false,"balance":"0"}',
            '{"code":500,"balance":0}',
        ],
    )
    async def test_a_balance_inside_an_error_is_unknown(self, body: str) -> None:
        async with adapter_on("barakat", http(body)) as (adapter, _):
            assert (await adapter.balance()).money is None

    async def test_debt_is_taken_off(self) -> None:
        async with adapter_on("barakat", http('{"balance":"100","debt":"40"}')) as (adapter, _):
            assert (await adapter.balance()).money == money("60", "TRY")

    async def test_a_refused_catalogue_is_not_an_empty_one(self) -> None:
        for body in (
            '{"status":"ERROR","code":121,"message":"Token error","data":[]}',
            '{"data":[],"message":"try later"}',
        ):
            async with adapter_on("barakat", http(body)) as (adapter, _):
                with pytest.raises(Exception, match="refused"):
                    await adapter.catalogue()


class TestPlainRefusals:
    """Plain answers that were needlessly taken for unknown."""

    async def test_a_rejection_without_an_order_says_why(self) -> None:
        document = {"status": "reject", "data": {"order_id": None, "status": "reject", "replay_api": ["out of stock"]}}
        async with adapter_on("barakat", http(json.dumps(document))) as (adapter, _):
            expect(await adapter.place(UUID, ZDK), {"kind": Placed.REJECTED, "reason": Refusal.STOCK})

    async def test_the_number_of_a_request_is_not_an_order(self) -> None:
        async with adapter_on("barakat", http(error("no money", code=100, id="req-7"))) as (adapter, _):
            expect(await adapter.place(UUID, ZDK), {"kind": Placed.REJECTED, "reason": Refusal.FUNDS})

    async def test_a_flag_of_one_is_no_error_code(self) -> None:
        body = json.dumps({"status": 1, "data": [{"order_id": "1", "order_uuid": UUID, "status": "wait"}]})
        async with adapter_on("barakat", http(body)) as (adapter, _):
            assert [a.kind for a in await adapter.look_up([Ask(UUID)])] == [Seen.PENDING]

    async def test_quotation_marks_around_a_row(self) -> None:
        async with adapter_on("znet", http('"OK|2|P-77|x"')) as (adapter, _):
            (answer,) = await adapter.check([Ask(REFERENCE, None, True)])
        assert opened(answer.pins) == ["P-77"]


class TestBytes:
    @pytest.mark.parametrize("charset", ["iso-8859-1", "iso-8859-9", "windows-1252"])
    async def test_utf8_is_utf8_whatever_the_server_declares(self, charset: str) -> None:
        answer = http("OK|2|ŞİFRE-1|x".encode(), 200, f"Content-Type: text/html; charset={charset}")
        async with adapter_on("znet", answer) as (adapter, _):
            (seen,) = await adapter.check([Ask(REFERENCE, None, True)])
        assert opened(seen.pins) == ["ŞİFRE-1"]

    async def test_turkish_labelled_latin1(self) -> None:
        answer = http("OK|2|ŞİFRE-1|x".encode("cp1254"), 200, "Content-Type: text/html; charset=iso-8859-1")
        async with adapter_on("znet", answer) as (adapter, _):
            (seen,) = await adapter.check([Ask(REFERENCE, None, True)])
        assert opened(seen.pins) == ["ŞİFRE-1"]

    @pytest.mark.parametrize(
        ("coding", "pack"),
        [
            ("gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
            ("deflate", lambda body: zlib.compress(body)),
            ("deflate", lambda body: zlib.compress(body)[2:-4]),
            ("none", lambda body: body),
            ("utf-8", lambda body: body),
        ],
        ids=["gzip of two members", "zlib", "raw deflate", "none", "utf-8"],
    )
    async def test_every_part_of_a_compressed_answer_is_read(self, coding: str, pack: Any) -> None:
        answer = http(pack(b"OK|2|ABCD-EFGH|x"), 200, f"Content-Encoding: {coding}")
        async with adapter_on("znet", answer) as (adapter, _):
            (seen,) = await adapter.check([Ask(REFERENCE, None, True)])
        assert opened(seen.pins) == ["ABCD-EFGH"]


class TestStaleConnections:
    """An answer that lay in the socket before our request left is never read as ours."""

    def unasked(self, body: bytes, extra: bytes, after_s: float) -> Answer:
        async def write(server: RawServer, request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(http(body))
            await writer.drain()

            async def later() -> None:
                await asyncio.sleep(after_s)
                writer.write(extra)

            server._tasks.add(asyncio.ensure_future(later()))

        return write

    @pytest.mark.parametrize(
        "extra",
        [
            http("OK|2|PIN-OF-SOMEBODY-ELSE|x"),
            http("3|Yetersiz Bakiye"),
            http("OK|9.99|1.00"),
            http(b"", 408),
            b"HTTP/1.1 2",
            b"\r\n\r\n",
        ],
        ids=["pin", "refusal", "acceptance", "408", "part of an answer", "blank lines"],
    )
    @pytest.mark.parametrize("after_s", [0.0, 0.05])
    async def test_the_next_request_is_not_answered_by_it(self, extra: bytes, after_s: float) -> None:
        server = RawServer(self.unasked(b"OK|100.00", extra, after_s), say(http("OK|7.30|92.70")))
        async with server, adapter_at("znet", server.base_url) as adapter:
            assert (await adapter.balance()).money == money("100", "TRY")
            await asyncio.sleep(after_s + 0.05)
            answer = await adapter.place(REFERENCE, ZNET)
            assert (answer.kind, answer.cost) == (Placed.ACCEPTED, money("7.30", "TRY"))
            assert len(server.requests) == 2

    async def test_bytes_that_the_event_loop_has_not_read_yet_count_too(self) -> None:
        kept: list[asyncio.StreamWriter] = []

        async def first(server: RawServer, request: bytes, writer: asyncio.StreamWriter) -> None:
            kept.append(writer)
            await say(http("OK|100.00"))(server, request, writer)

        server = RawServer(first, say(http("OK|7.30|92.70")))
        async with server, adapter_at("znet", server.base_url) as adapter:
            await adapter.balance()
            raw = socket.socket(fileno=os.dup(kept[0].get_extra_info("socket").fileno()))
            raw.send(http("OK|2|STALE|x"))  # past the event loop, into the kernel
            raw.close()
            answer = await adapter.place(REFERENCE, ZNET)
            assert answer.cost == money("7.30", "TRY")


def test_the_plain_form_of_a_text_is_the_same_for_all_its_spellings() -> None:
    assert len({plain(text) for text in DUPLICATES[1:5]}) == 1
    assert says_not_found("İŞLEM BULUNAMADI") and not says_not_found("Kullanıcı bulunamadı")
