"""The schema of the database and its migrations, safe to run from many processes and while workers work.

Every function raises ``StoreUnavailable`` when the database does not answer, or when a worker held a table for longer
than ``LOCK_TIMEOUT_MS``; a migration either happened whole or not at all.
"""

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from db.engine import answering
from streams.errors import ConfigError

#: A migration that waits for a table stands in the way of every worker behind it, so it gives up soon.
LOCK_TIMEOUT_MS = 5000

#: How long one migration waits for another one to end.
TURN_TIMEOUT_MS = 120_000

#: Of the advisory lock that lets one migration run at a time; the number only has to be ours.
_MIGRATING = 0x0D0E_DB

_MIGRATIONS = Path(__file__).with_name("migrations")

#: Left by each release for the older ones, which may be started again after a rollback.
_REMEMBER = """
insert into service_state (key, value) values ('schema', jsonb_build_object(
    'head', cast(:head as text), 'compatible_from', cast(:oldest as text)))
on conflict (key) do update set value = excluded.value, at = now() where service_state.value <> excluded.value"""
_OLDEST = "select value ->> 'compatible_from' from service_state where key = 'schema'"

log = structlog.get_logger(__name__)


#: The oldest release, by its head revision, whose code works on the schema of this one. A migration that older code
#: cannot live with raises it to its own number.
COMPATIBLE_FROM = "0010"


def upgrade(engine: sa.Engine, revision: str = "head") -> None:
    """Migrate up to ``revision``; nothing happens when it is there already. ``ConfigError`` for an unknown one.

    A database that a newer release migrated is left alone when that release said that this one can work on it.
    """
    if revision == "head" and (at := newer(engine)) is not None:
        log.info("schema is newer than this release, left alone", revision=at)
        return
    _run(engine, command.upgrade, revision)
    if revision == "head":
        with answering(), engine.begin() as connection:
            connection.execute(sa.text(_REMEMBER), {"head": head(), "oldest": COMPATIBLE_FROM})


def newer(engine: sa.Engine) -> str | None:
    """The revision of a newer release that this one can work on; None for a known revision or an empty database.

    Raises ``ConfigError`` when the newer release said that this one cannot.
    """
    at = current(engine)
    if at is None or at <= head():
        return None
    with answering(), engine.connect() as connection:
        oldest = connection.execute(sa.text(_OLDEST)).scalar()
    if oldest is None or oldest > head():
        raise ConfigError(
            f"database schema: revision {at} needs a release from {oldest or at} on; this one is {head()}"
        )
    return at


def downgrade(engine: sa.Engine, revision: str) -> None:
    """Migrate down to ``revision`` (``base``: drop everything). Raises ``ConfigError`` for an unknown one."""
    _run(engine, command.downgrade, revision)


def current(engine: sa.Engine) -> str | None:
    """The revision the database is at; None for an empty one."""
    with answering(), engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str:
    """The revision this release expects."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    assert newest is not None
    return newest


def is_current(engine: sa.Engine) -> bool:
    """Whether the database has the schema of this release, or a newer one that it can work on."""
    return current(engine) == head() or newer(engine) is not None


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _run(engine: sa.Engine, step: Callable[[Config, str], None], revision: str) -> None:
    config = _config()
    with answering(), engine.begin() as connection:
        _set(connection, lock_timeout=TURN_TIMEOUT_MS, statement_timeout=TURN_TIMEOUT_MS)
        connection.execute(sa.text("select pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
        _set(connection, lock_timeout=LOCK_TIMEOUT_MS, statement_timeout=0)
        config.attributes["connection"] = connection
        try:
            step(config, revision)
        except CommandError as error:
            raise ConfigError(f"database schema: {error}") from None


def _set(connection: sa.Connection, **settings_ms: int) -> None:
    for name, value in settings_ms.items():
        connection.execute(sa.text(f"set local {name} = {value}"))
