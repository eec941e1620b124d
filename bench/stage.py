"""What every benchmark stands on: Apache Kafka, PostgreSQL with default durability, the simulator; on 127.0.0.1.

Broker and database live as long as a ``Stage`` and are warm from the second run on; each run has topics, a database
and a simulator of its own. Everything ends with the process that made the stage.
"""

import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import sqlalchemy as sa
import yaml

from bench.options import ACCESS, Options, config, scenario
from db import schema
from db.engine import connect
from orderwatch.localservers.apache_kafka import ROOT, Kafka
from orderwatch.localservers.bundled import START_TIMEOUT_S, PartError, Postgres
from orderwatch.localservers.child_process import ChildProcess
from streams.config.loader import Config, load
from streams.kafka.producer import apply_topics
from streams.seal import VARIABLE, new_key
from streams.topics import specs

_PAUSE_S = 0.05
_TAIL = 2000
_HTTP_TIMEOUT_S = 120.0


class Stage:
    """A broker and a database server in a directory of their own, which ``keep`` leaves there for its logs."""

    def __init__(self, *, keep: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="orderwatch-bench-"))
        self.kafka = Kafka(
            self.directory / "kafka",
            # the broker's clock on every record, so that an append can be compared with what came of it
            settings={"log.message.timestamp.type": "LogAppendTime", "group.max.session.timeout.ms": "60000"},
        )
        self.postgres = Postgres(self.directory / "postgres")
        self.keys = new_key()
        self._keep = keep
        self._parts = ExitStack()
        self._runs = 0

    def __enter__(self) -> Self:
        try:
            self._parts.enter_context(self.kafka)
            self._parts.enter_context(self.postgres)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.close()
        if not self._keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def environ(self, **more: str) -> dict[str, str]:
        """For the processes of a run: nothing of the caller's but PATH."""
        return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", VARIABLE: self.keys, **ACCESS, **more}

    def scene(self, options: Options) -> "Scene":
        """A fresh place for one run; enter it."""
        self._runs += 1
        return Scene(self, f"r{self._runs}", options)


class Scene:
    """One run's topics, database, simulator and processes."""

    config: Config
    engine: sa.Engine

    def __init__(self, stage: Stage, name: str, options: Options) -> None:
        self.stage = stage
        self.name = name
        self.options = options
        self.directory = stage.directory / name
        self.config_path = self.directory / "config.yaml"
        self.database = stage.postgres.url_of(name)
        self.provider_url = self.control_url = ""
        self._parts = ExitStack()
        self._processes: dict[str, list[ChildProcess]] = {}

    def __enter__(self) -> Self:
        self.directory.mkdir()
        try:
            self._create_database()
            self.engine = connect(self.database, 2)
            self._parts.callback(self.engine.dispose)
            self.start_simulator()
            document = config(self.options, self.stage.kafka.address, f"{self.name}.", self.database, self.provider_url)
            self._write("config.yaml", document)
            self.config = load(self.config_path, ACCESS)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.close()
        if not self.stage._keep:
            self._run_sql(f'drop database if exists "{self.name}" with (force)')

    def prepare_product(self) -> None:
        """Our schema and our topics."""
        schema.upgrade(self.engine)
        apply_topics(self.config.kafka, specs(self.config))

    def start(
        self, name: str, command: Sequence[str], environ: Mapping[str, str], *, grace_s: float = 30.0
    ) -> ChildProcess:
        """A process of this run, measured under ``name``; its output goes to the run's ``name``.log."""
        process = ChildProcess(
            command, log=self.directory / f"{name}.log", cwd=self.directory, env=environ, grace_s=grace_s
        )
        self._parts.callback(_end, process)
        self._processes.setdefault(name, []).append(process)
        return process

    def stop(self, name: str) -> None:
        """End the processes of that name."""
        for process in self._processes.pop(name, []):
            _end(process)

    def roots(self) -> dict[str, list[int]]:
        """Name -> process ids, the servers among them."""
        ours = {name: [p.pid for p in found if not p.ended()] for name, found in self._processes.items()}
        return {**ours, "broker": [self.stage.kafka.pid_of(1)], "PostgreSQL": [self.stage.postgres.pid]}

    def refuse_dead(self) -> None:
        """Raises ``PartError`` with the end of its log when a process of this run has ended by itself."""
        for name, found in self._processes.items():
            if any(process.ended() for process in found):
                raise PartError(f"the {name} ended by itself; the end of its log:\n{self.log_tail(name)}")

    def log_tail(self, name: str) -> str:
        """The end of what a process said."""
        return (self.directory / f"{name}.log").read_text("utf-8", errors="replace")[-_TAIL:]

    def control(self, method: str, path: str, body: object = None) -> Any:
        """The simulator's control API."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - our own server
            self.control_url + path, data, {"content-type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=_HTTP_TIMEOUT_S) as answer:  # noqa: S310
            return json.loads(answer.read())

    def start_simulator(self) -> None:
        """Its first line of output says where it listens."""
        self._write("scenario.yaml", scenario(self.options))
        command = [sys.executable, "-m", "orderwatch.simulator", "--scenario", str(self.directory / "scenario.yaml")]
        process = self.start("simulator", command, self.stage.environ(PYTHONPATH=str(ROOT)))
        log = self.directory / "simulator.log"
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up_at and not process.ended():
            for line in log.read_text("utf-8", errors="replace").splitlines(keepends=True):
                if line.startswith("{") and line.endswith("\n"):
                    said = json.loads(line)
                    self.control_url, self.provider_url = said["control_url"], said["provider_url"]
                    return
            time.sleep(_PAUSE_S)
        raise PartError(f"the simulator did not start; the end of its log:\n{self.log_tail('simulator')}")

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        path = self.directory / name
        path.touch(mode=0o600)  # the URL of the database holds a password
        path.write_text(yaml.safe_dump(dict(document), sort_keys=False), encoding="utf-8")

    def _create_database(self) -> None:
        self._run_sql(f'create database "{self.name}"')

    def _run_sql(self, statement: str) -> None:
        server = sa.create_engine(self.stage.postgres.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with server.connect() as connection:
            connection.execute(sa.text(statement))


def _end(process: ChildProcess) -> None:
    """Stop a process, and kill what it started and left behind: a worker whose broker is gone may hang on."""
    below: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        below = psutil.Process(process.pid).children(recursive=True)
    process.stop()
    for child in below:
        with suppress(psutil.NoSuchProcess):
            child.kill()
