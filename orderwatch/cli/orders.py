"""``orderwatch orders``: many orders."""

from typing import TYPE_CHECKING, Annotated

import typer

from agents.diagnosis.redaction import without_personal
from agents.diagnosis.wording import duration
from orderwatch.support.terminal import CONFIG, AsJson, ConfigPath, fail, say, say_json, show
from streams.order import AttentionCode, ExternalStatus, Status

if TYPE_CHECKING:
    from db.reads.queries import Place

app = typer.Typer(no_args_is_help=True, help="Many orders.")

_COLUMNS = (
    "tenant",
    "order",
    "package",
    "status",
    "delivery",
    "integration",
    "reference",
    "created",
    "age",
    "waits with",
)


@app.callback()
def _orders() -> None:
    """Without it Typer would make the only command the group itself."""


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    status: Annotated[Status | None, typer.Option(help="The buyer's status.")] = None,
    external_status: Annotated[ExternalStatus | None, typer.Option(help="Delivery.")] = None,
    integration: Annotated[str | None, typer.Option(help="Only orders at this integration.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Created longer ago than this, like 15m or 24h.")] = None,
    waiting: Annotated[str | None, typer.Option(help="Waits for a person with this code, or `any`.")] = None,
    after: Annotated[str | None, typer.Option(help="Where the page before ended, as it said.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Orders, newest first, a page at a time."""
    if waiting is not None and waiting != "any" and waiting not in set(AttentionCode):
        fail(f"--waiting is {waiting}; expected any or one of {', '.join(AttentionCode)}", 2)
    older_s = None if older_than is None else _seconds(older_than)
    start = None if after is None else _place(after)

    from db.reads import queries
    from orderwatch.support.session import configured, database

    wanted = queries.OrderFilter(
        tenant_id=tenant,
        status=status,
        external_status=external_status,
        integration_id=integration,
        older_than_s=older_s,
        waiting=waiting,
    )
    with database(configured(config)) as engine:
        rows, end = queries.orders(engine, wanted, after=start, limit=limit)
        now = queries.database_now(engine)
    behind = None if end is None else str(end)
    if as_json:
        say_json({"orders": [without_personal(row) for row in rows], "next": behind})
        return
    show(
        _COLUMNS,
        (
            (
                row["tenant_id"],
                row["order_id"],
                row["package_id"],
                row["status"],
                row["external_status"],
                row["integration_id"],
                row["provider_referans"],
                row["created_at"],
                duration((now - row["created_at"]).total_seconds()),
                row["waiting"],
            )
            for row in rows
        ),
        empty="no such orders",
    )
    if behind:
        say(f"more: --after {behind}")


def _seconds(text: str) -> float:
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:])
    number = text[:-1]
    if unit is None or not number.isascii() or not number.isdigit() or len(number) > 9:
        fail(f"--older-than is {text}; expected a duration like 90s, 15m, 24h or 7d", 2)
    return float(int(number) * unit)


def _place(text: str) -> "Place":
    from db.reads.queries import Place

    try:
        return Place.read(text)
    except ValueError:
        fail(f"--after is {text}; expected what the page before printed after `more: --after`", 2)
