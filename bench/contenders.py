"""Who is measured. Each contender is started, warmed up and asked how far it is in the same way."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any, Protocol

import sqlalchemy as sa
from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from bench import evidence
from bench.evidence import Evidence
from bench.stage import Scene
from orderwatch.localservers.apache_kafka import ROOT
from orderwatch.localservers.bundled import PartError
from streams.kafka.producer import client_settings, group_lag
from streams.topics import CREATED

WORKER = "worker"
_JOIN_TIMEOUT_S = 90.0
_PAUSE_S = 0.2


class Shop:
    """A shop's process that is placing orders. ``result`` waits for it."""

    def __init__(self, command: list[str], wish: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - the command is ours
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(environ)
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(wish))
        self._process.stdin.close()
        self._process.stdin = None

    def result(self) -> dict[str, Any]:
        """What it says at its end. Raises ``PartError`` when it failed or not every order was taken."""
        said, errors = self._process.communicate()
        if self._process.returncode:
            raise PartError(f"the shop failed: {errors[-2000:]}")
        answer: dict[str, Any] = json.loads(said)
        if answer.get("errors"):
            raise PartError(f"the shop could not place every order: {answer['errors'][0]}")
        return answer

    def kill(self) -> None:
        """When nobody waits for it any more."""
        self._process.kill()
        self._process.communicate()


class Contender(Protocol):
    """One way to do the work."""

    name: str

    def start(self, scene: Scene) -> None:
        """Start everything; orders may be placed when this returns."""

    def start_worker(self, scene: Scene, processes: int) -> None:
        """Start the workers again, after they ended."""

    def shop(self, scene: Scene, prefix: str, orders: int, rate: float) -> Shop:
        """Start to place so many orders, named ``prefix`` and a number."""

    def ended(self, scene: Scene, prefix: str) -> int:
        """How many of them have reached their end."""

    def settled(self, scene: Scene) -> bool:
        """Whether nothing is left to do for orders that have ended."""

    def records(self, scene: Scene) -> int:
        """Kafka records written for this run so far."""

    def evidence(self, scene: Scene, prefix: str) -> Evidence:
        """What is known about those orders."""

    def differences(self, scene: Scene, prefix: str, found: Evidence) -> list[str]:
        """What is wrong with the result; empty when every order was bought once and says so."""


class Orderwatch:
    """Ours, started as an operator does."""

    name = "orderwatch"

    def start(self, scene: Scene) -> None:
        scene.prepare_product()
        self.start_worker(scene, scene.options.workers)

    def start_worker(self, scene: Scene, processes: int) -> None:
        command = [
            sys.executable,
            "-m",
            "orderwatch",
            "worker",
            "--processes",
            str(processes),
            "--web-port",
            "0",
            "--config",
            str(scene.config_path),
        ]
        scene.start(WORKER, command, scene.stage.environ(PYTHONPATH=str(ROOT)))
        _until_joined(scene, processes)

    def shop(self, scene: Scene, prefix: str, orders: int, rate: float) -> Shop:
        options = asdict(replace(scene.options, orders=orders, rate=rate))
        wish = {"config": str(scene.config_path), "prefix": prefix, "options": options}
        command = [sys.executable, "-m", "bench.shop"]
        return Shop(command, wish, scene.stage.environ(PYTHONPATH=str(ROOT)))

    def ended(self, scene: Scene, prefix: str) -> int:
        with scene.engine.connect() as connection:
            return int(connection.execute(_ENDED, {"first": prefix, "last": prefix + "~"}).scalar_one())

    def settled(self, scene: Scene) -> bool:
        return lag(scene) == 0

    def records(self, scene: Scene) -> int:
        return evidence.records(scene)

    def evidence(self, scene: Scene, prefix: str) -> Evidence:
        return evidence.of_ours(scene, prefix)

    def differences(self, scene: Scene, prefix: str, found: Evidence) -> list[str]:
        return evidence.books(scene, prefix, found).differences


_ENDED = sa.text(
    "select count(*) filter (where finished_at is not null) from ledger_orders"
    " where tenant_id = 'shop' and order_id >= :first and order_id < :last"
)
GROUPS = {
    "orderwatch": (
        CREATED,
        "orders.check",
        "orders.referenced",
        "orders.status-changed",
        "orders.attention",
        "orders.dead-letter",
    )
}


def _until_joined(scene: Scene, processes: int) -> None:
    """Returns when so many workers share the partitions of the orders."""
    admin = AdminClient(client_settings(scene.config.kafka))
    group = f"{scene.config.kafka.topic_prefix}orderwatch"
    give_up_at = time.monotonic() + _JOIN_TIMEOUT_S
    while time.monotonic() < give_up_at:
        scene.refuse_dead()
        with suppress(KafkaException):  # a group that nobody has asked for yet has no coordinator
            found = admin.describe_consumer_groups([group])[group].result(10)
            owners = [member for member in found.members if member.assignment.topic_partitions]
            if found.state is ConsumerGroupState.STABLE and len(owners) == processes:
                return
        time.sleep(_PAUSE_S)
    raise PartError(f"{processes} workers did not share the work after {_JOIN_TIMEOUT_S:g} s")


def lag(scene: Scene) -> int:
    """Records that our workers have not committed yet."""
    prefix = scene.config.kafka.topic_prefix
    behind = 0
    for group, names in GROUPS.items():
        for committed, end in group_lag(scene.config.kafka, prefix + group, names).values():
            behind += end - (committed or 0)
    return behind


@contextmanager
def placing(contender: Contender, scene: Scene, prefix: str, orders: int, rate: float) -> Iterator[Shop]:
    """A shop that is gone at the end of the block, whatever happened in it."""
    shop = contender.shop(scene, prefix, orders, rate)
    try:
        yield shop
    finally:
        shop.kill()
