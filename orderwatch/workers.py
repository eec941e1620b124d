"""Worker processes and what they stand on: bundled servers where the configuration wants them, schema, topics."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

from agents.progress import STALLED
from db import schema
from orderwatch.config_commands import loaded_with_checks
from orderwatch.embedded import Broker, Postgres, announce, free_port, running, withdraw
from orderwatch.session import EMBEDDED, database, wants_parts, with_parts
from orderwatch.terminal import say, warn
from streams.config import Config, load
from streams.errors import BrokerUnavailable, ConfigError, StoreUnavailable
from streams.kafka import apply_topics, ping
from streams.topics import specs

ROOM = Path(".orderwatch")
_PAUSE_S = 1.0
_PR_SET_PDEATHSIG = 1

_T = TypeVar("_T")


def run(path: Path, processes: int, web_port: int, wait_s: float) -> int:
    """Run the workers until all have ended; 1 when one of them failed. Raises ``AppError`` before anything runs."""
    with ExitStack() as stack:
        asked = _Asked()
        config = loaded_with_checks(path)
        environ = dict(os.environ, ORDERWATCH_CONFIG=str(path.resolve()))
        if wants_parts(config):
            if processes > 1 and config.kafka.bootstrap_servers == EMBEDDED:
                warn("the bundled broker does not notice a killed worker: use one process with it, or a real broker")
            config = stack.enter_context(_bundled(config))
            environ["KAFKA_BOOTSTRAP_SERVERS"] = config.kafka.bootstrap_servers
            environ["DATABASE_URL"] = config.database.url.get_secret_value()
            _refuse_literal_embedded(path, environ)
        prepare(config, wait_s)
        stack.enter_context(asked)
        ports = [web_port + number if web_port else free_port() for number in range(processes)]
        children = [_start(environ, number, port) for number, port in enumerate(ports)]
        asked.forward_to(children)
        return _until_ended(children, asked, lambda number: _start(environ, number, ports[number]))


def prepare(config: Config, wait_s: float) -> None:
    """Bring schema and topics up to date; waits for servers that start at the same time."""
    give_up_at = time.monotonic() + wait_s
    with database(config) as engine:
        _answered(lambda: schema.upgrade(engine), give_up_at)
    _answered(lambda: ping(config.kafka), give_up_at)
    for difference in _answered(lambda: apply_topics(config.kafka, specs(config)), give_up_at):
        if not difference.applied:
            warn(f"{difference}: see `orderwatch topics apply --help`")


def _answered(call: Callable[[], _T], give_up_at: float) -> _T:
    while True:
        try:
            return call()
        except (StoreUnavailable, BrokerUnavailable) as error:
            if time.monotonic() + _PAUSE_S > give_up_at:
                raise
            warn(f"waiting: {error}")
            time.sleep(_PAUSE_S)


@contextmanager
def _bundled(config: Config) -> Iterator[Config]:
    """The configuration with the bundled servers that it wants, announced to other commands; ours end with us."""
    parts = running()
    if parts is not None:
        yield with_parts(config, parts)
        return
    with ExitStack() as stack:
        broker, url = config.kafka.bootstrap_servers, config.database.url.get_secret_value()
        if broker == EMBEDDED:
            broker = stack.enter_context(Broker(ROOM / "broker")).address
        if url == EMBEDDED:
            url = stack.enter_context(Postgres(ROOM / "postgres")).url
        parts = announce(broker, url)
        stack.callback(withdraw)
        say(f"bundled servers run, their data and logs are in {ROOM}")
        yield with_parts(config, parts)


def _refuse_literal_embedded(path: Path, environ: Mapping[str, str]) -> None:
    """The worker processes read the file themselves: they learn the addresses from the environment only."""
    if wants_parts(load(path, environ)):
        raise ConfigError(
            f"{path.name}: kafka.bootstrap_servers or database.url is embedded whatever the environment says;"
            " expected ${KAFKA_BOOTSTRAP_SERVERS:-embedded} and ${DATABASE_URL:-embedded}"
        )


class _Asked:
    """SIGTERM and SIGINT, handed on to the worker processes; a terminal's Ctrl-C reaches only us."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._before: dict[int, object] = {}

    def forward_to(self, children: list["subprocess.Popen[bytes]"]) -> None:
        """From now on; a signal that came meanwhile is handed on at once."""
        self._children = children
        if self.signal is not None:
            self._send(self.signal)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._send(number)

    def _send(self, number: int) -> None:
        for child in self._children:
            if child.poll() is None:
                child.send_signal(number)

    def __enter__(self) -> "_Asked":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def _start(environ: Mapping[str, str], number: int, port: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "faust", "-A", "streams.app", "worker", "-l", "info", "--web-port", str(port)]
    # Each process needs a data directory of its own; Faust makes the last part of the path only.
    ROOM.mkdir(exist_ok=True)
    own = {"ORDERWATCH_DATADIR": str(ROOM / f"faust-{number}"), "ORDERWATCH_WORKER_PORT": str(port)}
    return subprocess.Popen(  # noqa: S603 - the command is ours
        command, env={**environ, **own}, start_new_session=True, preexec_fn=_die_with_us(),
    )


def _die_with_us() -> Callable[[], None] | None:
    """Linux only: a worker is asked to stop when this process is killed."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _until_ended(children: list["subprocess.Popen[bytes]"], asked: _Asked,
                 start: Callable[[int], "subprocess.Popen[bytes]"]) -> int:  # fmt: skip
    """Wait for every process. One that found itself stuck is started again; one that fails otherwise is told about and
    not restarted: the others take its partitions over."""
    failed = False
    left = dict(enumerate(children))
    while left:
        for number, child in list(left.items()):
            try:
                status = child.wait(timeout=_PAUSE_S / len(left))
            except subprocess.TimeoutExpired:
                continue
            if status == STALLED and asked.signal is None:
                warn(f"worker process {number} (pid {child.pid}) made no progress and ended itself; starting it again")
                left[number] = children[number] = start(number)
                asked.forward_to(children)
                continue
            del left[number]
            wanted = asked.signal is not None and status in (0, -asked.signal, 128 + asked.signal)
            if status != 0 and not wanted:
                failed = True
                warn(f"worker process {number} (pid {child.pid}) ended with status {status}; {len(left)} left")
    return 1 if failed else 0

