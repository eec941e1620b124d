"""Stand-ins that follow a script: one provider, the configuration around it, and the ends of the wire."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from agents.domain.routing import Account, Routing
from agents.domain.schedule import Schedule
from agents.providers.base import (
    Ask,
    Balance,
    CatalogueItem,
    OrderFacts,
    Placed,
    PlacedAnswer,
    Profile,
    Seen,
    StatusAnswer,
)
from db.rows import Order, Raised
from streams.config.loader import Config
from streams.errors import BrokerUnavailable, InvalidOrder
from streams.kafka.producer import Outgoing

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCHEDULE = Schedule(
    first_after_s=60.0,
    backoff_steps_s=(30.0, 60.0, 120.0, 240.0, 480.0, 600.0),
    requeue_s=5.0,
    watch_every_s=3600.0,
    watch_for_s=21600.0,
    tiers=(5.0, 30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 3600.0),
)
#: Like znet: a reference is never sent twice, one unit per request.
CAREFUL = Profile(repeat_safe=False, look_up=True, batch=1, quantity=False, absent_answers=3)
#: Like barakat: a repeated reference buys once.
REPEATABLE = Profile(repeat_safe=True, look_up=True, batch=50, quantity=True, absent_answers=3)


class FakeProvider:
    """Answers from a script, in order; the last answer repeats. Keeps every placement and every question."""

    profile: ClassVar[Profile] = CAREFUL
    credentials: ClassVar[frozenset[str]] = frozenset()
    mapping_keys: ClassVar[frozenset[str]] = frozenset()
    options: ClassVar[frozenset[str]] = frozenset()
    currency: ClassVar[str | None] = "TRY"

    def __init__(
        self, *placements: PlacedAnswer | Placed, answers: Sequence[StatusAnswer | Seen] = (), name: str = "fake"
    ) -> None:
        self._placements = [p if isinstance(p, PlacedAnswer) else PlacedAnswer(p) for p in placements]
        self._answers = [a if isinstance(a, StatusAnswer) else StatusAnswer(a) for a in answers]
        self._name = name
        self.placed: list[tuple[str, dict[str, str]]] = []
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.on_place: Callable[[], Any] | None = None
        self.gate: asyncio.Event | None = None
        #: Answers to the balance question, the last one repeats; ``asked_balance`` counts them.
        self.balances: list[Balance] = [Balance(None, "no balance here")]
        self.asked_balance = 0

    def reference(self, tenant_id: str, order_id: str, attempt: int) -> str:
        return f"{self._name}-{tenant_id}-{order_id}-{attempt}"

    def prepare(self, order: OrderFacts, mapping: Mapping[str, Any], quantity: int) -> dict[str, str]:
        if not order.user_identifier:
            raise InvalidOrder("user_identifier: is empty; expected the player's id")
        return {"player": order.user_identifier, "quantity": str(quantity)}

    async def place(self, reference: str, wire: Mapping[str, str]) -> PlacedAnswer:
        self.placed.append((reference, dict(wire)))
        if self.on_place is not None and (waited := self.on_place()) is not None:
            await waited
        if self.gate is not None:
            await self.gate.wait()
        return self._placements.pop(0) if len(self._placements) > 1 else self._placements[0]

    async def check(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        return await self._answer("check", asks)

    async def look_up(self, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        return await self._answer("look_up", asks)

    async def _answer(self, kind: str, asks: Sequence[Ask]) -> Sequence[StatusAnswer]:
        self.asked.append((kind, tuple(ask.reference for ask in asks)))
        if self.gate is not None:
            await self.gate.wait()
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [replace(answer, message=answer.message or ask.reference) for ask in asks]

    async def balance(self) -> Balance:
        self.asked_balance += 1
        return self.balances.pop(0) if len(self.balances) > 1 else self.balances[0]

    async def catalogue(self) -> Sequence[CatalogueItem]:
        return []


class Sent:
    """An emitter that keeps what it was given; ``away`` makes that many sends fail first."""

    def __init__(self, away: int = 0) -> None:
        self.records: list[Outgoing] = []
        self.away = away

    async def send(self, records: Sequence[Outgoing]) -> None:
        if records and self.away:
            self.away -= 1
            raise BrokerUnavailable("kafka: not acknowledged")
        self.records += records

    def topics(self) -> list[str]:
        return [record.topic for record in self.records]

    def ids(self, topic: str) -> list[str]:
        """``ce_id`` of everything written to a topic, in order."""
        return [dict(record.headers)["ce_id"].decode() for record in self.records if record.topic == topic]


class HandClock:
    """A clock that moves only by hand; what handlers need of ``db.clock.Clock``."""

    def __init__(self, at: datetime = NOW) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def move(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    def observe(self, database_now: datetime | None) -> None:
        """Nothing to learn."""

    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()


def config(
    *,
    primary: str | None = "one",
    fallback: str | None = "two",
    mode: str = "auto",
    mapped: Sequence[str] = ("one", "two"),
    delivers_pin: bool = False,
    **checks: Any,
) -> Config:
    """Two integrations of one tenant, one package."""
    return Config.model_validate(
        {
            "kafka": {"bootstrap_servers": "127.0.0.1:1"},
            "database": {"url": "postgresql://nobody@127.0.0.1:1/none"},
            "checks": checks,
            "integrations": [{"id": name, "tenant_id": "t", "provider": "fake"} for name in ("one", "two")],
            "routes": [{"tenant_id": "t", "package_id": "p", "mode": mode, "primary": primary, "fallback": fallback}],
            "mappings": [
                {
                    "tenant_id": "t",
                    "package_id": "p",
                    "integration": name,
                    "provider_package_id": "1",
                    "delivers_pin": delivers_pin,
                }
                for name in mapped
            ],
        }
    )


def account(
    name: str,
    profile: Profile = CAREFUL,
    *,
    enabled: bool = True,
    adapter: FakeProvider | None = None,
    schedule: Schedule = SCHEDULE,
    lease_s: float = 35.0,
) -> Account:
    return Account(
        integration_id=name,
        provider="fake",
        enabled=enabled,
        adapter=adapter or FakeProvider(name=name),
        profile=profile,
        schedule=schedule,
        lease_s=lease_s,
        call_s=25.0,
    )


def routing(profile: Profile = CAREFUL, second: Profile | None = None, **options: Any) -> Routing:
    """Integration ``one`` first, ``two`` as fallback."""
    accounts = {"one": account("one", profile), "two": account("two", second or profile)}
    return Routing(config(**options), accounts)


def order(quantity: int = 1, order_id: str = "o", **fields: Any) -> Order:
    """A new order of tenant ``t`` for package ``p``."""
    request = {
        "order_id": order_id,
        "tenant_id": "t",
        "package_id": "p",
        "quantity": quantity,
        "user_identifier": "player",
        "created_at": NOW.isoformat(),
    }
    made: dict[str, Any] = {
        "tenant_id": "t",
        "order_id": order_id,
        "fingerprint": "f",
        "request": request,
        "accepted_at": NOW,
        "deadline_at": NOW + timedelta(days=1),
        "raised": list[Raised](),
    } | fields
    return Order(**made)
