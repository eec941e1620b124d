"""What lies between an adapter and its shop: the hard deadline, the lease, and the fault of this run."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from agents.providers import http as real_http
from agents.providers.base import MAX_BODY, Ask, PlacedAnswer, Provider, Reply, StatusAnswer
from orderwatch.crash.scenario import Fault
from orderwatch.crash.shop import Shop
from streams.errors import NotSent, OutcomeUnknown

#: The reference that is being placed here, if any.
_placing: ContextVar[str | None] = ContextVar("crash_placing", default=None)

CALL_S = 20.0


class Faults:
    """The fault of one run: it hits the first placements, whichever process sends them."""

    def __init__(
        self, fault: Fault, loop: asyncio.AbstractEventLoop, granted_s: float, bought: Callable[[str], int]
    ) -> None:
        self._bought = bought
        self._loop = loop
        self._granted_s = granted_s
        self.arm(fault)
        #: References that the provider itself executed twice.
        self.doubled: set[str] = set()
        #: References that the provider has taken in and not yet executed.
        self.under_way: list[str] = []
        #: (seconds, reference) of every placement that reached the shop.
        self.placed: list[tuple[float, str]] = []

    def arm(self, fault: Fault) -> None:
        """From now on this fault."""
        self._fault = fault
        self._placements = fault.placements
        self._questions = fault.questions

    async def place(self, reference: str, request: Callable[[], Any]) -> Reply:
        """Pass one request of a placement on."""
        if self._placements > 0:
            self._placements -= 1
            return await self._hit(reference, request)
        self._arrived(reference)
        return await self._run(request)

    async def question(self, request: Callable[[], Any]) -> Reply:
        """Pass one question on."""
        if self._questions > 0 and self._placements == 0:
            self._questions -= 1
            if self._fault.answers:
                return Reply(*self._fault.answers[-1 - self._questions])
            await asyncio.sleep(CALL_S)
            raise OutcomeUnknown("no answer from the provider in time")
        return await self._run(request)

    async def _hit(self, reference: str, request: Callable[[], Any]) -> Reply:
        match self._fault.name:
            case "refused":
                raise NotSent("the provider refused the connection")
            case "swallowed" | "firewall":
                pass
            case "delayed":
                delay_s = 0.8 * self._granted_s if self._fault.delay_s is None else self._fault.delay_s
                self.under_way.append(reference)
                self._loop.call_later(delay_s, self._later, reference, request)
            case "twice":
                self._arrived(reference)
                reply = await self._run(request)
                if self._bought(reference):  # what it refuses it does not execute
                    await self._run(request)
                if self._bought(reference) > 1:
                    self.doubled.add(reference)
                return reply
            case _:
                self._arrived(reference)
                await self._run(request)
        if self._fault.answer is not None:
            return Reply(*self._fault.answer)
        await asyncio.sleep(CALL_S)
        raise OutcomeUnknown("no answer from the provider in time")

    def _arrived(self, reference: str) -> None:
        self.placed.append((self._loop.time(), reference))

    def _later(self, reference: str, request: Callable[[], Any]) -> None:
        self.under_way.remove(reference)
        self._arrived(reference)
        self._loop.create_task(self._run(request))

    async def _run(self, request: Callable[[], Any]) -> Reply:
        reply: Reply = await request()
        return reply


class Wire:
    """``base.Http`` of one process at one integration. ``door`` is where the process can be stopped."""

    def __init__(
        self, integration_id: str, shop: Shop, faults: Faults, door: Callable[..., Any], now: Callable[[], float]
    ) -> None:
        self._integration_id = integration_id
        self._shop = shop
        self._faults = faults
        self._door = door
        self._now = now

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        max_body: int = MAX_BODY,
    ) -> Reply:
        reference = _placing.get()

        def request() -> Any:
            return self._shop.fetch(method, path, query=query, headers=headers, max_body=max_body)

        async def pass_on() -> Reply:
            if reference is None:
                return await self._faults.question(request)
            self._refuse_after_lease()
            return await self._faults.place(reference, request)

        what = f"{'place' if reference else 'ask'} at {self._integration_id}: {method} {path}"
        reply: Reply = await self._door(what, pass_on)
        return reply

    def _refuse_after_lease(self) -> None:
        """As the real client does when the connection stands."""
        deadline = real_http._not_after.get()
        if deadline is not None and self._now() > deadline:
            raise NotSent("the lease of the attempt ended before the request left")


class Marked:
    """An adapter, with its placements told apart from its questions."""

    def __init__(self, adapter: Provider, answered: Callable[[str, PlacedAnswer], None]) -> None:
        self._adapter = adapter
        self._answered = answered

    async def place(self, reference: str, wire: Mapping[str, str]) -> PlacedAnswer:
        token = _placing.set(reference)
        try:
            answer = await self._adapter.place(reference, wire)
        finally:
            _placing.reset(token)
        self._answered(reference, answer)
        return answer

    async def check(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        return await self._adapter.check(asks)

    async def look_up(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        return await self._adapter.look_up(asks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)
