"""``orderwatch dlq``: events that could not be handled, and sending them again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from agents.diagnosis.redaction import readable
from orderwatch.cli.order_actions import WAIT_S, CommandId, Wait
from orderwatch.support.terminal import CONFIG, AsJson, By, ConfigPath, actor, fail, say, say_json, show, warn
from streams.order import CommandAction

if TYPE_CHECKING:
    import sqlalchemy as sa

    from agents.diagnosis.replay_preview import Verdict
    from db.reads.lists import Group
    from db.reads.queries import Row
    from streams.events import Event

app = typer.Typer(no_args_is_help=True, help="Events that could not be handled.")

_PAGE = 500


@app.command("list")
def list_(
    reason: Annotated[str | None, typer.Option(help="Only this reason.")] = None,
    by_reason: Annotated[bool, typer.Option("--by-reason", help="Only how many of each reason, oldest first.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also what was replayed.")] = False,
    after: Annotated[int, typer.Option(help="Only ids above this.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Dead letters by id, with the reason and the error."""
    from db.reads import lists, queries
    from orderwatch.support.session import configured, database

    with database(configured(config)) as engine:
        if by_reason:
            return _groups(lists.letter_groups(engine), as_json)
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


def _groups(groups: "list[Group]", as_json: bool) -> None:
    if as_json:
        say_json({"reasons": groups})
        return
    show(("reason", "letters", "oldest"), ((g.reason, g.count, g.oldest) for g in groups), empty="no dead letters")


@app.command("show")
def show_one(
    number: Annotated[int, typer.Argument(metavar="ID")],
    raw: Annotated[bool, typer.Option("--raw", help="Show the customer's fields too.")] = False,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """One dead letter, with the event as it came; the customer's fields are hidden unless --raw."""
    from agents.domain.dead_letters import plain
    from db.reads import queries
    from orderwatch.support.session import configured, database

    with database(configured(config)) as engine:
        row = queries.dead_letter(engine, number)
    if row is None:
        fail(f"there is no dead letter {number}")
    document = {**_head(row), "headers": row["headers"], "value": readable(plain(row["value"]) or b"", raw=raw)}
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
    fix: Annotated[
        Path | None, typer.Option("--fix", help="A JSON file with the fields to correct; null takes one away.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen and cost; send nothing.")] = False,
    why: Annotated[str, typer.Option("--why", help="Why; kept for ever.")] = "asked for by hand",
    by: By = None,
    command_id: CommandId = None,
    wait: Wait = WAIT_S,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Send dead letters to their topic again, as they came or corrected. Harmless for what was handled meanwhile.

    What would only be set aside again is not sent; then the exit status is 1.
    """
    if (number is not None) + (reason is not None) + everything != 1:
        fail("expected one of ID, --reason REASON or --all", 2)
    if fix is not None and number is None:
        fail("--fix corrects one letter; expected its ID", 2)
    who = actor(by)

    from dataclasses import replace

    from agents.diagnosis import replay_preview
    from agents.diagnosis.dry_run import dry_routing
    from orderwatch.support import command_client
    from orderwatch.support.log_reader import heard
    from orderwatch.support.session import configured, database, with_stored_catalog

    settings = configured(config)
    prefix = settings.kafka.topic_prefix
    verdicts, pages = [], 0
    with database(settings) as engine:
        routing = dry_routing(with_stored_catalog(settings, engine))
        rows = _chosen(engine, number, reason, 0)
        while rows:
            fields = _fields(fix) if fix is not None else {}
            fixed = {rows[0]["id"]: _corrected(rows[0], prefix, fields, fix)} if fix is not None else {}
            judged = replay_preview.judged(
                engine, routing, rows, prefix, fixed, lambda unknown: heard(settings.kafka, unknown)
            )
            going = [verdict.letter for verdict in judged if verdict.sends]
            if going and not dry_run:
                moved = command_client.on_queue(
                    settings,
                    engine,
                    CommandAction.REPLAY,
                    by=who,
                    reason=why.strip() or "asked for by hand",
                    command_id=command_id and (f"{command_id}.{pages}" if pages else command_id),
                    wait_s=wait,
                    letters=going,
                    **({"fix": fields} if fix is not None else {}),
                )
                judged = [
                    verdict
                    if verdict.letter in moved or not verdict.sends
                    else replace(verdict, sends=False, says="it was replayed already")
                    for verdict in judged
                ]
            pages += 1
            verdicts += judged
            rows = [] if number is not None else _chosen(engine, None, reason, rows[-1]["id"])
    _tell(verdicts, dry_run, as_json)


def _chosen(engine: "sa.Engine", number: int | None, reason: str | None, after: int) -> "list[Row]":
    from db.reads import queries

    if number is None:
        return queries.dead_letters(engine, reason=reason, after=after, limit=_PAGE)
    row = queries.dead_letter(engine, number)
    if row is None:
        fail(f"there is no dead letter {number}")
    return [row]


def _fields(path: Path) -> dict[str, Any]:
    import json

    try:
        fields = json.loads(path.read_bytes())
        if not isinstance(fields, dict):
            raise ValueError
        return fields
    except OSError as error:
        fail(f"{path} cannot be read ({error.strerror})", 2)
    except (ValueError, RecursionError):
        fail(f"{path.name} is not JSON in UTF-8; expected an object with the fields to correct", 2)


def _corrected(row: "Row", prefix: str, fields: dict[str, Any], path: Path) -> "Event":
    """The letter's event with the fields of the file. One line names the field that is still wrong."""
    from agents.domain.dead_letters import corrected
    from streams.errors import EventError

    try:
        return corrected(row, prefix, fields)
    except EventError as error:
        fail(f"{path.name}: {error}", 2)


def _tell(verdicts: "list[Verdict]", dry_run: bool, as_json: bool) -> NoReturn:
    from dataclasses import asdict

    from agents.diagnosis import replay_preview

    kept = [verdict for verdict in verdicts if not verdict.sends]
    costs, unknown = replay_preview.cost(verdicts)
    if as_json:
        say_json(
            {
                "dry_run": dry_run,
                "letters": [asdict(v) for v in verdicts],
                "sent": len(verdicts) - len(kept),
                "not_sent": len(kept),
                "expected_cost": costs,
                "cost_not_known": unknown,
            }
        )
        raise typer.Exit(1 if kept else 0)
    for verdict in verdicts:
        said = f"{verdict.letter}: {'would go' if dry_run else 'sent'} to {verdict.topic}, {verdict.says}"
        (say if verdict.sends else warn)(said if verdict.sends else f"{verdict.letter}: not sent, {verdict.says}")
    price = ", ".join(
        [f"{amount} {currency}" for currency, amount in sorted(costs.items())]
        + [f"{unknown} of unknown price"] * bool(unknown)
    )
    say(
        f"{len(verdicts) - len(kept)} {'would be sent' if dry_run else 'sent'}, {len(kept)} not"
        + (f"; expected cost {price}" if price else "")
    )
    raise typer.Exit(1 if kept else 0)


def _head(row: "Row") -> dict[str, Any]:
    return {
        "id": row["id"],
        "at": row["at"],
        "topic": row["topic"],
        "partition": row["partition"],
        "offset": row["offset"],
        "key": _text(row["key"]),
        "agent": row["agent"],
        "reason": row["reason"],
        "error": row["error"],
        "replayed_at": row["replayed_at"],
        "replayed_by": row["replayed_by"],
    }


def _text(value: bytes | memoryview | None) -> str | None:
    return None if value is None else bytes(value).decode("utf-8", "replace")
