"""The proxy breaks connections in the ways that the chaos tests rely on."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.proxy import HOST, Proxy
from tests.waiting import wait_until


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    server = socket.create_server((HOST, 0))

    def answer(wire: socket.socket) -> None:
        with wire:
            try:
                while data := wire.recv(1000):
                    wire.sendall(data)
            except ConnectionError:
                return

    def serve() -> None:
        while True:
            try:
                wire, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(wire,)).start()

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(echo) as running:
        yield running


def talk(wire: socket.socket, data: bytes = b"hello") -> bytes:
    wire.sendall(data)
    return wire.recv(1000)


def dial(proxy: Proxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), 5)


def test_bytes_go_both_ways_and_an_end_reaches_the_other_side(proxy: Proxy) -> None:
    with dial(proxy) as wire:
        assert talk(wire) == b"hello"
        wire.shutdown(socket.SHUT_WR)
        assert wire.recv(1000) == b""


def test_a_cut_resets_what_is_connected_and_refuses_what_comes(proxy: Proxy) -> None:
    with dial(proxy) as wire:
        assert talk(wire) == b"hello"
        proxy.cut()
        with pytest.raises(ConnectionError):
            while talk(wire) != b"":
                pass
            raise ConnectionResetError
    with pytest.raises(ConnectionRefusedError):
        dial(proxy)
    proxy.heal()
    with dial(proxy) as wire:
        assert talk(wire) == b"hello"


def test_held_bytes_arrive_after_it_is_healed(proxy: Proxy) -> None:
    with dial(proxy) as wire:
        assert talk(wire) == b"hello"
        proxy.hold()
        wire.settimeout(0.2)
        with pytest.raises(TimeoutError):
            talk(wire, b"late")
        proxy.heal()
        wire.settimeout(5)
        assert wire.recv(1000) == b"late"


def test_dropped_bytes_never_arrive_and_their_connection_does_not_survive(proxy: Proxy) -> None:
    with dial(proxy) as wire:
        assert talk(wire) == b"hello"
        proxy.drop()
        wire.settimeout(0.2)
        with pytest.raises(TimeoutError):
            talk(wire, b"gone")
        proxy.heal()
        wire.settimeout(5)
        with pytest.raises(ConnectionError):
            if wire.recv(1000) == b"":
                raise ConnectionResetError
    with dial(proxy) as wire:
        assert talk(wire) == b"hello"


def test_delayed_bytes_are_late_and_complete(proxy: Proxy) -> None:
    proxy.delay(0.3)
    with dial(proxy) as wire:
        wire.settimeout(0.1)
        with pytest.raises(TimeoutError):
            talk(wire)
        wire.settimeout(5)
        assert wire.recv(1000) == b"hello"


def test_a_target_that_is_down_ends_the_connection(proxy: Proxy) -> None:
    proxy.target = 1
    with dial(proxy) as wire:
        wait_until(lambda: proxy.accepted == 1)
        with pytest.raises(ConnectionError):
            if wire.recv(1000) == b"":
                raise ConnectionResetError
