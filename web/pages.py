"""The pages for people."""

from typing import Any

from litestar import get
from litestar.response import Template

from web.access import Who


@get("/", needs="orders:read", include_in_schema=False, sync_to_thread=False)
def overview(who: Who) -> Template:
    return Template("overview.html", context={"who": who})


routes: list[Any] = [overview]
