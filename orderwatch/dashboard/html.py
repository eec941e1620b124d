"""What every page needs to be drawn: the reader's language and theme, who is in, where we are."""

from datetime import UTC, datetime
from typing import Any

from litestar import Request

from orderwatch.dashboard.auth import Principal
from orderwatch.dashboard.i18n import COOKIE, LANGUAGES, chosen, tongue

THEME = "orderwatch_theme"


def context(request: Request[Any, Any, Any], **more: Any) -> dict[str, Any]:
    """The names that ``base.html`` uses, and ``more``."""
    who: Principal | None = request.scope.get("user")
    language = chosen(request.cookies.get(COOKIE), request.headers.get("accept-language", ""))
    theme = request.cookies.get(THEME)
    return {
        "t": tongue(language),
        "languages": LANGUAGES,
        "theme": theme if theme in ("light", "dark") else None,
        "who": who,
        "may": lambda scope: who is not None and scope in who.scopes,
        "here": request.url.path,
        "query": request.url.query,
        "moment": datetime.now(UTC).isoformat(timespec="seconds"),
        "queues": None,
        **more,
    }


def own_path(path: str) -> str:
    """A path of ours, whatever was asked for: never another site."""
    fine = path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable()
    return path if fine else "/"
