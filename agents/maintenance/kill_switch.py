"""Follows the emergency switches, apart from the configuration: nothing slow stands between a person and the stop."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from agents.domain.routing import Account, Routing
from agents.handlers.context import HandlerContext
from agents.maintenance.sweeper import wake
from db.leader import Leader
from db.ledger import Due
from db.rows import Key
from streams.errors import BrokerUnavailable, StoreUnavailable
from streams.order import AttentionCode, CheckReason

log = structlog.get_logger(__name__)

#: How often the switches are read. A worker that waits for the answer is late by this and one small query.
POLL_S = 0.3
#: From the switch to the moment at which every worker has surely read it.
_ALL_KNOW_S = 3 * POLL_S


class Switches:
    """What a worker knows of them; ``read`` blocks and says which integrations are on or off."""

    def __init__(self, read: Callable[[], dict[str, bool]], leader: Leader) -> None:
        self._read = read
        self._leader = leader
        self._states: Mapping[str, bool] = {}
        self._one_at_a_time = asyncio.Lock()  # each takes two connections of the pool

    def applied(self, accounts: Mapping[str, Account]) -> dict[str, Account]:
        """The accounts as the switches have them now."""
        return {
            name: replace(account, enabled=self._states.get(name, account.enabled))
            for name, account in accounts.items()
        }

    async def follow_forever(self, deps: HandlerContext) -> None:
        """Stop new sends soon after a switch, and wake what waited for it soon after it is on again."""
        wakes: set[asyncio.Task[None]] = set()
        while True:
            await asyncio.sleep(POLL_S)
            try:
                self._states = await asyncio.to_thread(self._read)
            except StoreUnavailable:
                continue  # nothing can be sent either
            before = deps.routing.accounts
            after = self.applied(before)
            turned = [name for name in after if after[name].enabled is not before[name].enabled]
            if not turned:
                continue
            deps.routing = Routing(deps.config, after)
            for name in turned:
                log.warning("integration switched", integration=name, enabled=after[name].enabled)
            for name in (name for name in turned if after[name].enabled):
                task = asyncio.create_task(self._wake(deps, name))
                wakes.add(task)
                task.add_done_callback(wakes.discard)

    async def _wake(self, deps: HandlerContext, integration_id: str) -> None:
        """One of the workers does it; what it does not reach goes on by its tier and by the sweep."""
        await asyncio.sleep(_ALL_KNOW_S)
        try:
            async with self._one_at_a_time:
                await self._leader.run(
                    f"switched_on:{integration_id}", 10 * POLL_S, lambda: woken(deps, integration_id)
                )
        except (StoreUnavailable, BrokerUnavailable) as error:
            log.warning("not woken", integration=integration_id, error=str(error))


async def woken(deps: HandlerContext, integration_id: str) -> dict[str, int]:
    """Wake every order that waits for an integration, or has an attempt for this one that was not sent."""
    page_size = deps.config.checks.sweep_batch
    count = 0
    after: Due | None = None
    while page := await deps.ledger.unsent(integration_id, after, page_size):
        await wake(deps, page, CheckReason.DISPATCH)
        count += len(page)
        after = page[-1]
    last: Key = ("", "")
    while page := await deps.ledger.waiting(last, [AttentionCode.INTEGRATION_DISABLED], page_size):
        await wake(deps, page, CheckReason.DISPATCH)
        count += len(page)
        last = page[-1][:2]
    return {"woken": count}
