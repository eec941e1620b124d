"""``orderwatch dlq``: events that could not be handled, and sending them again."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from orderwatch.personal import readable
from orderwatch.terminal import CONFIG, AsJson, By, ConfigPath, actor, fail, say, say_json, show

if TYPE_CHECKING:
    from db.queries import Row
    from streams.kafka import Outgoing

app = typer.Typer(no_args_is_help=True, help="Events that could not be handled.")

_PAGE = 500


@app.command("list")
def list_(
    reason: Annotated[str | None, typer.Option(help="Only this reason.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what was replayed.")] = False,
    after: Annotated[int, typer.Option(help="Only ids above this.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Dead letters by id, with the reason and the error."""
    from db import queries
    from orderwatch.session import configured, database

    with database(configured(config)) as engine:
        rows = queries.dead_letters(engine, reason=reason, everything=everything, after=after, limit=limit)
    if as_json:
        say_json({"dead_letters": [_head(row) for row in rows]})
        return
    show(
        ("id", "at", "topic", "key", "reason", "replayed", "error"),
        (
            (row["id"], row["at"], row["topic"], _text(row["key"]), row["reason"], row["replayed_at"], row["error"])
            for row in rows
        ),
        empty="no dead letters",
    )


@app.command("show")
def show_one(
    number: Annotated[int, typer.Argument(metavar="ID")],
    raw: Annotated[bool, typer.Option("--raw", help="Show the customer's fields too.")] = False,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """One dead letter, with the event as it came; the customer's fields are hidden unless --raw."""
    from db import queries
    from orderwatch.session import configured, database

    with database(configured(config)) as engine:
        row = queries.dead_letter(engine, number)
    if row is None:
        fail(f"there is no dead letter {number}")
    document = {**_head(row), "headers": row["headers"], "value": readable(_bytes(row["value"]) or b"", raw=raw)}
    if as_json:
        say_json(document)
        return
    for name, value in document.items():
        say(f"{name:14}{value}")


@app.command("replay")
def replay(
    number: Annotated[int | None, typer.Argument(metavar="[ID]")] = None,
    reason: Annotated[str | None, typer.Option(help="Every letter with this reason.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every letter that was not replayed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")] = False,
    by: By = None,
    config: ConfigPath = CONFIG,
) -> None:
    """Send dead letters to their topic again, as they came. Harmless for what was handled meanwhile."""
    if (number is not None) + (reason is not None) + everything != 1:
        fail("expected one of ID, --reason REASON or --all", 2)
    who = actor(by)

    from db import operator, queries
    from orderwatch.session import configured, database, emitting

    settings = configured(config)
    prefix = settings.kafka.topic_prefix
    sent = 0
    with database(settings) as engine, emitting(settings) as emit:
        if number is not None:
            row = queries.dead_letter(engine, number)
            if row is None:
                fail(f"there is no dead letter {number}")
            letters = [row]
        else:
            letters = queries.dead_letters(engine, reason=reason, limit=_PAGE)
        while letters:
            if not dry_run:
                emit([_original(row, prefix) for row in letters])
            for row in letters:
                if not dry_run:
                    operator.mark_replayed(engine, row["id"], who)
                say(f"{row['id']}: {'would go' if dry_run else 'sent'} to {row['topic']} ({row['reason']})")
            sent += len(letters)
            last = letters[-1]["id"]
            letters = [] if number is not None else queries.dead_letters(engine, reason=reason, after=last, limit=_PAGE)
    say(f"{sent} {'would be sent' if dry_run else 'sent'}")


def _original(row: "Row", prefix: str) -> "Outgoing":
    from streams.kafka import Outgoing

    headers = [(name, str(text).encode()) for name, text in row["headers"].items() if not name.startswith("dlq.")]
    return Outgoing(row["topic"].removeprefix(prefix), _bytes(row["key"]), _bytes(row["value"]), headers)


def _head(row: "Row") -> dict[str, Any]:
    return {
        "id": row["id"], "at": row["at"], "topic": row["topic"], "partition": row["partition"],
        "offset": row["offset"], "key": _text(row["key"]), "agent": row["agent"], "reason": row["reason"],
        "error": row["error"], "replayed_at": row["replayed_at"], "replayed_by": row["replayed_by"],
    }


def _bytes(value: bytes | memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)


def _text(value: bytes | memoryview | None) -> str | None:
    return None if value is None else bytes(value).decode("utf-8", "replace")
