"""Rows 23 and 24: workers that start on a backlog, in another release, or without what they had on disk."""

import signal
from urllib.error import HTTPError

import pytest

from tests.chaos.orders import HOOKS, orders, owned
from tests.chaos.stage import next_release
from tests.integration.conftest import Start
from tests.parts import Kafka
from tests.system import System, http
from tests.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


def test_a_worker_that_starts_slowly_on_a_backlog_skips_nothing(system_of: Start, kafka: Kafka) -> None:
    """Faust clears its queues after it has rewound to the committed offsets: what was read between was lost."""
    system = system_of(kafka.address, settings={"dispatch": {"lease_margin": "1s", "max_in_flight": 2}})
    first = system.start_worker()
    owned(first)
    system.send(orders("before", 20))  # tables with a changelog: they are restored on the way up
    system.wait_for_ends(60)
    system.stop_worker(first, signal.SIGTERM)
    for account in ("znet-main", "barakat-1"):
        system.control("PATCH", f"/accounts/{account}", {"latency": {"kind": "constant", "ms": 300}})
    system.send(orders("backlog", 40))
    slow = system.start_worker(PYTHONPATH=HOOKS, CHAOS_SLOW_SEEK_S="1.5")
    owned(slow)
    system.wait_for_ends(45)
    assert system.books().agree


def test_what_a_rebalance_throws_away_is_read_again_where_nothing_was_committed_yet(
    system_of: Start, kafka: Kafka
) -> None:
    """Faust rewinds to committed offsets only; a group that is new has none."""
    system = system_of(kafka.address)
    system.send(orders("first", 20))
    owned(system.start_worker(PYTHONPATH=HOOKS, CHAOS_DISCARD_S="1"))
    system.wait_for_ends(45)
    assert system.books().agree


def releases(system: System, topic: str) -> set[bool]:
    """Whether the records of a topic carry the field that only the next release knows."""
    return {b'"release":' in record.value() for record in system.read(topic)}


def test_two_releases_side_by_side_read_each_others_events(system_of: Start, kafka: Kafka) -> None:
    system = system_of(kafka.address)
    old = system.start_worker()
    new = system.start_worker(cwd=next_release(system.directory))
    owned(old), owned(new)
    system.send(orders("mixed", 60))
    system.wait_for_ends(90)
    assert releases(system, "orders.status-changed") == {True, False}
    assert releases(system, "orders.retry.500ms") == {True, False}
    system.stop_worker(old)  # its partitions, and the events that it left there, go to the new release
    system.send(orders("forward", 20))
    system.wait_for_ends(90)
    back = system.start_worker()  # and back again: a release that is rolled back reads what the newer one wrote
    owned(back)
    system.stop_worker(new)
    system.send(orders("rolled-back", 20))
    system.wait_for_ends(90)
    verdict = system.books()
    assert verdict.agree, verdict.differences[:10]
    assert not system.rows("select 1 from dead_letters")


def test_a_worker_that_lost_its_disk_rebuilds_its_table_and_buys_nothing_again(system_of: Start, kafka: Kafka) -> None:
    system = system_of(kafka.address)
    first = system.start_worker()
    owned(first)
    batch = orders("kept", 12)
    system.send(batch)
    system.wait_for_ends(60)
    wait_until(lambda: told(first, batch[-1].order_id) == "completed", 30)
    bought = system.control("GET", "/ledger")
    first.kill()
    second = system.start_worker()
    owned(second)
    for order in batch:
        wait_until(lambda o=order: told(second, o.order_id) == "completed", 30)
    system.send(batch)  # nor does a table that is not there yet, or one that is stale, let anything be bought
    system.send(orders("more", 3))
    system.wait_for_ends(60)
    assert system.control("GET", "/ledger")[: len(bought)] == bought
    assert system.books().agree


def told(worker: object, order_id: str) -> str:
    """What a worker's table says; empty while it does not know the order."""
    try:
        answer = http("GET", f"http://127.0.0.1:{worker.port}/orders/{order_id}/")  # type: ignore[attr-defined]
    except HTTPError as missing:
        missing.close()
        return ""
    return str(answer["tenants"]["shop"]["external_status"])
