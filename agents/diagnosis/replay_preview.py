"""Dead letters: what would become of one that is sent again, and what it may cost.

The reading, the routing and the rule for repeats are those of the workers. Nothing here sends anything.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from agents.domain.dead_letters import event_of
from agents.domain.routing import Routing, Waiting, facts_of_event
from db.control import commands
from db.reads import known_orders
from db.reads.known_orders import Known
from db.reads.queries import Row
from streams.errors import EventError
from streams.events import Check, Command, Created, Event


@dataclass(frozen=True, slots=True)
class Verdict:
    """What would become of one letter. ``sends`` is False when it would only be set aside again.

    ``word``: ``new``, ``repeat``, ``clash``, ``handled``, ``stale``, ``unknown_order``, ``forgotten`` or
    ``malformed``. ``cost`` is what a new order is expected to cost; None when nothing is bought or the mapping does not
    say.
    """

    letter: int
    topic: str
    word: str
    says: str
    sends: bool = True
    tenant_id: str | None = None
    order_id: str | None = None
    integration_id: str | None = None
    cost: Decimal | None = None
    currency: str | None = None


def judged(
    engine: sa.Engine,
    routing: Routing,
    rows: Sequence[Row],
    prefix: str,
    fixed: Mapping[int, Event] | None = None,
    heard: Callable[[set[tuple[str, str]]], Container[tuple[str, str]]] = lambda unknown: (),
) -> list[Verdict]:
    """What would become of each letter, one after the other; ``fixed``: corrected events by letter id. ``heard`` says
    which of some orders that the ledger does not know the log speaks of: these are not sent."""
    read: dict[int, Event | EventError] = {}
    for letter in rows:
        try:
            read[letter["id"]] = (fixed or {}).get(letter["id"]) or event_of(letter, prefix)
        except EventError as error:
            read[letter["id"]] = error
    known = known_orders.known(engine, {_key(event) for event in read.values() if isinstance(event, (Created, Check))})
    ordered = {_key(event) for event in read.values() if isinstance(event, Created)}
    forgotten = heard(ordered - known.keys())
    return [_verdict(engine, routing, letter, read[letter["id"]], known, forgotten) for letter in rows]


def cost(verdicts: Iterable[Verdict]) -> tuple[dict[str, Decimal], int]:
    """Expected cost by currency of what would be bought, and how many purchases have no known price."""
    sums: dict[str, Decimal] = {}
    unknown = 0
    for verdict in verdicts:
        if verdict.cost is not None and verdict.currency:
            sums[verdict.currency] = sums.get(verdict.currency, Decimal(0)) + verdict.cost
        elif verdict.integration_id is not None:
            unknown += 1
    return sums, unknown


def _key(event: Created | Check) -> tuple[str, str]:
    return (event.tenant_id, event.order_id)


def _verdict(
    engine: sa.Engine,
    routing: Routing,
    letter: Row,
    event: Event | EventError,
    known: dict[tuple[str, str], Known],
    forgotten: Container[tuple[str, str]],
) -> Verdict:
    of: dict[str, Any] = {"letter": letter["id"], "topic": letter["topic"]}
    if isinstance(event, EventError):
        return Verdict(**of, word="malformed", says=f"still malformed: {event}", sends=False)
    of |= {"tenant_id": getattr(event, "tenant_id", None), "order_id": getattr(event, "order_id", None)}
    if isinstance(event, Created) and _key(event) not in known and _key(event) in forgotten:
        says = (
            f"the ledger does not know order {event.order_id} of {event.tenant_id}, but the log does: it may have"
            " been bought; run `orderwatch db recover`"
        )
        return Verdict(**of, word="forgotten", says=says, sends=False)
    if isinstance(event, Created):
        return _created(routing, of, event, known)
    if isinstance(event, Check):
        return _check(of, event, known.get(_key(event)))
    if isinstance(event, Command):
        held = commands.result(engine, event.tenant, event.command_id)
        if held is not None and held.done is not None:
            return Verdict(**of, word="repeat", says="the command was decided before: nothing happens twice")
        return Verdict(**of, word="handled", says=f"the command {event.action} is decided under the ledger's rules")
    return Verdict(**of, word="handled", says="is shown in the views; a version that is known changes nothing")


def _created(routing: Routing, of: dict[str, Any], event: Created, known: dict[tuple[str, str], Known]) -> Verdict:
    before = known.get(_key(event))
    name = f"order {event.order_id} of {event.tenant_id}"
    if before is not None and before.fingerprint == event.fingerprint():
        says = f"{name} is known and {before.external_status}: nothing is bought again"
        return Verdict(**of, word="repeat", says=says)
    if before is not None:
        return Verdict(**of, word="clash", says=f"{name} is known with other content: the first one counts")
    known[_key(event)] = Known(event.fingerprint(), "accepted by an earlier letter", {0: 0})
    found = routing.first(facts_of_event(event))
    if isinstance(found, Waiting):
        return Verdict(**of, word="new", says=f"{name} is accepted as a new order, and waits: {found.message}")
    where = found[0].integration_id
    account, item = routing.accounts[where], routing.config.integration(where)
    costs = [row.expected_cost for row in found]
    total = None if None in costs else sum((amount for amount in costs if amount is not None), Decimal(0))
    currency = (item.currency if item is not None else None) or account.adapter.currency
    price = f"{total} {currency}" if total is not None else "not known"
    says = f"{name} is accepted as a new order and bought at {where}; expected cost {price}"
    return Verdict(**of, word="new", says=says, integration_id=where, cost=total, currency=currency)


def _check(of: dict[str, Any], event: Check, state: Known | None) -> Verdict:
    if state is None:
        says = f"order {event.order_id} of {event.tenant_id} is not in the ledger: it would be set aside again"
        return Verdict(**of, word="unknown_order", says=says, sends=False)
    number = state.check_numbers.get(event.attempt)
    if number != event.check_number:
        return Verdict(**of, word="stale", says=f"check {event.check_number} is over (now {number}): nothing is asked")
    return Verdict(**of, word="handled", says=f"check {event.check_number} of attempt {event.attempt} is asked")
