"""The database went back in time under a log that did not: nothing is sent before it was reconciled.

The judge is the provider simulator, which buys a repeated reference again (``repeat: accept-again``).
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from orderwatch.localservers.bundled import Broker, Postgres, _postgres_binaries
from streams.events import Attention, Created, decode
from tests.conftest import run_sql
from tests.integration.conftest import Start
from tests.system import System, http
from tests.waiting import wait_until

CAREFREE = {
    "kind": "znet",
    "currency": "TRY",
    "balance": 1000000,
    "credentials": {"kod": "demo", "sifre": "demo"},
    "life": {"after_checks": 3},
    "latency": {"kind": "constant", "ms": 100},
    "switches": {"repeat": "accept-again"},
}
SCENARIO = {
    "accounts": [
        {
            **CAREFREE,
            "id": "znet-main",
            "catalogue": [{"id": "1", "name": "Sixty", "oyun": "1", "kupur": "60", "price": "10.00"}],
        },
        {
            "id": "barakat-1",
            "kind": "zdk",
            "currency": "USD",
            "balance": 1000000,
            "credentials": {"token": "demo"},
            "life": {"after_checks": 1},
            "latency": {"kind": "constant", "ms": 5},
            "catalogue": [{"id": "10", "name": "Sixty", "price": "0.90", "qty_values": {"min": 1, "max": 9}}],
        },
    ]
}


def order(order_id: str, created_at: datetime | None = None) -> Created:
    return Created(
        order_id=order_id,
        tenant_id="shop",
        package_id="sixty",
        user_identifier="5551234567890",
        created_at=created_at or datetime.now(UTC),
    )


class Backup:
    """Dumps and restores the database of a system with the tools that an operator has."""

    def __init__(self, system: System, postgres: Postgres) -> None:
        self._url = sa.make_url(system.database)
        self._postgres = postgres
        self._file = system.directory / "backup.dump"
        system.directory.chmod(0o755)

    def _tool(self, name: str, *arguments: str) -> None:
        environ = {"PATH": os.defpath, "PGPASSWORD": str(self._url.password), "LC_ALL": "C"}
        command = [
            str(_postgres_binaries() / name),
            "-h",
            str(self._url.host),
            "-p",
            str(self._url.port),
            "-U",
            str(self._url.username),
            *arguments,
        ]
        done = subprocess.run(command, env=environ, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    def take(self) -> None:
        self._tool("pg_dump", "-Fc", "-f", str(self._file), str(self._url.database))

    def restore(self) -> None:
        run_sql(self._postgres, f"drop database {self._url.database} with (force)")
        run_sql(self._postgres, f"create database {self._url.database}")
        self._tool("pg_restore", "--no-owner", "-d", str(self._url.database), str(self._file))


@pytest.fixture
def system(system_of: Start, broker: Broker) -> Iterator[System]:
    yield system_of(broker.address, scenario=SCENARIO)


@pytest.fixture
def backup(system: System, postgres: Postgres) -> Backup:
    return Backup(system, postgres)


def health(worker: Any) -> Any:
    return http("GET", f"http://127.0.0.1:{worker.port}/health/")


def until_behind(system: System, worker: Any) -> str:
    """Why the worker sends nothing."""
    why: list[str] = []

    def behind() -> bool:
        try:
            why[:] = [health(worker)["ledger_behind"] or ""]
        except OSError:
            return False
        return bool(why[0])

    wait_until(behind, 40)
    return why[0]


def bought(system: System) -> int:
    return len(system.control("GET", "/ledger"))


def agree(system: System) -> None:
    verdict = system.books()
    assert verdict.agree, verdict.differences


def test_a_restored_database_sends_nothing_until_it_was_reconciled(system: System, backup: Backup) -> None:
    before = [order(f"before-{n}") for n in range(15)]
    worker = system.start_worker()
    system.send(before)
    not_sent = "select 1 from attempts where state in ('intent', 'sending')"
    wait_until(lambda: len(system.rows(not_sent)) >= 5, 40)
    backup.take()  # in the middle of it
    after = [order(f"after-{n}") for n in range(15)]
    system.send(after)
    wait_until(lambda: bought(system) == 30, 40)
    time.sleep(2.5)  # the worker marks the epoch in the log every 2 s
    worker.kill()  # most are bought and not final; of some nobody has heard the answer
    purchases = bought(system)

    backup.restore()
    worker = system.start_worker()
    system.send([*before, *after, late := order("late")])  # the shop says all of it again, and something new
    assert "epoch" in until_behind(system, worker)
    assert system.command("doctor", "--json").returncode == 1
    time.sleep(3)
    assert bought(system) == purchases

    rehearsed = json.loads(system.command("db", "recover", "--dry-run", "--json", "--by", "tester").stdout)
    assert rehearsed["reopened"] > 0
    assert health(worker)["ledger_behind"]
    done = system.command("db", "recover", "--json", "--by", "tester")
    assert done.returncode == 0, done.stderr
    system.wait_for_ends(60)
    assert health(worker)["ledger_behind"] is None
    agree(system)
    assert bought(system) == purchases + 1, late


def test_a_running_worker_notices_a_lost_tail(system: System, backup: Backup) -> None:
    worker = system.start_worker()
    system.send([order("first")])
    system.wait_for_ends(60)
    backup.take()
    tail = [order(f"tail-{n}") for n in range(5)]
    system.send(tail)
    system.wait_for_ends(60)
    purchases = bought(system)

    backup.restore()
    system.send([*tail, order("next")])
    until_behind(system, worker)
    assert bought(system) == purchases
    wait_until(
        lambda: (
            "ledger_behind" in {decode(Attention, record.value()).code for record in system.read("orders.attention")}
        ),
        20,
    )

    assert system.command("db", "recover", "--by", "tester").returncode == 0
    system.wait_for_ends(60)
    agree(system)
    assert bought(system) == purchases + 1


def test_an_order_that_the_ledger_forgot_is_explained_and_not_replayed(system: System, backup: Backup) -> None:
    worker = system.start_worker()
    system.send([order("kept")])
    system.wait_for_ends(60)
    backup.take()
    system.send([order("gone")])
    system.wait_for_ends(60)
    system.stop_worker(worker)
    backup.restore()
    said = system.command("order", "why", "shop", "gone")
    assert "the log does: it may have been bought" in said.stdout
    assert "orders.referenced: attempt 1 at znet-main" in said.stdout


def test_workers_of_one_group_never_use_two_ledgers(system: System, postgres: Postgres) -> None:
    worker = system.start_worker()
    system.send([order("one")])
    system.wait_for_ends(60)
    wait_until(lambda: bool(system.read("orders.ledger")), 20)
    other = f"other_{system.prefix[:-1]}"
    run_sql(postgres, f"create database {other}")
    config = system.directory / "other.yaml"
    config.write_text(system.config_path.read_text().replace(system.database, postgres.url_of(other)))
    refused = system.command("worker", "--config", str(config))
    run_sql(postgres, f"drop database {other} with (force)")
    assert refused.returncode == 2
    assert "this database is ledger" in refused.stderr and "Traceback" not in refused.stderr
    assert health(worker)["ledger_behind"] is None
