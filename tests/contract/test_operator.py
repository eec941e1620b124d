"""Commands of people on a real ledger: once per id, at any crash, and never around the rules."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from agents.handlers import commands as handler_commands
from agents.providers.base import Placed, Seen
from agents.runtime.guard import Delivery
from db.control import commands
from db.rows import CommandRecord
from streams.errors import BrokerUnavailable, EventError
from streams.events import Check, Command, decode, encode
from streams.order import AttemptState, CommandAction, ExternalStatus
from tests.contract.store import Store, store_on
from tests.contract.test_redelivery import Worker
from tests.fakes import NOW, FakeProvider, Sent
from tests.waiting import eventually

S = AttemptState
A = CommandAction
LATER = NOW + timedelta(days=400)  # after every send of these tests, by the database's clock


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with store_on(database) as made:
        yield made


def says(
    action: CommandAction, command_id: str = "c-1", *, repeated: bool = False, order_id: str = "o", **words: Any
) -> Delivery:
    event = Command(
        command_id=command_id,
        tenant_id="t",
        order_id=order_id,
        action=action,
        reason="why",
        by="ayse",
        issued_at=LATER,
        **words,
    )
    return Delivery("orders.command", 0, 1, order_id.encode(), encode(event), [], repeated=repeated)


def answer(store: Store, command_id: str = "c-1") -> CommandRecord:
    found = commands.result(store.engine, "t", command_id)
    assert found is not None
    return found


def acts(store: Store) -> list[str]:
    """The steps that carry the id of a command."""
    return [row["step"] for row in store.rows("select step from order_events where details ? 'command' order by id")]


async def waiting(store: Store, provider: FakeProvider) -> Worker:
    """An order whose only attempt certainly bought nothing, and that waits for an integration."""
    worker = Worker(store, provider, FakeProvider(Placed.NOT_SENT, name="two"))
    await worker.created()
    store.run("update attempts set state = 'not_sent', next_check_at = null where state = 'intent'")
    store.run("update ledger_orders set waiting = 'integration_disabled', rev = rev + 1")
    return worker


async def test_a_check_asks_under_the_number_of_the_ledger_and_again_under_the_same_id(store: Store) -> None:
    worker = Worker(store, FakeProvider(Placed.ACCEPTED, answers=[Seen.PENDING]), sent=Sent())
    await worker.created()
    worker.sent.records.clear()

    await handler_commands.command(worker.deps, says(A.CHECK))
    [first] = worker.sent.ids("orders.check")
    event = decode(Check, worker.sent.records[-1].value)
    number = (await worker.state()).attempts[0].check_number
    assert (event.attempt, event.check_number, event.reason, event.due_at) == (1, number, "operator", LATER)

    await handler_commands.command(worker.deps, says(A.CHECK))
    assert worker.sent.ids("orders.check") == [first]  # the caller's repeat does nothing
    await handler_commands.command(worker.deps, says(A.CHECK, repeated=True))
    assert worker.sent.ids("orders.check").count(first) == 2  # ours may be the rest of a crash
    assert (answer(store).done, answer(store).said, acts(store)) == (True, "asked for attempt 1", ["asked"])


async def test_one_id_is_carried_out_once_and_keeps_its_first_answer(store: Store) -> None:
    worker = await waiting(store, FakeProvider(Placed.NOT_SENT, Placed.ACCEPTED))
    before = len((await worker.state()).attempts)
    await handler_commands.command(worker.deps, says(A.PLACE_AGAIN))
    first = answer(store)
    assert first.done and f"attempt {before + 1} goes to one" in str(first.said)
    for repeated in (False, True):
        await handler_commands.command(worker.deps, says(A.PLACE_AGAIN, repeated=repeated))
        await handler_commands.command(worker.deps, says(A.CANCEL, repeated=repeated))
    state = await worker.state()
    assert [row.state for row in state.attempts[before:]] == [S.ACCEPTED]
    assert (answer(store), acts(store)) == (first, ["placed_again"])


async def test_what_was_decided_and_not_told_is_told_and_placed_on_redelivery(store: Store) -> None:
    worker = await waiting(store, provider := FakeProvider(Placed.NOT_SENT, Placed.ACCEPTED))
    store.run("update ledger_orders set external_status = 'expired', rev = rev + 1")
    placed = len(provider.placed)
    worker.sent.records.clear()
    worker.sent.away = 1
    with pytest.raises(BrokerUnavailable):
        await handler_commands.command(worker.deps, says(A.PLACE_AGAIN))
    assert (answer(store).done, len(provider.placed)) == (True, placed)

    await handler_commands.command(worker.deps, says(A.PLACE_AGAIN, repeated=True))

    assert len(provider.placed) == placed + 1
    assert (await worker.state()).order.external_status is ExternalStatus.SENT
    assert {"orders.status-changed", "orders.referenced"} <= set(worker.sent.topics())
    assert acts(store).count("placed_again") == 1


async def test_two_workers_with_the_same_command_carry_it_out_once(store: Store) -> None:
    one = await waiting(store, FakeProvider(Placed.NOT_SENT, Placed.ACCEPTED))
    before = len((await one.state()).attempts)
    two = Worker(store, FakeProvider(Placed.ACCEPTED), sent=Sent())
    await asyncio.gather(*(handler_commands.command(w.deps, says(A.PLACE_AGAIN)) for w in (one, two, one, two)))
    assert len((await one.state()).attempts) == before + 1
    assert acts(store) == ["placed_again"]


async def test_different_commands_at_once_leave_one_live_attempt(store: Store) -> None:
    worker = await waiting(store, FakeProvider(Placed.NOT_SENT, Placed.ACCEPTED))
    said = [says(A.PLACE_AGAIN, "c-1"), says(A.SEND_TO, "c-2", integration_id="two"), says(A.CANCEL, "c-3")]
    await asyncio.gather(*(handler_commands.command(worker.deps, one) for one in said))
    answers = [answer(store, name).done for name in ("c-1", "c-2", "c-3")]
    assert None not in answers and answers.count(True) >= 1
    assert len([row for row in (await worker.state()).attempts if row.live]) <= 1


async def test_what_is_being_sent_is_neither_cancelled_nor_sent_elsewhere(store: Store) -> None:
    provider = FakeProvider(Placed.ACCEPTED)
    provider.gate = asyncio.Event()
    worker = Worker(store, provider)
    sending = asyncio.create_task(worker.created())
    await eventually(lambda: provider.placed)
    await handler_commands.command(worker.deps, says(A.CANCEL, "c-1"))
    await handler_commands.command(worker.deps, says(A.SEND_TO, "c-2", integration_id="two"))
    provider.gate.set()
    await sending
    assert "being sent right now" in str(answer(store, "c-1").said) and "being sent" in str(answer(store, "c-2").said)
    assert [row.state for row in (await worker.state()).attempts] == [S.ACCEPTED]
    assert acts(store) == ["refused", "refused"]


async def test_an_unsent_order_is_cancelled_and_a_late_dispatch_sends_nothing(store: Store) -> None:
    worker = Worker(store, provider := FakeProvider(Placed.ACCEPTED))
    worker.deps.lanes = {}  # nothing can be sent: the attempt stays an intent
    await worker.created()
    due = await worker.due()
    await handler_commands.command(worker.deps, says(A.CANCEL))
    worker.deps.lanes = Worker(store, provider).deps.lanes
    await worker.guard("check", lambda _: worker.check(number=decode(Check, due.value).check_number), due)
    await worker.created()
    state = await worker.state()
    assert (state.order.external_status, provider.placed) == (ExternalStatus.FAILED, [])
    [step] = store.rows("select actor, details from order_events where step = 'cancelled'")
    assert (step["actor"], step["details"]["reason"], step["details"]["command"]) == ("operator:ayse", "why", "c-1")


async def test_an_order_that_nobody_knows_gets_an_answer(store: Store) -> None:
    worker = Worker(store, FakeProvider(Placed.ACCEPTED))
    await handler_commands.command(worker.deps, says(A.CANCEL))
    assert (answer(store).done, answer(store).said) == (False, "order o of tenant t was never accepted")


async def test_an_id_that_belongs_to_another_order_does_nothing(store: Store) -> None:
    worker = await waiting(store, FakeProvider(Placed.NOT_SENT, Placed.ACCEPTED))
    other = CommandRecord(
        command_id="c-1", tenant_id="t", order_id="other", action="cancel", by="ayse", reason="why", issued_at=LATER
    )
    commands.receive(store.engine, other)  # and its worker died before it decided
    before = await worker.state()
    await handler_commands.command(worker.deps, says(A.CANCEL))
    assert await worker.state() == before
    assert (answer(store).order_id, answer(store).done) == ("other", None)


@pytest.mark.parametrize(
    ("words", "field"),
    [({"outcome": "gone"}, "outcome"), ({"attempt": -1}, "attempt"), ({"action": "buy"}, "action"), ({"by": ""}, "by")],
)
async def test_a_command_that_cannot_be_read_names_its_field(store: Store, words: dict[str, Any], field: str) -> None:
    worker = Worker(store, FakeProvider(Placed.ACCEPTED))
    said = decode(Command, says(A.RESOLVE).value)
    wrong = Command(**{**{name: getattr(said, name) for name in said.__struct_fields__}, **words})
    with pytest.raises(EventError, match=f"command.v1: {field}: "):
        await handler_commands.command(worker.deps, Delivery("orders.command", 0, 1, b"o", encode(wrong), []))


async def test_a_waiter_sees_the_answer_and_gives_up_in_time(store: Store) -> None:
    assert commands.wait(store.engine, "t", "c-1", 0.1) is None
    worker = await waiting(store, FakeProvider(Placed.NOT_SENT, Placed.ACCEPTED))
    waiter = asyncio.create_task(asyncio.to_thread(commands.wait, store.engine, "t", "c-1", 10.0))
    await handler_commands.command(worker.deps, says(A.PLACE_AGAIN))
    found = await waiter
    assert found is not None and found.done
    assert [one.command_id for one in commands.of_order(store.engine, "t", "o")] == ["c-1"]
