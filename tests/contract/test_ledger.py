"""The guard against buying twice, on real PostgreSQL."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from agents.domain import deadlines, placement
from agents.domain.routing import facts_of
from agents.providers.base import Placed, PlacedAnswer
from db.engine import answering
from db.rows import Attempt, Change, OrderState, Raised, Step
from orderwatch.localservers.bundled import free_port
from streams.errors import StoreUnavailable
from streams.order import AttemptState, AttentionCode, ExternalStatus
from tests.contract.store import Store, store_on
from tests.fakes import SCHEDULE, order, routing
from tests.waiting import eventually

S = AttemptState
ROUTING = routing()


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with store_on(database) as made:
        yield made


@pytest.fixture
def other(database: str) -> Iterator[Store]:
    """Another worker on the same database."""
    with store_on(database) as made:
        yield made


def new(order_id: str = "o", quantity: int = 1) -> Change:
    made = order(quantity, order_id)
    return placement.open_order(made, ROUTING, ROUTING.first(facts_of(made)), made.accepted_at)


async def opened(store: Store, order_id: str = "o", quantity: int = 1) -> OrderState:
    assert await store.ledger.open(new(order_id, quantity)) is not None
    return await loaded(store, order_id)


async def loaded(store: Store, order_id: str = "o") -> OrderState:
    state = await store.ledger.load(("t", order_id))
    assert state is not None
    return state


def sending(state: OrderState, token: str = "me", lease_s: float = 30.0, number: int = 1) -> Change:
    change = placement.start_sending(state, number, ROUTING, state.order.accepted_at, placement.Lease(token, lease_s))
    assert change is not None
    return change


def touched(state: OrderState, **fields: Any) -> Change:
    """A change that writes only the head of an order."""
    return Change(order=msgspec.structs.replace(state.order, **fields))


async def test_what_was_written_is_what_is_read(store: Store) -> None:
    change = new(quantity=2)
    change.order.raised.append(Raised(code="x", message="ş", since=change.order.accepted_at, discriminator="1"))
    assert await store.ledger.open(change) is not None
    state = await loaded(store)
    assert state.order == change.order
    born = [msgspec.structs.replace(row, created_at=None) for row in state.attempts]
    assert born == change.attempts and all(row.created_at for row in state.attempts)
    assert await store.ledger.load(("t", "nobody")) is None


async def test_opening_twice_changes_nothing(store: Store) -> None:
    await opened(store)
    before = store.rows("select * from order_events")
    assert await store.ledger.open(new(quantity=3)) is None
    assert len((await loaded(store)).attempts) == 1 and store.rows("select * from order_events") == before


async def test_of_two_workers_opening_an_order_one_wins(store: Store, other: Store) -> None:
    for n in range(20):
        results = await asyncio.gather(store.ledger.open(new(f"o{n}")), other.ledger.open(new(f"o{n}")))
        assert sum(result is not None for result in results) == 1
    assert store.rows("select count(*) as n from attempts") == [{"n": 20}]
    assert store.rows("select count(*) as n from orders") == [{"n": 20}]


async def test_two_tenants_may_share_an_order_id(store: Store) -> None:
    await opened(store)
    second = new()
    second.order = msgspec.structs.replace(second.order, tenant_id="u")
    for row in second.attempts:
        row.reference += "-u"
    assert await store.ledger.open(second) is not None


async def test_of_two_workers_taking_a_lease_one_wins(store: Store, other: Store) -> None:
    for n in range(20):
        state = await opened(store, f"o{n}")
        results = await asyncio.gather(
            store.ledger.apply(sending(state, "mine")), other.ledger.apply(sending(state, "theirs"))
        )
        (won,) = [result for result in results if result is not None]
        row = (await loaded(store, f"o{n}")).attempts[0]
        assert (row.state, row.lease_token, row.sends) == (S.SENDING, won.attempts[0].lease_token, 1)
    assert store.rows("select count(*) as n from order_events where step = 'sending'") == [{"n": 20}]


async def test_a_write_that_waited_for_a_lock_sees_that_it_came_too_late(store: Store, other: Store) -> None:
    state = await opened(store)
    with store.engine.connect() as connection:
        connection.execute(sa.text("update ledger_orders set rev = rev + 1"))
        late = asyncio.create_task(other.ledger.apply(sending(state)))
        await eventually(lambda: store.rows("select 1 from pg_stat_activity where wait_event_type = 'Lock'"))
        connection.commit()
    assert await late is None
    assert (await loaded(store)).attempts[0].state is S.INTENT


async def test_a_decision_on_an_old_revision_writes_nothing_at_all(store: Store) -> None:
    state = await opened(store)
    assert await store.ledger.apply(sending(state)) is not None
    before = (await loaded(store), store.rows("select * from order_events"))
    assert await store.ledger.apply(sending(state, "other")) is None
    assert (await loaded(store), store.rows("select * from order_events")) == before


async def test_what_apply_returns_is_what_is_stored(store: Store) -> None:
    stored = await store.ledger.apply(sending(await opened(store)))
    state = await loaded(store)
    assert stored is not None and stored.order == state.order
    (row,), (told,) = state.attempts, stored.attempts
    assert row.next_check_at is not None and told.lease_until is not None and row.next_check_at >= told.lease_until
    same = {"created_at": None, "next_check_at": None}  # the wake-up may be some microseconds behind the lease
    assert msgspec.structs.replace(row, **same) == msgspec.structs.replace(told, **same)


async def test_a_lease_ends_by_the_databases_clock(store: Store) -> None:
    before = store.rows("select clock_timestamp() as at")[0]["at"]
    stored = await store.ledger.apply(sending(await opened(store), lease_s=30.0))
    after = store.rows("select clock_timestamp() as at")[0]["at"]
    assert stored is not None
    (row,) = stored.attempts
    assert row.lease_until is not None and row.next_check_at == row.lease_until
    assert before + timedelta(seconds=30) <= row.lease_until <= after + timedelta(seconds=30)


def over(state: OrderState) -> Change:
    change = placement.on_lease_expired(
        state, 1, ROUTING, SCHEDULE, state.order.accepted_at + timedelta(days=99), "check"
    )
    assert change is not None
    return change


async def test_only_the_databases_clock_ends_a_lease(store: Store) -> None:
    await store.ledger.apply(sending(await opened(store), lease_s=30.0))
    assert await store.ledger.apply(over(await loaded(store))) is None  # whatever our own clock says
    assert (await loaded(store)).attempts[0].state is S.SENDING
    store.run("update attempts set lease_until = clock_timestamp() - interval '1 ms'")
    assert await store.ledger.apply(over(await loaded(store))) is not None
    row = (await loaded(store)).attempts[0]
    assert (row.state, row.lease_token, row.lease_until) == (S.UNKNOWN, None, None)


async def test_an_answer_and_the_end_of_its_lease_cannot_both_be_written(store: Store, other: Store) -> None:
    for n in range(10):
        order_id = f"o{n}"
        await store.ledger.apply(sending(await opened(store, order_id), lease_s=-1.0))
        state = await loaded(store, order_id)
        answered = placement.on_placement_answer(
            state, 1, "me", PlacedAnswer(Placed.ACCEPTED), ROUTING, SCHEDULE, state.order.accepted_at
        )
        assert answered is not None
        results = await asyncio.gather(store.ledger.apply(answered), other.ledger.apply(over(state)))
        assert sum(result is not None for result in results) == 1


def second_attempt(row: Attempt) -> Attempt:
    return msgspec.structs.replace(row, attempt=2, reference=row.reference + "-2", created_at=None)


async def test_the_database_refuses_a_second_live_attempt_on_a_line(store: Store) -> None:
    state = await opened(store)
    change = Change(order=state.order, attempts=[second_attempt(state.attempts[0])])
    with pytest.raises(IntegrityError, match="idx_attempts_one_live"):
        await store.ledger.apply(change)
    assert len((await loaded(store)).attempts) == 1


@pytest.mark.parametrize("state", [S.INTENT, S.UNKNOWN, S.ACCEPTED])
async def test_a_live_attempt_of_any_state_bars_the_next(store: Store, state: AttemptState) -> None:
    born = await opened(store)
    store.run("update attempts set state = :state", state=state.value)
    with pytest.raises(IntegrityError, match="idx_attempts_one_live"):
        await store.ledger.apply(Change(order=born.order, attempts=[second_attempt(born.attempts[0])]))


async def test_one_decision_may_end_an_attempt_and_start_the_next(store: Store) -> None:
    state = await opened(store)
    dead = msgspec.structs.replace(state.attempts[0], state=S.NOT_SENT)
    change = Change(order=state.order, attempts=[dead, second_attempt(state.attempts[0])])
    assert await store.ledger.apply(change) is not None
    assert [row.state for row in (await loaded(store)).attempts] == [S.NOT_SENT, S.INTENT]


async def test_a_reference_is_never_used_for_two_attempts(store: Store) -> None:
    await opened(store, "a")
    second = new("b")
    second.attempts[0].reference = "one-t-a-1"
    with pytest.raises(IntegrityError, match="reference"):
        await store.ledger.open(second)
    assert await store.ledger.load(("t", "b")) is None


async def test_what_an_attempt_was_born_with_is_never_rewritten(store: Store) -> None:
    state = await opened(store)
    row = msgspec.structs.replace(state.attempts[0], wire={"player": "other"}, reference="other", integration_id="two")
    assert await store.ledger.apply(Change(order=state.order, attempts=[row])) is not None
    after = (await loaded(store)).attempts[0]
    assert (after.wire, after.reference, after.integration_id) == (
        state.attempts[0].wire,
        state.attempts[0].reference,
        "one",
    )


async def test_a_bad_row_of_a_batch_fails_alone(store: Store) -> None:
    bad = new("bad")
    bad.steps.append(Step(step="answered", actor="dispatch", details={"raw": "nul \x00"}))
    results = await asyncio.gather(
        *(store.ledger.open(new(f"o{n}")) for n in range(5)),
        store.ledger.open(bad),
        *(store.ledger.open(new(f"p{n}")) for n in range(5)),
        return_exceptions=True,
    )
    assert isinstance(results[5], DBAPIError) and not isinstance(results[5], StoreUnavailable)
    assert all(isinstance(result, Change) for n, result in enumerate(results) if n != 5)
    assert store.rows("select count(*) as n from ledger_orders") == [{"n": 10}]


async def test_many_writes_of_one_order_at_once_each_see_the_one_before(store: Store) -> None:
    state = await opened(store)
    results = await asyncio.gather(*(store.ledger.apply(touched(state, check_number=n)) for n in range(10)))
    assert [result is not None for result in results] == [True] + [False] * 9
    assert (await loaded(store)).order.rev == 1


async def test_a_burst_shares_commits(store: Store) -> None:
    await asyncio.gather(*(store.ledger.open(new(f"o{n}")) for n in range(400)))
    (found,) = store.rows("select count(*) as orders, count(distinct xmin::text) as commits from ledger_orders")
    assert found["orders"] == 400 and found["commits"] < 40


async def test_a_database_that_is_away_is_said_so() -> None:
    with store_on(f"postgresql+psycopg2://nobody:secret@127.0.0.1:{free_port()}/none") as store:
        for call in (
            store.ledger.open(new()),
            store.ledger.apply(new()),
            store.ledger.load(("t", "o")),
            store.ledger.overdue(None, 0.0, 10),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await call
            assert "secret" not in str(caught.value) and "player" not in str(caught.value)


async def test_a_connection_that_was_cut_is_away_once_and_then_replaced(store: Store, other: Store) -> None:
    state = await opened(store)
    other.cut_off_others()
    with pytest.raises(StoreUnavailable):
        await store.ledger.apply(sending(state))
    assert await store.ledger.apply(sending(await loaded(store))) is not None


async def test_a_transaction_that_stands_still_holds_nobody_up(store: Store, database: str) -> None:
    """A worker that was stopped in the middle of one keeps its connection, and kept its locks for as long."""
    state = await opened(store)
    with store_on(database, frozen_s=1.0) as frozen:
        with pytest.raises(StoreUnavailable):
            with answering(frozen.engine), frozen.engine.begin() as connection:
                connection.execute(sa.text("update ledger_orders set rev = rev + 1"))
                assert await store.ledger.apply(sending(state)) is not None  # waits until the server ended the other
        assert await frozen.ledger.load(("t", "o")) == await loaded(store)
    assert (await loaded(store)).order.rev == state.order.rev + 1


async def test_a_server_that_became_read_only_is_left(store: Store, other: Store, database: str) -> None:
    state = await opened(store)
    name = sa.make_url(database).database
    other.run("select 1")  # a session of before: it may still write
    store.run(f"alter database {name} set default_transaction_read_only = on")
    store.engine.dispose()
    with pytest.raises(StoreUnavailable):
        await store.ledger.apply(sending(state))
    other.run(f"alter database {name} reset default_transaction_read_only")
    assert await store.ledger.apply(sending(state)) is not None


# -- what is overdue ------------------------------------------------------------------------------------------------


async def test_overdue_checks_come_oldest_first_in_pages_and_each_once(store: Store) -> None:
    for n in range(7):
        await opened(store, f"o{n}")
    store.run("update attempts set next_check_at = now() - make_interval(secs => 100 + substr(order_id, 2)::int / 3)")
    await opened(store, "later")
    store.run("update attempts set next_check_at = now() where order_id = 'later'")
    found, after = [], None
    while page := await store.ledger.overdue(after, 60.0, 2):
        assert len(page) <= 2
        found += page
        after = page[-1]
    assert [due.order_id for due in found] == ["o6", "o3", "o4", "o5", "o0", "o1", "o2"]
    assert {(due.attempt, due.check_number) for due in found} == {(1, 1)}


async def test_a_lost_sending_is_overdue_once_its_lease_is_over(store: Store) -> None:
    await store.ledger.apply(sending(await opened(store), lease_s=-61.0))
    (due,) = await store.ledger.overdue(None, 60.0, 10)
    assert (due.attempt, due.check_number) == (1, (await loaded(store)).attempts[0].check_number)


async def test_open_orders_past_their_deadline_are_found_and_settled_ones_are_not(store: Store) -> None:
    for name in ("open", "expired", "done"):
        await opened(store, name)
    store.run("update ledger_orders set deadline_at = now() - interval '1 s'")
    store.run("update ledger_orders set external_status = 'expired' where order_id = 'expired'")
    store.run(
        "update ledger_orders set external_status = 'failed', status = 'rejected', finished_at = now()"
        " where order_id = 'done'"
    )
    assert await store.ledger.past_deadline(("", ""), 10) == [("t", "open")]
    assert await store.ledger.past_deadline(("t", "open"), 10) == []


async def test_a_threshold_that_was_raised_is_not_found_again(store: Store) -> None:
    state = await opened(store)
    store.run("update ledger_orders set accepted_at = now() - interval '10 min'")
    asked = (("", ""), 300.0, AttentionCode.LONG_PENDING.value, "300s", 10)
    assert await store.ledger.pending_longer(*asked) == [("t", "o")]
    change = deadlines.long_pending(state, ROUTING, state.order.accepted_at, 300.0)
    assert change is not None and await store.ledger.apply(change) is not None
    assert await store.ledger.pending_longer(*asked) == []
    assert await store.ledger.pending_longer(("", ""), 300.0, AttentionCode.LONG_PENDING.value, "900s", 10)


async def test_a_status_that_never_reached_the_view_is_untold(store: Store) -> None:
    state = await opened(store)
    assert await store.ledger.unpublished(("", ""), 0.0, 10) == []
    change = deadlines.expired(state, ROUTING, state.order.accepted_at, fail=False, actor="sweep")
    assert change is not None and await store.ledger.apply(change) is not None
    assert await store.ledger.unpublished(("", ""), 0.0, 10) == [("t", "o")]
    store.run("update orders set version = 1")
    store.run("update ledger_orders set raised = '[]'")  # an attention that is not in its view is unpublished too
    assert await store.ledger.unpublished(("", ""), 0.0, 10) == []


async def test_orders_that_wait_for_the_configuration_are_found(store: Store) -> None:
    made = order()
    waits = routing(mode="manual", primary=None, fallback=None)
    change = placement.open_order(made, waits, waits.first(facts_of(made)), made.accepted_at)
    assert await store.ledger.open(change) is not None
    (due,) = await store.ledger.waiting(("", ""), [AttentionCode.MANUAL_ROUTE], 10)
    assert (due.order_id, due.attempt) == ("o", 0)
    assert await store.ledger.waiting(("", ""), [AttentionCode.NO_ROUTING], 10) == []


async def test_the_database_keeps_the_words_together(store: Store) -> None:
    await opened(store)
    for wrong in (
        "update ledger_orders set status = 'approved'",
        "update ledger_orders set external_status = 'failed', status = 'rejected'",
        "update ledger_orders set finished_at = now()",
        "update attempts set state = 'sending'",
        "update attempts set state = 'sent'",
    ):
        with pytest.raises(IntegrityError):
            store.run(wrong)
    assert (await loaded(store)).order.external_status is ExternalStatus.NOT_SENT
