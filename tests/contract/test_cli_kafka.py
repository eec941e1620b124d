"""Commands that speak to the broker: topics, produce, tail, check, replay, doctor."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from agents.diagnosis.redaction import readable
from db import models as m
from db.control import api_tokens
from db.reads import queries
from orderwatch.localservers.bundled import Broker
from orderwatch.support.session import configured
from tests.contract.command_line import CommandLine
from tests.contract.hands import carrying_out
from tests.contract.ledger_rows import BORN, put, put_attempt, put_dead_letter, put_order, reading

GOOD = {
    "order_id": "o-1",
    "tenant_id": "demo",
    "package_id": "pubg-60",
    "user_identifier": "player-123456",
    "created_at": "2026-01-01T12:00:00Z",
}


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: str, broker: Broker
) -> CommandLine:
    """A site with topics of its own on the bundled broker."""
    made = CommandLine(tmp_path, monkeypatch, capsys)
    made.set(DATABASE_URL=database, KAFKA_BOOTSTRAP_SERVERS=broker.address, PREFIX=f"t{uuid4().hex[:8]}.")
    assert made("topics", "apply").status == 0
    return made


@pytest.fixture
def engine(database: str) -> Iterator[sa.Engine]:
    with reading(database) as made:
        yield made


@pytest.fixture
def hands(command: CommandLine) -> Iterator[None]:
    """Commands are carried out while the test runs."""
    with carrying_out(configured(Path("config.yaml"))):
        yield


def told(command: CommandLine, topic: str) -> list[dict[str, Any]]:
    said = command("tail", topic, "--from-start", "--until-end", "--json")
    assert said.status == 0, said.err
    return [json.loads(line) for line in said.out.splitlines()]


def test_topics_are_applied_once_and_named(command: CommandLine) -> None:
    again = command("topics", "apply", "--json").document()
    names = [name.partition(".")[2] for name in again["topics"]]
    assert {"orders.created", "orders.check", "orders.retry.60s", "orders.dead-letter"} <= set(names)
    assert [item for item in again["differences"] if item["what"] == "topic"] == []


def test_one_order_is_placed_by_flags(command: CommandLine) -> None:
    said = command(
        "produce",
        "--tenant",
        "demo",
        "--order",
        "o-1",
        "--package",
        "pubg-60",
        "--user",
        "player-123456",
        "--quantity",
        "2",
        "--param",
        "server=eu",
    )
    assert said.status == 0, said.err
    [record] = told(command, "orders.created")
    assert record["key"] == "o-1"
    assert record["headers"]["ce_type"] == "orderwatch.order.created.v1"
    assert record["value"]["quantity"] == 2
    assert record["value"]["user_identifier"] == "***56"
    assert record["value"]["params"] == {"server": "***"}


def test_a_wrong_order_by_flags_is_refused_before_it_is_sent(command: CommandLine) -> None:
    said = command("produce", "--tenant", "demo", "--order", "o 1", "--package", "p", "--user", "player-123456")
    assert said.status == 1
    assert "order_id" in said.err
    assert told(command, "orders.created") == []


def test_bad_json_lines_are_told_and_set_aside_and_the_rest_is_sent(command: CommandLine) -> None:
    lines = [
        json.dumps(GOOD),
        "not json",
        json.dumps({**GOOD, "order_id": "o-2", "quantity": 0}),
        "",
        json.dumps({**GOOD, "order_id": "o-3"}),
        "[1]",
        json.dumps({key: value for key, value in GOOD.items() if key != "package_id"}),
    ]
    file = command.directory / "orders.jsonl"
    file.write_bytes("\n".join(lines).encode() + b'\n{"order_id": "\xff"}\n')

    said = command("produce", "orders.jsonl")

    assert said.status == 1
    assert sorted(record["key"] for record in told(command, "orders.created")) == ["o-1", "o-3"]
    assert [line.split(": ")[1] for line in said.err.splitlines()] == ["line 2", "line 3", "line 6", "line 7", "line 8"]
    assert "line 3: quantity: " in said.err
    assert "line 7: package_id: missing" in said.err
    assert said.out.startswith("2 sent, 5 rejected")
    rejects = (command.directory / "orders.rejects.jsonl").read_bytes().splitlines()
    assert rejects == [
        lines[1].encode(),
        lines[2].encode(),
        lines[5].encode(),
        lines[6].encode(),
        b'{"order_id": "\xff"}',
    ]
    assert "player-123456" not in said.err


def test_a_csv_keeps_its_header_in_the_rejects_and_a_repaired_file_leaves_none(command: CommandLine) -> None:
    header = "order_id,package_id,user_identifier,quantity,params.server,sell_price_amount,sell_price_currency"
    bad = ["o-2,pubg-60,player-123456,many,,,", "o-3,pubg-60", 'o-4,pubg-60,"player\n-2",0,,,']
    file = command.directory / "orders.csv"
    file.write_text("\n".join([header, "o-1,pubg-60,player-123456,2,eu,12.50,TRY", *bad]) + "\n", encoding="utf-8-sig")

    said = command("produce", "orders.csv", "--tenant", "demo", "--json")

    document = said.document()
    assert said.status == 1
    assert (document["sent"], document["unsent"]) == (1, 0)
    assert [item["line"] for item in document["rejected"]] == [3, 4, 5]
    assert [item["reason"].split(":")[0] for item in document["rejected"]] == [
        "quantity",
        "2 cells; expected 7 as in the header",
        "quantity",
    ]
    [record] = told(command, "orders.created")
    assert record["value"]["sell_price"] == {"amount": "12.50", "currency": "TRY"}
    assert record["value"]["tenant_id"] == "demo"
    rejects = command.directory / "orders.rejects.csv"
    assert rejects.read_text(encoding="utf-8") == "\n".join([header, *bad]) + "\n"

    file.write_text("\n".join([header, "o-1,pubg-60,player-123456,2,eu,12.50,TRY"]), encoding="utf-8")
    assert command("produce", "orders.csv", "--tenant", "demo").status == 0
    assert not rejects.exists()


def test_an_unknown_column_is_a_mistake_and_nothing_is_sent(command: CommandLine) -> None:
    (command.directory / "orders.csv").write_text("order_id,player\no-1,x\n", encoding="utf-8")
    said = command("produce", "orders.csv")
    assert said.status == 2
    assert "'player'" in said.err
    assert told(command, "orders.created") == []


def test_a_thousand_lines_tell_their_progress_without_a_terminal(command: CommandLine) -> None:
    file = command.directory / "orders.jsonl"
    file.write_text("".join(json.dumps({**GOOD, "order_id": f"o-{n}"}) + "\n" for n in range(2500)), encoding="utf-8")
    said = command("produce", "orders.jsonl")
    assert (said.status, said.out) == (0, "2500 sent, 0 rejected\n")
    assert "orders.jsonl: 2000 sent\n" in said.err
    assert len(told(command, "orders.created")) == 2500


def test_tail_masks_pins_and_measures_what_it_cannot_read(command: CommandLine) -> None:
    assert readable(b'{"pins": ["gAAAA"], "last": {"pins": ["x", "y"], "user_identifier": "abcdefgh"}}') == {
        "pins": ["sealed (1)"],
        "last": {"pins": ["sealed (2)"], "user_identifier": "***gh"},
    }
    assert readable(b"\xff\x00secret") == "8 bytes, not a JSON object"
    assert readable(b"[" * 100_000) == "100000 bytes, not a JSON object"
    missing = command("tail", "orders.nothing", "--until-end")
    assert missing.status == 2
    assert "topics apply" in missing.err


def test_tail_stops_after_its_limit(command: CommandLine) -> None:
    for number in range(3):
        command("produce", "--tenant", "demo", "--order", f"o-{number}", "--package", "p", "--user", "player-123456")
    said = command("tail", "orders.created", "--from-start", "--limit", "2")
    assert (said.status, len(said.out.splitlines())) == (0, 2)
    assert "package_id=p" in said.out


def test_an_act_without_a_worker_waits_in_its_topic_and_says_so(command: CommandLine, engine: sa.Engine) -> None:
    put_order(engine, lines=1, attempts=1, external_status="unknown", version=1)
    put_attempt(engine, "unknown", sent_at=BORN)
    words = ("demo", "o-1", "--reason", "seen in their panel", "--by", "mehmet", "--wait", "0.1", "--command-id")

    said = command("order", "resolve", *words, "c-1", "--attempt", "1", "--as", "not-sent", "--evidence", "ticket 5")
    others = [
        command("order", act, *words, f"c-{number}", "--json")
        for number, act in enumerate(("check", "place-again", "cancel"), start=2)
    ]
    sent = command("order", "send-to", "demo", "o-1", "znet-main", *words[2:], "c-5")

    assert (said.status, said.out, "no worker answered within 0.1 s: command c-1" in said.err) == (1, "", True)
    assert [(one.status, one.document()["done"]) for one in others] == [(1, None)] * 3
    assert sent.status == 1
    sent_events = [record["value"] for record in told(command, "orders.command")]
    [first, *rest] = sorted(sent_events, key=lambda value: str(value["command_id"]))
    assert {**first, "issued_at": ""} == {
        "command_id": "c-1",
        "order_id": "o-1",
        "tenant_id": "demo",
        "action": "resolve",
        "by": "mehmet",
        "reason": "seen in their panel",
        "attempt": 1,
        "outcome": "not_sent",
        "evidence": "ticket 5",
        "issued_at": "",
    }
    assert [value["action"] for value in rest] == ["check", "place_again", "cancel", "send_to"]
    assert rest[-1]["integration_id"] == "znet-main"


def test_the_answer_of_a_worker_is_the_end_of_an_act(command: CommandLine, engine: sa.Engine) -> None:
    put_order(engine)
    words = ("order", "cancel", "demo", "o-1", "--reason", "r", "--command-id")
    for name, done, order_id in (("c-1", True, "o-1"), ("c-2", False, "o-1"), ("c-3", True, "other")):
        put(
            engine,
            m.commands,
            command_id=name,
            tenant_id="demo",
            order_id=order_id,
            action="cancel",
            by="ayse",
            reason="r",
            issued_at=BORN,
            done=done,
            said=f"said {name}",
            decided_at=BORN,
        )

    done, refused, foreign = (command(*words, name) for name in ("c-1", "c-2", "c-3"))

    assert (done.status, done.out, done.err) == (0, "said c-1\n", "")
    assert (refused.status, refused.out, refused.err) == (1, "", "said c-2\n")
    assert (foreign.status, foreign.out) == (2, "")
    assert command(*words, "c-2", "--json").document()["done"] is False
    wrong = command(*words, "not an id")
    assert (wrong.status, "command_id" in wrong.err) == (2, True)


def test_settling_needs_both_servers_and_says_so(command: CommandLine, engine: sa.Engine) -> None:
    put_order(engine, "o")
    command.set(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    said = command("order", "resolve", "demo", "o", "--attempt", "1", "--as", "failed", "--reason", "r")
    assert (said.status, said.err.count("\n")) == (2, 1)


def test_a_replayed_order_is_the_same_event_again(command: CommandLine, engine: sa.Engine) -> None:
    command("produce", "--tenant", "demo", "--order", "o-1", "--package", "pubg-60", "--user", "player-123456")
    put_order(engine)
    assert command("order", "replay", "demo", "o-1", "--by", "ayse", "--reason", "lost by the broker").status == 0
    with engine.connect() as connection:
        kept = connection.execute(sa.text("select actor, details from audit where action = 'order.replay'")).one()
    assert tuple(kept) == ("ayse", {"reason": "lost by the broker"})
    first, second = told(command, "orders.created")
    assert first["headers"]["ce_id"] == second["headers"]["ce_id"]
    assert second["key"] == "o-1"


def letter(order_id: str, **fields: Any) -> bytes:
    return json.dumps({**GOOD, "order_id": order_id, **fields}).encode()


def test_dead_letters_go_back_as_they_came(command: CommandLine, engine: sa.Engine, hands: None) -> None:
    headers = {"ce_type": "orderwatch.order.created.v1", "dlq.reason": "handler_failed", "traceparent": "00-1-2-01"}
    put_dead_letter(
        engine, 0, order_id="o-1", reason="handler_failed", value=letter("o-1", quantity=2), headers=headers
    )
    put_dead_letter(
        engine,
        1,
        order_id="o-2",
        reason="order_not_found",
        topic="orders.check",
        value=json.dumps(
            {
                "order_id": "o-2",
                "tenant_id": "demo",
                "attempt": 0,
                "check_number": 0,
                "reason": "sweep",
                "due_at": "2026-01-01T12:00:00Z",
            }
        ).encode(),
    )
    put_dead_letter(engine, 2, order_id="o-3", reason="handler_failed", value=letter("o-3"))

    dry = command("dlq", "replay", "--all", "--dry-run")
    assert (dry.status, told(command, "orders.created")) == (1, [])
    assert dry.out.splitlines()[-1] == "2 would be sent, 1 not; expected cost 2 of unknown price"
    assert "order o-2 of demo is not in the ledger: it would be set aside again" in dry.err
    assert command("dlq", "replay", "--reason", "handler_failed").status == 0

    [first, second] = sorted(told(command, "orders.created"), key=lambda record: str(record["key"]))
    assert (first["key"], second["key"]) == ("o-1", "o-3")
    assert first["headers"] == {"ce_type": "orderwatch.order.created.v1", "traceparent": "00-1-2-01"}
    assert first["value"]["quantity"] == 2
    assert [row["reason"] for row in queries.dead_letters(engine)] == ["order_not_found"]
    put_order(engine, "o-2")
    assert command("dlq", "replay", "2").status == 0
    assert len(told(command, "orders.check")) == 1
    assert command("dlq", "replay", "99").status == 1
    assert command("dlq", "list", "--json").document() == {"dead_letters": []}


def test_an_attention_is_listed_until_it_is_acknowledged(command: CommandLine, engine: sa.Engine, hands: None) -> None:
    put(engine, m.attention, id="a1", tenant_id="demo", order_id="o-1", code="expired", message="late", since=BORN)
    assert "expired" in command("attention", "list").out
    assert command("attention", "ack", "a1", "--reason", "the shop knows", "--command-id", "ack-1").status == 0
    [record] = told(command, "orders.command")
    said = ("command_id", "action", "attentions", "by", "reason")
    assert [record["value"][name] for name in said] == ["ack-1", "acknowledge", ["a1"], "ayse", "the shop knows"]
    again = command("attention", "ack", "a1", "a2")
    assert again.status == 1
    assert "a1" in again.err
    assert command("attention", "list").out == "nothing waits for a person\n"
    assert command("attention", "list", "--json").document() == {"attention": []}
    [row] = command("attention", "list", "--all", "--json").document()["attention"]
    assert row["acknowledged_by"] == "ayse"


def test_what_no_worker_carries_out_says_so(command: CommandLine, engine: sa.Engine) -> None:
    said = command("attention", "ack", "a1", "--wait", "0.2", "--command-id", "ack-2")
    assert (said.status, "command ack-2 is carried out when one reads it" in said.err) == (1, True)


def test_a_malformed_letter_goes_only_when_it_is_corrected(
    command: CommandLine, engine: sa.Engine, hands: None
) -> None:
    put_dead_letter(engine, 0, order_id="o-9")
    assert command("dlq", "list", "--by-reason", "--json").document()["reasons"][0]["count"] == 1
    as_it_came = command("dlq", "replay", "1")
    assert (as_it_came.status, told(command, "orders.created")) == (1, [])
    assert "1: not sent, still malformed: orderwatch.order.created.v1: " in as_it_came.err

    file = command.directory / "fixed.json"
    file.write_bytes(letter("o-9", quantity=0))
    wrong = command("dlq", "replay", "1", "--fix", "fixed.json")
    assert (wrong.status, wrong.err.count("\n")) == (2, 1)
    assert "fixed.json: orderwatch.order.created.v1: quantity: " in wrong.err
    file.write_bytes(letter("o-10", quantity=None))
    another = command("dlq", "replay", "1", "--fix", "fixed.json")
    assert (another.status, "order_id: cannot be corrected" in another.err) == (2, True)
    file.write_bytes(letter("o-9", quantity=None))
    dry = command("dlq", "replay", "1", "--fix", "fixed.json", "--dry-run", "--json").document()
    assert (dry["letters"][0]["word"], dry["letters"][0]["integration_id"], dry["sent"]) == ("new", "znet-main", 1)
    file.write_text("[1]", encoding="utf-8")
    no_object = command("dlq", "replay", "1", "--fix", "fixed.json")
    assert "fixed.json is not JSON in UTF-8; expected an object" in no_object.err
    file.write_bytes(letter("o-9", quantity=None))
    assert command("dlq", "replay", "1", "--fix", "fixed.json").status == 0

    [record] = told(command, "orders.created")
    assert (record["key"], record["headers"]["ce_subject"]) == ("o-9", "o-9")
    [row] = queries.dead_letters(engine, everything=True)
    assert (row["replayed_by"], b"o-9" in bytes(row["value"])) == ("ayse", True)
    assert (
        command("dlq", "replay", "--all", "--fix", "fixed.json").status,
        command("dlq", "replay", "1", "--fix", "absent.json").status,
    ) == (2, 2)


def findings(command: CommandLine) -> tuple[int, dict[str, dict[str, str]]]:
    said = command("doctor", "--json")
    return said.status, {item["check"]: item for item in said.document()["findings"]}


def test_the_doctor_names_what_is_wrong_and_what_helps(command: CommandLine, engine: sa.Engine) -> None:
    put_order(engine)
    put_attempt(engine, "unknown", next_check_at=BORN)
    put(engine, m.attention, id="a", code="expired", message="m", since=BORN)
    put_dead_letter(engine)

    status, found = findings(command)

    assert status == 1
    assert {name: item["verdict"] for name, item in found.items()} == {
        "configuration": "ok",
        "secrets": "ok",
        "broker": "ok",
        "topics": "ok",
        "consumer lag": "ok",
        "database": "ok",
        "clock skew": "ok",
        "migrations": "ok",
        "workers": "fail",
        "dashboard": "ok",
        "overdue checks": "fail",
        "sweeper": "fail",
        "projection": "ok",
        "unknown outcomes": "warn",
        "attention": "warn",
        "dead letters": "warn",
        "provider znet-main": "fail",
        "ledger": "ok",
        "durability": "warn",  # fsync is off in tests
    }
    for item in found.values():
        assert bool(item["remedy"]) == (item["verdict"] != "ok"), item
    text = command("doctor")
    assert text.status == 1
    assert "start `orderwatch worker`" in text.out


def test_the_doctor_names_what_was_switched_off_by_hand(command: CommandLine, engine: sa.Engine) -> None:
    assert command("config", "import").status == 0
    off = command("integration", "off", "znet-main", "--reason", "sells twice")
    assert (off.status, "no new sends within a second" in off.out) == (0, True)
    assert command("integration", "off", "znet-main", "--reason", "again").out == "znet-main was off already\n"
    finding = findings(command)[1]["integration znet-main"]
    assert (finding["verdict"], finding["finding"]) == ("warn", "switched off by ayse: sells twice")
    stays = command("config", "import")
    assert (stays.status, "znet-main was switched off by hand and stays off" in stays.err) == (0, True)
    assert command("integration", "on", "znet-main", "--reason", "repaired", "--json").document() == {
        "integration_id": "znet-main",
        "enabled": True,
        "changed": True,
    }
    assert "integration znet-main" not in findings(command)[1]
    assert command("integration", "off", "none", "--reason", "r").status == 2
    assert command("integration", "off", "znet-main", "--reason", " ").status == 2


def test_the_doctor_finds_missing_topics_keys_and_tables(command: CommandLine) -> None:
    command.set(PREFIX="none.", ORDERWATCH_PIN_KEYS="not a key")
    command("db", "downgrade", "base")
    status, found = findings(command)
    assert status == 1
    assert found["topics"]["remedy"] == "run `orderwatch topics apply`"
    assert "orders.created" in found["topics"]["finding"]
    assert "ORDERWATCH_PIN_KEYS" in found["secrets"]["finding"]
    assert found["migrations"]["remedy"] == "run `orderwatch db upgrade`"


def test_the_doctor_goes_on_when_a_server_is_away(command: CommandLine) -> None:
    command.set(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", DATABASE_URL="postgresql://u:secret-word@127.0.0.1:1/none")
    status, found = findings(command)
    assert status == 1
    assert {found[name]["verdict"] for name in ("broker", "database")} == {"fail"}
    command.set(KAFKA_BOOTSTRAP_SERVERS="nonsense")
    status, found = findings(command)
    assert (status, list(found)) == (1, ["configuration"])


def test_the_doctor_names_tokens_that_are_used_and_about_to_be_over(command: CommandLine, engine: sa.Engine) -> None:
    made = api_tokens.create(engine, "shop", ["orders:write"], None, "test", timedelta(days=3))
    unused = findings(command)[1]["dashboard"]
    assert (unused["verdict"], unused["finding"]) == ("ok", "1 token in force")
    assert api_tokens.matching(engine, made.text)
    used = findings(command)[1]["dashboard"]
    assert used["verdict"] == "warn" and "shop" in used["finding"]
