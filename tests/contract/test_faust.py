"""What Faust does that our design rests on; an upgrade may change each of these. On Apache Kafka."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.conftest import wait_until
from tests.parts import ROOT, Kafka

EVENTS = 6000
KILLS = 5


class Run:
    """One topic, and a worker that is started again and again on it."""

    def __init__(self, kafka: Kafka, directory: Path, events: int) -> None:
        self.kafka = kafka
        self.topic, self.group = f"t-{uuid4().hex[:8]}", f"g-{uuid4().hex[:8]}"
        self.events = events
        self._done = directory / "done"
        self._log = directory / "worker.log"
        self.admin = AdminClient({"bootstrap.servers": kafka.address})
        self.admin.create_topics([NewTopic(self.topic, 4, 1)])[self.topic].result(15)
        producer = Producer({"bootstrap.servers": kafka.address, "log_level": 0})
        for n in range(events):
            producer.produce(self.topic, b"%d" % n, partition=n % 4)
        assert producer.flush(30) == 0

    def done(self) -> list[tuple[int, int]]:
        """(partition, offset) of every completion; a kill may cut the last line."""
        if not self._done.exists():
            return []
        lines = [line.split() for line in self._done.read_text("utf-8").splitlines()]
        return [(int(line[0]), int(line[1])) for line in lines if len(line) == 2]

    def committed(self) -> int:
        """How many events the group counts as done."""
        asked = ConsumerGroupTopicPartitions(self.group, [TopicPartition(self.topic, n) for n in range(4)])
        found = self.admin.list_consumer_group_offsets([asked])[self.group].result(15).topic_partitions
        return sum(max(place.offset, 0) for place in found)

    def next_group(self) -> None:
        """Carry the commits into a fresh group: the session of a killed member would hold the old one for seconds."""
        asked = ConsumerGroupTopicPartitions(self.group, [TopicPartition(self.topic, n) for n in range(4)])
        found = self.admin.list_consumer_group_offsets([asked])[self.group].result(15).topic_partitions
        self.group = f"g-{uuid4().hex[:8]}"
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka.address,
                "group.id": self.group,
                "log_level": 0,
                "enable.auto.commit": False,
            }
        )
        if kept := [place for place in found if place.offset >= 0]:
            consumer.commit(offsets=kept, asynchronous=False)
        consumer.close()

    @contextmanager
    def worker(self, **environ: str) -> Iterator["subprocess.Popen[bytes]"]:
        settings = {"BROKER": self.kafka.address, "TOPIC": self.topic, "GROUP": self.group, "DONE": str(self._done)}
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "faust",
                    "-A",
                    "tests.contract.faust_pool",
                    "--datadir",
                    str(self._log.parent / "data"),
                    "worker",
                    "--without-web",
                    "-l",
                    "warn",
                ],
                cwd=ROOT,
                env=os.environ | settings | environ,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_no_event_is_lost_by_kills_while_many_are_in_flight(kafka: Kafka, tmp_path: Path) -> None:
    run = Run(kafka, tmp_path, EVENTS)
    random.seed(5)
    for _ in range(KILLS):
        before = len(run.done())
        with run.worker():
            wait_until(lambda: len(run.done()) > before + random.randint(1000, 2500), 60)  # noqa: B023 - used at once
        run.next_group()
    with run.worker():
        wait_until(lambda: run.committed() == EVENTS, 90)
    lost = {(n % 4, n // 4) for n in range(EVENTS)} - set(run.done())
    assert not lost, f"{len(lost)} events were acknowledged and never done"


def test_an_event_whose_handler_raised_is_acknowledged_and_not_seen_again(kafka: Kafka, tmp_path: Path) -> None:
    run = Run(kafka, tmp_path, 8)
    with run.worker(RAISING="1"):
        wait_until(lambda: run.committed() == 8, 60)
    assert run.done().count((0, 0)) == 1


def test_what_comes_during_a_burst_in_another_topic_is_read_before_its_end(kafka: Kafka, tmp_path: Path) -> None:
    run = Run(kafka, tmp_path, 2 * EVENTS)
    beside = f"{run.topic}-beside"
    run.admin.create_topics([NewTopic(beside, 4, 1)])[beside].result(15)
    producer = Producer({"bootstrap.servers": kafka.address, "log_level": 0})
    with run.worker(BESIDE=beside):
        wait_until(lambda: len(run.done()) > 0, 60)
        for n in range(4):
            producer.produce(beside, b"beside", partition=n)
        assert producer.flush(30) == 0
        wait_until(lambda: len(run.done()) == 2 * EVENTS + 4, 60)
    waited = [position for position, (partition, _) in enumerate(run.done()) if partition < 0]
    assert len(waited) == 4
    assert max(waited) < 1.5 * EVENTS
