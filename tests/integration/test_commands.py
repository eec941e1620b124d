"""What people ask for, from the command line through the broker and a worker, and back."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from db.control import kill_switch
from orderwatch.localservers.bundled import Broker
from orderwatch.support import command_client
from streams.events import StatusChanged, decode
from streams.order import CommandAction
from tests.integration.conftest import Start
from tests.integration.test_an_order_reaches_its_end import order
from tests.system import System
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def system(system_of: Start, broker: Broker) -> Iterator[System]:
    running = system_of(broker.address, settings={"checks": {"first_after": "10m"}})
    running.start_worker()
    yield running


def command(system: System, *words: str) -> tuple[int, dict[str, Any]]:
    """One command of an operator: its exit status and its JSON."""
    done = system.command(*words, "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def bought(system: System, account: str) -> int:
    return sum(row["account"] == account for row in system.control("GET", "/ledger"))


def last_purchase_after(system: System, since: float, until: float) -> float:
    """Seconds from ``since`` to the last purchase that was seen before ``until``, to a twentieth of a second."""
    count, last = bought(system, "barakat-1"), since
    while time.monotonic() < until:
        time.sleep(0.05)
        if (now := bought(system, "barakat-1")) != count:
            count, last = now, time.monotonic()
    return last - since


def ask(system: System, order_id: str) -> bool | None:
    made = command_client.build(
        CommandAction.CHECK,
        "shop",
        order_id,
        by="ayse",
        reason="r",
        command_id=command_client.new_id(),
        issued_at=datetime.now(UTC),
    )
    answer = command_client.issue(system.config, system.engine, made, 15.0)
    return answer and answer.done


def test_a_switch_stops_new_sends_within_a_second_and_lets_them_go_on(system: System) -> None:
    stop = threading.Event()

    def shop() -> None:
        number = 0
        while not stop.wait(0.1):
            system.send([order(f"switch-{number}", "batch")])
            number += 1

    orders = threading.Thread(target=shop)
    orders.start()
    try:
        wait_until(lambda: bought(system, "barakat-1") >= 5, 60)
        assert kill_switch.set_enabled(system.engine, "barakat-1", False, "mehmet", "sells twice")
        switched_at = time.monotonic()
        took_s = last_purchase_after(system, switched_at, switched_at + 3.0)
    finally:
        stop.set()
        orders.join()
    assert took_s < 1.0
    wait_until(lambda: system.rows("select 1 from attention where code = 'integration_disabled'"), 30)
    stopped_at = bought(system, "barakat-1")
    assert len([key for key in system.sent if key[1].startswith("switch-")]) > stopped_at  # some wait
    assert ask(system, "switch-0")  # and what was sent is still followed
    wait_until(lambda: system.statuses()["shop", "switch-0"] == "completed", 30)

    status, answer = command(system, "integration", "on", "barakat-1", "--reason", "repaired")
    assert (status, answer["changed"]) == (0, True)
    mine = {key for key in system.sent if key[1].startswith("switch-")}
    wait_until(lambda: bought(system, "barakat-1") >= len(mine), 60)  # nobody touched them
    for _, order_id in sorted(mine - {("shop", "switch-0")}):
        assert ask(system, order_id) is not None
    system.wait_for_ends(60)
    verdict = system.books()
    assert verdict.agree, verdict.differences


def waits(system: System, order_id: str) -> bool:
    return bool(system.rows("select 1 from ledger_orders where order_id = :o and waiting is not null", o=order_id))


def test_an_order_that_waits_is_cancelled_once_and_everybody_is_told(system: System) -> None:
    system.send([order("by-hand-1", "by-hand")])
    wait_until(lambda: waits(system, "by-hand-1"), 30)
    refused, why = command(system, "order", "send-to", "shop", "by-hand-1", "barakat-1", "--reason", "in a hurry")
    assert (refused, why["done"], why["said"]) == (1, False, "package by-hand has no mapping at barakat-1")

    words = ("order", "cancel", "shop", "by-hand-1", "--reason", "the buyer asked", "--command-id", "cancel-1")
    first, again = command(system, *words), command(system, *words)

    assert first == again and (first[0], first[1]["done"]) == (0, True)
    system.wait_for_ends(30)
    steps = system.rows("select step, actor, details from order_events where order_id = 'by-hand-1' order by id")
    mine = [(row["step"], row["actor"]) for row in steps if "command" in row["details"]]
    assert mine == [("refused", "operator:ayse"), ("cancelled", "operator:ayse")]
    changes = [decode(StatusChanged, record.value()) for record in system.read("orders.status-changed")]
    assert [(c.external_status, c.reason, c.message) for c in changes if c.order_id == "by-hand-1"] == [
        ("failed", "operator", "the buyer asked")
    ]


def test_a_person_asks_early_and_nothing_is_bought_again(system: System) -> None:
    system.send([order("early", "batch")])
    wait_until(lambda: system.rows("select 1 from attempts where order_id = 'early' and state = 'accepted'"), 30)
    again, why = command(system, "order", "place-again", "shop", "early", "--reason", "it takes long")
    assert (again, why["said"]) == (1, "attempt 1 at barakat-1 was accepted, and the provider works on it")
    asked, answer = command(system, "order", "check", "shop", "early")
    assert (asked, answer["said"]) == (0, "asked for attempt 1")
    system.wait_for_ends(30)  # long before its first check was due
    verdict = system.books()
    assert verdict.agree, verdict.differences
