"""The pages for people: the overview, lists of orders, one order. Each is whole without a script; a script keeps it
fresh and sends what a person decides to the HTTP API."""

from collections import defaultdict
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from litestar import Request, get
from litestar.datastructures import Cookie
from litestar.params import FromPath, QueryParameter
from litestar.response import Redirect, Template

from agents.diagnosis.dry_run import dry_routing
from agents.diagnosis.explain import explain, offered
from db import identity
from db.control import worker_heartbeats
from db.reads import lists, queries
from db.reads.lists import OrderFilter
from db.reads.overview import Overview
from db.reads.queries import Snapshot
from orderwatch.dashboard.api.endpoints import PlainInPath
from orderwatch.dashboard.auth import PUBLIC, Who
from orderwatch.dashboard.context import Inside, Parts
from orderwatch.dashboard.html import context, own_path
from orderwatch.dashboard.i18n import COOKIE, LANGUAGES
from orderwatch.dashboard.pages import labels
from orderwatch.dashboard.pages.charts import flow_plot
from orderwatch.dashboard.problems import Refused
from orderwatch.dashboard.stored_config import followed
from streams.order import AttentionCode, ExternalStatus

_Request = Request[Any, Any, Any]
_Text = Annotated[str, QueryParameter(max_length=255)]

_OLDEST_SHOWN = 6
_YEAR_S = 365 * 86400

#: Names that several pages look words up by.
WORDS = {
    "states": labels.STATES,
    "attempts": labels.ATTEMPTS,
    "lane_words": labels.LANES,
    "reasons": labels.ATTENTION,
    "other": labels.OTHER,
    "steps": labels.STEPS,
    "step_icons": labels.STEP_ICONS,
    "actors": labels.ACTORS,
    "acts": labels.ACTS,
    "outcomes": labels.OUTCOMES,
    "ages": labels.AGES,
    "letter_reasons": labels.LETTERS,
    "money_words": labels.MONEY,
}


async def page(name: str, request: _Request, parts: Parts, **shown: Any) -> Template:
    """A page for somebody who is in, with the counts that stand beside every page."""
    queues = await parts.ask(lists.queues, parts.engine, request.scope["user"].tenant_id)
    return Template(name, context=context(request, queues=queues, **WORDS, **shown))


@get("/language/{language:str}", needs=PUBLIC, include_in_schema=False, sync_to_thread=False)
def language(language: FromPath[str], next_: Annotated[str, QueryParameter(name="next")] = "/") -> Redirect:
    """Remember the language and go back to where it was chosen."""
    cookie = Cookie(COOKIE, value=language if language in LANGUAGES else "en", max_age=_YEAR_S, samesite="lax")
    return Redirect(own_path(next_), status_code=303, cookies=[cookie])


@get("/", needs="orders:read", include_in_schema=False)
async def overview(request: _Request, parts: Inside, who: Who) -> Template:
    slack_s = parts.config.checks.sweep_slack
    seen = await parts.ask(lists.overview, parts.engine, who.tenant_id, slack_s=slack_s)
    oldest = await parts.ask(lists.attention, parts.engine, who.tenant_id, limit=_OLDEST_SHOWN)
    shown = context(request)
    ledger = await parts.ask(identity.read, parts.engine)
    return await page(
        "overview.html",
        request,
        parts,
        seen=seen,
        oldest=oldest,
        behind_since=ledger.behind_since,
        lanes=await lanes(parts, who.tenant_id),
        plot=flow_plot(seen.flow, shown["t"]),
        open=sum(seen.states.values()),
        money=_sums(seen),
        unpriced=sum(row.unpriced for row in seen.risk),
        most_due=max(seen.overdue, *(row.checks for row in seen.due), 1),
    )


async def lanes(parts: Parts, tenant_id: str | None) -> dict[str, worker_heartbeats.Lane]:
    """The lanes of the living workers, of this tenant's integrations only."""
    found = await parts.ask(worker_heartbeats.lanes, parts.engine)
    if tenant_id is None:
        return found
    own = {row.integration_id for row in await parts.ask(lists.integrations, parts.engine, tenant_id)}
    return {name: lane for name, lane in found.items() if name in own}


def _sums(seen: Overview) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for row in seen.risk:
        if row.amount:
            sums[row.currency] += row.amount
    return dict(sums)


@get("/orders", needs="orders:read", include_in_schema=False)
async def orders(
    request: _Request,
    parts: Inside,
    who: Who,
    number: _Text = "",
    tenant: _Text = "",
    integration: _Text = "",
    state_: Annotated[str, QueryParameter(name="state", max_length=32)] = "",
    reason: _Text = "",
    age: _Text = "",
    after: Annotated[str | None, QueryParameter(max_length=400)] = None,
) -> Template | Redirect:
    """A list; a search that finds one order shows that order."""
    asked = {
        "number": number.strip(),
        "tenant": tenant,
        "integration": integration,
        "state": state_,
        "reason": reason,
        "age": age,
    }
    wanted = _filter(asked, who.tenant(tenant or None))
    try:
        found = await parts.ask(lists.orders, parts.engine, wanted, after=after)
    except ValueError:
        raise Refused(400, "after is not a place in this list") from None
    if asked["number"] and len(found.rows) == 1 and after is None and not any((integration, state_, reason, age)):
        return Redirect(_path(found.rows[0]), status_code=303)
    accounts = await parts.ask(lists.integrations, parts.engine, who.tenant_id)
    return await page(
        "orders.html",
        request,
        parts,
        page=found,
        asked=asked,
        filtered=any(asked.values()),
        parameters=urlencode({name: value for name, value in asked.items() if value}),
        integrations=[row.integration_id for row in accounts],
        tenants=[] if who.tenant_id else await parts.ask(lists.tenants, parts.engine),
    )


def _path(row: lists.OrderRow) -> str:
    return f"/orders/{quote(row.tenant_id, safe='')}/{quote(row.order_id, safe='')}"


def _filter(asked: dict[str, str], tenant_id: str | None) -> OrderFilter:
    """Raises ``Refused`` for a word that no list of the form has."""
    state, reason, age = asked["state"], asked["reason"], asked["age"]
    for name, value, allowed in (
        ("state", state, ("open", *ExternalStatus)),
        ("reason", reason, ("any", *AttentionCode)),
        ("age", age, tuple(labels.AGES)),
    ):
        if value and value not in allowed:
            raise Refused(400, f"{name} is {value}; expected one of {', '.join(allowed)}")
    return OrderFilter(
        tenant_id=tenant_id,
        number=asked["number"] or None,
        integration_id=asked["integration"] or None,
        external_status=state if state and state != "open" else None,
        open=state == "open",
        waiting=reason or None,
        older_than_s=float(labels.AGES[age][0]) if age else None,
    )


@get("/orders/{tenant:str}/{order:str}", needs="orders:read", include_in_schema=False)
async def order(request: _Request, parts: Inside, tenant: PlainInPath, order: PlainInPath) -> Template:
    """What `orderwatch order why` says, and the whole life of the order."""
    found = await parts.ask(queries.snapshot, parts.engine, tenant, order)
    routing = dry_routing(await parts.ask(followed, parts))
    found = replace(
        found, absent_needed={name: account.profile.absent_answers for name, account in routing.accounts.items()}
    )
    why = explain(found, found.now, context(request)["t"])
    if not why.known:
        raise Refused(404, f"order {order} of tenant {tenant} is not known")
    pins = found.order is not None and found.order.finished_at is not None and any(row.pins for row in found.attempts)
    offers = offered(found, routing, found.now)
    return await page("order.html", request, parts, found=found, why=why, offers=offers, pins=pins, price=_price(found))


def _price(found: Snapshot) -> tuple[Decimal, str | None] | None:
    """What the newest attempt cost or was expected to cost: the best guess for the next one."""
    for row in reversed(found.attempts):
        amount = row.cost_amount if row.cost_amount is not None else row.expected_cost
        if amount is not None:
            return amount, row.cost_currency
    return None


routes: list[Any] = [language, overview, orders, order]
