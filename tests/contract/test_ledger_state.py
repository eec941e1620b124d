"""The ledger's identity and epoch, and the guard against a ledger that lost its tail."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from agents.domain import placement
from agents.domain.routing import facts_of
from agents.maintenance.ledger_watch import LedgerWatch
from db import durability, identity
from db.clock import Clock
from db.engine import connect
from db.identity import LedgerState
from db.ledger import Ledger
from streams.errors import ConfigError, LedgerBehind
from streams.kafka.producer import Outgoing
from streams.ledger_log import Mark
from tests.fakes import NOW, order, routing


@pytest.fixture
def engine(database: str) -> Iterator[sa.Engine]:
    made = connect(database, 4)
    yield made
    made.dispose()


def execute(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def test_every_session_waits_for_the_disk_whatever_the_server_says(engine: sa.Engine, database: str) -> None:
    name = sa.make_url(database).database
    execute(engine, f'alter database "{name}" set synchronous_commit = off')
    engine.dispose()
    with engine.connect() as connection:
        assert connection.execute(sa.text("show synchronous_commit")).scalar_one() == "on"


def test_the_epoch_grows_and_never_from_below_what_was_seen(engine: sa.Engine) -> None:
    first = identity.advance(engine, 0)
    assert identity.advance(engine, first.epoch).epoch == first.epoch + 1
    assert identity.advance(engine, first.epoch + 9).epoch == first.epoch + 1


def test_the_epoch_stands_still_while_the_ledger_is_behind_and_goes_on_above_the_log(engine: sa.Engine) -> None:
    before = identity.advance(engine, 0)
    identity.set_behind(engine, "restored")
    identity.set_behind(engine, "another reason")
    held = identity.advance(engine, before.epoch)
    assert (held.epoch, held.behind_why) == (before.epoch, "restored")
    after = identity.recovered(engine, before.identity, 41, "tester", {})
    assert (after.epoch, after.behind_since, after.recoveries) == (42, None, before.recoveries + 1)
    assert after.recovered_at is not None


def test_doctor_can_name_settings_that_lose_commits(engine: sa.Engine) -> None:
    assert durability.read(engine).off == ["fsync", "full_page_writes"]  # the tests' server is fast, not durable


LOST = {
    "the order is gone": "delete from ledger_orders where order_id = 'first'",
    "the order is older": "update ledger_orders set rev = rev - 1 where order_id = 'first'",
    "everything is gone": "delete from ledger_orders",
}


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST)
def test_a_ledger_that_lost_a_commit_of_this_worker_takes_nothing_more(engine: sa.Engine, lost: str) -> None:
    async def run() -> None:
        with ThreadPoolExecutor(2) as executor:
            ledger = Ledger(engine, executor, Clock(asyncio.get_running_loop()))
            await write(ledger, "first")
            execute(engine, "delete from attempts", lost)
            with pytest.raises(LedgerBehind):
                await write(ledger, "second")
            assert "does not hold" in ledger.behind
            with pytest.raises(LedgerBehind):
                await write(ledger, "third")
            ledger.go_on()
            await write(ledger, "fourth")

    asyncio.run(run())
    with engine.connect() as connection:
        ids = set(connection.execute(sa.text("select order_id from ledger_orders")).scalars())
    assert {"second", "third"}.isdisjoint(ids)
    assert "fourth" in ids


async def write(ledger: Ledger, order_id: str) -> None:
    made, by = order(order_id=order_id), routing()
    found = by.first(facts_of(made))
    assert isinstance(found, list)
    assert await ledger.open(placement.open_order(made, by, found, NOW)) is not None


class Held:
    """A ledger that only counts."""

    behind = ""
    commits = 0

    def go_on(self) -> None:
        self.behind = ""


class World:
    """A database and a log in memory."""

    def __init__(self, epoch: int = 5) -> None:
        self.state = LedgerState(identity=uuid4(), epoch=epoch)
        self.log: dict[UUID, Mark] = {}
        self.sent: list[Outgoing] = []
        self.why = ""

    def read(self) -> LedgerState:
        return self.state

    def advance(self, seen: int) -> LedgerState:
        return self.state

    def set_behind(self, why: str) -> None:
        self.why = why
        self.state = LedgerState(identity=self.state.identity, epoch=self.state.epoch, behind_since=NOW, behind_why=why)

    def marks(self) -> dict[UUID, Mark]:
        return self.log

    async def send(self, records: Sequence[Outgoing]) -> None:
        self.sent += records


def mark(epoch: int) -> Mark:
    return Mark(epoch=epoch, at=NOW, worker="w")


@pytest.mark.parametrize(("in_log", "behind"), [(None, False), (4, False), (5, False), (6, True), (500, True)])
def test_a_ledger_below_the_log_is_behind_at_the_start(in_log: int | None, behind: bool) -> None:
    world, held = World(5), Held()
    if in_log is not None:
        world.log[world.state.identity] = mark(in_log)
    LedgerWatch(world, held, world.send, "w").start()
    assert bool(held.behind) is behind
    assert bool(world.why) is behind


class Busy(World):
    """Another worker lets the epoch grow, and writes it down, while the log is read."""

    def marks(self) -> dict[UUID, Mark]:
        self.state = LedgerState(identity=self.state.identity, epoch=self.state.epoch + 1)
        return {self.state.identity: mark(self.state.epoch)}


def test_a_worker_that_starts_beside_a_busy_one_does_not_take_the_ledger_for_restored() -> None:
    world, held = Busy(0), Held()
    watch = LedgerWatch(world, held, world.send, "w")
    watch.start()
    asyncio.run(watch.look(read_log=True))
    assert not held.behind
    assert not world.why


def test_a_log_of_another_ledger_is_refused_at_the_start() -> None:
    world = World()
    world.log[uuid4()] = mark(1)
    with pytest.raises(ConfigError, match=r"database\.url: this database is ledger"):
        LedgerWatch(world, Held(), world.send, "w").start()


def test_an_epoch_that_falls_while_the_worker_runs_is_behind_and_is_told_once(
    expect_errors: Callable[[str], None],
) -> None:
    expect_errors("ledger behind")
    world, held = World(5), Held()
    watch = LedgerWatch(world, held, world.send, "w")
    watch.start()
    world.state = LedgerState(identity=world.state.identity, epoch=4)

    async def look() -> None:
        for _ in range(3):
            await watch.look()

    asyncio.run(look())
    assert "seen epoch 5" in held.behind
    assert [record.topic for record in world.sent] == ["orders.attention"]


def test_a_recovery_lets_the_worker_go_on_and_says_before_when_to_look_first() -> None:
    world, held = World(5), Held()
    world.log[world.state.identity] = mark(9)
    watch = LedgerWatch(world, held, world.send, "w")
    watch.start()
    world.state = LedgerState(identity=world.state.identity, epoch=10, recoveries=1, recovered_at=NOW)
    asyncio.run(watch.look())
    assert not held.behind
    assert watch.look_first_before == NOW
    assert [record.topic for record in world.sent] == ["orders.ledger"]
