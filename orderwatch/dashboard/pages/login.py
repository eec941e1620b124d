"""Log-in for the pages, with the same tokens: a sealed cookie that names the token and ends with it."""

from typing import Annotated, Any

import msgspec
from litestar import MediaType, Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.params import QueryParameter, URLEncodedBody
from litestar.response import Redirect, Template

from db.control import api_tokens
from orderwatch.dashboard.auth import COOKIE, PUBLIC, sealed_session
from orderwatch.dashboard.context import Inside
from orderwatch.dashboard.html import context, own_path
from orderwatch.dashboard.pages.labels import N_

_Request = Request[Any, Any, Any]


class LogIn(msgspec.Struct):
    """The form of the page."""

    token: str
    next: str = "/"


@get("/login", needs=PUBLIC, include_in_schema=False, sync_to_thread=False)
def ask(request: _Request, next_: Annotated[str, QueryParameter(name="next")] = "/") -> Template:
    return _form(request, next_)


@post("/login", needs=PUBLIC, include_in_schema=False)
async def log_in(request: _Request, parts: Inside, data: URLEncodedBody[LogIn]) -> Response[Any]:
    token = await parts.ask(api_tokens.matching, parts.engine, data.token.strip())
    if token is None:
        return _form(request, data.next, N_("This token is not known here, was revoked, or is over."), status=401)
    value, lasts_s = sealed_session(parts, token.id)
    cookie = Cookie(COOKIE, value=value, max_age=lasts_s, httponly=True, samesite="lax", secure=parts.config.web.https)
    return Redirect(own_path(data.next), status_code=303, cookies=[cookie])


@post("/logout", needs=PUBLIC, include_in_schema=False)
async def log_out(request: _Request) -> Response[Any]:
    return Redirect("/login", status_code=303, cookies=[Cookie(COOKIE, value="", max_age=0)])


def _form(request: _Request, goes_to: str, wrong: str = "", *, status: int = 200) -> Template:
    shown = context(request, next=own_path(goes_to), wrong=wrong)
    return Template("login.html", context=shown, status_code=status, media_type=MediaType.HTML)


routes: list[Any] = [ask, log_in, log_out]
