"""What screens and the HTTP API show: typed reads for people, each for one tenant or, with None, for all.

A list is read page by page from where the one before ended, so a page costs the same wherever it starts. Instants are
aware UTC. Every function raises ``StoreUnavailable`` when the database does not answer.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

import msgspec
import sqlalchemy as sa

from db import models as m
from db.engine import answering
from db.reads import queries
from db.reads.overview import Overview as Overview
from db.reads.overview import Risk, risks
from db.reads.overview import overview as overview
from db.reads.overview import queues as queues
from db.reads.queries import OrderFilter as OrderFilter
from db.reads.queries import Place as Place

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Rows and, when there may be more, the text to ask for the next page with; ``now`` is the database's clock."""

    rows: list[T]
    next: str | None
    now: datetime


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """An order in a list: the ledger's words for where it stands, no field of its customer."""

    tenant_id: str
    order_id: str
    package_id: str
    quantity: int
    status: str
    external_status: str
    waiting: str | None
    waiting_since: datetime | None
    integration_id: str | None
    provider_referans: str | None
    external_order_id: str | None
    cost_amount: Decimal | None
    cost_currency: str | None
    message: str | None
    attempts: int
    checks: int
    created_at: datetime
    completed_at: datetime | None


def orders(engine: sa.Engine, wanted: OrderFilter, *, after: str | None = None, limit: int = 50) -> Page[OrderRow]:
    """Orders, newest first. ``after`` is ``next`` of the page before; raises ``ValueError`` for any other text."""
    start = None if after is None else Place.read(after)
    rows, end = queries.orders(engine, wanted, after=start, limit=limit)
    found = [msgspec.convert(row, OrderRow) for row in rows]
    return Page(found, None if end is None else str(end), queries.database_now(engine))


class StepRow(msgspec.Struct, frozen=True, kw_only=True):
    """One step of an order's timeline; secrets in ``details`` are masked."""

    id: int
    at: datetime
    step: str
    attempt: int | None
    actor: str
    details: dict[str, Any]


def timeline(
    engine: sa.Engine, tenant_id: str, order_id: str, *, after: str | None = None, limit: int = 100
) -> Page[StepRow]:
    """The steps of one order, oldest first. ``after`` as in the other lists."""
    c = m.order_events.c
    query = sa.select(*(c[name] for name in StepRow.__struct_fields__)).where(
        c.tenant_id == tenant_id, c.order_id == order_id
    )
    return _by_id(engine, query, c.id, StepRow, after, limit)


class AttentionRow(msgspec.Struct, frozen=True, kw_only=True):
    """Something that waits for a person."""

    id: str
    code: str
    message: str
    since: datetime
    tenant_id: str | None
    order_id: str | None
    integration_id: str | None


class Group(msgspec.Struct, frozen=True):
    """How many have one reason, and since when the oldest."""

    reason: str
    count: int
    oldest: datetime


def attention_groups(engine: sa.Engine, tenant_id: str | None = None) -> list[Group]:
    """Open attentions by code, the code with the oldest first."""
    return _groups(engine, m.attention.c.code, m.attention.c.since, m.attention.c.acknowledged_at, tenant_id)


def attention(
    engine: sa.Engine,
    tenant_id: str | None = None,
    *,
    code: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Page[AttentionRow]:
    """Open attentions, oldest first. ``after`` is ``next`` of the page before; ``ValueError`` for any other text."""
    a = m.attention.c
    query = sa.select(*(a[name] for name in AttentionRow.__struct_fields__)).where(a.acknowledged_at.is_(None))
    if tenant_id is not None:
        query = query.where(a.tenant_id == tenant_id)
    if code is not None:
        query = query.where(a.code == code)
    if after is not None:
        at, _, number = after.partition("/")
        if "\x00" in number:
            raise ValueError("a place is an instant and the id of an attention")
        query = query.where(sa.tuple_(a.since, a.id) > (queries.instant(at), number))
    rows = _rows(engine, query.order_by(a.since, a.id).limit(limit + 1))
    more = len(rows) > limit
    found = [msgspec.convert(row, AttentionRow) for row in rows[:limit]]
    place = f"{found[-1].since.isoformat()}/{found[-1].id}" if more else None
    return Page(found, place, queries.database_now(engine))


class LetterRow(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was set aside, without its content."""

    id: int
    topic: str
    partition: int
    offset: int
    agent: str
    reason: str
    error: str
    at: datetime
    tenant_id: str | None


def letter_groups(engine: sa.Engine, tenant_id: str | None = None) -> list[Group]:
    """Dead letters that were not replayed, by reason, the reason with the oldest first."""
    letters = m.dead_letters.c
    return _groups(engine, letters.reason, letters.at, letters.replayed_at, tenant_id)


def letters(
    engine: sa.Engine,
    tenant_id: str | None = None,
    *,
    reason: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Page[LetterRow]:
    """Dead letters that were not replayed, oldest first. ``after`` as in the other lists."""
    c = m.dead_letters.c
    query = sa.select(*(c[name] for name in LetterRow.__struct_fields__)).where(c.replayed_at.is_(None))
    if tenant_id is not None:
        query = query.where(c.tenant_id == tenant_id)
    if reason is not None:
        query = query.where(c.reason == reason)
    return _by_id(engine, query, c.id, LetterRow, after, limit)


class IntegrationRow(msgspec.Struct, frozen=True, kw_only=True):
    """One account at a provider. ``limits`` are as configured; ``risk`` is money that may be spent, by currency."""

    integration_id: str
    tenant_id: str
    provider: str
    enabled: bool
    currency: str | None
    low_balance: Decimal | None
    limits: dict[str, Any]
    balance_amount: Decimal | None
    balance_currency: str | None
    balance_at: datetime | None
    catalogue_at: datetime | None
    open_attempts: int
    risk: list[Risk]
    updated_at: datetime
    updated_by: str


_INTEGRATIONS = """
select i.id as integration_id, i.tenant_id, i.doc, i.updated_at, i.updated_by, s.balance_amount, s.balance_currency,
    s.balance_at, s.catalogue_at, coalesce(l.live, 0) as live
from integrations i left join integration_state s on s.integration_id = i.id
left join (
    select integration_id, count(*) as live from attempts
    where state in ('accepted', 'intent', 'sending', 'unknown') group by 1
) l on l.integration_id = i.id
where cast(:tenant as text) is null or i.tenant_id = :tenant order by i.tenant_id, i.id"""


def integrations(engine: sa.Engine, tenant_id: str | None = None) -> list[IntegrationRow]:
    """Every account with its last balance, what is open there, and the money at risk. No credential, no address."""
    at_risk = risks(engine, tenant_id)
    return [
        IntegrationRow(
            integration_id=row["integration_id"],
            tenant_id=row["tenant_id"],
            provider=row["doc"]["provider"],
            enabled=_flag(row["doc"].get("enabled", True)),
            currency=row["doc"].get("currency"),
            low_balance=_decimal(row["doc"].get("low_balance")),
            limits=row["doc"].get("limits", {}),
            balance_amount=row["balance_amount"],
            balance_currency=row["balance_currency"],
            balance_at=row["balance_at"],
            catalogue_at=row["catalogue_at"],
            open_attempts=row["live"],
            risk=[risk for risk in at_risk if risk.integration_id == row["integration_id"]],
            updated_at=row["updated_at"],
            updated_by=row["updated_by"],
        )
        for row in _rows(engine, sa.text(_INTEGRATIONS).bindparams(tenant=tenant_id))
    ]


class RouteRow(msgspec.Struct, frozen=True, kw_only=True):
    """How orders of one package travel. ``unmapped`` names the integrations of it that lack a mapping."""

    tenant_id: str
    package_id: str
    mode: str
    provider_type: str
    primary: str | None
    fallback: str | None
    unmapped: list[str]
    updated_at: datetime
    updated_by: str


def routes(engine: sa.Engine, tenant_id: str | None = None) -> list[RouteRow]:
    """Every route, by tenant and package."""
    r, k = m.routes.c, m.mappings.c
    query = sa.select(r.doc, r.updated_at, r.updated_by).order_by(r.tenant_id, r.package_id)
    known = sa.select(k.tenant_id, k.package_id, k.integration)
    if tenant_id is not None:
        query, known = query.where(r.tenant_id == tenant_id), known.where(k.tenant_id == tenant_id)
    mapped = {(row["tenant_id"], row["package_id"], row["integration"]) for row in _rows(engine, known)}
    return [_route(row, mapped) for row in _rows(engine, query)]


def tenants(engine: sa.Engine) -> list[str]:
    """Tenants that have an integration or a route."""
    query = sa.union(sa.select(m.integrations.c.tenant_id), sa.select(m.routes.c.tenant_id))
    return sorted(row["tenant_id"] for row in _rows(engine, query))


def _route(row: Mapping[str, Any], mapped: set[tuple[str, str, str]]) -> RouteRow:
    doc = row["doc"]
    used = [doc[name] for name in ("primary", "fallback") if doc.get(name)]
    return RouteRow(
        tenant_id=doc["tenant_id"],
        package_id=doc["package_id"],
        mode=doc["mode"],
        provider_type=doc.get("provider_type", "external"),
        primary=doc.get("primary"),
        fallback=doc.get("fallback"),
        unmapped=[name for name in used if (doc["tenant_id"], doc["package_id"], name) not in mapped],
        updated_at=row["updated_at"],
        updated_by=row["updated_by"],
    )


def _groups(
    engine: sa.Engine,
    reason: sa.Column[str],
    at: sa.Column[datetime],
    closed_at: sa.Column[datetime],
    tenant_id: str | None,
) -> list[Group]:
    oldest = sa.func.min(at).label("oldest")
    query = sa.select(reason.label("reason"), sa.func.count().label("count"), oldest).where(closed_at.is_(None))
    if tenant_id is not None:
        query = query.where(reason.table.c.tenant_id == tenant_id)
    return [Group(**row) for row in _rows(engine, query.group_by(reason).order_by(oldest))]


_Numbered = TypeVar("_Numbered", "StepRow", "LetterRow")


def _by_id(
    engine: sa.Engine,
    query: sa.Select[Any],
    column: sa.ColumnElement[int],
    kind: type[_Numbered],
    after: str | None,
    limit: int,
) -> Page[_Numbered]:
    """The page of a list that is ordered by a growing number."""
    if after is not None:
        query = query.where(column > _number(after))
    rows = _rows(engine, query.order_by(column).limit(limit + 1))
    found = [msgspec.convert(row, kind) for row in rows[:limit]]
    return Page(found, str(found[-1].id) if len(rows) > limit else None, queries.database_now(engine))


def _rows(engine: sa.Engine, query: sa.Executable) -> list[dict[str, Any]]:
    with answering(), engine.connect() as connection:
        return [{str(name): value for name, value in row.items()} for row in connection.execute(query).mappings()]


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError("a place is a whole number")
    return int(text)


def _flag(value: object) -> bool:
    return value if isinstance(value, bool) else str(value).lower() not in ("false", "no", "off", "0")


def _decimal(value: object) -> Decimal | None:
    return None if value is None else Decimal(str(value))
