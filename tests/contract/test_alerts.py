"""Attention on its way to people: a real HTTP receiver, a real program, a real database."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from agents.maintenance import alerts as module
from agents.maintenance.alerts import alerts_forever, deliver
from db import models as m
from streams.config.loader import AlertsConfig
from tests.contract.ledger_rows import put
from tests.contract.store import Store, store_on
from tests.receiver import SECRET, Receiver, receiving
from tests.waiting import eventually


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(200) as server:
        yield server


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with store_on(database) as opened:
        yield opened


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUICK_WAIT_S", 0.01)
    monkeypatch.setattr(module, "_AGAIN_S", (0.0,))


def settings(receiver: Receiver | None = None, **fields: Any) -> AlertsConfig:
    hook = {"webhook_url": receiver.url, "webhook_secret": SECRET} if receiver else {}
    return AlertsConfig(**{"every": 0.05, "timeout": 5.0, **hook, **fields})


def attention(store: Store, number: str = "a-1", **fields: Any) -> None:
    made = {
        "code": "expired",
        "message": "look at it",
        "since": datetime.now(UTC),
        "tenant_id": "demo",
        "order_id": "o-1",
    }
    put(store.engine, m.attention, id=number, **{**made, **fields})


async def round_of(store: Store, config: AlertsConfig, session: aiohttp.ClientSession) -> int:
    return await deliver(config, module._senders(config, session), store.engine, store.executor)


def states(store: Store) -> list[dict[str, Any]]:
    return store.rows("""select attention_id, target, tries, delivered_at is not null as delivered,
                         given_up_at is not null as given_up, last_error from alert_deliveries order by 1, 2""")


async def test_a_webhook_gets_attention_signed_and_once(
    store: Store, receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    attention(store)
    config = settings(receiver)
    assert await round_of(store, config, session) == 1
    assert await round_of(store, config, session) == 0

    [(headers, content)] = receiver.got
    told = Webhook(SECRET).verify(content, headers)
    assert told["type"] == "orderwatch.attention"
    assert (told["data"]["id"], told["data"]["code"], told["data"]["order_id"]) == ("a-1", "expired", "o-1")
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(content, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(content.replace(b"o-1", b"o-2"), headers)


async def test_a_receiver_that_blinks_is_tried_again_with_the_same_id(
    store: Store, receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    receiver.statuses = [500, 200]
    attention(store)
    await round_of(store, settings(receiver), session)
    assert [headers["webhook-id"] for headers, _ in receiver.got] == ["a-1", "a-1"]
    assert [(row["tries"], row["delivered"]) for row in states(store)] == [(1, True)]


async def test_a_receiver_that_is_down_is_tried_later_and_nothing_is_lost(
    store: Store, receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    receiver.statuses = [503]
    attention(store)
    config = settings(receiver)
    await round_of(store, config, session)
    assert [(row["delivered"], row["last_error"]) for row in states(store)] == [(False, "the webhook answered 503")]
    receiver.statuses = [204]
    await round_of(store, config, session)
    assert [(row["tries"], row["delivered"], row["last_error"]) for row in states(store)] == [(2, True, "")]


async def test_nobody_listening_is_told_without_its_address(store: Store, session: aiohttp.ClientSession) -> None:
    attention(store)
    config = AlertsConfig(webhook_url="http://127.0.0.1:1/secret-path", webhook_secret=SECRET)
    await round_of(store, config, session)
    [row] = states(store)
    assert row["last_error"] == "the webhook did not answer (ClientConnectorError)"


async def test_a_delivery_that_fails_for_too_long_is_given_up(
    store: Store, receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    receiver.statuses = [500]
    attention(store)
    config = settings(receiver, give_up_after=60.0)
    await round_of(store, config, session)
    store.run("update alert_deliveries set first_at = now() - interval '2 minutes'")
    await round_of(store, config, session)
    assert [row["given_up"] for row in states(store)] == [True]
    assert await round_of(store, config, session) == 0


async def test_many_workers_tell_each_attention_once(store: Store, database: str, receiver: Receiver) -> None:
    for number in range(40):
        attention(store, f"a-{number}")
    config = settings(receiver)
    with store_on(database) as other:
        workers = [
            asyncio.create_task(alerts_forever(config, one.engine, one.executor)) for one in (store, other, store)
        ]
        await eventually(lambda: len([row for row in states(store) if row["delivered"]]) == 40)
        await asyncio.sleep(4 * config.every)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    assert sorted(headers["webhook-id"] for headers, _ in receiver.got) == sorted(f"a-{n}" for n in range(40))


async def test_a_worker_killed_in_a_try_leaves_it_to_another_one(
    store: Store, receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    attention(store)
    config = settings(receiver)
    receiver.hold.clear()
    task = asyncio.create_task(round_of(store, config, session))
    await eventually(lambda: states(store))
    await asyncio.sleep(0.1)
    assert await round_of(store, config, session) == 0, "it is claimed"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    receiver.hold.set()
    store.run("update alert_deliveries set next_at = now()")  # as if the claim had run out
    await round_of(store, config, session)
    assert [row["delivered"] for row in states(store)] == [True]
    assert {headers["webhook-id"] for headers, _ in receiver.got} == {"a-1"}


async def test_only_the_wanted_codes_and_what_nobody_acknowledged_are_told(
    store: Store, receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    attention(store, "wanted")
    attention(store, "other", code="low_balance")
    attention(store, "seen", acknowledged_at=datetime.now(UTC), acknowledged_by="me")
    await round_of(store, settings(receiver, codes=("expired",)), session)
    assert [headers["webhook-id"] for headers, _ in receiver.got] == ["wanted"]


async def test_a_command_gets_attention_as_json_and_none_of_our_secrets(
    store: Store, session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZNET_SIFRE", "planted-secret")
    script, told = tmp_path / "tell.py", tmp_path / "told"
    script.write_text(f"import os, sys; open({str(told)!r}, 'a').write(sys.stdin.read() + repr(dict(os.environ)))")
    attention(store, message="it's; rm -rf /\nnew line $HOME")
    config = settings(command=(sys.executable, str(script)))
    await round_of(store, config, session)
    await round_of(store, config, session)
    text = told.read_text()
    document, _ = json.JSONDecoder().raw_decode(text)
    assert document["data"]["message"] == "it's; rm -rf /\nnew line $HOME"
    assert text.count("orderwatch.attention") == 1 and "planted-secret" not in text


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit(3)", "the command ended with status 3"),
        ("import time; time.sleep(60)", "the command did not end within 0.5 s"),
    ],
)
async def test_a_command_that_fails_or_hangs_is_tried_later(
    store: Store, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    monkeypatch.setattr(module, "_QUICK_TRIES", 1)
    attention(store)
    await round_of(store, settings(command=(sys.executable, "-c", program), timeout=0.5), session)
    [row] = states(store)
    assert (row["delivered"], row["last_error"]) == (False, said)


async def test_a_command_that_is_not_there_is_told(store: Store, session: aiohttp.ClientSession) -> None:
    attention(store)
    await round_of(store, settings(command=("/no/such/program",)), session)
    assert "cannot be run (No such file" in states(store)[0]["last_error"]


async def test_a_webhook_that_fails_does_not_keep_the_command_from_being_run(
    store: Store, receiver: Receiver, session: aiohttp.ClientSession
) -> None:
    receiver.statuses = [500]
    attention(store)
    await round_of(store, settings(receiver, command=(sys.executable, "-c", "")), session)
    assert [(row["target"], row["delivered"]) for row in states(store)] == [("command", True), ("webhook", False)]
