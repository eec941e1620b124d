"""Repairs what the log lost: one worker at a time lists what is overdue in the ledger and wakes it up again.

A check that was not lost is not doubled by this, because the check step compares its number with the ledger.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

import structlog

from agents.domain import outbound_events, transition
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


@dataclass(slots=True)
class Pass:
    """What one pass found and repaired."""

    overdue: int = 0
    waiting: int = 0
    unpublished: int = 0
    long_pending: int = 0
    expired: int = 0


async def sweep_forever(deps: HandlerContext, leader: Leader) -> None:
    """A pass every ``checks.sweep_every``, by whoever leads; never stops for a store or broker that is away."""
    while True:
        every_s = deps.config.checks.sweep_every
        try:
            await leader.run("sweep", every_s, lambda: sweep(deps))
        except (StoreUnavailable, BrokerUnavailable) as error:
            log.warning("sweep held", error=str(error))
        await asyncio.sleep(min(every_s, 5.0))


async def sweep(deps: HandlerContext) -> dict[str, int]:
    """One pass over everything that is overdue; the counts of what it repaired."""
    checks = deps.config.checks
    done = Pass()
    done.expired = await _each(
        deps, lambda after: deps.ledger.past_deadline(after, checks.sweep_batch), lambda key: _expire(deps, key)
    )
    for threshold_s in checks.long_pending_after:
        done.long_pending += await _each(
            deps,
            lambda after, t=threshold_s: deps.ledger.pending_longer(  # type: ignore[misc]
                after, t, AttentionCode.LONG_PENDING, transition.threshold_key(t), checks.sweep_batch
            ),
            lambda key, t=threshold_s: _long_pending(deps, key, t),  # type: ignore[misc]
        )
    done.unpublished = await _each(
        deps,
        lambda after: deps.ledger.unpublished(after, checks.sweep_slack, checks.sweep_batch),
        lambda key: _republish(deps, key),
    )
    after: Due | None = None
    while page := await deps.ledger.overdue(after, checks.sweep_slack, checks.sweep_batch):
        await wake(deps, page, CheckReason.SWEEP)
        done.overdue += len(page)
        after = page[-1]
    last: Key = ("", "")
    while page := await deps.ledger.waiting(last, CURABLE, checks.sweep_batch):
        await wake(deps, page, CheckReason.SWEEP)
        done.waiting += len(page)
        last = page[-1][:2]
    for kind, found in asdict(done).items():
        metrics.counter("orderwatch_swept_total", kind).inc(found)
    if any(asdict(done).values()):
        log.info("swept", **asdict(done))
    return asdict(done)


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
        change = transition.long_pending(state, deps.routing, now, threshold_s)
        if change is not None:
            # Told before it is written down: no event comes again that would tell it after a crash in between.
            await publish(deps, state, outbound_events.after(state, change))
            await commit(deps, state, lambda s: transition.long_pending(s, deps.routing, now, threshold_s))


async def _republish(deps: HandlerContext, key: Key) -> None:
    state = await deps.ledger.load(key)
    if state is not None:
        await republish(deps, state, 0)
