"""Each fault does on the wire what its name says, and the ledger counts what was really bought."""

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest

from orderwatch.simulator.faults import UNTRUE, FaultKind
from tests.shops import Got, Shops, ask, open_shops, request_bytes, sent_to
from tests.waiting import eventually

ANSWER = "OK|10.12|989.88"
SILENT = {FaultKind.TIMEOUT_AFTER, FaultKind.TIMEOUT_BEFORE}
RESET = {FaultKind.RESET_AFTER, FaultKind.RESET_BEFORE}

LIVES = {FaultKind.LATE_PIN, FaultKind.RELAPSE, FaultKind.SAME_ID, FaultKind.SAME_PIN}

#: What a client sees of the first placement: (status, body), and how many purchases there are.
SEEN = {
    FaultKind.HANG_UP_AFTER: (0, b"", 1),
    FaultKind.HANG_UP_BEFORE: (0, b"", 0),
    FaultKind.ERROR_AFTER: (503, b"Service Unavailable", 1),
    FaultKind.ERROR_BEFORE: (503, b"Service Unavailable", 0),
    FaultKind.EXECUTE_TWICE: (200, ANSWER.encode(), 2),
    FaultKind.HIDE: (200, ANSWER.encode(), 1),
    FaultKind.REVERSE: (200, ANSWER.encode(), 1),
    FaultKind.REFUSE: (200, b"3|Yetersiz Bakiye", 0),
    FaultKind.SLOW: (200, ANSWER.encode(), 1),
    FaultKind.EMPTY: (200, b"", 1),
    FaultKind.TRUNCATED: (200, ANSWER.encode()[:7], 1),
    FaultKind.WRONG_CHARSET: (200, ANSWER.encode(), 1),
    FaultKind.REDIRECT: (302, b"", 0),
}


@pytest.fixture
async def shops() -> AsyncIterator[Shops]:
    opened = await open_shops()
    yield opened
    await opened.running.stop()


async def bought(shops: Shops, account: str = "znet-main") -> int:
    executed: int = (await shops.summary(account))["executed"]
    return executed


@pytest.mark.parametrize("kind", SEEN)
async def test_a_fault_is_seen_once_and_counted_exactly(shops: Shops, kind: FaultKind) -> None:
    status, body, purchases = SEEN[kind]
    await shops.fault(kind, **({"hidden_checks": 1} if kind is FaultKind.HIDE else {}), ms=1)
    got = await shops.place("1")
    assert (got.status, got.body) == (status, body)
    assert await bought(shops) == purchases
    assert len((await shops.control("GET", "/requests?operation=place")).json) == 1
    assert (await shops.place("2")).status == 200  # the fault is used up
    assert await bought(shops) == purchases + 1


@pytest.mark.parametrize(("kind", "purchases"), [(FaultKind.TIMEOUT_AFTER, 1), (FaultKind.TIMEOUT_BEFORE, 0)])
async def test_a_silent_connection_stays_open_until_the_simulator_stops(kind: FaultKind, purchases: int) -> None:
    shops = await open_shops()
    await shops.fault(kind)
    url = shops.place_url("1")
    reader, writer = await asyncio.open_connection(*(await sent_to(url)))
    writer.write(request_bytes("GET", url, {}, b""))
    reading = asyncio.create_task(reader.read())
    done, _ = await asyncio.wait({reading}, timeout=0.2)  # silence cannot be waited for otherwise
    assert not done
    assert await bought(shops) == purchases
    await shops.running.stop()
    assert await reading == b""
    writer.close()


@pytest.mark.parametrize(("kind", "purchases"), [(FaultKind.RESET_AFTER, 1), (FaultKind.RESET_BEFORE, 0)])
async def test_a_reset_is_a_reset(shops: Shops, kind: FaultKind, purchases: int) -> None:
    await shops.fault(kind)
    with pytest.raises(ConnectionResetError):
        await shops.place("1")
    assert await bought(shops) == purchases


async def test_a_client_that_leaves_a_silent_connection_takes_nothing_with_it(shops: Shops) -> None:
    await shops.fault("timeout_after")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(shops.place("1"), 0.1)
    assert (await shops.look("1")).startswith("OK|2|")
    assert await bought(shops) == 1
    await eventually(lambda: shops.running.connections == 0)


async def test_html_and_a_php_warning_come_where_text_is_expected(shops: Shops) -> None:
    await shops.fault("html")
    await shops.fault("php_warning")
    assert (await shops.place("1")).body.startswith(b"<!DOCTYPE html>")
    warned = await shops.place("2")
    assert warned.body.startswith(b"<br />\n<b>Warning</b>") and warned.body.endswith(b"OK|10.12|979.76")
    assert await bought(shops) == 2


async def test_truncated_promises_more_than_it_sends(shops: Shops) -> None:
    await shops.fault("truncated")
    got = await shops.place("1")
    assert int(got.headers["content-length"]) == len(ANSWER) > len(got.body)


async def test_a_drip_arrives_whole(shops: Shops) -> None:
    await shops.fault("drip", ms=1)
    assert (await shops.place("1")).text == ANSWER


async def test_wrong_charset_is_windows_1254_undeclared(shops: Shops) -> None:
    await shops.place("1")
    await shops.fault("wrong_charset", operation="check")
    got = await shops.znet("pin_kontrol", tahsilat_api_islem_id="1")
    assert got.headers["content-type"] == "text/html"
    assert got.body.decode("windows-1254").endswith("|İşlem tamamlandı")
    with pytest.raises(UnicodeDecodeError):
        got.body.decode("utf-8")


async def test_a_redirect_leads_to_the_same_purchase(shops: Shops) -> None:
    await shops.fault("redirect")
    got = await shops.place("1")
    followed = await ask("GET", shops.running.provider_url + got.headers["location"])
    assert followed.text == ANSWER


async def test_huge_bodies_come_plain_and_compressed(shops: Shops) -> None:
    await shops.fault("huge")
    await shops.fault("gzip_bomb")
    huge = await shops.place("1")
    assert len(huge.body) > 10_000_000 and huge.body.startswith(ANSWER.encode())
    bomb = await shops.place("2")
    assert bomb.headers["content-encoding"] == "gzip" and len(bomb.body) < 1_000_000
    assert len(gzip.decompress(bomb.body)) > 100_000_000


async def test_refusals_have_the_code_and_text_that_were_ordered(shops: Shops) -> None:
    await shops.fault("refuse", code=8, text="Bağlantı Hatası")
    await shops.fault("refuse", operation="check", text="Açıklama")
    assert (await shops.place("1")).text == "8|Bağlantı Hatası"
    assert await shops.look("1") == "3|Açıklama"
    await shops.fault("refuse", "barakat-1", code=130, retry_after_s=7)
    got = await shops.order("u-1")
    assert (got.status, got.json["code"], got.headers["retry-after"]) == (503, 130, "7")
    assert (await shops.order("u-1")).json["status"] == "OK"
    assert await bought(shops) == 0 and await bought(shops, "barakat-1") == 1


async def test_a_refusal_may_hide_a_purchase(shops: Shops) -> None:
    await shops.fault("refuse", executions=1)
    assert (await shops.place("1")).text == "3|Yetersiz Bakiye"
    assert await bought(shops) == 1


async def test_a_lock_out_hits_the_ordered_number_of_requests(shops: Shops) -> None:
    await shops.fault("lock_out", times=2)
    await shops.fault("lock_out", "barakat-1")
    answers = [(await shops.place(str(n))).text for n in range(3)]
    assert [text[:2] for text in answers] == ["8|", "8|", "OK"]
    assert (await shops.order("u-1")).json["code"] == 123
    assert await bought(shops) == 1


async def test_executing_twice_takes_the_money_twice(shops: Shops) -> None:
    await shops.fault("execute_twice")
    await shops.place("1")
    summary = await shops.summary()
    assert (summary["executed"], summary["executed_twice"], summary["cost"]) == (2, ["1"], "20.24")
    assert (await shops.znet("bakiye_kontrol")).text == "OK|979.76"
    await shops.fault("execute_twice", "barakat-1")
    await shops.order("u-1")
    assert [row["order_uuid"] for row in await shops.rows("u-1")] == ["u-1", "u-1"]


async def test_an_order_is_hidden_for_the_ordered_number_of_checks(shops: Shops) -> None:
    await shops.fault("hang_up_after", hidden_checks=2)
    await shops.place("1")
    answers = [await shops.look("1") for _ in range(3)]
    assert answers[:2] == ["3|İşlem bulunamadı"] * 2 and answers[2].startswith("OK|2|")
    assert (await shops.ledger())[0]["checks"] == 3
    await shops.fault("hide", "barakat-1", hidden_checks=1)
    await shops.order("u-1")
    assert await shops.rows("u-1") == [] and len(await shops.rows("u-1")) == 1


async def test_a_hidden_order_is_still_known_to_the_repeat_check(shops: Shops) -> None:
    await shops.fault("hang_up_after", hidden_checks=5)
    await shops.place("1")
    assert (await shops.place("1")).text.startswith("4|")
    assert await bought(shops) == 1


async def test_a_stale_answer_shows_the_first_day(shops: Shops) -> None:
    await shops.place("1")
    await shops.look("1")
    await shops.fault("stale", operation="check")
    assert [(await shops.look("1"))[:5] for _ in range(2)] == ["OK|1|", "OK|2|"]
    await shops.order("u-1")
    await shops.rows("u-1")
    await shops.fault("stale", "barakat-1", operation="check")
    assert [(await shops.rows("u-1"))[0]["status"] for _ in range(2)] == ["wait", "accept"]


async def test_a_stale_answer_does_not_bring_the_end_nearer(shops: Shops) -> None:
    await shops.change("znet-main", life={"after_checks": 2})
    await shops.place("1")
    await shops.fault("stale", operation="check")
    assert [(await shops.look("1"))[:5] for _ in range(3)] == ["OK|1|", "OK|1|", "OK|2|"]


async def test_a_reversal_comes_after_the_success_or_at_a_check(shops: Shops) -> None:
    await shops.fault("reverse")
    await shops.place("1")
    assert [(await shops.look("1"))[:5] for _ in range(2)] == ["OK|2|", "OK|3|"]
    await shops.place("2")
    await shops.look("2")
    await shops.fault("reverse", operation="check")
    assert (await shops.look("2")).startswith("OK|3|")
    assert (await shops.summary())["balance"] == "1000.00"


@pytest.mark.parametrize("field", ["player", "package"])
async def test_a_fault_may_be_meant_for_one_player_or_package(shops: Shops, field: str) -> None:
    await shops.fault("error_after", **{field: {"player": "88", "package": "12345"}[field]})
    miss = {"player": {}, "package": {"oyun": "200", "kupur": "RZ"}}[field]
    assert (await shops.place("1", **miss)).status == 200
    assert (await shops.place("2", oyuncu_bilgi="88")).status == 503
    await shops.fault("error_after", operation="check", player="88", status=500)
    assert [(await shops.znet("pin_kontrol", tahsilat_api_islem_id=n)).status for n in ("1", "2")] == [200, 500]


async def test_balance_and_catalogue_can_fail_too(shops: Shops) -> None:
    await shops.fault("error_before", operation="balance", status=500)
    await shops.fault("html", "barakat-1", operation="catalogue")
    assert (await shops.znet("bakiye_kontrol")).status == 500
    assert (await shops.zdk("products")).body.startswith(b"<!DOCTYPE")
    assert (await shops.znet("bakiye_kontrol")).text == "OK|1000.00"


async def statuses(seed: int, order: list[int]) -> dict[int, int]:
    """The status of each placement, with every third or so failing."""
    shops = await open_shops(seed)
    await shops.change("znet-main", faults=[{"kind": "error_after", "probability": 0.3}])
    got: dict[int, Got] = {}
    for number in order:
        got[number] = await shops.place(str(number))
    await shops.running.stop()
    return {number: got[number].status for number in sorted(got)}


async def test_a_seed_decides_which_orders_are_hit_whatever_their_order() -> None:
    forwards = await statuses(7, list(range(40)))
    assert await statuses(7, list(reversed(range(40)))) == forwards
    assert set(forwards.values()) == {200, 503}
    assert await statuses(8, list(range(40))) != forwards


def test_the_table_of_this_file_names_every_fault() -> None:
    tested_alone = {
        FaultKind.HTML,
        FaultKind.PHP_WARNING,
        FaultKind.DRIP,
        FaultKind.HUGE,
        FaultKind.GZIP_BOMB,
        FaultKind.LOCK_OUT,
        FaultKind.STALE,
    }
    untrue = {FaultKind.SAY, FaultKind.FIREWALL, FaultKind.SECOND_ANSWER, FaultKind.LATE_408, *UNTRUE, *LIVES}
    assert set(FaultKind) == set(SEEN) | SILENT | RESET | tested_alone | untrue  # the last in test_simulator_doubt.py
