"""The pages of the two queues that people work through: attention and dead letters."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from litestar import Request, get
from litestar.params import FromPath, QueryParameter
from litestar.response import Template

from agents.diagnosis.redaction import readable
from db.reads import lists, queries
from db.reads.lists import AttentionRow, Group, LetterRow, Page
from orderwatch.dashboard.auth import Who
from orderwatch.dashboard.context import Inside
from orderwatch.dashboard.i18n import plain
from orderwatch.dashboard.pages.orders import page
from orderwatch.dashboard.problems import Refused
from streams import topics

_Request = Request[Any, Any, Any]
_Place = Annotated[str | None, QueryParameter(max_length=400)]

#: Rows of a group beside other groups, and on a page of its own; the latter is also how many one act may take.
_FEW, _MANY = 10, 100


@get("/attention", needs="orders:read", include_in_schema=False)
async def attention(
    request: _Request,
    parts: Inside,
    who: Who,
    code: Annotated[str | None, QueryParameter(max_length=64)] = None,
    after: _Place = None,
) -> Template:
    """Open attentions by reason, the reason with the oldest first; with ``code`` one reason alone."""
    groups = await parts.ask(lists.attention_groups, parts.engine, who.tenant_id)

    async def rows(reason: str, limit: int) -> Page[AttentionRow]:
        return await parts.ask(lists.attention, parts.engine, who.tenant_id, code=reason, after=after, limit=limit)

    return await page("attention.html", request, parts, **await _grouped(groups, rows, code))


@get("/dead-letters", needs="orders:read", include_in_schema=False)
async def letters(
    request: _Request,
    parts: Inside,
    who: Who,
    reason: Annotated[str | None, QueryParameter(max_length=64)] = None,
    after: _Place = None,
) -> Template:
    """Dead letters by reason; with ``reason`` one alone."""
    groups = await parts.ask(lists.letter_groups, parts.engine, who.tenant_id)

    async def rows(only: str, limit: int) -> Page[LetterRow]:
        return await parts.ask(lists.letters, parts.engine, who.tenant_id, reason=only, after=after, limit=limit)

    return await page("letters.html", request, parts, **await _grouped(groups, rows, reason))


async def _grouped(
    groups: list[Group], rows: Callable[[str, int], Awaitable[Page[Any]]], only: str | None
) -> dict[str, Any]:
    """Each group with its first rows, or one group with a whole page of them and where the next one starts."""
    shown, next_, now = [], None, None
    for group in groups:
        if only in (None, group.reason):
            try:
                found = await rows(group.reason, _MANY if only else _FEW)
            except ValueError:
                raise Refused(400, "after is not a place in this list") from None
            shown.append((group, found.rows))
            next_, now = found.next if only else None, found.now
    return {"groups": shown, "next": next_, "now": now, "only": only}


@get("/dead-letters/{letter:int}", needs="orders:read", include_in_schema=False)
async def one_letter(request: _Request, parts: Inside, who: Who, letter: FromPath[int]) -> Template:
    """One dead letter with the event as it came, the customer's fields hidden."""
    found = await parts.ask(queries.dead_letter, parts.engine, letter) if letter < 2**63 else None
    if found is None or not who.sees(found["tenant_id"]):
        raise Refused(404, f"dead letter {letter} is not known")
    now = await parts.ask(queries.database_now, parts.engine)
    said = readable(bytes(found["value"] or b""))
    value = said if isinstance(said, str) else "\n".join(f"{name}: {plain(word)}" for name, word in dict(said).items())  # type: ignore[call-overload]
    key = bytes(found["key"] or b"").decode("utf-8", "replace")
    ours = found["topic"] == parts.config.kafka.topic_prefix + topics.CREATED
    return await page(
        "letter.html",
        request,
        parts,
        letter=found,
        value=value,
        key=key,
        now=now,
        fixable=ours and "orders:write" in who.scopes,
    )


routes: list[Any] = [attention, letters, one_letter]
