"""Who may import whom: a table of data. A module without a row fails, so a new one has to find its room first."""

import ast
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("streams", "agents", "db", "web", "orderwatch", "simulator", "bench")

WORDS = ("streams.order", "streams.errors")
#: What travels and how, without a broker: events, topics, configuration, sealed PINs.
WIRE = (
    *WORDS,
    "streams.config.loader",
    "streams.config.types",
    "streams.config.models",
    "streams.events",
    "streams.topics",
    "streams.seal",
)
#: What handlers decide with and on; never a table.
STORE = ("db.rows", "db.ledger", "db.clock", "db.views", "db.leader")
#: What the engine is made of before anything is opened.
PURE = (
    *WORDS,
    "streams.config.loader",
    "streams.events",
    "agents.providers.base",
    "agents.domain.schedule",
    "agents.domain.routing",
    "db.rows",
)

#: Module or room -> what it may import of ours (prefixes). The longest row that fits decides.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "streams.order": (),
    "streams.errors": (),
    "streams": ("streams",),
    # agents are named as text only
    "streams.app": ("streams.config.loader", "streams.errors", "streams.logs", "streams.faust_ext.recovery"),
    "streams.faust_ext.recovery": ("streams.errors",),
    "streams.metrics": (),
    "streams.traces": ("streams.config.loader",),
    "db": ("db", *WORDS),
    "db.batch": ("db", *WORDS, "streams.metrics"),
    "agents.providers": ("agents.providers", *WORDS),
    "agents.domain.schedule": (),
    "agents.domain.routing": PURE,
    "agents.domain.transition": PURE,
    "agents.domain.operator_actions": (*PURE, "agents.domain.transition"),
    "agents.domain.accounts": (
        "agents.providers",
        "agents.domain.routing",
        "agents.domain.schedule",
        "streams.config.loader",
    ),
    "agents.diagnosis.dry_run": (
        "agents.domain.accounts",
        "agents.providers",
        "agents.domain.routing",
        "db.rows",
        "streams.config.loader",
        *WORDS,
    ),
    "agents.domain.outbound_events": (*PURE, "agents.domain.transition", "streams.kafka.producer"),
    "agents.runtime.in_flight": (),
    "agents.domain.dead_letters": (*WIRE, "db.rows", "streams.kafka.producer"),
    "agents.runtime.ordered_pool": ("agents.runtime.in_flight",),
    "agents.runtime.watchdog": (*WORDS, "streams.metrics"),
    "agents.runtime.guard": ("agents.runtime.in_flight", *WIRE, "streams.kafka.producer", "streams.metrics"),
    "agents.gateway.gateway": (
        "agents.runtime.in_flight",
        "agents.providers.base",
        "streams.config.loader",
        "streams.metrics",
        "streams.traces",
    ),
    "agents.handlers.context": (
        *PURE,
        "agents.domain.outbound_events",
        "agents.runtime.in_flight",
        "agents.gateway.gateway",
        "streams.kafka.producer",
        "streams.metrics",
        *STORE,
    ),
    "agents.handlers.dispatch": ("agents", "streams", *STORE),
    "agents.handlers.check": ("agents", "streams", *STORE),
    "agents.maintenance.sweeper": ("agents", "streams", *STORE),
    "agents.handlers.projections": ("agents", "streams", *STORE),
    "agents.handlers.commands": ("agents", "streams", *STORE),
    "agents.config_check": ("agents.providers", "streams.config.loader"),
    "agents.maintenance.alerts": ("db.control.alerts", "streams.config.loader", "streams.metrics", *WORDS),
    "agents.maintenance.heartbeat": (
        "agents.handlers.context",
        "db.control.worker_heartbeats",
        "streams.metrics",
        *WORDS,
    ),
    "agents.maintenance.kill_switch": ("agents", "streams", *STORE),
    "agents.bootstrap": ("agents", "streams", "db"),  # the one that sees every room
    "agents.topology": ("agents", "streams"),
    "agents": (),
    "simulator": ("simulator",),  # the judge is independent
    "web": (
        "web",
        "streams",
        "db",
        "agents.providers",
        "agents.diagnosis.dry_run",
        "agents.domain.operator_actions",
        "agents.domain.routing",
        "agents.domain.dead_letters",
        "agents.diagnosis.explain",
        "agents.diagnosis.wording",
        "agents.diagnosis.redaction",
        "agents.diagnosis.replay_preview",
    ),
    "orderwatch.dashboard.auth": (
        "orderwatch.dashboard.context",
        "orderwatch.dashboard.event_stream",
        "db.control.api_tokens",
    ),
    "orderwatch": ("orderwatch", "agents", "streams", "db", "simulator", "web"),
    "orderwatch.cli.bench": ("bench", "orderwatch"),
    "bench": ("bench", "orderwatch", "streams", "db"),
}

#: Library -> the modules (prefixes) that may touch it.
DOORS: dict[str, tuple[str, ...]] = {
    "confluent_kafka": (
        "streams.kafka.producer",
        "streams.clients",
        "streams.delay_queue",
        "orderwatch.localservers.apache_kafka",
        "bench",
    ),
    "faust": ("streams.app", "streams.faust_ext.recovery", "agents.topology"),
    "aiokafka": ("streams.app", "streams.faust_ext.recovery"),
    "mode": ("streams.app",),
    "aiohttp": ("agents.providers.http", "agents.maintenance.alerts", "simulator"),
    "psycopg2": ("db", "orderwatch.localservers.bundled"),
    "sqlalchemy": (
        "db",
        "streams.outbox",
        "orderwatch",
        "agents.maintenance.heartbeat",
        "agents.maintenance.alerts",
        "bench",
        "orderwatch.dashboard.context",
        "orderwatch.dashboard.metrics",
    ),
    "litestar": ("web",),
    "babel": ("orderwatch.dashboard.i18n",),
    "markupsafe": ("orderwatch.dashboard.i18n", "orderwatch.dashboard.pages.charts"),
    "uvicorn": ("orderwatch.dashboard.serve",),
    "jinja2": ("orderwatch.dashboard.app",),
    "alembic": ("db",),
    "pybreaker": ("agents.gateway.gateway",),
    "aiolimiter": ("agents.gateway.gateway",),
    "cryptography": ("streams.seal", "orderwatch"),
    "pytest": ("agents.providers.testing.conformance", "agents.providers.testing.plugin"),
    "standardwebhooks": ("agents.maintenance.alerts", "orderwatch.dashboard.api.webhooks"),
    "tenacity": ("agents.maintenance.alerts",),
    "opentelemetry": ("streams.traces",),
    "prometheus_client": ("streams.metrics",),
    "typer": ("orderwatch",),
    "rich": ("orderwatch", "bench"),
}


def modules() -> dict[str, Path]:
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if name.startswith("bench.peers.") or name == "bench.plots":
                continue  # they are no part of the product, and run in an environment of their own
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def nodes(path: Path) -> list[ast.AST]:
    """Everything in a file. A collection inside the parser can end in a SystemError on Python 3.11 (gh-106905)."""
    gc.disable()
    try:
        return list(ast.walk(ast.parse(path.read_text("utf-8"))))
    finally:
        gc.enable()


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it the import stands."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def fits(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def row_of(name: str, table: dict[str, tuple[str, ...]]) -> str | None:
    return max((row for row in table if fits(name, row)), key=len, default=None)


def crossings(name: str, imported: Iterator[str]) -> list[str]:
    """Imports that this module may not have."""
    row = row_of(name, MAY_IMPORT)
    if row is None or (row == "agents" and name != "agents"):
        return ["the module itself has no row in the table"]
    wrong = []
    for other in imported:
        if row_of(other, dict.fromkeys(ROOMS, ())) is not None:
            if not any(fits(other, allowed) for allowed in MAY_IMPORT[row]):
                wrong.append(other)
        elif (library := row_of(other, DOORS)) and not any(fits(name, door) for door in DOORS[library]):
            wrong.append(other)
    return wrong


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_row_allows(name: str) -> None:
    assert not crossings(name, imports(MODULES[name]))


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("streams.order", "streams.errors"),
        ("streams.events", "agents.domain.transition"),
        ("streams.events", "confluent_kafka"),
        ("db.ledger", "streams.events"),
        ("db.ledger", "faust"),
        ("agents.providers.znet.adapter", "db.rows"),
        ("agents.providers.znet.adapter", "aiohttp"),
        ("agents.domain.transition", "db.ledger"),
        ("agents.handlers.check", "db.models"),
        ("agents.handlers.check", "sqlalchemy"),
        ("agents.topology", "db.ledger"),
        ("agents.newcomer", "streams.order"),
        ("orderwatch.simulator.server", "streams.order"),
        ("elsewhere", "streams.order"),
    ],
)
def test_the_table_refuses(name: str, imported: str) -> None:
    assert crossings(name, iter([imported]))


def test_every_row_and_door_is_about_a_module_that_exists() -> None:
    names = {*MAY_IMPORT, *(door for doors in DOORS.values() for door in doors)}
    assert not {name for name in names if name not in MODULES}


@pytest.mark.parametrize("name", [name for name in MODULES if row_of(name, {"db": (), "simulator": ()}) is None])
def test_sql_is_spoken_in_db_only(name: str) -> None:
    """A text that begins like a statement is one; helpers of the command line that need one say so in the table."""
    told = {"orderwatch.demo.numbers", "bench.contenders", "bench.evidence", "bench.history", "bench.others"}
    spoken = [
        node.value.strip()[:40]
        for node in nodes(MODULES[name])
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.strip().lower().startswith(("select ", "insert into ", "update ", "delete from ", "with input"))
        and (" from " in node.value.lower() or " set " in node.value.lower() or " into " in node.value.lower())
    ]
    assert not spoken or name in told, spoken


@pytest.mark.parametrize("room", ROOMS)
def test_importing_a_room_does_nothing(room: str) -> None:
    assert not (ROOT / room / "__init__.py").read_text("utf-8").strip()
