"""The control API, and the simulator as a program of its own."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import orderwatch.simulator
from tests.shops import ZDK, ZNET, Shops, ask, open_shops

DEMO = Path(orderwatch.simulator.__file__).with_name("demo.yaml")


@pytest.fixture
async def shops() -> AsyncIterator[Shops]:
    opened = await open_shops()
    yield opened
    await opened.running.stop()


async def test_the_request_log_says_what_was_asked_and_answered_without_secrets(shops: Shops) -> None:
    await shops.fault("hang_up_after")
    await shops.place("1")
    await shops.look("1")
    await shops.order("u-1")
    await shops.rows("[u-1,u-2]")
    await shops.znet("yok")
    got = await shops.control("GET", "/requests")
    assert [(row["account"], row["operation"], row["reference"], row["answered"]) for row in got.json] == [
        ("znet-main", "place", "1", "hang_up_after:accepted"),
        ("znet-main", "check", "1", "found:success"),
        ("barakat-1", "place", "u-1", "accepted"),
        ("barakat-1", "check", "[u-1,u-2]", "found:1/2"),
        ("znet-main", "unknown", "", "404"),
    ]
    times = [row["at_ns"] for row in got.json]
    assert times == sorted(times)
    secrets = ("5320000000", "gizli", "jeton")
    others = [await shops.control("GET", path) for path in ("/accounts", "/ledger", "/ledger/summary")]
    everything = "".join(answer.text for answer in [got, *others])
    assert not [secret for secret in secrets if secret in everything]
    assert len((await shops.control("GET", "/requests?account=znet-main&operation=place&reference=1")).json) == 1


async def test_the_summary_counts_per_account(shops: Shops) -> None:
    await shops.place("1")
    await shops.place("1")
    await shops.order("u-1")
    summary = await shops.summary()
    assert summary == {
        "references": 1,
        "executed": 1,
        "executed_twice": [],
        "cost": "10.12",
        "returned": "0",
        "balance": "989.88",
        "currency": "TRY",
        "states": {"pending": 1},
        "requests": {"place": 2},
    }
    assert [entry["reference"] for entry in await shops.ledger("?account=barakat-1")] == ["u-1"]
    assert await shops.ledger("?reference=404") == []


async def test_accounts_are_opened_and_changed_at_run_time(shops: Shops) -> None:
    got = await shops.control("POST", "/accounts", {**ZNET, "id": "znet-2", "balance": 3})
    assert got.status == 201
    url = f"{shops.running.base_url('znet-2')}/servis/bakiye_kontrol.php?kod=5320000000&sifre="
    assert (await ask("GET", url + "gizli")).text == "OK|3.00"
    await shops.change("znet-2", credentials={"sifre": "yeni"}, latency={"kind": "uniform", "low_ms": 0, "high_ms": 1})
    assert (await ask("GET", url + "gizli")).text == ""
    assert (await ask("GET", url + "yeni")).text == "OK|3.00"


async def test_a_change_keeps_the_money_spent_and_the_faults_left(shops: Shops) -> None:
    await shops.fault("error_before", times=2)
    await shops.place("1")
    await shops.change("znet-main", permission=True)
    assert (await shops.place("1")).status == 503
    assert (await shops.place("1")).text == "OK|10.12|989.88"
    await shops.change("znet-main", currency="EUR")
    assert (await shops.summary())["balance"] == "989.88"


async def test_an_order_can_be_ended_by_hand(shops: Shops) -> None:
    await shops.change("znet-main", life={"final": "pending"})
    await shops.place("1")
    assert (await shops.look("1")).startswith("OK|1|")
    wish = {"reference": "1", "state": "success"}
    assert (await shops.control("POST", "/accounts/znet-main/settle", wish)).json[0]["state"] == "success"
    assert (await shops.look("1")).startswith("OK|2|")
    await shops.control("POST", "/accounts/znet-main/settle", {**wish, "state": "reversed"})
    assert (await shops.look("1")).startswith("OK|3|")
    assert (await shops.summary())["balance"] == "1000.00"


async def test_reset_brings_the_scenario_back(shops: Shops) -> None:
    await shops.place("1")
    await shops.fault("empty")
    await shops.control("POST", "/lives", {"player": "77", "final": "fail"})
    await shops.change("znet-main", balance=5)
    await shops.control("POST", "/reset")
    assert await shops.ledger() == [] and (await shops.control("GET", "/requests")).json == []
    assert (await shops.place("1")).text == "OK|10.12|989.88"
    assert (await shops.look("1")).startswith("OK|2|")


@pytest.mark.parametrize(
    ("method", "path", "data", "named"),
    [
        ("POST", "/accounts", {**ZNET, "id": "x", "ballance": 1}, "ballance"),
        ("POST", "/accounts", {**ZNET, "id": "x", "kind": "zzz"}, "kind: Invalid value 'zzz'"),
        ("POST", "/accounts", ZNET, "'znet-main' is taken"),
        ("POST", "/accounts", {**ZDK, "id": "a/b"}, "id"),
        ("POST", "/accounts", {**ZDK, "id": "x", "credentials": {"token": 1}}, "credentials.token: Expected `str`"),
        ("POST", "/accounts", {**ZDK, "id": "x", "credentials": "jeton"}, "credentials: Expected `object`"),
        ("PATCH", "/accounts/znet-main", {"switches": {"repeat": "reject-5"}}, "switches.repeat: Invalid enum value"),
        ("PATCH", "/accounts/znet-main", {"switches": {"envelope": "flat"}}, "envelope"),
        ("PATCH", "/accounts/znet-main", {"kind": "zdk"}, "kind: 'zdk' differs"),
        ("PATCH", "/accounts/znet-main", {"balance": "a lot"}, "(found 'a lot')"),
        ("PATCH", "/accounts/znet-main", [], "expected an object"),
        ("POST", "/accounts/znet-main/faults", {"kind": "explode"}, "kind"),
        ("POST", "/accounts/znet-main/faults", {"kind": "empty", "probability": 2}, "probability"),
        ("POST", "/accounts/znet-main/faults", {"kind": "execute_twice", "operation": "check"}, "expected place"),
        ("POST", "/accounts/znet-main/faults", [{"kind": "empty", "hidden": 1}], "`hidden`"),
        ("POST", "/accounts/znet-main/settle", {"reference": "404", "state": "fail"}, "nothing was bought"),
        ("POST", "/accounts/znet-main/settle", {"reference": "1", "state": "gone"}, "expected success, fail"),
        ("POST", "/lives", {"final": "fail"}, "either a package or a player"),
        ("POST", "/lives", {"player": "1", "account": "nobody"}, "'nobody' does not exist"),
        ("GET", "/ledger?acount=x", None, "'acount'"),
    ],
)
async def test_a_wrong_request_is_told_what_is_wrong(
    shops: Shops, method: str, path: str, data: Any, named: str
) -> None:
    got = await shops.control(method, path, data)
    assert got.status == 400
    assert named in got.json["error"]
    assert "\n" not in got.json["error"] and "jeton" not in got.json["error"]


async def test_a_body_that_is_no_json_and_an_unknown_account_are_said_so(shops: Shops) -> None:
    assert (await ask("POST", shops.running.control_url + "/lives", body=b"{")).status == 400
    assert (await shops.control("PATCH", "/accounts/nobody", {})).json == {"error": "account 'nobody' does not exist"}


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """The simulator as a process, and the line it printed when it was ready; gone afterwards, however the test ends."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orderwatch.simulator", *arguments, stdout=pipe, stderr=pipe
    )
    try:
        assert process.stdout is not None
        line = await process.stdout.readline()
        yield process, json.loads(line) if line else {}
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_program_says_where_it_is_and_stops_at_sigterm() -> None:
    arguments = ("--port", "0", "--control-port", "0", "--seed", "7", "--scenario", str(DEMO))
    async with program(*arguments) as (process, where):
        assert set(where["accounts"]) == {"znet-main", "barakat-1", "znet-b", "barakat-b"}
        assert (await ask("GET", where["control_url"] + "/health")).json == {"ok": True, "accounts": 4, "executed": 0}
        got = await ask("GET", where["accounts"]["znet-main"] + "/servis/bakiye_kontrol.php?kod=demo&sifre=demo")
        assert got.text == "OK|250000.00|0.00"
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"", b"")


async def test_the_program_keeps_no_request_log_when_told_so() -> None:
    async with program("--no-request-log", "--scenario", str(DEMO)) as (process, where):
        await ask("GET", where["accounts"]["znet-main"] + "/servis/bakiye_kontrol.php?kod=demo&sifre=demo")
        assert (await ask("GET", where["control_url"] + "/requests")).json == []
        summary = (await ask("GET", where["control_url"] + "/ledger/summary")).json
        assert summary["accounts"]["znet-main"]["requests"] == {"balance": 1}
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert process.returncode == 0


async def test_a_wrong_scenario_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("accounts: [{id: a, kind: znet, credentials: {kod: secret}}]")
    async with program("--scenario", str(wrong)) as (process, _):
        _, err = await process.communicate()
    assert process.returncode == 2
    assert err.decode().count("\n") == 1 and "wrong.yaml: accounts[0].credentials" in err.decode()
    assert "secret" not in err.decode()


async def test_a_taken_port_is_one_line_and_exit_status_1(shops: Shops) -> None:
    async with program("--port", str(shops.running.port)) as (process, _):
        _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode().startswith("simulator: cannot listen")
