"""Apache Kafka on loopback, out of Maven Central: brokers that a benchmark or a test can stop, kill and start again."""

import base64
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from orderwatch.localservers.bundled import HOST, PartError, free_port
from orderwatch.localservers.child_process import ChildProcess

ROOT = Path(__file__).parents[2]
POM = Path(__file__).parent / "kafka" / "pom.xml"
START_TIMEOUT_S = 180.0
HEAP = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC")
LOGGING = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")


class Kafka:
    """A KRaft cluster whose nodes are broker and controller at once; node numbers count from 1.

    Unclean leader election is off and topics are not made by accident. ``settings`` are added to every node's
    server.properties. The data is in ``directory``; a node that is started again has what it had.
    """

    def __init__(
        self,
        directory: Path,
        nodes: int = 1,
        *,
        replication_factor: int | None = None,
        min_in_sync: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.replication_factor = replication_factor or nodes
        self.min_in_sync = min_in_sync or max(1, self.replication_factor - 1)
        self._settings = dict(settings or {})
        self._ports = {node: (free_port(), free_port()) for node in range(1, nodes + 1)}
        self._running: dict[int, ChildProcess] = {}

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(self._ports)

    @property
    def address(self) -> str:
        """Bootstrap servers: all nodes, also those that are down."""
        return ",".join(self.address_of(node) for node in self._ports)

    def address_of(self, node: int) -> str:
        return f"{HOST}:{self._ports[node][0]}"

    def log_of(self, node: int) -> Path:
        return self.directory / f"node-{node}.log"

    def pid_of(self, node: int) -> int:
        """Process id of a running node."""
        return self._running[node].pid

    def start(self) -> Self:
        """Start every node; returns when each of them knows all the others."""
        self.directory.mkdir(parents=True, exist_ok=True)
        cluster_id = base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
        try:
            for node in self._ports:
                self._format(node, cluster_id)
            for node in self._ports:
                self._run(node)
            for node in self._ports:
                self._wait_for(node, len(self._ports))
        except BaseException:
            self.stop()
            raise
        return self

    def start_node(self, node: int) -> None:
        """Start a node that was stopped or killed; returns when it answers and is part of the cluster."""
        self._run(node)
        self._wait_for(node, len(self._running))

    def stop_node(self, node: int) -> None:
        """A controlled shutdown: leaders move away first."""
        self._running.pop(node).stop()

    def kill_node(self, node: int) -> None:
        """SIGKILL."""
        self._running.pop(node).kill()

    def stop(self) -> None:
        while self._running:
            self.kill_node(next(iter(self._running)))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _properties(self, node: int) -> dict[str, str]:
        client, controller = self._ports[node]
        voters = ",".join(f"{other}@{HOST}:{ports[1]}" for other, ports in self._ports.items())
        return {
            "node.id": str(node),
            "process.roles": "broker,controller",
            "listeners": f"PLAINTEXT://{HOST}:{client},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{client}",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": voters,
            "log.dirs": str(self.directory / f"node-{node}"),
            "auto.create.topics.enable": "false",
            "unclean.leader.election.enable": "false",
            "default.replication.factor": str(self.replication_factor),
            "min.insync.replicas": str(self.min_in_sync),
            "offsets.topic.replication.factor": str(self.replication_factor),
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": str(self.replication_factor),
            "transaction.state.log.min.isr": str(self.min_in_sync),
            "transaction.state.log.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            # a killed broker loses its leaderships after this, not after 9 s
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            **self._settings,
        }

    def _format(self, node: int, cluster_id: str) -> None:
        path = self.directory / f"node-{node}.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in self._properties(node).items()), "utf-8")
        done = subprocess.run(  # noqa: S603 - the command is ours
            [
                _java(),
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                *LOGGING,
                "-cp",
                f"{jars()}/*",
                "kafka.tools.StorageTool",
                "format",
                f"--cluster-id={cluster_id}",
                "-c",
                str(path),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PartError(f"Apache Kafka: formatting node {node} failed: {done.stdout}{done.stderr}")

    def _run(self, node: int) -> None:
        command = [
            _java(),
            *HEAP,
            *LOGGING,
            "-cp",
            f"{jars()}/*",
            "kafka.Kafka",
            str(self.directory / f"node-{node}.properties"),
        ]
        self._running[node] = ChildProcess(command, log=self.log_of(node), grace_s=30.0)

    def _wait_for(self, node: int, others: int) -> None:
        give_up_at = time.monotonic() + START_TIMEOUT_S
        admin = AdminClient(
            {"bootstrap.servers": self.address_of(node), "reconnect.backoff.max.ms": 200, "log_level": 0}
        )
        while time.monotonic() < give_up_at and not self._running[node].ended():
            try:
                known = admin.list_topics(timeout=2).brokers
            except KafkaException:
                continue
            if node in known and len(known) >= others:
                return
            time.sleep(0.05)
        tail = self.log_of(node).read_text("utf-8", errors="replace")[-2000:]
        raise PartError(f"Apache Kafka: node {node} did not start; the end of {self.log_of(node)}:\n{tail}")


def jars() -> Path:
    """Directory with the jars of kafka/pom.xml, fetched by Maven the first time."""
    wanted = ROOT / ".cache" / "kafka" / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    if wanted.exists():
        return wanted
    maven = shutil.which("mvn")
    if maven is None:
        raise PartError("Apache Kafka is fetched by Maven; no mvn on the PATH (Debian: apt install maven)")
    wanted.parent.mkdir(parents=True, exist_ok=True)
    with (wanted.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wanted.exists():
            with tempfile.TemporaryDirectory(dir=wanted.parent) as scratch:
                done = subprocess.run(  # noqa: S603 - the command is ours
                    [
                        maven,
                        "-q",
                        "-B",
                        "-f",
                        str(POM),
                        "dependency:copy-dependencies",
                        f"-DoutputDirectory={scratch}/lib",
                    ],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    raise PartError(f"Apache Kafka: mvn could not fetch it:\n{(done.stdout + done.stderr)[-4000:]}")
                os.rename(f"{scratch}/lib", wanted)
    return wanted


def _java() -> str:
    java = shutil.which("java")
    if java is None:
        raise PartError("Apache Kafka needs Java 17 or newer; no java on the PATH")
    return java
