"""What dispatch would do with an order, step by step, without an order and without a network.

The same routing and the same adapters as in a worker; only their way out is replaced, and their credentials.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agents.domain.accounts import account, adapter
from agents.domain.routing import Routing, Waiting
from agents.providers.base import OrderFacts, Provider
from agents.providers.http import DryRunHttp
from db.rows import Attempt
from streams.config.loader import Config, IntegrationConfig
from streams.errors import StoreUnavailable
from streams.order import AttentionCode

#: Stands for every credential and survives being encoded into a URL.
MASK = "MASKED"


@dataclass(frozen=True, slots=True)
class Step:
    """One step. ``ok`` is None when it was not reached; ``shown`` are its values, without credentials."""

    name: str
    ok: bool | None
    says: str = ""
    integration: str | None = None
    shown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DryRun:
    """``integration`` is where it would be sent; None when the order would wait, with ``code`` and why."""

    says: str
    integration: str | None
    code: str | None
    steps: tuple[Step, ...]


def dry_routing(config: Config) -> Routing:
    """The routing of a worker whose adapters reach nothing and know no credential; to ask what would be done."""
    tiers = config.tiers()
    return Routing(config, {item.id: account(config, item, _dry(item)[0], tiers) for item in config.integrations})


async def dry_run_order(config: Config, facts: OrderFacts) -> DryRun:
    """What would happen to this order now. Nothing is sent, stored or taken from a stock."""
    routing = dry_routing(config)
    steps = [_route(config, facts)]
    route = config.route(facts.tenant_id, facts.package_id)
    for name in (route.primary, route.fallback) if route is not None else ():
        if name is not None:
            steps += await _at(config, routing, name, facts)
    found = routing.first(facts)
    if isinstance(found, Waiting):
        return DryRun(f"the order would wait: {found.message}", None, found.code.value, tuple(steps))
    name = found[0].integration_id
    times = "" if len(found) == 1 else f", one request for each of {len(found)} units"
    return DryRun(f"the order would be sent to {name}{times}", name, None, tuple(steps))


def _route(config: Config, facts: OrderFacts) -> Step:
    route = config.route(facts.tenant_id, facts.package_id)
    if route is None:
        return Step("route", False, f"no route for package {facts.package_id} of {facts.tenant_id}")
    shown = {"mode": route.mode, "primary": route.primary or "none", "fallback": route.fallback or "none"}
    if route.mode == "manual" or route.primary is None:
        return Step("route", False, "manual: a person delivers it", shown=shown)
    return Step("route", True, "auto", shown=shown)


_ORDER = ("integration", "enabled", "mapping", "parameters", "reference", "request")


async def _at(config: Config, routing: Routing, name: str, facts: OrderFacts) -> list[Step]:
    """The steps at one integration: those before the one that fails went well, those behind it are not reached."""
    found = routing.first_at(name, facts)
    item = config.integration(name)
    if isinstance(found, Waiting):
        failed = {AttentionCode.NO_MAPPING: "mapping", AttentionCode.INVALID_ORDER: "parameters"}.get(
            found.code, "enabled" if item is not None else "integration"
        )
        at = _ORDER.index(failed)
        return [
            Step(step, True if i < at else (False if i == at else None), found.message if i == at else "", name)
            for i, step in enumerate(_ORDER)
        ]
    assert item is not None
    row, mapping = found[0], config.mapping(facts.tenant_id, facts.package_id, name)
    assert mapping is not None
    currency = item.currency or routing.accounts[name].adapter.currency
    cost = "not known" if row.expected_cost is None else f"{row.expected_cost} {currency}"
    return [
        Step("integration", True, "", name, {"provider": item.provider}),
        Step("enabled", True, "", name),
        Step("mapping", True, "", name, {"provider_package_id": mapping.provider_package_id, **mapping.wire}),
        Step("parameters", True, "", name, {**row.wire, "expected cost": cost}),
        Step(
            "reference",
            True,
            f"{len(row.reference)} characters, made of tenant, order and attempt",
            name,
            {"reference": row.reference},
        ),
        await _request(item, row),
    ]


async def _request(item: IntegrationConfig, row: Attempt) -> Step:
    adapter, http, stock = _dry(item)
    answer = await adapter.place(row.reference, row.wire)
    for method, url, headers in http.built[:1]:
        return Step("request", True, "", item.id, {"method": method, "url": url, **headers})
    for group, quantity in stock.asked[:1]:
        return Step("request", True, "taken from our own stock", item.id, {"code_group": group, "quantity": quantity})
    return Step("request", False, answer.message or "the adapter built no request", item.id)


class _Stock:
    """A stock that gives nothing and remembers what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def take(self, tenant_id: str, group: str, reference: str, quantity: int) -> Sequence[str] | None:
        self.asked.append((group, str(quantity)))
        raise StoreUnavailable("a rehearsal takes nothing")

    async def taken(self, reference: str) -> Sequence[str]:
        return []

    async def left(self, tenant_id: str, group: str) -> int:
        return 0


def _dry(item: IntegrationConfig) -> tuple[Provider, DryRunHttp, _Stock]:
    http, stock = DryRunHttp(item.base_url or "http://127.0.0.1"), _Stock()
    return adapter(item, http, lambda pin: MASK, stock, dict.fromkeys(item.credentials, MASK)), http, stock
