"""A server that answers with exactly the bytes, or exactly the misbehaviour, a test asks for. Counts requests.

Part of the conformance kit; nothing in the product imports it.
"""

import asyncio
import contextlib
import gzip
from collections.abc import Awaitable, Callable

Answer = Callable[["RawServer", bytes, asyncio.StreamWriter], Awaitable[None]]


def http(body: bytes | str = b"", status: int = 200, *headers: str) -> bytes:
    """A whole HTTP answer; without a Content-Type header the server declares no charset, as PHP shops do."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join((*lines, "", "")).encode() + content


def say(answer: bytes) -> Answer:
    """Write these bytes; the connection stays open."""

    async def write(server: "RawServer", request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return write


def say_and_hang_up(answer: bytes) -> Answer:
    """Write these bytes, then close the connection."""

    async def write(server: "RawServer", request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    return write


async def hang_up(server: "RawServer", request: bytes, writer: asyncio.StreamWriter) -> None:
    """Read the whole request and close the connection without a byte."""
    writer.close()


async def reset(server: "RawServer", request: bytes, writer: asyncio.StreamWriter) -> None:
    """Read the whole request and reset the connection."""
    writer.transport.abort()


async def silence(server: "RawServer", request: bytes, writer: asyncio.StreamWriter) -> None:
    """Read the whole request and never answer."""
    await server.closing.wait()


async def drip(server: "RawServer", request: bytes, writer: asyncio.StreamWriter) -> None:
    """Announce a body and send it a byte at a time, for longer than anybody waits."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not server.closing.is_set():
        writer.write(b"x")
        await writer.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.closing.wait(), 0.02)


async def echo(server: "RawServer", request: bytes, writer: asyncio.StreamWriter) -> None:
    """An error page that repeats the request, as careless servers do."""
    page = b"<html><body>404 for " + request.replace(b"<", b"&lt;") + b"</body></html>"
    await say(http(page, 200))(server, request, writer)


def redirect(location: str = "/elsewhere") -> Answer:
    return say(http(b"", 302, f"Location: {location}"))


def gzip_bomb(megabytes: int = 64) -> Answer:
    """A small body that unpacks to ``megabytes``."""
    return say(http(gzip.compress(bytes(megabytes * 1024 * 1024)), 200, "Content-Encoding: gzip"))


def truncated(body: bytes) -> Answer:
    """Promise one byte more than there is, then close."""
    return say_and_hang_up(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) + 1}\r\n\r\n".encode() + body)


class RawServer:
    """Answers the n-th request with the n-th answer; the last answer repeats. Use as an async context manager.

    ``requests`` holds every request received whole, body included.
    """

    def __init__(self, *answers: Answer) -> None:
        self._answers = answers
        self.requests: list[bytes] = []
        self.closing = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.base_url = ""

    async def __aenter__(self) -> "RawServer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.closing.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while not writer.is_closing():
                request = await _request(reader)
                self.requests.append(request)
                answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
                await answer(self, request, writer)
        writer.close()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await writer.wait_closed()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return head + await reader.readexactly(int(value))
    return head


async def refused_url() -> str:
    """The URL of a port nobody listens on."""
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return f"http://127.0.0.1:{port}"
