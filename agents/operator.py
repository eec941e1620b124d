"""What a person may do to an order: the same ledger, the same rules, their name beside it."""

import asyncio

import structlog

from agents import acts, announce
from agents.dispatch import place_due
from agents.guard import Delivery
from agents.work import Deps, tell, tell_again
from db.rows import Answer, Commanded
from streams.events import Check, Command, decode
from streams.kafka import message
from streams.order import CheckReason

log = structlog.get_logger(__name__)

_RECEIVED = ("command_id", "tenant_id", "order_id", "by", "reason", "issued_at")


async def command(deps: Deps, delivery: Delivery) -> None:
    """One command: decided once, with what follows from it; a redelivery says again what it may not have said."""
    event = decode(Command, delivery.value)
    lost = 0
    while True:
        before = await deps.ledger.load((event.tenant_id, event.order_id))
        held = await deps.ledger.receive(_received(event))
        if held.order_id != event.order_id:
            log.warning("command id belongs to another order", order=event.order_id, command=event.command_id)
            return
        if held.done is not None:
            if delivery.repeated and before is not None:
                await tell_again(deps, before)
                await _ask(deps, event, held.asked or [])
                await place_due(deps, before)
            return
        if before is None:
            said = f"order {event.order_id} of tenant {event.tenant_id} was never accepted"
            return await deps.ledger.refuse(
                Answer(tenant_id=event.tenant_id, command_id=event.command_id, done=False, said=said)
            )
        stored = await deps.ledger.apply(acts.decided(before, event, deps.routing, deps.clock.now()))
        if stored is not None:
            break
        lost += 1
        await asyncio.sleep(min(0.05 * lost, 1.0))
    assert stored.answer is not None
    log.info("command decided", order=event.order_id, action=event.action.value, done=stored.answer.done)
    after = announce.after(before, stored)
    await tell(deps, before, after)
    await _ask(deps, event, stored.answer.asked)
    if stored.answer.done:
        await place_due(deps, after)


def _received(event: Command) -> Commanded:
    return Commanded(action=event.action.value, **{name: getattr(event, name) for name in _RECEIVED})


async def _ask(deps: Deps, event: Command, asked: list[tuple[int, int]]) -> None:
    """Checks that a person asked for; told again they are the same events."""
    await deps.emitter.send([
        message(
            Check(order_id=event.order_id, tenant_id=event.tenant_id, attempt=attempt, check_number=number,
                  due_at=event.issued_at, reason=CheckReason.OPERATOR.value),
            "orders.check", at=event.issued_at,
        )
        for attempt, number in asked
    ])  # fmt: skip
