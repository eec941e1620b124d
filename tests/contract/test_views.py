"""The views, on real PostgreSQL: whatever comes twice or late changes nothing."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from agents.domain import placement
from agents.domain.routing import facts_of
from agents.handlers import projections
from agents.handlers.context import HandlerContext
from agents.runtime.guard import Delivery
from db.rows import Change
from orderwatch.localservers.bundled import free_port
from streams.errors import StoreUnavailable
from streams.events import Attention, Event, Referenced, StatusChanged, encode
from tests.contract.store import Store, store_on
from tests.fakes import NOW, Sent, order, routing
from tests.waiting import eventually


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with store_on(database) as made:
        yield made


@pytest.fixture
async def opened(store: Store) -> Store:
    made, routes = order(), routing()
    assert await store.ledger.open(placement.open_order(made, routes, routes.first(facts_of(made)), NOW)) is not None
    return store


def delivery(event: Event | bytes, headers: dict[str, bytes] | None = None) -> Delivery:
    value = event if isinstance(event, bytes) else encode(event)
    return Delivery("orders.x", 1, 2, b"o", value, list((headers or {}).items()))


def changed(version: int, external: str = "sent", status: str = "pending", **fields: Any) -> StatusChanged:
    return StatusChanged(
        order_id="o",
        tenant_id="t",
        version=version,
        status=status,
        external_status=external,
        previous_external_status="not_sent",
        reason="provider",
        checks=version,
        occurred_at=NOW,
        **fields,
    )


def referenced(attempt: int, reference: str, **fields: Any) -> Referenced:
    return Referenced(
        order_id="o",
        tenant_id="t",
        attempt=attempt,
        integration_id="one",
        provider="fake",
        provider_referans=reference,
        external_status="sent",
        sent_at=NOW,
        **fields,
    )


def view(store: Store) -> dict[str, Any]:
    (row,) = store.rows("select * from orders")
    del row["updated_at"]
    return row


async def test_a_status_change_shows(opened: Store) -> None:
    await projections.status_changed(
        opened.views,
        [
            delivery(
                changed(
                    1,
                    "completed",
                    "approved",
                    attempt=1,
                    integration_id="one",
                    provider_referans="r1",
                    pins=["sealed"],
                    message="ok",
                    cost={"amount": "1.50", "currency": "TRY"},
                )
            )
        ],
    )
    row = view(opened)
    assert (row["version"], row["external_status"], row["status"]) == (1, "completed", "approved")
    assert row["pins"] == ["sealed"]
    assert (row["provider_referans"], str(row["cost_amount"]), row["completed_at"]) == ("r1", "1.50", NOW)


async def test_old_versions_and_duplicates_change_nothing(opened: Store) -> None:
    newest = changed(3, "completed", "approved", pins=["sealed"])
    await projections.status_changed(opened.views, [delivery(newest)])
    before = view(opened)
    for event in (newest, changed(1), changed(2, "processing"), changed(3, "failed", "rejected")):
        await projections.status_changed(opened.views, [delivery(event)])
        assert view(opened) == before


async def test_whatever_the_order_of_arrival_the_newest_version_wins(opened: Store) -> None:
    events = [changed(n, "processing" if n % 2 else "sent") for n in (4, 1, 7, 3, 2, 6, 5)]
    await asyncio.gather(*(projections.status_changed(opened.views, [delivery(event)]) for event in events))
    assert (view(opened)["version"], view(opened)["external_status"]) == (7, "processing")


async def test_several_versions_of_an_order_in_one_write_end_as_one_after_the_other(opened: Store) -> None:
    first = changed(1, message="on its way", integration_id="one", provider_referans="r1")
    last = changed(2, "completed", "approved", pins=["sealed"])
    await projections.status_changed(opened.views, [delivery(first), delivery(last), delivery(first)])
    row = view(opened)
    assert (row["version"], row["external_status"], row["pins"]) == (2, "completed", ["sealed"])
    assert (row["message"], row["provider_referans"]) == ("on its way", "r1")


async def test_what_comes_in_the_same_moment_is_one_transaction(opened: Store) -> None:
    begun: list[sa.Connection] = []
    sa.event.listen(opened.engine, "begin", begun.append)
    await asyncio.gather(*(projections.status_changed(opened.views, [delivery(changed(n))]) for n in range(1, 6)))
    assert len(begun) == 1 and view(opened)["version"] == 5


async def test_what_cannot_be_written_fails_alone(opened: Store) -> None:
    bad = {"tenant_id": "t", "order_id": "o", "version": "many"}
    good = projections.status_changed(opened.views, [delivery(changed(1))])
    failed, passed = await asyncio.gather(opened.views.status([bad]), good, return_exceptions=True)
    assert isinstance(failed, sa.exc.DataError) and passed is None and view(opened)["version"] == 1


async def test_a_reference_shows_and_an_older_attempt_does_not_hide_it(opened: Store) -> None:
    second = referenced(
        2,
        "r2",
        external_order_id="x2",
        cost={"amount": "2", "currency": "TRY"},
        provider_balance={"amount": "90", "currency": "TRY"},
    )
    await projections.referenced(opened.views, [delivery(second)])
    before = view(opened)
    assert (before["provider_referans"], before["external_order_id"], before["attempts"]) == ("r2", "x2", 2)
    for event in (second, referenced(1, "r1", external_order_id="x1")):
        await projections.referenced(opened.views, [delivery(event)])
        assert view(opened) == before
    assert str(opened.rows("select balance_amount from integration_state")[0]["balance_amount"]) == "90"


async def test_an_older_balance_does_not_hide_a_newer_one(opened: Store) -> None:
    for minutes, amount in ((5, "70"), (1, "90")):
        event = referenced(1, "r1", provider_balance={"amount": amount, "currency": "TRY"})
        event = type(event)(
            **{field: getattr(event, field) for field in event.__struct_fields__}
            | {"sent_at": NOW + timedelta(minutes=minutes)}
        )
        await projections.referenced(opened.views, [delivery(event)])
    assert str(opened.rows("select balance_amount from integration_state")[0]["balance_amount"]) == "70"


async def test_the_same_attention_is_one_row_and_a_threshold_is_another(store: Store) -> None:
    event = Attention(code="long_pending", message="m", since=NOW, order_id="o", tenant_id="t", discriminator="300s")
    other = Attention(code="long_pending", message="m", since=NOW, order_id="o", tenant_id="t", discriminator="900s")
    for each in (event, event, other):
        await projections.attention(store.views, [delivery(each)])
    assert store.rows("select count(*) as n from attention") == [{"n": 2}]


LETTER = {
    "dlq.topic": b"orders.created",
    "dlq.partition": b"3",
    "dlq.offset": b"42",
    "dlq.agent": b"dispatch",
    "dlq.reason": b"malformed",
    "dlq.error": b"quantity: Expected `int`",
    "dlq.at": b"2026-03-01T12:00:00Z",
}


def deps(store: Store, sent: Sent) -> HandlerContext:
    return HandlerContext(routing().config, routing(), {}, store.ledger, sent, store.clock)  # type: ignore[arg-type]


async def test_a_dead_letter_is_kept_whole_and_once_and_told(store: Store) -> None:
    sent, value = Sent(), b'{"order_id": "o", "tenant_id": "t", "quantity": "\xff'
    for _ in range(2):
        await projections.dead_letter(deps(store, sent), store.views, delivery(value, LETTER | {"trace": b"x"}))
    (row,) = store.rows("select * from dead_letters")
    assert (row["topic"], row["partition"], row["offset"], row["reason"]) == ("orders.created", 3, 42, "malformed")
    assert (bytes(row["value"]), bytes(row["key"]), row["headers"]) == (value, b"o", {"trace": "x"})
    first, second = sent.ids("orders.attention")
    assert first == second


@pytest.mark.parametrize(
    "odd",
    [
        {"trace": b"nul \x00"},
        {"nul \x00": b"x"},
        {"dlq.error": b"nul \x00"},
        {"dlq.partition": b"99999999999999999999"},
        {"dlq.offset": b"99999999999999999999999"},
        {"dlq.partition": b"x", "dlq.offset": b""},
        {"dlq.at": b"2026-03-01T12:00:00"},
        {"dlq.at": b"9999-12-31T23:59:59-12:00"},
        {"dlq.at": b"yesterday"},
    ],
)
async def test_a_dead_letter_with_odd_headers_is_kept_all_the_same(store: Store, odd: dict[str, bytes]) -> None:
    sent = Sent()
    await projections.dead_letter(deps(store, sent), store.views, delivery(b"\x00", LETTER | odd))
    assert store.rows("select value from dead_letters")[0]["value"].tobytes() == b"\x00"
    await projections.attention(store.views, [replace(delivery(b""), value=sent.records[0].value)])
    assert store.rows("select code from attention") == [{"code": "dead_letter"}]


async def test_views_that_are_away_are_said_so(expect_errors: Callable[[str], None]) -> None:
    with store_on(f"postgresql+psycopg2://nobody@127.0.0.1:{free_port()}/none") as store:
        with pytest.raises(StoreUnavailable):
            await projections.status_changed(store.views, [delivery(changed(1))])


async def test_an_order_is_found_by_its_key_among_thousands(database: str) -> None:
    with store_on(database) as beside:
        beside.run(
            "insert into ledger_orders (tenant_id, order_id, fingerprint, request, status, external_status,"
            " accepted_at, deadline_at) select 't', 'o-' || n, 'f', '{}', 'pending', 'not_sent', now(), now()"
            " from generate_series(1, 5000) n"
        )
        beside.run(
            "insert into orders (tenant_id, order_id, package_id, quantity, user_identifier, status,"
            " external_status, created_at) select 't', 'o-' || n, 'p', 1, 'p' || n, 'pending', 'not_sent', now()"
            " from generate_series(1, 5000) n"
        )
        with store_on(database) as store:
            made, routes = order(), routing()
            await store.ledger.open(placement.open_order(made, routes, routes.first(facts_of(made)), NOW))
            state = await store.ledger.load(made.key)
            assert state is not None
            assert await store.ledger.apply(Change(order=msgspec.structs.replace(state.order, version=5))) is not None
            await projections.referenced(store.views, [delivery(referenced(1, "ref-1"))])
            await projections.status_changed(store.views, [delivery(changed(1))])

        def read() -> dict[str, tuple[int, int]]:
            return {
                row["relname"]: (row["idx_scan"], row["seq_scan"])
                for row in beside.rows("select relname, idx_scan, seq_scan from pg_stat_user_tables")
            }

        # a session that ends tells the statistics what it did
        await eventually(lambda: read()["ledger_orders"][0] >= 3 and read()["orders"][0] >= 2)
        assert read()["ledger_orders"][1] == read()["orders"][1] == 0
