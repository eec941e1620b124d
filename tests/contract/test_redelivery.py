"""Dispatch and check on a real ledger with a scripted provider: crashes, repeats and races between any two writes."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from agents.domain.routing import Routing
from agents.gateway.gateway import Lane
from agents.handlers import check, dispatch
from agents.handlers.context import HandlerContext
from agents.maintenance.sweeper import sweep
from agents.providers.base import Placed, PlacedAnswer, Profile, Refusal, Seen, StatusAnswer
from agents.runtime.guard import Delivery, Guard
from db.ledger import Ledger
from db.rows import Key, OrderState
from streams.config.loader import BreakerConfig, LimitsConfig
from streams.errors import BrokerUnavailable, EventError, StoreUnavailable
from streams.events import Check, Created, decode, encode
from streams.order import AttemptState, ExternalStatus
from tests.contract.store import Store, store_on
from tests.fakes import CAREFUL, NOW, REPEATABLE, SCHEDULE, FakeProvider, Sent, account, config
from tests.waiting import eventually

S = AttemptState
QUICK = replace(SCHEDULE, requeue_s=0.0, first_after_s=0.0)
PATIENT = BreakerConfig(fail_max=1000, refusals_max=1000)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with store_on(database) as made:
        yield made


class Worker:
    """Handlers with everything they need; ``sent`` is what the broker has."""

    def __init__(
        self,
        store: Store,
        *providers: FakeProvider,
        profile: Profile = CAREFUL,
        sent: Sent | None = None,
        lease_s: float = 35.0,
        quick: bool = True,
        breaker: BreakerConfig = PATIENT,
    ) -> None:
        self.store = store
        self.sent = sent or Sent()
        one, two = providers if len(providers) == 2 else (providers[0], FakeProvider(Placed.ACCEPTED, name="two"))
        schedule = QUICK if quick else SCHEDULE
        accounts = {
            name: account(name, profile, adapter=adapter, schedule=schedule, lease_s=lease_s)
            for name, adapter in (("one", one), ("two", two))
        }
        lanes = {
            name: Lane(name, made.adapter, LimitsConfig(rate=10_000), breaker, profile.batch, lambda down: None)
            for name, made in accounts.items()
        }
        made = config()
        self.deps = HandlerContext(
            made,
            Routing(made, accounts),
            lanes,
            store.ledger,
            self.sent,
            store.clock,  # type: ignore[arg-type]
            tiers=SCHEDULE.tiers,
        )
        self.guard = Guard(self.sent.send, self._stop, 0, 1.0)

    async def _stop(self, error: Exception) -> None:
        raise error

    async def created(self, quantity: int = 1, **fields: Any) -> None:
        await dispatch.created(self.deps, created(quantity, **fields))

    async def state(self) -> OrderState:
        state = await self.store.ledger.load(("t", "o"))
        assert state is not None
        return state

    async def check(
        self, attempt: int = 1, *, number: int | None = None, repeated: bool = False, reason: str = "backoff"
    ) -> None:
        """The check that is due for an attempt, or an older one."""
        await check.check(self.deps, await self.due(attempt, number=number, repeated=repeated, reason=reason))

    async def due(
        self, attempt: int = 1, *, number: int | None = None, repeated: bool = False, reason: str = "backoff"
    ) -> Delivery:
        row = (await self.state()).attempt(attempt)
        if number is None:
            assert row is not None
            number = row.check_number
        current = row is not None and number == row.check_number
        due_at = (row.next_check_at if row is not None and current else None) or NOW
        event = Check(order_id="o", tenant_id="t", attempt=attempt, check_number=number, due_at=due_at, reason=reason)
        return Delivery("orders.check", 0, 1, b"o", encode(event), [], repeated=repeated)

    def checks(self) -> list[tuple[int, int]]:
        """(attempt, number) of every check that was written."""
        written = [r for r in self.sent.records if r.topic.startswith(("orders.check", "orders.retry"))]
        events = [decode(Check, record.value) for record in written]
        return [(event.attempt, event.check_number) for event in events]


def created(quantity: int = 1, **fields: Any) -> Delivery:
    said = {"order_id": "o", "tenant_id": "t", "package_id": "p", "user_identifier": "player"} | fields
    event = Created(quantity=quantity, created_at=NOW, **said)
    return Delivery("orders.created", 0, 0, b"o", encode(event), [])


class Died(BaseException):
    """The process ends here."""


def dies(*_: object) -> None:
    raise Died


async def test_an_order_is_written_down_leased_and_sent_once(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED)
    seen: list[AttemptState] = []
    worker = Worker(store, provider)

    async def look() -> None:
        seen.append((await worker.state()).attempts[0].state)

    provider.on_place = look
    await worker.created()
    assert seen == [S.SENDING]  # committed before the first byte left
    assert worker.sent.topics() == ["orders.referenced", "orders.status-changed", "orders.check"]
    for _ in range(3):
        await worker.created()
    assert len(provider.placed) == 1


async def test_a_crash_before_the_outcome_never_sends_again(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED, answers=[Seen.QUERY_ERROR])
    provider.on_place = dies
    worker = Worker(store, provider, lease_s=0.5)
    with pytest.raises(Died):
        await worker.created()
    provider.on_place = None
    await worker.created()
    assert (await worker.state()).attempts[0].state is S.SENDING and worker.checks()  # comes back after the lease

    async def over() -> bool:
        await worker.check()
        return (await worker.state()).attempts[0].state is S.UNKNOWN

    await eventually(over)
    for _ in range(4):
        await worker.check()
        await worker.created()
    assert len(provider.placed) == 1 and {kind for kind, _ in provider.asked} == {"look_up"}


async def test_while_a_lease_runs_nobody_else_sends_or_settles(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED, answers=[Seen.NOT_FOUND])
    provider.gate = asyncio.Event()
    worker, other = Worker(store, provider), Worker(store, provider)
    sending = asyncio.create_task(worker.created())
    await eventually(lambda: provider.placed)
    await other.created()
    await other.check()
    assert (await other.state()).attempts[0].state is S.SENDING and not provider.asked
    provider.gate.set()
    await sending
    assert len(provider.placed) == 1 and (await worker.state()).attempts[0].state is S.ACCEPTED


async def test_two_workers_with_the_same_event_send_once(store: Store) -> None:
    for n in range(10):
        provider = FakeProvider(Placed.ACCEPTED, name=f"p{n}")
        workers = [Worker(store, provider) for _ in range(3)]
        await asyncio.gather(*(worker.created(order_id=f"o{n}") for worker in workers))
        assert len(provider.placed) == 1


async def test_two_workers_with_the_same_check_send_the_put_off_attempt_once(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED)
    worker = await defer(store, provider)
    other = Worker(store, provider)
    await asyncio.gather(worker.check(), other.check())
    assert len(provider.placed) == 1


async def test_copies_of_a_check_that_is_put_off_again_become_one(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED)
    worker = await defer(store, provider)
    lanes, worker.deps.lanes = worker.deps.lanes, {}
    copies = [await worker.due() for _ in range(4)]
    before = len(worker.checks())
    for copy in copies:
        await check.check(worker.deps, copy)
    assert len(worker.checks()) == before + 1
    worker.deps.lanes = lanes
    await worker.check()
    assert len(provider.placed) == 1


async def test_who_has_a_turn_keeps_it(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED)
    worker = await defer(store, provider)
    taken: list[float] = []

    def reserve() -> float:
        taken.append(300.0)
        return taken[-1]

    for _ in range(3):
        state = await worker.state()
        await dispatch.defer(worker.deps, state, 1, "full", reserve=reserve)
    assert len(taken) == 1
    row = (await worker.state()).attempts[0]
    assert row.next_check_at is not None
    assert row.next_check_at <= datetime.fromisoformat(row.evidence["turn"])
    await worker.check()
    assert len(provider.placed) == 1 and "turn" not in (await worker.state()).attempts[0].evidence


async def defer(store: Store, provider: FakeProvider) -> Worker:
    """A worker whose order met an open circuit breaker: nothing was sent, a check will try again."""
    worker = Worker(store, provider)
    lanes = worker.deps.lanes
    worker.deps.lanes = {}
    await worker.created()
    worker.deps.lanes = lanes
    assert not provider.placed and (await worker.state()).attempts[0].state is S.INTENT
    return worker


@pytest.mark.parametrize("answer", [Placed.ACCEPTED, Placed.COMPLETED, Placed.AMBIGUOUS])
async def test_an_outcome_that_was_stored_and_not_told_is_told_on_redelivery(store: Store, answer: Placed) -> None:
    told = Worker(store, FakeProvider(answer))
    await told.created()
    expected = {(topic, each) for topic in set(told.sent.topics()) for each in told.sent.ids(topic)}
    again = Worker(store, FakeProvider(answer), sent=Sent(away=1))
    with pytest.raises(BrokerUnavailable):
        await again.created()
    await again.created()
    assert expected <= {(topic, each) for topic in set(again.sent.topics()) for each in again.sent.ids(topic)}


@pytest.mark.parametrize("answer", [Placed.ACCEPTED, Placed.COMPLETED])
async def test_an_outcome_of_a_put_off_attempt_is_told_when_its_check_comes_again(store: Store, answer: Placed) -> None:
    worker = await defer(store, FakeProvider(answer, answers=[Seen.PENDING]))
    delivery = await worker.due()
    worker.sent.records.clear()
    worker.sent.away = 1
    with pytest.raises(BrokerUnavailable):
        await check.check(worker.deps, delivery)
    await check.check(worker.deps, replace(delivery, repeated=True))
    assert {"orders.referenced", "orders.status-changed"} <= set(worker.sent.topics())
    row = (await worker.state()).attempts[0]
    assert (1, row.check_number) in worker.checks()


async def test_a_broker_that_was_away_loses_no_event_of_a_check(store: Store) -> None:
    worker = Worker(store, FakeProvider(Placed.ACCEPTED, answers=[Seen.SUCCEEDED]))
    await worker.created()
    worker.sent.records.clear()
    worker.sent.away = 2

    async def handler(delivery: Delivery) -> None:
        await check.check(worker.deps, delivery)

    await worker.guard("check", handler, await worker.due())
    assert (await worker.state()).order.external_status is ExternalStatus.COMPLETED
    assert "orders.status-changed" in worker.sent.topics()
    assert worker.deps.lanes["one"].provider.asked == [("check", ("fake-t-o-1",))]  # type: ignore[attr-defined]


async def test_a_check_that_comes_again_after_the_end_asks_nothing_and_tells_the_end(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED, answers=[Seen.SUCCEEDED])
    worker = Worker(store, provider, profile=replace(CAREFUL, watch=False))
    await worker.created()
    delivery = await worker.due()
    await check.check(worker.deps, delivery)
    worker.sent.records.clear()
    await check.check(worker.deps, replace(delivery, repeated=True))
    assert len(provider.asked) == 1 and "orders.status-changed" in worker.sent.topics()


async def test_a_stale_check_costs_nothing(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED, answers=[Seen.PENDING])
    worker = Worker(store, provider)
    await worker.created()
    delivery = await worker.due()
    await check.check(worker.deps, delivery)
    worker.sent.records.clear()
    for _ in range(3):
        await check.check(worker.deps, delivery)
    await worker.check(number=99)
    assert len(provider.asked) == 1 and not worker.sent.records


async def test_repeated_checks_of_many_lines_never_multiply(store: Store) -> None:
    worker = Worker(store, FakeProvider(Placed.ACCEPTED, answers=[Seen.PENDING]))
    await worker.created(quantity=5)
    stale = await worker.due(1)
    await check.check(worker.deps, stale)
    worker.sent.records.clear()
    await check.check(worker.deps, replace(stale, repeated=True))
    assert [attempt for attempt, _ in worker.checks()] == [1]


async def test_a_check_that_comes_again_before_anything_was_decided_is_only_asked(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED, answers=[Seen.PENDING])
    worker = Worker(store, provider)
    await worker.created()
    worker.sent.records.clear()
    await worker.check(repeated=True)
    assert len(provider.asked) == 1 and "orders.referenced" not in worker.sent.topics()


async def test_a_check_that_was_put_off_and_comes_again_says_when_it_is_due(store: Store) -> None:
    worker = await defer(store, FakeProvider(Placed.ACCEPTED))
    delivery = await worker.due()
    lanes, worker.deps.lanes = worker.deps.lanes, {}
    worker.sent.away = 1
    with pytest.raises(BrokerUnavailable):
        await check.check(worker.deps, delivery)
    worker.sent.records.clear()
    worker.deps.lanes = lanes
    await check.check(worker.deps, replace(delivery, repeated=True))
    [record] = [each for each in worker.sent.records if each.topic.startswith("orders.retry")]
    row = (await worker.state()).attempts[0]
    assert decode(Check, record.value).due_at == row.next_check_at


async def test_what_a_tier_hands_over_long_before_its_time_is_refused(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED)
    worker = await defer(store, provider)
    ahead = decode(Check, (await worker.due()).value)
    ahead = msgspec.structs.replace(ahead, due_at=worker.deps.clock.now() + timedelta(days=3))
    with pytest.raises(EventError, match=r"due_at: .*; expected at most a day after its tier has passed"):
        await check.check(worker.deps, Delivery("orders.retry.30s", 0, 1, b"o", encode(ahead), []))
    assert not provider.placed
    await check.check(worker.deps, Delivery("orders.check", 0, 1, b"o", encode(ahead), []))
    assert provider.placed, "whoever asks there wants it now"


async def test_one_absence_asked_twice_at_once_counts_once(store: Store) -> None:
    provider = FakeProvider(Placed.AMBIGUOUS, answers=[Seen.NOT_FOUND])
    profile = replace(CAREFUL, absent_settle_s=0.0, absent_window_s=0.0, absent_answers=2)
    worker, other = Worker(store, provider, profile=profile), Worker(store, provider, profile=profile)
    await worker.created()
    delivery = await worker.due()
    provider.gate = asyncio.Event()
    asked = [asyncio.create_task(check.check(each.deps, delivery)) for each in (worker, other)]
    await eventually(lambda: len(provider.asked) == 2)
    provider.gate.set()
    await asyncio.gather(*asked)
    row = (await worker.state()).attempts[0]
    assert (row.state, row.absent_answers) == (S.UNKNOWN, 1)


async def test_proven_absence_goes_on_elsewhere_under_another_reference(store: Store) -> None:
    one, two = FakeProvider(Placed.AMBIGUOUS, answers=[Seen.NOT_FOUND]), FakeProvider(Placed.ACCEPTED, name="two")
    profile = replace(CAREFUL, absent_settle_s=0.0, absent_window_s=0.0, absent_answers=2)
    worker = Worker(store, one, two, profile=profile)
    await worker.created()
    await worker.check()
    assert not two.placed
    await worker.check()
    assert [len(one.placed), len(two.placed)] == [1, 1] and one.placed[0][0] != two.placed[0][0]


async def test_proven_absence_where_repeats_are_safe_sends_the_same_bytes(store: Store) -> None:
    one = FakeProvider(Placed.AMBIGUOUS, Placed.ACCEPTED, answers=[Seen.NOT_FOUND])
    profile = replace(REPEATABLE, absent_settle_s=0.0, absent_window_s=0.0, absent_answers=2)
    worker = Worker(store, one, profile=profile)
    await worker.created()
    await worker.check()
    await worker.check()
    assert len(one.placed) == 1
    await worker.check()
    assert len(one.placed) == 2 and one.placed[0] == one.placed[1]
    assert len((await worker.state()).attempts) == 1


async def test_an_unsafe_provider_is_never_sent_the_same_reference_again(store: Store) -> None:
    one = FakeProvider(Placed.AMBIGUOUS, answers=[Seen.QUERY_ERROR, Seen.UNRECOGNISED, Seen.NOT_FOUND])
    worker = Worker(store, one)
    await worker.created()
    for _ in range(8):
        await worker.check()
    assert len(one.placed) == 1 and (await worker.state()).attempts[0].state is S.UNKNOWN


async def test_a_repeat_whose_time_is_over_is_looked_up_again_instead_of_being_forgotten(store: Store) -> None:
    one = FakeProvider(Placed.AMBIGUOUS, answers=[Seen.NOT_FOUND])
    profile = replace(REPEATABLE, absent_settle_s=0.0, absent_window_s=0.0, absent_answers=1)
    worker = Worker(store, one, profile=profile)
    await worker.created()
    await worker.check()
    assert (await worker.state()).attempts[0].evidence["repeat"]
    later = Worker(store, one, profile=replace(profile, repeat_safe=False))
    await later.check()
    assert len(one.asked) == 2 and len(one.placed) == 1
    assert [row.state for row in (await worker.state()).attempts] == [S.NOT_SENT, S.ACCEPTED]


async def test_a_success_that_comes_after_the_lease_is_kept(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED, answers=[Seen.QUERY_ERROR])
    provider.gate = asyncio.Event()
    worker = Worker(store, provider, lease_s=0.2)
    sending = asyncio.create_task(worker.created())
    await eventually(lambda: provider.placed)
    other = Worker(store, provider)

    async def over() -> bool:
        await other.check()
        return (await other.state()).attempts[0].state is S.UNKNOWN

    await eventually(over)
    provider.gate.set()
    await sending
    assert (await worker.state()).attempts[0].state is S.ACCEPTED and len(provider.placed) == 1


async def test_an_answer_outlives_a_store_that_is_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = FakeProvider(Placed.ACCEPTED)
    worker = Worker(store, provider)
    real, away = store.ledger.apply, [3]

    async def apply(change: Any) -> Any:
        if provider.placed and away[0]:
            away[0] -= 1
            raise StoreUnavailable("PostgreSQL did not answer")
        return await real(change)

    monkeypatch.setattr(store.ledger, "apply", apply)
    await worker.created()
    assert (await worker.state()).attempts[0].state is S.ACCEPTED and len(provider.placed) == 1


@pytest.mark.parametrize(("write", "place_soon"), [("open", True), ("apply", False)])
async def test_without_the_store_nothing_is_sent(
    store: Store, monkeypatch: pytest.MonkeyPatch, write: str, place_soon: bool
) -> None:
    provider = FakeProvider(Placed.ACCEPTED)
    worker = Worker(store, provider)

    async def away(change: Any) -> Any:
        raise StoreUnavailable("PostgreSQL did not answer")

    monkeypatch.setattr(Lane, "soon", place_soon)
    monkeypatch.setattr(store.ledger, write, away)
    with pytest.raises(StoreUnavailable):
        await worker.created()
    assert not provider.placed


async def test_other_content_under_the_same_id_is_told_and_changes_nothing(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED)
    worker = Worker(store, provider)
    await worker.created()
    before = await worker.state()
    worker.sent.records.clear()
    await worker.created(user_identifier="somebody else")
    assert worker.sent.topics() == ["orders.attention"] and await worker.state() == before
    assert b"somebody" not in (worker.sent.records[0].value or b"") and len(provider.placed) == 1


async def test_past_its_deadline_an_order_is_neither_asked_about_nor_sent(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED, answers=[Seen.PENDING])
    worker = await defer(store, provider)
    pass_deadline(worker)
    await worker.check()
    await worker.created()
    await worker.check()
    state = await worker.state()
    assert state.order.external_status is ExternalStatus.EXPIRED and not provider.placed and not provider.asked


async def test_a_person_may_ask_about_an_expired_order(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED, answers=[Seen.SUCCEEDED])
    worker = Worker(store, provider)
    await worker.created()
    pass_deadline(worker)
    await worker.check()
    assert not provider.asked
    await worker.check(reason="operator")
    assert (await worker.state()).order.external_status is ExternalStatus.COMPLETED


def pass_deadline(worker: Worker) -> None:
    worker.store.run("update ledger_orders set deadline_at = now() - interval '1 s'")
    worker.deps.recall(("t", "o"))  # a deadline that moves by itself is nothing that a worker would expect


async def test_a_check_after_what_the_worker_wrote_itself_reads_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = FakeProvider(Placed.ACCEPTED, answers=[Seen.PENDING, Seen.SUCCEEDED])
    worker = Worker(store, provider)
    await worker.created()
    for asked in (1, 2):
        due = await worker.due()
        with monkeypatch.context() as patch:
            patch.setattr(store.ledger, "load", dies)
            await check.check(worker.deps, due)
        assert len(provider.asked) == asked
    assert (await worker.state()).order.external_status is ExternalStatus.COMPLETED
    assert worker.deps.recall(("t", "o")) is None


async def test_a_check_after_what_another_worker_wrote_is_decided_on_that(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED, answers=[Seen.SUCCEEDED, Seen.PENDING])
    former, other = Worker(store, provider), Worker(store, provider)
    await former.created()
    due = await former.due()
    await check.check(other.deps, due)
    await check.check(former.deps, due)
    state = await former.state()
    assert state.order.external_status is ExternalStatus.COMPLETED and len(provider.placed) == 1
    first, again = other.sent.records[0], former.sent.records[3]
    assert first.topic == "orders.status-changed" and first == again  # the same event, which readers drop


async def test_only_orders_that_wait_for_their_provider_are_remembered(store: Store) -> None:
    worker = await defer(store, FakeProvider(Placed.ACCEPTED))
    assert (await worker.state()).attempts[0].state is S.INTENT and worker.deps.recall(("t", "o")) is None


async def test_an_order_that_was_reopened_elsewhere_is_not_expired_by_who_remembers_it(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED, answers=[Seen.PENDING])
    worker = Worker(store, provider)
    await worker.created()
    remembered = worker.deps.recall(("t", "o"))
    assert remembered is not None
    remembered.order.deadline_at = store.clock.now()  # as it was before a person reopened it
    worker.deps.remember(remembered)
    await worker.check()
    assert (await worker.state()).order.external_status is not ExternalStatus.EXPIRED
    assert len(provider.asked) == 1


async def test_an_order_that_is_reopened_while_it_is_expired_stays_open(store: Store) -> None:
    worker = Worker(store, FakeProvider(Placed.ACCEPTED))
    await worker.created()
    pass_deadline(worker)
    overdue = await worker.state()
    store.run("update ledger_orders set deadline_at = now() + interval '1 h', rev = rev + 1")  # as a person does it
    await check.expire(worker.deps, overdue, "sweep")
    assert (await worker.state()).order.external_status is not ExternalStatus.EXPIRED


async def test_a_check_that_comes_sooner_than_remembered_is_acted_on(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED, answers=[Seen.SUCCEEDED])
    former, other = Worker(store, provider), Worker(store, provider)
    await former.created()
    await dispatch.defer(former.deps, await former.state(), 1, "off", after_s=3600)
    await dispatch.defer(other.deps, await other.state(), 1, "on again")
    due = await other.due()
    await eventually(lambda: decode(Check, due.value).due_at <= store.clock.now())
    await check.check(former.deps, due)
    assert len(provider.asked) == 1


async def test_a_repeated_check_is_told_again_as_the_ledger_has_it(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED, answers=[Seen.PENDING, Seen.SUCCEEDED])
    former, other = Worker(store, provider), Worker(store, provider)
    await former.created()
    due = await former.due(repeated=True)
    await other.check()
    former.sent.records.clear()
    await check.check(former.deps, due)
    assert len(provider.asked) == 1 and former.checks()  # not a question, but all that follows from the ledger


async def test_a_check_that_another_worker_made_due_is_acted_on(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED, answers=[Seen.PENDING, Seen.SUCCEEDED])
    former, other = Worker(store, provider), Worker(store, provider)
    await former.created()
    await other.check()
    await former.check()
    assert (await former.state()).order.external_status is ExternalStatus.COMPLETED


async def test_a_retry_later_that_meets_the_deadline_does_not_go_round(store: Store) -> None:
    provider = FakeProvider(Placed.RETRY_LATER)
    provider.on_place = lambda: expire(worker)
    worker = Worker(store, provider)
    await asyncio.wait_for(worker.created(), 20)
    assert len(provider.placed) == 1 and (await worker.state()).order.external_status is ExternalStatus.EXPIRED


async def expire(worker: Worker) -> None:
    pass_deadline(worker)
    await check.expire(worker.deps, await worker.state(), "sweep")


async def test_a_waiting_order_goes_on_when_its_route_is_there(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED)
    worker = Worker(store, provider)
    routing = worker.deps.routing
    worker.deps.routing = Routing(config(mode="manual", primary=None, fallback=None), routing.accounts)
    await worker.created()
    assert (await worker.state()).order.waiting == "manual_route"
    await worker.check(0, number=0)
    assert not (await worker.state()).attempts
    worker.deps.routing = routing
    await worker.check(0, number=0)
    assert len(provider.placed) == 1 and (await worker.state()).order.waiting is None


async def test_a_locked_account_keeps_orders_waiting_and_the_fallback_idle(store: Store) -> None:
    locked = PlacedAnswer(Placed.REJECTED, reason=Refusal.ACCESS)
    one, two = FakeProvider(locked), FakeProvider(Placed.ACCEPTED, name="two")
    worker = Worker(store, one, two)
    await worker.created()
    state = await worker.state()
    assert not two.placed and state.order.external_status is ExternalStatus.NOT_SENT
    assert [row.integration_id for row in state.attempts] == ["one", "one"]


async def test_an_unfinished_order_is_never_without_a_next_step(store: Store) -> None:
    answers: Sequence[StatusAnswer | Seen] = [Seen.PENDING, Seen.QUERY_ERROR, Seen.UNRECOGNISED, Seen.NOT_FOUND]
    worker = Worker(store, FakeProvider(Placed.ACCEPTED, answers=answers), quick=False)
    await worker.created()
    for _ in range(6):
        row = (await worker.state()).attempts[0]
        assert row.next_check_at is not None and row.next_check_at > worker.store.clock.now() - timedelta(seconds=1)
        assert worker.checks()[-1] == (1, row.check_number)
        await worker.check()


async def test_an_order_whose_deadline_passed_while_nobody_was_there_is_not_sent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lane, "soon", False)  # so that it is written down before it is sent
    provider = FakeProvider(Placed.ACCEPTED)
    provider.on_place = dies
    worker = Worker(store, provider)
    worker.deps.ledger.apply = dies  # type: ignore[method-assign]
    with pytest.raises(Died):
        await worker.created()
    store.run("update ledger_orders set deadline_at = now() - interval '1 second'")
    late = Worker(store, provider)
    late.deps.ledger = store_ledger(store)
    await late.created()
    assert not provider.placed
    await late.check(reason="dispatch")
    assert (await late.state()).order.external_status is ExternalStatus.EXPIRED


def store_ledger(store: Store) -> Ledger:
    """The ledger as a new process opens it."""
    return Ledger(store.engine, store.executor, store.clock)


async def test_one_order_that_cannot_be_swept_does_not_keep_the_others_from_it(
    store: Store, expect_errors: Callable[[str], None]
) -> None:
    expect_errors("order not swept")
    worker = Worker(store, FakeProvider(*[Placed.ACCEPTED] * 3))
    for name in ("a", "b", "c"):
        await worker.created(order_id=name)
    store.run("update ledger_orders set deadline_at = now() - interval '1 second'")
    load = worker.deps.ledger.load

    async def broken(key: Key) -> OrderState | None:
        if key[1] == "b":
            raise RuntimeError("a defect")
        return await load(key)

    worker.deps.ledger.load = broken  # type: ignore[method-assign]
    await sweep(worker.deps)
    found = store.rows("select order_id, external_status from ledger_orders order by 1")
    assert [row["external_status"] for row in found] == ["expired", "sent", "expired"]
