"""ZDK (barakat, apstore), row by row of its protocol table, over a real socket."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from agents.providers.base import Ask, Placed, Refusal, Seen
from agents.providers.testing import raw_server as raw
from agents.providers.testing.raw_server import http
from agents.providers.zdk.adapter import Barakat
from streams.errors import InvalidOrder, ProviderError
from tests.contract.provider_cases import ORDER, adapter_at, adapter_on, expect, money

REFERENCE = Barakat.reference("demo", "o-1", 1)
MAPPING = {"provider_package_id": "365"}
WIRE = {"_product": "365", "qty": "1", "playerId": "pl4yer-77"}
PIN_WIRE = WIRE | {"_delivers_pin": "1"}
PAGE = "<html><body>nginx</body></html>"
FIRST = (
    '{"status":"OK","data":{"order_id":"ID_9fffb0d849a45215","status":"wait","price":"1.2604800000000000",'
    '"data":{"playerId":"test"},"replay_api":null}}'
)
DONE = FIRST.replace('"wait"', '"accept"').replace("null", '[{"replay":["PIN-1"]}]')
BAD = '{"status":"OK","data":{"order_id":"ID_9f","status":"reject","price":0,"replay_api":["bad id"]}}'
FLAT = f'{{"id":"u-1","order_uuid":"{REFERENCE}","status":"wait","quantity":1,"price_usd":0.877,"reused":false}}'


def acct(amount):
    return money(amount, "EUR")


def error(code, message):
    return json.dumps({"status": "ERROR", "code": code, "message": message})


#: id -> whole HTTP answer, expected fields
PLACEMENTS = {
    "KP01": (
        http(FIRST),
        {"kind": Placed.ACCEPTED, "external_id": "ID_9fffb0d849a45215", "cost": acct("1.26048"), "flags": ()},
    ),
    "KP02": (http(DONE), {"kind": Placed.COMPLETED, "cost": acct("1.26048"), "message": "PIN-1"}),
    "KP03": (http(BAD), {"kind": Placed.REFUSED_AFTER_ACCEPT, "message": "bad id", "cost": acct("0")}),
    "KP04": (
        http('{"status":"accept","data":{"order_id":"ID_1","status":"accept","price":0.9,"replay_api":null}}'),
        {"kind": Placed.COMPLETED, "external_id": "ID_1", "cost": acct("0.9")},
    ),
    "KP05": (
        http(
            '{"status":"OK","data":{"order_id":"67890","status":"success","price":"45.50","pin":"ABC123XYZ789",'
            '"replay_api":["done"],"note":"x"}}'
        ),
        {"kind": Placed.COMPLETED, "pins": ["ABC123XYZ789"], "message": "done"},
    ),
    "KP06": (
        http(
            '{"status":"OK","code":200,"message":"Order received, remaining balance 10",'
            '"data":{"order_id":"ID_2","status":"wait","price":1}}'
        ),
        {"kind": Placed.ACCEPTED, "external_id": "ID_2", "cost": acct("1")},
    ),
    "KP08": (http('{"status":"OK","data":[]}'), {"kind": Placed.AMBIGUOUS}),
    "KP10": (http(FLAT), {"kind": Placed.ACCEPTED, "external_id": "u-1", "cost": money("0.877", "USD")}),
    "KP11": (
        http(FLAT.replace("false", "true").replace('"wait"', '"accept","pin":"P-9"')),
        {"kind": Placed.COMPLETED, "pins": ["P-9"], "flags": ("idempotent_hit",)},
    ),
    "KP12": (http(error(100, "Insufficient balance")), {"kind": Placed.REJECTED, "reason": Refusal.FUNDS}),
    "KP13": (http(error(100, "Insufficient balance"), 422), {"kind": Placed.REJECTED, "reason": Refusal.FUNDS}),
    "KP14": (
        http('{"code":109,"message":"Product not found"}'),
        {"kind": Placed.REJECTED, "reason": Refusal.PACKAGE, "flags": ("mapping",), "message": "Product not found"},
    ),
    "KP16": (
        http('{"code":120,"message":"Api Token is required"}', 401),
        {"kind": Placed.REJECTED, "reason": Refusal.ACCESS, "tripped": True},
    ),
    "KP17": (
        http('{"code":123,"message":"IP not allowed"}', 403),
        {"kind": Placed.REJECTED, "reason": Refusal.ACCESS, "tripped": True},
    ),
    "KP18": (http(error(111, "Try again after 1 minute")), {"kind": Placed.RETRY_LATER, "retry_after_s": 60.0}),
    "KP19": (
        http('{"code":130,"message":"Site under maintenance"}', 503),
        {"kind": Placed.RETRY_LATER, "retry_after_s": 60.0, "tripped": False},
    ),
    "KP21": (http('{"code":500,"message":"Unknown error"}', 500), {"kind": Placed.AMBIGUOUS}),
    "KP23": (http(""), {"kind": Placed.AMBIGUOUS, "flags": ("empty",)}),
    "KP26": (
        http('{"status":"ERROR","message":"Insufficient balance","error":"balance"}'),
        {"kind": Placed.REJECTED, "reason": Refusal.FUNDS},
    ),
}

#: beyond the table
EDGES = {
    "an error as status": (http('{"status":120,"msg":"token"}'), {"kind": Placed.REJECTED, "reason": Refusal.ACCESS}),
    "an error_code": (
        http('{"success":false,"error_code":120,"message":"x"}'),
        {"kind": Placed.REJECTED, "reason": Refusal.ACCESS},
    ),
    "a code nobody knows": (http(error(777, "?")), {"kind": Placed.AMBIGUOUS}),
    "code 114 means two things": (http(error(114, "?")), {"kind": Placed.AMBIGUOUS}),
    "a word nobody knows": (http(FIRST.replace('"wait"', '"refunded"')), {"kind": Placed.AMBIGUOUS}),
    "no word": (http(FIRST.replace('"status":"wait",', "")), {"kind": Placed.AMBIGUOUS}),
    "no id": (http(FIRST.replace("order_id", "x")), {"kind": Placed.AMBIGUOUS}),
    "another order's uuid": (http(FLAT.replace(REFERENCE, "0" * 36)), {"kind": Placed.AMBIGUOUS}),
    "an order inside an error": (http(FIRST.replace('"OK"', '"ERROR"')), {"kind": Placed.AMBIGUOUS}),
    "an order inside a 500": (http(FIRST, 500), {"kind": Placed.AMBIGUOUS}),
    "an order inside a 403": (http(FIRST, 403), {"kind": Placed.AMBIGUOUS}),
    "an error in doubt": (http('{"status":"ERROR","message":"Unknown error"}'), {"kind": Placed.AMBIGUOUS}),
    "an error without code in a 500": (http('{"status":"ERROR","message":"x"}', 500), {"kind": Placed.AMBIGUOUS}),
    "spring": (http('{"status":500,"error":"Internal Server Error"}', 500), {"kind": Placed.AMBIGUOUS}),
    "a page": (http(PAGE), {"kind": Placed.AMBIGUOUS, "flags": ("html",)}),
    "a page with 403": (http(PAGE, 403), {"kind": Placed.AMBIGUOUS, "reason": Refusal.ACCESS, "tripped": True}),
    "a page with 502": (http(PAGE, 502), {"kind": Placed.AMBIGUOUS}),
    "too many requests": (http(PAGE, 429), {"kind": Placed.AMBIGUOUS, "flags": ("http_429",)}),
    "a voucher cut off": (http('{"status":"OK","data":{"order_id":"1","pin":"P-77'), {"kind": Placed.AMBIGUOUS}),
    "a redirect": (raw.redirect(), {"kind": Placed.AMBIGUOUS}),
    "10 MB": (http(b"x" * 10_000_000), {"kind": Placed.AMBIGUOUS}),
    "a gzip bomb": (raw.gzip_bomb(), {"kind": Placed.AMBIGUOUS}),
    "truncated": (raw.truncated(FIRST.encode()), {"kind": Placed.AMBIGUOUS}),
    "a hang-up": (raw.hang_up, {"kind": Placed.AMBIGUOUS}),
    "a reset": (raw.reset, {"kind": Placed.AMBIGUOUS}),
    "a page that repeats the request": (raw.echo, {"kind": Placed.AMBIGUOUS, "flags": ("html",)}),
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("case", [*PLACEMENTS, *EDGES])
async def test_a_placement_answer_has_one_meaning(case, method):
    answer, expected = (PLACEMENTS | EDGES)[case]
    async with adapter_on("barakat", answer, currency="EUR", method=method) as (shop, server):
        placed = await shop.place(REFERENCE, WIRE)
        expect(placed, expected)
        assert "P-77" not in placed.raw
        assert len(server.requests) == 1 and server.requests[0].startswith(method.encode())


@pytest.mark.parametrize("fault", [raw.silence, raw.drip])
async def test_a_timeout_is_ambiguous_and_was_sent_once(fault):
    async with adapter_on("barakat", fault, timeout_s=0.3) as (shop, server):
        expect(await shop.place(REFERENCE, WIRE), {"kind": Placed.AMBIGUOUS})
        assert len(server.requests) == 1


@pytest.mark.parametrize("host", ["a refused port", "no such host"])
async def test_what_never_left_is_not_sent(host):
    url = await raw.refused_url() if host == "a refused port" else "http://nobody.invalid"
    async with adapter_at("barakat", url) as shop:
        expect(await shop.place(REFERENCE, WIRE), {"kind": Placed.NOT_SENT})


async def test_kp02_the_reply_of_a_code_product_is_its_pin():
    async with adapter_on("barakat", http(DONE)) as (shop, _):
        placed = await shop.place(REFERENCE, PIN_WIRE)
    expect(placed, {"kind": Placed.COMPLETED, "pins": ["PIN-1"], "message": ""})


async def test_kp24_an_order_that_timed_out_is_found_by_its_uuid():
    found = http(f'{{"status":"OK","data":[{{"order_id":"ID_7","order_uuid":"{REFERENCE}","status":"wait"}}]}}')
    async with adapter_on("barakat", raw.silence, found, timeout_s=0.3) as (shop, server):
        expect(await shop.place(REFERENCE, WIRE), {"kind": Placed.AMBIGUOUS})
        [seen] = await shop.look_up([Ask(REFERENCE)])
        expect(seen, {"kind": Seen.PENDING, "external_id": "ID_7"})
        assert [b"newOrder" in request for request in server.requests] == [True, False]
        assert b"uuid=1" in server.requests[1]


async def test_kp25_an_order_that_is_absent_may_be_sent_again_with_the_same_uuid():
    answers = (raw.hang_up, http('{"status":"OK","data":[]}'), http(FIRST))
    wire = WIRE | {"server": "EU", "zone": "7"}
    async with adapter_on("barakat", *answers) as (shop, server):
        expect(await shop.place(REFERENCE, wire), {"kind": Placed.AMBIGUOUS})
        [seen] = await shop.look_up([Ask(REFERENCE)])
        assert seen.kind is Seen.NOT_FOUND and shop.profile.repeat_safe
        expect(await shop.place(REFERENCE, dict(reversed(wire.items()))), {"kind": Placed.ACCEPTED})
        assert server.requests[0] == server.requests[2]


def listed(*rows):
    return http(json.dumps({"status": "OK", "data": list(rows)}))


def row(status, replay=None, **more):
    return {"order_id": "ID_9f", "status": status, "price": "1.2604800000000000", "replay_api": replay, **more}


ASK = Ask(REFERENCE, "ID_9f")
SERVER_ROW = {"id": "u", "order_uuid": REFERENCE, "status": "accept", "pin": "P-1"}

#: id -> whole HTTP answer, the ask, expected fields, options
STATUSES = {
    "KS01": (
        listed(row("accept", ["erg3eg"], quantity=1, data={"playerId": "t"}, product_name="A-60UC-stock")),
        ASK,
        {"kind": Seen.SUCCEEDED, "message": "erg3eg", "cost": acct("1.26048"), "external_id": "ID_9f"},
        {},
    ),
    "KS02": (listed(row("wait")), ASK, {"kind": Seen.PENDING}, {}),
    "KS03": (
        listed(row("reject", ["player not found"])),
        ASK,
        {"kind": Seen.FAILED, "message": "player not found"},
        {},
    ),
    "KS04": (listed(), ASK, {"kind": Seen.NOT_FOUND}, {}),
    "KS07": (listed(row("refunded")), ASK, {"kind": Seen.UNRECOGNISED}, {}),
    "KS08": (
        http(json.dumps([SERVER_ROW])),
        Ask(REFERENCE),
        {"kind": Seen.SUCCEEDED, "pins": ["P-1"], "external_id": "u"},
        {},
    ),
    "KS10": (http(error(121, "Token error")), ASK, {"kind": Seen.QUERY_ERROR, "tripped": True}, {}),
    "KS11 page": (http(PAGE), ASK, {"kind": Seen.QUERY_ERROR}, {}),
    "KS11 empty": (http(""), ASK, {"kind": Seen.QUERY_ERROR}, {}),
    "KS11 timeout": (raw.silence, ASK, {"kind": Seen.QUERY_ERROR}, {}),
    "KS11 5xx": (http('{"status":"OK","data":[]}', 503), ASK, {"kind": Seen.QUERY_ERROR}, {}),
    "KS13": (
        listed(row("accept", ["C-1", "C-2", "C-3"], quantity=3)),
        Ask(REFERENCE, "ID_9f", delivers_pin=True),
        {"kind": Seen.SUCCEEDED, "pins": ["C-1", "C-2", "C-3"], "message": ""},
        {},
    ),
    "KS16": (
        http('[{"orderId":"u","status":"approved","pin":"","note":""}]'),
        Ask(REFERENCE, "u"),
        {"kind": Seen.SUCCEEDED},
        {"words": {"Approved": "succeeded"}},
    ),
    "another order's row": (listed(row("reject", order_id="ID_other")), ASK, {"kind": Seen.QUERY_ERROR}, {}),
    "two rows that disagree": (listed(row("accept"), row("reject")), ASK, {"kind": Seen.UNRECOGNISED}, {}),
    "rows that are none": (http('{"status":"OK","data":["x"]}'), ASK, {"kind": Seen.QUERY_ERROR}, {}),
    "no list": (http('{"status":"OK"}'), ASK, {"kind": Seen.QUERY_ERROR}, {}),
    "an empty list inside an error": (http('{"status":"ERROR","data":[]}'), ASK, {"kind": Seen.QUERY_ERROR}, {}),
    "a code before its end": (
        listed(row("wait", ["C-1"])),
        Ask(REFERENCE, "ID_9f", delivers_pin=True),
        {"kind": Seen.PENDING, "message": ""},
        {},
    ),
    "maintenance": (http(error(130, "x"), 503), ASK, {"kind": Seen.QUERY_ERROR, "retry_after_s": 60.0}, {}),
    "a code of this shop": (http(error(130, "x")), ASK, {"tripped": True}, {"error_codes": {"130": "access"}}),
    "a vendor row without uuid": (listed(row("accept")), Ask(REFERENCE), {"kind": Seen.SUCCEEDED}, {}),
}


@pytest.mark.parametrize("case", STATUSES)
async def test_a_status_answer_has_one_meaning(case):
    answer, ask, expected, options = STATUSES[case]
    timeout_s = 0.3 if answer is raw.silence else 10.0
    async with adapter_on("barakat", answer, currency="EUR", timeout_s=timeout_s, **options) as (shop, server):
        [seen] = await shop.check([ask])
        expect(seen, expected)
        assert "C-1" not in seen.raw and len(server.requests) == 1


async def test_a_batch_is_one_request_and_rows_are_matched_by_id():
    asks = [Ask(Barakat.reference("demo", f"o-{n}", 1), f"ID_{n}") for n in range(50)]
    rows = [row("accept" if n % 2 else "wait", order_id=f"ID_{n}") for n in range(49)]
    async with adapter_on("barakat", listed(*reversed(rows))) as (shop, server):
        answers = await shop.check(asks)
        assert len(server.requests) == 1
    assert [answer.kind for answer in answers] == [Seen.PENDING, Seen.SUCCEEDED] * 24 + [Seen.PENDING, Seen.NOT_FOUND]


async def test_rows_without_uuid_are_asked_for_one_by_one():
    asks = [Ask(Barakat.reference("demo", f"o-{n}", 1)) for n in range(2)]
    both = listed(row("accept", order_id="ID_1"), row("reject", order_id="ID_0"))
    each = (listed(row("reject", order_id="ID_0")), listed(row("accept", order_id="ID_1")))
    async with adapter_on("barakat", both, *each) as (shop, server):
        answers = await shop.look_up(asks)
        assert len(server.requests) == 3
    found = [(answer.kind, answer.external_id) for answer in answers]
    assert found == [(Seen.FAILED, "ID_0"), (Seen.SUCCEEDED, "ID_1")]


@pytest.mark.parametrize(
    ("syntax", "orders"), [("bracketed", "[ID_1,ID_2]"), ("quoted", '["ID_1","ID_2"]'), ("bare", "ID_1,ID_2")]
)
async def test_the_list_of_ids_is_written_as_the_shop_wants(syntax, orders):
    async with adapter_on("barakat", listed(), list_syntax=syntax) as (shop, server):
        await shop.check([Ask("a", "ID_1"), Ask("b", "ID_2")])
        target = server.requests[0].split()[1].decode()
    assert parse_qs(urlsplit(target).query) == {"orders": [orders]}


async def test_a_placement_asks_for_this_product_only():
    async with adapter_on("barakat", http(FIRST)) as (shop, server):
        mapping = MAPPING | {"provider_package_id": "36/5", "delivers_pin": True, "params": {"zone": "Ş {quantity}"}}
        await shop.place(REFERENCE, shop.prepare(ORDER, mapping, 3))
        target, head = server.requests[0].split()[1].decode(), server.requests[0]
    assert target == (
        f"/client/api/newOrder/36%2F5/params?qty=3&order_uuid={REFERENCE}&playerId=pl4yer-77&zone=%C5%9E%203"
    )
    assert b"api-token: t0ken-999-abc\r\n" in head


@pytest.mark.parametrize(
    ("option", "mapping", "name"), [("playerID", {}, "playerID"), ("x", {"player_param": "y"}, "y")]
)
async def test_the_player_goes_where_the_mapping_says(option, mapping, name):
    async with adapter_at("barakat", "http://127.0.0.1:1", player_param=option) as shop:
        assert shop.prepare(ORDER, MAPPING | mapping, 1)[name] == "pl4yer-77"


@pytest.mark.parametrize(
    ("mapping", "field"), [({"provider_package_id": ""}, "provider_package_id"), ({"params": {"qty": "9"}}, "qty")]
)
async def test_a_mapping_that_does_not_fit_is_refused_before_sending(mapping, field):
    async with adapter_at("barakat", "http://127.0.0.1:1") as shop:
        with pytest.raises(InvalidOrder, match=field):
            shop.prepare(ORDER, MAPPING | mapping, 1)


#: id -> answer, money or None, start of the reason, tripped
BALANCES = {
    "KB01": (http('{"balance":"43.55","email":"user@example.com"}'), acct("43.55"), "", False),
    "KB02": (
        http('{"username":"d","email":"e","balance":8788.683,"currency":"USD"}'),
        money("8788.683", "USD"),
        "",
        False,
    ),
    "KB04": (http('{"email":"x"}'), None, "the answer has no", False),
    "KB05": (http('{"code":120,"message":"x"}'), None, "access", True),
    "a page": (http(PAGE, 403), None, "html", True),
    "nested": (http('{"status":"OK","data":{"balance":"1"}}'), acct("1"), "", False),
    "a hang-up": (raw.hang_up, None, "the connection", False),
}


@pytest.mark.parametrize("case", BALANCES)
async def test_a_balance_is_money_or_unknown(case):
    answer, expected, reason, tripped = BALANCES[case]
    async with adapter_on("barakat", answer, currency="EUR") as (shop, _):
        balance = await shop.balance()
    assert (balance.money, balance.tripped) == (expected, tripped)
    assert balance.reason.startswith(reason) and bool(balance.reason) == (expected is None)


PRODUCT = {"id": 365, "name": "UC", "price": 1.094, "params": ["playerId"], "category_name": "PUBG", "available": True}


#: id -> fields of the product, fields of the item
PRODUCTS = {
    "KC01": (
        {"product_type": "amount", "qty_values": {"min": 1, "max": "15000"}, "params": ["معرف اللاعب"]},
        {"quantities": (1, 15000), "wire": {}, "orderable": True},
    ),
    "KC02": (
        {"qty_values": ["110", "150"]},
        {"quantities": frozenset({110, 150}), "wire": {"player_param": "playerId"}},
    ),
    "KC03": (
        {"qty_values": None},
        {"quantities": None, "price": acct("1.094"), "package_id": "365", "available": True},
    ),
    "KC05": (
        {"category_name": "null", "available": 0, "price": ""},
        {"category": None, "available": False, "price": None},
    ),
    "a range nobody can read": ({"qty_values": {"min": 9, "max": 1}}, {"orderable": False}),
}


@pytest.mark.parametrize("case", PRODUCTS)
@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_product_becomes_a_catalogue_item(case, wrapped):
    fields, expected = PRODUCTS[case]
    rows = [PRODUCT | fields]
    answer = http(json.dumps({"status": "OK", "data": rows} if wrapped else rows))
    async with adapter_on("barakat", answer, currency="EUR") as (shop, _):
        [item] = await shop.catalogue()
    assert {name: getattr(item, name) for name in expected} == expected
    assert ("player_param" in item.note) == (case == "KC01")


async def test_a_catalogue_that_cannot_be_read_is_an_error():
    async with adapter_on("barakat", http(PAGE)) as (shop, _):
        with pytest.raises(ProviderError, match="expected a JSON array"):
            await shop.catalogue()
