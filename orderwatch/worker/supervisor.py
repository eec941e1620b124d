"""Starts worker processes and waits for them: what ``orderwatch worker`` becomes when everything is prepared.

Run as a script it takes the place of the process that prepared (a sixth of its memory), so it imports nothing of ours.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import NoReturn

_PAUSE_S = 1.0
#: A process that ended by a failure is replaced after this pause, doubled each time up to the longest.
_REPLACE_S, _REPLACE_MOST_S = 1.0, 60.0
#: One that ran for so long begins with the shortest pause again.
_HEALTHY_S = 300.0
#: Exit status of a wrong configuration or of a server that refuses us: starting again does not help.
_REFUSED = 2
_PR_SET_PDEATHSIG = 1


def keep(ports: Sequence[int], environ: Mapping[str, str], again_on: int) -> int:
    """Run one worker process per web port until all have ended; 1 when one of them failed.

    A process that ends with the status ``again_on`` found itself stuck and is started again at once. Of several
    processes one that ends by any other failure is replaced too, after a pause that grows. The only one is not: then
    this process ends with it, and whoever started it sees that.
    """
    with _Asked() as asked:
        children = [_start(environ, port) for port in ports]
        asked.forward_to(children)
        return _until_ended(children, asked, again_on, lambda number: _start(environ, ports[number]))


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


def _start(environ: Mapping[str, str], port: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "faust", "-A", "streams.app", "worker", "-l", "info", "--web-port", str(port)]
    own = {"ORDERWATCH_WORKER_PORT": str(port)}
    return subprocess.Popen(  # noqa: S603 - the command is ours
        command, env={**environ, **own}, start_new_session=True, preexec_fn=_die_with_us()
    )


def _die_with_us() -> Callable[[], None] | None:
    """Linux only: a worker is asked to stop when this process is killed."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class _Slot:
    """One of the worker processes, and when to start its next one. Times are monotonic seconds."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self.child = child
        self.started_at = time.monotonic()
        self.start_at: float | None = None
        self._pause_s = _REPLACE_S

    def replace_later(self) -> float:
        """Plan the next start; returns the pause in seconds."""
        now = time.monotonic()
        if now - self.started_at > _HEALTHY_S:
            self._pause_s = _REPLACE_S
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, _REPLACE_MOST_S)
        self.start_at = now + pause_s
        return pause_s

    def started(self, child: "subprocess.Popen[bytes]") -> None:
        self.child, self.started_at, self.start_at = child, time.monotonic(), None


def _until_ended(
    children: list["subprocess.Popen[bytes]"],
    asked: _Asked,
    again_on: int,
    start: Callable[[int], "subprocess.Popen[bytes]"],
) -> int:
    """Wait until every process has ended for good, and replace those that have to be."""
    failed = False
    slots = {number: _Slot(child) for number, child in enumerate(children)}
    while slots:
        for number, slot in list(slots.items()):
            if slot.start_at is not None:
                if asked.signal is not None:
                    del slots[number]
                elif time.monotonic() >= slot.start_at:
                    slot.started(start(number))
                    children[number] = slot.child
                    asked.forward_to(children)
                else:
                    time.sleep(_PAUSE_S / len(slots) / 10)
                continue
            try:
                status = slot.child.wait(timeout=_PAUSE_S / len(slots))
            except subprocess.TimeoutExpired:
                continue
            what = f"worker process {number} (pid {slot.child.pid})"
            if status == again_on and asked.signal is None:
                _warn(f"{what} made no progress and ended itself; starting it again")
                slot.start_at = time.monotonic()
            elif status not in (0, _REFUSED) and asked.signal is None and len(children) > 1:
                _warn(f"{what} ended with status {status}; replacing it in {slot.replace_later():g} s")
            else:
                del slots[number]
                wanted = asked.signal is not None and status in (0, -asked.signal, 128 + asked.signal)
                if status != 0 and not wanted:
                    failed = True
                    _warn(f"{what} ended with status {status}; {len(slots)} left")
    return 1 if failed else 0


def _warn(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(keep([int(port) for port in sys.argv[2:]], os.environ, int(sys.argv[1])))
