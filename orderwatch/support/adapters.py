"""Adapters for a person's questions about an account: balance and catalogue. Nothing here places an order."""

import os
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

import sqlalchemy as sa

from agents.domain.accounts import adapter
from agents.providers.base import Provider
from agents.providers.http import HttpClient
from db.clock import Clock
from db.control.stock import CodeStock
from streams.config.loader import Config, IntegrationConfig
from streams.errors import ConfigError
from streams.seal import VARIABLE, Sealer


def integration_of(config: Config, integration_id: str) -> IntegrationConfig:
    """The integration with this id. Raises ``ConfigError`` naming those there are."""
    found = config.integration(integration_id)
    if found is None:
        known = ", ".join(sorted(item.id for item in config.integrations)) or "none"
        raise ConfigError(f"there is no integration {integration_id}; expected one of {known}")
    return found


@asynccontextmanager
async def adapters(
    integrations: tuple[IntegrationConfig, ...], engine: sa.Engine, environ: Mapping[str, str] = os.environ
) -> AsyncIterator[dict[str, Provider]]:
    """The adapter of each integration, by id, connected when it is first used."""
    seal = Sealer.from_environ(environ).seal if VARIABLE in environ else _cannot_seal
    async with AsyncExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(2))
        stock = CodeStock(engine, executor, Clock())
        made: dict[str, Provider] = {}
        for item in integrations:
            http = HttpClient(
                item.base_url or "http://127.0.0.1",
                connect_timeout_s=item.limits.connect_timeout,
                timeout_s=item.limits.timeout,
            )
            stack.push_async_callback(http.close)
            made[item.id] = adapter(item, http, seal, stock)
        yield made


def _cannot_seal(pin: str) -> str:
    raise ConfigError(f"{VARIABLE} is not set; expected the keys that PINs are sealed with")
