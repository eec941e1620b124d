"""The sweep on PostgreSQL: its questions read what is open or recent only, and a job that fails stops no other."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from agents.maintenance import sweeper
from db import ledger as ledger_module
from db.ledger import _EXPIRING, _OVERDUE, _PENDING, _PUBLISH_WINDOW, _UNPUBLISHED, _WAITING
from streams.errors import StoreUnavailable
from tests.contract.store import Store, store_on
from tests.contract.test_redelivery import Worker
from tests.fakes import FakeProvider, Placed

FINISHED = 60_000

#: Rows as the engine leaves them: uuid ids, a last event, some attention; finished over a month.
_HISTORY = """
insert into ledger_orders (tenant_id, order_id, fingerprint, request, status, external_status, version, last_event,
    last_event_at, lines, attempts, raised, accepted_at, deadline_at, finished_at)
select 't', gen_random_uuid()::text, md5(n::text), '{"order_id":"x","package_id":"p","user_identifier":"5"}',
    'approved', 'completed', 2, jsonb_build_object('version', 2, 'message', repeat('m', 200)), at, 1, 1,
    case when n % 200 = 0 then '[{"code":"long_pending","since":"2026-01-01T00:00:00Z"}]'::jsonb else '[]' end,
    at, at, at
from (select n, now() - make_interval(secs => n * 40) as at from generate_series(1, :count) n) h;
insert into orders (tenant_id, order_id, package_id, quantity, user_identifier, status, external_status, version,
    created_at)
select tenant_id, order_id, 'p', 1, '5', 'approved', 'completed', 2, accepted_at from ledger_orders
on conflict do nothing;
"""


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with store_on(database) as made:
        yield made


@pytest.fixture
def history(store: Store) -> Store:
    store.run(_HISTORY, count=FINISHED)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("vacuum analyze ledger_orders, orders"))
    return store


def blocks(store: Store, question: str, **values: Any) -> int:
    """Blocks of 8 KiB that a question reads."""
    with store.engine.connect() as connection:
        explained = sa.text("explain (analyze, buffers, format json) " + question)
        plan = connection.execute(explained, values).scalar_one()[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


PAGE = {"tenant": "", "order": "", "page": 100}
LONG_AGO = datetime.fromisoformat("0001-01-02T00:00:00+00:00")


@pytest.mark.parametrize(
    ("question", "values"),
    [
        (_OVERDUE, {**PAGE, "slack": 60, "at": LONG_AGO, "attempt": -1}),
        (_WAITING, {**PAGE, "codes": ["no_mapping"]}),
        (_EXPIRING, PAGE),
        (_PENDING, {**PAGE, "older": 300, "raised": "[]"}),
        (_PUBLISH_WINDOW, {"slack": 60, "overlap": 600, "events": 1000}),
    ],
    ids=["overdue", "waiting", "expired", "long_pending", "window"],
)
def test_a_question_of_the_sweep_reads_none_of_the_finished_orders(
    history: Store, question: str, values: dict[str, Any]
) -> None:
    assert blocks(history, question, **values) < 200


async def test_the_search_for_unpublished_events_reads_a_window_only(history: Store) -> None:
    await history.ledger.publish_checked(ledger_module.EVERYTHING._replace(until=datetime.now().astimezone()), 0)
    window = await history.ledger.publish_window(60.0, 1000)
    read = blocks(history, _UNPUBLISHED, **PAGE, slack=60, since=window.since, until=window.until)
    assert read < 500  # 60,000 orders fill some 6,000 blocks


async def test_a_backlog_of_events_is_worked_off_window_by_window(history: Store) -> None:
    history.run("update orders set version = 1 where order_id = (select min(order_id) from orders)")
    found, passes = [], 0
    while not found and passes < 100:
        window = await history.ledger.publish_window(0.0, 5000)
        found = await history.ledger.unpublished(("", ""), 0.0, 10, window)
        await history.ledger.publish_checked(window, len(found))
        passes += 1
    assert len(found) == 1 and passes <= FINISHED // 5000 + 1


async def test_what_is_still_unpublished_is_looked_at_again(store: Store) -> None:
    store.run(_HISTORY, count=10)
    store.run("update orders set version = 1")
    for _ in range(3):
        window = await store.ledger.publish_window(0.0, 1000)
        found = await store.ledger.unpublished(("", ""), 0.0, 100, window)
        await store.ledger.publish_checked(window, len(found))
        assert len(found) == 10


async def test_a_job_that_fails_stops_no_other(
    store: Store, expect_errors: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_errors("sweep job failed")
    monkeypatch.setattr(ledger_module, "_QUERY_TIMEOUT_MS", 300)
    worker = Worker(store, FakeProvider(Placed.ACCEPTED))
    await worker.created(order_id="late")
    store.run("update attempts set next_check_at = now() - interval '1 hour'")
    sent = len(worker.sent.records)
    with store.engine.begin() as other:
        other.execute(sa.text("lock table orders in access exclusive mode"))
        done = await sweeper.sweep(worker.deps)
    assert done["overdue"] == 1 and len(worker.sent.records) == sent + 1
    assert list(done["failed"]) == ["unpublished"] and "57014" in done["failed"]["unpublished"]


async def test_a_pass_in_which_every_job_fails_raises(
    store: Store, expect_errors: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_errors("sweep job failed")
    monkeypatch.setattr(ledger_module, "_QUERY_TIMEOUT_MS", 200)
    worker = Worker(store, FakeProvider(Placed.ACCEPTED))
    with store.engine.begin() as other:
        other.execute(sa.text("lock table ledger_orders, attempts in access exclusive mode"))
        with pytest.raises(StoreUnavailable):
            await sweeper.sweep(worker.deps)
