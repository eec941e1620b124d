"""What processes cost: CPU seconds and memory of named process trees, read from the operating system."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Cost:
    """``cpu_s`` user and system seconds; ``memory`` the peak in bytes.

    The memory of one process is its RSS. That of several is the sum of their PSS, so that pages they share count
    once.
    """

    cpu_s: float
    memory: int


class Meter:
    """Measures between ``start`` and ``stop``. ``roots`` maps a name to the process ids whose trees it means."""

    def __init__(self, roots: Mapping[str, Iterable[int]]) -> None:
        self._roots = {name: [psutil.Process(pid) for pid in pids] for name, pids in roots.items()}
        self._before: dict[str, float] = {}
        self._seen: dict[str, list[int]] = {name: [] for name in self._roots}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="meter", daemon=True)

    def start(self) -> None:
        """Take the first reading."""
        self._before = {name: _cpu_s(found) for name, found in self._roots.items()}
        self._thread.start()

    def stop(self) -> dict[str, Cost]:
        """Cost of each named tree since ``start``."""
        after = {name: _cpu_s(found) for name, found in self._roots.items()}
        self._look()
        self._stop.set()
        self._thread.join()
        return {name: Cost(after[name] - self._before[name], max(self._seen[name])) for name in self._roots}

    def memory(self) -> dict[str, int]:
        """Bytes now."""
        return {name: _memory(found) for name, found in self._roots.items()}

    def timeline(self, name: str, most: int = 200) -> list[int]:
        """Bytes over the time measured, at most so many readings, evenly apart."""
        seen = self._seen[name]
        return seen[:: max(-(-len(seen) // most), 1)]

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        for name, now in self.memory().items():
            self._seen[name].append(now)


def _tree(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for root in roots:
        try:
            found += [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return found


def _cpu_s(roots: Iterable[psutil.Process]) -> float:
    """Of living processes and of what they have waited for: a child that ended counts through its parent."""
    total = 0.0
    for process in _tree(roots):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def _memory(roots: Iterable[psutil.Process]) -> int:
    tree = _tree(roots)
    total = 0
    for process in tree:
        try:
            total += process.memory_info().rss if len(tree) == 1 else process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total
