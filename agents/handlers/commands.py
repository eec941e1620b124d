"""What a person may do: to an order by the ledger's rules, to what waits in a queue; their name beside it."""

import asyncio

import structlog

from agents.domain import dead_letters, operator_actions, outbound_events
from agents.handlers.context import HandlerContext, publish, republish
from agents.handlers.dispatch import place_due
from agents.runtime.guard import Delivery
from db.rows import Answer, CommandRecord
from streams.errors import EventError, LedgerBehind
from streams.events import Check, Command, decode
from streams.kafka.producer import message
from streams.order import QUEUE_ACTIONS, CheckReason, CommandAction

log = structlog.get_logger(__name__)

_RECEIVED = ("command_id", "tenant_id", "order_id", "by", "reason", "issued_at")


async def command(deps: HandlerContext, delivery: Delivery) -> None:
    """One command: decided once, with what follows from it; a redelivery says again what it may not have said."""
    event = decode(Command, delivery.value)
    if event.action in QUEUE_ACTIONS:
        return await _on_queue(deps, event)
    key = event.order
    lost = 0
    while True:
        before = await deps.ledger.load(key)
        held = await deps.ledger.receive(_received(event))
        if held.order_id != event.order_id:
            log.warning("command id belongs to another order", order=event.order_id, command=event.command_id)
            return
        if held.done is not None:
            if delivery.repeated and before is not None:
                await republish(deps, before)
                await _ask(deps, event, held.asked or [])
                await place_due(deps, before)
            return
        if before is None and (why := deps.behind()):
            raise LedgerBehind(why)
        if before is None:
            said = f"order {key[1]} of tenant {key[0]} was never accepted"
            return await deps.ledger.refuse(
                Answer(tenant_id=key[0], command_id=event.command_id, done=False, said=said)
            )
        stored = await deps.ledger.apply(operator_actions.decided(before, event, deps.routing, deps.clock.now()))
        if stored is not None:
            break
        lost += 1
        await asyncio.sleep(min(0.05 * lost, 1.0))
    assert stored.answer is not None
    log.info("command decided", order=event.order_id, action=event.action.value, done=stored.answer.done)
    after = outbound_events.after(before, stored)
    await publish(deps, before, after)
    await _ask(deps, event, stored.answer.asked)
    if stored.answer.done:
        await place_due(deps, after)


async def _on_queue(deps: HandlerContext, event: Command) -> None:
    """Attentions that were seen, dead letters that go out again: of no order, and nothing that the ledger guards."""
    held = await deps.ledger.receive(_received(event))
    if held.action != event.action.value:
        log.warning("command id belongs to another command", command=event.command_id)
    elif held.done is None:
        if event.action is CommandAction.ACKNOWLEDGE:
            await deps.ledger.acknowledge(held, event.attentions or [])
        else:
            await _replay(deps, held, event)
        log.info("command decided", action=event.action.value, command=event.command_id)


async def _replay(deps: HandlerContext, held: CommandRecord, event: Command) -> None:
    """Sent first, then remembered: after a crash in between they are sent once more, as the same events."""
    wanted = list(dict.fromkeys(event.letters or []))
    prefix, records, sent, errors = deps.config.kafka.topic_prefix, [], [], []
    for letter in await deps.ledger.letters(held, wanted):
        try:
            fixed = dead_letters.corrected(letter, prefix, event.fix) if event.fix is not None else None
            said = fixed or dead_letters.event_of(letter, prefix)
        except EventError as error:
            errors.append(f"letter {letter['id']}: {error}")
            continue
        records.append(dead_letters.record(letter, prefix, fixed))
        sent.append(dead_letters.replay_of(letter["id"], said, records[-1], event.fix or ()))
    await deps.emitter.send(records)
    rest = len(wanted) - len(sent) - len(errors)
    text = f"sent again: {len(sent)}" + (f"; not there, or sent again before: {rest}" if rest else "")
    await deps.ledger.replayed(held, sent, "; ".join([text, *errors])[:1000])


def _received(event: Command) -> CommandRecord:
    said = {name: getattr(event, name) for name in _RECEIVED}
    return CommandRecord(action=event.action.value, **said | {"tenant_id": event.tenant})


async def _ask(deps: HandlerContext, event: Command, asked: list[tuple[int, int]]) -> None:
    """Checks that a person asked for; told again they are the same events."""
    tenant_id, order_id = event.order
    await deps.emitter.send(
        [
            message(
                Check(
                    order_id=order_id,
                    tenant_id=tenant_id,
                    attempt=attempt,
                    check_number=number,
                    due_at=event.issued_at,
                    reason=CheckReason.OPERATOR.value,
                ),
                "orders.check",
                at=event.issued_at,
            )
            for attempt, number in asked
        ]
    )
