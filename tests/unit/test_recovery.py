"""A broker that is away or just came back while a worker starts or recovers its tables is waited for.

Faust's own recovery would end for good without a word, and its start with an exception.
"""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped
from faust.transport.drivers import aiokafka as driver

from streams import app as streams_app
from streams.app import _Transport, build
from streams.config.loader import Config


@pytest.fixture
async def recovery() -> Recovery:
    app = build(Config(database={"url": "embedded"}, kafka={"bootstrap_servers": "127.0.0.1:1"}))
    app.finalize()
    return app.tables.recovery


async def silence() -> None:
    await asyncio.sleep(60)


async def refusal() -> None:
    raise KafkaTimeoutError


@pytest.mark.parametrize("broker", [silence, refusal])
async def test_a_step_without_an_answer_is_taken_again(recovery: Recovery, broker: object) -> None:
    with pytest.raises(RebalanceAgain):
        await recovery._wait(broker(), timeout=0.01)  # type: ignore[operator]
    assert recovery.signal_recovery_start.is_set(), "nothing begins it again"


async def test_a_worker_that_stops_ends_it(recovery: Recovery) -> None:
    recovery._stopped.set()
    with pytest.raises(ServiceStopped):
        await recovery._wait(silence(), timeout=0.01)
    assert not recovery.signal_recovery_start.is_set()


async def test_an_answered_step_is_done(recovery: Recovery) -> None:
    await recovery._wait(asyncio.sleep(0), timeout=5)
    assert not recovery.signal_recovery_start.is_set()


class Client:
    """Of a cluster that has no controller for its first answers; ``updates`` is how often it was asked."""

    updates = 0
    cluster = SimpleNamespace(topics=lambda: {"t"})

    async def force_metadata_update(self) -> None:
        self.updates += 1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The topics that Faust tried to make; the third time there is a controller."""
    tried: list[str] = []

    async def create(self: Any, owner: Any, client: Client, topic: str) -> None:
        tried.append(topic)
        if client.updates < 2:
            raise Exception("Controller node not found")

    monkeypatch.setattr(driver.Transport, "_really_create_topic", create)
    monkeypatch.setattr(streams_app, "_ASK_AGAIN_S", 0.0)
    return tried


async def test_a_cluster_without_a_controller_is_asked_again(asked: list[str]) -> None:
    transport = object.__new__(_Transport)
    await transport._really_create_topic(SimpleNamespace(should_stop=False), Client(), "t")
    assert asked == ["t", "t", "t"]


async def test_a_topic_that_cannot_be_made_ends_the_start(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_app, "_NO_CONTROLLER_S", 0.0)
    with pytest.raises(Exception, match="Controller node not found"):
        await object.__new__(_Transport)._really_create_topic(SimpleNamespace(should_stop=False), Client(), "t")
