"""The peers of ``bench/peers`` as contenders: started in their own environment, against the same servers."""

import json
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from bench.contenders import WORKER, Contender, Orderwatch, Shop
from bench.evidence import Evidence, of_log
from bench.evidence import records as records_of
from bench.extras import environment
from bench.options import ACCESS, TENANT
from bench.stage import Scene
from orderwatch.localservers.apache_kafka import ROOT
from orderwatch.localservers.bundled import HOST, PartError, free_port
from streams.errors import ConfigError
from streams.kafka.producer import apply_topics
from streams.topics import specs

_SCHEMA = Path(__file__).parent / "peers" / "schema.sql"
_REDIS = "redis"


def _environ(scene: Scene, **more: str) -> dict[str, str]:
    return scene.stage.environ(
        PYTHONPATH=str(ROOT),
        PEER_DATABASE=scene.database,
        PEER_CALLS=str(scene.options.concurrency),
        PEER_CHECK_AFTER_S=str(scene.options.first_after_s or scene.options.check_after_s),
        **more,
    )


def _bought_once(scene: Scene, ended: int, orders: int) -> list[str]:
    """Every order ended and was executed once."""
    account = scene.control("GET", "/ledger/summary")["accounts"]["znet-1"]
    found = [] if ended == orders else [f"{ended} of {orders} orders ended"]
    if account["executed"] != orders or account["executed_twice"]:
        found.append(f"{account['executed']} executions of {orders} orders, {len(account['executed_twice'])} twice")
    return found


class Floor:
    """``bench/peers/floor.py``; orders come and news go through the same topics as ours."""

    name = "floor"

    def start(self, scene: Scene) -> None:
        apply_topics(scene.config.kafka, specs(scene.config))
        self.start_worker(scene, 1)

    def start_worker(self, scene: Scene, processes: int) -> None:
        environ = _environ(
            scene,
            PEER_BROKER=scene.stage.kafka.address,
            PEER_PREFIX=scene.config.kafka.topic_prefix,
            PEER_URL=f"{scene.provider_url}/znet-1",
        )
        scene.start(WORKER, [str(environment() / "python"), "-m", "bench.peers.floor"], environ)

    def shop(self, scene: Scene, prefix: str, orders: int, rate: float) -> Shop:
        return Orderwatch().shop(scene, prefix, orders, rate)

    def ended(self, scene: Scene, prefix: str) -> int:
        return _count(scene, "floor_orders", prefix)

    def settled(self, scene: Scene) -> bool:
        return True

    def records(self, scene: Scene) -> int:
        return records_of(scene)

    def evidence(self, scene: Scene, prefix: str) -> Evidence:
        return of_log(scene, prefix, _rows(scene, "floor_orders", "reference", prefix))

    def differences(self, scene: Scene, prefix: str, found: Evidence) -> list[str]:
        return _bought_once(scene, self.ended(scene, prefix), scene.options.orders)


class Celery:
    """``bench/peers/celery_usual.py`` or ``celery_lean.py`` on one of Celery's pools, and a Redis of its own."""

    def __init__(self, kind: str, pool: str) -> None:
        self.name = f"celery-{kind}-{pool}"
        self._module = f"bench.peers.celery_{kind}"
        self._pool = pool
        self._redis = ""

    def start(self, scene: Scene) -> None:
        if shutil.which("redis-server") is None:
            raise PartError("Celery needs Redis; no redis-server on the PATH (Debian: apt install redis-server)")
        port = free_port()
        self._redis = f"redis://{HOST}:{port}/0"
        command = ["redis-server", "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no"]
        scene.start(_REDIS, command, scene.stage.environ())
        _fill(scene)
        self.start_worker(scene, scene.options.workers)

    def start_worker(self, scene: Scene, processes: int) -> None:
        command = [
            str(environment() / "python"),
            "-m",
            "celery",
            "-A",
            self._module,
            "worker",
            "--loglevel",
            "WARNING",
            "--pool",
            self._pool,
            "--concurrency",
            str(self._concurrency(scene)),
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
        for number in range(1 if self._pool == "prefork" else processes):
            scene.start(WORKER, [*command, "-n", f"w{number}@%h"], self._environ(scene))

    def _concurrency(self, scene: Scene) -> int:
        """Prefork pays for each call at a time with a process, some 30 MB each: 32 of them at most."""
        return scene.options.concurrency if self._pool == "gevent" else min(32, scene.options.concurrency)

    def _environ(self, scene: Scene) -> Mapping[str, str]:
        return _environ(scene, PEER_REDIS=self._redis, PEER_POOL=self._pool)

    def shop(self, scene: Scene, prefix: str, orders: int, rate: float) -> Shop:
        wish = {
            "module": self._module,
            "prefix": prefix,
            "orders": orders,
            "rate": rate,
            "times": str(self._times(scene, prefix)),
        }
        environ = {**self._environ(scene), "PEER_POOL": "shop"}
        return Shop([str(environment() / "python"), "-m", "bench.peers.celery_shop"], wish, environ)

    def _times(self, scene: Scene, prefix: str) -> Path:
        return scene.directory / f"times-{prefix}.json"

    def ended(self, scene: Scene, prefix: str) -> int:
        return _count(scene, "orders", prefix, "id")

    def settled(self, scene: Scene) -> bool:
        return True

    def records(self, scene: Scene) -> int:
        return 0

    def evidence(self, scene: Scene, prefix: str) -> Evidence:
        return Evidence(
            appended=json.loads(self._times(scene, prefix).read_text("utf-8")),
            ended={row[0]: row[2].timestamp() for row in _rows(scene, "orders", "provider_referans", prefix)},
            references={row[1]: row[0] for row in _rows(scene, "orders", "provider_referans", prefix)},
        )

    def differences(self, scene: Scene, prefix: str, found: Evidence) -> list[str]:
        return _bought_once(scene, self.ended(scene, prefix), scene.options.orders)


def _fill(scene: Scene) -> None:
    access = {
        "url": f"{scene.provider_url}/znet-1",
        "tenant": TENANT,
        "kod": ACCESS["BENCH_KOD"],
        "sifre": ACCESS["BENCH_SIFRE"],
    }
    with scene.engine.begin() as connection:
        for statement in _SCHEMA.read_text("utf-8").strip().split(";\n"):
            connection.execute(sa.text(statement))
        for statement in (
            "insert into tenants values (:tenant, 'The shop', true)",
            "insert into integrations values ('znet-1', :tenant, :url, :kod, :sifre, true)",
            "insert into routes values (:tenant, 'sixty', 'auto', 'external', 'znet-1')",
            "insert into mappings values (:tenant, 'sixty', 'znet-1', '1', '60')",
        ):
            names = {word for word in access if f":{word}" in statement}
            connection.execute(sa.text(statement), {name: access[name] for name in names})


def _count(scene: Scene, table: str, prefix: str, key: str = "id") -> int:
    statement = f"select count(*) from {table} where {key} >= :first and {key} < :last and completed_at is not null"
    with scene.engine.connect() as connection:
        return int(connection.execute(sa.text(statement), {"first": prefix, "last": prefix + "~"}).scalar_one())


def _rows(scene: Scene, table: str, reference: str, prefix: str) -> list[tuple[str, str, datetime]]:
    statement = f"select id, {reference}, completed_at from {table} where id >= :first and id < :last"
    with scene.engine.connect() as connection:
        rows = connection.execute(sa.text(statement), {"first": prefix, "last": prefix + "~"})
        return [(row[0], row[1], row[2]) for row in rows]


_ALL: tuple[Contender, ...] = (
    Orderwatch(),
    Floor(),
    Celery("usual", "prefork"),
    Celery("usual", "gevent"),
    Celery("lean", "prefork"),
    Celery("lean", "gevent"),
)
CONTENDERS = {found.name: found for found in _ALL}


def contenders(text: str) -> list[Contender]:
    """The contenders named in a list with commas, ours first. Raises ``ConfigError`` for one that does not exist."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in CONTENDERS]:
        raise ConfigError(f"--against: {unknown[0]!r} is no contender; expected {', '.join(CONTENDERS)}")
    return [CONTENDERS["orderwatch"], *(CONTENDERS[name] for name in names if name != "orderwatch")]
