"""Who asks, and what they may: bearer tokens, the log-in made with one, scopes, tenants.

Every route says what it needs (``needs="orders:read"``, or ``PUBLIC``); one that says nothing keeps the app from being
made. What a token may not see is refused in one place each: scopes and tenants in the path by ``admit``, tenants in a
query by ``Principal.tenant``.
"""

import hashlib
import hmac
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, TypeVar

from litestar import Request
from litestar.config.csrf import CSRFConfig
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.enums import ScopeType
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException, TooManyRequestsException
from litestar.handlers.base import BaseRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.middleware.csrf import CSRFMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from db.control import api_tokens
from db.control.api_tokens import Token
from orderwatch.dashboard.context import Parts

PUBLIC = "nothing"
COOKIE = "orderwatch_session"
#: A token that was revoked may work for this long.
REMEMBER_S = 2.0
_MOST_REMEMBERED = 10_000

_T = TypeVar("_T")
_Connection = ASGIConnection[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Principal:
    """The token behind a request. ``name`` is the actor of what it does; ``tenant_id`` None: all tenants; ``until``
    is the end of a log-in, in seconds since 1970."""

    token_id: str
    name: str
    tenant_id: str | None
    scopes: frozenset[str]
    until: int | None = None

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


def _session(parts: Parts, cookie: str) -> tuple[str, int] | None:
    """The token id and the end of a log-in that we sealed and that is not over."""
    content, _, seal = cookie.rpartition(".")
    if not hmac.compare_digest(seal.encode(), _seal(parts, content).encode()):
        return None
    token_id, _, until = content.partition(".")
    return (token_id, int(until)) if int(until) > time.time() else None


class Identify(ASGIMiddleware):
    """Puts a ``Principal`` or None into ``scope["user"]``, and into ``scope["auth"]`` how it was proven."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._known: dict[str, tuple[float, Token]] = {}
        self._unknown: dict[str, float] = {}
        self._guesses = _Guesses(int(parts.config.web.rate))

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        connection: _Connection = ASGIConnection(scope)
        said = connection.headers.get("authorization")
        cookie = connection.cookies.get(COOKIE)
        token, way, until = None, None, None
        if said is not None:
            kind, _, text = said.partition(" ")
            if kind.lower() == "bearer":
                token, way = await self._matching(text.strip(), identifier(connection)), "bearer"
        elif cookie is not None and (session := _session(self._parts, cookie)):
            token, way, until = await self._of_session(session[0]), "session", session[1]
        scope["user"] = _principal(token, until) if token else None
        scope["auth"] = way if token else None
        await next_app(scope, receive, send)

    async def _matching(self, text: str, guesser: str) -> Token | None:
        """Raises 429 for a text that was never right, from where too many come that are wrong."""
        key = api_tokens.hashed(text)
        found, token = self._remembered(key)
        if found:
            return token
        if key in self._known:  # was right a moment ago
            return self._remember(key, await self._parts.ask(api_tokens.matching, self._parts.engine, text))
        self._guesses.begin(guesser)
        token = await self._parts.ask(api_tokens.matching, self._parts.engine, text)
        if token is not None:
            self._guesses.right(guesser)
        return self._remember(key, token)

    async def _of_session(self, number: str) -> Token | None:
        found, token = self._remembered(number)
        if found:
            return token
        return self._remember(number, await self._parts.ask(api_tokens.by_id, self._parts.engine, number))

    def _remembered(self, key: str) -> tuple[bool, Token | None]:
        now = time.monotonic()
        until, token = self._known.get(key, (0.0, None))
        return (True, token) if until > now else (self._unknown.get(key, 0.0) > now, None)

    def _remember(self, key: str, token: Token | None) -> Token | None:
        """What is wrong is kept apart: texts that somebody makes up push no token out."""
        until = time.monotonic() + REMEMBER_S
        if token is None:
            self._known.pop(key, None)
            _room(self._unknown)[key] = until
        else:
            _room(self._known)[key] = (until, token)
        return token


def _room(remembered: dict[str, _T]) -> dict[str, _T]:
    if len(remembered) >= _MOST_REMEMBERED:
        remembered.clear()
    return remembered


class _Guesses:
    """Token texts that the database has not confirmed, by address, in this second: so many and no more."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._second = 0
        self._begun: Counter[str] = Counter()

    def begin(self, guesser: str) -> None:
        """Raises 429."""
        if (second := int(time.monotonic())) != self._second:
            self._second, self._begun = second, Counter()
        if self._begun[guesser] >= self._most:
            raise TooManyRequestsException("too many unknown tokens from this address", headers={"retry-after": "1"})
        self._begun[guesser] += 1

    def right(self, guesser: str) -> None:
        self._begun[guesser] -= 1


def _principal(token: Token, until: int | None) -> Principal:
    return Principal(token.id, token.name, token.tenant_id, token.scopes, until)


def csrf_config(parts: Parts) -> CSRFConfig:
    """A script reads the cookie and sends it back in the header; a form has it in ``_csrf_token``."""
    return CSRFConfig(
        secret=parts.derived("csrf").hex(),
        cookie_name="orderwatch_csrf",
        header_name="x-csrf-token",
        cookie_secure=parts.config.web.https,
        cookie_samesite="strict",
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


def identifier(request: _Connection) -> str:
    """Whom a rate limit counts: the token, or the address of who has none."""
    who: Principal | None = request.scope.get("user")
    return f"token {who.token_id}" if who else f"address {request.client.host if request.client else '-'}"
