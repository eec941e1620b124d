"""``orderwatch produce``: place orders as a shop would, one by flags or many from a file."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orderwatch.support.terminal import CONFIG, AsJson, ConfigPath, fail, say, say_json, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orderwatch.support.order_files import Line
    from streams.events import Created

_EVERY = 1000


def register(app: typer.Typer) -> None:
    """Add the command to the root app."""
    app.command("produce")(produce)


def produce(
    file: Annotated[
        Path | None, typer.Argument(help="Orders as JSON lines (.jsonl) or CSV (.csv, header = field names).")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Tenant id; in a file: where a line has none.")] = None,
    order: Annotated[str | None, typer.Option(help="Order id.")] = None,
    package: Annotated[str | None, typer.Option(help="Package id.")] = None,
    user: Annotated[str | None, typer.Option(help="Player id.")] = None,
    quantity: Annotated[int, typer.Option(min=1, help="Units.")] = 1,
    extra: Annotated[str | None, typer.Option(help="Extra field.")] = None,
    phone: Annotated[str | None, typer.Option(help="Phone of the customer.")] = None,
    param: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, as often as needed.")] = None,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Place one order by flags, or every order of a file.

    Bad lines are reported with their number and written to FILE.rejects.<ext>, the rest is sent; 1 when any was bad.
    """
    if file is not None:
        if order or package or user or extra or phone or param:
            fail("expected a FILE or the flags of one order, not both", 2)
        _many(file, tenant, config, as_json)
        return
    given = {"--tenant": tenant, "--order": order, "--package": package, "--user": user}
    missing = [name for name, value in given.items() if not value]
    if missing:
        fail(f"{', '.join(missing)} missing; expected a FILE, or --tenant --order --package --user", 2)
    fields = {
        "tenant_id": tenant,
        "order_id": order,
        "package_id": package,
        "user_identifier": user,
        "quantity": quantity,
        "extra_field": extra,
        "customer_phone": phone,
        "params": _params(param or []),
    }
    _one({name: value for name, value in fields.items() if value not in (None, {})}, config, as_json)


def _params(given: list[str]) -> dict[str, str]:
    made = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            fail(f"--param is {text}; expected NAME=VALUE", 2)
        made[name] = value
    return made


def _one(fields: dict[str, Any], config: Path, as_json: bool) -> None:
    from orderwatch.support.order_files import created_of
    from orderwatch.support.session import configured
    from streams.clients import OrderProducer
    from streams.errors import EventError

    try:
        created = created_of(fields, datetime.now(UTC), None)
        with OrderProducer(configured(config).kafka) as producer:
            producer.place(created)
    except EventError as error:
        fail(str(error))
    if as_json:
        say_json({"tenant_id": created.tenant_id, "order_id": created.order_id, "sent": True})
    else:
        say(
            f"order {created.order_id} of tenant {created.tenant_id} is placed:"
            f" see `orderwatch order why {created.tenant_id} {created.order_id}`"
        )


def _many(file: Path, tenant: str | None, config: Path, as_json: bool) -> None:
    from orderwatch.support.order_files import Rejects, read_orders
    from orderwatch.support.session import configured
    from streams.clients import OrderProducer
    from streams.errors import BrokerUnavailable, EventError

    lines = read_orders(file, datetime.now(UTC), tenant)
    settings = configured(config)
    sent: list[Line] = []
    with Rejects(file) as rejects, OrderProducer(settings.kafka) as producer:

        def good() -> "Iterator[Created]":
            for line in lines:
                if line.created is None:
                    rejects.add(line, line.error)
                else:
                    sent.append(line)
                    yield line.created

        placements = _with_progress(file, lambda told: producer.place_many(good(), told))
        lost = [p.error for p in placements if isinstance(p.error, BrokerUnavailable)]
        for line, placement in zip(sent, placements, strict=True):
            if isinstance(placement.error, EventError):
                rejects.add(line, str(placement.error))
        rejected = sorted(rejects.reasons.items())
    done = sum(placement.error is None for placement in placements)
    if as_json:
        say_json(
            {
                "sent": done,
                "rejected": [{"line": number, "reason": reason} for number, reason in rejected],
                "rejects_file": str(rejects.path) if rejected else None,
                "unsent": len(lost),
            }
        )
    else:
        for number, reason in rejected:
            warn(f"{file.name}: line {number}: {reason}")
        say(f"{done} sent, {len(rejected)} rejected" + (f", see {rejects.path}" if rejected else ""))
    if lost:
        fail(f"{lost[0]}; {len(lost)} orders may be missing: send the file again, an order sent twice is one order", 2)
    raise typer.Exit(1 if rejected else 0)


def _with_progress(file: Path, run: "Callable[[Callable[[int, int], None]], list[Any]]") -> list[Any]:
    """A progress bar on a terminal, a plain line now and then anywhere else; both on stderr."""
    if not sys.stderr.isatty():
        told = 0

        def line(done: int, failed: int) -> None:
            nonlocal told
            if done - told >= _EVERY:
                told = done - done % _EVERY
                warn(f"{file.name}: {told} sent")

        return run(line)

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from orderwatch.support.order_files import count_lines

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(file.name, total=count_lines(file))
        made = run(lambda done, failed: progress.update(task, completed=done + failed))
        progress.update(task, completed=progress.tasks[0].total)
        return made
