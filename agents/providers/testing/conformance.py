"""The conformance kit: what every adapter must keep, against a real server that misbehaves in every known way.

    python -m pytest -p agents.providers.testing.plugin --pyargs agents.providers.testing.conformance \
        --provider=package.module:Adapter [--provider-mapping='{"product": "7"}'] [--provider-options='{}'] \
        [--provider-credentials='{}'] [--provider-accepts=accepted-answer.json]

The kit invents credentials and mapping keys from the adapter's class attributes, and looks for the invented values in
everything the adapter says. It needs pytest and nothing else; ``--help`` explains the options.
"""

import asyncio
import copy
import importlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agents.providers.base import Ask, OrderFacts, Placed, Profile, Provider, Refusal, Seen, Setup
from agents.providers.http import HttpClient, sending_until
from agents.providers.testing import raw_server as raw
from agents.providers.testing.raw_server import Answer, RawServer, http
from streams.errors import ProviderError

T = TypeVar("T")

ORDER = OrderFacts(
    "kit-tenant", "kit-order-1", "kit-package", 1, "kit-player-31337", "kit-extra", "5550001122", {"zone": "kit-zone"}
)

#: What the server does, and the seconds the client waits. After each of them the order may have been bought.
AMBIGUOUS: dict[str, tuple[Answer, float]] = {
    "hang-up": (raw.hang_up, 10.0),
    "reset": (raw.reset, 10.0),
    "silence": (raw.silence, 0.3),
    "slow drip": (raw.drip, 0.3),
    "redirect": (raw.redirect(), 10.0),
    "10 MB": (raw.say(http(b"x" * 10_000_000)), 10.0),
    "gzip bomb": (raw.gzip_bomb(), 10.0),
    "page": (raw.say(http("<!DOCTYPE html><html><body>Welcome</body></html>")), 10.0),
    "page that repeats the request": (raw.echo, 10.0),
    "empty": (raw.say(http(b"")), 10.0),
    "noise": (raw.say(http(bytes(range(256)) * 4)), 10.0),
    "deep JSON": (raw.say(http(b"[" * 100_000)), 10.0),
    "truncated": (raw.truncated(b'{"status":"OK"'), 10.0),
    "500": (raw.say(http("Internal Server Error", 500)), 10.0),
    "503": (raw.say(http("Service Unavailable", 503)), 10.0),
}
#: Refused before the application saw it: certainly no order, or not certain, but never an acceptance.
REFUSED = {status: raw.say(http("<html>no</html>", status)) for status in (400, 401, 403, 404, 405, 429)}


@dataclass(frozen=True)
class Kit:
    """One adapter class and what it is given."""

    adapter: type[Provider]
    mapping: dict[str, Any]
    options: dict[str, Any]
    credentials: dict[str, str]
    accepts: bytes | None

    @property
    def secrets(self) -> list[str]:
        return list(self.credentials.values())

    def build(self, base_url: str, timeout_s: float = 10.0) -> tuple[Provider, HttpClient]:
        client = HttpClient(base_url, timeout_s=timeout_s)
        currency = self.adapter.currency or "EUR"
        setup = Setup("kit", "kit-tenant", currency, client, _seal, credentials=self.credentials, options=self.options)
        return self.adapter(setup), client

    def run(self, answer: Answer, act: Callable[[Provider], Awaitable[T]], timeout_s: float = 10.0) -> tuple[T, int]:
        """What ``act`` returned, and how many requests the server saw."""

        async def go() -> tuple[T, int]:
            async with RawServer(answer) as server:
                adapter, client = self.build(server.base_url, timeout_s)
                try:
                    return await act(adapter), len(server.requests)
                finally:
                    await client.close()

        return asyncio.run(go())

    def wire(self, adapter: Provider) -> dict[str, str]:
        return adapter.prepare(ORDER, self.mapping, 1)

    def reference(self) -> str:
        return self.adapter.reference(ORDER.tenant_id, ORDER.order_id, 1)


@pytest.fixture
def kit(request: pytest.FixtureRequest) -> Kit:
    named = request.config.getoption("--provider", default=None)
    if not named or ":" not in named:
        pytest.fail("no adapter given; expected -p agents.providers.testing.plugin --provider=package.module:Class")
    module, _, name = named.partition(":")
    adapter = getattr(importlib.import_module(module), name)
    accepts = request.config.getoption("--provider-accepts")
    return Kit(
        adapter,
        {key: f"10{n}" for n, key in enumerate(sorted(adapter.mapping_keys))}
        | {"provider_package_id": "100"}
        | request.config.getoption("--provider-mapping"),
        request.config.getoption("--provider-options"),
        {key: f"kit-secret-{key}/ş" for key in adapter.credentials}
        | request.config.getoption("--provider-credentials"),
        Path(accepts).read_bytes() if accepts else None,
    )


def _seal(pin: str) -> str:
    return f"sealed({len(pin)})"


def _assert_keeps_secrets(kit: Kit, *said: object) -> None:
    text = "".join(repr(item) for item in said)
    assert not [secret for secret in kit.secrets if secret in text], "a credential is in an answer, error or log line"


def test_the_class_says_what_it_needs(kit: Kit) -> None:
    assert isinstance(kit.adapter.profile, Profile)
    for name in ("credentials", "mapping_keys", "options"):
        value = getattr(kit.adapter, name)
        assert isinstance(value, frozenset) and all(isinstance(item, str) for item in value), name
    assert kit.adapter.currency is None or len(kit.adapter.currency) == 3
    assert kit.adapter.profile.batch >= 1


def test_a_reference_is_the_same_for_ever_and_never_shared(kit: Kit) -> None:
    attempts = [(f"t{n % 7}", f"order-{n // 3}", n % 3 + 1) for n in range(10_000)]
    references = [kit.adapter.reference(*attempt) for attempt in dict.fromkeys(attempts)]
    assert references == [kit.adapter.reference(*attempt) for attempt in dict.fromkeys(attempts)]
    assert len(set(references)) == len(references) == 10_000
    assert all(isinstance(reference, str) and 0 < len(reference) <= 255 for reference in references)
    assert kit.adapter.reference("a", "bc", 1) != kit.adapter.reference("ab", "c", 1)


def test_preparing_is_pure(kit: Kit) -> None:
    async def twice(adapter: Provider) -> list[dict[str, str]]:
        return [kit.wire(adapter), kit.wire(adapter)]

    before = copy.deepcopy(kit.mapping)
    (first, second), requests = kit.run(raw.hang_up, twice)
    assert first == second and kit.mapping == before and requests == 0
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in first.items())
    _assert_keeps_secrets(kit, first)


@pytest.mark.parametrize("fault", AMBIGUOUS)
def test_a_placement_without_a_readable_answer_is_ambiguous_and_sent_once(
    kit: Kit, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer, timeout_s = AMBIGUOUS[fault]
    placed, requests = kit.run(answer, lambda it: it.place(kit.reference(), kit.wire(it)), timeout_s)
    assert placed.kind is Placed.AMBIGUOUS
    assert requests == 1
    _assert_keeps_secrets(kit, placed, caplog.text)


@pytest.mark.parametrize("status", REFUSED)
def test_a_placement_refused_at_the_door_is_not_taken_for_bought(kit: Kit, status: int) -> None:
    placed, requests = kit.run(REFUSED[status], lambda it: it.place(kit.reference(), kit.wire(it)))
    assert placed.kind in (Placed.REJECTED, Placed.RETRY_LATER, Placed.AMBIGUOUS)
    assert placed.kind is not Placed.REJECTED or isinstance(placed.reason, Refusal)
    assert requests == 1
    _assert_keeps_secrets(kit, placed)


def test_a_placement_nobody_listens_to_is_not_sent(kit: Kit) -> None:
    async def go() -> Any:
        adapter, client = kit.build(await raw.refused_url())
        try:
            return await adapter.place(kit.reference(), kit.wire(adapter))
        finally:
            await client.close()

    placed = asyncio.run(go())
    assert placed.kind is Placed.NOT_SENT
    _assert_keeps_secrets(kit, placed)


def test_nothing_leaves_after_the_lease(kit: Kit) -> None:
    async def late(adapter: Provider) -> Any:
        with sending_until(time.monotonic() - 1):
            return await adapter.place(kit.reference(), kit.wire(adapter))

    placed, requests = kit.run(raw.silence, late)
    assert (placed.kind, requests) == (Placed.NOT_SENT, 0)


def test_the_same_attempt_is_the_same_bytes(kit: Kit) -> None:
    async def go() -> list[bytes]:
        async with RawServer(raw.say(http(b""))) as server:
            adapter, client = kit.build(server.base_url)
            wire = kit.wire(adapter)
            for stored in (wire, dict(sorted(wire.items())), dict(sorted(wire.items(), reverse=True))):
                await adapter.place(kit.reference(), stored)  # a database keeps no order of keys
            await client.close()
            return server.requests

    assert len(set(asyncio.run(go()))) == 1


@pytest.mark.parametrize("question", ["check", "look_up"])
@pytest.mark.parametrize("fault", AMBIGUOUS)
def test_a_question_without_a_readable_answer_says_nothing_about_the_order(
    kit: Kit, fault: str, question: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer, timeout_s = AMBIGUOUS[fault]
    count = min(kit.adapter.profile.batch, 3)
    asks = [Ask(kit.adapter.reference("kit-tenant", f"o-{n}", 1), f"ext-{n}") for n in range(count)]
    answers, requests = kit.run(answer, lambda it: getattr(it, question)(asks), timeout_s)
    assert [item.kind for item in answers] == [Seen.QUERY_ERROR] * count
    assert not any(item.pins for item in answers)
    assert requests >= 1
    _assert_keeps_secrets(kit, *answers, caplog.text)


@pytest.mark.parametrize("fault", AMBIGUOUS)
def test_a_balance_that_cannot_be_read_is_unknown(kit: Kit, fault: str) -> None:
    answer, timeout_s = AMBIGUOUS[fault]
    balance, _ = kit.run(answer, lambda it: it.balance(), timeout_s)
    assert balance.money is None and balance.reason
    _assert_keeps_secrets(kit, balance)


@pytest.mark.parametrize("fault", ["hang-up", "page", "empty", "noise", "deep JSON", "500"])
def test_a_catalogue_that_cannot_be_read_is_an_error(kit: Kit, fault: str) -> None:
    async def read(adapter: Provider) -> Any:
        try:
            return await adapter.catalogue()
        except ProviderError as error:
            return error

    answer, timeout_s = AMBIGUOUS[fault]
    found, _ = kit.run(answer, read, timeout_s)
    assert isinstance(found, ProviderError) or not found, "expected ProviderError, or an empty list"
    _assert_keeps_secrets(kit, found)


def test_an_accepted_placement_is_read_as_one(kit: Kit) -> None:
    if kit.accepts is None:
        pytest.skip("no --provider-accepts given")
    answer = raw.say(http(kit.accepts))
    placed, requests = kit.run(answer, lambda it: it.place(kit.reference(), kit.wire(it)))
    assert placed.kind in (Placed.ACCEPTED, Placed.COMPLETED)
    assert requests == 1 and len(placed.raw) <= 2000
    assert all(pin.startswith("sealed(") for pin in placed.pins), "a PIN left the adapter in plain text"
    _assert_keeps_secrets(kit, *(getattr(placed, item.name) for item in fields(placed)))
