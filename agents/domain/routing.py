"""Order -> integration: who may buy it, with what on the wire. Pure: configuration in, attempts out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from agents.domain.schedule import Schedule
from agents.providers.base import OrderFacts, Profile, Provider
from db.rows import Attempt, Order
from streams.config.loader import Config
from streams.errors import InvalidOrder
from streams.events import Created
from streams.order import AttemptState, AttentionCode


class Waiting(NamedTuple):
    """No integration can buy this order now: the reason code for people, and the sentence."""

    code: AttentionCode
    message: str


@dataclass(frozen=True, slots=True)
class Account:
    """One integration as the engine uses it: its adapter, capabilities and delays."""

    integration_id: str
    provider: str
    enabled: bool
    adapter: Provider
    profile: Profile
    schedule: Schedule
    lease_s: float
    call_s: float


class Routing:
    """The configuration of one moment. A change of config.yaml or of the database makes a new one."""

    def __init__(self, config: Config, accounts: Mapping[str, Account]) -> None:
        self.config = config
        self.accounts = accounts

    def first(self, facts: OrderFacts) -> list[Attempt] | Waiting:
        """The first attempts of a new order, one per line, or why it has to wait."""
        return self._first_usable(facts, facts.quantity, start=1, line=1, skip=frozenset())

    def following(self, order: Order, dead: Attempt, skip: frozenset[str]) -> list[Attempt] | Waiting:
        """The next attempts for the line of a dead attempt, at integrations not in ``skip``."""
        return self._first_usable(
            facts_of(order), dead.quantity, start=order.attempts + 1, line=dead.line, skip=skip, lines=order.lines
        )

    def first_at(self, integration_id: str, facts: OrderFacts) -> list[Attempt] | Waiting:
        """As ``first``, at a named integration, whatever the route says."""
        return self._attempts_at(integration_id, facts, facts.quantity, 1, 1, 0)

    def following_at(self, integration_id: str, order: Order, dead: Attempt) -> list[Attempt] | Waiting:
        """As ``following``, at a named integration, whatever the route says."""
        return self._attempts_at(
            integration_id, facts_of(order), dead.quantity, order.attempts + 1, dead.line, order.lines
        )

    def _first_usable(
        self, facts: OrderFacts, quantity: int, *, start: int, line: int, skip: frozenset[str], lines: int = 0
    ) -> list[Attempt] | Waiting:
        route = self.config.route(facts.tenant_id, facts.package_id)
        if route is None:
            return Waiting(AttentionCode.NO_ROUTING, f"no route for package {facts.package_id} of {facts.tenant_id}")
        if route.mode == "manual" or route.primary is None:
            return Waiting(AttentionCode.MANUAL_ROUTE, f"the route of package {facts.package_id} is manual")
        waiting: Waiting | None = None
        for integration_id in (route.primary, route.fallback):
            if integration_id is None or integration_id in skip:
                continue
            made = self._attempts_at(integration_id, facts, quantity, start, line, lines)
            if not isinstance(made, Waiting):
                return made
            waiting = waiting or made
        return waiting or Waiting(AttentionCode.NO_ROUTING, f"no other integration for package {facts.package_id}")

    def _attempts_at(
        self, integration_id: str, facts: OrderFacts, quantity: int, start: int, line: int, lines: int
    ) -> list[Attempt] | Waiting:
        account = self.accounts.get(integration_id)
        mapping = self.config.mapping(facts.tenant_id, facts.package_id, integration_id)
        if account is None:
            return Waiting(AttentionCode.INTEGRATION_DISABLED, f"integration {integration_id} is not configured")
        if not account.enabled:
            return Waiting(AttentionCode.INTEGRATION_DISABLED, f"integration {integration_id} is switched off")
        if mapping is None:
            return Waiting(AttentionCode.NO_MAPPING, f"package {facts.package_id} has no mapping at {integration_id}")
        units = [quantity] if account.profile.quantity else [1] * quantity
        try:
            doc = mapping_doc(mapping)
            wires = [account.adapter.prepare(facts, doc, unit) for unit in units]
        except InvalidOrder as error:
            return Waiting(AttentionCode.INVALID_ORDER, str(error))
        # The first unit keeps the line of the attempt it replaces; further units open lines behind the last one.
        numbers = [line, *range(max(lines, line) + 1, max(lines, line) + len(units))]
        return [
            Attempt(
                attempt=start + i,
                state=AttemptState.INTENT,
                integration_id=integration_id,
                provider=account.provider,
                reference=account.adapter.reference(facts.tenant_id, facts.order_id, start + i),
                wire=wires[i],
                line=numbers[i],
                quantity=unit,
                delivers_pin=mapping.delivers_pin,
                expected_cost=None if mapping.cost is None else mapping.cost * unit,
            )
            for i, unit in enumerate(units)
        ]


def mapping_doc(mapping: Any) -> dict[str, Any]:
    """A mapping of the configuration as adapters read it: plain keys, wire keys beside them."""
    return {
        "provider_package_id": mapping.provider_package_id,
        "delivers_pin": mapping.delivers_pin,
        "params": dict(mapping.params),
        **({"pin_pattern": mapping.pin_pattern} if mapping.pin_pattern else {}),
        **mapping.wire,
    }


def facts_of(order: Order) -> OrderFacts:
    """What the order brought, from the ledger: routing may change, this does not."""
    request = order.request
    return OrderFacts(
        tenant_id=order.tenant_id,
        order_id=order.order_id,
        package_id=request["package_id"],
        quantity=request.get("quantity", 1),
        user_identifier=request["user_identifier"],
        extra_field=request.get("extra_field") or "",
        customer_phone=request.get("customer_phone") or "",
        params=request.get("params") or {},
    )


def facts_of_event(event: Created) -> OrderFacts:
    """What an order brings, from the event of the shop."""
    return OrderFacts(
        tenant_id=event.tenant_id,
        order_id=event.order_id,
        package_id=event.package_id,
        quantity=event.quantity,
        user_identifier=event.user_identifier,
        extra_field=event.extra_field or "",
        customer_phone=event.customer_phone or "",
        params=event.params or {},
    )
