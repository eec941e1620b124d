"""A new sealing key takes over everything stored, so that the old one can be dropped; on real PostgreSQL."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from db import models as m
from db.clock import Clock
from db.control import integration_state
from db.control.key_rotation import Resealed, reseal
from db.control.stock import CodeStock
from orderwatch.support.codes import fingerprint
from streams.errors import EventError
from streams.seal import VARIABLE, Sealer, new_key
from tests.contract.command_line import CommandLine
from tests.contract.ledger_rows import BORN, put, put_attempt, put_order, reading

OLD, NEW = new_key(), new_key()
BOTH = Sealer([NEW, OLD])


@pytest.fixture
def engine(database: str) -> Iterator[sa.Engine]:
    with reading(database) as made:
        yield made


def fill(engine: sa.Engine, sealer: Sealer, orders: int = 3) -> None:
    """Completed orders of two lines and codes, free and taken."""
    for number in range(orders):
        pins = [sealer.seal(f"PIN-{number}-1"), sealer.seal(f"PIN-{number}-2")]
        ended = {"status": "approved", "external_status": "completed"}
        put_order(
            engine,
            f"o-{number}",
            view={**ended, "pins": pins},
            finished_at=BORN,
            rev=5,
            **ended,
            last_event={"version": 3, "pins": pins, "message": "kept"},
        )
        for line, pin in enumerate(pins, start=1):
            put_attempt(engine, "completed", f"o-{number}", attempt=line, line=line, pins=[pin])
        put(
            engine,
            m.codes,
            tenant_id="demo",
            code_group="g",
            sealed=sealer.seal(f"CODE-{number}"),
            fingerprint=f"f-{number}",
            **({"reference": "r", "taken_at": BORN} if number else {}),
        )
    put_order(engine, "pending")
    put_attempt(engine, "accepted", "pending")
    integration_state.fingerprint_key(engine, sealer.seal, lambda: "the key of fingerprints")


def stored(engine: sa.Engine) -> list[str]:
    """Every sealed text there is."""
    with engine.connect() as connection:
        lists = [
            *connection.execute(sa.select(m.attempts.c.pins)).scalars(),
            *connection.execute(sa.select(m.orders.c.pins)).scalars(),
            connection.execute(sa.select(m.codes.c.sealed)).scalars().all(),
        ]
        events = connection.execute(sa.select(m.ledger_orders.c.last_event)).scalars()
        lists += [event["pins"] for event in events if event]
        key = connection.execute(
            sa.select(m.service_state.c.value).where(m.service_state.c.key == integration_state.FINGERPRINT_KEY)
        ).scalar_one()
    return [text for found in lists for text in found] + [key["sealed"]]


def test_after_a_rotation_the_new_key_alone_opens_every_pin_code_and_fingerprint_key(engine: sa.Engine) -> None:
    fill(engine, Sealer([OLD]))
    before = sorted(Sealer([OLD]).open(text) for text in stored(engine))

    *_, done = reseal(engine, BOTH, "ayse", batch=2)

    only_new = Sealer([NEW])
    assert sorted(only_new.open(text) for text in stored(engine)) == before
    assert done == Resealed(orders=3, codes=3, changed=3 * 2 + 3 + 1, foreign=0)
    assert integration_state.release_pins(engine, "demo", "o-1", "ayse", only_new.open) == ["PIN-1-1", "PIN-1-2"]
    key = only_new.open(integration_state.fingerprint_key(engine, only_new.seal, new_key))
    assert fingerprint(key, "x") == fingerprint("the key of fingerprints", "x")
    with engine.connect() as connection:
        [row] = connection.execute(sa.select(m.audit).where(m.audit.c.action == "pins.reseal"))
        event = connection.execute(sa.select(m.ledger_orders.c.last_event).filter_by(order_id="o-0")).scalar_one()
    assert (row.actor, row.details["changed"]) == ("ayse", 10)
    assert (event["message"], event["version"]) == ("kept", 3)


def test_a_run_that_was_stopped_goes_on_where_it_stopped(engine: sa.Engine) -> None:
    fill(engine, Sealer([OLD]), orders=6)

    for _ in reseal(engine, BOTH, "ayse", batch=2):
        break  # killed after the first batch
    half = [BOTH.newest(text) for text in stored(engine)]
    *_, done = reseal(engine, BOTH, "ayse", batch=2)
    *_, again = reseal(engine, BOTH, "ayse")

    assert any(half) and not all(half)
    assert all(BOTH.newest(text) for text in stored(engine))
    assert (done.changed, again.changed) == (4 * 2 + 6 + 1, 0)


def test_an_order_that_a_worker_read_before_is_decided_anew(engine: sa.Engine) -> None:
    fill(engine, Sealer([OLD]))
    for _ in range(2):  # the second run changes nothing, so it must not make anybody decide again
        list(reseal(engine, BOTH, "ayse"))
    with engine.connect() as connection:
        revs = connection.execute(sa.select(m.ledger_orders.c.order_id, m.ledger_orders.c.rev)).all()
    assert {tuple(row) for row in revs} == {("o-0", 6), ("o-1", 6), ("o-2", 6), ("pending", 0)}


def test_what_no_key_opens_is_counted_and_stays(engine: sa.Engine) -> None:
    lost = Sealer([new_key()])
    fill(engine, Sealer([OLD]))
    foreign = lost.seal("PIN-9")
    put_order(engine, "lost")
    put_attempt(engine, "completed", "lost", pins=[foreign])

    *_, done = reseal(engine, BOTH, "ayse")

    assert done.foreign == 1 and foreign in stored(engine)
    assert sum(BOTH.newest(text) for text in stored(engine)) == len(stored(engine)) - 1


async def test_a_code_can_be_taken_while_its_batch_is_resealed(engine: sa.Engine) -> None:
    fill(engine, Sealer([OLD]))
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor() as pool:
        stock = CodeStock(engine, pool, Clock(loop))
        takers: list[Future[Any]] = []

        class Interrupted(Sealer):
            def rotate(self, sealed: str) -> str:
                if self.open(sealed) == "CODE-1":  # the only free code, CODE-0, is written and not yet committed
                    takers.append(asyncio.run_coroutine_threadsafe(stock.take("demo", "g", "mine", 1), loop))
                    assert not wait(takers, timeout=0.5).done, "the stock was called empty"
                return super().rotate(sealed)

        await asyncio.to_thread(lambda: list(reseal(engine, Interrupted([NEW, OLD]), "ayse")))
        taken = await asyncio.wrap_future(takers[0])
    assert [Sealer([NEW]).open(code) for code in taken] == ["CODE-0"]


def test_the_command_tells_its_progress_and_fails_while_something_is_sealed_elsewhere(
    engine: sa.Engine,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = CommandLine(tmp_path, monkeypatch, capsys)
    command.set(DATABASE_URL=database, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", **{VARIABLE: NEW})
    fill(engine, Sealer([OLD]))

    without = command("db", "reseal")
    command.set(**{VARIABLE: f"{NEW},{OLD}"})
    good, again = command("db", "reseal"), command("db", "reseal", "--json")

    assert (without.status, good.status, again.status) == (1, 0, 0)
    assert "10 are sealed with none of these keys" in without.out
    assert "3 orders and 3 codes looked at, 10 sealed anew" in good.err
    assert again.document() == {"orders": 3, "codes": 3, "changed": 0, "foreign": 0}
    for said in (without, good, again):
        assert "PIN-" not in said.out + said.err and NEW not in said.out + said.err
    with pytest.raises(EventError):
        Sealer([OLD]).open(stored(engine)[0])
