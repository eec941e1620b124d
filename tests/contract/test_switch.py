"""The emergency switch: what it stores, what an import may not undo, and what waits for it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from agents.domain.routing import Routing
from agents.gateway.gateway import Lane
from agents.maintenance import kill_switch
from agents.maintenance.kill_switch import Switches, woken
from agents.providers.base import Placed, Seen
from db.control import kill_switch as control_kill_switch
from db.control import stored_config
from streams.config.loader import CatalogueDocs
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
    return {doc["id"]: doc.get("enabled") for doc in stored_config.read(engine).integrations}


def test_a_switch_is_a_change_of_the_catalogue_with_a_name_and_a_reason(store: Store) -> None:
    stored_config.seed(store.engine, DOCS, "file")
    before = stored_config.revision(store.engine)
    assert control_kill_switch.states(store.engine) == {}

    assert control_kill_switch.set_enabled(store.engine, "one", False, "ayse", "sells twice")
    assert not control_kill_switch.set_enabled(store.engine, "one", False, "ayse", "again")

    assert (stored(store.engine), control_kill_switch.states(store.engine)) == (
        {"one": False, "two": None},
        {"one": False},
    )
    assert control_kill_switch.switched_off(store.engine) == {"one": {"by": "ayse", "reason": "sells twice"}}
    assert stored_config.revision(store.engine) != before
    [row] = store.rows("select actor, action, tenant_id, details from audit")
    assert (row["actor"], row["action"], row["tenant_id"]) == ("ayse", "integration.off", "t")
    assert row["details"] == {"integration": "one", "reason": "sells twice"}

    assert control_kill_switch.set_enabled(store.engine, "one", True, "ayse", "repaired")
    assert control_kill_switch.states(store.engine) == {"one": True}
    assert control_kill_switch.switched_off(store.engine) == {}


def test_an_import_does_not_switch_on_what_a_person_switched_off(store: Store) -> None:
    stored_config.seed(store.engine, DOCS, "file")
    control_kill_switch.set_enabled(store.engine, "one", False, "ayse", "sells twice")
    assert stored_config.replace(store.engine, DOCS, "mehmet") == ["one"]
    assert stored(store.engine) == {"one": False, "two": None}
    assert control_kill_switch.switched_off(store.engine)["one"]["by"] == "ayse"

    assert stored_config.replace(store.engine, CatalogueDocs(DOCS.integrations[1:], [], []), "mehmet") == []
    assert stored_config.replace(store.engine, DOCS, "mehmet") == []
    assert stored(store.engine) == {"one": None, "two": None}


def test_an_integration_that_is_not_stored_is_named_beside_those_there_are(store: Store) -> None:
    stored_config.seed(store.engine, DOCS, "file")
    with pytest.raises(ConfigError, match="no integration three in the stored catalogue; expected one of one, two"):
        control_kill_switch.set_enabled(store.engine, "three", False, "ayse", "why")


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
    monkeypatch.setattr(kill_switch, "POLL_S", 0.02)
    stored_config.seed(store.engine, DOCS, "file")
    workers = [Worker(store, FakeProvider(Placed.ACCEPTED)) for _ in range(2)]
    tasks = [
        asyncio.create_task(
            Switches(lambda: control_kill_switch.states(store.engine), store.leader).follow_forever(worker.deps)
        )
        for worker in workers
    ]
    control_kill_switch.set_enabled(store.engine, "one", False, "ayse", "why")
    control_kill_switch.set_enabled(store.engine, "two", False, "ayse", "why")
    await eventually(lambda: not any(a.enabled for w in workers for a in w.deps.routing.accounts.values()))
    await workers[0].created()
    assert (await workers[0].state()).order.waiting == AttentionCode.INTEGRATION_DISABLED

    control_kill_switch.set_enabled(store.engine, "two", True, "ayse", "repaired")
    await eventually(lambda: store.rows("select 1 from service_state where key = 'switched_on:two'"))
    assert all(worker.deps.routing.accounts["two"].enabled for worker in workers)
    sent = [topic for worker in workers for topic in worker.sent.topics() if topic == "orders.check"]
    assert len(sent) == 1
    for task in tasks:
        task.cancel()
