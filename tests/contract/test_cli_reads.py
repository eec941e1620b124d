"""Commands that read: orders, why, attention, dead letters, codes, schema."""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from db import models as m
from streams.seal import VARIABLE, Sealer, new_key
from tests.contract.command_line import CommandLine
from tests.contract.ledger_rows import BORN, put_attempt, put_dead_letter, put_order, reading


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: str
) -> CommandLine:
    made = CommandLine(tmp_path, monkeypatch, capsys)
    made.set(DATABASE_URL=database, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    return made


@pytest.fixture
def engine(database: str) -> Iterator[sa.Engine]:
    with reading(database) as made:
        yield made


def test_orders_are_listed_page_by_page(command: CommandLine, engine: sa.Engine) -> None:
    for number in range(5):
        put_order(engine, f"o-{number}", created_at=BORN + timedelta(seconds=number))

    first = command("orders", "list", "--limit", "3")
    behind = first.out.splitlines()[-1].removeprefix("more: --after ")
    last = command("orders", "list", "--limit", "3", "--after", behind)

    assert (first.status, last.status) == (0, 0)
    assert [line.split()[1] for line in first.out.splitlines()[1:4]] == ["o-4", "o-3", "o-2"]
    assert [line.split()[1] for line in last.out.splitlines()[1:]] == ["o-1", "o-0"]
    document = command("orders", "list", "--json", "--limit", "3").document()
    assert [row["order_id"] for row in document["orders"]] == ["o-4", "o-3", "o-2"]
    assert command("orders", "list", "--json", "--after", document["next"]).document()["next"] is None


def test_lists_and_screens_hide_the_player_and_the_phone(command: CommandLine, engine: sa.Engine) -> None:
    put_order(engine)
    put_attempt(engine, "accepted", pins=["gAAAA-sealed"])
    put_dead_letter(engine, order_id="o-1")
    for arguments in (
        ("orders", "list"),
        ("orders", "list", "--json"),
        ("order", "show", "demo", "o-1"),
        ("order", "show", "demo", "o-1", "--json"),
        ("order", "why", "demo", "o-1"),
        ("order", "why", "demo", "o-1", "--json"),
        ("dlq", "list"),
        ("dlq", "show", "1"),
        ("dlq", "show", "1", "--json"),
    ):
        said = command(*arguments)
        assert said.status == 0, arguments
        assert "o-1" in said.out
        for secret in ("player-123456", "5551112233", "gAAAA-sealed"):
            assert secret not in said.out, arguments
    assert "player-123456" in command("order", "show", "demo", "o-1", "--raw").out
    assert "player-123456" in command("dlq", "show", "1", "--raw").out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("orders", "list", "--status", "sideways"), "sideways"),
        (("orders", "list", "--older-than", "soon"), "90s, 15m, 24h"),
        (("orders", "list", "--waiting", "nowhere"), "no_routing"),
        (("orders", "list", "--after", "x"), "--after is x"),
        (("orders", "list", "--limit", "0"), "--limit"),
        (("order", "why", "demo"), "order"),
        (("order", "resolve", "demo", "o", "--attempt", "1", "--as", "gone", "--reason", "r"), "not-sent"),
        (("order", "resolve", "demo", "o", "--attempt", "1", "--as", "failed", "--reason", " "), "--reason is empty"),
        (("dlq", "replay"), "one of ID"),
        (("dlq", "replay", "1", "--all"), "one of ID"),
        (("produce",), "--tenant --order --package --user"),
        (("produce", "f.csv", "--user", "x"), "not both"),
        (("produce", "f.txt"), "expected a .jsonl or a .csv"),
        (("produce", "absent.csv"), "absent.csv"),
        (("balance", "nobody"), "expected one of znet-main"),
        (("db", "upgrade", "no_such_revision"), "no_such_revision"),
        (("orders", "list", "--config", "absent.yaml"), "absent.yaml"),
        (("no-such-command",), "no-such-command"),
    ],
)
def test_wrong_usage_is_said_on_stderr_and_ends_with_2(
    command: CommandLine, arguments: tuple[str, ...], word: str
) -> None:
    said = command(*arguments)
    assert said.status == 2
    assert word in said.err.replace("\n", " ")
    assert said.out == ""


def test_why_says_headline_times_actor_and_evidence(command: CommandLine, engine: sa.Engine) -> None:
    put_order(engine, lines=1)
    put_attempt(
        engine,
        "unknown",
        absent_answers=2,
        sent_at=BORN,
        next_check_at=BORN + timedelta(days=9000),
        check_number=3,
        evidence={"last": {"kind": "not_found"}},
    )

    said = command("order", "why", "demo", "o-1")
    document = command("order", "why", "demo", "o-1", "--json").document()

    assert said.status == 0
    assert said.out.splitlines()[0].startswith("It is not known whether znet-main bought it")
    assert "2 of 5 consistent answers" in said.out  # five is what the znet profile asks for
    assert "kind=not_found" in said.out
    assert document["actor"] == "the engine"
    assert document["when"].startswith("2050-08-23T12:00:00")
    assert document["known"] is True


def test_why_of_an_unknown_order_ends_with_1_and_tells_where_to_look(command: CommandLine) -> None:
    said = command("order", "why", "demo", "nothing")
    assert said.status == 1
    assert "Check the spelling" in said.out
    assert command("order", "why", "demo", "nothing", "--json").document()["known"] is False


def test_why_of_an_order_in_the_dead_letters_names_the_letter(command: CommandLine, engine: sa.Engine) -> None:
    put_dead_letter(engine, order_id="o-7")
    said = command("order", "why", "demo", "o-7")
    assert said.status == 0
    assert "orderwatch dlq replay 1" in said.out
    assert "quantity: Expected `int`, got `str`" in said.out


@pytest.mark.parametrize("action", ["show", "check", "replay", "pin"])
def test_an_order_that_does_not_exist_ends_with_1(command: CommandLine, action: str) -> None:
    said = command("order", action, "demo", "nothing")
    assert said.status == 1
    assert "nothing" in said.err
    assert said.out == ""


def test_an_order_is_found_by_its_reference(command: CommandLine, engine: sa.Engine) -> None:
    put_order(engine)
    put_attempt(engine, "accepted", reference="7000000000000001")
    assert "o-1" in command("order", "find", "7000000000000001").out
    assert command("order", "find", "7").status == 1


def test_a_pin_is_released_in_the_open_only_with_an_audit_row(command: CommandLine, engine: sa.Engine) -> None:
    sealed = Sealer.from_environ(os.environ).seal("TR-1234-ĞÜ")
    done = {"status": "approved", "external_status": "completed"}
    put_order(engine, **done, finished_at=BORN, view=done)
    put_attempt(engine, "completed", pins=[sealed])

    said = command("order", "pin", "demo", "o-1", "--by", "mehmet")

    assert (said.status, said.out) == (0, "TR-1234-ĞÜ\n")
    with engine.connect() as connection:
        [row] = connection.execute(sa.select(m.audit)).mappings()
    assert (row["actor"], row["action"], row["order_id"]) == ("mehmet", "pin.release", "o-1")
    assert "1234" not in json.dumps(row["details"])


def test_a_pin_stays_sealed_without_its_key(command: CommandLine, engine: sa.Engine) -> None:
    done = {"status": "approved", "external_status": "completed"}
    put_order(engine, **done, finished_at=BORN, view=done)
    put_attempt(engine, "completed", pins=[Sealer([new_key()]).seal("TR-1234")])
    other_key = command("order", "pin", "demo", "o-1")
    command.unset(VARIABLE)
    no_key = command("order", "pin", "demo", "o-1")
    for said in (other_key, no_key):
        assert said.status == 2
        assert VARIABLE in said.err
    with engine.connect() as connection:
        assert connection.execute(sa.select(m.audit)).all() == []


def test_a_code_is_loaded_once_even_after_the_sealing_keys_rotated(command: CommandLine, engine: sa.Engine) -> None:
    (command.directory / "codes.txt").write_text("AAA-1\n\nAAA-2\n AAA-1 \n", encoding="utf-8")
    first = command("codes", "add", "demo", "steam", "codes.txt")
    command.set(**{VARIABLE: f"{new_key()},{os.environ[VARIABLE]}"})
    (command.directory / "more.txt").write_text("AAA-2\nAAA-3\n", encoding="utf-8")
    second = command("codes", "add", "demo", "steam", "more.txt", "--json").document()

    assert "line 4: this code was loaded before" in first.err
    assert "2 codes added" in first.out
    assert (second["added"], second["duplicate_lines"]) == (1, [1])
    assert command("codes", "list", "--json").document()["codes"][0]["available"] == 3
    with engine.connect() as connection:
        stored = [dict(row) for row in connection.execute(sa.select(m.codes)).mappings()]
        assert "AAA-" not in repr(stored)
    opened = sorted(Sealer.from_environ(os.environ).open(row["sealed"]) for row in stored)
    assert opened == ["AAA-1", "AAA-2", "AAA-3"]


def test_no_codes_are_a_mistake(command: CommandLine) -> None:
    (command.directory / "codes.txt").write_text("\n", encoding="utf-8")
    assert command("codes", "add", "demo", "steam", "codes.txt").status == 2


def test_the_schema_goes_down_and_up_by_command(command: CommandLine) -> None:
    assert command("db", "current").status == 0
    assert command("db", "upgrade").out.endswith("nothing to do\n")
    assert command("db", "downgrade", "base").status == 0
    behind = command("db", "current", "--json")
    assert (behind.status, behind.document()["current"]) == (1, None)
    without_tables = command("orders", "list")
    assert without_tables.status == 2
    assert "run `orderwatch db upgrade`" in without_tables.err
    assert command("db", "upgrade").status == 0
    assert command("orders", "list").out == "no such orders\n"


def test_a_database_that_is_away_is_one_line(command: CommandLine) -> None:
    command.set(DATABASE_URL="postgresql+psycopg2://u:secret-word@127.0.0.1:1/none")
    for arguments in (("orders", "list"), ("order", "why", "demo", "o"), ("attention", "list"), ("db", "upgrade")):
        said = command(*arguments)
        assert said.status == 2, arguments
        assert said.err.count("\n") == 1
        assert "PostgreSQL did not answer" in said.err


def test_a_broker_that_is_away_is_one_line(command: CommandLine) -> None:
    said = command("topics", "apply")
    assert said.status == 2
    assert said.err.count("\n") == 1
    assert "kafka" in said.err


def test_bundled_servers_that_do_not_run_are_one_line(command: CommandLine) -> None:
    command.unset("DATABASE_URL")
    command.unset("KAFKA_BOOTSTRAP_SERVERS")
    said = command("orders", "list")
    assert said.status == 2
    assert said.err == "no embedded parts are running: start `orderwatch worker` or `orderwatch demo` first\n"


def test_a_mistake_in_the_configuration_is_one_line_each(command: CommandLine) -> None:
    text = (command.directory / "config.yaml").read_text(encoding="utf-8")
    (command.directory / "config.yaml").write_text(text.replace("timeout: 2s", "timeout: 2"), encoding="utf-8")
    said = command("orders", "list")
    assert said.status == 2
    assert "integrations[0].limits.timeout" in said.err


def test_a_route_is_tested_without_sending_anything(command: CommandLine) -> None:
    said = command("route", "test", "demo", "pubg-60", "--user", "player-77", "--json")
    document = said.document()
    assert (said.status, document["integration"]) == (0, "znet-main")
    [request] = [step for step in document["steps"] if step["name"] == "request"]
    assert "kod=MASKED&sifre=MASKED" in request["shown"]["url"] and "player-77" in request["shown"]["url"]
    table = command("route", "test", "demo", "pubg-60")
    assert (table.status, table.out.splitlines()[-1]) == (0, "the order would be sent to znet-main")
    missing = command("route", "test", "demo", "none")
    assert (missing.status, "no route for package none" in missing.out) == (1, True)


def test_why_offers_what_would_be_accepted_as_commands(command: CommandLine, engine: sa.Engine) -> None:
    put_order(engine, waiting="manual_route")
    said = command("order", "why", "demo", "o-1")
    may = [line.strip() for line in said.out.splitlines() if line.startswith("  orderwatch order")]
    assert may == [
        "orderwatch order check demo o-1",
        "orderwatch order resolve demo o-1 --attempt 0 --as completed|failed --reason ...",
        "orderwatch order send-to demo o-1 znet-main --reason ...",
        "orderwatch order cancel demo o-1 --reason ...",
    ]
    actions = command("order", "why", "demo", "o-1", "--json").document()["actions"]
    assert [action["action"] for action in actions] == ["check", "resolve", "send_to", "cancel"]
