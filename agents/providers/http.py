"""The one place where providers meet aiohttp: one request per call, and every failure sorted into two buckets.

``NotSent``: DNS failure, connection refused, TLS handshake failure, a request that could not be built, an ended lease.
``OutcomeUnknown``: everything else, timeouts while connecting included.
No error raised here carries a URL, a query or an aiohttp exception, not even as its hidden context.
"""

import asyncio
import errno
import select
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote
from weakref import WeakSet

import aiohttp
from aiohttp.client_reqrep import ClientRequest, ClientResponse
from aiohttp.connector import Connection
from yarl import URL

from agents.providers.base import MAX_BODY, Reply
from streams.errors import LeaseOver, NotSent, OutcomeUnknown, ProviderError

#: Seconds an idle connection is kept: below the five after which Apache closes one, because a request that meets a
#: closing connection has an unknown outcome.
KEEPALIVE_S = 4.0

_NEVER_CONNECTED = (
    aiohttp.ClientConnectorDNSError,
    aiohttp.ClientConnectorSSLError,
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ServerFingerprintMismatch,
)
_NEVER_BUILT = (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)

_not_after: ContextVar[float | None] = ContextVar("orderwatch_not_after", default=None)


def instant_s() -> float:
    """Seconds of a clock that never steps back and goes on while the host is suspended, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@contextmanager
def sending_until(deadline: float) -> Iterator[None]:
    """Inside this block no request leaves after ``deadline`` (an instant of ``instant_s()``): it is ``NotSent``.

    For a process that was frozen and wakes up after its lease ended.
    """
    token = _not_after.set(deadline)
    try:
        yield
    finally:
        _not_after.reset(token)


def sort_error(error: Exception) -> ProviderError:
    """The bucket of a foreign error, as a new error without its text (aiohttp's texts hold URLs)."""
    name = type(error).__name__
    if isinstance(error, aiohttp.RedirectClientError):
        return OutcomeUnknown(f"the provider answered with a redirect that cannot be read ({name})")
    if isinstance(error, _NEVER_BUILT):
        return NotSent(f"the request could not be built ({name}); expected a valid http(s) base_url")
    if isinstance(error, _NEVER_CONNECTED):
        return NotSent(f"no connection to the provider ({name})")
    if isinstance(error, aiohttp.ClientConnectorError) and error.errno == errno.ECONNREFUSED:
        return NotSent("the provider refused the connection")
    if isinstance(error, TimeoutError):
        return OutcomeUnknown("no answer from the provider in time")
    return OutcomeUnknown(f"the connection to the provider failed ({name})")


async def _never_resent(request: ClientRequest, handler: aiohttp.ClientHandlerType) -> ClientResponse:
    """Middleware that turns connection failures into our own errors.

    aiohttp sends a GET a second time, silently, when the server hangs up without an answer (aio-libs/aiohttp#10790),
    and providers place orders by GET. Its retry looks for aiohttp's own errors and stands above the middlewares: an
    error raised here passes it by.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
        failure = sort_error(error)
    raise failure  # outside the except block, so that the foreign error is not its context


class _LeasedRequest(ClientRequest):
    """Looks at the lease when the connection stands and the next step writes: as late as Python can."""

    async def send(self, conn: Connection) -> ClientResponse:
        deadline = _not_after.get()
        if deadline is not None and instant_s() > deadline:
            raise LeaseOver("the lease of the attempt ended before the request left")
        if not _is_clean(conn):
            conn.close()
            raise _StaleConnection("the kept connection to the provider was not clean; nothing was sent on it")
        return await super().send(conn)


class _StaleConnection(NotSent):
    """Bytes that nobody asked for lie on the connection, or it is closed: what comes next is not our answer."""


#: Connections that have carried a request. A fresh one may bring TLS session tickets before anything was asked.
_used: WeakSet[Any] = WeakSet()


def _is_clean(conn: Connection) -> bool:
    """Whether the next bytes on this connection can only be the answer to the next request."""
    protocol = conn.protocol
    if protocol is None or not protocol.is_connected() or protocol.should_close:
        return False
    if protocol not in _used:
        _used.add(protocol)
        return True
    raw = conn.transport.get_extra_info("socket") if conn.transport is not None else None
    if raw is None or raw.fileno() < 0:
        return False
    unread = select.poll()  # what the kernel has and the event loop has not read yet
    unread.register(raw.fileno(), select.POLLIN)
    return not unread.poll(0)


class HttpClient:
    """HTTP of one integration; implements ``base.Http``.

    ``timeout_s`` is the hard limit of a whole call, body included; ``connect_timeout_s`` of TCP and TLS together.
    Belongs to the event loop of its first call; ``close`` before that loop ends.
    """

    def __init__(self, base_url: str, *, connect_timeout_s: float = 5.0, timeout_s: float = 20.0) -> None:
        self._base = _parts(base_url)
        self._connect_timeout_s = connect_timeout_s
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        max_body: int = MAX_BODY,
    ) -> Reply:
        """Send exactly one request and read its answer whole.

        ``path`` is percent-encoded by the caller, ``query`` is encoded here: UTF-8, in the order given, so equal
        arguments are equal bytes. A body above ``max_body`` bytes, before or after decompression, is OutcomeUnknown.
        """
        url = self._url(path, query)
        sent = _request_headers(headers or {})
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        return await self._once(method, url, sent, max_body)
                    except _StaleConnection:
                        continue  # nothing left, and the connection is gone: the next one is another
        except TimeoutError:
            failure: ProviderError = OutcomeUnknown(f"no whole answer from the provider within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = sort_error(error)
        except zlib.error:
            failure = OutcomeUnknown("the answer's compression is broken")
        raise failure

    async def _once(self, method: str, url: URL, headers: Mapping[str, str], max_body: int) -> Reply:
        async with self._open().request(method, url, headers=headers, allow_redirects=False) as response:
            body = await _read(response, max_body)
            return Reply(response.status, body, response.charset, _retry_after_s(response))

    async def close(self) -> None:
        """Close every connection; later calls are NotSent."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _url(self, path: str, query: Mapping[str, str] | None) -> URL:
        encoded = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in (query or {}).items())
        if self._base is None:
            raise NotSent("the request could not be built; expected a valid http(s) base_url")
        scheme, authority, root = self._base
        return URL.build(scheme=scheme, authority=authority, path=root + path, query_string=encoded, encoded=True)

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise NotSent("the connection to the provider is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),  # the lane limits, not the pool
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
                middlewares=(_never_resent,),
                request_class=_LeasedRequest,
                cookie_jar=aiohttp.DummyCookieJar(),  # a cookie would make the repeat of a request another request
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


def _parts(base_url: str) -> tuple[str, str, str] | None:
    """Scheme, authority and path, taken apart once; None where there is nothing to connect to."""
    try:
        url = URL(base_url.rstrip("/"), encoded=True)
        usable = url.scheme in ("http", "https") and url.raw_host and url.port
    except ValueError:
        return None
    return (url.scheme, url.raw_authority, url.raw_path.rstrip("/")) if usable else None


@lru_cache(4096)
def _quoted(text: str) -> str:
    """Most of a query is the same from call to call."""
    return quote(text, safe="", errors="replace")


def _request_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
            raise NotSent(f"header {name} holds a control character; expected one line of text")
    return {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "orderwatch", **headers}


class DryRunHttp(HttpClient):
    """Builds every request and sends none: what would have left is kept in ``built``, whoever asked hears NotSent."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url)
        self.built: list[tuple[str, str, dict[str, str]]] = []

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        max_body: int = MAX_BODY,
    ) -> Reply:
        self.built.append((method, str(self._url(path, query)), _request_headers(headers or {})))
        raise NotSent("a rehearsal sends nothing")


async def _read(response: ClientResponse, limit: int) -> bytes:
    body = await _received(response, limit)
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding in ("", "identity", "none", "utf-8"):  # the last two are no codings, and what servers put there
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise OutcomeUnknown("the answer is compressed in a way that was not asked for")
    plain = b""
    bare = coding == "deflate" and body[:1] and body[0] & 0x0F != 8  # raw deflate, as some servers send it
    while body:  # a gzip body may have several members
        inflate = zlib.decompressobj(wbits=-15 if bare else 47)  # gzip or zlib by its header
        plain += inflate.decompress(body, limit + 1 - len(plain))  # never more, whatever a bomb unpacks to
        if len(plain) > limit:
            raise OutcomeUnknown(f"the answer is longer than {limit} bytes")
        if not inflate.eof:
            raise OutcomeUnknown("the compressed answer is truncated")
        body = inflate.unused_data
    return plain


async def _received(response: ClientResponse, limit: int) -> bytes:
    promised = response.content_length
    if promised is not None and promised <= limit and "Transfer-Encoding" not in response.headers:
        return await response.read()  # more than it promised is not read
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise OutcomeUnknown(f"the answer is longer than {limit} bytes")
    return bytes(body)


def _retry_after_s(response: ClientResponse) -> float | None:
    """Seconds asked for by ``Retry-After``, at most a day; None when absent or unreadable."""
    if not (text := response.headers.get("Retry-After", "").strip()):
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), 86_400.0)
    try:
        at = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(at - time.time(), 0.0), 86_400.0)
