"""One worker at a time, and not too often, on real PostgreSQL."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from orderwatch.localservers.bundled import free_port
from streams.errors import StoreUnavailable
from tests.contract.store import Store, store_on
from tests.waiting import eventually


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with store_on(database) as made:
        yield made


@pytest.fixture
def other(database: str) -> Iterator[Store]:
    with store_on(database) as made:
        yield made


async def nothing() -> dict[str, int]:
    return {"found": 3}


async def test_of_two_workers_one_runs(store: Store, other: Store) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def work() -> dict[str, int]:
        began.set()
        await go.wait()
        return {}

    first = asyncio.create_task(store.leader.run("sweep", 0.0, work))
    await began.wait()
    assert await other.leader.run("sweep", 0.0, nothing) is False
    assert await other.leader.run("another job", 0.0, nothing) is True
    go.set()
    assert await first is True
    assert await other.leader.run("sweep", 0.0, nothing) is True


async def test_a_job_runs_no_more_often_than_asked_for(store: Store, other: Store) -> None:
    assert await store.leader.run("sweep", 300.0, nothing) is True
    assert await other.leader.run("sweep", 300.0, nothing) is False
    store.run("update service_state set at = at - interval '301 s'")
    assert await other.leader.run("sweep", 300.0, nothing) is True
    assert store.rows("select key, value from service_state where key = 'sweep'") == [
        {"key": "sweep", "value": {"found": 3}}
    ]


async def test_a_job_that_failed_counts_as_not_done(store: Store, other: Store) -> None:
    async def failing() -> dict[str, int]:
        raise ValueError

    with pytest.raises(ValueError):
        await store.leader.run("sweep", 300.0, failing)
    assert await other.leader.run("sweep", 300.0, nothing) is True


async def test_a_leader_whose_database_went_away_says_so_and_may_lead_again(store: Store, other: Store) -> None:
    """The lock is given back by a rollback, which nobody answered: that error ended the worker."""

    async def work() -> dict[str, int]:
        other.cut_off_others()
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable):
        await store.leader.run("sweep", 300.0, work)
    assert await store.leader.run("sweep", 300.0, nothing) is True


HOLDER = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from db.engine import connect
from db.leader import Leader

async def work():
    print("leading", flush=True)
    await asyncio.Event().wait()

asyncio.run(Leader(connect(sys.argv[1]), ThreadPoolExecutor(1)).run("sweep", 300.0, work))
"""


async def test_the_lock_dies_with_its_holder(store: Store, database: str) -> None:
    url = sa.make_url(database).render_as_string(hide_password=False)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == b"leading\n"
        assert await store.leader.run("sweep", 300.0, nothing) is False
    finally:
        holder.kill()
        holder.communicate()
    assert await eventually(lambda: store.leader.run("sweep", 300.0, nothing))


async def test_a_leader_that_froze_leads_no_longer_and_one_that_works_for_long_does(
    store: Store, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped for good with every connection open, it kept all others from sweeping."""
    monkeypatch.setattr("db.leader._SIGN_S", 0.3)
    url = sa.make_url(database).render_as_string(hide_password=False)
    with (
        store_on(database, frozen_s=1.0) as long,
        subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE) as frozen,
    ):
        done = asyncio.Event()

        async def work() -> dict[str, int]:
            await done.wait()
            return {"long": 1}

        working = asyncio.create_task(long.leader.run("long", 0.0, work))
        assert frozen.stdout is not None
        assert await asyncio.to_thread(frozen.stdout.readline) == b"leading\n"
        frozen.send_signal(signal.SIGSTOP)
        try:
            assert await eventually(lambda: store.leader.run("sweep", 300.0, nothing), 30)
        finally:
            frozen.kill()
        assert await store.leader.run("long", 0.0, nothing) is False
        done.set()
        assert await working is True


async def test_a_leader_that_is_told_to_stop_when_its_database_is_gone_stops(store: Store, other: Store) -> None:
    """The rollback's error took the place of the cancellation, and the worker never ended."""
    began = asyncio.Event()

    async def work() -> dict[str, int]:
        other.cut_off_others()
        began.set()
        await asyncio.Event().wait()
        return {}

    leading = asyncio.create_task(store.leader.run("sweep", 300.0, work))
    await began.wait()
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leading


async def test_work_whose_lock_was_lost_ends(store: Store, other: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.leader._SIGN_S", 0.1)
    ended = asyncio.Event()

    async def work() -> dict[str, int]:
        other.cut_off_others()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return {}

    with pytest.raises(StoreUnavailable):
        await store.leader.run("sweep", 300.0, work)
    assert ended.is_set()


async def test_a_database_that_is_away_is_said_so() -> None:
    with store_on(f"postgresql+psycopg2://nobody@127.0.0.1:{free_port()}/none") as store:
        with pytest.raises(StoreUnavailable):
            await store.leader.run("sweep", 0.0, nothing)
