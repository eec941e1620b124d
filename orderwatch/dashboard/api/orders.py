"""Orders as JSON: lists, one order with what it waits for, its timeline, and the release of its PINs."""

from dataclasses import asdict, replace
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from litestar.params import QueryParameter

from agents.diagnosis.dry_run import dry_routing
from agents.diagnosis.explain import explain, offered
from agents.domain.operator_actions import Offer
from agents.domain.routing import Routing
from db.control import integration_state
from db.reads import lists, queries
from db.reads.lists import AttentionRow, OrderRow, Page, StepRow
from db.reads.queries import OrderFilter, Snapshot
from db.rows import Attempt
from orderwatch.dashboard.api.endpoints import After, InPath, Limit, OfTenant, absent, act, page, read
from orderwatch.dashboard.auth import Who
from orderwatch.dashboard.context import Inside, Parts
from orderwatch.dashboard.problems import Refused, unsure
from orderwatch.dashboard.stored_config import followed
from streams.errors import EventError, OrderNotFound
from streams.order import AttemptState, AttentionCode, CommandAction, ExternalStatus, Status


class Cost(msgspec.Struct, frozen=True):
    """Money, as a decimal beside its currency."""

    amount: Decimal
    currency: str | None


class Why(msgspec.Struct, frozen=True):
    """What the order waits for, since when, what happens next and when, who must act, and the evidence."""

    headline: str
    since: datetime | None
    next: str
    when: datetime | None
    actor: str
    evidence: list[str]


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The order as the ledger holds it. ``lines`` is 0 until it was routed; ``waiting`` is an attention code."""

    package_id: str
    quantity: int
    status: Status
    external_status: ExternalStatus
    version: int
    lines: int
    waiting: str | None
    waiting_since: datetime | None
    accepted_at: datetime
    deadline_at: datetime
    finished_at: datetime | None
    next_check_at: datetime | None
    check_number: int


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to buy one line. ``pins`` counts sealed PINs; ``sends`` requests that may have left."""

    attempt: int
    line: int
    quantity: int
    state: AttemptState
    integration_id: str
    provider: str
    reference: str
    external_order_id: str | None
    expected_cost: Decimal | None
    cost: Cost | None
    pins: int
    sends: int
    sent_at: datetime | None
    next_check_at: datetime | None
    check_number: int
    checks: int
    absent_answers: int
    refusal: str | None
    message: str
    created_at: datetime | None
    settled_at: datetime | None


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """An act that would be accepted now. ``attempt`` is null where the whole order is meant, 0 where it is named so."""

    action: CommandAction
    attempt: int | None
    outcomes: list[str]
    integrations: list[str]


class OneOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one order by the database's clock ``now``. ``order`` is null when only a dead letter has it."""

    tenant_id: str
    order_id: str
    now: datetime
    why: Why
    order: Head | None
    acts: list[Offered]
    attempts: list[Tried]
    attention: list[AttentionRow]
    dead_letters: list[int]


class Pins(msgspec.Struct, frozen=True):
    """The PINs of a completed order, in the open."""

    pins: list[str]


@read("/api/orders", summary="Orders, newest first, a page at a time", errors=())
async def list_orders(
    parts: Inside,
    who: Who,
    tenant_: OfTenant = None,
    status: Annotated[Status | None, QueryParameter(description="the buyer's status")] = None,
    external_status: Annotated[ExternalStatus | None, QueryParameter(description="delivery")] = None,
    integration: Annotated[str | None, QueryParameter(max_length=200, description="at this integration")] = None,
    older_than_s: Annotated[
        int | None,
        QueryParameter(ge=1, le=10**9, description="created (in a list by state or code: accepted) longer ago"),
    ] = None,
    waiting: Annotated[AttentionCode | None, QueryParameter(description="waits for a person with this code")] = None,
    open_: Annotated[bool, QueryParameter(name="open", description="only what has not ended")] = False,
    number: Annotated[
        str | None,
        QueryParameter(max_length=500, description="order id, our reference, the provider's id, or the player's id"),
    ] = None,
    after: After = None,
    limit: Limit = 50,
) -> Page[OrderRow]:
    wanted = OrderFilter(
        tenant_id=who.tenant(tenant_),
        status=status,
        external_status=external_status,
        integration_id=_plain(integration),
        older_than_s=older_than_s,
        waiting=waiting,
        open=open_,
        number=_plain(number),
    )
    return await page(lambda at: parts.ask(lists.orders, parts.engine, wanted, after=at, limit=limit), after)


def _plain(text: str | None) -> str | None:
    """What PostgreSQL can hold is all that can be found there."""
    return None if text is None else text.replace("\x00", "\ufffd")


@read("/api/orders/{tenant:str}/{order:str}", summary="One order, and what it waits for", errors=(404,))
async def get_order(parts: Inside, tenant: InPath, order: InPath) -> OneOrder:
    found, routing = await parts.ask(_snapshot, parts, tenant, order)
    said = explain(found, found.now)
    if not said.known:
        raise absent(f"order {order} of tenant {tenant}")
    words = asdict(said)
    return OneOrder(
        tenant_id=tenant,
        order_id=order,
        now=found.now,
        why=Why(**{name: words[name] for name in Why.__struct_fields__} | {"evidence": list(said.evidence)}),
        order=_head(found),
        acts=[_offered(offer) for offer in offered(found, routing, found.now)],
        attempts=[_tried(attempt) for attempt in found.attempts],
        attention=[msgspec.convert(row, AttentionRow) for row in found.attention],
        dead_letters=[row["id"] for row in found.dead_letters],
    )


def _snapshot(parts: Parts, tenant: str, order: str) -> tuple[Snapshot, Routing]:
    found, routing = queries.snapshot(parts.engine, tenant, order), dry_routing(followed(parts))
    needed = {name: account.profile.absent_answers for name, account in routing.accounts.items()}
    return replace(found, absent_needed=needed), routing


def _offered(offer: Offer) -> Offered:
    return Offered(
        action=offer.action, attempt=offer.attempt, outcomes=list(offer.outcomes), integrations=list(offer.integrations)
    )


def _head(found: Snapshot) -> Head | None:
    if found.order is None:
        return None
    asked: dict[str, Any] = found.order.request
    kept = {name: getattr(found.order, name) for name in Head.__struct_fields__ if hasattr(found.order, name)}
    return Head(package_id=asked["package_id"], quantity=asked.get("quantity", 1), **kept)


def _tried(attempt: Attempt) -> Tried:
    kept = {name: getattr(attempt, name) for name in Tried.__struct_fields__ if hasattr(attempt, name)}
    cost = None if attempt.cost_amount is None else Cost(attempt.cost_amount, attempt.cost_currency)
    return Tried(**kept | {"pins": len(attempt.pins), "cost": cost})


@read("/api/orders/{tenant:str}/{order:str}/timeline", summary="Its steps, oldest first", errors=(404,))
async def get_timeline(
    parts: Inside, tenant: InPath, order: InPath, after: After = None, limit: Limit = 100
) -> Page[StepRow]:
    steps = await page(lambda at: parts.ask(lists.timeline, parts.engine, tenant, order, after=at, limit=limit), after)
    if not steps.rows and after is None:
        raise absent(f"order {order} of tenant {tenant}")
    return steps


@act(
    "/api/orders/{tenant:str}/{order:str}/pin",
    needs="pins",
    errors=(404, 409),
    status_code=200,
    summary="Release the PINs of a completed order; the release is written down",
)
async def release_pins(parts: Inside, who: Who, tenant: InPath, order: InPath) -> Pins:
    if parts.sealer is None:
        raise Refused(503, "this dashboard has no keys for PINs: set ORDERWATCH_PIN_KEYS where it runs")
    try:
        with unsure("the audit may say that they were released; ask again"):
            pins = await parts.ask(
                integration_state.release_pins,
                parts.engine,
                tenant,
                order,
                who.name,
                parts.sealer.open,
                through=f"API token {who.token_id}",
            )
    except EventError:
        raise Refused(503, "this dashboard has not the key that the PINs were sealed with") from None
    except OrderNotFound:
        raise absent(f"order {order} of tenant {tenant}") from None
    if not pins:
        raise Refused(409, f"order {order} of tenant {tenant} has no PIN to release")
    return Pins(pins)


routes: list[Any] = [list_orders, get_order, get_timeline, release_pins]
