"""A whole Orderwatch for one test: simulator, workers in their own processes, the shop's producer, the four books."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import sqlalchemy as sa
import yaml
from confluent_kafka import Consumer, TopicPartition

from orderwatch.localservers.bundled import free_port
from orderwatch.localservers.child_process import ChildProcess
from orderwatch.reconcile import Books, Bought, Verdict, compare, from_ledger
from streams.clients import OrderProducer
from streams.config.loader import Config, load
from streams.events import Created, StatusChanged, decode
from streams.kafka.producer import apply_topics, client_settings
from streams.seal import new_key
from streams.topics import every

ROOT = Path(__file__).parents[1]
_PAUSE_S = 0.1


def http(method: str, url: str, body: Any = None) -> Any:
    """One request to a server of ours on this machine, JSON in and out."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


@dataclass
class System:
    """Broker and database are given; everything else is started here and ends with the test.

    ``settings`` overrides blocks of the configuration; ``scenario`` is the simulator's.
    """

    directory: Path
    broker: str
    database: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    scenario: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.prefix = f"t{uuid4().hex[:8]}."
        self.sent: set[tuple[str, str]] = set()
        self.units: dict[tuple[str, str], int] = {}
        self.workers: list[ChildProcess] = []
        self.pin_keys = new_key()

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._start_simulator()
        document = {
            "kafka": {
                "bootstrap_servers": self.broker,
                "topic_prefix": self.prefix,
                "partitions": 4,
                "session_timeout": "6s",
                "rebalance_timeout": "6s",
            },
            "database": {"url": self.database},
            "checks": {
                "first_after": "500ms",
                "requeue_after": "500ms",
                "sweep_every": "3s",
                "sweep_slack": "2s",
                "backoff": {"base": "500ms", "factor": 2, "max": "2s"},
                "deadline": "10m",
                "long_pending_after": ["60s"],
                "after_final": {"every": "2s", "until": "0s"},
            },
            "dispatch": {"lease_margin": "1s"},
            "worker": {"config_poll": "500ms", "drain": "10s"},
            **_catalogue(self.simulator["provider_url"]),
        }
        for block, values in self.settings.items():
            document[block] = {**document.get(block, {}), **values} if isinstance(values, Mapping) else values
        self.config_path = self.directory / "config.yaml"
        self.config_path.write_text(yaml.safe_dump(document), encoding="utf-8")
        self.config: Config = load(self.config_path, self.environ)
        apply_topics(self.config.kafka, every(self.config))
        self.engine = sa.create_engine(self.database, poolclass=sa.NullPool)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill()
        self._simulator.terminate()
        self._simulator.wait(10)
        self._simulator_log.close()
        self.engine.dispose()

    def _start_simulator(self) -> None:
        path = self.directory / "scenario.yaml"
        path.write_text(yaml.safe_dump(dict(self.scenario) or _scenario()), encoding="utf-8")
        self._simulator_log = (self.directory / "simulator.log").open("wb")
        self._simulator = subprocess.Popen(
            [sys.executable, "-m", "orderwatch.simulator", "--seed", "7", "--scenario", str(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._simulator_log,
        )
        assert self._simulator.stdout is not None
        with self._simulator.stdout as output:
            self.simulator = json.loads(output.readline())

    def start_worker(self, *, cwd: Path = ROOT, **environ: str) -> ChildProcess:
        """One more worker process; started with `python -m faust` in ``cwd``, as an operator would."""
        number = len(self.workers)
        env = {
            **os.environ,
            "ORDERWATCH_CONFIG": str(self.config_path),
            "ORDERWATCH_PIN_KEYS": self.pin_keys,
            "ORDERWATCH_WORKER_PORT": str(free_port()),
            **self.environ,
            **environ,
        }
        worker = ChildProcess(
            [sys.executable, "-m", "faust", "-A", "streams.app", "worker", "-l", "info"],
            log=self.directory / f"worker-{number}.log",
            cwd=cwd,
            env=env,
        )
        worker.port = int(env["ORDERWATCH_WORKER_PORT"])  # type: ignore[attr-defined]
        self.workers.append(worker)
        return worker

    def command(self, *words: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
        """One command of an operator named ayse, and what it wrote."""
        env = {
            **os.environ,
            "ORDERWATCH_CONFIG": str(self.config_path),
            "ORDERWATCH_PIN_KEYS": self.pin_keys,
            "USER": "ayse",
        }
        return subprocess.run(
            [sys.executable, "-m", "orderwatch", *words],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def stop_worker(self, worker: ChildProcess, number: signal.Signals = signal.SIGTERM, timeout_s: float = 40) -> None:
        """Send the signal and wait until the process is gone."""
        worker.send(number)
        give_up_at = time.monotonic() + timeout_s
        while not worker.ended():
            assert time.monotonic() < give_up_at, "the worker did not stop"
            time.sleep(_PAUSE_S)

    def send(self, orders: Iterable[Created]) -> None:
        """The shop sends orders; repeats are repeats."""
        batch = list(orders)
        with OrderProducer(self.config.kafka) as producer:
            results = list(producer.place_many(batch))
        assert not [result for result in results if getattr(result, "error", None)], results
        for order in batch:
            self.sent.add((order.tenant_id, order.order_id))
            self.units[order.tenant_id, order.order_id] = order.quantity

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """The simulator's control API."""
        return http(method, self.simulator["control_url"] + path, body)

    def rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        """What PostgreSQL says."""
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(sa.text(statement), values)]

    def statuses(self) -> dict[tuple[str, str], str]:
        """(tenant, order) -> external status in the ``orders`` view."""
        found = self.rows("select tenant_id, order_id, external_status from orders")
        return {(row["tenant_id"], row["order_id"]): row["external_status"] for row in found}

    def wait_for_ends(self, timeout_s: float, open_allowed: Iterable[tuple[str, str]] = ()) -> None:
        """Until every order that was sent has reached its end in the ``orders`` view."""
        allowed = set(open_allowed)
        give_up_at = time.monotonic() + timeout_s
        while True:
            statuses = self.statuses()
            left = [key for key in self.sent - allowed if statuses.get(key) not in ("completed", "failed")]
            if not left:
                return
            if time.monotonic() > give_up_at:
                sample = {key: statuses.get(key, "missing") for key in sorted(left)[:10]}
                raise AssertionError(f"{len(left)} orders did not end, such as {sample}\n{self.log_tail()}")
            time.sleep(_PAUSE_S)

    def log_tail(self) -> str:
        """The ends of the workers' logs."""
        logs = sorted(self.directory.glob("worker-*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def read(self, topic: str) -> list[Any]:
        """Every record of a topic, from the beginning to its end."""
        consumer = Consumer(
            client_settings(self.config.kafka)
            | {
                "group.id": f"test-{uuid4().hex}",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
            }
        )
        name = self.prefix + topic
        partitions = list(consumer.list_topics(name, timeout=10).topics[name].partitions)
        consumer.assign([TopicPartition(name, partition, 0) for partition in partitions])
        found, ended = [], 0
        try:
            while ended < len(partitions):
                record = consumer.poll(10)
                assert record is not None, f"{name} could not be read to its end"
                if record.error():
                    ended += 1
                else:
                    found.append(record)
        finally:
            consumer.close()
        return found

    def topic_statuses(self) -> dict[tuple[str, str], str]:
        """(tenant, order) -> external status of the newest version on the status topic."""
        newest: dict[tuple[str, str], StatusChanged] = {}
        for record in self.read("orders.status-changed"):
            change = decode(StatusChanged, record.value())
            key = (change.tenant_id, change.order_id)
            if key not in newest or change.version > newest[key].version:
                newest[key] = change
        return {key: change.external_status for key, change in newest.items()}

    def _codes_given(self) -> list[Bought]:
        """Our own stock is the provider's book of the ``codes`` integration."""
        given = self.rows("select reference, count(*) as n from codes where reference is not null group by reference")
        return [Bought("codes-1", row["reference"], 1, "success", row["n"]) for row in given]

    def books(self, open_allowed: Iterable[tuple[str, str]] = ()) -> Verdict:
        """Compare the four books now."""
        attempts = self.rows("select tenant_id, order_id, line, reference, state from attempts")
        books = Books(
            sent=self.sent,
            bought=[*from_ledger(self.control("GET", "/ledger")), *self._codes_given()],
            orders=self.statuses(),
            attempts={
                row["reference"]: ((row["tenant_id"], row["order_id"]), row["line"], row["state"]) for row in attempts
            },
            topic=self.topic_statuses(),
            units=self.units,
        )
        return compare(books, open_allowed=open_allowed)


def remove(directory: Path) -> None:
    """Clean up what a system left on disk."""
    shutil.rmtree(directory, ignore_errors=True)


def _scenario() -> dict[str, Any]:
    znet = {
        "kind": "znet",
        "currency": "TRY",
        "switches": {"repeat": "accept-again"},  # a placement that is sent twice is bought twice
        "balance": 1000000,
        "credentials": {"kod": "demo", "sifre": "demo"},
        "life": {"after_checks": 1},
        "latency": {"kind": "constant", "ms": 5},
    }
    return {
        "accounts": [
            {
                **znet,
                "id": "znet-main",
                "catalogue": [
                    {"id": "1", "name": "Sixty", "oyun": "1", "kupur": "60", "price": "10.00"},
                    {"id": "2", "name": "Gone", "oyun": "1", "kupur": "99", "price": "10.00", "available": False},
                ],
            },
            {
                "id": "barakat-1",
                "kind": "zdk",
                "currency": "USD",
                "balance": 1000000,
                "credentials": {"token": "demo"},
                "life": {"after_checks": 1},
                "latency": {"kind": "constant", "ms": 5},
                "catalogue": [
                    {"id": "10", "name": "Sixty", "price": "0.90", "qty_values": {"min": 1, "max": 9}},
                    {"id": "20", "name": "Gone", "price": "0.90"},
                ],
            },
        ]
    }


def _catalogue(provider_url: str) -> dict[str, Any]:
    limits = {"rate": "1000/s", "concurrency": 50, "connect_timeout": "1s", "timeout": "2s"}
    breaker = {"fail_max": 50, "reset_after": "1s", "slow_start": "0s", "refusals_max": 1000}
    common = {"tenant_id": "shop", "limits": limits, "breaker": breaker}
    return {
        "integrations": [
            {
                **common,
                "id": "znet-main",
                "provider": "znet",
                "currency": "TRY",
                "base_url": f"{provider_url}/znet-main",
                "credentials": {"kod": "${ZNET_KOD:-demo}", "sifre": "${ZNET_SIFRE:-demo}"},
                "profile": {"absent_settle_s": 1, "absent_answers": 3, "absent_window_s": 2},
            },
            {
                **common,
                "id": "barakat-1",
                "provider": "barakat",
                "currency": "USD",
                "base_url": f"{provider_url}/barakat-1",
                "credentials": {"token": "${BARAKAT_TOKEN:-demo}"},
                "profile": {"absent_settle_s": 1, "absent_answers": 2, "absent_window_s": 1},
            },
            {**common, "id": "codes-1", "provider": "codes", "options": {"low_stock": 2}},
        ],
        "routes": [
            {
                "tenant_id": "shop",
                "package_id": "sixty",
                "mode": "auto",
                "provider_type": "external",
                "primary": "znet-main",
                "fallback": "barakat-1",
            },
            {
                "tenant_id": "shop",
                "package_id": "gone",
                "mode": "auto",
                "provider_type": "external",
                "primary": "znet-main",
                "fallback": "barakat-1",
            },
            {
                "tenant_id": "shop",
                "package_id": "batch",
                "mode": "auto",
                "provider_type": "external",
                "primary": "barakat-1",
            },
            {"tenant_id": "shop", "package_id": "by-hand", "mode": "manual", "provider_type": "manual"},
            {"tenant_id": "shop", "package_id": "card", "mode": "auto", "provider_type": "codes", "primary": "codes-1"},
        ],
        "mappings": [
            {
                "tenant_id": "shop",
                "package_id": "sixty",
                "integration": "znet-main",
                "provider_package_id": "1",
                "oyun": "1",
                "kupur": "60",
                "delivers_pin": True,
            },
            {
                "tenant_id": "shop",
                "package_id": "sixty",
                "integration": "barakat-1",
                "provider_package_id": "10",
                "delivers_pin": True,
            },
            {
                "tenant_id": "shop",
                "package_id": "gone",
                "integration": "znet-main",
                "provider_package_id": "2",
                "oyun": "1",
                "kupur": "99",
                "delivers_pin": True,
            },
            {
                "tenant_id": "shop",
                "package_id": "gone",
                "integration": "barakat-1",
                "provider_package_id": "20",
                "delivers_pin": True,
            },
            {
                "tenant_id": "shop",
                "package_id": "batch",
                "integration": "barakat-1",
                "provider_package_id": "10",
                "delivers_pin": True,
            },
            {
                "tenant_id": "shop",
                "package_id": "card",
                "integration": "codes-1",
                "provider_package_id": "card",
                "code_group": "cards",
                "delivers_pin": True,
            },
        ],
    }
