"""What happens to a Kafka cluster that others use, grow, lose and restrict: nothing is bought that was never committed,
nothing waits unread, and what is wrong is said. On Apache Kafka."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from agents.bootstrap import group_lag
from streams.events import Created
from streams.kafka.offsets import records_left
from streams.kafka.producer import apply_topics, client_settings, message
from streams.topics import CREATED, every
from tests.integration.conftest import Start
from tests.parts import Kafka
from tests.system import System, http
from tests.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def orders(name: str, count: int) -> list[Created]:
    return [
        Created(
            order_id=f"{name}-{i}",
            tenant_id="shop",
            package_id="sixty",
            user_identifier=f"50000{i}",
            created_at=datetime.now(UTC),
        )
        for i in range(count)
    ]


def health(worker: Any) -> dict[str, Any]:
    try:
        return dict(http("GET", f"http://127.0.0.1:{worker.port}/health/"))
    except OSError as error:
        return {"assigned": 0, "error": str(error)}


def findings(system: System) -> list[dict[str, str]]:
    return list(json.loads(system.command("doctor", "--json").stdout)["findings"])


class Shop:
    """A shop that writes its orders in transactions."""

    def __init__(self, system: System, name: str) -> None:
        self._system = system
        self._producer = Producer(client_settings(system.config.kafka) | {"transactional.id": system.prefix + name})
        self._producer.init_transactions(20)

    def write(self, batch: Iterable[Created]) -> None:
        self._producer.begin_transaction()
        for order in batch:
            record = message(order, CREATED)
            self._producer.produce(self._system.prefix + CREATED, record.value, record.key, headers=record.headers)
        self._producer.flush(20)

    def commit(self) -> None:
        self._producer.commit_transaction(20)

    def abort(self) -> None:
        self._producer.abort_transaction(20)


def test_only_committed_orders_are_bought_and_markers_are_no_backlog(system_of: Start, kafka: Kafka) -> None:
    system = system_of(kafka.address, settings={"worker": {"stall_after": "8s"}})
    worker = system.start_worker()
    good, rolled_back, late = orders("committed", 8), orders("aborted", 8), orders("open", 8)
    shop, slow = Shop(system, "shop"), Shop(system, "slow")
    shop.write(good)
    shop.commit()
    shop.write(rolled_back)
    shop.abort()
    system.sent |= {(order.tenant_id, order.order_id) for order in good}
    system.wait_for_ends(60)
    slow.write(late)
    try:
        since = time.monotonic()
        wait_until(lambda: _watched(worker, since), 60)
        assert {key[1].partition("-")[0] for key in system.statuses()} == {"committed"}
        lags = group_lag(system.config.kafka, f"{system.prefix}orderwatch", [CREATED])
        assert any(committed is not None and committed < end for committed, end in lags.values()), "there are markers"
        assert not any(records_left(system.config.kafka, lags).values())
        [lag] = [item for item in findings(system) if item["check"] == "consumer lag"]
        assert (lag["verdict"], lag["finding"]) == ("ok", "0 records behind")
        assert "no progress" not in system.log_tail() and not worker.ended()
    finally:
        slow.commit()
    system.sent |= {(order.tenant_id, order.order_id) for order in late}
    system.wait_for_ends(60)
    assert not [key for key in system.statuses() if key[1].startswith("aborted")]


def _watched(worker: Any, since: float) -> bool:
    """The watchdog looked for longer than a partition may stand still: 13.5 s with these calls."""
    assert health(worker).get("stuck") == []
    return time.monotonic() - since > 25


def test_new_partitions_are_read_without_a_restart(system_of: Start, kafka: Kafka) -> None:
    system = system_of(kafka.address)
    workers = [system.start_worker(), system.start_worker()]
    wait_until(lambda: all(health(worker)["assigned"] for worker in workers), 90)
    wider = system.config.model_copy(update={"kafka": system.config.kafka.model_copy(update={"partitions": 8})})
    said = apply_topics(wider.kafka, every(wider), grow=True)
    assert {item.topic for item in said if item.applied} == {spec.name for spec in every(wider)}
    topics = 8 * len([name for name in ("created", "check", "command", "referenced", "status", "attention", "dead")])
    wait_until(lambda: sum(_partitions(worker) for worker in workers) >= topics, 60)
    system.send(orders("grown", 64))
    system.wait_for_ends(60)
    assert "PartitionsMismatch" not in system.log_tail() and not any(worker.ended() for worker in workers)


def _partitions(worker: Any) -> int:
    """Of the topics of the contract; changelogs apart."""
    text = subprocess.run(
        ["curl", "-s", f"http://127.0.0.1:{worker.port}/metrics/"], capture_output=True, text=True, check=False
    ).stdout
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in text.splitlines()
        if line.startswith("orderwatch_assigned_partitions{")
    )


def test_a_cluster_that_was_made_anew_is_noticed_and_read_from_its_beginning(
    system_of: Start, parts_directory: Path
) -> None:
    with Kafka(parts_directory / "kafka-lost") as cluster:
        system = system_of(cluster.address)
        workers = [system.start_worker(), system.start_worker()]
        system.send(orders("before", 120))
        system.wait_for_ends(60)
        cluster.kill_node(1)
        shutil.rmtree(cluster.directory)
        cluster.start()
        apply_topics(system.config.kafka, every(system.config))
        system.send(orders("after", 20))
        system.wait_for_ends(120)
        assert "made anew" in system.log_tail() or all(not health(worker).get("stuck") for worker in workers)
        verdict = {item["check"]: item for item in findings(system)}
        assert verdict["consumer lag"]["verdict"] == "ok"
        assert not [worker for worker in workers if worker.ended()]


def test_offsets_beyond_the_end_are_a_failure_of_the_doctor_and_a_start_begins_anew(
    system_of: Start, kafka: Kafka
) -> None:
    system = system_of(kafka.address)
    for group, topic in (("orderwatch", CREATED), ("orderwatch-delay", "orders.retry.500ms")):
        group_id = {"group.id": system.prefix + group, "enable.auto.commit": False}
        consumer = Consumer(client_settings(system.config.kafka) | group_id)
        consumer.commit(offsets=[TopicPartition(system.prefix + topic, p, 160) for p in range(4)], asynchronous=False)
        consumer.close()
    system.send(orders("anew", 40))
    failed = [item["finding"] for item in findings(system) if item["verdict"] == "fail"]
    assert any("orders.created [0]: 160 committed, but it ends at" in finding for finding in failed), failed
    assert any("orders.retry.500ms [0]: 160 committed, but it ends at 0" in finding for finding in failed), failed
    system.start_worker()
    system.wait_for_ends(60)
    assert "committed beyond the end" in system.log_tail()
    lags = group_lag(system.config.kafka, f"{system.prefix}orderwatch", [CREATED])
    assert all((committed or 0) <= end for committed, end in lags.values())


def test_variables_of_other_programs_change_nothing(system_of: Start, kafka: Kafka) -> None:
    system = system_of(kafka.address)
    system.start_worker(
        BROKER_URL="redis://redis:6379/0",
        WEB_PORT="tcp://10.96.0.14:80",
        CACHE_URL="redis://redis:6379/1",
        APP_ID="other",
        PROCESSING_GUARANTEE="exactly_once",
        TOPIC_PARTITIONS="1",
        STORE_URL="rocksdb://",
        CONSUMER_AUTO_OFFSET_RESET="latest",
        APP_DATADIR="/nowhere",
        TIMEZONE="Mars/Base",
        ENV_PREFIX="X",
        BROKER_CLIENT_ID="x",
        WEB_HOST="nowhere",
        BROKER_SESSION_TIMEOUT="never",
    )
    system.send(orders("quiet", 8))
    system.wait_for_ends(60)


def test_a_read_only_directory_and_no_home_are_enough_for_a_worker(system_of: Start, kafka: Kafka) -> None:
    system = system_of(kafka.address)
    system.start_worker(cwd=Path("/proc"), HOME="")
    system.send(orders("bare", 8))
    system.wait_for_ends(60)


def test_the_groups_carry_the_prefix(system_of: Start, kafka: Kafka) -> None:
    system = system_of(kafka.address)
    before = _groups(kafka)
    assert system.command("tail", CREATED, "--from-start", "--until-end").returncode == 0
    assert {group for group in _groups(kafka) - before if not group.startswith(system.prefix)} == set()


def _groups(kafka: Kafka) -> set[str]:
    admin = AdminClient({"bootstrap.servers": kafka.address})
    return {group.group_id for group in admin.list_consumer_groups().result(10).valid}
