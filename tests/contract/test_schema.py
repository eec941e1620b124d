"""Migrations on real PostgreSQL: they make what db/models.py says, go down again, and wait for nobody for long."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from db import models, schema
from db.engine import connect
from orderwatch.localservers.bundled import Postgres
from streams.errors import ConfigError, StoreUnavailable


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[sa.Engine]:
    """An empty database."""
    name = f"empty_{uuid4().hex}"
    _administer(postgres, f"create database {name}")
    engine = connect(postgres.url_of(name), 2)
    yield engine
    engine.dispose()
    _administer(postgres, f"drop database {name} with (force)")


def _administer(postgres: Postgres, statement: str) -> None:
    connection = psycopg2.connect(sa.make_url(postgres.url).set(drivername="postgresql").render_as_string(False))
    connection.autocommit = True
    try:
        connection.cursor().execute(statement)
    finally:
        connection.close()


def shape(engine: sa.Engine) -> dict[str, list[Any]]:
    """Everything the catalogue of PostgreSQL says about our tables; Alembic's comparison skips check constraints."""
    queries = {
        "columns": "select table_name, column_name, data_type, character_maximum_length, is_nullable, column_default,"
        " identity_generation from information_schema.columns where table_schema = 'public'",
        "constraints": "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint"
        " where connamespace = 'public'::regnamespace",
        "indexes": "select tablename, indexname, indexdef from pg_indexes where schemaname = 'public'",
    }
    with engine.connect() as connection:
        rows = {name: connection.execute(sa.text(text)).all() for name, text in queries.items()}
    return {name: sorted(map(tuple, found)) for name, found in rows.items()}


def without_alembic(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: [row for row in rows if "alembic_version" not in row[0]] for name, rows in found.items()}


def test_migrations_make_exactly_the_tables_of_the_models(empty: sa.Engine) -> None:
    schema.upgrade(empty)
    with empty.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, models.metadata) == []
    migrated = without_alembic(shape(empty))

    schema.downgrade(empty, "base")
    models.metadata.create_all(empty)

    assert without_alembic(shape(empty)) == migrated
    assert len(migrated["columns"]) > 100


def test_down_and_up_again_leaves_nothing_and_then_everything(empty: sa.Engine) -> None:
    assert (schema.current(empty), schema.is_current(empty)) == (None, False)
    schema.upgrade(empty)
    up = shape(empty)
    assert (schema.current(empty), schema.is_current(empty)) == (schema.head(), True)

    schema.downgrade(empty, "base")
    assert schema.current(empty) is None
    assert sa.inspect(empty).get_table_names() == ["alembic_version"]

    schema.upgrade(empty)
    assert shape(empty) == up


def test_every_migration_goes_down_by_itself(empty: sa.Engine) -> None:
    schema.upgrade(empty)
    steps = 0
    while schema.current(empty) is not None:
        schema.downgrade(empty, "-1")
        steps += 1
    assert steps >= 1


def test_the_reference_column_is_as_in_the_old_system(empty: sa.Engine) -> None:
    schema.upgrade(empty)
    inspector = sa.inspect(empty)
    column = next(c for c in inspector.get_columns("orders") if c["name"] == "provider_referans")
    assert str(column["type"]) == "VARCHAR(255)"
    assert {"idx_orders_provider_referans"} <= {index["name"] for index in inspector.get_indexes("orders")}


def test_many_processes_may_migrate_at_once(empty: sa.Engine) -> None:
    engines = [connect(empty.url.render_as_string(False), 1) for _ in range(4)]
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(schema.upgrade, engines))
    finally:
        for engine in engines:
            engine.dispose()
    assert schema.is_current(empty)


def test_a_migration_gives_up_on_a_table_that_a_worker_holds(empty: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "LOCK_TIMEOUT_MS", 100)
    schema.upgrade(empty)
    with empty.connect() as worker, worker.begin():
        worker.execute(sa.text("select * from attempts"))  # any open transaction on it is enough

        with pytest.raises(StoreUnavailable, match="55P03"):
            schema.downgrade(empty, "base")

    assert schema.is_current(empty)


def test_an_unknown_revision_is_named(empty: sa.Engine) -> None:
    with pytest.raises(ConfigError, match="no_such_revision"):
        schema.upgrade(empty, "no_such_revision")
    assert schema.current(empty) is None


def test_a_database_that_is_away_is_unavailable() -> None:
    engine = connect("postgresql+psycopg2://nobody:secret-word@127.0.0.1:1/none", 1)
    for call in (schema.current, schema.upgrade):
        with pytest.raises(StoreUnavailable) as caught:
            call(engine)
        assert "secret-word" not in str(caught.value)
    engine.dispose()
