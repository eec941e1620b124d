"""How a run is followed: a progress bar on a terminal, a line every few seconds anywhere else; always on stderr."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from orderwatch.support.terminal import warn

_LINE_EVERY_S = 5.0


class Screen:
    """Call it with (what, done, of)."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._said_at = 0.0
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """One line beside the bar."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            warn(text)

    def __call__(self, what: str, done: int, of: int) -> None:
        if self._bar is not None:
            if self._task is None or what != self._what or done < self._bar.tasks[-1].completed:
                self._task = self._bar.add_task(what, total=of)
            self._bar.update(self._task, completed=done, total=of)
        elif what != self._what or time.monotonic() - self._said_at >= _LINE_EVERY_S:
            self._said_at = time.monotonic()
            warn(f"{what}: {done} of {of}")
        self._what = what
