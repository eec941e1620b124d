"""The bundled servers: they start, remember, crash and recover, and nothing outlives the process that started them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa

from orderwatch.localservers import bundled
from orderwatch.localservers.bundled import HOST, Broker, PartError, Postgres, announce, running, withdraw
from orderwatch.localservers.child_process import ChildProcess
from tests.conftest import wait_until

OWNER = """
import sys, time
from pathlib import Path
from orderwatch.localservers.bundled import Broker, Postgres
here = Path(sys.argv[1])
with Broker(here / "broker") as broker, Postgres(here / "postgres", durable=False) as postgres:
    print(broker._process.pid, postgres._process.pid, flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def directory(parts_directory: Path, request: pytest.FixtureRequest) -> Path:
    made = parts_directory / request.node.name
    made.mkdir()
    return made


def value(url: str, statement: str) -> object:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sa.text(statement))
        return result.scalar() if result.returns_rows else None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_server_outlives_the_process_that_started_it(directory: Path, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, str(directory)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 2 and all(alive(pid) for pid in pids)
        owner.send_signal(number)
    wait_until(lambda: not any(alive(pid) for pid in pids))


def test_a_server_does_not_outlive_its_killed_keeper(directory: Path) -> None:
    process = ChildProcess(["sleep", "60"], log=directory / "log")
    os.kill(process._keeper.pid, signal.SIGKILL)
    wait_until(lambda: not alive(process.pid))
    process.stop()


def test_a_command_that_ignores_the_stop_signal_is_killed(directory: Path) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    script = f"import signal, time; {deaf}; print('deaf', flush=True); time.sleep(60)"
    process = ChildProcess([sys.executable, "-c", script], log=directory / "log", grace_s=0.2)
    wait_until(lambda: "deaf" in (directory / "log").read_text())
    process.stop()
    assert process.ended() and not alive(process.pid)


def test_a_command_has_the_default_signal_actions(directory: Path) -> None:
    script = "import signal; print(repr(signal.getsignal(signal.SIGTERM)))"
    process = ChildProcess([sys.executable, "-c", script], log=directory / "log")
    wait_until(process.ended)
    process.stop()
    assert "SIG_DFL" in (directory / "log").read_text()


def test_a_stopped_postgres_starts_again_at_the_same_url_with_its_data(directory: Path) -> None:
    with Postgres(directory, durable=False) as postgres:
        url = postgres.url
        value(url, "create table kept (x int)")
        postgres.stop()
        with pytest.raises(sa.exc.OperationalError):
            value(url, "select 1")
        postgres.start()
        assert postgres.url == url
        assert value(url, "select count(*) from kept") == 0


def test_a_crashed_postgres_breaks_connections_and_recovers_what_was_committed(directory: Path) -> None:
    with Postgres(directory, durable=False) as postgres:
        value(postgres.url, "create table kept (x int)")
        value(postgres.url, "insert into kept values (7)")
        engine = sa.create_engine(postgres.url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text("insert into kept values (8)"))
            postgres.stop(immediate=True)
            with pytest.raises(sa.exc.OperationalError):
                connection.execute(sa.text("select 1"))
            connection.invalidate()
        postgres.start()
        assert value(postgres.url, "select sum(x) from kept") == 7


def test_postgres_listens_on_loopback_and_wants_its_password(postgres: Postgres) -> None:
    assert value(postgres.url, "show listen_addresses") == HOST
    assert value(postgres.url, "show unix_socket_directories") == ""
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(host=HOST, port=postgres.port, user="postgres", password="guess", dbname="postgres")
    assert oct(postgres.password_file.stat().st_mode & 0o777) == "0o600"


def test_a_broker_that_cannot_start_says_why(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "_broker_binary", lambda: "/bin/false")
    with pytest.raises(PartError, match="the bundled broker did not start"):
        Broker(directory).start()


def test_a_taken_port_is_not_mistaken_for_a_started_server(directory: Path, broker: Broker) -> None:
    other = Broker(directory)
    other.port = broker.port
    with pytest.raises(PartError, match="the bundled broker did not start"):
        other.start()


def test_a_first_start_on_a_taken_port_takes_another_one(
    directory: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([broker.port, bundled.free_port()])
    monkeypatch.setattr(bundled, "free_port", lambda: next(ports))
    with Broker(directory) as other:
        assert other.port != broker.port


def test_each_test_has_its_own_database_with_the_schema(database: str, template: str) -> None:
    assert template not in database
    assert value(database, "select count(*) from orders") == 0


class TestAnnouncement:
    def test_is_found_while_the_servers_run_and_gone_after(
        self, tmp_path: Path, broker: Broker, postgres: Postgres
    ) -> None:
        state = tmp_path / "deep" / "parts.json"
        assert running(state) is None
        announced = announce(broker.address, postgres.url, state)
        assert running(state) == announced
        assert oct(state.stat().st_mode & 0o777) == "0o600"
        assert postgres.url not in repr(announced)
        withdraw(state)
        assert running(state) is None

    def test_of_a_dead_process_is_ignored(self, tmp_path: Path, broker: Broker, postgres: Postgres) -> None:
        state = tmp_path / "parts.json"
        gone = subprocess.Popen(["true"])
        gone.wait()
        announced = announce(broker.address, postgres.url, state)
        state.write_text(state.read_text().replace(f'"pid": {announced.pid}', f'"pid": {gone.pid}'))
        assert running(state) is None
        withdraw(state)
        assert state.exists()  # another process's

    def test_of_servers_that_do_not_answer_is_ignored(self, tmp_path: Path, postgres: Postgres) -> None:
        state = tmp_path / "parts.json"
        announce(f"{HOST}:{bundled.free_port()}", postgres.url, state)
        assert running(state) is None

    def test_that_cannot_be_read_is_ignored(self, tmp_path: Path) -> None:
        state = tmp_path / "parts.json"
        state.write_text('{"broker": ')
        assert running(state) is None
