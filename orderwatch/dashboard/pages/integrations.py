"""The pages of what orders travel by: integrations and routes."""

import json
from typing import Any

from litestar import Request, get
from litestar.response import Template

from db.control import kill_switch
from db.reads import lists, queries
from orderwatch.dashboard.api.endpoints import PlainInPath
from orderwatch.dashboard.auth import Who
from orderwatch.dashboard.context import Inside
from orderwatch.dashboard.html import context
from orderwatch.dashboard.pages import labels
from orderwatch.dashboard.pages.orders import lanes, page
from orderwatch.dashboard.problems import Refused

_Request = Request[Any, Any, Any]


@get("/integrations", needs="orders:read", include_in_schema=False)
async def integrations(request: _Request, parts: Inside, who: Who) -> Template:
    """Every account: whether it works, its balance with its age, what is open there, and the switch."""
    rows = await parts.ask(lists.integrations, parts.engine, who.tenant_id)
    now = await parts.ask(queries.database_now, parts.engine)
    seen = await lanes(parts, who.tenant_id)
    off = await parts.ask(kill_switch.switched_off, parts.engine)
    return await page("integrations.html", request, parts, rows=rows, lanes=seen, now=now, off=off)


@get("/routes", needs="orders:read", include_in_schema=False)
async def all_routes(request: _Request, parts: Inside, who: Who) -> Template:
    """Who delivers which package, and where a mapping is missing."""
    rows = await parts.ask(lists.routes, parts.engine, who.tenant_id)
    return await page("routes.html", request, parts, rows=rows, now=await parts.ask(queries.database_now, parts.engine))


@get("/routes/{tenant:str}/{package:str}", needs="orders:read", include_in_schema=False)
async def route(request: _Request, parts: Inside, tenant: PlainInPath, package: PlainInPath) -> Template:
    """One route, and a test of it that sends nothing."""
    rows = await parts.ask(lists.routes, parts.engine, tenant)
    found = next((row for row in rows if row.package_id == package), None)
    if found is None:
        raise Refused(404, f"package {package} of tenant {tenant} has no route")
    now = await parts.ask(queries.database_now, parts.engine)
    t = context(request)["t"]
    names = json.dumps({name: t(label) for name, label in labels.TRIALS.items()}, ensure_ascii=False)
    return await page("route.html", request, parts, row=found, now=now, names=names)


routes: list[Any] = [integrations, all_routes, route]
