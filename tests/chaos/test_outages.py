"""Rows 15, 16, 17, 18 and 22: a part is away or loses what it had; the workers hold, and go on by themselves."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from orderwatch.localservers.bundled import Postgres
from streams.kafka.producer import Outgoing, apply_topics, group_lag
from streams.topics import specs
from tests.chaos.orders import HOOKS, attention, order, orders, owned
from tests.integration.conftest import Start
from tests.malformed import raw_producer
from tests.parts import Kafka
from tests.system import System
from tests.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


def placements(system: System) -> int:
    return len(system.control("GET", "/requests?operation=place"))


def requests(system: System) -> int:
    return len(system.control("GET", "/requests?account=znet-main"))


def said(system: System, text: str) -> int:
    """How many lines of the workers' logs hold a text."""
    logs: list[Path] = sorted(system.directory.glob("worker-*.log"))
    return sum(text in line for log in logs for line in log.read_text(errors="replace").splitlines())


def behind(system: System) -> dict[Any, Any]:
    """Partitions of new orders -> their end, where something is not committed."""
    lags = group_lag(system.config.kafka, f"{system.prefix}orderwatch", ["orders.created"])
    return {place: end for place, (done, end) in lags.items() if end > (done or 0)}


def agreed(system: System) -> None:
    system.wait_for_ends(120)
    verdict = system.books()
    assert verdict.agree, "\n".join(verdict.differences[:20])
    assert not system.rows("select 1 from dead_letters")


def test_without_postgresql_nothing_is_sent_and_everything_goes_on_when_it_is_back(
    system_of: Start, kafka: Kafka, postgres: Postgres
) -> None:
    system = system_of(kafka.address)
    owned(system.start_worker())
    system.send(orders("before", 12))
    wait_until(lambda: placements(system) > 3, 60)
    postgres.stop(immediate=True)
    try:
        # All twelve may be on their way to the provider by now: then it is their answers that are held.
        wait_until(lambda: said(system, "event held") or said(system, "answer held"), 60)
        time.sleep(0.5)  # what had its lease before is answered by now
        settled = placements(system)
        held = said(system, '"agent": "dispatch"')
        system.send(orders("meanwhile", 12))
        wait_until(lambda: said(system, '"agent": "dispatch"') > held, 60)
        assert placements(system) == settled
    finally:
        postgres.start()
    agreed(system)


@pytest.mark.parametrize("how", ["kill_node", "stop_node"])
def test_a_broker_that_restarts_is_waited_for(system_of: Start, kafka: Kafka, how: str) -> None:
    system = system_of(kafka.address)
    owned(system.start_worker())
    system.send(orders("before", 30))
    wait_until(lambda: placements(system) > 3, 60)
    getattr(kafka, how)(1)
    kafka.start_node(1)
    system.send(orders("after", 30))
    agreed(system)


def test_a_broker_that_falls_silent_while_tables_are_recovered_is_waited_for(system_of: Start, kafka: Kafka) -> None:
    system = system_of(kafka.address)
    owned(system.start_worker(PYTHONPATH=HOOKS, CHAOS_SLOW_RECOVERY_S="4"))
    time.sleep(1)  # in the recovery, before its first question
    os.kill(kafka.pid_of(1), signal.SIGSTOP)
    try:
        time.sleep(system.config.kafka.session_timeout + 30 + 6)  # a request may last session_timeout + 30 s
    finally:
        os.kill(kafka.pid_of(1), signal.SIGCONT)
    system.send(orders("after", 12))
    agreed(system)
    assert said(system, "tables are recovered again")


@pytest.mark.parametrize("how", ["expired", "deleted"])
def test_checks_that_a_retry_topic_lost_are_asked_again_by_the_sweep(system_of: Start, kafka: Kafka, how: str) -> None:
    system = system_of(kafka.address, settings={"checks": {"first_after": "6s"}})
    first = system.start_worker()
    owned(first)
    system.send(orders("lost", 12))
    asleep = "select 1 from attempts where state = 'accepted' and checks = 0"
    wait_until(lambda: len(system.rows(asleep)) == 12, 60)
    wait_until(lambda: not behind(system), 30)  # an order that came again would tell its check again
    first.kill()  # it holds what it has read of the tier
    admin = AdminClient({"bootstrap.servers": kafka.address})
    tier = f"{system.prefix}orders.retry.6s"
    if how == "expired":
        ends = {TopicPartition(tier, partition, OFFSET_END) for partition in range(4)}
        for done in admin.delete_records(list(ends)).values():
            done.result(15)
    else:
        admin.delete_topics([tier])[tier].result(15)
        wait_until(lambda: tier not in admin.list_topics(timeout=10).topics, 30)
        apply_topics(system.config.kafka, specs(system.config))
    assert len(system.rows(asleep)) == 12, "they were asked about before their topic was gone"
    owned(system.start_worker())
    agreed(system)
    assert said(system, '"event": "swept"')


def accept(kafka: Kafka, topic: str, records_younger_than_ms: int) -> None:
    entry = ConfigEntry(
        "message.timestamp.before.max.ms", str(records_younger_than_ms), incremental_operation=AlterConfigOpType.SET
    )
    place = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka.address})
    admin.incremental_alter_configs([place])[place].result(15)


def test_an_event_whose_dead_letter_cannot_be_written_is_kept(system_of: Start, kafka: Kafka) -> None:
    system = system_of(kafka.address)
    first = system.start_worker()
    owned(first)
    accept(kafka, f"{system.prefix}orders.dead-letter", records_younger_than_ms=1)  # none is: every write is refused
    with raw_producer(system.config.kafka) as send:
        send([Outgoing("orders.created", b"bad", b"{", [])])

    wait_until(lambda: said(system, "dead letter held"), 60)
    assert len(behind(system)) == 1
    first.kill()
    held = said(system, "dead letter held")
    owned(system.start_worker())
    wait_until(lambda: said(system, "dead letter held") > held, 60)
    assert len(behind(system)) == 1 and not system.rows("select 1 from dead_letters")
    accept(kafka, f"{system.prefix}orders.dead-letter", records_younger_than_ms=3_600_000)
    wait_until(lambda: system.rows("select 1 from dead_letters where reason = 'malformed'"), 60)
    wait_until(lambda: not behind(system), 30)
    system.send([order("good")])
    system.wait_for_ends(60)


def test_orders_wait_while_the_account_is_locked_and_one_attention_tells_it(system_of: Start, kafka: Kafka) -> None:
    system = system_of(kafka.address)
    system.control("PATCH", "/accounts/znet-main", {"ip_allowed": False})
    owned(system.start_worker())
    system.send(orders("locked", 30, ["sixty"]))
    wait_until(lambda: attention(system, "access_refused"), 60)
    wait_until(lambda: len(system.rows("select 1 from attempts")) >= 30, 60)
    tried = requests(system)
    wait_until(lambda: requests(system) > tried, 60)  # the lane is tried again and again, and stays closed
    assert set(system.statuses().values()) <= {"not_sent", "unknown"}
    assert not system.control("GET", "/ledger"), "bought elsewhere, or after all"
    system.control("PATCH", "/accounts/znet-main", {"ip_allowed": True})
    system.wait_for_ends(120)
    verdict = system.books()
    assert verdict.agree and verdict.completed == 30, verdict.differences[:10]
    told = attention(system, "access_refused")
    assert len(told) == len({row["since"].hour for row in told}), "more than one in an hour"
