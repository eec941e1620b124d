"""Who asks, and what they may: bearer tokens, the log-in made with one, scopes, tenants.

Every route says what it needs (``needs="orders:read"``, or ``PUBLIC``); one that says nothing keeps the app from being
made. What a token may not see is refused in one place each: scopes and tenants in the path by ``admit``, tenants in a
query by ``Principal.tenant``.
"""

import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Any

from litestar import Request
from litestar.config.csrf import CSRFConfig
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.enums import ScopeType
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers.base import BaseRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.middleware.csrf import CSRFMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from db import tokens
from db.tokens import Token
from web.parts import Parts

PUBLIC = "nothing"
COOKIE = "orderwatch_session"
#: A token that was revoked may work for this long.
REMEMBER_S = 2.0
_MOST_REMEMBERED = 10_000

_Connection = ASGIConnection[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Principal:
    """The token behind a request. ``name`` is the actor of what it does; ``tenant_id`` None: all tenants."""

    token_id: str
    name: str
    tenant_id: str | None
    scopes: frozenset[str]

    @property
    def owner(self) -> str:
        """Whose Idempotency-Keys these are."""
        return self.tenant_id or "*"

    def sees(self, tenant_id: str | None) -> bool:
        """Whether what belongs to this tenant may be shown; None is what belongs to no tenant we know."""
        return self.tenant_id is None or self.tenant_id == tenant_id

    def tenant(self, asked: str | None) -> str | None:
        """The tenant to which an answer is limited; None for all. Raises 403 for a foreign one."""
        if asked is not None and not self.sees(asked):
            raise PermissionDeniedException(f"this token is of tenant {self.tenant_id}")
        return asked or self.tenant_id


def sealed_session(parts: Parts, token_id: str) -> tuple[str, int]:
    """The value of the cookie of a log-in, and for how many seconds it is good."""
    lasts_s = int(parts.config.web.session)
    content = f"{token_id}.{int(time.time()) + lasts_s}"
    return f"{content}.{_seal(parts, content)}", lasts_s


def _seal(parts: Parts, content: str) -> str:
    return hmac.new(parts.derived("session"), content.encode(), hashlib.sha256).hexdigest()


def _session_token(parts: Parts, cookie: str) -> str | None:
    """The token id of a log-in that we sealed and that is not over."""
    content, _, seal = cookie.rpartition(".")
    if not hmac.compare_digest(seal.encode(), _seal(parts, content).encode()):
        return None
    token_id, _, until = content.partition(".")
    return token_id if int(until) > time.time() else None


class Identify(ASGIMiddleware):
    """Puts a ``Principal`` or None into ``scope["user"]``, and into ``scope["auth"]`` how it was proven."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._known: dict[str, tuple[float, Token | None]] = {}

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        connection: _Connection = ASGIConnection(scope)
        said = connection.headers.get("authorization")
        cookie = connection.cookies.get(COOKIE)
        token, way = None, None
        if said is not None:
            kind, _, text = said.partition(" ")
            if kind.lower() == "bearer":
                token, way = await self._matching(text.strip()), "bearer"
        elif cookie is not None and (number := _session_token(self._parts, cookie)):
            token, way = await self._of_session(number), "session"
        scope["user"] = _principal(token) if token else None
        scope["auth"] = way if token else None
        await next_app(scope, receive, send)

    async def _matching(self, text: str) -> Token | None:
        key = tokens.hashed(text)
        if (known := self._remembered(key)) is not None:
            return known[1]
        return self._remember(key, await self._parts.ask(tokens.matching, self._parts.engine, text))

    async def _of_session(self, number: str) -> Token | None:
        if (known := self._remembered(number)) is not None:
            return known[1]
        return self._remember(number, await self._parts.ask(tokens.by_id, self._parts.engine, number))

    def _remembered(self, key: str) -> tuple[float, Token | None] | None:
        known = self._known.get(key)
        return known if known and known[0] > time.monotonic() else None

    def _remember(self, key: str, token: Token | None) -> Token | None:
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[key] = (time.monotonic() + REMEMBER_S, token)
        return token


def _principal(token: Token) -> Principal:
    return Principal(token.id, token.name, token.tenant_id, token.scopes)


def csrf_config(parts: Parts) -> CSRFConfig:
    """A script reads the cookie and sends it back in the header; a form has it in ``_csrf_token``."""
    return CSRFConfig(
        secret=parts.derived("csrf").hex(), cookie_name="orderwatch_csrf", header_name="x-csrf-token",
        cookie_secure=parts.config.web.https, cookie_samesite="strict",
    )


class CookieCsrf(CSRFMiddleware):
    """Litestar's protection, where a browser speaks by itself: pages, and the API under a log-in."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        machine = scope["path"].startswith(("/api", "/hooks", "/metrics", "/health"))
        if scope["type"] == ScopeType.HTTP and machine and scope.get("auth") != "session":
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def admit(connection: _Connection, handler: BaseRouteHandler) -> None:
    """The guard of every route. Raises 401 without a token, 403 for a scope or a tenant that it has not."""
    needs = PUBLIC if connection.scope.get("method") == "OPTIONS" else handler.opt["needs"]
    if needs == PUBLIC:
        return
    who: Principal | None = connection.scope.get("user")
    if who is None:
        raise NotAuthorizedException("a token is needed", headers={"www-authenticate": "Bearer"})
    if needs not in who.scopes:
        raise PermissionDeniedException(f"this token has not the scope {needs}")
    if needs == "metrics" and who.tenant_id is not None:
        raise PermissionDeniedException("this needs a token of all tenants")
    who.tenant(connection.path_params.get("tenant"))


def caller(request: Request[Any, Any, Any]) -> Principal:
    """The dependency ``who`` of handlers whose route needs a scope."""
    who: Principal = request.scope["user"]
    return who


#: How a handler asks for the caller.
Who = NamedDependency[Principal]


def identifier(request: Request[Any, Any, Any]) -> str:
    """Whom a rate limit counts: the token, or the address of who has none."""
    who: Principal | None = request.scope.get("user")
    return f"token {who.token_id}" if who else f"address {request.client.host if request.client else '-'}"
