"""Workers on Apache Kafka come, go, freeze, die and are replaced while orders flow: nothing is lost or doubled."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from streams.events import Created
from tests.integration.conftest import Start
from tests.parts import Kafka
from tests.system import System, http
from tests.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

#: 5 % of the answers are lost after the provider has bought, 5 % before; look-ups fail now and then.
FAULTS = [
    {"kind": "hang_up_after", "probability": 0.05, "operation": "place"},
    {"kind": "hang_up_before", "probability": 0.05, "operation": "place"},
    {"kind": "error_after", "probability": 0.03, "status": 502, "operation": "place"},
    {"kind": "html", "probability": 0.05, "operation": "check"},
]


@pytest.fixture
def system(system_of: Start, kafka: Kafka) -> Iterator[System]:
    running = system_of(kafka.address)
    for account in ("znet-main", "barakat-1"):
        running.control("PATCH", f"/accounts/{account}", {"faults": FAULTS, "latency": {"kind": "constant", "ms": 40}})
    yield running


def orders(name: str, count: int) -> list[Created]:
    packages = ("sixty", "batch", "gone")
    return [
        Created(
            order_id=f"{name}-{i}",
            tenant_id="shop",
            package_id=packages[i % 3],
            user_identifier=f"50000{i}",
            created_at=datetime.now(UTC),
        )
        for i in range(count)
    ]


@contextmanager
def flowing(system: System, name: str, *, per_s: int = 40) -> Iterator[Callable[[], int]]:
    """Orders flow until the block ends; every tenth is sent twice. Yields how many were sent so far."""
    stop, sent = threading.Event(), 0

    def flow() -> None:
        nonlocal sent
        while not stop.is_set():
            batch = orders(f"{name}-{sent}", per_s // 4)
            system.send([*batch, *batch[:1]])
            sent += len(batch)
            stop.wait(0.25)

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        yield lambda: sent
    finally:
        stop.set()
        thread.join()


def owned(worker: Any) -> int:
    """Partitions that a worker has, 0 while it does not answer."""
    try:
        return int(http("GET", f"http://127.0.0.1:{worker.port}/health/")["assigned"])
    except OSError:
        return 0


def check(system: System) -> None:
    """Every order reaches its end and the four books agree."""
    system.wait_for_ends(120)
    verdict = system.books()
    assert verdict.agree, "\n".join(verdict.differences[:20])
    assert verdict.completed + verdict.failed == verdict.sent > 0
    assert not system.rows("select 1 from dead_letters")


def test_scale_out_stop_of_one_and_kill_of_the_other(system: System) -> None:
    first = system.start_worker()
    with flowing(system, "scale") as sent:
        wait_until(lambda: owned(first) > 0, 60)
        second = system.start_worker()
        wait_until(lambda: owned(second) > 0, 60)
        before = sent()
        wait_until(lambda: sent() > before + 100, 30)
        system.stop_worker(first, signal.SIGTERM)
        before = sent()
        wait_until(lambda: sent() > before + 100, 30)
        third = system.start_worker()
        wait_until(lambda: owned(third) > 0, 60)
        second.kill()
        before = sent()
        wait_until(lambda: sent() > before + 100, 30)
    check(system)


def test_every_worker_answers_for_every_order_of_the_table(system: System) -> None:
    workers = [system.start_worker(), system.start_worker()]
    for worker in workers:
        wait_until(lambda w=worker: 0 < owned(w) < 28, 90)
    batch = [order for order in orders("table", 30) if order.package_id == "sixty"]
    system.send(batch)
    system.wait_for_ends(60)

    def held(worker: Any) -> dict[str, str]:
        found = {}
        for order in batch:
            answer = http("GET", f"http://127.0.0.1:{worker.port}/orders/{order.order_id}/")
            found[order.order_id] = answer["tenants"]["shop"]["external_status"]
        return found

    for worker in workers:
        wait_until(lambda w=worker: set(held(w).values()) == {"completed"}, 30)


def test_a_rolling_restart_loses_and_doubles_nothing(system: System) -> None:
    workers = [system.start_worker(), system.start_worker()]
    with flowing(system, "rolling") as sent:
        for worker in workers:
            wait_until(lambda w=worker: owned(w) > 0, 60)
        for worker in list(workers):
            before = sent()
            wait_until(lambda b=before: sent() > b + 60, 30)
            system.stop_worker(worker, signal.SIGTERM)
            fresh = system.start_worker()
            wait_until(lambda w=fresh: owned(w) > 0, 60)
    check(system)


def test_workers_killed_again_and_again(system: System) -> None:
    with flowing(system, "killed") as sent:
        for _ in range(4):
            worker = system.start_worker()
            wait_until(lambda w=worker: owned(w) > 0, 60)
            before = sent()
            wait_until(lambda b=before: sent() > b + 50, 30)
            worker.kill()
        system.start_worker()
    check(system)


def freeze_in_a_transaction(system: System, worker: Any) -> None:
    """Stop a worker that holds locks on attempts: orders flow in until it is caught with some."""
    locks = (
        "select 1 from pg_stat_activity a join pg_locks l using (pid) where a.state = 'idle in transaction'"
        " and l.relation = 'attempts'::regclass and l.mode = 'RowExclusiveLock'"
    )
    for n in range(200):
        system.send(orders(f"frozen-{n}", 6))
        time.sleep(0.01 * (n % 10))
        worker.send(signal.SIGSTOP)
        time.sleep(0.05)  # what the server was still at is done by then
        if system.rows(locks):
            return
        worker.send(signal.SIGCONT)
    raise AssertionError("never caught in the middle of a transaction")


def test_a_frozen_worker_holds_nobody_up_and_sends_nothing_when_it_wakes(system: System) -> None:
    system.control("PATCH", "/accounts/znet-main", {"faults": [], "latency": {"kind": "constant", "ms": 1500}})
    frozen = system.start_worker()
    wait_until(lambda: owned(frozen) > 0, 60)
    system.send(orders("first", 30))
    wait_until(lambda: system.rows("select 1 from attempts where state = 'sending'"), 30)
    freeze_in_a_transaction(system, frozen)
    other = system.start_worker()
    wait_until(lambda: owned(other) > 0, 60)
    system.wait_for_ends(120)  # nothing waits for the frozen one, whose leases are long over by then
    frozen.send(signal.SIGCONT)
    check(system)
