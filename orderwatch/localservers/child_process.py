"""Child processes that end when we end, however we end.

``ChildProcess`` starts a command below a small keeper process, which holds the reading end of a pipe that only we can
write to. When the pipe closes - we stopped, crashed, or were killed with SIGKILL - the keeper sends the command its
stop signal, and SIGKILL when that took longer than ``grace_s``. Ctrl-C in a terminal reaches neither of them.
The keeper is this file run as a script, so it imports nothing of ours.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


class ChildProcess:
    """A running command. Its output goes to the end of the file ``log``."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace_s: float = 15.0,
        user: int | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(  # noqa: S603 - the command is ours
                [sys.executable, "-I", "-S", __file__, str(int(stop_signal)), str(grace_s), str(user or 0), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        first = self._keeper.stdout.readline()
        self._keeper.stdout.close()
        #: Process id of the command itself.
        self.pid = int(first or 0)

    def ended(self) -> bool:
        """True when the command is no longer running."""
        return self._keeper.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Send the command a signal; nothing happens when it has ended."""
        if not self.ended() and self.pid:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """Stop signal, then SIGKILL after ``grace_s``; returns when the command is gone."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait()


def _die_with_the_keeper(number: int) -> Callable[[], None] | None:
    """Linux only: the kernel signals the command even when the keeper itself is killed."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _keep(number: int, grace_s: float, user: int, command: Sequence[str]) -> int:
    child = subprocess.Popen(  # noqa: S603 - the command is our parent's
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,
        user=user or None,
        group=user or None,
        extra_groups=[] if user else None,
        preexec_fn=_die_with_the_keeper(number),
    )
    os.write(1, f"{child.pid}\n".encode())
    os.close(1)

    def end_with_the_pipe() -> None:
        while os.read(0, 1024):
            pass
        child.send_signal(number)
        try:
            child.wait(grace_s)
        except subprocess.TimeoutExpired:
            child.kill()

    threading.Thread(target=end_with_the_pipe, daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    for ignored in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, lambda *_: None)  # not SIG_IGN: the command would inherit that
    sys.exit(abs(_keep(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))
