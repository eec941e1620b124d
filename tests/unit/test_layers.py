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
WIRE = (*WORDS, "streams.config", "streams.config_types", "streams.config_models", "streams.events", "streams.topics",
        "streams.seal")  # fmt: skip
#: What handlers decide with and on; never a table.
STORE = ("db.rows", "db.ledger", "db.clock", "db.views", "db.leader")
#: What the engine is made of before anything is opened.
PURE = (*WORDS, "streams.config", "streams.events", "agents.providers.base", "agents.schedule", "agents.routes",
        "db.rows")  # fmt: skip

#: Module or room -> what it may import of ours (prefixes). The longest row that fits decides.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "streams.order": (),
    "streams.errors": (),
    "streams": ("streams",),
    # agents are named as text only
    "streams.app": ("streams.config", "streams.errors", "streams.logs", "streams.recovery"),
    "streams.recovery": ("streams.errors",),
    "streams.metrics": (),
    "streams.traces": ("streams.config",),
    "db": ("db", *WORDS),
    "db.batch": ("db", *WORDS, "streams.metrics"),
    "agents.providers": ("agents.providers", *WORDS),
    "agents.schedule": (),
    "agents.routes": PURE,
    "agents.decide": PURE,
    "agents.acts": (*PURE, "agents.decide"),
    "agents.accounts": ("agents.providers", "agents.routes", "agents.schedule", "streams.config"),
    "agents.rehearsal": ("agents.accounts", "agents.providers", "agents.routes", "db.rows", "streams.config", *WORDS),
    "agents.announce": (*PURE, "agents.decide", "streams.kafka"),
    "agents.hand": (),
    "agents.letters": (*WIRE, "db.rows", "streams.kafka"),
    "agents.pool": ("agents.hand",),
    "agents.progress": (*WORDS, "streams.metrics"),
    "agents.guard": ("agents.hand", *WIRE, "streams.kafka", "streams.metrics"),
    "agents.lanes": ("agents.hand", "agents.providers.base", "streams.config", "streams.metrics",
                     "streams.traces"),
    "agents.work": (*PURE, "agents.announce", "agents.hand", "agents.lanes", "streams.kafka", "streams.metrics",
                    *STORE),
    "agents.dispatch": ("agents", "streams", *STORE),
    "agents.check": ("agents", "streams", *STORE),
    "agents.sweep": ("agents", "streams", *STORE),
    "agents.record": ("agents", "streams", *STORE),
    "agents.operator": ("agents", "streams", *STORE),
    "agents.config_check": ("agents.providers", "streams.config"),
    "agents.alerts": ("db.alerts", "streams.config", "streams.metrics", *WORDS),
    "agents.heartbeat": ("agents.work", "db.workers", "streams.metrics", *WORDS),
    "agents.switches": ("agents", "streams", *STORE),
    "agents.wiring": ("agents", "streams", "db"),  # the one that sees every room
    "agents.flow": ("agents", "streams"),
    "agents": (),
    "simulator": ("simulator",),  # the judge is independent
    "web": ("web", "streams", "db", "agents.providers", "agents.rehearsal", "agents.acts", "agents.routes",
            "agents.letters", "orderwatch.why", "orderwatch.wording", "orderwatch.personal",
            "orderwatch.letters"),
    "web.access": ("web.parts", "web.live", "db.tokens"),
    "orderwatch": ("orderwatch", "agents", "streams", "db", "simulator", "web"),
    "orderwatch.bench_commands": ("bench", "orderwatch"),
    "bench": ("bench", "orderwatch", "streams", "db"),
}

#: Library -> the modules (prefixes) that may touch it.
DOORS: dict[str, tuple[str, ...]] = {
    "confluent_kafka": ("streams.kafka", "streams.clients", "streams.delay", "orderwatch.apache_kafka", "bench"),
    "faust": ("streams.app", "streams.recovery", "agents.flow"),
    "aiokafka": ("streams.app", "streams.recovery"),
    "mode": ("streams.app",),
    "aiohttp": ("agents.providers.http", "agents.alerts", "simulator"),
    "psycopg2": ("db", "orderwatch.embedded"),
    "sqlalchemy": ("db", "streams.outbox", "orderwatch", "agents.heartbeat", "agents.alerts", "bench", "web.parts",
                   "web.measured"),
    "litestar": ("web",),
    "babel": ("web.texts",),
    "markupsafe": ("web.texts", "web.charts"),
    "uvicorn": ("web.serve",),
    "jinja2": ("web.app",),
    "alembic": ("db",),
    "pybreaker": ("agents.lanes",),
    "aiolimiter": ("agents.lanes",),
    "cryptography": ("streams.seal", "orderwatch"),
    "pytest": ("agents.providers.conformance", "agents.providers.conformance_plugin"),
    "standardwebhooks": ("agents.alerts", "web.hooks"),
    "tenacity": ("agents.alerts",),
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
        ("streams.events", "agents.decide"),
        ("streams.events", "confluent_kafka"),
        ("db.ledger", "streams.events"),
        ("db.ledger", "faust"),
        ("agents.providers.znet", "db.rows"),
        ("agents.providers.znet", "aiohttp"),
        ("agents.decide", "db.ledger"),
        ("agents.check", "db.models"),
        ("agents.check", "sqlalchemy"),
        ("agents.flow", "db.ledger"),
        ("agents.newcomer", "streams.order"),
        ("simulator.server", "streams.order"),
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
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        and node.value.strip().lower().startswith(("select ", "insert into ", "update ", "delete from ", "with input"))
        and (" from " in node.value.lower() or " set " in node.value.lower() or " into " in node.value.lower())
    ]  # fmt: skip
    assert not spoken or name in told, spoken


@pytest.mark.parametrize("room", ROOMS)
def test_importing_a_room_does_nothing(room: str) -> None:
    assert not (ROOT / room / "__init__.py").read_text("utf-8").strip()
