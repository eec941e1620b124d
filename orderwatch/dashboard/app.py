"""The dashboard and its HTTP API as one application: what every request goes through, and what starts with it."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from litestar import Litestar
from litestar.datastructures import MutableScopeHeaders
from litestar.di import Provide
from litestar.exceptions import ImproperlyConfiguredException
from litestar.handlers.base import BaseRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.routes import HTTPRoute
from litestar.static_files import create_static_files_router
from litestar.stores.memory import MemoryStore
from litestar.template.config import TemplateConfig
from litestar.types import BeforeMessageSendHookHandler, ControllerRouterHandler, Message, Scope

from db.control import idempotency_keys, webhook_receipts
from orderwatch.dashboard import auth, i18n, problems
from orderwatch.dashboard.api import (
    commands,
    dead_letters,
    live,
    openapi,
    orders,
    overview,
    place_order,
    route_test,
    system,
    webhooks,
)
from orderwatch.dashboard.auth import PUBLIC
from orderwatch.dashboard.context import Parts
from orderwatch.dashboard.pages import integrations, login, queues
from orderwatch.dashboard.pages import orders as page_orders
from orderwatch.dashboard.strict_json import StrictRequest
from streams import traces
from streams.errors import StoreUnavailable

HERE = Path(__file__).parent
MOST_BODY_BYTES = 1_000_000
#: For how long an Idempotency-Key is remembered; a record of orders.created is kept as long.
KEYS_KEPT = timedelta(days=7)
_TIDY_EVERY_S = 600.0

#: For every response. No inline script or style, nothing from elsewhere, in nobody's frame.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def create(parts: Parts) -> Litestar:
    """The application. Raises ``ImproperlyConfiguredException`` for a route that does not say what it needs."""
    web = parts.config.web
    counts, allowed = MemoryStore(), dict[str, str]()
    app = Litestar(
        route_handlers=[
            *_routes(),
            create_static_files_router(
                "/static", [HERE / "static"], opt={"needs": PUBLIC, "unlimited": True}, name="static"
            ),
        ],
        dependencies={
            "parts": Provide(lambda: parts, sync_to_thread=False),
            "who": Provide(auth.caller, sync_to_thread=False),
        },
        guards=[auth.admit],
        middleware=[
            auth.Identify(parts),
            DefineMiddleware(auth.CookieCsrf, config=auth.csrf_config(parts)),
            RateLimitConfig(
                ("second", int(web.rate)),
                identifier_for_request=auth.identifier,
                exclude_opt_key="unlimited",
                store="counts",
            ).middleware,
        ],
        stores={"counts": counts},
        exception_handlers={Exception: problems.answer},
        before_send=[_headers(allowed, https=web.https)],
        template_config=TemplateConfig(instance=JinjaTemplateEngine.from_environment(environment())),
        openapi_config=openapi.settings(),
        request_class=StrictRequest,
        request_max_body_size=MOST_BODY_BYTES,
        lifespan=[lambda _: _running(parts, counts)],
        logging_config=None,
    )
    allowed |= {
        route.path_format: ", ".join(sorted(route.methods)) for route in app.routes if isinstance(route, HTTPRoute)
    }
    for path, handler in handlers(app):
        if "needs" not in handler.opt:
            raise ImproperlyConfiguredException(f"{path} ({handler}) does not say what it needs")
    return app


def handlers(app: Litestar) -> Iterator[tuple[str, BaseRouteHandler]]:
    """Every route of the application: its path as it is declared, and what answers there. Not Litestar's own answers
    to OPTIONS, which tell methods only."""
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else [route.route_handler]:
            if getattr(handler, "http_methods", None) != {"OPTIONS"}:
                yield route.path, handler


def _routes() -> Sequence[ControllerRouterHandler]:
    return [
        route
        for module in (
            system,
            overview,
            orders,
            place_order,
            commands,
            dead_letters,
            route_test,
            live,
            webhooks,
            login,
            page_orders,
            queues,
            integrations,
        )
        for route in module.routes
    ]


def environment() -> Environment:
    """Jinja for the templates of this room; everything is escaped."""
    made = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True)
    made.filters.update(i18n.filters())
    return made


def _headers(allowed: Mapping[str, str], *, https: bool) -> BeforeMessageSendHookHandler:
    """``allowed``: path -> its methods, which Litestar itself forgets where two handlers have one path."""
    made = HEADERS | ({"strict-transport-security": "max-age=31536000"} if https else {})

    async def add(message: Message, scope: Scope) -> None:
        if message["type"] == "http.response.start":
            headers = MutableScopeHeaders.from_message(message)
            for name, value in made.items():
                headers.setdefault(name, value)
            if not scope["path"].startswith("/static/"):
                headers.setdefault("cache-control", "no-store")
            if scope.get("method") == "OPTIONS" and "allow" in headers:
                headers["allow"] = allowed[str(scope.get("path_template"))]

    return add


@asynccontextmanager
async def _running(parts: Parts, counts: MemoryStore) -> AsyncIterator[None]:
    async with parts.emitter:
        parts.live.start()
        tidying = asyncio.create_task(_tidy(parts, counts))
        try:
            yield
        finally:
            tidying.cancel()
            with suppress(asyncio.CancelledError):
                await tidying
            await parts.live.stop()
            parts.engine.dispose()
    await asyncio.to_thread(traces.stop)


async def _tidy(parts: Parts, counts: MemoryStore) -> None:
    while True:
        await counts.delete_expired()
        with suppress(StoreUnavailable):
            await parts.ask(idempotency_keys.forget, parts.engine, KEYS_KEPT)
            await parts.ask(webhook_receipts.forget, parts.engine)
        await asyncio.sleep(_TIDY_EVERY_S)
