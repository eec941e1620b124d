"""What a person asks for, as an event on the path of the automation: the ledger decides, a row holds the answer."""

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import uuid4

import anyio
import msgspec
from litestar import Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody

from db.control import commands
from db.reads import queries
from db.rows import CommandRecord
from orderwatch.dashboard.api.endpoints import CameFrom, Id, InPath, OfTenant, Reason, Strict, Words, absent, act, read
from orderwatch.dashboard.auth import Who
from orderwatch.dashboard.context import Inside, Parts
from orderwatch.dashboard.problems import Refused, unsure
from streams import events, topics
from streams.errors import StoreUnavailable
from streams.events import Command
from streams.kafka.producer import message
from streams.order import CommandAction

#: How long a request waits for the answer of a worker.
WAIT_S = 5.0
_POLL_S = 0.1


class Asked(Strict, frozen=True, kw_only=True):
    """An act on an order. ``attempt`` 0 is the order itself; ``outcome`` goes with resolve, ``integration_id`` with
    send_to. The same ``command_id`` is carried out once; left out, one is made."""

    action: Literal["check", "resolve", "place_again", "send_to", "cancel"]
    reason: Reason
    attempt: Annotated[int, msgspec.Meta(ge=0, le=10_000)] | None = None
    outcome: Literal["accepted", "completed", "failed", "not_sent"] | None = None
    integration_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\u0000]*$")] | None = None
    evidence: Words | None = None
    command_id: Id | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A command and what became of it; ``done`` and ``said`` are null until a worker decided. An act on attentions or
    dead letters is about no order, and one of a token of all tenants about no tenant."""

    command_id: str
    tenant_id: str | None
    order_id: str | None
    action: CommandAction
    by: str
    reason: str
    issued_at: datetime
    done: bool | None
    said: str | None
    decided_at: datetime | None


@act(
    "/api/orders/{tenant:str}/{order:str}/commands",
    needs="actions",
    errors=(409,),
    status_code=200,
    answers={202: ResponseSpec(Decision, generate_examples=False, description="not decided yet")},
    summary="Act on an order: 200 with the decision, 202 while it is not decided yet",
)
async def act_on_order(
    parts: Inside, who: Who, tenant: InPath, order: InPath, data: JSONBody[Asked], came_from: CameFrom = None
) -> Response[Decision]:
    number = data.command_id or uuid4().hex
    known = await parts.ask(commands.result, parts.engine, tenant, number)
    if known is None:
        said = {name: value for name, value in msgspec.to_builtins(data).items() if value is not None}
        said |= {"tenant_id": tenant, "order_id": order}
        known = await _issued(parts, who.name, number, said, came_from)
    if (known.order_id, known.action) != (order, data.action):
        raise Refused(409, "this command_id stands for another command", command_id="expected a new one for each act")
    return Response(_shown(known), status_code=202 if known.done is None else 200)


async def on_queue(
    parts: Parts,
    by: str,
    tenant: str | None,
    number: str,
    action: CommandAction,
    reason: str,
    came_from: str | None,
    **words: Any,
) -> CommandRecord:
    """An act on attentions or dead letters, of one tenant or of all: what became of it while a request may wait."""
    said = {"action": action.value, "reason": reason, **words} | ({"tenant_id": tenant} if tenant else {})
    return await _issued(parts, by, number, said, came_from)


async def known_of_queue(parts: Parts, tenant: str | None, number: str, action: CommandAction) -> CommandRecord | None:
    """What this id was used for already. Raises ``Refused`` when that was something else."""
    known = await parts.ask(commands.result, parts.engine, tenant or "", number)
    if known is not None and known.action != action:
        raise Refused(409, "this command_id stands for another command", command_id="expected a new one for each act")
    return known


async def _issued(parts: Parts, by: str, number: str, said: dict[str, Any], came_from: str | None) -> CommandRecord:
    now = await parts.ask(queries.database_now, parts.engine)
    own = {"command_id": number, "by": by, "issued_at": events.rfc3339(now)}
    event = events.decode(Command, msgspec.json.encode(said | own))
    tenant, order = event.tenant, event.order_id or ""
    with unsure(f"ask again with command_id {number}"):
        await parts.send(message(event, topics.COMMAND, at=event.issued_at), order, tenant, came_from)
    return await _answer(parts, tenant, number) or _not_yet(event)


async def _answer(parts: Parts, tenant: str, number: str) -> CommandRecord | None:
    """The command once it is decided, or as it stands when the time is over; holds no connection meanwhile.

    It was sent: a database that does not answer leaves it undecided here, and is no error.
    """
    give_up_at = anyio.current_time() + WAIT_S
    found: CommandRecord | None = None
    while True:
        with suppress(StoreUnavailable):
            found = await parts.ask(commands.result, parts.engine, tenant, number)
        if (found is not None and found.done is not None) or anyio.current_time() >= give_up_at:
            return found
        await anyio.sleep(_POLL_S)


def _not_yet(event: Command) -> CommandRecord:
    return CommandRecord(
        command_id=event.command_id,
        tenant_id=event.tenant,
        order_id=event.order_id,
        action=event.action,
        by=event.by,
        reason=event.reason,
        issued_at=event.issued_at,
    )


def _shown(found: CommandRecord) -> Decision:
    shown = {name: getattr(found, name) for name in Decision.__struct_fields__}
    return Decision(**shown | {"tenant_id": found.tenant_id or None})


@read("/api/commands/{number:str}", summary="A command and what became of it", errors=(404,))
async def get_command(parts: Inside, who: Who, number: InPath, tenant_: OfTenant = None) -> Decision:
    """An id is its tenant's own; a token of all tenants that names none gets the newest with this id."""
    found = await parts.ask(commands.result, parts.engine, who.tenant(tenant_), number)
    if found is None:
        raise absent(f"command {number}")
    return _shown(found)


routes: list[Any] = [act_on_order, get_command]
