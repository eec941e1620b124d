"""``orderwatch worker`` on bundled servers: ready, stopped by a signal, and told when a process dies."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orderwatch.localservers.bundled import Broker, running
from tests.contract.command_line import CommandLine
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], parts_directory: Path
) -> CommandLine:
    # Not in tmp_path: PostgreSQL under root is another user, who may not go there.
    directory = parts_directory / tmp_path.name
    directory.mkdir()
    made = CommandLine(directory, monkeypatch, capsys)
    made.set(PYTHONPATH=str(ROOT))
    return made


@pytest.fixture
def worker(command: CommandLine) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker with one process; its output is in worker.log."""
    yield from started(command)


@pytest.fixture
def lone_worker(command: CommandLine, broker: Broker, database: str) -> Iterator["subprocess.Popen[bytes]"]:
    """As ``worker``, on servers that somebody else keeps."""
    command.set(KAFKA_BOOTSTRAP_SERVERS=broker.address, DATABASE_URL=database, PREFIX="lone.")
    yield from started(command)


def started(command: CommandLine) -> Iterator["subprocess.Popen[bytes]"]:
    with (command.directory / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "orderwatch", "worker", "--web-port", "0"],
            cwd=command.directory,
            stdout=log,
            stderr=log,
        )
    yield process
    if process.poll() is None:
        process.terminate()
    process.wait(60)


def children(pid: int) -> list[int]:
    """The worker processes among our children, not the keepers of the bundled servers."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [int(child) for child in found if b"faust" in Path(f"/proc/{child}/cmdline").read_bytes()]


def log_of(command: CommandLine) -> str:
    return (command.directory / "worker.log").read_text(encoding="utf-8", errors="replace")


def test_a_worker_brings_its_servers_does_its_work_and_leaves_nothing(
    command: CommandLine, worker: "subprocess.Popen[bytes]"
) -> None:
    wait_until(running, 60)
    wait_until(lambda: command("db", "current").status == 0 and children(worker.pid), 60)
    wait_until(lambda: command("topics", "apply").status == 0, 60)
    placed = command("produce", "--tenant", "demo", "--order", "o-1", "--package", "none", "--user", "player-123456")
    assert placed.status == 0, placed.err
    said = wait_until(lambda: (why := command("order", "why", "demo", "o-1")).status == 0 and why, 60)
    assert "no route is configured" in said.out
    assert "player-123456" not in log_of(command)
    [process] = children(worker.pid)
    parts = running()
    assert parts is not None

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(60) == 0, log_of(command)[-2000:]
    assert not Path(f"/proc/{process}").exists()
    assert running() is None
    assert not (command.directory / ".orderwatch" / "parts.json").exists()


def test_a_worker_whose_process_was_killed_says_so_and_ends_with_1(
    command: CommandLine, worker: "subprocess.Popen[bytes]"
) -> None:
    [process] = wait_until(lambda: running() and children(worker.pid), 60)

    os.kill(process, signal.SIGKILL)

    assert worker.wait(60) == 1
    assert f"(pid {process}) ended with status -9; 0 left" in log_of(command)
    assert running() is None


def test_beside_servers_that_others_keep_it_forgets_what_it_prepared_with(
    command: CommandLine, lone_worker: "subprocess.Popen[bytes]"
) -> None:
    [process] = wait_until(lambda: children(lone_worker.pid), 60)
    wait_until(lambda: "configuration in use" in log_of(command), 60)
    mapped = Path(f"/proc/{lone_worker.pid}/maps").read_text("utf-8")
    assert "python" in mapped and not any(name in mapped for name in ("librdkafka", "pydantic_core", "psycopg2"))

    lone_worker.send_signal(signal.SIGTERM)

    assert lone_worker.wait(60) == 0, log_of(command)[-2000:]
    assert not Path(f"/proc/{process}").exists()
