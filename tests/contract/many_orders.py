"""A database full of orders, and how long each page of the dashboard needs on it.

``python -m tests.contract.many_orders [orders]`` starts a PostgreSQL of its own, loads a million orders by default, and
prints the slowest and the middle of ten reads of each kind, and the slowest of every pair of conditions.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import sqlalchemy as sa

from db import schema
from db.engine import connect
from db.reads import lists
from db.reads.lists import OrderFilter
from orderwatch.localservers.bundled import Postgres
from streams.order import ExternalStatus, Status
from tests.dashboard import Dashboard, dashboard, settings

_FILL = (
    """
    insert into ledger_orders (tenant_id, order_id, fingerprint, request, status, external_status, waiting,
        accepted_at, deadline_at, finished_at, next_check_at)
    select case when n % 5000 = 0 then 'small' when n % 2 = 0 then 'demo' else 'kral' end, 'o-' || n, 'f', '{}',
        case when n % 500 = 1 then 'rejected' when n % :open_every = 0 then 'pending' else 'approved' end,
        case when n % 500 = 1 then 'failed' when n % :open_every = 0 then 'processing' else 'completed' end,
        case when n % 4000 = 0 then 'no_mapping' end,
        now() - make_interval(secs => n), now(),
        case when n % :open_every <> 0 then now() - make_interval(secs => n) end,
        case when n % 4000 = 0 then now() end
    from generate_series(1, :many) n""",
    """
    insert into orders (tenant_id, order_id, package_id, quantity, user_identifier, status, external_status,
        integration_id, created_at)
    select tenant_id, order_id, 'p', 1, 'player-' || (hashtext(order_id) % 5000), status, external_status,
        case when external_status = 'failed' then 'rare' else 'main' end, accepted_at from ledger_orders""",
    """
    insert into attempts (tenant_id, order_id, attempt, state, integration_id, provider, reference,
        external_order_id, wire, next_check_at)
    select tenant_id, order_id, 1, case external_status when 'processing' then 'unknown' else external_status end,
        'main', 'znet', 'r' || order_id, 'e' || order_id, '{}',
        case when external_status = 'processing' then now() + interval '1 min' end from ledger_orders""",
    "analyze",
)

#: What people can ask for: each condition alone, and then with every other one.
_CONDITIONS: tuple[dict[str, Any], ...] = (
    *({"tenant_id": name} for name in ("small", "demo", "nobody")),
    *({"integration_id": name} for name in ("rare", "main", "none")),
    *({"external_status": state.value} for state in ExternalStatus),
    *({"status": status.value} for status in Status),
    *({"waiting": code} for code in ("any", "no_mapping", "expired")),
    *({"older_than_s": age} for age in (300.0, 86400.0, 604800.0)),
    {"open": True},
    *({"number": number} for number in ("o-777", "player-77", "nothing")),
)
PAIRS = [OrderFilter(**one, **other) for one, other in combinations(_CONDITIONS, 2) if one.keys() != other.keys()]

#: What people ask for; each must be found through an index.
ASKED = [
    OrderFilter(),
    OrderFilter(tenant_id="small"),
    OrderFilter(integration_id="rare"),
    OrderFilter(tenant_id="demo", integration_id="rare"),
    OrderFilter(external_status="failed"),
    OrderFilter(external_status="unknown"),
    OrderFilter(external_status="expired", tenant_id="demo"),
    OrderFilter(waiting="any"),
    OrderFilter(waiting="no_mapping", tenant_id="demo"),
    OrderFilter(open=True),
    OrderFilter(open=True, older_than_s=3600),
    OrderFilter(open=True, tenant_id="demo"),
    OrderFilter(open=True, integration_id="main"),
    OrderFilter(external_status="processing"),
    OrderFilter(external_status="not_sent", integration_id="main"),
    OrderFilter(status="pending", older_than_s=604800),
    OrderFilter(older_than_s=3600),
    OrderFilter(number="o-777"),
    OrderFilter(number="ro-777", tenant_id="demo"),
    OrderFilter(number="player-77"),
]


def fill(engine: sa.Engine, many: int, open_every: int = 200) -> None:
    """Orders of three tenants, one a second back from now: most completed, some failed, one in ``open_every`` open."""
    with engine.begin() as connection:
        connection.execute(sa.text("set local statement_timeout = 0"))
        for statement in _FILL:
            values = {"many": many, "open_every": open_every} if ":many" in statement else {}
            connection.execute(sa.text(statement), values)


def main() -> None:
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    directory = Path(tempfile.mkdtemp(prefix="orderwatch-"))
    with Postgres(directory / "postgres", durable=False) as server:
        engine = connect(server.url, 2)
        schema.upgrade(engine)
        began = time.monotonic()
        fill(engine, many)
        print(f"{many} orders loaded in {time.monotonic() - began:.0f} s")
        asked: dict[str, Callable[[], Any]] = {
            "overview": lambda: lists.overview(engine),
            "overview of one tenant": lambda: lists.overview(engine, "small"),
            "integrations": lambda: lists.integrations(engine),
            "attention": lambda: lists.attention(engine),
        }
        for wanted in ASKED:
            asked[_said(wanted)] = partial(lists.orders, engine, wanted)
        deep = str(lists.Place(lists.queries.database_now(engine), "demo", "o"))
        pairs = {_said(wanted): partial(lists.orders, engine, wanted) for wanted in PAIRS}
        asked["orders, second page"] = lambda: lists.orders(engine, OrderFilter(), after=deep)
        for name, ask in asked.items():
            took = [_took_ms(ask) for _ in range(10)]
            print(f"{name:60} {median(took):7.1f} ms, slowest {max(took):7.1f} ms")
        slowest = sorted(((max(_took_ms(ask) for _ in range(2)), name) for name, ask in pairs.items()), reverse=True)
        print(f"of all {len(pairs)} pairs of conditions the slowest first pages:")
        for ms, name in slowest[:5]:
            print(f"{name:76} {ms:7.1f} ms")
        _pages(server.url)
        engine.dispose()


def _pages(url: str) -> None:
    """The same through the dashboard: the whole answer, over its socket."""
    with dashboard(settings(url)) as site:
        token = site.token()
        for path in (
            "/",
            "/orders",
            "/orders?state=failed",
            "/orders?state=open",
            "/orders?number=player-77",
            "/orders/demo/o-400",
            "/attention",
            "/integrations",
            "/api/orders",
            "/api/overview",
        ):
            took = [_took_ms(partial(_get, site, path, token)) for _ in range(10)]
            print(f"{'GET ' + path:60} {median(took):7.1f} ms, slowest {max(took):7.1f} ms")


def _get(site: Dashboard, path: str, token: str) -> None:
    assert site.get(path, token).status == 200, path


def _said(wanted: OrderFilter) -> str:
    parts = [f"{name}={getattr(wanted, name)}" for name in wanted.__slots__ if getattr(wanted, name)]
    return "orders " + (", ".join(parts) or "newest")


def _took_ms(ask: Callable[[], Any]) -> float:
    began = time.perf_counter()
    ask()
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    main()
