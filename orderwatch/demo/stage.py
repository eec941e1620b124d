"""Everything the demo stands on: bundled servers, the simulated providers, one worker; in a directory of its own.

Nothing is taken from the caller's directory or environment but PATH, and every port is free, so demos do not collide.
"""

import json
import os
import secrets
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import yaml

from db import schema
from db.control import api_tokens, integration_state
from db.engine import connect
from orderwatch.demo.stopping import Stopping
from orderwatch.localservers.bundled import HOST, START_TIMEOUT_S, Broker, PartError, Postgres, free_port
from orderwatch.localservers.child_process import ChildProcess
from orderwatch.support.codes import fingerprint
from streams.config.loader import Config, load
from streams.errors import ConfigError
from streams.kafka.producer import apply_topics
from streams.seal import VARIABLE, Sealer, new_key
from streams.topics import every

ROOT = Path(__file__).parents[2]
SCENARIO = ROOT / "orderwatch" / "simulator" / "demo.yaml"
BY = "demo"

_PAUSE_S = 0.05
_GRACE_S = 5.0
_TAIL = 1500
_AT = "dashboard at "

_T = TypeVar("_T")


class Stage:
    """Made by ``open`` and ended by ``close``; ``say`` hears one line per part that is ready."""

    config: Config
    engine: sa.Engine

    def __init__(self, stopping: Stopping, say: Callable[[str], None]) -> None:
        self._stopping = stopping
        self._say = say
        self._parts = ExitStack()
        self._keys = new_key()
        self.sealer = Sealer([self._keys])
        self.worker: ChildProcess | None = None
        self._simulator: ChildProcess | None = None
        self._dashboard: ChildProcess | None = None
        self.control_url = ""
        self.directory = self._started(self._make_directory)
        self.config_path = self.directory / "config.yaml"

    def open(self, seed: int, rate: int) -> None:
        """Start everything but the worker; each account may be asked ``rate`` times a second. Raises ``AppError``."""
        broker = self._timed("broker (Tansu, in memory)", lambda: self._enter(Broker(self.directory / "broker")))
        database = self._timed("PostgreSQL", lambda: self._enter(Postgres(self.directory / "postgres", durable=False)))
        provider_url = self._timed("provider simulator, 4 accounts", lambda: self._start_simulator(seed))
        self._write_config(demo_config(broker.address, database.url, provider_url, rate))
        self.config = load(self.config_path, {})
        self.engine = connect(database.url)
        self._parts.callback(self.engine.dispose)
        self._timed("database schema", lambda: schema.upgrade(self.engine))
        self._timed("topics", lambda: apply_topics(self.config.kafka, every(self.config)))

    def start_worker(self) -> None:
        """As an operator would start it; it needs a few seconds to join its group."""
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            VARIABLE: self._keys,
            "ORDERWATCH_CONFIG": str(self.config_path),
            "ORDERWATCH_WORKER_PORT": str(free_port()),
        }
        command = [sys.executable, "-m", "faust", "-A", "streams.app", "worker", "-l", "info"]
        self.worker = self._started(lambda: self._leash(command, "worker.log", environ))

    def start_dashboard(self) -> None:
        """As an operator would start it; ``dashboard_link`` says where, once it listens."""
        command = [sys.executable, "-m", "orderwatch", "dashboard", "--host", HOST, "--port", "0"]
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            VARIABLE: self._keys,
            "ORDERWATCH_CONFIG": str(self.config_path),
        }
        self._dashboard = self._started(lambda: self._leash(command, "dashboard.log", environ))

    def dashboard_link(self) -> str:
        """Logs a person in, with a token that is good while the demo runs. Raises ``PartError``."""
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up_at:
            self.refuse_dead_parts()
            for line in (self.directory / "dashboard.log").read_text("utf-8", errors="replace").splitlines():
                if line.startswith(_AT):
                    token = api_tokens.create(self.engine, BY, api_tokens.SCOPES.keys(), None, BY, timedelta(days=1))
                    return f"{line.removeprefix(_AT)}/login#token={token.text}"
            time.sleep(_PAUSE_S)
        raise PartError("the dashboard did not start; see dashboard.log")

    def load_codes(self, tenant_id: str, group: str, codes: Iterable[str]) -> int:
        """Put codes into the stock, sealed; how many were new."""
        seal = self.sealer.seal
        key = self.sealer.open(integration_state.fingerprint_key(self.engine, seal, lambda: secrets.token_urlsafe(32)))
        sealed = [integration_state.SealedCode(seal(code), fingerprint(key, code)) for code in codes]
        return len(integration_state.load_codes(self.engine, tenant_id, group, sealed, BY))

    def control(self, method: str, path: str, body: object = None) -> Any:
        """The simulator's control API."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - our own server
            self.control_url + path, data, {"content-type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.loads(answer.read())

    def refuse_dead_parts(self) -> None:
        """Raises ``PartError`` with the end of its log when worker, simulator or dashboard has ended by itself."""
        parts = (("worker", self.worker), ("simulator", self._simulator), ("dashboard", self._dashboard))
        for name, part in parts:
            if part is not None and part.ended():
                tail = (self.directory / f"{name}.log").read_text("utf-8", errors="replace")[-_TAIL:]
                raise PartError(f"the {name} ended by itself; the end of its log:\n{tail}")

    def close(self, *, keep_files: bool) -> None:
        """End every process; with ``keep_files`` the directory stays, for its logs."""
        self._parts.close()
        if not keep_files:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _make_directory(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="orderwatch-demo-"))

    def _started(self, start: Callable[[], _T]) -> _T:
        with self._stopping.held():
            return start()

    def _timed(self, what: str, start: Callable[[], _T]) -> _T:
        began = time.monotonic()
        made = self._started(start)
        self._say(f"{what}: ready in {time.monotonic() - began:.1f} s")
        return made

    def _enter(self, part: Any) -> Any:
        return self._parts.enter_context(part)

    def _leash(self, command: list[str], log: str, environ: dict[str, str]) -> ChildProcess:
        process = ChildProcess(command, log=self.directory / log, grace_s=_GRACE_S, cwd=ROOT, env=environ)
        self._parts.callback(process.stop)
        return process

    def _start_simulator(self, seed: int) -> str:
        """Its first line of output says where it listens."""
        command = [sys.executable, "-m", "orderwatch.simulator", "--seed", str(seed), "--scenario", str(SCENARIO)]
        environ = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
        self._simulator = self._leash(command, "simulator.log", environ)
        log = self.directory / "simulator.log"
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up_at and not self._simulator.ended():
            for line in log.read_text("utf-8", errors="replace").splitlines(keepends=True):
                if line.startswith("{") and line.endswith("\n"):
                    said = json.loads(line)
                    self.control_url = said["control_url"]
                    return str(said["provider_url"])
            time.sleep(_PAUSE_S)
        raise PartError(f"the simulator did not start; the end of its log:\n{log.read_text('utf-8')[-_TAIL:]}")

    def _write_config(self, document: dict[str, Any]) -> None:
        self.config_path.touch(mode=0o600)  # the URL of the database holds a password
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        self.config_path.write_text(text, encoding="utf-8")


def _shipped() -> Path:
    """config.yaml of the checkout, or the copy that the wheel installed below ``share``."""
    checkout = ROOT / "config.yaml"
    if not checkout.exists():
        for file in metadata.files("orderwatch") or ():
            if file.parts[-2:] == ("orderwatch", checkout.name):
                return Path(str(file.locate()))
    return checkout


def demo_config(broker: str, database_url: str, provider_url: str, rate: int) -> dict[str, Any]:
    """The shipped config.yaml with these servers, and with seconds where a real shop has minutes."""
    shipped = _shipped()
    try:
        document: dict[str, Any] = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{shipped} cannot be read ({error.strerror}); the demo derives from it") from None
    document["kafka"] |= {"bootstrap_servers": broker, "session_timeout": "3s", "rebalance_timeout": "3s"}
    document["database"] = {"url": database_url}
    document["checks"] |= {
        "first_after": "500ms",
        "backoff": {"base": "500ms", "factor": 2, "max": "2s"},
        "requeue_after": "500ms",
        "sweep_every": "5s",
        "sweep_slack": "3s",
        "after_final": {"every": "1h", "until": "0s"},
    }
    document["dispatch"] = {"lease_margin": "1s"}
    document["worker"] = {"drain": "3s"}
    for integration in document["integrations"]:
        integration.pop("checks", None)
        integration["breaker"] = {"fail_max": 5, "reset_after": "2s", "slow_start": "2s"}
        if "base_url" not in integration:
            continue
        integration["base_url"] = f"{provider_url}/{integration['id']}"
        integration["limits"] = {"rate": f"{rate}/s", "concurrency": 50, "connect_timeout": "2s", "timeout": "5s"}
        integration["profile"] = {"absent_settle_s": 1, "absent_answers": 3, "absent_window_s": 2}
    return document
