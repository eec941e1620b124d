"""Worker processes and what they stand on: bundled servers where the configuration wants them, schema, topics."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from agents.runtime.watchdog import STALLED
from db import identity, preflight, schema
from orderwatch.localservers.bundled import ROOM, Broker, Postgres, announce, free_port, running, withdraw
from orderwatch.support.config_check import loaded_with_checks
from orderwatch.support.session import database, wants_parts, with_parts
from orderwatch.support.terminal import say, warn
from orderwatch.worker.supervisor import become, keep
from streams import ledger_log
from streams.config.loader import EMBEDDED, Config, load, refuse_mixed
from streams.errors import BrokerRefused, BrokerUnavailable, ConfigError, StoreRefused, StoreUnavailable
from streams.kafka.producer import apply_topics, ping
from streams.topics import every

_PAUSE_S = 1.0

_T = TypeVar("_T")


def run(path: Path, processes: int, web_port: int, wait_s: float) -> int:
    """Run the workers until all have ended; 1 when one of them failed. Raises ``AppError`` before anything runs.

    Does not return where no bundled server has to be kept: then this process becomes the keeper.
    """
    with ExitStack() as stack:
        # PID 1 has no default action: it would go on waiting.
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _stop_waiting))
        config = loaded_with_checks(path)
        refuse_mixed(config)
        environ = dict(os.environ, ORDERWATCH_CONFIG=str(path.resolve()))
        bundled = wants_parts(config)
        if bundled:
            if processes > 1 and config.kafka.bootstrap_servers == EMBEDDED:
                warn("the bundled broker does not notice a killed worker: use one process with it, or a real broker")
            config = stack.enter_context(_bundled(config))
            environ["KAFKA_BOOTSTRAP_SERVERS"] = config.kafka.bootstrap_servers
            environ["DATABASE_URL"] = config.database.url.get_secret_value()
            _refuse_literal_embedded(path, environ)
        prepare(config, wait_s)
        ports = [web_port + number if web_port else free_port() for number in range(processes)]
        return (keep if bundled else become)(ports, environ, STALLED)


def _stop_waiting(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def prepare(config: Config, wait_s: float) -> None:
    """Bring schema and topics up to date; waits for servers that start at the same time."""
    give_up_at = time.monotonic() + wait_s
    with database(config) as engine:
        _answered(lambda: preflight.require(preflight.server_problems(engine)), give_up_at)
        _answered(lambda: schema.upgrade(engine), give_up_at)
        _answered(lambda: preflight.require(preflight.rights_problems(engine)), give_up_at)
    _answered(lambda: ping(config.kafka), give_up_at)
    for difference in _answered(lambda: apply_topics(config.kafka, every(config), settings=False), give_up_at):
        if not difference.applied:
            warn(f"{difference}: see `orderwatch topics apply --help`")
    with database(config) as engine:
        state = _answered(lambda: identity.read(engine), give_up_at)
    ledger_log.refuse_other(_answered(lambda: ledger_log.marks(config.kafka), give_up_at), state.identity)


def _answered(call: Callable[[], _T], give_up_at: float) -> _T:
    while True:
        try:
            return call()
        except (StoreRefused, BrokerRefused):
            raise
        except (StoreUnavailable, BrokerUnavailable) as error:
            if time.monotonic() + _PAUSE_S > give_up_at:
                raise
            warn(f"waiting: {error}")
            time.sleep(_PAUSE_S)


@contextmanager
def _bundled(config: Config) -> Iterator[Config]:
    """The configuration with the bundled servers that it wants, announced to other commands; ours end with us.

    Raises ``ConfigError`` where their directory cannot be written.
    """
    parts = running()
    if parts is not None:
        yield with_parts(config, parts)
        return
    try:
        ROOM.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{ROOM} cannot be created ({error.strerror}); expected a directory for the bundled servers: "
            "set ORDERWATCH_STATE_DIR"
        ) from None
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
