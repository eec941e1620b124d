"""``orderwatch tail``: what is said on a topic, decoded, with PINs and the customer's fields hidden."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.diagnosis.redaction import readable
from agents.diagnosis.wording import instant
from orderwatch.support.terminal import CONFIG, AsJson, ConfigPath, say, say_json

if TYPE_CHECKING:
    from streams.kafka.producer import Told


def register(app: typer.Typer) -> None:
    """Add the command to the root app."""
    app.command("tail")(tail)


def tail(
    topic: Annotated[str, typer.Argument(help="Topic without prefix, like orders.status-changed.")],
    from_start: Annotated[bool, typer.Option("--from-start", help="From the oldest record kept.")] = False,
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop at the newest record there is now.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many records.")] = None,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Follow a topic until Ctrl-C: one line per record, JSON lines with --json."""
    import sys
    from itertools import islice

    from orderwatch.support.session import configured
    from streams.kafka.producer import follow

    told = follow(configured(config).kafka, topic, from_start=from_start, until_end=until_end)
    for record in islice(told, limit):
        line = _readable(record)
        if as_json:
            say_json(line)
        else:
            place = f"{instant(record.at) if record.at else '-'} {record.partition}:{record.offset}"
            say(f"{place} {line['key']} {_words(line['headers'])} {_words(line['value'])}")
        sys.stdout.flush()


def _readable(record: "Told") -> dict[str, Any]:
    from streams.events import rfc3339

    key = record.key
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "at": rfc3339(record.at) if record.at else None,
        "key": None if key is None else key.decode("utf-8", "replace"),
        "headers": {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers},
        "value": None if record.value is None else readable(record.value),
    }


def _words(said: object) -> str:
    """An event on one line; of the headers only those that say what the value does not."""
    if not isinstance(said, dict):
        return str(said)
    shown = {k: v for k, v in said.items() if not k.startswith("ce_") and k not in ("content-type", "order_id")}
    return " ".join(f"{name}={value}" for name, value in shown.items())
