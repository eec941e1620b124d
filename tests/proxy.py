"""A TCP proxy on loopback whose network can be broken: refused, silent, lossy or slow, and whole again.

It runs in a thread with an event loop of its own, so that tests without a loop can use it too.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

import uvloop

HOST = "127.0.0.1"
_CHUNK = 1 << 16


class Proxy:
    """Carries every connection to ``127.0.0.1:target``. Port 0 takes a free one; it stays the same when broken.

    ``cut``: connections are reset, new ones are refused. ``hold``: bytes wait, both ways, and go on after ``heal``, as
    TCP does it on a network that comes back soon. ``drop``: bytes vanish and nobody is told; ``heal`` resets the
    connections that lost some. ``delay``: every chunk is late by that much.
    """

    def __init__(self, target: int = 0, port: int = 0) -> None:
        self.target = target
        self.port = port
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._going = asyncio.Event()
        self._going.set()
        self._dropping = False
        self._delay_s = 0.0
        self._carried: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        #: Connections that were accepted so far.
        self.accepted = 0

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def stop(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Reset what is connected and refuse what comes."""
        self._run(self._close())

    def hold(self) -> None:
        """Bytes wait until ``heal``."""
        self._run(self._set(going=False))

    def drop(self) -> None:
        """Bytes vanish until ``heal``."""
        self._run(self._set(dropping=True))

    def delay(self, seconds: float) -> None:
        """From now on every chunk is late."""
        self._run(self._set(delay_s=seconds))

    def heal(self) -> None:
        """Everything as on the first day; connections that lost bytes are reset."""
        self._run(self._heal())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _set(self, *, going: bool = True, dropping: bool = False, delay_s: float = 0.0) -> None:
        self._dropping, self._delay_s = dropping, delay_s
        if going:
            self._going.set()
        else:
            self._going.clear()

    async def _heal(self) -> None:
        if self._dropping:
            self._reset()
        await self._set()
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = self._reset()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _reset(self) -> list["asyncio.Task[None]"]:
        tasks = list(self._carried)
        for task, writers in self._carried.items():
            for writer in writers:
                writer.transport.abort()
            task.cancel()
        return tasks

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.accepted += 1
        writers = self._carried[task] = [writer]
        try:
            await self._going.wait()
            far_reader, far_writer = await asyncio.open_connection(HOST, self.target)
            writers.append(far_writer)
            for each in writers:
                each.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        except (OSError, RuntimeError, asyncio.CancelledError):
            pass  # both ends are told below; RuntimeError is uvloop's word for a connection that is closed
        finally:
            del self._carried[task]
            for each in writers:
                each.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            await self._going.wait()
            if not self._dropping:
                writer.write(chunk)
                await writer.drain()
        await self._going.wait()
        with contextlib.suppress(OSError):
            writer.write_eof()
