"""How commands speak: tables for people, JSON for programs, one line on stderr for what went wrong.

On a terminal tables are drawn by Rich; anywhere else they are plain aligned text, never cut.
"""

import getpass
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from orderwatch.wording import instant

ConfigPath = Annotated[
    Path, typer.Option("--config", envvar="ORDERWATCH_CONFIG", help="The configuration file.", show_default=True)
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, and nothing else.")]
By = Annotated[str | None, typer.Option("--by", help="Who acts; default: the name of the user.")]
CONFIG = Path("config.yaml")

#: Fields of an order that say something about the customer.
PERSONAL = frozenset({"user_identifier", "customer_phone", "extra_field"})


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


def hidden(text: object) -> object:
    """A personal value as it may be shown: its last two characters when enough is hidden before them."""
    if text is None or text == "":
        return text
    if not isinstance(text, str):
        return "***"
    return f"***{text[-2:]}" if len(text) >= 6 else "***"


def without_personal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with the customer's fields hidden, at any depth, and values of ``params`` with them."""
    shown: dict[str, Any] = {}
    for name, value in fields.items():
        if name in PERSONAL:
            shown[name] = hidden(value)
        elif name in {"params", "wire"}:
            inner = value.items() if isinstance(value, Mapping) else ()
            shown[name] = {key: hidden(text) for key, text in inner} if inner else hidden(value)
        elif name == "pins" and value:
            shown[name] = [f"sealed ({len(value)})"]
        elif isinstance(value, Mapping):
            shown[name] = without_personal(value)
        else:
            shown[name] = value
    return shown


def readable(value: bytes, *, raw: bool = False) -> object:
    """An event as data; what is no JSON object is only measured unless ``raw``, for nobody knows what is in it."""
    import json

    try:
        said = json.loads(value)
    except (ValueError, RecursionError):
        said = None
    if raw:
        return said if said is not None else value.decode("utf-8", "replace")
    return without_personal(_expected(said)) if isinstance(said, dict) else f"{len(value)} bytes, not a JSON object"


def _expected(said: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event. What does not belong into its field may be a customer's, so it is hidden, unless it is
    too short to tell anything."""
    import msgspec

    from streams.events import EVENTS, Amount

    kinds: dict[str, list[Any]] = {"params": [Any], **{name: [Any] for name in PERSONAL}}
    structs: tuple[type[msgspec.Struct], ...] = (*EVENTS, Amount)
    for struct in structs:
        for field in msgspec.structs.fields(struct):
            kinds.setdefault(field.name, []).append(field.type)

    def shown(name: str, value: Any) -> Any:
        for kind in kinds.get(name, ()):
            with suppress(msgspec.ValidationError):
                msgspec.convert(value, kind)
                return value
        if isinstance(value, Mapping):
            return {key: shown(key, inner) for key, inner in value.items()}
        return "***" if isinstance(value, list) or len(str(value)) > 3 else value

    return {name: shown(name, value) for name, value in said.items()}


def actor(by: str | None) -> str:
    """The name under which an act is written down."""
    with suppress(KeyError, OSError):
        by = by or os.environ.get("USER") or getpass.getuser()
    if not by or not by.strip():
        fail("who acts is not known: give --by NAME", 2)
    return by.strip()
