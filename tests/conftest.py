"""What tests stand on: real servers, one of each per session, and a fixture that hears every logged error.

``broker`` and ``postgres`` are the bundled servers, ``kafka`` is Apache Kafka: a test that asks for it is marked
``kafka`` by that alone, and fails when the broker does not start. ``database`` is the URL of an empty database with
the schema, fresh for each test.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
import sqlalchemy as sa
import structlog

from db import schema
from orderwatch.localservers.bundled import Broker, Postgres
from tests.parts import Kafka
from tests.waiting import eventually as eventually
from tests.waiting import wait_until as wait_until


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker("kafka")


@pytest.fixture(scope="session")
def parts_directory() -> Iterator[Path]:
    """Logs and data of the servers. Not pytest's own: PostgreSQL under root is another user, who may not go there."""
    directory = Path(tempfile.mkdtemp(prefix="orderwatch-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def broker(parts_directory: Path) -> Iterator[Broker]:
    with Broker(parts_directory / "broker") as running:
        yield running


@pytest.fixture(scope="session")
def kafka(parts_directory: Path) -> Iterator[Kafka]:
    with Kafka(parts_directory / "kafka") as running:
        yield running


@pytest.fixture(scope="session")
def postgres(parts_directory: Path) -> Iterator[Postgres]:
    with Postgres(parts_directory / "postgres", durable=False) as running:
        yield running


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> str:
    """Name of the migrated database that every test's database is a copy of."""
    run_sql(postgres, "create database template_orderwatch")
    engine = sa.create_engine(postgres.url_of("template_orderwatch"), poolclass=sa.NullPool)
    schema.upgrade(engine)
    engine.dispose()
    return "template_orderwatch"


@pytest.fixture
def database(postgres: Postgres, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    run_sql(postgres, f"create database {name} template {template}")
    yield postgres.url_of(name)
    run_sql(postgres, f"drop database {name} with (force)")


def run_sql(postgres: Postgres, statement: str) -> None:
    """One statement outside a transaction, as the server's owner."""
    connection = psycopg2.connect(sa.make_url(postgres.url).set(drivername="postgresql").render_as_string(False))
    connection.autocommit = True
    try:
        connection.cursor().execute(statement)
    finally:
        connection.close()


@pytest.fixture(autouse=True)
def logs_are_heard() -> None:
    """structlog goes through logging, however the test before left it, so that errors are heard and nothing is kept."""
    structlog.configure(
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


class LoggedErrors(logging.Handler):
    """Every record of level ERROR and above, and the texts a test expects among them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []
        self.claimed: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.name}: {record.getMessage()}")

    def unclaimed(self) -> list[str]:
        return [message for message in self.messages if not any(text in message for text in self.claimed)]


@pytest.fixture(autouse=True)
def logged_errors() -> Iterator[LoggedErrors]:
    """Fails the test when an error was logged that nobody claimed."""
    heard = LoggedErrors()
    root = logging.getLogger()
    root.addHandler(heard)
    yield heard
    root.removeHandler(heard)
    assert not heard.unclaimed(), "logged as an error, and not claimed with expect_errors"


@pytest.fixture
def expect_errors(logged_errors: LoggedErrors) -> Callable[[str], None]:
    """``expect_errors("part of the message")``: errors with this text may be logged by this test."""
    return logged_errors.claimed.append
