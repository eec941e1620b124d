"""What a person sees while it runs: a live table on a terminal, a plain line now and then anywhere else."""

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orderwatch.demo.downstream import News
from orderwatch.demo.numbers import PERSON, STATES, Numbers

_PLAIN_EVERY_S = 2.0
_STYLES = {"done": "green", "failed": "red", "unknown": "yellow", PERSON: "magenta"}
COLUMNS = (*STATES, PERSON)
STARTING = "the worker is starting"


class Moment(Protocol):
    """What is shown."""

    seconds: float
    sent: int
    to_send: int
    numbers: Numbers
    heard: int
    news: Iterable[News]


class Screen:
    """``show`` draws a moment. ``console`` decides where, and whether it is a terminal."""

    def __init__(self, console: Console, line: Callable[[str], None]) -> None:
        self._line = line
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._told_at = float("-inf")

    def show(self, moment: Moment, *, last: bool = False) -> None:
        """Draw, or say a line when the last one is a while ago."""
        if self._live is not None:
            self._live.update(picture(moment), refresh=True)
        elif last or time.monotonic() - self._told_at >= _PLAIN_EVERY_S:
            self._told_at = time.monotonic()
            self._line(sentence(moment))

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()


def sentence(moment: Moment) -> str:
    """The moment on one line."""
    n = moment.numbers
    states = ", ".join(f"{n.total(name)} {name}" for name in COLUMNS if n.total(name)) or STARTING
    return (
        f"{moment.seconds:3.0f} s  sent {moment.sent}/{moment.to_send} | {states} | checks {n.checks},"
        f" fallbacks {n.fallbacks}, answers lost {n.lost} ({n.found} found, {n.absent} not bought),"
        f" PINs {n.pins}, repeats dropped {n.repeats_dropped}, dead letters {n.dead_letters}, attentions {n.attention}"
    )


def picture(moment: Moment) -> RenderableType:
    """The moment as a screen."""
    return Group(_sending(moment), _orders(moment.numbers), _counters(moment), _news(moment.news))


def _sending(moment: Moment) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(moment.to_send, 1), completed=moment.sent, width=40)
    row.add_row(f"{moment.seconds:4.0f} s", "the shop sends", bar, f"{moment.sent} of {moment.to_send} events")
    return row


def _orders(numbers: Numbers) -> Table:
    table = Table(header_style="bold", title="Orders now", title_justify="left", show_footer=True)
    table.add_column("tenant", "all")
    table.add_column("integration")
    for name in COLUMNS:
        total = numbers.total(name)
        table.add_column(name, str(total), justify="right", style=_STYLES.get(name, ""), min_width=7)
    if not numbers.places:
        table.add_row("", STARTING)
    for (tenant, integration), row in numbers.places.items():
        table.add_row(tenant, integration, *(str(row[name]) if row.get(name) else "" for name in COLUMNS))
    return table


def _counters(moment: Moment) -> RenderableType:
    n = moment.numbers
    grid = Table.grid(padding=(0, 2))
    grid.add_row("status checks asked", str(n.checks), "went to the fallback", str(n.fallbacks))
    grid.add_row("answers lost", str(n.lost), "  bought, found by look-up", str(n.found))
    grid.add_row("PINs delivered, sealed", str(n.pins), "  proven not bought", str(n.absent))
    grid.add_row("repeated orders dropped", str(n.repeats_dropped), "attentions for a person", str(n.attention))
    grid.add_row("status changes downstream", str(moment.heard), "dead letters", str(n.dead_letters))
    return grid


def _news(news: Iterable[News]) -> RenderableType:
    lines = [Text("last ends, as the downstream service hears them", style="bold")]
    for item in news:
        pins = f"PIN {' '.join(item.pins)}" if item.pins else item.message
        style = _STYLES["done" if item.status == "completed" else "failed"]
        lines.append(Text.assemble(f"  {item.key[0]} {item.key[1]}  ", (item.status, style), f"  {pins}"))
    return Group(*lines)
