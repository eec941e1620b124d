"""One way to reach PostgreSQL: the engine, its settings, and what a lost connection is called here."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from streams.errors import StoreUnavailable

#: SQLSTATE classes and codes that say "not now", not "never": connection trouble, shutdown, too many clients,
#: serialization failures, deadlocks, lock timeouts, read-only after a failover, a transaction that stood still.
_PASSING = ("08", "57P", "53", "40", "55P03", "25006", "25P03")


def connect(url: str, pool_size: int = 6, *, statement_timeout_s: float = 30, frozen_s: float = 10) -> sa.Engine:
    """An engine; opens nothing yet. Sessions speak UTC, and no error text ever shows a parameter.

    A transaction whose process says nothing for ``frozen_s`` is rolled back by the server: a process that was stopped
    or suspended keeps its connections, and would keep its locks with them.
    """
    options = {
        "timezone": "UTC",
        "statement_timeout": int(statement_timeout_s * 1000),
        "lock_timeout": 10_000,
        "idle_in_transaction_session_timeout": int(frozen_s * 1000),
    }
    return sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg2"),  # a bare "postgresql://" would mean psycopg 3
        pool_size=pool_size,
        max_overflow=4,
        pool_pre_ping=False,  # a lost connection is an answer we handle; a ping per statement is not free
        pool_recycle=1800,
        hide_parameters=True,
        connect_args={
            "connect_timeout": 5,
            "application_name": "orderwatch",
            "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        },
    )


def reach(url: str) -> None:
    """Ask for an answer on a connection of its own, whatever became of the others. Raises ``StoreUnavailable``."""
    address = sa.make_url(url).set(drivername="postgresql+psycopg2")
    engine = sa.create_engine(
        address,
        poolclass=sa.NullPool,
        hide_parameters=True,
        connect_args={"connect_timeout": 5, "application_name": "orderwatch"},
    )
    with answering(), engine.connect() as connection:
        connection.execute(sa.text("select 1"))


@contextmanager
def answering(engine: sa.Engine | None = None) -> Iterator[None]:
    """Turn "the database did not answer" into ``StoreUnavailable``; every other error is a defect and passes.

    With an engine, its pooled connections are dropped too: after a failover each of them is dead.
    """
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        if engine is not None:
            engine.dispose()
        raise StoreUnavailable(f"PostgreSQL did not answer ({_what(error)})") from None
    except sa.exc.TimeoutError:
        raise StoreUnavailable("every connection to PostgreSQL is busy") from None
    except DBAPIError as error:
        if error.connection_invalidated or (_code(error) or "").startswith(_PASSING):
            if engine is not None:
                engine.dispose()  # a server that became read-only answers on, so its connections would stay
            raise StoreUnavailable(f"PostgreSQL did not answer ({_what(error)})") from None
        raise


def _code(error: DBAPIError) -> str | None:
    return getattr(error.orig, "pgcode", None)


def _what(error: DBAPIError) -> str:
    code = _code(error)
    return f"{type(error.orig).__name__}{f' {code}' if code else ''}"
