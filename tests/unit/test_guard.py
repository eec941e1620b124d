"""Done, hold, or dead letter: the guard returns only when an event may be acknowledged."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from agents.runtime import guard as module
from agents.runtime.guard import DeadLetterRatioExceeded, Delivery, Guard
from streams.errors import BrokerUnavailable, ConfigError, EventError, OrderNotFound, StoreUnavailable
from streams.kafka.producer import Outgoing
from tests.fakes import Sent
from tests.waiting import eventually

DELIVERY = Delivery("x.orders.created", 3, 42, b"o1", b"{}", [("ce_id", b"1"), ("dlq.reason", b"old")])


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HOLD_FIRST_S", 0.001)
    monkeypatch.setattr(module, "_HOLD_MAX_S", 0.002)


class Stopped:
    def __init__(self) -> None:
        self.errors: list[Exception] = []

    async def __call__(self, error: Exception) -> None:
        self.errors.append(error)


class Script:
    """A handler that raises what it is told, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.deliveries: list[Delivery] = []

    async def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self.errors:
            raise self.errors.pop(0)


def made(sent: Sent, stopped: Stopped | None = None, *, retries: int = 2, share: float = 0.5) -> Guard:
    return Guard(sent.send, stopped or Stopped(), retries, share)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), BrokerUnavailable("away"), ConfigError("wrong")])
async def test_what_passes_is_waited_for_in_place(error: Exception) -> None:
    sent, script = Sent(), Script(*[error] * 20)
    await made(sent)("dispatch", script, DELIVERY)
    assert len(script.deliveries) == 21 and not sent.records


async def test_every_further_try_says_that_the_event_may_have_been_begun() -> None:
    script = Script(StoreUnavailable("away"), BrokerUnavailable("away"))
    await made(Sent())("dispatch", script, DELIVERY)
    assert [delivery.repeated for delivery in script.deliveries] == [False, True, True]


@pytest.mark.parametrize(
    ("error", "reason", "text"),
    [
        (EventError("created: quantity: Expected `int`"), "malformed", "created: quantity: Expected `int`"),
        (EventError("too long", reason="too_large"), "too_large", "too long"),
        (OrderNotFound("order o1 of tenant t was never accepted"), "order_not_found", "order o1 of tenant t was never"),
    ],
)
async def test_what_will_never_be_understood_is_set_aside_at_once(error: Exception, reason: str, text: str) -> None:
    sent, script = Sent(), Script(error)
    await made(sent)("dispatch", script, DELIVERY)
    (letter,) = sent.records
    headers = dict(letter.headers)
    assert len(script.deliveries) == 1
    assert headers["dlq.reason"] == reason.encode() and headers["dlq.error"].startswith(text.encode())


async def test_a_dead_letter_is_the_original_with_why_and_whence() -> None:
    sent = Sent()
    await made(sent)("dispatch", Script(EventError("no")), DELIVERY)
    (letter,) = sent.records
    assert (letter.topic, letter.key, letter.value) == ("orders.dead-letter", b"o1", b"{}")
    headers = dict(letter.headers)
    assert len(letter.headers) == len(headers)  # an old reason is replaced, not doubled
    assert headers.pop("dlq.at").endswith(b"Z")
    assert headers == {
        "ce_id": b"1",
        "dlq.reason": b"malformed",
        "dlq.error": b"no",
        "dlq.topic": b"x.orders.created",
        "dlq.partition": b"3",
        "dlq.offset": b"42",
        "dlq.agent": b"dispatch",
    }


async def test_an_unexpected_error_is_tried_again_and_its_text_is_never_shown(
    expect_errors: Callable[[str], None],
) -> None:
    expect_errors("handler failed")
    sent, script = Sent(), Script(*[ValueError("kod=SECRET")] * 9)
    await made(sent, retries=2)("dispatch", script, DELIVERY)
    assert len(script.deliveries) == 3
    headers = dict(sent.records[0].headers)
    assert headers["dlq.reason"] == b"handler_failed"
    assert headers["dlq.error"].startswith(b"ValueError at test_guard.py:") and b"SECRET" not in headers["dlq.error"]


async def test_an_unexpected_error_that_passes_is_no_dead_letter(expect_errors: Callable[[str], None]) -> None:
    expect_errors("handler failed")
    sent, script = Sent(), Script(ValueError(), ValueError())
    await made(sent, retries=2)("dispatch", script, DELIVERY)
    assert len(script.deliveries) == 3 and not sent.records


async def test_a_dead_letter_that_cannot_be_written_keeps_the_event() -> None:
    sent = Sent(away=10**9)
    running = asyncio.create_task(made(sent)("dispatch", Script(EventError("no")), DELIVERY))
    await eventually(lambda: sent.away < 10**9 - 3)
    assert not running.done()
    sent.away = 0
    await running
    assert sent.topics() == ["orders.dead-letter"]


async def test_a_dead_letter_that_the_broker_refuses_is_told_without_its_content(
    expect_errors: Callable[[str], None],
) -> None:
    expect_errors("dead letter cut")
    written: list[Outgoing] = []

    async def send(records: list[Outgoing]) -> None:
        if records[0].value is not None:
            raise EventError("too large", reason="refused_by_broker")
        written.extend(records)

    await Guard(send, Stopped(), 0, 0.5)("dispatch", Script(EventError("no")), DELIVERY)  # type: ignore[arg-type]
    (letter,) = written
    assert letter.key == b"o1" and dict(letter.headers)["dlq.offset"] == b"42"


async def test_a_dead_letter_that_cannot_be_shown_is_not_set_aside_again() -> None:
    sent = Sent()
    letter = Delivery("x.orders.dead-letter", 0, 7, None, b"", [])
    await made(sent)("dead-letter", Script(EventError("no")), letter)
    assert not sent.records


async def test_a_bad_release_stops_the_worker_and_acknowledges_nothing(expect_errors: Callable[[str], None]) -> None:
    expect_errors("handler failed")
    sent, stopped = Sent(), Stopped()
    guard = made(sent, stopped, retries=0)
    for _ in range(25):
        await guard("dispatch", Script(), DELIVERY)
    for _ in range(25):
        await guard("dispatch", Script(ValueError()), DELIVERY)
    assert not stopped.errors and len(sent.records) == 25
    running = asyncio.create_task(guard("dispatch", Script(ValueError()), DELIVERY))
    await eventually(lambda: stopped.errors)
    assert isinstance(stopped.errors[0], DeadLetterRatioExceeded) and not running.done() and len(sent.records) == 25
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_malformed_events_alone_never_stop_the_worker() -> None:
    sent, stopped = Sent(), Stopped()
    guard = made(sent, stopped)
    for _ in range(300):
        await guard("dispatch", Script(EventError("no")), DELIVERY)
    assert len(sent.records) == 300 and not stopped.errors


async def test_a_cancelled_handler_is_neither_done_nor_set_aside() -> None:
    sent, began = Sent(), asyncio.Event()

    async def handler(delivery: Delivery) -> None:
        began.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(made(sent)("dispatch", handler, DELIVERY))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not sent.records


async def test_what_is_handled_together_is_handled_once_while_all_is_well() -> None:
    seen: list[list[int]] = []

    async def handler(deliveries: Sequence[Delivery]) -> None:
        seen.append([delivery.offset for delivery in deliveries])

    await made(Sent()).together("projection", handler, [replace(DELIVERY, offset=n) for n in range(3)])
    assert seen == [[0, 1, 2]]


async def test_of_what_is_handled_together_only_the_bad_one_is_parked() -> None:
    written: set[int] = set()

    async def handler(deliveries: Sequence[Delivery]) -> None:
        if any(delivery.offset == 1 for delivery in deliveries):
            raise EventError("status: missing")
        written.update(delivery.offset for delivery in deliveries)

    sent = Sent()
    await made(sent).together("projection", handler, [replace(DELIVERY, offset=n) for n in range(3)])
    assert written == {0, 2}
    assert [dict(record.headers)["dlq.offset"] for record in sent.records] == [b"1"]


async def test_what_is_handled_together_waits_for_the_store() -> None:
    errors: list[Exception] = [StoreUnavailable("away")] * 7
    written: list[int] = []

    async def handler(deliveries: Sequence[Delivery]) -> None:
        if errors:
            raise errors.pop()
        written.extend(delivery.offset for delivery in deliveries)

    await made(Sent()).together("projection", handler, [replace(DELIVERY, offset=n) for n in range(3)])
    assert sorted(written) == [0, 1, 2]
