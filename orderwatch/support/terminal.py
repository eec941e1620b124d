"""How commands speak: tables for people, JSON for programs, one line on stderr for what went wrong.

On a terminal tables are drawn by Rich; anywhere else they are plain aligned text, never cut.
"""

import getpass
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from agents.diagnosis.wording import instant

ConfigPath = Annotated[
    Path, typer.Option("--config", envvar="ORDERWATCH_CONFIG", help="The configuration file.", show_default=True)
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, and nothing else.")]
By = Annotated[str | None, typer.Option("--by", help="Who acts; default: the name of the user.")]
CONFIG = Path("config.yaml")


def say(text: str = "") -> None:
    """One line for people, on stdout."""
    sys.stdout.write(f"{text}\n")


def warn(text: str) -> None:
    """One line on stderr; nothing has failed yet."""
    sys.stderr.write(f"{text}\n")


def fail(text: str, status: int = 1) -> NoReturn:
    """One line on stderr, and the end: 1 the thing asked about failed or does not exist, 2 wrong usage."""
    warn(text)
    raise typer.Exit(status)


def say_json(document: object) -> None:
    """One JSON document on one line."""
    import msgspec

    encoder = msgspec.json.Encoder(enc_hook=_plain, decimal_format="string")
    sys.stdout.write(encoder.encode(document).decode() + "\n")


def _plain(value: object) -> object:
    if isinstance(value, memoryview):
        return bytes(value).decode("utf-8", "replace")
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


def show(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str, title: str = "") -> None:
    """A table; ``empty`` is said instead of a table without rows."""
    cells = [[cell(value) for value in row] for row in rows]
    if not cells:
        say(empty)
        return
    if not sys.stdout.isatty():
        for line in aligned([[name.upper() for name in columns], *cells]):
            say(line)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in cells:
        table.add_row(*(Text(text) for text in row))
    Console().print(table)


@contextmanager
def counting(quiet: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """A progress bar on stderr: call it with (what is done, how many so far, how many there are or None). Nothing is
    drawn when ``quiet``, or where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, count, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda what, count, total: bar.update(task, description=what, completed=count, total=total)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under each other, two spaces apart."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def cell(value: object) -> str:
    """One value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def actor(by: str | None) -> str:
    """The name under which an act is written down."""
    with suppress(KeyError, OSError):
        by = by or os.environ.get("USER") or getpass.getuser()
    if not by or not by.strip():
        fail("who acts is not known: give --by NAME", 2)
    return by.strip()
