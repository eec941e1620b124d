"""What went wrong, as the caller reads it: problem details (RFC 9457) for programs, a page for people."""

import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.enums import MediaType
from litestar.exceptions import HTTPException, NotAuthorizedException, ValidationException
from litestar.handlers.base import BaseRouteHandler
from litestar.response import Redirect, Template

from orderwatch.dashboard.html import context
from streams.errors import AppError, BrokerUnavailable, EventError, OrderNotFound, StoreUnavailable

_FIELD = re.compile(r"Object (missing required|contains unknown) field `([^`]*)`")
#: How Litestar says it; with the URL, which is not for everybody's eyes.
_MISSING = re.compile(r"Missing required \w+ parameter '([^']+)'")

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
#: Paths that programs speak to; every other one is for people.
MACHINES = ("/api", "/hooks", "/health", "/metrics")
RETRY_AFTER_S = 5

_Request = Request[Any, Any, Any]


class Wrong(msgspec.Struct, frozen=True):
    """One field of the request, and what was expected there."""

    field: str
    message: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error. ``detail`` is one line for a person; ``errors`` name the fields that are wrong."""

    title: str
    status: int
    detail: str
    errors: list[Wrong] = []


class Refused(HTTPException):
    """A request that cannot be granted; ``fields`` says what is wrong with which field."""

    def __init__(self, status: int, detail: str, **fields: str) -> None:
        super().__init__(detail=detail, status_code=status, extra=dict(fields))


@contextmanager
def unsure(advice: str) -> Iterator[None]:
    """From here on a failure does not mean that nothing was done: it says so, and what to do then."""
    try:
        yield
    except (StoreUnavailable, BrokerUnavailable) as error:
        raise HTTPException(
            detail=f"{_who(error)} does not answer; it may have been done nevertheless: {advice}",
            status_code=503,
            headers={"retry-after": str(RETRY_AFTER_S)},
        ) from None


def _who(error: Exception) -> str:
    return "the database" if isinstance(error, StoreUnavailable) else "the broker"


def answer(request: _Request, error: Exception) -> Response[Any]:
    """The response to any exception that a request ended with."""
    handler = request.scope.get("route_handler")
    problem, headers = _told(error, handler)
    if problem.status >= 500 and not isinstance(error, AppError | HTTPException):
        log.error("a request to %s failed: %s", handler, _place_of(error))
    if request.url.path.startswith(MACHINES):
        return Response(problem, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)
    if isinstance(error, NotAuthorizedException):
        return Redirect("/login", query_params={"next": request.url.path}, status_code=303)
    shown = context(request, problem=problem)
    return Template("error.html", context=shown, status_code=problem.status, headers=headers, media_type=MediaType.HTML)


def _told(error: Exception, handler: BaseRouteHandler | None) -> tuple[Problem, dict[str, str]]:
    if isinstance(error, StoreUnavailable | BrokerUnavailable):
        return _problem(503, f"{_who(error)} does not answer; nothing was done"), {"retry-after": str(RETRY_AFTER_S)}
    if isinstance(error, OrderNotFound):
        return _problem(404, str(error)), {}
    if isinstance(error, EventError):
        return _of_event(error), {}
    if isinstance(error, HTTPException) and (missing := _MISSING.match(error.detail)):
        wrong = [Wrong(missing[1], "missing; it is required")]
        return _problem(400, f"{missing[1]}: missing; it is required", wrong), {}
    if isinstance(error, ValidationException):
        wrong = [_wrong(item, handler) for item in error.extra or () if isinstance(item, dict)]
        detail = "; ".join(f"{item.field}: {item.message}" for item in wrong)
        return _problem(error.status_code, detail or error.detail, wrong), {}
    if isinstance(error, HTTPException):
        extra = error.extra if isinstance(error.extra, dict) else {}
        wrong = [Wrong(name, str(text)) for name, text in extra.items()]
        return _problem(error.status_code, error.detail, wrong), dict(error.headers or {})
    if isinstance(error, UnicodeDecodeError):  # Litestar lets it through in a form; found by fuzzing
        return _problem(400, "the body is not UTF-8"), {}
    return _problem(500, "something went wrong here; the log of the dashboard says where"), {}


def _of_event(error: EventError) -> Problem:
    """``orderwatch.order.created.v1: quantity: Expected ...`` names the field in the middle."""
    _, _, line = str(error).partition(": ")
    field, _, message = line.partition(": ")
    return _problem(400, line, [Wrong(field, message)] if message else [])


def _problem(status: int, detail: str, errors: list[Wrong] | None = None) -> Problem:
    return Problem(HTTPStatus(status).phrase, status, detail, errors or [])


def _wrong(item: dict[str, Any], handler: BaseRouteHandler | None) -> Wrong:
    """Names the field as the caller wrote it, not the argument that it is here."""
    name, *path = str(item.get("key", "data")).split(".")
    argument = handler.parsed_fn_signature.parameters.get(name) if handler is not None else None
    name = getattr(argument and argument.kwarg_definition, "name", None) or name
    path = path if name == "data" else [name, *path]
    message = str(item.get("message", ""))
    found = _FIELD.match(message)
    if found:
        path.append(found[2])
        message = "missing; it is required" if found[1] == "missing required" else "unknown; it is not a field here"
    return Wrong(".".join(path) or "body", message)


def _place_of(error: Exception) -> str:
    """Type and lines of code; never the text, which may hold what the request held."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return f"{type(error).__name__} at " + ", ".join(f"{frame.filename}:{frame.lineno}" for frame in frames)
