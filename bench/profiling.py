"""Where a worker's CPU goes: py-spy looks 100 times a second who holds the interpreter, from outside, while it works.

What native threads and calls without the interpreter cost is not in those samples: the CPU seconds of each thread, as
the operating system counts them, stand beside.
"""

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.extras import environment
from orderwatch.localservers.apache_kafka import ROOT

_RATE = 100
ROOMS = ("streams", "agents", "db", "orderwatch")
_LIBRARY = re.compile(r"/python3\.\d+/(?:site-packages/)?(\w+)")


@dataclass(slots=True)
class Profile:
    """Samples by function: ``own`` where it ran itself, ``whole`` where it was anywhere on the stack."""

    samples: int = 0
    own: Counter[str] = field(default_factory=Counter)
    whole: Counter[str] = field(default_factory=Counter)
    threads: Counter[str] = field(default_factory=Counter)
    areas: Counter[str] = field(default_factory=Counter)
    cpu_s: Counter[str] = field(default_factory=Counter)

    def share(self, count: int) -> str:
        """As a part of all samples."""
        return f"{100 * count / max(self.samples, 1):.1f} %"


def folded(lines: Iterable[str]) -> Profile:
    """py-spy's raw format: ``frame;frame;frame count``, outermost first, the thread before them."""
    found = Profile()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if not stack or not count.isdigit():
            continue
        frames = stack.split(";")
        if frames[0].startswith(("thread ", "process ")):
            found.threads[frames.pop(0).partition(": ")[2] or "main"] += int(count)
        if not frames:
            continue
        found.samples += int(count)
        found.own[frames[-1]] += int(count)
        found.areas[_area(frames)] += int(count)
        found.whole.update(dict.fromkeys(frames, int(count)))
    return found


def _area(frames: Sequence[str]) -> str:
    """The library or room that the innermost Python function belongs to."""
    place = frames[-1].partition(" (")[2]
    if found := _LIBRARY.search(place):
        return found[1]
    ours = place.removeprefix(f"{ROOT}/")
    room, _, rest = ours.partition("/")
    if room not in ROOMS:
        return "others"
    return "agents.providers" if rest.startswith("providers/") else room


class Profiler:
    """Watches the worker process among ``roots`` until ``stop``."""

    def __init__(self, roots: Iterable[int], directory: Path) -> None:
        self._output = directory / "profile.txt"
        self._log = (directory / "py-spy.log").open("wb")
        self._pid = _worker(roots)
        self._before = _threads(self._pid)
        command = [
            str(environment() / "py-spy"),
            "record",
            "--pid",
            str(self._pid),
            "--rate",
            str(_RATE),
            "--duration",
            "3600",
            "--format",
            "raw",
            "--function",
            "--threads",
            "--gil",
            "--nonblocking",
            "--full-filenames",
            "--output",
            str(self._output),
        ]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)  # noqa: S603 - ours

    def stop(self) -> Profile:
        """End the recording and read it."""
        after = _threads(self._pid)
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        self._log.close()
        found = folded(self._output.read_text("utf-8").splitlines())
        found.cpu_s = Counter({name: round(after[name] - self._before[name], 2) for name in after})
        return found


def _threads(pid: int) -> Counter[str]:
    """CPU seconds by thread name; threads of one name count together."""
    found: Counter[str] = Counter()
    for thread in psutil.Process(pid).threads():
        name = Path(f"/proc/{pid}/task/{thread.id}/comm")
        found[name.read_text("utf-8").strip() if name.exists() else "?"] += thread.user_time + thread.system_time
    return found


def _worker(roots: Iterable[int]) -> int:
    """The Faust process below the command that an operator starts."""
    for root in roots:
        process = psutil.Process(root)
        for candidate in (process, *process.children(recursive=True)):
            if "faust" in candidate.cmdline():
                return int(candidate.pid)
    sys.stderr.write("no worker process found to profile\n")
    return next(iter(roots))
