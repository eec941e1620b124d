"""Repairs what the log lost: one worker at a time lists what is overdue in the ledger and wakes it up again.

A check that was not lost is not doubled by this, because the check step compares its number with the ledger.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog

from agents.domain import deadlines, outbound_events
from agents.handlers.check import expire
from agents.handlers.context import HandlerContext, commit, publish, republish
from agents.runtime.guard import HOLDING, where
from db.leader import Leader
from db.ledger import Due
from db.rows import Key
from streams import metrics
from streams.errors import BrokerUnavailable, StoreUnavailable
from streams.events import Check
from streams.kafka.producer import message
from streams.order import AttentionCode, CheckReason

log = structlog.get_logger(__name__)

#: Codes that a change of configuration can cure: asked about again at every pass.
CURABLE = (
    AttentionCode.NO_ROUTING,
    AttentionCode.NO_MAPPING,
    AttentionCode.INTEGRATION_DISABLED,
    AttentionCode.MANUAL_ROUTE,
)


#: Status changes that one pass compares with the view; an older backlog is worked off pass by pass.
WINDOW_EVENTS = 50_000


async def sweep_forever(deps: HandlerContext, leader: Leader) -> None:
    """A pass every ``checks.sweep_every``, by whoever leads; never stops for a store or broker that is away."""
    while True:
        every_s = deps.config.checks.sweep_every
        try:
            if not deps.behind():
                await leader.run("sweep", every_s, lambda: sweep(deps))
        except (StoreUnavailable, BrokerUnavailable) as error:
            log.warning("sweep held", error=str(error))
        await asyncio.sleep(min(every_s, 5.0))


async def sweep(deps: HandlerContext) -> dict[str, Any]:
    """One pass: how many orders each job repaired, and ``failed`` with the error of each job that could not ask.

    A job that fails does not stop the others; lost checks come first. Raises when every job failed.
    """
    done: dict[str, Any] = {}
    failed: dict[str, Exception] = {}
    for name, job in JOBS.items():
        try:
            done[name] = await job(deps)
        except HOLDING as error:
            failed[name] = error
            metrics.counter("orderwatch_sweep_failures_total", name).inc()
            log.error("sweep job failed", job=name, error=str(error))
        else:
            metrics.counter("orderwatch_swept_total", name).inc(done[name])
    if len(failed) == len(JOBS):
        raise next(iter(failed.values()))
    if any(done.values()):
        log.info("swept", **done)
    return {**done, **({"failed": {name: str(error) for name, error in failed.items()}} if failed else {})}


async def _overdue(deps: HandlerContext) -> int:
    """Wake checks that were due and that nobody took up."""
    checks, count = deps.config.checks, 0
    after: Due | None = None
    while page := await deps.ledger.overdue(after, checks.sweep_slack, checks.sweep_batch):
        await wake(deps, page, CheckReason.SWEEP)
        count += len(page)
        after = page[-1]
    return count


async def _waiting(deps: HandlerContext) -> int:
    """Wake orders that a change of configuration may have cured."""
    count = 0
    last: Key = ("", "")
    while page := await deps.ledger.waiting(last, CURABLE, deps.config.checks.sweep_batch):
        await wake(deps, page, CheckReason.SWEEP)
        count += len(page)
        last = page[-1][:2]
    return count


async def _expired(deps: HandlerContext) -> int:
    """Give up asking about orders that are past their deadline."""
    page = deps.config.checks.sweep_batch
    return await _each(deps, lambda after: deps.ledger.past_deadline(after, page), lambda key: _expire(deps, key))


async def _pending(deps: HandlerContext) -> int:
    """Raise attention for orders that are open longer than a threshold."""
    checks, count = deps.config.checks, 0
    for threshold_s in checks.long_pending_after:
        code, key_of = AttentionCode.LONG_PENDING, deadlines.threshold_key(threshold_s)
        pages = partial(_pending_page, deps, threshold_s, code, key_of)
        count += await _each(deps, pages, partial(_long_pending, deps, threshold_s=threshold_s))
    return count


async def _pending_page(deps: HandlerContext, threshold_s: float, code: str, key: str, after: Key) -> list[Key]:
    return await deps.ledger.pending_longer(after, threshold_s, code, key, deps.config.checks.sweep_batch)


async def _unpublished(deps: HandlerContext) -> int:
    """Publish again what did not reach the views."""
    checks, ledger = deps.config.checks, deps.ledger
    window = await ledger.publish_window(checks.sweep_slack, WINDOW_EVENTS)
    found = await _each(
        deps,
        lambda after: ledger.unpublished(after, checks.sweep_slack, checks.sweep_batch, window),
        lambda key: _republish(deps, key),
    )
    await ledger.publish_checked(window, found)
    return found


#: What a pass does, in this order. Each job asks bounded questions of its own.
JOBS: dict[str, Callable[[HandlerContext], Awaitable[int]]] = {
    "overdue": _overdue,
    "waiting": _waiting,
    "expired": _expired,
    "long_pending": _pending,
    "unpublished": _unpublished,
}


async def _each(
    deps: HandlerContext, page_after: Callable[[Key], Awaitable[list[Key]]], act: Callable[[Key], Awaitable[None]]
) -> int:
    count, last = 0, ("", "")
    while page := await page_after(last):
        for key in page:
            try:
                await act(key)
            except HOLDING:
                raise
            except Exception as error:  # noqa: BLE001 - one order must not keep the sweep from all others
                log.error("order not swept", order=key[1], tenant=key[0], error=where(error))
        count += len(page)
        last = page[-1]
    return count


async def wake(deps: HandlerContext, page: list[Due], reason: CheckReason) -> None:
    """Write a due check for each of these."""
    await deps.emitter.send(
        [
            message(
                Check(
                    order_id=due.order_id,
                    tenant_id=due.tenant_id,
                    attempt=due.attempt,
                    check_number=due.check_number,
                    due_at=due.due_at,
                    reason=reason.value,
                ),
                "orders.check",
                at=deps.clock.now(),
            )
            for due in page
        ]
    )


async def _expire(deps: HandlerContext, key: Key) -> None:
    state = await deps.ledger.load(key)
    if state is not None:
        await expire(deps, state, "sweep")


async def _long_pending(deps: HandlerContext, key: Key, threshold_s: float) -> None:
    state = await deps.ledger.load(key)
    if state is not None:
        now = deps.clock.now()
        change = deadlines.long_pending(state, deps.routing, now, threshold_s)
        if change is not None:
            # Told before it is written down: no event comes again that would tell it after a crash in between.
            await publish(deps, state, outbound_events.after(state, change))
            await commit(deps, state, lambda s: deadlines.long_pending(s, deps.routing, now, threshold_s))


async def _republish(deps: HandlerContext, key: Key) -> None:
    state = await deps.ledger.load(key)
    if state is not None:
        await republish(deps, state, 0)
