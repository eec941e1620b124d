"""Raises attention about a provider's money: a low balance, refused funds, a cost far from the expected one."""

from decimal import Decimal

from agents.handlers.context import HandlerContext
from agents.providers.base import Money, Placed, PlacedAnswer, Refusal
from db.rows import Attempt, OrderState
from streams.events import Attention
from streams.kafka.producer import message
from streams.order import AttentionCode


async def on_placement(deps: HandlerContext, state: OrderState, row: Attempt, answer: PlacedAnswer) -> None:
    """Look at the money in the answer to a placement."""
    if answer.kind is Placed.REJECTED and answer.reason is Refusal.FUNDS:
        await _low(deps, row.integration_id, f"it refuses orders for lack of funds: {answer.message}")
    elif "low_stock" in answer.flags:
        await _low(deps, row.integration_id, answer.raw)
    elif answer.balance is not None:
        await on_balance(deps, row.integration_id, answer.balance)
    await on_cost(deps, state, row, answer.cost)


async def on_balance(deps: HandlerContext, integration_id: str, balance: Money) -> None:
    """A balance below ``low_balance`` is told once per day and integration."""
    integration = deps.config.integration(integration_id)
    least = integration.low_balance if integration is not None else None
    if least is not None and balance.amount < least:
        await _low(deps, integration_id, f"balance {balance.amount} {balance.currency} is below {least}")


async def on_cost(deps: HandlerContext, state: OrderState, row: Attempt, cost: Money | None) -> None:
    """Remember what one unit cost, and tell once when it is far from what was expected."""
    if cost is None or row.quantity < 1:
        return
    unit = cost.amount / row.quantity
    package = str(state.order.request["package_id"])
    place = (row.integration_id, state.order.tenant_id, package)
    expected = row.expected_cost / row.quantity if row.expected_cost else deps.unit_costs.get(place)
    deps.unit_costs[place] = unit
    factor = Decimal(str(deps.config.dispatch.cost_factor))
    if not expected or (expected / factor <= unit <= expected * factor):
        return
    what = f"{package} cost {unit:f} {cost.currency} per unit instead of {expected:f}"
    await _tell(deps, AttentionCode.COST_CHANGED, row.integration_id, what, f"{package}:{unit:f}", state)


def over_limit(deps: HandlerContext, state: OrderState, row: Attempt) -> str:
    """Why this attempt costs more than its mapping allows; empty when it may be sent."""
    order = state.order
    package = str(order.request["package_id"])
    mapping = deps.config.mapping(order.tenant_id, package, row.integration_id)
    if mapping is None or mapping.max_cost is None:
        return ""
    known = (
        ("the catalogue", deps.catalogue_prices.get((row.integration_id, mapping.provider_package_id))),
        ("the last order", deps.unit_costs.get((row.integration_id, order.tenant_id, package))),
        ("the mapping", mapping.cost),
    )
    source, unit = next(((source, unit) for source, unit in known if unit is not None), ("", Decimal(0)))
    if unit <= mapping.max_cost:
        return ""
    return f"one unit costs {unit:f} by {source}, above max_cost {mapping.max_cost:f}"


async def _low(deps: HandlerContext, integration_id: str, what: str) -> None:
    await _tell(deps, AttentionCode.LOW_BALANCE, integration_id, what, f"{deps.clock.now():%Y-%m-%d}")


async def _tell(
    deps: HandlerContext,
    code: AttentionCode,
    integration_id: str,
    what: str,
    discriminator: str,
    state: OrderState | None = None,
) -> None:
    """Publish an attention about an integration, once per worker and discriminator."""
    key = (f"{code.value}:{integration_id}", discriminator)
    if key in deps.told:
        return
    deps.told.add(key)
    now = deps.clock.now()
    attention = Attention(
        code=code.value,
        message=f"{integration_id}: {what}",
        since=now,
        integration_id=integration_id,
        discriminator=discriminator,
        order_id=state.order.order_id if state is not None else None,
        tenant_id=state.order.tenant_id if state is not None else None,
    )
    await deps.emitter.send([message(attention, "orders.attention", at=now)])
