"""Asks every account for its balance now and then, so that a page never shows an unknown one."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from agents.handlers import account_watch
from agents.handlers.context import HandlerContext
from agents.providers.base import Money
from db.leader import Leader
from streams.errors import BrokerUnavailable, StoreUnavailable

log = structlog.get_logger(__name__)

#: Stores what an account said; blocks.
Store = Callable[[str, Money], None]


async def ask_forever(deps: HandlerContext, leader: Leader, store: Store) -> None:
    """A round every ``checks.balance_every`` by whoever leads; ``0s`` switches it off."""
    while True:
        every_s = deps.config.checks.balance_every
        if every_s > 0:
            try:
                await leader.run("balances", every_s, lambda: ask_all(deps, store))
            except (StoreUnavailable, BrokerUnavailable) as error:
                log.warning("balances not asked", error=str(error))
        await asyncio.sleep(min(every_s or 60.0, 15.0))


async def ask_all(deps: HandlerContext, store: Store) -> dict[str, Any]:
    """One question per enabled account, one after the other; how many told their balance."""
    told = 0
    for name, account in list(deps.routing.accounts.items()):
        lane = deps.lanes.get(name)
        if not account.enabled or lane is None:
            continue
        balance = await lane.provider.balance()
        if balance.money is None:
            continue
        told += 1
        await asyncio.to_thread(store, name, balance.money)
        await account_watch.on_balance(deps, name, balance.money)
    return {"told": told}
