"""One way to reach PostgreSQL: the engine, its settings, and what a failed statement means."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from streams.errors import StoreRefused, StoreUnavailable

#: SQLSTATE classes and codes that say "not now", not "never": connection trouble, shutdown, too many clients,
#: serialization failures, deadlocks, lock timeouts, read-only after a failover, a transaction that stood still.
_PASSING = ("08", "57P", "53", "40", "55P03", "57014", "25006", "25P03")

#: SQLSTATE classes about the installation, never about one event: authorization, missing database, schema, table,
#: column or right (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_INSTALLATION = ("28", "3D", "3F", "42")

#: libpq gives no SQLSTATE when it cannot connect. Of these texts none goes away by waiting.
_REFUSED = re.compile(
    r"password authentication failed|authentication failed|no password supplied|no pg_hba\.conf entry"
    r"|(database|role|user) .* does not exist|is not permitted to log in|permission denied for database"
    r"|invalid sslmode|sslmode value .* invalid|does not support SSL|root certificate file|certificate verify failed"
    r"|unsupported startup parameter|unrecognized configuration parameter|invalid connection option"
    r"|invalid (integer value|port number)|invalid dsn",
    re.IGNORECASE,
)

_NAMES = re.compile(r"\b(user|role|username)( name)? \"[^\"]*\"", re.IGNORECASE)
_USER_PART = re.compile(r"[^\s\"']*@")


def connect(
    url: str, pool_size: int = 6, *, statement_timeout_s: float = 30, frozen_s: float = 10, pooler: str = "session"
) -> sa.Engine:
    """An engine; opens nothing yet. Sessions speak UTC, and no error text ever shows a parameter.

    A transaction whose process says nothing for ``frozen_s`` is rolled back by the server: a process that was stopped
    or suspended keeps its connections, and would keep its locks with them. Commits are durable whatever the server's
    default says. ``pooler="transaction"`` sets all of this in each transaction, for PgBouncer in that mode, which
    refuses or forgets what is set when a connection starts.
    """
    settings = {
        "timezone": "UTC",
        "statement_timeout": int(statement_timeout_s * 1000),
        "lock_timeout": 10_000,
        "idle_in_transaction_session_timeout": int(frozen_s * 1000),
        "synchronous_commit": "on",
    }
    per_transaction = pooler == "transaction"
    engine = sa.create_engine(
        _address(url, {} if per_transaction else settings),
        pool_size=pool_size,
        max_overflow=4,
        pool_pre_ping=False,  # a lost connection is an answer we handle; a ping per statement is not free
        pool_recycle=1800,
        hide_parameters=True,
        connect_args={
            "connect_timeout": 5,
            "application_name": "orderwatch",
            "client_encoding": "UTF8",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        },
    )
    sa.event.listen(engine, "handle_error", _drop_read_only)
    if per_transaction:
        local = "; ".join(f"set local {name} = '{value}'" for name, value in settings.items())

        def begin(connection: sa.Connection) -> None:
            cursor = connection.connection.cursor()
            cursor.execute(local)
            cursor.close()

        sa.event.listen(engine, "begin", begin)
    return engine


def _address(url: str, settings: Mapping[str, object]) -> sa.URL:
    """``url`` for psycopg2, with ``settings`` behind the ``options`` that it brings along: both are in force."""
    address = sa.make_url(url).set(drivername="postgresql+psycopg2")  # a bare "postgresql://" would mean psycopg 3
    given = address.query.get("options", ())
    options = [given] if isinstance(given, str) else list(given)
    options += [f"-c {name}={value}" for name, value in settings.items()]
    return address.update_query_dict({"options": " ".join(options)}) if options else address


def _drop_read_only(context: Any) -> None:
    """A server that became a standby answers on: its connections are dropped like those of a server that is gone."""
    if getattr(context.original_exception, "pgcode", None) == "25006":
        context.is_disconnect = True


def reach(url: str) -> None:
    """Ask for an answer on a connection of its own, whatever became of the others. Raises ``StoreUnavailable``."""
    engine = sa.create_engine(
        _address(url, {}),
        poolclass=sa.NullPool,
        hide_parameters=True,
        connect_args={"connect_timeout": 5, "application_name": "orderwatch"},
    )
    with answering(), engine.connect() as connection:
        connection.execute(sa.text("select 1"))


@contextmanager
def answering(engine: sa.Engine | None = None) -> Iterator[None]:
    """Turn what is no defect of ours into an error that says so, in the server's own words; the rest passes.

    ``StoreUnavailable``: it did not answer, or not now. ``StoreRefused``: it refuses this installation. SQLAlchemy
    drops the connections of a server that is gone by itself; a connection that only hit a limit stays in the pool.
    """
    try:
        yield
    except sa.exc.TimeoutError:
        raise StoreUnavailable("every connection to PostgreSQL is busy") from None
    except sa.exc.ArgumentError:
        raise StoreRefused("database.url is not an address; expected postgresql://user:password@host/name") from None
    except DBAPIError as error:
        code = _code(error) or ""
        words = server_words(error)
        if code.startswith(_INSTALLATION) or (not code and _REFUSED.search(words)):
            raise StoreRefused(f"PostgreSQL refuses: {words}", code or None) from None
        lost = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
        if lost or code.startswith(_PASSING):
            raise StoreUnavailable(f"PostgreSQL did not answer ({_what(error)}): {words}") from None
        raise


def server_words(error: DBAPIError) -> str:
    """The server's or libpq's own sentence, without user names, and without anything before an ``@``."""
    diagnosis = getattr(error.orig, "diag", None)
    text = getattr(diagnosis, "message_primary", None) or str(error.orig)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("\t")]
    sentence = "; ".join(dict.fromkeys(lines))[:400] or type(error.orig).__name__
    return _USER_PART.sub("***@", _NAMES.sub(r'\1 "***"', sentence))


def _code(error: DBAPIError) -> str | None:
    return getattr(error.orig, "pgcode", None)


def _what(error: DBAPIError) -> str:
    code = _code(error)
    return f"{type(error.orig).__name__}{f' {code}' if code else ''}"
