"""The commands around the dashboard: tokens, the server as a process, the published description."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from orderwatch.localservers.bundled import Broker
from streams.seal import VARIABLE, new_key
from tests.contract.command_line import CONFIG, CommandLine
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: str
) -> CommandLine:
    made = CommandLine(tmp_path, monkeypatch, capsys)
    made.set(DATABASE_URL=database, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    return made


def test_a_token_is_shown_once_listed_without_its_text_and_revoked(command: CommandLine) -> None:
    made = command(
        "token",
        "create",
        "--name",
        "shop",
        "--scope",
        "orders:write",
        "--scope",
        "orders:read",
        "--tenant",
        "demo",
        "--expires",
        "90d",
    )
    text = made.out.strip()
    assert (made.status, text[:3], len(text)) == (0, "ow_", 59)
    [row] = command("token", "list", "--json").document()["tokens"]
    assert (row["name"], row["tenant_id"], row["scopes"], row["created_by"]) == (
        "shop",
        "demo",
        ["orders:read", "orders:write"],
        "ayse",
    )
    assert text[-40:] not in command("token", "list").out + command("token", "list", "--json").out
    assert command("token", "revoke", row["id"]).status == 0
    assert command("token", "revoke", row["id"]).status == 1
    assert command("token", "list", "--json").document()["tokens"][0]["revoked_at"]


def test_a_token_of_all_scopes_and_tenants_is_made_by_one_word(command: CommandLine) -> None:
    made = command("token", "create", "--name", "me", "--scope", "all", "--json").document()
    assert made["tenant_id"] is None
    assert {"pins", "admin", "metrics"} <= set(made["scopes"])
    assert made["token"].startswith(f"ow_{made['id']}_")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--name", "x", "--scope", "everything"), "orders:read"),
        (("--name", " ", "--scope", "all"), "--name"),
        (("--name", "x", "--scope", "all", "--expires", "soon"), "90d"),
        (("--name", "x", "--scope", "all", "--tenant", "a b"), "--tenant"),
        (("--scope", "all"), "--name"),
        (("--name", "x"), "--scope"),
    ],
)
def test_a_token_that_cannot_be_made_is_explained(command: CommandLine, arguments: tuple[str, ...], word: str) -> None:
    said = command("token", "create", *arguments)
    assert (said.status, said.out) == (2, "")
    assert word in said.err


def test_the_description_is_printed_and_written(command: CommandLine) -> None:
    printed = yaml.safe_load(command("openapi").out)
    assert command("openapi", "-o", "described.yaml").status == 0
    assert yaml.safe_load((command.directory / "described.yaml").read_text("utf-8")) == printed
    assert command("openapi", "--json").document() == printed


def test_a_port_that_is_taken_is_named(command: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = command("dashboard", "--port", str(taken.getsockname()[1]))
    assert said.status == 2
    assert "web.port" in said.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_dashboard_says_where_it_is_and_ends_when_it_is_asked(
    tmp_path: Path, database: str, broker: Broker, number: signal.Signals
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": database,
        VARIABLE: new_key(),
        "KAFKA_BOOTSTRAP_SERVERS": broker.address,
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "orderwatch", "dashboard", "--port", "0"],
            cwd=tmp_path,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: "dashboard at " in log.read_text("utf-8"), timeout_s=60)
        url = log.read_text("utf-8").partition("dashboard at ")[2].split()[0]
        with urllib.request.urlopen(f"{url}/health", timeout=20) as answer:
            assert answer.status == 200
    finally:
        process.send_signal(number)
        status = process.wait(30)
    assert status in (0, -number, 128 + number)
    assert "Traceback" not in log.read_text("utf-8")
