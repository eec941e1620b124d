"""What the handlers work with: the database behind a thread pool, the broker, the configuration."""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import sqlalchemy as sa
from litestar.di import NamedDependency

from db.engine import connect
from orderwatch.dashboard.event_stream import Live
from orderwatch.dashboard.metrics import Measured
from streams import traces
from streams.config.loader import Config
from streams.errors import StoreUnavailable
from streams.kafka.producer import Emitter, Outgoing
from streams.seal import Sealer

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass
class Parts:
    """``config`` has real addresses; ``sealer`` is None where PINs cannot be opened. Made by ``gather``."""

    config: Config
    engine: sa.Engine
    emitter: Emitter
    live: Live
    sealer: Sealer | None
    session_key: bytes = field(repr=False)
    limiter: anyio.CapacityLimiter
    environ: Mapping[str, str] = field(repr=False)
    catalogue: tuple[str, Config] | None = field(default=None, repr=False)
    health: tuple[float, bool] = field(default=(0.0, False), repr=False)
    asking_health: anyio.Lock = field(default_factory=anyio.Lock, repr=False)
    measured: Measured = field(default_factory=Measured, repr=False)

    async def ask(self, question: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Blocking SQL, in a thread; ``question`` gets what is given. Raises ``StoreUnavailable``, also when every
        connection stays busy."""
        with anyio.move_on_after(self.config.web.query_timeout) as waiting:
            await self.limiter.acquire_on_behalf_of(slot := object())
        if waiting.cancelled_caught:
            raise StoreUnavailable("every connection of the dashboard to PostgreSQL is busy")
        try:
            return await anyio.to_thread.run_sync(partial(question, *args, **kwargs))
        finally:
            self.limiter.release_on_behalf_of(slot)

    async def send(self, record: Outgoing, order_id: str, tenant_id: str, came_from: str | None = None) -> None:
        """One event about an order; returns when the broker has it. With traces on, its trace begins here, or goes on
        from the caller's ``traceparent``. Raises ``BrokerUnavailable``."""
        if traces.tracer is None:
            return await self.emitter.send([record])
        with traces.sending(record.topic, order_id, tenant_id, came_from):
            await self.emitter.send([record])

    def derived(self, purpose: str) -> bytes:
        """A key of its own for each purpose."""
        return hmac.new(self.session_key, purpose.encode(), hashlib.sha256).digest()


#: How a handler asks for them.
Inside = NamedDependency[Parts]


def gather(config: Config, sealer: Sealer | None, environ: Mapping[str, str]) -> Parts:
    """Opens nothing yet; ``environ`` is what the stored catalogue refers to.

    Without ``web.session_key`` log-ins end with this process.
    """
    web = config.web
    url = config.database.url.get_secret_value()
    return Parts(
        config=config,
        engine=connect(url, web.pool_size, statement_timeout_s=web.query_timeout, pooler=config.database.pooler),
        emitter=Emitter(config.kafka, delivery_timeout_s=web.query_timeout),
        live=Live(config.kafka),
        sealer=sealer,
        session_key=web.session_key.get_secret_value().encode() if web.session_key else secrets.token_bytes(32),
        limiter=anyio.CapacityLimiter(web.pool_size),
        environ=environ,
    )
