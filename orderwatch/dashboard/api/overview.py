"""What screens show, as JSON: numbers of the moment, attention, integrations, routes."""

from typing import Annotated, Any
from uuid import uuid4

import msgspec
from litestar import Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, QueryParameter

from db.control import kill_switch, worker_heartbeats
from db.control.worker_heartbeats import Lane
from db.reads import lists
from db.reads.lists import AttentionRow, Group, IntegrationRow, Overview, Page, RouteRow
from orderwatch.dashboard.api.commands import known_of_queue, on_queue
from orderwatch.dashboard.api.endpoints import (
    PLAIN,
    After,
    CameFrom,
    Id,
    InPath,
    Limit,
    OfTenant,
    Reason,
    Strict,
    absent,
    act,
    page,
    read,
)
from orderwatch.dashboard.auth import Who
from orderwatch.dashboard.context import Inside
from orderwatch.dashboard.problems import unsure
from streams.order import AttentionCode, CommandAction

#: Attentions acknowledged by one request.
MOST_AT_ONCE = 1000
#: The reason of whoever gives none.
SEEN = "seen"

AttentionId = Annotated[str, msgspec.Meta(max_length=200, pattern=PLAIN)]
Code = Annotated[AttentionCode | None, QueryParameter(name="code", description="only with this code")]


class NowWithLanes(msgspec.Struct, frozen=True):
    """The numbers, and the lane of each integration as the living workers see it."""

    overview: Overview
    lanes: dict[str, Lane]


class IntegrationWithLane(msgspec.Struct, frozen=True):
    """An account, and its lane; null while no worker lives."""

    integration: IntegrationRow
    lane: Lane | None


class Acknowledge(Strict, frozen=True):
    """Which attentions a person has seen, and why that is enough: those with these ids, or all with one code (of one
    tenant, if given)."""

    ids: Annotated[list[AttentionId], msgspec.Meta(max_length=MOST_AT_ONCE)] = msgspec.field(default_factory=list)
    code: AttentionCode | None = None
    tenant_id: Id | None = None
    reason: Reason | None = None
    command_id: Id | None = None


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """The command and what became of it: ``ids`` were open until then; ``done`` and ``said`` are null until a worker
    decided. ``more`` when one request was not enough for all of a code."""

    command_id: str
    done: bool | None
    said: str | None
    ids: list[str]
    more: bool = False


class Switch(Strict, frozen=True):
    """How an integration shall stand, and why; kept for ever."""

    enabled: bool
    reason: Reason


class Switched(msgspec.Struct, frozen=True):
    """How it stands now; not ``changed`` when it stood like that already."""

    integration_id: str
    enabled: bool
    changed: bool


@read("/api/overview", summary="The numbers of this moment")
async def get_overview(parts: Inside, who: Who, tenant_: OfTenant = None) -> NowWithLanes:
    tenant = who.tenant(tenant_)
    slack_s = parts.config.checks.sweep_slack
    numbers = await parts.ask(lists.overview, parts.engine, tenant, slack_s=slack_s)
    lanes = await parts.ask(worker_heartbeats.lanes, parts.engine)
    if tenant is not None:
        mine = {row.integration_id for row in await parts.ask(lists.integrations, parts.engine, tenant)}
        lanes = {name: lane for name, lane in lanes.items() if name in mine}
    return NowWithLanes(numbers, lanes)


@read("/api/attention", summary="What waits for a person, oldest first")
async def list_attention(
    parts: Inside, who: Who, tenant_: OfTenant = None, code: Code = None, after: After = None, limit: Limit = 50
) -> Page[AttentionRow]:
    tenant = who.tenant(tenant_)
    return await page(
        lambda at: parts.ask(lists.attention, parts.engine, tenant, code=code, after=at, limit=limit), after
    )


@read("/api/attention/groups", summary="How much waits for a person, by code")
async def group_attention(parts: Inside, who: Who, tenant_: OfTenant = None) -> list[Group]:
    return await parts.ask(lists.attention_groups, parts.engine, who.tenant(tenant_))


@act(
    "/api/attention/ack",
    needs="actions",
    errors=(409,),
    status_code=200,
    answers={202: ResponseSpec(Acknowledged, generate_examples=False, description="not decided yet")},
    summary="Say that a person has seen it: 200 with the decision, 202 while it is not decided yet",
)
async def acknowledge_attention(
    parts: Inside, who: Who, data: JSONBody[Acknowledge], came_from: CameFrom = None
) -> Response[Acknowledged]:
    tenant, number = who.tenant(data.tenant_id), data.command_id or uuid4().hex
    told = await known_of_queue(parts, tenant, number, CommandAction.ACKNOWLEDGE)
    more = False
    if told is None:
        wanted = list(data.ids)
        if data.code is not None:
            found = await parts.ask(lists.attention, parts.engine, tenant, code=data.code, limit=MOST_AT_ONCE)
            wanted, more = [*wanted, *(row.id for row in found.rows)], found.next is not None
        wanted = list(dict.fromkeys(wanted))
        if not wanted:
            return Response(Acknowledged(command_id=number, done=False, said="nothing of it waits", ids=[]))
        more = more or len(wanted) > MOST_AT_ONCE
        told = await on_queue(
            parts,
            who.name,
            tenant,
            number,
            CommandAction.ACKNOWLEDGE,
            data.reason or SEEN,
            came_from,
            attentions=wanted[:MOST_AT_ONCE],
        )
    shown = Acknowledged(
        command_id=number, done=told.done, said=told.said, ids=[str(i) for i in told.moved or ()], more=more
    )
    return Response(shown, status_code=202 if told.done is None else 200)


@read("/api/integrations", summary="Accounts: balance, limits, lane, money at risk")
async def list_integrations(parts: Inside, who: Who, tenant_: OfTenant = None) -> list[IntegrationWithLane]:
    rows = await parts.ask(lists.integrations, parts.engine, who.tenant(tenant_))
    lanes = await parts.ask(worker_heartbeats.lanes, parts.engine)
    return [IntegrationWithLane(row, lanes.get(row.integration_id)) for row in rows]


@act(
    "/api/integrations/{integration:str}/switch",
    needs="admin",
    errors=(404,),
    status_code=200,
    summary="No new sends there, within a second, or again; what is open is followed in any case",
)
async def switch_integration(parts: Inside, who: Who, integration: InPath, data: JSONBody[Switch]) -> Switched:
    mine = await parts.ask(lists.integrations, parts.engine, who.tenant_id)
    if integration not in {row.integration_id for row in mine}:
        raise absent(f"integration {integration}")
    with unsure("look how the integration stands, or ask for the same again"):
        changed = await parts.ask(
            kill_switch.set_enabled, parts.engine, integration, data.enabled, who.name, data.reason
        )
    return Switched(integration, data.enabled, changed)


@read("/api/routes", summary="How orders of each package travel")
async def list_routes(parts: Inside, who: Who, tenant_: OfTenant = None) -> list[RouteRow]:
    return await parts.ask(lists.routes, parts.engine, who.tenant(tenant_))


routes: list[Any] = [
    get_overview,
    list_attention,
    group_attention,
    acknowledge_attention,
    list_integrations,
    switch_integration,
    list_routes,
]
