"""Putting an answer on the wire, or failing to: the part of a fault that a client can see."""

import asyncio
import socket
import struct
import zlib
from http import HTTPStatus

from aiohttp import web

from orderwatch.simulator.faults import Fault, FaultKind
from orderwatch.simulator.wire import Answer

PAGE = (
    "<!DOCTYPE html><html><head><title>403 Forbidden</title></head>"
    "<body><h1>403 Forbidden</h1><p>Erişim engellendi.</p></body></html>"
).encode()
WARNING = b"<br />\n<b>Warning</b>:  Undefined variable $bakiye in <b>servis.php</b> on line <b>42</b><br />\n"
HUGE_BYTES = 10 * 1024 * 1024
BOMB_BYTES = 100 * 1024 * 1024

SILENT = frozenset({FaultKind.TIMEOUT_AFTER, FaultKind.TIMEOUT_BEFORE})
HANG_UP = frozenset({FaultKind.HANG_UP_AFTER, FaultKind.HANG_UP_BEFORE})
TWO_ANSWERS = frozenset({FaultKind.SECOND_ANSWER, FaultKind.LATE_408})
RESET = frozenset({FaultKind.RESET_AFTER, FaultKind.RESET_BEFORE})


async def deliver(request: web.BaseRequest, answer: Answer, fault: Fault | None) -> web.StreamResponse:
    """Send the answer as the fault says. Silence lasts until the client or the simulator goes away and cancels it."""
    if fault is None:
        return whole(answer)
    kind = fault.kind
    if kind in SILENT:
        await asyncio.Event().wait()
    if kind in HANG_UP:
        return hang_up(request)
    if kind in RESET:
        return reset(request)
    if kind is FaultKind.TRUNCATED:
        return await in_pieces(request, answer, [answer.body[: len(answer.body) // 2]], 0)
    if kind is FaultKind.DRIP:
        return await in_pieces(request, answer, [bytes([byte]) for byte in answer.body], fault.ms / 1000)
    if kind in TWO_ANSWERS:
        return TwoAnswers(request, answer, second_of(answer, fault))
    if kind is FaultKind.SLOW:
        await asyncio.sleep(fault.ms / 1000)
    response = whole(distorted(request, answer, fault))
    if fault.retry_after_s is not None:
        response.headers["Retry-After"] = str(fault.retry_after_s)
    return response


def distorted(request: web.BaseRequest, answer: Answer, fault: Fault) -> Answer:
    """The answer a client gets to read instead of the true one."""
    match fault.kind:
        case FaultKind.ERROR_AFTER | FaultKind.ERROR_BEFORE:
            said = "Service Unavailable" if fault.text is None else fault.text
            return Answer(said.encode(), answer.label, fault.http_status)
        case FaultKind.SAY:
            return Answer((fault.text or "").encode(), answer.label, fault.http_status, answer.content_type)
        case FaultKind.FIREWALL:
            return Answer(PAGE, answer.label, fault.http_status, "text/html; charset=utf-8")
        case FaultKind.HTML:
            return Answer(PAGE, answer.label)
        case FaultKind.EMPTY:
            return Answer(b"", answer.label, content_type=answer.content_type)
        case FaultKind.WRONG_CHARSET:
            body = answer.body.decode("utf-8", "replace").encode("windows-1254", "replace")
            return Answer(body, answer.label, answer.status, answer.content_type.partition(";")[0])
        case FaultKind.PHP_WARNING:
            return Answer(WARNING + answer.body, answer.label, answer.status, "text/html")
        case FaultKind.REDIRECT:
            return Answer(b"", answer.label, 302, headers={"Location": request.path_qs})
        case FaultKind.HUGE:
            return Answer(answer.body + b" " * HUGE_BYTES, answer.label, answer.status, answer.content_type)
        case FaultKind.GZIP_BOMB:
            bomb = compressed(answer.body)
            return Answer(bomb, answer.label, answer.status, answer.content_type, {"Content-Encoding": "gzip"})
    return answer


def compressed(body: bytes) -> bytes:
    """The body and 100 MB of spaces as one gzip stream of about 100 kB."""
    packer = zlib.compressobj(9, wbits=31)
    pieces = [packer.compress(body)]
    block = b" " * (1024 * 1024)
    pieces += [packer.compress(block) for _ in range(BOMB_BYTES // len(block))]
    return b"".join([*pieces, packer.flush()])


def whole(answer: Answer) -> web.Response:
    """An ordinary answer; the content type is sent as it is, with or without a charset."""
    return web.Response(
        body=answer.body, status=answer.status, headers={"Content-Type": answer.content_type, **answer.headers}
    )


async def in_pieces(
    request: web.BaseRequest, answer: Answer, pieces: list[bytes], pause_s: float
) -> web.StreamResponse:
    """Promise the whole length, send the pieces, and hang up when they were not all of it."""
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
    response.content_length = len(answer.body)
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
        await asyncio.sleep(pause_s)
    if sum(map(len, pieces)) < len(answer.body):
        hang_up(request)
    return response


class TwoAnswers(web.Response):
    """Two whole answers in one write; the connection stays open. Nobody asked for the second one."""

    def __init__(self, request: web.BaseRequest, first: Answer, second: Answer) -> None:
        super().__init__()
        self._bytes = raw(first) + raw(second)
        self._transport = request.transport

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write both; one write, so that a client that reads the first has the second in its socket."""
        if self._transport is not None:
            self._transport.write(self._bytes)

    async def write_eof(self, data: bytes = b"") -> None:
        """All is written."""


def second_of(answer: Answer, fault: Fault) -> Answer:
    """What follows the answer."""
    if fault.kind is FaultKind.LATE_408:
        return Answer(b"", "408", 408)
    return answer if fault.text is None else Answer(fault.text.encode(), "", content_type=answer.content_type)


def raw(answer: Answer) -> bytes:
    """The bytes of a whole answer on a connection that is kept."""
    reason = HTTPStatus(answer.status).phrase
    headers = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body)), **answer.headers}
    lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + answer.body


def hang_up(request: web.BaseRequest) -> web.Response:
    """Close the connection; the response returned goes nowhere."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def reset(request: web.BaseRequest) -> web.Response:
    """Close the connection with a TCP reset: bytes on their way are lost, too."""
    transport = request.transport
    if transport is not None:
        raw: socket.socket = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()
