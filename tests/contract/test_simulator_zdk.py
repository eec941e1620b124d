"""The simulated ZDK shop over real sockets: envelopes, lists, quantities, idempotency."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from orderwatch.simulator.orders import pin_of
from tests.shops import Shops, ask, open_shops


@pytest.fixture
async def shops() -> AsyncIterator[Shops]:
    opened = await open_shops()
    yield opened
    await opened.running.stop()


async def test_an_order_waits_and_is_accepted_at_the_first_check(shops: Shops) -> None:
    placed = (await shops.order("u-1")).json
    inner = placed["data"]
    assert placed["status"] == "OK" and inner["order_id"].startswith("ID_")
    assert (inner["status"], inner["price"], inner["replay_api"]) == ("wait", "1.2604800000000000", None)
    assert inner["data"] == {"playerId": "p1"}
    (row,) = await shops.rows("[u-1]")
    assert (row["order_id"], row["order_uuid"], row["status"]) == (inner["order_id"], "u-1", "accept")
    assert row["replay_api"] == [pin_of("u-1")]
    assert (await shops.zdk("profile")).json == {"balance": "98.73952", "email": "barakat-1@example.com"}


@pytest.mark.parametrize(("envelope", "outside"), [("nested", "OK"), ("repeated", "accept"), ("flat", "accept")])
async def test_an_order_may_be_done_at_once_in_every_envelope(shops: Shops, envelope: str, outside: str) -> None:
    await shops.change("barakat-1", switches={"envelope": envelope}, life={"after_checks": 0})
    placed = (await shops.order("u-1")).json
    assert placed["status"] == outside
    if envelope == "flat":
        assert (placed["order_uuid"], placed["pin"], placed["reused"]) == ("u-1", pin_of("u-1"), False)
        assert placed["price_usd"] == 1.26048
        assert (await shops.order("u-1")).json["reused"] is True
    else:
        assert placed["data"]["status"] == "accept"
        assert placed["data"]["replay_api"] == [{"replay": [pin_of("u-1")]}]


@pytest.mark.parametrize(("repeat", "bought"), [("idempotent", 1), ("accept-again", 2)])
async def test_a_repeated_uuid_buys_again_only_where_switched(shops: Shops, repeat: str, bought: int) -> None:
    await shops.change("barakat-1", switches={"repeat": repeat})
    first = (await shops.order("u-1")).json["data"]
    await shops.rows("[u-1]")
    again = (await shops.order("u-1")).json["data"]
    assert (again["order_id"] == first["order_id"]) == (bought == 1)
    assert again["status"] == ("accept" if bought == 1 else "wait")  # a repetition shows how the order stands now
    assert (await shops.summary("barakat-1"))["executed"] == bought


@pytest.mark.parametrize("form", ["[{0},{1}]", '["{0}","{1}"]', "{0},{1}", "[{0}, {1}, unknown]"])
async def test_every_list_syntax_finds_the_rows_newest_first(shops: Shops, form: str) -> None:
    await shops.order("u-1")
    await shops.order("u-2")
    assert [row["order_uuid"] for row in await shops.rows(form.format("u-1", "u-2"))] == ["u-2", "u-1"]


@pytest.mark.parametrize(("syntax", "form"), [("bracketed", '["u-1"]'), ("quoted", "[u-1]"), ("bare", "[u-1]")])
async def test_a_strict_shop_does_not_find_ids_in_a_foreign_syntax(shops: Shops, syntax: str, form: str) -> None:
    await shops.change("barakat-1", switches={"list_syntax": syntax})
    await shops.order("u-1")
    own = {"bracketed": "[u-1]", "quoted": '["u-1"]', "bare": "u-1"}[syntax]
    assert await shops.rows(form) == []
    assert [row["order_uuid"] for row in await shops.rows(own)] == ["u-1"]
    await shops.order("u-2")
    assert (await shops.rows("u-1,u-2") == []) == (syntax != "bare")


async def test_check_reads_the_shops_own_ids_without_uuid(shops: Shops) -> None:
    external = (await shops.order("u-1")).json["data"]["order_id"]
    assert [row["order_id"] for row in await shops.rows(f"[{external}]", uuid=False)] == [external]
    assert await shops.rows("[u-1]", uuid=False) == []
    assert await shops.rows(f"[{external}]") == []


async def test_a_batch_above_the_limit_is_refused_and_counts_no_check(shops: Shops) -> None:
    await shops.order("u-1")
    many = ",".join(["u-1", *(f"x-{n}" for n in range(50))])
    assert (await shops.zdk(f"check?uuid=1&orders=[{many}]")).json["code"] == 114
    assert (await shops.ledger())[0]["checks"] == 0


async def test_rows_may_lack_the_uuid_and_the_envelope(shops: Shops) -> None:
    await shops.change("barakat-1", switches={"uuid_in_rows": False, "check_array": True})
    await shops.order("u-1")
    (row,) = (await shops.zdk("check?uuid=1&orders=u-1")).json
    assert "order_uuid" not in row and row["order_id"].startswith("ID_")


@pytest.mark.parametrize(
    ("product", "qty", "code"),
    [
        ("365", "2", 106),  # no quantity values: exactly one
        ("365", "x", 114),
        ("365", "", 114),
        ("500", "2", 112),
        ("500", "21", 113),
        ("600", "111", 106),
        ("999", "1", 109),
        ("410", "1", 110),
        ("700", "1", 100),
    ],
)
async def test_a_refused_order_buys_nothing(shops: Shops, product: str, qty: str, code: int) -> None:
    got = await shops.order("u-1", product, qty)
    assert got.status == 200
    assert (got.json["status"], got.json["code"]) == ("ERROR", code)
    assert await shops.ledger() == []


@pytest.mark.parametrize("uuid", ["", "u" * 65, "u 1"])
async def test_an_order_needs_a_good_uuid(shops: Shops, uuid: str) -> None:
    assert (await shops.order(uuid)).json["code"] == 114
    assert await shops.ledger() == []


async def test_an_order_needs_the_products_parameter(shops: Shops) -> None:
    assert (await shops.order("u-1", player=" ")).json["message"] == "playerId is required"


async def test_a_quantity_costs_and_delivers_that_many(shops: Shops) -> None:
    await shops.order("u-1", "500", "3")
    (row,) = await shops.rows("u-1")
    assert (row["quantity"], row["price"]) == (3, "1.5000000000000000")
    assert row["replay_api"] == [pin_of("u-1", 1, unit) for unit in (1, 2, 3)]
    assert (await shops.summary("barakat-1"))["balance"] == "98.5"


async def test_every_gate_has_its_code(shops: Shops) -> None:
    for token, code in ((None, 120), ("no", 121)):
        assert ((got := await shops.zdk("profile", token)).status, got.json["code"]) == (401, code)
    await shops.change("barakat-1", permission=False)
    assert ((got := await shops.order("u-1")).status, got.json["code"]) == (403, 122)
    await shops.change("barakat-1", permission=True, ip_allowed=False, switches={"http_errors": False})
    assert ((got := await shops.order("u-1")).status, got.json["code"]) == (200, 123)
    assert await shops.ledger() == []


@pytest.mark.parametrize(
    ("style", "body"),
    [
        ("status", {"status": "ERROR", "code": 109, "message": "Product not found"}),
        ("code", {"code": 109, "message": "Product not found"}),
        ("msg", {"status": 109, "msg": "Product not found"}),
        ("success", {"success": False, "error_code": 109, "message": "Product not found"}),
    ],
)
async def test_errors_come_in_the_styles_of_the_shops(shops: Shops, style: str, body: dict[str, Any]) -> None:
    await shops.change("barakat-1", switches={"error_style": style})
    assert (await shops.order("u-1", "999")).json == body


async def test_new_order_takes_get_or_post_as_switched(shops: Shops) -> None:
    params = {"qty": 1, "order_uuid": "u-1", "playerId": "p1"}
    body = b"qty=1&order_uuid=u-2&playerId=p1"
    json_body = msgspec.json.encode(params)
    url = f"{shops.running.base_url('barakat-1')}/client/api/newOrder/365/params"
    kinds = {"application/json": json_body, "application/x-www-form-urlencoded": body}
    for kind, content in kinds.items():
        got = await ask("POST", url, {"api-token": "jeton", "Content-Type": kind}, content)
        assert got.json["data"]["status"] == "wait"
    await shops.change("barakat-1", switches={"new_order": "get"})
    assert (await shops.zdk("newOrder/365/params?qty=1&order_uuid=u-3&playerId=p", method="POST")).status == 405
    await shops.change("barakat-1", switches={"new_order": "post"})
    assert (await shops.order("u-3")).status == 405
    assert [entry["reference"] for entry in await shops.ledger()] == ["u-1", "u-2"]


async def test_products_can_be_listed_chosen_and_browsed(shops: Shops) -> None:
    rows = {row["id"]: row for row in (await shops.zdk("products")).json}
    assert rows["500"]["qty_values"] == {"min": "3", "max": "20"} and rows["500"]["product_type"] == "amount"
    assert rows["600"]["qty_values"] == ["110", "150"] and rows["365"]["qty_values"] is None
    assert (rows["365"]["category_name"], rows["365"]["params"]) == ("null", ["playerId"])
    assert (rows["365"]["available"], rows["410"]["available"]) == (True, False)
    assert [row["id"] for row in (await shops.zdk("products?products_id=365,500")).json] == ["365", "500"]
    assert (await shops.zdk("products?product_id=365&base=1")).json == [{"id": "365", "name": "60 UC"}]
    root = (await shops.zdk("content/0")).json
    assert root["categories"] == [{"id": 1, "name": "Live", "parent_id": 0}] and len(root["products"]) == 4
    assert [row["id"] for row in (await shops.zdk("content/1")).json["products"]] == ["500"]


async def test_a_failed_order_says_why_and_gives_the_money_back(shops: Shops) -> None:
    await shops.control("POST", "/lives", {"package": "365", "final": "fail"})
    await shops.order("u-1")
    (row,) = await shops.rows("u-1")
    assert (row["status"], row["replay_api"]) == ("reject", ["player not found"])
    assert (await shops.summary("barakat-1"))["balance"] == "100.00000"


async def test_pins_may_stand_in_their_own_field(shops: Shops) -> None:
    await shops.change("barakat-1", switches={"pin_in": "pin"}, life={"final_word": "refunded"})
    await shops.order("u-1")
    (row,) = await shops.rows("u-1")
    assert (row["status"], row["pin"], row["replay_api"]) == ("refunded", pin_of("u-1"), None)
