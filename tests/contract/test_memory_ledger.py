"""The explorer's ledger in memory is believed because it does what PostgreSQL does: the same cases, and a random walk
of real decisions on both at once."""

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec
import pytest
from sqlalchemy.exc import IntegrityError

from agents.domain import deadlines, placement, status_answers
from agents.domain.routing import facts_of
from agents.providers.base import Placed, PlacedAnswer, Refusal, Seen, StatusAnswer
from db.clock import Clock
from db.ledger import Ledger
from db.rows import Answer, Change, CommandRecord, OrderState, Raised
from db.views import Views
from orderwatch.crash.memory import MemoryLedger, MemoryViews
from streams.order import AttemptState, AttentionCode
from tests.contract.store import store_on
from tests.fakes import CAREFUL, NOW, REPEATABLE, SCHEDULE, order, routing

S = AttemptState
ROUTING = routing()


class Sides(NamedTuple):
    ledger: Ledger | MemoryLedger
    views: Views | MemoryViews


def in_memory() -> Sides:
    views, clock = MemoryViews(), Clock()
    return Sides(MemoryLedger(clock.now, views), views)


@pytest.fixture(params=["memory", "postgres"])
def sides(request: pytest.FixtureRequest) -> Iterator[Sides]:
    if request.param == "memory":
        yield in_memory()
        return
    with store_on(request.getfixturevalue("database")) as store:
        yield Sides(store.ledger, store.views)


def new(order_id: str = "o", quantity: int = 1, **fields: Any) -> Change:
    made = order(quantity, order_id, **fields)
    return placement.open_order(made, ROUTING, ROUTING.first(facts_of(made)), made.accepted_at)


async def opened(sides: Sides, order_id: str = "o", quantity: int = 1, **fields: Any) -> OrderState:
    assert await sides.ledger.open(new(order_id, quantity, **fields)) is not None
    return await loaded(sides, order_id)


async def loaded(sides: Sides, order_id: str = "o") -> OrderState:
    state = await sides.ledger.load(("t", order_id))
    assert state is not None
    return state


async def leased(sides: Sides, order_id: str = "o", lease_s: float = 30.0) -> OrderState:
    state = await opened(sides, order_id)
    change = placement.start_sending(state, 1, ROUTING, NOW, placement.Lease("me", lease_s))
    assert change is not None and await sides.ledger.apply(change) is not None
    return await loaded(sides, order_id)


def touched(state: OrderState, **fields: Any) -> Change:
    return Change(order=msgspec.structs.replace(state.order, **fields))


async def test_what_was_written_is_what_is_read(sides: Sides) -> None:
    state = await opened(sides, quantity=2)
    wanted = new(quantity=2)
    assert state.order == wanted.order
    assert [msgspec.structs.replace(row, created_at=None) for row in state.attempts] == wanted.attempts
    assert all(row.created_at is not None for row in state.attempts)
    assert await sides.ledger.load(("t", "nobody")) is None


async def test_opening_twice_changes_nothing(sides: Sides) -> None:
    await opened(sides)
    assert await sides.ledger.open(new(quantity=3)) is None
    assert len((await loaded(sides)).attempts) == 1


async def test_a_decision_on_an_old_revision_writes_nothing(sides: Sides) -> None:
    state = await opened(sides)
    assert await sides.ledger.apply(touched(state, check_number=1)) is not None
    assert await sides.ledger.apply(touched(state, check_number=2)) is None
    assert await sides.ledger.apply(touched(state, order_id="nobody")) is None
    after = (await loaded(sides)).order
    assert (after.rev, after.check_number) == (1, 1)


async def test_what_apply_returns_is_what_is_stored(sides: Sides) -> None:
    state = await opened(sides)
    change = placement.start_sending(state, 1, ROUTING, NOW, placement.Lease("me", 30.0))
    assert change is not None
    stored = await sides.ledger.apply(change)
    after = await loaded(sides)
    assert stored is not None and stored.order == after.order
    same = {"created_at": None, "next_check_at": None, "lease_until": None}
    assert msgspec.structs.replace(stored.attempts[0], **same) == msgspec.structs.replace(after.attempts[0], **same)
    row = after.attempts[0]
    assert row.lease_until is not None and row.next_check_at is not None and row.next_check_at >= row.lease_until


@pytest.mark.parametrize(("lease_s", "ends"), [(30.0, False), (-1.0, True)])
async def test_only_the_databases_clock_ends_a_lease(sides: Sides, lease_s: float, ends: bool) -> None:
    state = await leased(sides, lease_s=lease_s)
    change = placement.on_lease_expired(state, 1, ROUTING, SCHEDULE, NOW + timedelta(days=99), "check")
    assert change is not None and (await sides.ledger.apply(change) is not None) is ends
    assert (await loaded(sides)).attempts[0].state is (S.UNKNOWN if ends else S.SENDING)


@pytest.mark.parametrize("live", [S.INTENT, S.UNKNOWN, S.ACCEPTED])
async def test_a_live_attempt_bars_the_next_on_its_line(sides: Sides, live: AttemptState) -> None:
    born = (await opened(sides)).attempts[0]
    row = msgspec.structs.replace(born, state=live)
    second = msgspec.structs.replace(born, attempt=2, reference="second", created_at=None, state=S.INTENT)
    state = await loaded(sides)
    with pytest.raises(IntegrityError, match="idx_attempts_one_live"):
        await sides.ledger.apply(Change(order=state.order, attempts=[row, second]))
    assert [kept.state for kept in (await loaded(sides)).attempts] == [S.INTENT]
    other_line = msgspec.structs.replace(second, line=2)
    assert await sides.ledger.apply(Change(order=state.order, attempts=[row, other_line])) is not None


async def test_one_decision_may_end_an_attempt_and_start_the_next(sides: Sides) -> None:
    state = await opened(sides)
    born = state.attempts[0]
    dead = msgspec.structs.replace(born, state=S.NOT_SENT)
    second = msgspec.structs.replace(born, attempt=2, reference="second", created_at=None)
    assert await sides.ledger.apply(Change(order=state.order, attempts=[dead, second])) is not None
    assert [row.state for row in (await loaded(sides)).attempts] == [S.NOT_SENT, S.INTENT]


def command(command_id: str = "c", order_id: str = "o") -> CommandRecord:
    return CommandRecord(
        command_id=command_id, tenant_id="t", order_id=order_id, action="cancel", by="ayse", reason="why", issued_at=NOW
    )


async def test_a_command_is_received_once_and_decided_once_with_what_follows_from_it(sides: Sides) -> None:
    state = await opened(sides)
    later = NOW + timedelta(days=9)
    answer = Answer(tenant_id="t", command_id="c", done=True, said="it was done", asked=[(1, 4)])
    decision = msgspec.structs.replace(touched(state, check_number=5, deadline_at=later), answer=answer)
    assert await sides.ledger.apply(decision) is None  # nobody received it yet

    received = [await sides.ledger.receive(command()), await sides.ledger.receive(command(order_id="other"))]
    assert [(one.order_id, one.done) for one in received] == [("o", None)] * 2
    assert await sides.ledger.apply(decision) is not None
    order = (await loaded(sides)).order
    assert (order.rev, order.check_number, order.deadline_at) == (1, 5, later)

    on_top = msgspec.structs.replace(touched(order_state := await loaded(sides), check_number=9), answer=answer)
    assert await sides.ledger.apply(on_top) is None
    await sides.ledger.refuse(Answer(tenant_id="t", command_id="c", done=False, said="no"))
    kept = await sides.ledger.receive(command())
    assert (kept.done, kept.said, kept.asked) == (True, "it was done", [(1, 4)])
    assert kept.decided_at is not None
    assert await loaded(sides) == order_state


async def test_a_command_id_is_its_tenants_own(sides: Sides) -> None:
    await sides.ledger.receive(command())
    foreign = msgspec.structs.replace(command(), tenant_id="another", by="mehmet")
    assert (await sides.ledger.receive(foreign)).by == "mehmet"
    await sides.ledger.refuse(Answer(tenant_id="another", command_id="c", done=False, said="no"))
    assert [(await sides.ledger.receive(one)).done for one in (command(), foreign)] == [None, False]


async def test_a_decision_on_an_old_revision_leaves_its_command_undecided(sides: Sides) -> None:
    state = await opened(sides)
    await sides.ledger.receive(command())
    assert await sides.ledger.apply(touched(state, check_number=1)) is not None
    answer = Answer(tenant_id="t", command_id="c", done=True, said="done")
    stale = msgspec.structs.replace(touched(state), answer=answer)
    assert await sides.ledger.apply(stale) is None
    assert (await sides.ledger.receive(command())).done is None


async def test_a_refusal_without_an_order_is_an_answer(sides: Sides) -> None:
    await sides.ledger.receive(command())
    await sides.ledger.refuse(Answer(tenant_id="t", command_id="c", done=False, said="never accepted"))
    kept = await sides.ledger.receive(command())
    assert (kept.done, kept.said) == (False, "never accepted")


async def test_only_a_command_moves_a_deadline(sides: Sides) -> None:
    state = await opened(sides)
    assert await sides.ledger.apply(touched(state, deadline_at=NOW + timedelta(days=9))) is not None
    assert (await loaded(sides)).order.deadline_at == state.order.deadline_at


async def test_a_reference_is_never_used_for_two_attempts(sides: Sides) -> None:
    first = await opened(sides, "a")
    second = new("b")
    second.attempts[0].reference = first.attempts[0].reference
    with pytest.raises(IntegrityError, match="reference"):
        await sides.ledger.open(second)
    assert await sides.ledger.load(("t", "b")) is None


async def test_what_an_order_and_an_attempt_were_born_with_is_never_rewritten(sides: Sides) -> None:
    state = await opened(sides)
    born = state.attempts[0]
    row = msgspec.structs.replace(born, wire={"player": "other"}, reference="other", integration_id="two", line=7)
    head = msgspec.structs.replace(state.order, fingerprint="other", request={}, deadline_at=NOW)
    assert await sides.ledger.apply(Change(order=head, attempts=[row])) is not None
    after = await loaded(sides)
    assert after.attempts == [born]
    assert (after.order.fingerprint, after.order.request) == (state.order.fingerprint, state.order.request)
    assert after.order.deadline_at == state.order.deadline_at


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "approved"},
        {"external_status": "failed", "status": "rejected"},
        {"finished_at": NOW},
        {"external_status": "completed", "finished_at": NOW},
    ],
)
async def test_the_tables_keep_the_words_together(sides: Sides, wrong: dict[str, Any]) -> None:
    state = await opened(sides)
    with pytest.raises(IntegrityError):
        await sides.ledger.apply(touched(state, **wrong))
    assert (await loaded(sides)).order == state.order


async def test_a_sending_has_a_token_and_nothing_else_has(sides: Sides) -> None:
    state = await opened(sides)
    for fields in ({"state": S.SENDING}, {"lease_token": "me"}):
        row = msgspec.structs.replace(state.attempts[0], **fields)
        with pytest.raises(IntegrityError, match="attempts_lease"):
            await sides.ledger.apply(Change(order=state.order, attempts=[row]))


async def test_overdue_checks_come_oldest_first_in_pages_and_each_once(sides: Sides) -> None:
    now = Clock().now()
    for n, late_s in enumerate([100, 300, 200, 200, 10]):
        state = await opened(sides, f"o{n}")
        row = msgspec.structs.replace(state.attempts[0], next_check_at=now - timedelta(seconds=late_s))
        head = msgspec.structs.replace(state.order, next_check_at=now - timedelta(seconds=400) if n == 3 else None)
        await sides.ledger.apply(Change(order=head, attempts=[row]))
    found, after = [], None
    while page := await sides.ledger.overdue(after, 60.0, 2):
        assert len(page) <= 2
        found += page
        after = page[-1]
    assert [(due.order_id, due.attempt) for due in found] == [("o3", 0), ("o1", 1), ("o2", 1), ("o3", 1), ("o0", 1)]


async def test_orders_past_their_deadline_or_open_for_long_are_found_until_it_is_written_down(sides: Sides) -> None:
    at = Clock().now() - timedelta(hours=1)
    for name in ("done", "expired", "open"):
        await opened(sides, name, accepted_at=at, deadline_at=at + timedelta(minutes=1))
    await opened(sides, "young", accepted_at=Clock().now(), deadline_at=Clock().now() + timedelta(hours=1))
    done = await loaded(sides, "done")
    await sides.ledger.apply(touched(done, external_status="failed", status="rejected", finished_at=at))
    await sides.ledger.apply(touched(await loaded(sides, "expired"), external_status="expired"))
    assert await sides.ledger.past_deadline(("", ""), 10) == [("t", "open")]
    assert await sides.ledger.past_deadline(("t", "open"), 10) == []
    asked: tuple[Any, ...] = (("", ""), 300.0, AttentionCode.LONG_PENDING.value, "300s", 10)
    assert await sides.ledger.pending_longer(*asked) == [("t", "open")]
    raised = deadlines.long_pending(await loaded(sides, "open"), ROUTING, NOW, 300.0)
    assert raised is not None and await sides.ledger.apply(raised) is not None
    assert await sides.ledger.pending_longer(*asked) == []


async def test_a_status_is_untold_until_the_view_has_it(sides: Sides) -> None:
    state = await opened(sides)
    at = Clock().now() - timedelta(seconds=100)
    await sides.ledger.apply(touched(state, version=1, last_event={"version": 1}, last_event_at=at))
    assert await sides.ledger.unpublished(("", ""), 60.0, 10) == [("t", "o")]
    assert await sides.ledger.unpublished(("", ""), 200.0, 10) == []
    row = {
        "tenant_id": "t",
        "order_id": "o",
        "version": 1,
        "status": "pending",
        "external_status": "sent",
        "reason": "provider",
        "message": None,
        "attempt": 1,
        "integration_id": "one",
        "provider_referans": "r",
        "checks": 0,
        "occurred_at": at,
        "pins": None,
        "cost_amount": None,
        "cost_currency": None,
    }
    await sides.views.status([row])
    assert await sides.ledger.unpublished(("", ""), 60.0, 10) == []
    await sides.ledger.apply(touched(await loaded(sides), version=2, last_event={"version": 2}, last_event_at=at))
    await sides.views.status([row])
    assert await sides.ledger.unpublished(("", ""), 60.0, 10) == [("t", "o")]


async def test_an_attention_is_untold_until_the_view_has_it(sides: Sides) -> None:
    state = await opened(sides)
    at = Clock().now() - timedelta(seconds=100)
    raised = [
        Raised(code=code, message="m", since=at, discriminator=which)
        for code, which in (("long_pending", "1"), ("long_pending", "2"), ("reversal", ""))
    ]
    await sides.ledger.apply(touched(state, raised=raised))
    shown = ("long_pending", "reversal", "long_pending")
    for number, code in enumerate(shown):
        assert await sides.ledger.unpublished(("", ""), 60.0, 10) == [("t", "o")]
        assert await sides.ledger.unpublished(("", ""), 200.0, 10) == []
        await sides.views.attention(
            [
                {
                    "id": f"a{number}",
                    "tenant_id": "t",
                    "order_id": "o",
                    "integration_id": None,
                    "code": code,
                    "message": "m",
                    "since": at,
                }
            ]
        )
    assert await sides.ledger.unpublished(("", ""), 60.0, 10) == []


async def test_of_an_order_at_its_end_only_a_reversal_is_still_told(sides: Sides) -> None:
    state = await opened(sides)
    at = Clock().now() - timedelta(seconds=100)
    ended = {"status": "rejected", "external_status": "failed", "finished_at": at}
    expired, reversal = (Raised(code=code, message="m", since=at) for code in ("expired", "reversal"))
    await sides.ledger.apply(touched(state, raised=[expired], **ended))
    assert await sides.ledger.unpublished(("", ""), 60.0, 10) == []
    await sides.ledger.apply(touched(await loaded(sides), raised=[expired, reversal]))
    assert await sides.ledger.unpublished(("", ""), 60.0, 10) == [("t", "o")]


async def test_orders_that_wait_for_the_configuration_are_found(sides: Sides) -> None:
    made = order()
    waits = routing(mode="manual", primary=None, fallback=None)
    await sides.ledger.open(placement.open_order(made, waits, waits.first(facts_of(made)), made.accepted_at))
    (due,) = await sides.ledger.waiting(("", ""), [AttentionCode.MANUAL_ROUTE], 10)
    assert (due.order_id, due.attempt, due.due_at) == ("o", 0, NOW)
    assert await sides.ledger.waiting(("", ""), [AttentionCode.NO_ROUTING], 10) == []


# -- both at once ---------------------------------------------------------------------------------------------------


def decisions(state: OrderState, draw: random.Random, at: Any, way: Any) -> Change | None:
    """One decision of the engine, drawn; often one that rests on what is no longer so."""
    row = draw.choice(state.attempts)
    answer = PlacedAnswer(draw.choice(list(Placed)), external_id="x", reason=draw.choice(list(Refusal)))
    match draw.randrange(7):
        case 0 | 1:
            lease = placement.Lease(f"token-{draw.randrange(3)}", draw.choice([-1.0, 60.0]))
            return placement.start_sending(state, row.attempt, way, at, lease)
        case 2 | 3:
            token = row.lease_token or "none"
            return placement.on_placement_answer(state, row.attempt, token, answer, way, SCHEDULE, at)
        case 4:
            return placement.on_lease_expired(state, row.attempt, way, SCHEDULE, at, "check")
        case 5:
            seen = StatusAnswer(draw.choice(list(Seen)), external_id="x")
            return status_answers.on_status_answer(state, row.attempt, seen, way, SCHEDULE, at)
        case _:
            return placement.defer(state, row.attempt, way, at, 5.0, "full")


def shown(state: OrderState | None) -> Any:
    """A state without what the clock of its ledger put in."""
    assert state is not None
    rows = []
    for row in state.attempts:
        timed = {"created_at": None, "lease_until": row.lease_until is not None}
        if row.state is S.SENDING:
            timed["next_check_at"] = row.next_check_at is not None
        rows.append(msgspec.to_builtins(msgspec.structs.replace(row, **timed)))
    return msgspec.to_builtins(state.order), rows


@pytest.mark.parametrize("seed", range(6))
async def test_a_random_walk_of_decisions_ends_the_same_on_both(database: str, seed: int) -> None:
    draw = random.Random(seed)
    way = routing(CAREFUL, REPEATABLE)
    with store_on(database) as store:
        memory = in_memory()
        made = order(draw.choice([1, 2]))
        change = placement.open_order(made, way, way.first(facts_of(made)), NOW)
        for ledger in (store.ledger, memory.ledger):
            assert await ledger.open(msgspec.convert(msgspec.to_builtins(change), Change)) is not None
        written = refused = 0
        stale = await store.ledger.load(made.key)
        for n in range(60):
            at = NOW + timedelta(seconds=30 * n)
            fresh = await store.ledger.load(made.key)
            state = fresh if draw.random() < 0.85 else stale
            assert state is not None
            decided = decisions(state, draw, at, way)
            stale = fresh
            if decided is None:
                continue
            results = [await ledger.apply(decided) for ledger in (store.ledger, memory.ledger)]
            assert (results[0] is None) == (results[1] is None), decided
            written += results[0] is not None
            refused += results[0] is None
            assert shown(await store.ledger.load(made.key)) == shown(await memory.ledger.load(made.key))
        assert written > 5
