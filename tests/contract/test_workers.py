"""What workers say about themselves, on a real database: who lives, who fell silent, and one lane out of many."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from agents.gateway.gateway import Lane
from agents.maintenance.heartbeat import Heartbeat
from agents.providers.base import Placed
from db.control import worker_heartbeats
from db.control.worker_heartbeats import Doc
from orderwatch.support.doctor import _workers
from streams.config.loader import BreakerConfig, LimitsConfig
from streams.errors import StoreUnavailable
from tests.contract.store import Store, store_on
from tests.fakes import FakeProvider
from tests.waiting import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with store_on(database) as opened:
        yield opened


def doc(**lanes: worker_heartbeats.Lane) -> Doc:
    return Doc(release="0.1.0", started_at=NOW, lanes=lanes)


def test_the_last_word_of_a_worker_counts(store: Store) -> None:
    worker_heartbeats.note(store.engine, "a:1", doc())
    worker_heartbeats.note(store.engine, "a:1", Doc(release="0.1.0", started_at=NOW, in_flight={"check": 7}))
    [found] = worker_heartbeats.workers(store.engine)
    assert found.alive and found.silent_s < 5 and found.doc.in_flight == {"check": 7}


def test_a_silent_worker_is_not_alive_and_its_lanes_do_not_count(store: Store) -> None:
    worker_heartbeats.note(store.engine, "a:1", doc(one=worker_heartbeats.Lane(state="open")))
    worker_heartbeats.note(store.engine, "b:1", doc(one=worker_heartbeats.Lane(rate=5.0)))
    store.run("update worker_state set at = now() - interval '1 minute' where worker = 'a:1'")
    assert [worker.alive for worker in worker_heartbeats.workers(store.engine)] == [False, True]
    assert worker_heartbeats.lanes(store.engine) == {"one": worker_heartbeats.Lane(rate=5.0)}


def test_a_worker_that_stopped_in_order_and_one_that_died_an_hour_ago_are_gone(store: Store) -> None:
    for name in ("a:1", "b:1", "c:1"):
        worker_heartbeats.note(store.engine, name, doc())
    store.run("update worker_state set at = now() - interval '2 hours' where worker = 'a:1'")
    worker_heartbeats.forget(store.engine, "b:1")
    worker_heartbeats.note(store.engine, "c:1", doc())
    assert [worker.worker for worker in worker_heartbeats.workers(store.engine)] == ["c:1"]


def test_one_lane_is_made_of_what_all_workers_see() -> None:
    calm = worker_heartbeats.Lane(share=0.25, rate=2.5, concurrency=10, in_flight=1, calls=30, p50_s=0.1, p95_s=0.2)
    hurt = worker_heartbeats.Lane(
        state="open",
        share=0.75,
        rate=7.5,
        concurrency=10,
        waiting=4,
        calls=10,
        p50_s=0.5,
        p95_s=2.0,
        last_error="hung up",
        last_error_at=NOW,
        reopens_in_s=3.0,
    )
    old = worker_heartbeats.Lane(last_error="older", last_error_at=NOW - timedelta(hours=1))
    lane = worker_heartbeats.merged([{"one": calm}, {"one": hurt}, {"one": old}, {"two": calm}])["one"]
    assert (lane.state, lane.share, lane.rate, lane.concurrency) == ("open", 1.0, 10.0, 20)
    assert (lane.in_flight, lane.waiting, lane.calls, lane.workers) == (1, 4, 40, 3)
    assert (lane.p50_s, lane.p95_s, lane.last_error, lane.reopens_in_s) == (0.2, 2.0, "hung up", 3.0)


async def test_a_worker_speaks_by_itself_and_says_goodbye(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_heartbeats, "BEAT_S", 0.1)
    lane = Lane("one", FakeProvider(Placed.ACCEPTED), LimitsConfig(rate=10.0), BreakerConfig(), 1, lambda down: None)
    deps: Any = SimpleNamespace(lanes={"one": lane}, name="here:1", clock=store.clock)
    activity = {"in_flight": {"dispatch": 3}, "assigned": {"orders.created": [0, 2]}}
    heart = Heartbeat(deps, store.engine, store.executor, lambda: activity)
    task = asyncio.create_task(heart.forever())
    async with lane.slot():
        await lane.place("r", {})

    [worker] = await eventually(
        lambda: [w for w in worker_heartbeats.workers(store.engine) if w.doc.lanes["one"].calls]
    )
    assert worker.worker == "here:1" and worker.doc.assigned == {"orders.created": [0, 2]}
    assert worker.doc.lanes["one"].rate == 10.0 and worker.doc.lanes["one"].p95_s is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await heart.goodbye()
    assert worker_heartbeats.workers(store.engine) == []


def test_a_pool_without_a_free_connection_is_a_store_that_is_away(database: str) -> None:
    url = sa.make_url(database).set(drivername="postgresql+psycopg2")
    engine = sa.create_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    with engine.connect(), pytest.raises(StoreUnavailable, match="busy"):
        worker_heartbeats.note(engine, "a:1", doc())
    engine.dispose()


def test_the_doctor_names_silent_workers_and_open_lanes_with_a_remedy(store: Store) -> None:
    assert [(f.verdict, f.finding) for f in _workers([])] == [("fail", "none is running")]
    worker_heartbeats.note(store.engine, "gone:1", doc())
    store.run("update worker_state set at = now() - interval '1 minute'")
    worker_heartbeats.note(
        store.engine, "here:1", doc(one=worker_heartbeats.Lane(state="open", last_error="hung up", reopens_in_s=12))
    )
    found = {f.check: f for f in _workers(worker_heartbeats.workers(store.engine)) if f.verdict != "ok"}
    assert "gone:1 has been silent for" in found["workers"].finding and found["workers"].remedy
    assert found["lane one"].finding == "sends nothing, tried again in 12 s: hung up" and found["lane one"].remedy
