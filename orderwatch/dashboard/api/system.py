"""What is about the server itself: its health, its metrics, and what the caller's token may do."""

import time
from functools import partial
from typing import Annotated, Any

import msgspec
from litestar import MediaType, Response, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.status_codes import HTTP_503_SERVICE_UNAVAILABLE

from db.reads import queries
from orderwatch.dashboard import metrics
from orderwatch.dashboard.api.endpoints import read
from orderwatch.dashboard.auth import PUBLIC, Who
from orderwatch.dashboard.context import Inside, Parts
from streams.errors import StoreUnavailable
from streams.metrics import CONTENT_TYPE

#: For how long an answer about the health of the database is good.
HEALTH_S = 1.0


class Health(msgspec.Struct):
    """``ok``, or ``unavailable`` while the database does not answer."""

    status: str


class TokenInfo(msgspec.Struct):
    """The token of this request. ``tenant_id`` is null for a token of all tenants."""

    name: str
    tenant_id: str | None
    scopes: Annotated[list[str], msgspec.Meta(description="sorted")]


@get(
    "/health",
    needs=PUBLIC,
    unlimited=True,
    security=[{}],
    tags=["health"],
    responses={503: ResponseSpec(Health)},
    summary="Whether this dashboard can answer questions",
)
async def get_health(parts: Inside) -> Response[Health]:
    """Everybody may ask, so the database is asked once for all who ask within ``HEALTH_S``."""
    async with parts.asking_health:
        if time.monotonic() >= parts.health[0]:
            well = await _answers(parts)
            parts.health = (time.monotonic() + HEALTH_S, well)
    if not parts.health[1]:
        return Response(Health("unavailable"), status_code=HTTP_503_SERVICE_UNAVAILABLE)
    return Response(Health("ok"))


async def _answers(parts: Parts) -> bool:
    try:
        await parts.ask(queries.database_now, parts.engine)
    except StoreUnavailable:
        return False
    return True


@read("/metrics", needs="metrics", media_type=MediaType.TEXT, summary="Prometheus metrics of this dashboard")
async def get_metrics(parts: Inside) -> Response[bytes]:
    return Response(
        await parts.measured.text(partial(parts.ask, metrics.read, parts.engine, parts.config.checks.sweep_slack)),
        headers={"content-type": CONTENT_TYPE},
    )


@read("/api/token", summary="What the token of this request may do")
async def get_token(who: Who) -> TokenInfo:
    return TokenInfo(who.name, who.tenant_id, sorted(who.scopes))


routes: list[Any] = [get_health, get_metrics, get_token]
