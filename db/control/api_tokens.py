"""Tokens of the HTTP API and the dashboard: kept as a hash, bound to scopes and to one tenant or to all.

A token is ``ow_<id>_<secret>``: the id finds the row, the secret is 256 random bits, so one SHA-256 of the whole is
enough. Every function raises ``StoreUnavailable`` when the database does not answer.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from db import models as m
from db.control.integration_state import audit
from db.engine import answering

#: Scope -> what a token with it may do.
SCOPES = {
    "orders:read": "see orders, timelines, attention, dead letters, integrations and routes",
    "orders:write": "place orders",
    "actions": "act on orders: check, resolve, place again, send elsewhere, cancel, acknowledge, replay",
    "pins": "release the PINs of completed orders; each release is audited",
    "admin": "switch integrations off and on",
    "metrics": "read /metrics; only with a token of all tenants",
}

#: Of the name of a token.
NAME_LENGTH = 100

_SHAPE = re.compile(r"ow_([0-9a-f]{12})_[A-Za-z0-9_-]{43}\Z")
_USED_EVERY = timedelta(minutes=1)

t = m.tokens.c


@dataclass(frozen=True, slots=True)
class Token:
    """One row, without its hash. ``tenant_id`` None: all tenants; ``expires_at`` None: never."""

    id: str
    name: str
    scopes: frozenset[str]
    tenant_id: str | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class Made(NamedTuple):
    """A new token; ``text`` is shown once and kept nowhere."""

    id: str
    text: str


def create(
    engine: sa.Engine,
    name: str,
    scopes: Collection[str],
    tenant_id: str | None,
    by: str,
    expires: timedelta | None = None,
) -> Made:
    """A new token; audited. ``scopes`` are words of ``SCOPES``."""
    number = secrets.token_hex(6)
    text = f"ow_{number}_{secrets.token_urlsafe(32)}"
    row: dict[str, Any] = {
        "id": number,
        "name": name,
        "hash": hashed(text),
        "scopes": sorted(scopes),
        "tenant_id": tenant_id,
        "created_by": by,
    }
    if expires is not None:
        row["expires_at"] = sa.func.now() + expires
    with answering(), engine.begin() as connection:
        connection.execute(sa.insert(m.tokens).values(row))
        audit(
            connection,
            by,
            "token.create",
            tenant_id=tenant_id,
            details={"token": number, "name": name, "scopes": sorted(scopes)},
        )
    return Made(number, text)


def hashed(text: str) -> str:
    """How a token is kept."""
    return hashlib.sha256(text.encode()).hexdigest()


def listing(engine: sa.Engine) -> list[Token]:
    """Every token, oldest first, those that ended too."""
    with answering(), engine.connect() as connection:
        return [_token(row) for row in connection.execute(sa.select(m.tokens).order_by(t.created_at, t.id))]


def revoke(engine: sa.Engine, number: str, by: str) -> bool:
    """End a token; audited. False when there is none with this id, or it was revoked before."""
    with answering(), engine.begin() as connection:
        row = connection.execute(
            sa.update(m.tokens)
            .where(t.id == number, t.revoked_at.is_(None))
            .values(revoked_at=sa.func.now(), revoked_by=by)
            .returning(t.tenant_id, t.name)
        ).one_or_none()
        if row is None:
            return False
        audit(connection, by, "token.revoke", tenant_id=row.tenant_id, details={"token": number, "name": row.name})
        return True


def matching(engine: sa.Engine, text: str) -> Token | None:
    """The token with this text, if it may be used now."""
    shape = _SHAPE.match(text)
    return _usable(engine, shape[1], hashed(text)) if shape else None


def by_id(engine: sa.Engine, number: str) -> Token | None:
    """The token with this id, if it may be used now: for a session that proved the text when it began."""
    return _usable(engine, number, None)


def _usable(engine: sa.Engine, number: str, digest: str | None) -> Token | None:
    """Notes the use too, at most once a minute."""
    now = sa.func.clock_timestamp()
    in_time = (t.expires_at.is_(None) | (t.expires_at > now)) & t.revoked_at.is_(None)
    unnoted = t.last_used_at.is_(None) | (t.last_used_at < now - _USED_EVERY)
    with answering(), engine.begin() as connection:
        query = sa.select(m.tokens, unnoted.label("unnoted")).where(t.id == number, in_time)
        row = connection.execute(query).one_or_none()
        if row is None or (digest is not None and not hmac.compare_digest(row.hash, digest)):
            return None
        if row.unnoted:
            connection.execute(sa.update(m.tokens).where(t.id == number).values(last_used_at=now))
        return _token(row)


def _token(row: Any) -> Token:
    return Token(
        row.id,
        row.name,
        frozenset(row.scopes),
        row.tenant_id,
        row.created_at,
        row.created_by,
        row.expires_at,
        row.revoked_at,
        row.last_used_at,
    )
