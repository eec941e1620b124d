"""The server under the application: one process, one socket that is open already."""

import socket
from types import FrameType

import uvicorn

from orderwatch.dashboard.app import create
from orderwatch.dashboard.context import Parts

#: After a signal, for requests that are being answered.
GRACE_S = 5


class Server(uvicorn.Server):
    """Serves ``parts`` until ``should_exit`` or a signal; open event streams are ended first."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.live = parts, parts.live
        super().__init__(
            uvicorn.Config(
                create(parts),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="on",
                timeout_graceful_shutdown=GRACE_S,
            )
        )

    def let_go(self) -> None:
        """End soon; callable from other threads."""
        self.live.let_go()
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.live.let_go()
        super().handle_exit(sig, frame)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises ``OSError``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=512)


def address(host: str, listening: socket.socket) -> str:
    """The URL of a server on this socket."""
    port = listening.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
