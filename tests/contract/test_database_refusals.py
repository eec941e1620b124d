"""What PostgreSQL refuses is said in its own words before the first purchase, and holds events at run time."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from agents.handlers import dispatch
from db import preflight, schema
from db.engine import answering, connect
from orderwatch.localservers.bundled import Postgres, free_port
from streams.errors import ConfigError, StoreRefused, StoreUnavailable
from tests.conftest import run_sql
from tests.contract.command_line import CommandLine
from tests.contract.store import Store, store_on
from tests.contract.test_redelivery import Worker, created
from tests.fakes import FakeProvider, Placed


@pytest.fixture
def commands(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> CommandLine:
    return CommandLine(tmp_path, monkeypatch, capsys)


@dataclass
class Role:
    """A login without any right of its own."""

    postgres: Postgres
    name: str
    password: str

    def url(self, database_url: str, **query: str) -> str:
        address = sa.make_url(database_url).set(username=self.name, password=self.password)
        return address.update_query_dict(query).render_as_string(hide_password=False)


@pytest.fixture
def role(postgres: Postgres) -> Iterator[Role]:
    made = Role(postgres, f"role_{uuid4().hex[:12]}", "p@ss-word")
    run_sql(postgres, f"create role {made.name} login password '{made.password}'")
    yield made
    run_sql(postgres, f"drop owned by {made.name}")
    run_sql(postgres, f"drop role {made.name}")


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Callable[[str], str]]:
    """Makes an empty database with these options and gives its address."""
    made: list[str] = []

    def create(options: str = "") -> str:
        name = f"test_{uuid4().hex}"
        run_sql(postgres, f"create database {name} template template0 {options}")
        made.append(name)
        return postgres.url_of(name)

    yield create
    for name in made:
        run_sql(postgres, f"drop database {name} with (force)")


def refusal(url: str) -> str:
    engine = connect(url)
    try:
        with pytest.raises(StoreRefused) as caught, answering(engine), engine.connect():
            pass
    finally:
        engine.dispose()
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"password": "wrong-secret"}, "password authentication failed"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
        ({"username": "stranger"}, "password authentication failed"),
        ({"query": {"sslmode": "require"}}, "does not support SSL"),
        ({"query": {"sslmode": "verify-full", "sslrootcert": "/no/such/ca.pem"}}, "does not support SSL"),
        ({"query": {"sslmode": "requir"}}, "sslmode"),
        ({"query": {"options": "-c nonsense.x=1 -c no_such_setting=1"}}, "no_such_setting"),
    ],
    ids=["password", "database", "role", "tls", "ca", "sslmode", "option"],
)
def test_a_connection_that_can_never_work_is_refused_in_the_servers_words(
    database: str, role: Role, change: dict[str, Any], words: str
) -> None:
    address = sa.make_url(role.url(database)).set(**change).render_as_string(hide_password=False)
    said = refusal(address)
    assert words in said and "\n" not in said
    assert "wrong-secret" not in said and role.password not in said and role.name not in said


def test_a_raw_at_sign_in_the_password_does_not_show_the_password(database: str) -> None:
    address = sa.make_url(database)
    engine = connect(f"postgresql://me:half@secret-half@{address.host}.invalid:{address.port}/x")
    with pytest.raises(StoreUnavailable) as caught, answering(engine), engine.connect():
        pass
    assert "secret-half@" not in str(caught.value) and "half@" not in str(caught.value)


def test_a_server_that_is_down_is_waited_for(database: str) -> None:
    address = sa.make_url(database).set(port=free_port()).render_as_string(hide_password=False)
    engine = connect(address)
    with pytest.raises(StoreUnavailable) as caught, answering(engine), engine.connect():
        pass
    assert not isinstance(caught.value, StoreRefused) and "Connection refused" in str(caught.value)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_is_not_utf8_is_refused(
    empty: Callable[[str], str], commands: CommandLine, encoding: str
) -> None:
    commands.set(
        DATABASE_URL=empty(f"encoding '{encoding}' lc_collate 'C' lc_ctype 'C'"), KAFKA_BOOTSTRAP_SERVERS="a:1"
    )
    said = commands("db", "upgrade")
    assert said.status == 2
    assert said.err.count("\n") == 1 and f"encoding is {encoding}; expected UTF8" in said.err


def test_a_role_without_the_right_to_create_is_told_which_grant(
    empty: Callable[[str], str], role: Role, commands: CommandLine
) -> None:
    commands.set(DATABASE_URL=role.url(empty("")), KAFKA_BOOTSTRAP_SERVERS="a:1")
    said = commands("db", "upgrade")
    assert said.status == 2 and said.err.count("\n") == 1
    assert "GRANT CREATE ON SCHEMA public" in said.err and role.password not in said.err


def test_tables_of_somebody_else_are_not_taken_over(empty: Callable[[str], str], postgres: Postgres) -> None:
    engine = connect(empty(""))
    with engine.begin() as connection:
        connection.execute(sa.text("create table orders (id int)"))
    with pytest.raises(ConfigError, match="tables named like ours"):
        preflight.require(preflight.server_problems(engine))
    engine.dispose()


def test_a_read_only_database_is_named(empty: Callable[[str], str], postgres: Postgres) -> None:
    url = empty("")
    run_sql(postgres, f"alter database {sa.make_url(url).database} set default_transaction_read_only = on")
    engine = connect(url)
    assert any("read-only" in problem for problem in preflight.server_problems(engine))
    engine.dispose()


def test_a_right_that_is_missing_is_named_before_anything_is_bought(role: Role, database: str) -> None:
    engine, mine = connect(database), connect(role.url(database))
    with engine.begin() as connection:
        connection.execute(sa.text(f"grant select, insert, update on all tables in schema public to {role.name}"))
        connection.execute(sa.text(f"revoke insert on order_events from {role.name}"))
    assert preflight.rights_problems(mine) == ["this role may not insert in order_events; expected GRANT"]
    engine.dispose(), mine.dispose()


async def test_a_right_that_goes_missing_holds_the_event_and_makes_no_dead_letter(role: Role, database: str) -> None:
    with store_on(database) as owner:
        owner.run(f"grant select, insert, update, delete on all tables in schema public to {role.name}")
        owner.run(f"grant usage on all sequences in schema public to {role.name}")
        owner.run(f"revoke insert on order_events from {role.name}")
        with store_on(role.url(database)) as store:
            provider = FakeProvider(Placed.ACCEPTED)
            worker = Worker(store, provider)
            handler = partial(dispatch.created, worker.deps)
            running = asyncio.create_task(worker.guard("dispatch", handler, created()))
            await asyncio.sleep(1.5)
            assert not running.done() and not provider.placed
            owner.run(f"grant insert on order_events to {role.name}")
            await asyncio.wait_for(running, 20)
            assert [row["state"] for row in owner.rows("select state from attempts")] == ["accepted"]
            assert not [record for record in worker.sent.records if record.topic == "orders.dead-letter"]


def connections(store: Store) -> int:
    return int(store.rows("select count(*) as n from pg_stat_activity where datname = current_database()")[0]["n"])


async def test_statements_that_time_out_cost_no_connections(database: str) -> None:
    with store_on(database) as watcher, store_on(database, statement_timeout_s=0.05) as store:
        with watcher.engine.begin() as other:
            other.execute(sa.text("lock table ledger_orders in access exclusive mode"))
            for _ in range(15):
                found = await asyncio.gather(
                    *(store.ledger.load(("t", f"o-{n}")) for n in range(6)), return_exceptions=True
                )
                assert all(isinstance(error, StoreUnavailable) for error in found)
            assert connections(watcher) <= 6 + 4 + 2


def test_the_options_of_the_address_are_kept_beside_our_limits(database: str) -> None:
    address = sa.make_url(database).update_query_dict({"options": "-c search_path=elsewhere"})
    engine = connect(address.render_as_string(hide_password=False), statement_timeout_s=7)
    with engine.connect() as connection:
        for name, value in [("search_path", "elsewhere"), ("statement_timeout", "7s"), ("TimeZone", "UTC")]:
            assert connection.execute(sa.text(f"show {name}")).scalar() == value
    engine.dispose()


def test_commits_are_durable_whatever_the_database_says(database: str, postgres: Postgres) -> None:
    run_sql(postgres, f"alter database {sa.make_url(database).database} set synchronous_commit = off")
    engine = connect(database)
    with engine.connect() as connection:
        assert connection.execute(sa.text("show synchronous_commit")).scalar() == "on"
    engine.dispose()


def test_behind_a_pooler_the_limits_are_set_in_each_transaction(database: str) -> None:
    engine = connect(database, statement_timeout_s=7, pooler="transaction")
    for _ in range(2):
        with engine.begin() as connection:
            assert connection.execute(sa.text("show statement_timeout")).scalar() == "7s"
            assert connection.execute(sa.text("show synchronous_commit")).scalar() == "on"
    with engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        raw.rollback()  # type: ignore[union-attr]
        cursor = raw.cursor()  # type: ignore[union-attr]
        cursor.execute("show statement_timeout")
        assert cursor.fetchone() == ("0",)  # nothing of ours stays in the session
    engine.dispose()


def test_a_pooler_that_drops_the_settings_is_named(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = sa.create_engine(sa.make_url(database).set(drivername="postgresql+psycopg2"))
    assert any("database.pooler: transaction" in problem for problem in preflight.server_problems(dropped))
    dropped.dispose()


class TestANewerSchema:
    """A release that is rolled back meets the schema of its successor."""

    def migrated(self, engine: sa.Engine, revision: str, compatible_from: str) -> None:
        with engine.begin() as connection:
            connection.execute(sa.text("create table new_feature (id int)"))
            connection.execute(sa.text("update alembic_version set version_num = :at"), {"at": revision})
            connection.execute(
                sa.text(
                    "update service_state set value = jsonb_build_object("
                    "'head', cast(:at as text), 'compatible_from', cast(:oldest as text)) where key = 'schema'"
                ),
                {"at": revision, "oldest": compatible_from},
            )

    def test_is_left_alone_when_it_says_that_this_release_works_on_it(self, database: str) -> None:
        engine = connect(database)
        schema.upgrade(engine)
        self.migrated(engine, "9001", schema.head())
        schema.upgrade(engine)
        assert schema.current(engine) == "9001" and schema.is_current(engine)
        engine.dispose()

    def test_is_refused_when_it_needs_a_newer_release(self, database: str) -> None:
        engine = connect(database)
        schema.upgrade(engine)
        self.migrated(engine, "9002", "9001")
        with pytest.raises(ConfigError, match="revision 9002 needs a release from 9001 on"):
            schema.upgrade(engine)
        engine.dispose()
