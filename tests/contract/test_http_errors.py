"""Every failure of an HTTP call is NotSent or OutcomeUnknown, says no secret, and costs exactly one request."""

import asyncio
import gzip
import logging
import ssl
import traceback
import tracemalloc
from collections.abc import Iterator

import aiohttp
import pytest

from agents.providers.base import MAX_BODY
from agents.providers.http import HttpClient, instant_s, sending_until, sort_error
from agents.providers.testing import raw_server as raw
from agents.providers.testing.raw_server import RawServer, http
from streams.errors import NotSent, OutcomeUnknown, ProviderError

SECRET = "s3cret/şifre"
QUERY = {"kod": "5551112233", "sifre": SECRET, "oyuncu_bilgi": "pl4yer-77"}
HEADERS = {"api-token": "t0ken-999"}
PLANTED = ("5551112233", "s3cret", "pl4yer-77", "t0ken-999")

#: aiohttp's errors that prove that nothing left; every other one of its errors, known or new, must be OutcomeUnknown.
NEVER_LEFT = {
    "ClientConnectorDNSError",
    "ClientConnectorSSLError",
    "ClientConnectorCertificateError",
    "ServerFingerprintMismatch",
    "InvalidURL",
    "InvalidUrlClientError",
    "NonHttpUrlClientError",
}
MAY_HAVE_LEFT = {
    "ClientError",
    "ClientResponseError",
    "ContentTypeError",
    "WSServerHandshakeError",
    "ClientHttpProxyError",
    "TooManyRedirects",
    "ClientConnectionError",
    "ClientConnectionResetError",
    "ClientOSError",
    "ClientConnectorError",
    "ClientProxyConnectionError",
    "UnixClientConnectorError",
    "ClientSSLError",
    "ServerConnectionError",
    "ServerDisconnectedError",
    "ServerTimeoutError",
    "ConnectionTimeoutError",
    "SocketTimeoutError",
    "ClientPayloadError",
    "UploadAbortedError",
    "InvalidUrlRedirectClientError",
    "RedirectClientError",
    "NonHttpUrlRedirectClientError",
}


def _family(error: type[Exception]) -> Iterator[type[Exception]]:
    yield error
    for child in error.__subclasses__():
        yield from _family(child)


FAMILY = sorted(set(_family(aiohttp.ClientError)), key=lambda error: error.__name__)


def test_every_error_of_aiohttp_has_been_looked_at():
    names = {error.__name__ for error in FAMILY if error.__module__.startswith("aiohttp")}
    assert names - NEVER_LEFT - MAY_HAVE_LEFT == set()


@pytest.mark.parametrize("error", FAMILY, ids=lambda error: error.__name__)
def test_an_error_of_aiohttp_falls_into_its_bucket(error):
    expected = NotSent if error.__name__ in NEVER_LEFT else OutcomeUnknown
    assert type(sort_error(error.__new__(error))) is expected


async def _failure(base_url: str, method: str = "GET", timeout_s: float = 10.0) -> ProviderError:
    client = HttpClient(base_url, connect_timeout_s=5, timeout_s=timeout_s)
    try:
        with pytest.raises(ProviderError) as caught:
            await client.fetch(method, "/servis/pin_ekle.php", query=QUERY, headers=HEADERS)
    finally:
        await client.close()
    return caught.value


def _assert_no_secret(error: ProviderError) -> None:
    printed = "".join(traceback.format_exception(error)) + str(error) + repr(error)
    assert [secret for secret in (*PLANTED, "127.0.0.1", "pin_ekle.php?") if secret in printed] == []
    assert error.__context__ is None and error.__cause__ is None  # hidden contexts are printed by some loggers


# what the server does -> seconds the client waits
MISBEHAVIOUR = {
    "hangs up": (raw.hang_up, 10.0),
    "resets": (raw.reset, 10.0),
    "is silent": (raw.silence, 0.3),
    "drips": (raw.drip, 0.3),
    "promises more than it sends": (raw.truncated(b"OK|10.12|980.88"), 10.0),
    "sends 10 MB": (raw.say(http(b"x" * 10_000_000)), 10.0),
    "sends 10 MB without saying so": (raw.say(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_000_000), 10.0),
    "sends a gzip bomb": (raw.gzip_bomb(), 10.0),
    "sends half a gzip": (raw.say(http(gzip.compress(b"OK|1|2" * 99)[:-9], 200, "Content-Encoding: gzip")), 10.0),
    "sends no gzip": (raw.say(http(b"OK|1|2", 200, "Content-Encoding: gzip")), 10.0),
    "sends another coding": (raw.say(http(b"OK|1|2", 200, "Content-Encoding: br")), 10.0),
    "does not speak HTTP": (raw.say_and_hang_up(b"\x00\x01 SSH-2.0-OpenSSH\r\n\r\n"), 10.0),
    "sends an endless header": (raw.say_and_hang_up(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000), 10.0),
    "breaks its chunks": (raw.say_and_hang_up(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), 10.0),
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("case", MISBEHAVIOUR)
async def test_after_the_request_left_every_failure_is_unknown_and_costs_one_request(case, method):
    answer, timeout_s = MISBEHAVIOUR[case]
    async with RawServer(answer) as server:
        error = await _failure(server.base_url, method, timeout_s)
        assert len(server.requests) == 1
    assert type(error) is OutcomeUnknown
    _assert_no_secret(error)


async def test_a_gzip_bomb_never_unpacks():
    bomb = raw.gzip_bomb(64)
    async with RawServer(bomb) as server:
        tracemalloc.start()
        try:
            await _failure(server.base_url)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 16 * 1024 * 1024


async def test_a_refused_connection_is_not_sent():
    error = await _failure(await raw.refused_url())
    assert type(error) is NotSent
    _assert_no_secret(error)


async def test_a_host_without_address_is_not_sent():
    error = await _failure("http://nobody.invalid")
    assert type(error) is NotSent
    _assert_no_secret(error)


async def test_a_failed_tls_handshake_is_not_sent():
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(http(b"", 400))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    error = await _failure(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    server.close()
    await server.wait_closed()
    assert type(error) is NotSent
    _assert_no_secret(error)


@pytest.mark.parametrize("base_url", ["", "ftp://127.0.0.1", "http://", "//127.0.0.1", "http://[bad", "http://a:99999"])
async def test_an_address_that_is_none_is_not_sent(base_url):
    error = await _failure(base_url)
    assert type(error) is NotSent
    _assert_no_secret(error)


async def test_a_header_with_a_line_break_is_not_sent():
    async with RawServer(raw.say(http(b"OK"))) as server:
        client = HttpClient(server.base_url)
        with pytest.raises(NotSent) as caught:
            await client.fetch("GET", "/", headers={"api-token": "t0ken-999\r\nX: 1"})
        assert "t0ken-999" not in str(caught.value)
        assert server.requests == []
        await client.close()


async def test_a_closed_client_is_not_sent():
    client = HttpClient("http://127.0.0.1:1")
    await client.close()
    with pytest.raises(NotSent):
        await client.fetch("GET", "/")


async def test_nothing_is_sent_after_the_lease():
    async with RawServer(raw.say(http(b"OK"))) as server:
        client = HttpClient(server.base_url)
        with sending_until(instant_s() + 60):
            assert (await client.fetch("GET", "/")).body == b"OK"
        with sending_until(instant_s()), pytest.raises(NotSent):
            await client.fetch("GET", "/")
        assert len(server.requests) == 1
        assert (await client.fetch("GET", "/")).body == b"OK"  # the lease is over, not the client
        await client.close()


async def test_a_lease_that_ends_while_connecting_is_looked_at_before_the_request_leaves(monkeypatch):
    async with RawServer(raw.say(http(b"OK"))) as server:
        client = HttpClient(server.base_url)
        connect = aiohttp.TCPConnector.connect

        async def slow_connect(self, *args, **kwargs):
            connection = await connect(self, *args, **kwargs)
            frozen_until = instant_s() + 0.2
            while instant_s() < frozen_until:  # a frozen process does not yield
                pass
            return connection

        monkeypatch.setattr(aiohttp.TCPConnector, "connect", slow_connect)
        with sending_until(instant_s() + 0.1), pytest.raises(NotSent):
            await client.fetch("GET", "/")
        assert server.requests == []
        await client.close()


async def test_a_redirect_is_an_answer_and_is_not_followed():
    async with RawServer(raw.redirect()) as server:
        client = HttpClient(server.base_url)
        assert (await client.fetch("GET", "/", query=QUERY)).status == 302
        assert len(server.requests) == 1
        await client.close()


async def test_the_same_arguments_are_the_same_bytes_even_after_a_cookie():
    async with RawServer(raw.say(http(b"OK", 200, "Set-Cookie: PHPSESSID=1; path=/"))) as server:
        client = HttpClient(server.base_url + "/shop/")
        for _ in range(2):
            await client.fetch("GET", "/x", query={"b": "Oyuncu Ş & + %41/ü", "a": "[1,2]"}, headers=HEADERS)
        assert server.requests[0] == server.requests[1]
        assert server.requests[0].startswith(
            b"GET /shop/x?b=Oyuncu%20%C5%9E%20%26%20%2B%20%2541%2F%C3%BC&a=%5B1%2C2%5D HTTP/1.1\r\n"
        )
        assert b"Accept-Encoding: identity" in server.requests[0]
        await client.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (http(b"x" * MAX_BODY), b"x" * MAX_BODY),
        (http(gzip.compress(b"OK|1|2"), 200, "Content-Encoding: gzip"), b"OK|1|2"),
        (http(b""), b""),
        (http(b"OK", 503), b"OK"),
    ],
    ids=["at the limit", "small gzip", "empty", "an error status"],
)
async def test_a_whole_answer_is_read(answer, expected):
    async with RawServer(raw.say(answer)) as server:
        client = HttpClient(server.base_url)
        assert (await client.fetch("GET", "/")).body == expected
        await client.close()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Retry-After: 120", 120.0),
        ("Retry-After: 99999999", 86_400.0),
        ("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Retry-After: soon", None),
        ("Retry-After: -5", None),
        ("X: 1", None),
    ],
)
async def test_retry_after_is_seconds_or_nothing(header, expected):
    async with RawServer(raw.say(http(b"", 429, header))) as server:
        client = HttpClient(server.base_url)
        assert (await client.fetch("GET", "/")).retry_after_s == expected
        await client.close()


async def test_a_declared_charset_is_told():
    async with RawServer(raw.say(http(b"", 200, "Content-Type: text/html; charset=ISO-8859-9"))) as server:
        client = HttpClient(server.base_url)
        assert (await client.fetch("GET", "/")).charset == "ISO-8859-9"
        await client.close()


async def test_no_library_logs_a_secret(caplog):
    caplog.set_level(logging.DEBUG)
    async with RawServer(raw.hang_up) as server:
        await _failure(server.base_url)
    assert [secret for secret in PLANTED if secret in caplog.text] == []


def test_openssl_errors_are_os_errors():
    """What http.py catches relies on it."""
    assert issubclass(ssl.SSLError, OSError)
