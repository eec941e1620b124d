"""What the JSON routes share: the problems they document, lists page by page, and words of the request."""

import base64
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter, PathParameter, QueryParameter

from db.reads.lists import Page
from orderwatch.dashboard.problems import MEDIA_TYPE, Problem, Refused

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

_ID = r"^[A-Za-z0-9._:-]{1,64}$"
#: JSON can say a NUL character, PostgreSQL and Kafka's readers cannot hold one.
PLAIN = r"^[^\u0000]*$"

Id = Annotated[str, msgspec.Meta(pattern=_ID, description="1-64 of [A-Za-z0-9._:-]")]
WORDS_LENGTH = 4000

Words = Annotated[str, msgspec.Meta(max_length=WORDS_LENGTH, pattern=PLAIN)]
Reason = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=4000,
        pattern=r"^[^\u0000]*[^\s\u0000][^\u0000]*$",
        description="why, in words; kept for ever",
    ),
]
Money = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,15}(\.[0-9]{1,10})?$", description="a decimal, like 12.50")]
Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}$", description="ISO currency")]


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request: a field that is not known here is a mistake of the caller, and is named."""


InPath = Annotated[str, PathParameter(pattern=_ID, description="1-64 of [A-Za-z0-9._:-]")]
#: In the address of a page, where whatever is not known is simply not there.
PlainInPath = Annotated[str, PathParameter(pattern=PLAIN)]
OfTenant = Annotated[
    str | None, QueryParameter(name="tenant", pattern=_ID, description="only this tenant; default: all the token sees")
]
After = Annotated[
    str | None, QueryParameter(name="after", max_length=400, description="`next` of the page before, as it was")
]
Limit = Annotated[int, QueryParameter(name="limit", ge=1, le=200, description="rows of a page")]

#: W3C trace context that an event goes on with. Of every HTTP API, so the description of this one does not list it.
CameFrom = Annotated[str | None, HeaderParameter(name="traceparent", include_in_schema=False)]

_WORDS = {
    400: "the request is not as it must be; `errors` names the fields",
    401: "no token, or one that is unknown, revoked or over",
    403: "the token has not the scope, or is of another tenant",
    404: "there is no such thing, or not for this token",
    409: "it contradicts what is there already",
    429: "too many requests of this token",
    503: "database or broker do not answer; `detail` says whether something may have been done",
}


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """The errors of a route, for its documentation."""
    return {
        status: ResponseSpec(Problem, generate_examples=False, description=_WORDS[status], media_type=MEDIA_TYPE)
        for status in sorted({400, 401, 403, 429, 503, *statuses})
    }


def read(
    path: str,
    *,
    summary: str,
    errors: tuple[int, ...] = (),
    needs: str = "orders:read",
    answers: Mapping[int, ResponseSpec] = MappingProxyType({}),
    **more: Any,
) -> Callable[[_F], Any]:
    """A GET route of the API; ``answers`` are documented beside what the handler returns."""
    documented = problems(*errors) | dict(answers)
    return get(path, needs=needs, summary=summary, responses=documented, tags=_tags(path), **more)


def act(
    path: str,
    *,
    summary: str,
    needs: str,
    errors: tuple[int, ...] = (),
    answers: Mapping[int, ResponseSpec] = MappingProxyType({}),
    **more: Any,
) -> Callable[[_F], Any]:
    """A POST route of the API."""
    documented = problems(*errors) | dict(answers)
    return post(path, needs=needs, summary=summary, responses=documented, tags=_tags(path), **more)


def _tags(path: str) -> list[str]:
    return [path.split("/")[2] if path.startswith("/api/") else path.split("/")[1]]


async def page(question: Callable[[str | None], Awaitable[Page[_T]]], after: str | None) -> Page[_T]:
    """One page, asked for with the place where the one before ended; places look opaque outside."""
    try:
        place = None if after is None else base64.b64decode(after.encode(), b"-_", validate=True).decode()
        found = await question(place)
    except ValueError:
        raise Refused(400, "after is not a place in this list", after="expected `next` of the page before") from None
    return Page(found.rows, found.next and base64.urlsafe_b64encode(found.next.encode()).decode(), found.now)


def absent(what: str) -> Refused:
    """404."""
    return Refused(404, f"{what} does not exist, or not for this token")
