"""Rows 12, 13 and 14: evidence that contradicts what was settled, and orders that are sent again while one is live."""

import pytest

from tests.chaos.orders import attempts, attention, order, owned
from tests.integration.conftest import Start
from tests.parts import Kafka
from tests.system import System
from tests.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
WATCHED = {"checks": {"after_final": {"every": "1s", "until": "5m"}}}


def bought(system: System) -> list[tuple[str, str]]:
    return [(row["account"], row["reference"]) for row in system.control("GET", "/ledger")]


def test_a_success_that_shows_after_absence_was_proven_is_told_with_both_facts(system_of: Start, kafka: Kafka) -> None:
    system = system_of(kafka.address, settings=WATCHED)
    system.control("POST", "/accounts/znet-main/faults", {"kind": "hang_up_after", "hidden_checks": 6})
    owned(system.start_worker())
    system.send([order("late")])
    system.wait_for_ends(60)
    first, second = attempts(system, "late")
    assert (first["state"], first["integration_id"]) == ("not_sent", "znet-main")
    assert (second["state"], second["integration_id"]) == ("completed", "barakat-1")
    [told] = wait_until(lambda: attention(system, "reversal"), 60)
    assert "attempt 1 at znet-main was settled as not_sent" in told["message"]
    assert "attempt 2 at barakat-1 is completed" in told["message"]
    assert sorted(bought(system)) == sorted([("znet-main", first["reference"]), ("barakat-1", second["reference"])])
    assert system.statuses()["shop", "late"] == "completed"


def test_a_success_that_is_taken_back_is_told_and_settles_nothing(system_of: Start, kafka: Kafka) -> None:
    system = system_of(kafka.address, settings=WATCHED)
    owned(system.start_worker())
    system.send([order("back", "batch")])
    system.wait_for_ends(60)
    [row] = attempts(system, "back")
    system.control("POST", "/accounts/barakat-1/settle", {"reference": row["reference"], "state": "reversed"})
    [told] = wait_until(lambda: attention(system, "reversal"), 60)
    assert told["order_id"] == "back" and "was settled as completed" in told["message"]
    assert [record.key() for record in system.read("orders.attention")] == [b"back"]
    assert system.statuses()["shop", "back"] == system.topic_statuses()["shop", "back"] == "completed"
    assert len(bought(system)) == 1


def test_what_is_asked_for_while_an_attempt_is_live_buys_nothing_more(system_of: Start, kafka: Kafka) -> None:
    system = system_of(kafka.address)
    system.control("POST", "/lives", {"account": "barakat-1", "package": "10", "after_ms": 600_000})
    owned(system.start_worker())
    live = order("live", "batch")
    system.send([live])
    wait_until(lambda: [row for row in attempts(system, "live") if row["state"] == "accepted"], 60)
    system.send([live, live])
    system.send([order("live", "batch", extra_field="another")])
    replayed = system.command("order", "replay", "shop", "live")
    assert replayed.returncode == 0, replayed.stderr
    ended = system.command("order", "resolve", "shop", "live", "--attempt", "0", "--as", "failed", "--reason", "asked")
    assert ended.returncode == 1 and "resolve that attempt first" in ended.stderr
    wait_until(lambda: attention(system, "invalid_order"), 60)
    [row] = attempts(system, "live")
    system.control("POST", "/accounts/barakat-1/settle", {"reference": row["reference"], "state": "success"})
    system.wait_for_ends(60)
    assert len(bought(system)) == len(attempts(system, "live")) == 1
    assert system.books().agree
