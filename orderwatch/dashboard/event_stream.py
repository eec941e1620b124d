"""News as it happens: two threads follow the topics, every listener has a short queue, and who is slow is let go.

Status changes come through the consumer that downstream services use, in a group of this process alone, from now on.
PINs and what a player is called are never part of it.
"""

import asyncio
import logging
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import anyio
import msgspec
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Send

from streams import events, topics
from streams.clients import StatusChanges
from streams.config.loader import KafkaConfig
from streams.errors import BrokerUnavailable, EventError
from streams.events import Attention, StatusChanged
from streams.kafka.producer import follow

log = logging.getLogger(__name__)

#: Events that wait for one listener; one more, and it is let go.
MOST_WAITING = 1000
#: A listener that takes nothing for this long is let go.
SEND_TIMEOUT_S = 20.0
_AGAIN_S = 2.0
_ASK_TIMEOUT_S = 1.0
_REMEMBER = 20_000

#: Fields of a status change that everybody with ``orders:read`` may see.
_SHOWN = (
    "tenant_id",
    "order_id",
    "version",
    "attempt",
    "integration_id",
    "status",
    "external_status",
    "previous_external_status",
    "reason",
    "cost",
    "checks",
    "occurred_at",
)
_encoder = msgspec.json.Encoder(decimal_format="string")


class News(NamedTuple):
    """One event as it is sent: of which tenant (None: of none), and its text."""

    tenant_id: str | None
    text: bytes


class Listener:
    """The queue of one open connection."""

    def __init__(self, sees: Callable[[str | None], bool], token_id: str = "") -> None:
        self.sees = sees
        self.token_id = token_id
        self.lost = False
        self._queue: asyncio.Queue[News] = asyncio.Queue(MOST_WAITING)

    def put(self, news: News) -> None:
        if not self.sees(news.tenant_id):
            return
        try:
            self._queue.put_nowait(news)
        except asyncio.QueueFull:
            self.lost = True

    def end(self) -> None:
        """Nothing more will come."""
        self.lost = True
        with suppress(asyncio.QueueFull):
            self._queue.put_nowait(News(None, b""))

    async def get(self, wait_s: float) -> bytes | None:
        """Everything that waits, or None when nothing came for ``wait_s`` seconds."""
        try:
            texts = [(await asyncio.wait_for(self._queue.get(), wait_s)).text]
        except TimeoutError:
            return None
        while not self._queue.empty():
            texts.append(self._queue.get_nowait().text)
        return b"".join(texts)


class Live:
    """``start`` and ``stop`` with the app. Without a broker nothing comes, and it goes on when there is one."""

    def __init__(self, kafka: KafkaConfig) -> None:
        self._kafka = kafka
        self._group = f"{kafka.topic_prefix}orderwatch-dashboard-{secrets.token_hex(6)}"
        self._listeners: set[Listener] = set()
        self._stopping = threading.Event()
        self._changes: StatusChanges | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Events since the start, by kind.
        self.heard = {"status": 0, "attention": 0}
        self._threads = [
            threading.Thread(target=self._again_and_again, args=(read,), name=f"live-{read.__name__}", daemon=True)
            for read in (self._read_changes, self._read_attention)
        ]

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    def let_go(self) -> None:
        """End every open connection; callable from a signal handler."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._let_go)

    def _let_go(self) -> None:
        for listener in tuple(self._listeners):
            listener.end()

    async def stop(self) -> None:
        """Returns when both threads have ended and every listener was told."""
        self._stopping.set()
        if self._changes is not None:
            self._changes.stop()
        self._let_go()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def listening(self, token_id: str | None = None) -> int:
        """How many connections are open, of one token or of all."""
        return sum(token_id in (None, listener.token_id) for listener in self._listeners)

    @contextmanager
    def listener(self, sees: Callable[[str | None], bool], token_id: str) -> Iterator[Listener]:
        """A queue of what is told from now on, of the tenants that it ``sees``."""
        listener = Listener(sees, token_id)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def _again_and_again(self, read: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            try:
                read()
            except BrokerUnavailable as error:
                log.warning("live: %s", error)
                self._stopping.wait(_AGAIN_S)

    def _read_changes(self) -> None:
        with StatusChanges(self._kafka, self._group, from_start=False, remember=_REMEMBER) as changes:
            self._changes = changes
            if self._stopping.is_set():
                return
            for change in changes:
                self._tell("status", change.event.tenant_id, _shown(change.event))

    def _read_attention(self) -> None:
        for record in follow(self._kafka, topics.ATTENTION, timeout_s=_ASK_TIMEOUT_S, stopping=self._stopping.is_set):
            with suppress(EventError):
                raised = events.decode(Attention, record.value)
                self._tell("attention", raised.tenant_id, msgspec.to_builtins(raised))

    def _tell(self, kind: str, tenant_id: str | None, said: Any) -> None:
        self.heard[kind] += 1
        if self._listeners and self._loop is not None and not self._loop.is_closed():
            news = News(tenant_id, b"event: %s\ndata: %s\n\n" % (kind.encode(), _encoder.encode(said)))
            with suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._deliver, news)

    def _deliver(self, news: News) -> None:
        for listener in tuple(self._listeners):
            listener.put(news)


def _shown(event: StatusChanged) -> dict[str, Any]:
    return {name: value for name in _SHOWN if (value := getattr(event, name)) is not None}


class EventStream(ASGIResponse):
    """Server-sent events. Ends when the other side leaves, takes nothing for too long, or ``content`` ends."""

    _should_set_content_length = False

    def __init__(self, content: AsyncIterator[bytes]) -> None:
        super().__init__(media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._content = content

    async def send_body(self, send: Send, receive: Receive) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._end_with, receive, group.cancel_scope)
            async for chunk in self._content:
                with anyio.move_on_after(SEND_TIMEOUT_S) as sending:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if sending.cancelled_caught:
                    break
            else:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            group.cancel_scope.cancel()

    @staticmethod
    async def _end_with(receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()
