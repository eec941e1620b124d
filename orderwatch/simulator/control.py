"""The control API: read the ledger, change the accounts, order the next faults. JSON in, JSON out."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from orderwatch.simulator.account import Account
from orderwatch.simulator.faults import Fault
from orderwatch.simulator.market import Market
from orderwatch.simulator.scenario import AccountSpec, ScenarioError, Script, Strict, read

MARKET = web.AppKey("market", Market)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Settle(Strict, frozen=True, kw_only=True):
    """What the shop's staff does by hand to one order: ``fail`` or ``reversed`` give the money back."""

    reference: str
    state: str

    def __post_init__(self) -> None:
        if self.state not in ("success", "fail", "reversed"):
            raise ValueError(f"state is {self.state!r}; expected success, fail or reversed")


@web.middleware
async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A wrong request is answered with 400 and one sentence."""
    try:
        return await handler(request)
    except ScenarioError as error:
        return reply({"error": str(error)}, 400)


async def health(request: web.Request) -> web.Response:
    """Is it up, and how much does it hold?"""
    market = request.app[MARKET]
    return reply({"ok": True, "accounts": len(market.accounts), "executed": len(market.ledger)})


async def ledger(request: web.Request) -> web.Response:
    """Every execution, oldest first; ``account`` and ``reference`` narrow it."""
    asked = only(request, "account", "reference")
    entries = request.app[MARKET].entries(asked.get("account"), asked.get("reference"))
    return reply([purchase.entry() for purchase in entries])


async def summary(request: web.Request) -> web.Response:
    """Per account: references, executions, doubles, money, requests."""
    only(request)
    return reply({"accounts": request.app[MARKET].summary()})


async def requests(request: web.Request) -> web.Response:
    """The request log, oldest first; ``account``, ``operation`` and ``reference`` narrow it."""
    asked = only(request, "account", "operation", "reference")
    fields = ("account", "operation", "reference", "at_ns", "answered")
    rows = (dict(zip(fields, row, strict=True)) for row in request.app[MARKET].requests)
    return reply([row for row in rows if all(row[key] == value for key, value in asked.items())])


async def accounts(request: web.Request) -> web.Response:
    """All accounts with their present settings, without credentials."""
    only(request)
    return reply([account.settings() for account in request.app[MARKET].accounts.values()])


async def open_account(request: web.Request) -> web.Response:
    """A new account, as in a scenario."""
    spec: Any = read(await body(request), AccountSpec, "body")  # type: ignore[arg-type]  # a union is no type[T]
    return reply(request.app[MARKET].open(spec).settings(), 201)


async def change_account(request: web.Request) -> web.Response:
    """Merge settings into an account's; a list, such as ``faults``, replaces the old one."""
    account = account_of(request)
    request.app[MARKET].change(account, await body(request))
    return reply(account.settings())


async def add_faults(request: web.Request) -> web.Response:
    """One fault or a list of them, behind those there are."""
    account = account_of(request)
    data = await body(request)
    faults = read(data, list[Fault], "body") if isinstance(data, list) else [read(data, Fault, "body")]
    for fault in faults:
        account.faults.add(fault)
    return reply({"faults": account.faults.pending()}, 201)


async def settle(request: web.Request) -> web.Response:
    """End an order by hand; one that has ended otherwise stays as it is."""
    account = account_of(request)
    wish = read(await body(request), Settle, "body")
    purchases = account.orders.get(wish.reference)
    if not purchases:
        raise ScenarioError("reference: nothing was bought under it; expected a reference of the ledger")
    for purchase in purchases:
        account.finish(purchase, wish.state)
    return reply([purchase.entry() for purchase in purchases])


async def script(request: web.Request) -> web.Response:
    """A life for a player's or a package's orders, from now on."""
    life = read(await body(request), Script, "body")
    request.app[MARKET].script(life)
    return reply(msgspec.to_builtins(life), 201)


async def reset(request: web.Request) -> web.Response:
    """Back to the scenario the simulator was started with."""
    request.app[MARKET].reset()
    return reply({"ok": True})


def application(market: Market) -> web.Application:
    """The control API of one market."""
    app = web.Application(middlewares=[explain])
    app[MARKET] = market
    app.add_routes(
        [
            web.get("/health", health),
            web.get("/ledger", ledger),
            web.get("/ledger/summary", summary),
            web.get("/requests", requests),
            web.get("/accounts", accounts),
            web.post("/accounts", open_account),
            web.patch("/accounts/{id}", change_account),
            web.post("/accounts/{id}/faults", add_faults),
            web.post("/accounts/{id}/settle", settle),
            web.post("/lives", script),
            web.post("/reset", reset),
        ]
    )
    return app


def account_of(request: web.Request) -> Account:
    """The account of the path; 404 when there is none."""
    name = request.match_info["id"]
    account = request.app[MARKET].accounts.get(name)
    if account is None:
        text = msgspec.json.encode({"error": f"account {name!r} does not exist"}).decode()
        raise web.HTTPNotFound(text=text, content_type="application/json")
    return account


def only(request: web.Request, *names: str) -> dict[str, str]:
    """The query of a request. Raises ``ScenarioError`` for a parameter nobody reads."""
    for key in request.query:
        if key not in names:
            raise ScenarioError(f"query: unknown parameter {key!r}; expected {', '.join(names) or 'none'}")
    return dict(request.query)


async def body(request: web.Request) -> Any:
    """The JSON of a request. Raises ``ScenarioError`` when it is not JSON."""
    try:
        return msgspec.json.decode(await request.read())
    except msgspec.DecodeError as error:
        raise ScenarioError(f"body: is not JSON ({error}); expected a JSON object") from error


def reply(data: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=msgspec.json.encode(data), status=status, content_type="application/json")
