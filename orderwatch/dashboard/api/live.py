"""``GET /api/live``: server-sent events of what the caller's token may see."""

import time
from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec
from litestar.openapi.datastructures import ResponseSpec

from db.control import api_tokens
from orderwatch.dashboard.api.endpoints import read
from orderwatch.dashboard.auth import Principal, Who
from orderwatch.dashboard.context import Inside, Parts
from orderwatch.dashboard.event_stream import EventStream
from orderwatch.dashboard.problems import Refused
from streams.errors import StoreUnavailable

#: A comment after so much silence keeps proxies from closing the connection.
HEARTBEAT_S = 15.0
#: How often a stream looks whether its token still holds, whatever is told meanwhile.
LOOK_S = 2.0
#: For so long a stream goes on while the database does not say whether its token holds.
UNSURE_S = 15.0
MOST_LISTENERS = 500
MOST_PER_TOKEN = 50


class Told(msgspec.Struct, omit_defaults=True):
    """One event of the stream; ``data`` is JSON. ``retry``: milliseconds before whoever was let go connects again."""

    event: Literal["open", "status", "attention"]
    data: str
    retry: int | None = None


_MEDIA_TYPE = "text/event-stream"
_STREAM = ResponseSpec(Told, generate_examples=False, media_type=_MEDIA_TYPE, description="until either side ends it")


@read(
    "/api/live",
    summary="Server-sent events: `status`, `attention`, and first of all `open`",
    media_type=_MEDIA_TYPE,
    answers={200: _STREAM},
)
async def follow_live(parts: Inside, who: Who) -> EventStream:
    if parts.live.listening() >= MOST_LISTENERS:
        raise Refused(503, f"{MOST_LISTENERS} listeners are connected already")
    if parts.live.listening(who.token_id) >= MOST_PER_TOKEN:
        raise Refused(429, f"{MOST_PER_TOKEN} listeners of this token are connected already")
    return EventStream(_events(parts, who))


async def _events(parts: Parts, who: Principal) -> AsyncIterator[bytes]:
    """Nothing that was told before is told again: whoever connects, also with Last-Event-ID, reads the state first."""
    with parts.live.listener(who.sees, who.token_id) as listener:
        yield b"retry: 2000\nevent: open\ndata: {}\n\n"
        standing, said_at = _Standing(parts, who), time.monotonic()
        while not listener.lost:
            news = await listener.get(min(standing.due_in_s(), HEARTBEAT_S))
            if not await standing.holds():
                return
            if news is not None or time.monotonic() >= said_at + HEARTBEAT_S:
                yield b": still here\n\n" if news is None else news
                said_at = time.monotonic()


class _Standing:
    """Whether the caller of a stream may still hear it: asked of the database every ``LOOK_S``."""

    def __init__(self, parts: Parts, who: Principal) -> None:
        self._parts, self._who = parts, who
        self._known_at = self._looked_at = time.monotonic()

    def due_in_s(self) -> float:
        look_in_s = self._looked_at + LOOK_S - time.monotonic()
        ends_in_s = look_in_s if self._who.until is None else self._who.until - time.time()
        return max(min(look_in_s, ends_in_s), 0.0)

    async def holds(self) -> bool:
        """False when the token was revoked, the log-in is over, or nobody could say for ``UNSURE_S``."""
        if self._who.until is not None and time.time() >= self._who.until:
            return False
        if time.monotonic() < self._looked_at + LOOK_S:
            return True
        try:
            found = await self._parts.ask(api_tokens.by_id, self._parts.engine, self._who.token_id)
        except StoreUnavailable:
            self._looked_at = time.monotonic()
            return self._looked_at < self._known_at + UNSURE_S
        self._known_at = self._looked_at = time.monotonic()
        return found is not None


routes: list[Any] = [follow_live]
