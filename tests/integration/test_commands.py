"""What people ask for, from the command line through the broker and a worker, and back."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from orderwatch.embedded import Broker
from streams.events import StatusChanged, decode
from tests.integration.conftest import Start
from tests.integration.test_an_order_reaches_its_end import order
from tests.system import ROOT, System
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def system(system_of: Start, broker: Broker) -> Iterator[System]:
    running = system_of(broker.address, settings={"checks": {"first_after": "10m"}})
    running.start_worker()
    yield running


def command(system: System, *words: str) -> tuple[int, dict[str, Any]]:
    """One command of an operator: its exit status and its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "orderwatch", *words, "--json", "--config", str(system.config_path)], cwd=ROOT,
        check=False, capture_output=True, text=True,
        env={**os.environ, "ORDERWATCH_PIN_KEYS": system.pin_keys, "USER": "ayse"},
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


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
    ]  # fmt: skip


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
