"""The schema of the database and its migrations, safe to run from many processes and while workers work.

Every function raises ``StoreUnavailable`` when the database does not answer, or when a worker held a table for longer
than ``LOCK_TIMEOUT_MS``; a migration either happened whole or not at all.
"""

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
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


def upgrade(engine: sa.Engine, revision: str = "head") -> None:
    """Migrate up to ``revision``; nothing happens when it is there already. ``ConfigError`` for an unknown one."""
    _run(engine, command.upgrade, revision)


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
    """Whether the database has exactly the schema of this release."""
    return current(engine) == head()


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
