"""Log-in for the pages, with the same tokens: a sealed cookie that names the token and ends with it."""

from typing import Annotated, Any

import msgspec
from litestar import MediaType, Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.params import QueryParameter, URLEncodedBody
from litestar.response import Redirect, Template

from db import tokens
from web.access import COOKIE, PUBLIC, sealed_session
from web.parts import Inside


class LogIn(msgspec.Struct):
    """The form of the page."""

    token: str
    next: str = "/"


@get("/login", needs=PUBLIC, include_in_schema=False, sync_to_thread=False)
def ask(next_: Annotated[str, QueryParameter(name="next")] = "/") -> Template:
    return _form(next_)


@post("/login", needs=PUBLIC, include_in_schema=False)
async def log_in(parts: Inside, data: URLEncodedBody[LogIn]
                 ) -> Response[Any]:
    token = await parts.ask(tokens.matching, parts.engine, data.token.strip())
    if token is None:
        return _form(data.next, "This token is not known here, was revoked, or is over.", status=401)
    value, lasts_s = sealed_session(parts, token.id)
    cookie = Cookie(COOKIE, value=value, max_age=lasts_s, httponly=True, samesite="lax", secure=parts.config.web.https)
    return Redirect(_here(data.next), status_code=303, cookies=[cookie])


@post("/logout", needs=PUBLIC, include_in_schema=False)
async def log_out(request: Request[Any, Any, Any]) -> Response[Any]:
    return Redirect("/login", status_code=303, cookies=[Cookie(COOKIE, value="", max_age=0)])


def _form(goes_to: str, wrong: str = "", *, status: int = 200) -> Template:
    return Template("login.html", context={"next": _here(goes_to), "wrong": wrong}, status_code=status,
                    media_type=MediaType.HTML)  # fmt: skip


def _here(path: str) -> str:
    """A path of ours, whatever was asked for: never another site."""
    fine = path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable()
    return path if fine else "/"


routes: list[Any] = [ask, log_in, log_out]
