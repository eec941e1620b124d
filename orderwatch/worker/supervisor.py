"""Starts worker processes and waits for them: what ``orderwatch worker`` becomes when everything is prepared.

Run as a script it takes the place of the process that prepared (a sixth of its memory), so it imports nothing of ours.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

ROOM = Path(".orderwatch")
_PAUSE_S = 1.0
_PR_SET_PDEATHSIG = 1


def keep(ports: Sequence[int], environ: Mapping[str, str], again_on: int) -> int:
    """Run one worker process per web port until all have ended; 1 when one of them failed.

    A process that ends with the status ``again_on`` found itself stuck and is started again.
    """
    with _Asked() as asked:
        children = [_start(environ, number, port) for number, port in enumerate(ports)]
        asked.forward_to(children)
        return _until_ended(children, asked, again_on, lambda number: _start(environ, number, ports[number]))


def become(ports: Sequence[int], environ: Mapping[str, str], again_on: int) -> NoReturn:
    """``keep`` as the same process (its id stays) without what it has in memory."""
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-I", "-S", __file__, str(again_on), *map(str, ports)]
    os.execve(command[0], command, environ)  # noqa: S606 - the command is ours


class _Asked:
    """SIGTERM and SIGINT, handed on to the worker processes; a terminal's Ctrl-C reaches only us."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._before: dict[int, object] = {}

    def forward_to(self, children: list["subprocess.Popen[bytes]"]) -> None:
        """From now on; a signal that came meanwhile is handed on at once."""
        self._children = children
        if self.signal is not None:
            self._send(self.signal)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._send(number)

    def _send(self, number: int) -> None:
        for child in self._children:
            if child.poll() is None:
                child.send_signal(number)

    def __enter__(self) -> "_Asked":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def _start(environ: Mapping[str, str], number: int, port: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "faust", "-A", "streams.app", "worker", "-l", "info", "--web-port", str(port)]
    # Each process needs a data directory of its own; Faust makes the last part of the path only.
    ROOM.mkdir(exist_ok=True)
    own = {"ORDERWATCH_DATADIR": str(ROOM / f"faust-{number}"), "ORDERWATCH_WORKER_PORT": str(port)}
    return subprocess.Popen(  # noqa: S603 - the command is ours
        command, env={**environ, **own}, start_new_session=True, preexec_fn=_die_with_us()
    )


def _die_with_us() -> Callable[[], None] | None:
    """Linux only: a worker is asked to stop when this process is killed."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _until_ended(
    children: list["subprocess.Popen[bytes]"],
    asked: _Asked,
    again_on: int,
    start: Callable[[int], "subprocess.Popen[bytes]"],
) -> int:
    """Wait for every process. One that found itself stuck is started again; one that fails otherwise is told about and
    not restarted: the others take its partitions over."""
    failed = False
    left = dict(enumerate(children))
    while left:
        for number, child in list(left.items()):
            try:
                status = child.wait(timeout=_PAUSE_S / len(left))
            except subprocess.TimeoutExpired:
                continue
            if status == again_on and asked.signal is None:
                _warn(f"worker process {number} (pid {child.pid}) made no progress and ended itself; starting it again")
                left[number] = children[number] = start(number)
                asked.forward_to(children)
                continue
            del left[number]
            wanted = asked.signal is not None and status in (0, -asked.signal, 128 + asked.signal)
            if status != 0 and not wanted:
                failed = True
                _warn(f"worker process {number} (pid {child.pid}) ended with status {status}; {len(left)} left")
    return 1 if failed else 0


def _warn(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(keep([int(port) for port in sys.argv[2:]], os.environ, int(sys.argv[1])))
