"""The simulator on its two ports: the providers' shops on one, the control API on the other."""

import asyncio
import time
from dataclasses import dataclass, field
from types import ModuleType

import msgspec
from aiohttp import web

from orderwatch.simulator import control, zdk, znet
from orderwatch.simulator.account import Account
from orderwatch.simulator.faults import Fault
from orderwatch.simulator.market import Market
from orderwatch.simulator.replies import deliver, whole
from orderwatch.simulator.scenario import AccountSpec, Scenario, ZdkAccount, ZnetAccount
from orderwatch.simulator.wire import NOT_FOUND, Answer, Asked, Call

SHOPS: dict[type[AccountSpec], ModuleType] = {ZnetAccount: znet, ZdkAccount: zdk}
SHUTDOWN_S = 0.5


@dataclass(frozen=True, slots=True)
class Settings:
    """How to start. Port 0 takes a free one; without the request log memory grows with purchases only."""

    host: str = "127.0.0.1"
    port: int = 0
    control_port: int = 0
    seed: int = 0
    scenario: Scenario = field(default_factory=Scenario)
    request_log: bool = True


class Running:
    """A started simulator. Code in the same loop may read and change ``market`` directly."""

    def __init__(self, market: Market, host: str) -> None:
        self.market = market
        self.host = host
        self.port = 0
        self.control_port = 0
        # without the cancellation a silent answer would outlive the client that gave up on it
        self._server = web.Server(self._answer, handler_cancellation=True, access_log=None)
        self._shops = web.ServerRunner(self._server, shutdown_timeout=SHUTDOWN_S)
        self._control = web.AppRunner(control.application(market), access_log=None, shutdown_timeout=SHUTDOWN_S)

    @property
    def provider_url(self) -> str:
        """Where the shops are, without an account."""
        return f"http://{self.host}:{self.port}"

    @property
    def control_url(self) -> str:
        """Where the control API is."""
        return f"http://{self.host}:{self.control_port}"

    def base_url(self, account: str) -> str:
        """The ``base_url`` of an integration that uses this account."""
        return f"{self.provider_url}/{account}"

    @property
    def connections(self) -> int:
        """How many clients are connected to the shops now."""
        return len(self._server.connections)

    async def open(self, port: int, control_port: int) -> None:
        """Listen on both ports; raises ``OSError`` when one is taken."""
        try:
            self.port = await listen(self._shops, self.host, port)
            self.control_port = await listen(self._control, self.host, control_port)
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close both ports, and silent connections with them."""
        await self._shops.cleanup()
        await self._control.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Everything up to the decision happens at receipt and at once; only telling it takes time."""
        at_ns = time.time_ns()
        _, name, *parts = request.path.split("/")
        account = self.market.accounts.get(name)
        if account is None:
            self.market.log("?", "unknown", "", at_ns, "404")
            return whole(NOT_FOUND)
        query = dict(request.query)
        if request.method == "POST":
            query |= await form(request)
        call = Call(request.method, tuple(parts), query, request.headers.get("api-token"))
        shop = SHOPS[type(account.spec)]
        ask = shop.asked(call)
        if ask is None:
            self.market.log(name, "unknown", "", at_ns, "404")
            return whole(NOT_FOUND)
        fault, answer = decide(self.market, account, shop, ask, call)
        answered = f"{fault.kind}:{answer.label}" if fault else answer.label
        self.market.log(name, ask.operation, ask.reference, at_ns, answered)
        pause_s = latency_s(account, ask)
        if pause_s:
            await asyncio.sleep(pause_s)
        return await deliver(request, answer, filled(fault, ask.reference))


def decide(market: Market, account: Account, shop: ModuleType, ask: Asked, call: Call) -> tuple[Fault | None, Answer]:
    """Which fault hits this call, and the true answer to it; a purchase is made here or not at all."""
    account.requests[ask.operation] = account.requests.get(ask.operation, 0) + 1
    account.advance()
    fault = None
    if account.faults.watches(ask.operation):
        fault = account.faults.hit(ask.operation, ask.reference, shop.goods(account, ask, call))
    answer: Answer = shop.answer(market, account, ask, call, fault)
    return fault, answer


def filled(fault: Fault | None, reference: str) -> Fault | None:
    """The fault with the reference in its text."""
    if fault is None or fault.text is None or "{reference}" not in fault.text:
        return fault
    return msgspec.structs.replace(fault, text=fault.text.replace("{reference}", reference))


def latency_s(account: Account, ask: Asked) -> float:
    """How long this answer takes: as the order lives, else as the account answers."""
    purchases = account.orders.get(ask.reference)
    return account.latency_s(purchases[0].life.latency if purchases else None)


async def form(request: web.BaseRequest) -> dict[str, str]:
    """The parameters in the body of a POST: a form or a JSON object; anything else brings none."""
    if request.content_type != "application/json":
        return {key: value for key, value in (await request.post()).items() if isinstance(value, str)}
    try:
        data = await request.json()
    except ValueError:
        return {}
    return {key: str(value) for key, value in data.items()} if isinstance(data, dict) else {}


async def listen(runner: web.BaseRunner, host: str, port: int) -> int:
    """Start a runner; the port it has now."""
    await runner.setup()
    await web.TCPSite(runner, host, port, backlog=1024).start()
    found: int = runner.addresses[0][1]
    return found


async def start(settings: Settings) -> Running:
    """A simulator that answers when this returns. Raises ``OSError`` when a port is taken."""
    market = Market(settings.scenario, settings.seed, settings.request_log)
    running = Running(market, settings.host)
    await running.open(settings.port, settings.control_port)
    return running
