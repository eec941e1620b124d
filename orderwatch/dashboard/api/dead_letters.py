"""Dead letters as JSON: what was set aside and why, what sending it again would do and cost, and sending it again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import uuid4

import msgspec
from litestar import Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter, QueryParameter

from agents.diagnosis import replay_preview as judging
from agents.diagnosis.dry_run import dry_routing
from agents.diagnosis.redaction import readable
from agents.diagnosis.replay_preview import Verdict
from agents.domain.dead_letters import corrected, plain
from db.reads import lists, queries
from db.reads.lists import Group, LetterRow, Page
from db.reads.queries import Row
from orderwatch.dashboard.api.commands import known_of_queue, on_queue
from orderwatch.dashboard.api.endpoints import (
    PLAIN,
    After,
    CameFrom,
    Id,
    Limit,
    OfTenant,
    Reason,
    Strict,
    absent,
    act,
    page,
    read,
)
from orderwatch.dashboard.api.orders import Cost
from orderwatch.dashboard.auth import Principal, Who
from orderwatch.dashboard.context import Inside, Parts
from orderwatch.dashboard.problems import Refused
from orderwatch.dashboard.stored_config import followed
from streams.errors import EventError
from streams.events import Event
from streams.order import CommandAction

#: Letters of one request.
MOST_AT_ONCE = 200
_LARGEST_ID = 2**53 - 1  # what every JSON reader can hold

Number = Annotated[int, msgspec.Meta(ge=1, le=_LARGEST_ID)]
InPath = Annotated[int, PathParameter(ge=1, le=_LARGEST_ID)]
WithReason = Annotated[str | None, QueryParameter(name="reason", max_length=200, description="only with this reason")]


class OneLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A letter with the event as it came, the customer's fields hidden; what is no JSON object is only measured."""

    letter: LetterRow
    key: str | None
    headers: dict[str, str]
    value: Any
    replayed_at: datetime | None
    replayed_by: str | None


class Replay(Strict, frozen=True, kw_only=True):
    """Which letters go to their topic again, and why: those with these ids, or those with one reason (``group``).

    ``fix`` corrects one order of ``orders.created``: its fields replace those that came, null takes one away; it needs
    ``orders:write`` too. ``dry_run`` sends nothing; without it a reason is needed.
    """

    ids: Annotated[list[Number], msgspec.Meta(max_length=MOST_AT_ONCE)] = msgspec.field(default_factory=list)
    group: Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=PLAIN)] | None = None
    fix: dict[str, Any] | None = None
    reason: Reason | None = None
    dry_run: bool = False
    command_id: Id | None = None


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes, or would become, of one letter; not ``sends``: it would only be set aside again, so it is not
    sent. ``cost`` is what a new order is expected to cost."""

    id: int
    topic: str
    word: str
    said: str
    sends: bool
    tenant_id: str | None
    order_id: str | None
    integration_id: str | None
    cost: Cost | None


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """``cost_not_known`` counts purchases without a price; ``more``: the group has letters for another request.

    ``done`` and ``said`` are null until a worker decided the command, and of a dry run, which is none. ``letters`` are
    as they were judged before it; a ``command_id`` that was used before shows its first decision alone.
    """

    dry_run: bool
    command_id: str | None = None
    done: bool | None = None
    said: str | None = None
    letters: list[Judged]
    sent: int
    not_sent: int
    expected_cost: dict[str, Decimal]
    cost_not_known: int
    more: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    """Letters that were chosen and judged."""

    verdicts: Sequence[Verdict] = ()
    more: bool = False

    @property
    def going(self) -> list[int]:
        """Those that are worth sending."""
        return [verdict.letter for verdict in self.verdicts if verdict.sends]


@read("/api/dead-letters", summary="Events that could not be used, oldest first")
async def list_letters(
    parts: Inside, who: Who, tenant_: OfTenant = None, reason: WithReason = None, after: After = None, limit: Limit = 50
) -> Page[LetterRow]:
    tenant, wanted = who.tenant(tenant_), reason and reason.replace("\x00", "\ufffd")
    return await page(
        lambda at: parts.ask(lists.letters, parts.engine, tenant, reason=wanted, after=at, limit=limit), after
    )


@read("/api/dead-letters/groups", summary="How many were set aside, by reason")
async def group_letters(parts: Inside, who: Who, tenant_: OfTenant = None) -> list[Group]:
    return await parts.ask(lists.letter_groups, parts.engine, who.tenant(tenant_))


@read("/api/dead-letters/{letter:int}", summary="One of them, with the event as it came", errors=(404,))
async def get_letter(parts: Inside, who: Who, letter: InPath) -> OneLetter:
    found = await parts.ask(queries.dead_letter, parts.engine, letter)
    if found is None or not who.sees(found["tenant_id"]):
        raise absent(f"dead letter {letter}")
    key = plain(found["key"])
    return OneLetter(
        letter=msgspec.convert(found, LetterRow),
        key=None if key is None else key.decode("utf-8", "replace"),
        headers={name: str(text) for name, text in found["headers"].items()},
        value=readable(plain(found["value"]) or b""),
        replayed_at=found["replayed_at"],
        replayed_by=found["replayed_by"],
    )


@act(
    "/api/dead-letters/replay",
    needs="actions",
    errors=(404, 409),
    status_code=200,
    answers={202: ResponseSpec(Replayed, generate_examples=False, description="not decided yet")},
    summary="Send dead letters again, as they came or corrected, or only say what would happen",
)
async def replay_letters(
    parts: Inside, who: Who, data: JSONBody[Replay], came_from: CameFrom = None
) -> Response[Replayed]:
    if not data.dry_run and data.reason is None:
        raise Refused(409, "a reason is needed for what is sent", reason="expected words, unless it is a dry run")
    if data.fix is not None and "orders:write" not in who.scopes:
        raise Refused(403, "this token has not the scope orders:write, which a correction needs")
    number = data.command_id or uuid4().hex
    told, plan = None, _Plan()
    if not data.dry_run:
        told = await known_of_queue(parts, who.tenant_id, number, CommandAction.REPLAY)
    if told is None:
        plan = await parts.ask(_planned, parts, who, data)
        if not data.dry_run and plan.going:
            fix = {} if data.fix is None else {"fix": data.fix}
            told = await on_queue(
                parts,
                who.name,
                who.tenant_id,
                number,
                CommandAction.REPLAY,
                data.reason or "",
                came_from,
                letters=plan.going,
                **fix,
            )
    costs, unknown = judging.cost(plan.verdicts)
    answer = Replayed(
        dry_run=data.dry_run,
        command_id=None if told is None else number,
        done=None if told is None else told.done,
        said=None if told is None else told.said,
        letters=[_shown(verdict) for verdict in plan.verdicts],
        sent=len((told and told.moved) or ()),
        not_sent=len(plan.verdicts) - len(plan.going),
        expected_cost=costs,
        cost_not_known=unknown,
        more=plan.more,
    )
    return Response(answer, status_code=202 if told is not None and told.done is None else 200)


def _planned(parts: Parts, who: Principal, asked: Replay) -> _Plan:
    """Raises ``Refused`` for a letter that the caller does not see, and for a correction that is none."""
    prefix = parts.config.kafka.topic_prefix
    rows = [_seen(parts, who, number) for number in dict.fromkeys(asked.ids)]
    for row in rows:
        if row["replayed_at"] is not None and not asked.dry_run:
            raise Refused(409, f"dead letter {row['id']} was replayed already", ids="expected letters not replayed yet")
    more = False
    if asked.group is not None:
        found = queries.dead_letters(parts.engine, reason=asked.group, tenant_id=who.tenant_id, limit=MOST_AT_ONCE + 1)
        more, rows = len(found) > MOST_AT_ONCE, [*rows, *found[:MOST_AT_ONCE]]
    fixed: dict[int, Event] = {}
    if asked.fix is not None:
        if len(rows) != 1:
            raise Refused(409, "a correction is for one letter", ids="expected one id with fix")
        fixed[rows[0]["id"]] = _corrected(rows[0], prefix, asked.fix)
    verdicts = judging.judged(parts.engine, dry_routing(followed(parts)), rows, prefix, fixed)
    for verdict in verdicts:
        if verdict.sends and not who.sees(verdict.tenant_id):
            raise Refused(403, f"this token is of tenant {who.tenant_id}", fix="expected an event of that tenant")
    return _Plan(verdicts, more)


def _seen(parts: Parts, who: Principal, number: int) -> Row:
    row = queries.dead_letter(parts.engine, number)
    if row is None or not who.sees(row["tenant_id"]):
        raise absent(f"dead letter {number}")
    return row


def _corrected(row: Row, prefix: str, fix: dict[str, Any]) -> Event:
    try:
        return corrected(row, prefix, fix)
    except EventError as error:
        line = str(error).partition(": ")[2]
        raise Refused(400, f"the correction cannot be used: {line}", fix=line) from None


def _shown(verdict: Verdict) -> Judged:
    same = ("topic", "word", "sends", "tenant_id", "order_id", "integration_id")
    cost = None if verdict.cost is None else Cost(verdict.cost, verdict.currency)
    return Judged(id=verdict.letter, said=verdict.says, cost=cost, **{name: getattr(verdict, name) for name in same})


routes: list[Any] = [list_letters, group_letters, get_letter, replay_letters]
