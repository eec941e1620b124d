"""The parts of a chaos run: three brokers, PostgreSQL, simulator, workers, and a breakable network between them.

Each worker has a slot; everything it connects to is reached through proxies of its slot, so that one worker can lose
its database, its provider or its brokers while the others keep theirs.
"""

import contextlib
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from db import schema
from orderwatch.localservers.bundled import HOST, Postgres, free_port
from orderwatch.localservers.child_process import ChildProcess
from tests.chaos import market
from tests.chaos.orders import HOOKS
from tests.parts import Kafka
from tests.planted import CREDENTIALS
from tests.proxy import Proxy
from tests.system import ROOT, System, http

SLOTS = (0, 1, 2)
ACCOUNTS = ("znet-main", "barakat-1")
THIS, NEXT = "this release", "the next release"


class Cluster(Kafka):
    """Three brokers with one more listener per slot, which is advertised as the slot's proxy."""

    def __init__(self, directory: Path, slots: tuple[int, ...] = SLOTS) -> None:
        super().__init__(directory, 3, replication_factor=3, min_in_sync=2)
        self._inside = {(node, slot): free_port() for node in self.nodes for slot in slots}
        self.proxies = {place: Proxy(port) for place, port in self._inside.items()}

    def start(self) -> Self:
        for proxy in self.proxies.values():
            proxy.start()
        return super().start()

    def stop(self) -> None:
        super().stop()
        while self.proxies:
            self.proxies.popitem()[1].stop()

    def seen_from(self, slot: int) -> str:
        """Bootstrap servers of a slot."""
        return ",".join(proxy.address for (_, there), proxy in self.proxies.items() if there == slot)

    def _properties(self, node: int) -> dict[str, str]:
        plain = super()._properties(node)
        slots = [slot for there, slot in self._inside if there == node]
        inside = [f"SLOT{slot}://{HOST}:{self._inside[node, slot]}" for slot in slots]
        outside = [f"SLOT{slot}://{self.proxies[node, slot].address}" for slot in slots]
        names = ["PLAINTEXT", "CONTROLLER", *(f"SLOT{slot}" for slot in slots)]
        return plain | {
            "listeners": ",".join([plain["listeners"], *inside]),
            "advertised.listeners": ",".join([plain["advertised.listeners"], *outside]),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in names),
            "inter.broker.listener.name": "PLAINTEXT",
        }


class Stage(System):
    """A system whose workers live in slots. ``postgres`` and ``cluster`` are started by ``opened``."""

    def __init__(
        self,
        directory: Path,
        cluster: Cluster,
        postgres: Postgres,
        scenario: Mapping[str, Any] | None = None,
        **overrides: Mapping[str, Any],
    ) -> None:
        self.cluster = cluster
        self.postgres = postgres
        self.databases = {slot: Proxy(postgres.port).start() for slot in SLOTS}
        self.providers = {(account, slot): Proxy().start() for account in ACCOUNTS for slot in SLOTS}
        self.at: dict[int, ChildProcess] = {}
        self.release = THIS
        #: The release of each worker that was started.
        self.started: list[str] = []
        direct = {name: f"http://{self.providers[name, 0].address}/{name}" for name in ACCOUNTS}
        urls = {name: "${" + _variable(name) + ":-" + url + "}" for name, url in direct.items()}
        settings: dict[str, Any] = {
            "kafka": {
                "bootstrap_servers": "${CHAOS_BROKERS:-" + cluster.address + "}",
                "replication_factor": 3,
                "session_timeout": "6s",
                "rebalance_timeout": "10s",
            },
            "database": {"url": "${CHAOS_DATABASE:-" + postgres.url + "}"},
            "checks": {
                "first_after": "1s",
                "requeue_after": "1s",
                "sweep_every": "10s",
                "sweep_slack": "8s",
                "backoff": {"base": "1s", "factor": 2, "max": "8s"},
                "deadline": "2h",
                "long_pending_after": ["2m"],
            },
            "dispatch": {"lease_margin": "2s"},  # a lease of 5 s: shorter than any freeze of a worker
            **market.catalogue(urls),
        }
        for block, values in overrides.items():
            settings[block] = {**settings.get(block, {}), **values}
        super().__init__(
            directory,
            cluster.address,
            postgres.url,
            settings=settings,
            scenario=scenario or market.scenario(),
            environ=CREDENTIALS,
        )

    def __enter__(self) -> Self:
        super().__enter__()
        port = int(self.simulator["provider_url"].rsplit(":", 1)[1])
        for proxy in self.providers.values():
            proxy.target = port
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._simulator.send_signal(signal.SIGCONT)
        super().__exit__()
        for proxy in [*self.databases.values(), *self.providers.values()]:
            proxy.stop()

    def environ_of(self, slot: int) -> dict[str, str]:
        """Where a worker in this slot finds the others."""
        urls = {_variable(name): f"http://{self.providers[name, slot].address}/{name}" for name in ACCOUNTS}
        port = self.databases[slot].port
        url = sa.make_url(self.postgres.url).set(port=port).render_as_string(hide_password=False)
        return {"CHAOS_BROKERS": self.cluster.seen_from(slot), "CHAOS_DATABASE": url, **urls}

    def start_in(self, slot: int, clock_offset_s: float = 0.0) -> ChildProcess:
        """A worker in a free slot, by the command of the contract; ``clock_offset_s`` falsifies its wall clock."""
        assert slot not in self.at or self.at[slot].ended(), f"slot {slot} is taken"
        environ = self.environ_of(slot)
        if clock_offset_s:
            environ |= {"PYTHONPATH": HOOKS, "CHAOS_CLOCK_OFFSET_S": str(clock_offset_s)}
        sources = ROOT if self.release == THIS else next_release(self.directory)
        worker = self.at[slot] = self.start_worker(cwd=sources, **environ)
        self.started.append(self.release)
        return worker

    def stop_in(self, slot: int, number: signal.Signals = signal.SIGTERM, timeout_s: float = 60) -> None:
        """Send the signal to the worker of a slot and wait until it is gone."""
        worker = self.at.pop(slot)
        worker.send(signal.SIGCONT)
        self.stop_worker(worker, number, timeout_s)

    def owned(self, slot: int) -> int:
        """Partitions that the worker of a slot has; 0 while it does not answer."""
        try:
            return int(http("GET", f"http://{HOST}:{self.at[slot].port}/health/")["assigned"])  # type: ignore[attr-defined]
        except OSError:
            return 0

    def freeze_provider(self) -> None:
        """The simulator stops answering; what it was sent meanwhile it executes when it wakes up."""
        self._simulator.send_signal(signal.SIGSTOP)

    def wake_provider(self) -> None:
        self._simulator.send_signal(signal.SIGCONT)


def next_release(directory: Path) -> Path:
    """A copy of the sources whose events have one field more: it writes that field, the release before ignores it.

    Made once per directory; a worker that is started in it runs the copy.
    """
    made = directory / "next-release"
    if made.exists():
        return made
    for room in ("streams", "agents", "db"):
        shutil.copytree(ROOT / room, made / room, ignore=shutil.ignore_patterns("__pycache__"))
    events = made / "streams" / "events.py"
    text = events.read_text("utf-8")
    for line, more in (
        ("    due_at: Instant\n    reason: str\n", "    release: str | None = None\n"),  # of Check
        (
            "    pins: list[str] | None = None\n    cost: Amount | None = None\n",
            "    release: str | None = None\n",
        ),  # of StatusChanged
        (
            '    """The JSON value of an event."""\n',
            "    if hasattr(event, 'release'):\n        event = msgspec.structs.replace(event, release='next')\n",
        ),
    ):
        assert text.count(line) == 1, f"the next release cannot be made: {line!r} is not in streams/events.py"
        text = text.replace(line, line + more)
    events.write_text(text, "utf-8")
    return made


@contextlib.contextmanager
def opened(
    directory: Path, scenario: Mapping[str, Any] | None = None, **overrides: Mapping[str, Any]
) -> Iterator[Stage]:
    """Everything but the workers, started; everything stopped at the end. PostgreSQL with its default durability.

    ``scenario`` is the simulator's; by default ``market.scenario()``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with Postgres(directory / "postgres") as postgres, Cluster(directory / "kafka") as cluster:
        engine = sa.create_engine(postgres.url, poolclass=sa.NullPool)
        schema.upgrade(engine)
        engine.dispose()
        stage = Stage(directory / "system", cluster, postgres, scenario, **overrides)
        with stage:
            yield stage


def _variable(account: str) -> str:
    return "CHAOS_" + account.upper().replace("-", "_")
