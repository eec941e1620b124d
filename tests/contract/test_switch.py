"""The emergency switch: what it stores, what an import may not undo, and what waits for it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from agents import switches
from agents.lanes import Lane
from agents.providers.base import Placed, Seen
from agents.routes import Routing
from agents.switches import Switches, woken
from db import catalog, switch
from streams.config import CatalogueDocs
from streams.errors import ConfigError
from streams.events import Check, decode
from streams.order import AttemptState, AttentionCode
from tests.contract.store import Store, store_on
from tests.contract.test_redelivery import Worker
from tests.fakes import FakeProvider
from tests.waiting import eventually

DOCS = CatalogueDocs(
    [{"id": "one", "tenant_id": "t", "provider": "znet"}, {"id": "two", "tenant_id": "t", "provider": "znet"}], [], []
)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with store_on(database) as made:
        yield made


def stored(engine: sa.Engine) -> dict[str, Any]:
    return {doc["id"]: doc.get("enabled") for doc in catalog.read(engine).integrations}


def test_a_switch_is_a_change_of_the_catalogue_with_a_name_and_a_reason(store: Store) -> None:
    catalog.seed(store.engine, DOCS, "file")
    before = catalog.revision(store.engine)
    assert switch.states(store.engine) == {}

    assert switch.set_enabled(store.engine, "one", False, "ayse", "sells twice")
    assert not switch.set_enabled(store.engine, "one", False, "ayse", "again")

    assert (stored(store.engine), switch.states(store.engine)) == ({"one": False, "two": None}, {"one": False})
    assert switch.switched_off(store.engine) == {"one": {"by": "ayse", "reason": "sells twice"}}
    assert catalog.revision(store.engine) != before
    [row] = store.rows("select actor, action, tenant_id, details from audit")
    assert (row["actor"], row["action"], row["tenant_id"]) == ("ayse", "integration.off", "t")
    assert row["details"] == {"integration": "one", "reason": "sells twice"}

    assert switch.set_enabled(store.engine, "one", True, "ayse", "repaired")
    assert switch.states(store.engine) == {"one": True}
    assert switch.switched_off(store.engine) == {}


def test_an_import_does_not_switch_on_what_a_person_switched_off(store: Store) -> None:
    catalog.seed(store.engine, DOCS, "file")
    switch.set_enabled(store.engine, "one", False, "ayse", "sells twice")
    assert catalog.replace(store.engine, DOCS, "mehmet") == ["one"]
    assert stored(store.engine) == {"one": False, "two": None}
    assert switch.switched_off(store.engine)["one"]["by"] == "ayse"

    assert catalog.replace(store.engine, CatalogueDocs(DOCS.integrations[1:], [], []), "mehmet") == []
    assert catalog.replace(store.engine, DOCS, "mehmet") == []
    assert stored(store.engine) == {"one": None, "two": None}


def test_an_integration_that_is_not_stored_is_named_beside_those_there_are(store: Store) -> None:
    catalog.seed(store.engine, DOCS, "file")
    with pytest.raises(ConfigError, match="no integration three in the stored catalogue; expected one of one, two"):
        switch.set_enabled(store.engine, "three", False, "ayse", "why")


def switched(worker: Worker, **states: bool) -> None:
    accounts = worker.deps.routing.accounts
    worker.deps.routing = Routing(
        worker.deps.config, {name: replace(a, enabled=states.get(name, a.enabled)) for name, a in accounts.items()}
    )


async def test_what_was_not_sent_waits_with_an_attention_and_is_woken(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED)
    worker = Worker(store, provider)
    worker.deps.lanes = {}
    await worker.created()  # an intent at one, not sent
    worker.deps.lanes = Worker(store, provider).deps.lanes
    switched(worker, one=False, two=False)
    await worker.check()
    row = (await worker.state()).attempts[0]
    assert (row.state, provider.placed) == (AttemptState.INTENT, [])
    assert AttentionCode.INTEGRATION_DISABLED in [r.code for r in (await worker.state()).order.raised]
    await worker.created(order_id="second")  # no integration at all: it waits for one
    worker.sent.records.clear()

    switched(worker, one=True)
    assert await woken(worker.deps, "one") == {"woken": 2}
    told = [decode(Check, record.value) for record in worker.sent.records if record.topic == "orders.check"]
    assert sorted((check.order_id, check.attempt) for check in told) == [("o", 1), ("second", 0)]
    await worker.check(number=told[0].check_number)
    assert len(provider.placed) == 1


class Crowded(Lane):
    """A lane in which a placement waits for its turn until the test gives it."""

    turn: asyncio.Event
    waiting = False
    free = False

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        self.waiting = True
        await self.turn.wait()
        yield


async def test_an_order_that_waits_for_its_turn_in_the_lane_is_stopped_too(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED)
    worker = Worker(store, provider)
    lane = worker.deps.lanes["one"]
    lane.__class__, lane.turn = Crowded, asyncio.Event()
    order = asyncio.create_task(worker.created())
    await eventually(lambda: lane.waiting)
    switched(worker, one=False)
    lane.turn.set()
    await order
    assert provider.placed == []
    assert (await worker.state()).attempts[0].evidence["lane"] == "integration one is switched off"


async def test_open_orders_are_followed_while_the_integration_is_off(store: Store) -> None:
    worker = Worker(store, FakeProvider(Placed.ACCEPTED, answers=[Seen.SUCCEEDED]))
    await worker.created()
    switched(worker, one=False, two=False)
    await worker.check()
    assert (await worker.state()).order.external_status == "completed"


async def test_a_worker_reads_the_switches_often_and_wakes_what_waited_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switches, "POLL_S", 0.02)
    catalog.seed(store.engine, DOCS, "file")
    workers = [Worker(store, FakeProvider(Placed.ACCEPTED)) for _ in range(2)]
    tasks = [
        asyncio.create_task(Switches(lambda: switch.states(store.engine), store.leader).follow_forever(worker.deps))
        for worker in workers
    ]
    switch.set_enabled(store.engine, "one", False, "ayse", "why")
    switch.set_enabled(store.engine, "two", False, "ayse", "why")
    await eventually(lambda: not any(a.enabled for w in workers for a in w.deps.routing.accounts.values()))
    await workers[0].created()
    assert (await workers[0].state()).order.waiting == AttentionCode.INTEGRATION_DISABLED

    switch.set_enabled(store.engine, "two", True, "ayse", "repaired")
    await eventually(lambda: store.rows("select 1 from service_state where key = 'switched_on:two'"))
    assert all(worker.deps.routing.accounts["two"].enabled for worker in workers)
    sent = [topic for worker in workers for topic in worker.sent.topics() if topic == "orders.check"]
    assert len(sent) == 1
    for task in tasks:
        task.cancel()
