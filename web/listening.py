"""``GET /api/live``: server-sent events of what the caller's token may see."""

from collections.abc import AsyncIterator
from typing import Any

from litestar.openapi.datastructures import ResponseSpec

from db import tokens
from web.access import Principal, Who
from web.api import read
from web.live import EventStream
from web.parts import Inside, Parts
from web.problems import Refused

#: A comment after so much silence keeps proxies from closing the connection, and looks whether the token still holds.
HEARTBEAT_S = 15.0
MOST_LISTENERS = 500

_MEDIA_TYPE = "text/event-stream"
_STREAM = ResponseSpec(str, generate_examples=False, media_type=_MEDIA_TYPE, description="until either side ends it")


@read("/api/live", summary="Server-sent events: `status`, `attention`, and first of all `open`",
      media_type=_MEDIA_TYPE, answers={200: _STREAM})  # fmt: skip
async def follow_live(parts: Inside, who: Who) -> EventStream:
    if parts.live.listening() >= MOST_LISTENERS:
        raise Refused(503, f"{MOST_LISTENERS} listeners are connected already")
    return EventStream(_events(parts, who))


async def _events(parts: Parts, who: Principal) -> AsyncIterator[bytes]:
    """Nothing that was told before is told again: whoever connects, also with Last-Event-ID, reads the state first."""
    with parts.live.listener(who.sees) as listener:
        yield b"retry: 2000\nevent: open\ndata: {}\n\n"
        while not listener.lost:
            news = await listener.get(HEARTBEAT_S)
            if news is not None:
                yield news
            elif await parts.ask(tokens.by_id, parts.engine, who.token_id) is None:
                return
            else:
                yield b": still here\n\n"


routes: list[Any] = [follow_live]
