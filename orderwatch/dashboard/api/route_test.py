"""``POST /api/routes/test``: what dispatch would do with an order, step by step; nothing is sent."""

from typing import Annotated, Any

import msgspec
from litestar.params import JSONBody

from agents.diagnosis.dry_run import Step, dry_run_order
from agents.providers.base import OrderFacts
from orderwatch.dashboard.api.endpoints import PLAIN, Id, Strict, Words, act
from orderwatch.dashboard.auth import Who
from orderwatch.dashboard.context import Inside
from orderwatch.dashboard.stored_config import followed


class Sample(Strict, frozen=True, kw_only=True):
    """An order that might come."""

    tenant_id: Id
    package_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=PLAIN)]
    order_id: Id = "route-test"
    user_identifier: Annotated[str, msgspec.Meta(max_length=500, pattern=PLAIN)] = "player-1"
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    extra_field: Words = ""
    customer_phone: Annotated[str, msgspec.Meta(max_length=100, pattern=PLAIN)] = ""
    params: dict[Annotated[str, msgspec.Meta(pattern=PLAIN)], Words] = msgspec.field(default_factory=dict)


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """One step. ``ok`` is null when it was not reached; ``request`` is what would be sent, credentials masked."""

    step: str
    ok: bool | None
    said: str
    integration: str | None
    shown: dict[str, str]
    request: str | None


class WouldBe(msgspec.Struct, frozen=True, kw_only=True):
    """Where the order would be sent; ``integration`` is null when it would wait, with the attention ``code``."""

    said: str
    integration: str | None
    code: str | None
    steps: list[Tested]


@act(
    "/api/routes/test",
    needs="orders:read",
    status_code=200,
    summary="What would happen to an order: each step and the exact request. Nothing is sent",
)
async def test_route(parts: Inside, who: Who, data: JSONBody[Sample]) -> WouldBe:
    who.tenant(data.tenant_id)
    config = await parts.ask(followed, parts)
    found = await dry_run_order(config, OrderFacts(**msgspec.structs.asdict(data)))
    return WouldBe(
        said=found.says, integration=found.integration, code=found.code, steps=[_tested(step) for step in found.steps]
    )


def _tested(step: Step) -> Tested:
    shown = dict(step.shown)
    words = [step.says, *(f"{name} {text}" for name, text in shown.items() if step.name != "request")]
    request = None
    if step.name == "request" and shown:
        first = f"{shown.pop('method', '')} {shown.pop('url', '')}".strip()
        request = "\n".join(line for line in (first, *(f"{name}: {text}" for name, text in shown.items())) if line)
    return Tested(
        step=step.name,
        ok=step.ok,
        said=", ".join(word for word in words if word),
        integration=step.integration,
        shown=dict(step.shown),
        request=request,
    )


routes: list[Any] = [test_route]
