"""A slow provider with a big backlog costs its own orders time and nothing else.

ORDERWATCH_BACKLOG sets how many orders wait for the slow provider; with ORDERWATCH_DRAIN=no the test ends without
letting them through when that provider is fast again.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest
import yaml
from confluent_kafka.admin import AdminClient

from tests.chaos.orders import assigned, order, owned
from tests.integration.conftest import Start
from tests.parts import Kafka
from tests.system import System
from tests.waiting import wait_until

BACKLOG = int(os.environ.get("ORDERWATCH_BACKLOG", "3000"))
DRAIN = os.environ.get("ORDERWATCH_DRAIN", "yes") == "yes"
SLOW_S = 5.0
SESSION_S, BATCH = 6, 500
#: Memory is flat when the whole backlog takes little more than so many orders do.
FEW = 1000
#: What waits comes back this often: at most about 150 orders per second, whatever the backlog.
BACK_AFTER_S = max(32, BACKLOG // 150)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300 + BACKLOG // 10)]


@pytest.fixture
def system(system_of: Start, kafka: Kafka) -> Iterator[System]:
    """znet answers after five seconds, barakat at once; both may be asked as often as one likes."""
    running = system_of(
        kafka.address,
        settings={
            "checks": {
                "first_after": "2s",
                "requeue_after": "2s",
                "sweep_every": "30s",
                "sweep_slack": "20s",
                "backoff": {"base": "2s", "factor": 2, "max": f"{BACK_AFTER_S}s"},
                "deadline": "3h",
            },
            "kafka": {"session_timeout": f"{SESSION_S}s", "rebalance_timeout": f"{SESSION_S}s"},
        },
    )
    document = yaml.safe_load(running.config_path.read_text("utf-8"))
    for integration in document["integrations"]:
        integration["limits"] = {"rate": "500/s", "concurrency": 50, "connect_timeout": "2s", "timeout": "15s"}
    running.config_path.write_text(yaml.safe_dump(document), encoding="utf-8")
    answer_after(running, "znet-main", SLOW_S)
    yield running


def answer_after(system: System, account: str, seconds: float) -> None:
    latency = {"kind": "constant", "ms": seconds * 1000}
    system.control("PATCH", f"/accounts/{account}", {"latency": latency, "balance": 10**9})


def waits(system: System, name: str, count: int, per_s: int = 10) -> list[float]:
    """Seconds from the shop to the provider, of ``count`` orders of the fast one, sent evenly."""
    sent_at: dict[str, float] = {}
    for number in range(count):
        one = order(f"{name}-{number}", "batch")
        sent_at[one.order_id] = time.time()
        system.send([one])
        time.sleep(1 / per_s)
    wanted = "select order_id, reference from attempts where order_id like :like and integration_id = 'barakat-1'"

    def bought() -> dict[str, float]:
        orders = {row["reference"]: row["order_id"] for row in system.rows(wanted, like=f"{name}-%")}
        ledger = system.control("GET", "/ledger?account=barakat-1")
        return {orders[row["reference"]]: row["executed_at_ns"] / 1e9 for row in ledger if row["reference"] in orders}

    at = wait_until(lambda: (found := bought()) and len(found) == count and found, 120)
    return [at[order_id] - sent for order_id, sent in sent_at.items()]


def memory_mb(worker: Any) -> float:
    text = Path(f"/proc/{worker.pid}/status").read_text("ascii")
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS"))) / 1024


def members(system: System) -> set[str]:
    """Ids of the members of the workers' group. One that polled too slowly comes back under another id."""
    group = f"{system.prefix}orderwatch"
    admin = AdminClient({"bootstrap.servers": system.broker})
    described = admin.describe_consumer_groups([group])[group].result(20)
    return {member.member_id for member in described.members}


def accepted(system: System) -> int:
    return int(system.rows("select count(*) as n from ledger_orders")[0]["n"])


def sent_to_the_slow_one(system: System) -> int:
    rows = system.rows("select count(*) as n from attempts where integration_id = 'znet-main' and sends > 0")
    return int(rows[0]["n"])


def test_a_backlog_at_a_slow_provider_costs_the_others_nothing(system: System) -> None:
    first = system.start_worker()
    owned(first)
    alone = waits(system, "alone", 40)
    before = members(system)
    memory: dict[int, float] = {}
    for start in range(0, BACKLOG, BATCH):
        end = min(start + BATCH, BACKLOG)
        system.send([order(f"slow-{number}", "sixty") for number in range(start, end)])
        if end in (FEW, BACKLOG) or end % 20_000 == 0:
            wait_until(lambda waiting=end: accepted(system) == waiting + len(alone), 120 + BACKLOG / 40)
            memory[end] = memory_mb(first)
    beside = waits(system, "beside", 60)
    left = BACKLOG - sent_to_the_slow_one(system)
    usual, slower = quantiles(alone, n=20), quantiles(beside, n=20)
    print(
        f"wait, median and 95th percentile: alone {usual[9]:.2f} {usual[18]:.2f} s,"
        f" beside {BACKLOG} that wait {slower[9]:.2f} {slower[18]:.2f} s;"
        f" memory in MB {', '.join(f'{at}: {mb:.0f}' for at, mb in memory.items())}, after that"
        f" {memory_mb(first):.0f}; {left} never sent yet"
    )
    assert left > 0, "the backlog was gone before the others were measured"
    assert slower[9] < usual[9] + 1, "orders of the fast provider wait longer beside a backlog"
    assert slower[18] < SLOW_S, "an order of the fast provider waited longer than a call of the slow one takes"
    assert memory_mb(first) < 1.3 * memory[FEW] + 30

    second = system.start_worker()
    wait_until(lambda: "_ConsumerThread]: Starting" in (system.directory / "worker-1.log").read_text("utf-8"), 90)
    joins_at = time.monotonic()
    wait_until(lambda: assigned(first) and assigned(second), SESSION_S + 10)
    print(f"a second worker had its part of the partitions after {time.monotonic() - joins_at:.1f} s")
    after = members(system)
    assert before <= after, "a member was thrown out"
    assert len(after) == 2

    if not DRAIN:
        return
    for account in ("znet-main", "barakat-1"):
        answer_after(system, account, 0.005)
    system.wait_for_ends(120 + BACK_AFTER_S + BACKLOG / 20)
    verdict = system.books()
    assert verdict.agree, verdict.differences[:10]
    assert members(system) >= after, "a member was thrown out"
