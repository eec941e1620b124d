"""A dashboard for tests: the real server on a real socket, in a thread of this process, and a caller of it."""

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from db.control import api_tokens as control_api_tokens
from db.engine import connect
from orderwatch.dashboard.context import gather
from orderwatch.dashboard.serve import Server, address, listen
from streams.config.loader import (
    Config,
    DatabaseConfig,
    IntegrationConfig,
    KafkaConfig,
    MappingConfig,
    RouteConfig,
    WebConfig,
)
from streams.seal import Sealer, new_key
from tests.waiting import wait_until

#: Nobody answers there.
NOWHERE = "127.0.0.1:1"


@dataclass
class Answer:
    """One response."""

    status: int
    headers: dict[str, str]
    cookies: list[str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def document(self) -> Any:
        assert self.headers["content-type"].split(";")[0].endswith("json"), self.text
        return json.loads(self.body)


@dataclass
class Dashboard:
    """A running one. ``ask`` sends one request on a connection of its own."""

    url: str
    engine: sa.Engine
    config: Config
    sealer: Sealer
    server: Server
    tokens: dict[str, str] = field(default_factory=dict)

    def token(self, *scopes: str, tenant: str | None = None, name: str = "tester") -> str:
        """The text of a token with these scopes; none given: all of them."""
        return control_api_tokens.create(
            self.engine, name, scopes or control_api_tokens.SCOPES.keys(), tenant, "test"
        ).text

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        sent = {"authorization": f"Bearer {token}"} if token else {}
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        if data is not None:
            sent["content-type"] = "application/json"
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)
        try:
            connection.request(method, path, data, {**sent, **(headers or {})})
            answer = connection.getresponse()
            shown = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, shown, answer.headers.get_all("set-cookie") or [], answer.read())
        finally:
            connection.close()

    def get(self, path: str, token: str | None = None) -> Answer:
        return self.ask("GET", path, token=token)


def settings(database: str, broker: str = NOWHERE, **web: Any) -> Config:
    """Two tenants, one integration each."""
    return Config(
        kafka=KafkaConfig(bootstrap_servers=broker, session_timeout=3, rebalance_timeout=3),
        database=DatabaseConfig(url=database),
        web=WebConfig(**{"port": 0, "rate": 100_000, **web}),
        integrations=tuple(
            IntegrationConfig(
                id=name,
                tenant_id=tenant,
                provider="znet",
                base_url="http://127.0.0.1:1/",
                currency="TRY",
                credentials={"kod": "demo", "sifre": "secret-word"},
            )
            for name, tenant in (("znet-main", "demo"), ("znet-b", "kral"))
        ),
        routes=(RouteConfig(tenant_id="demo", package_id="pubg-60", mode="auto", primary="znet-main"),),
        mappings=(
            MappingConfig(
                tenant_id="demo",
                package_id="pubg-60",
                integration="znet-main",
                provider_package_id="1",
                oyun="1",
                kupur="UC60",
            ),
        ),
    )


@contextmanager
def dashboard(config: Config, environ: Mapping[str, str] | None = None, keys: str = "") -> Iterator[Dashboard]:
    """Started, and ended at the end; ``keys`` opens PINs that somebody else sealed."""
    sealer = Sealer([keys or new_key()])
    server = Server(gather(config, sealer, environ or {}))
    listening = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listening],), name="dashboard")
    thread.start()
    engine = connect(config.database.url.get_secret_value(), 2)
    try:
        wait_until(lambda: server.started or not thread.is_alive(), timeout_s=20)
        yield Dashboard(address("127.0.0.1", listening), engine, config, sealer, server)
    finally:
        server.let_go()
        thread.join()
        listening.close()
        engine.dispose()
