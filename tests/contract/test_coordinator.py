"""What a group's coordinator may answer while brokers restart, said by a server that says nothing else."""

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from orderwatch.localservers.bundled import HOST

FETCH, OFFSETS, METADATA, OFFSET_FETCH, FIND_COORDINATOR, VERSIONS = 1, 2, 3, 9, 10, 18
#: The newest version of each request that this server knows.
KNOWN = {FETCH: 4, OFFSETS: 1, METADATA: 1, OFFSET_FETCH: 2, FIND_COORDINATOR: 0, VERSIONS: 0}
LOADING, NOT_COORDINATOR, UNSUPPORTED = 14, 16, 35


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


class Moved:
    """One broker with one topic, ``t``; its answer to every question for a group's offsets is ``error``."""

    def __init__(self, error: int) -> None:
        self._error = error
        self._listening = socket.create_server((HOST, 0))
        self.port = self._listening.getsockname()[1]
        self.asked = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as requests:  # it may hang up in the middle
            while size := requests.read(4):
                request = requests.read(*struct.unpack(">i", size))
                key, version, number = struct.unpack_from(">hhi", request)
                answer = struct.pack(">i", number) + self._answer(key, version)
                connection.sendall(struct.pack(">i", len(answer)) + answer)

    def _answer(self, key: int, version: int) -> bytes:
        if key == VERSIONS:
            versions = b"".join(struct.pack(">hhh", known, 0, newest) for known, newest in KNOWN.items())
            return struct.pack(">hi", UNSUPPORTED if version else 0, len(KNOWN)) + versions
        if key == METADATA:
            broker = struct.pack(">i", 1) + text(HOST) + struct.pack(">ih", self.port, -1)
            partition = struct.pack(">hiiiiii", 0, 0, 1, 1, 1, 1, 1)
            topic = struct.pack(">h", 0) + text("t") + struct.pack(">bi", 0, 1) + partition
            return struct.pack(">i", 1) + broker + struct.pack(">ii", 1, 1) + topic
        if key == FIND_COORDINATOR:
            return struct.pack(">hi", 0, 1) + text(HOST) + struct.pack(">i", self.port)
        assert key == OFFSET_FETCH, f"asked for {key}"
        self.asked += 1
        return struct.pack(">ih", 0, self._error)


@pytest.fixture(params=[NOT_COORDINATOR, LOADING], ids=["not the coordinator", "still loading"])
def moved(request: pytest.FixtureRequest) -> Iterator[Moved]:
    server = Moved(request.param)
    yield server
    server.close()


ASK = """
import sys
from streams.config.loader import KafkaConfig
from streams.errors import BrokerUnavailable
from streams.kafka.producer import group_lag
try:
    print(group_lag(KafkaConfig(bootstrap_servers=sys.argv[1]), "g", ["t"], timeout_s=2))
except BrokerUnavailable as error:
    print(error)
"""


def test_a_coordinator_that_has_moved_ends_no_process(moved: Moved) -> None:
    """In a process of its own: librdkafka's AdminClient ends it with SIGSEGV here."""
    asked = subprocess.run(
        [sys.executable, "-c", ASK, f"{HOST}:{moved.port}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert asked.returncode == 0, asked
    assert asked.stdout.startswith("kafka: lag of group g: ")
    assert moved.asked, "the coordinator was never asked"
