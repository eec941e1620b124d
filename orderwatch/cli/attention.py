"""``orderwatch attention``: what waits for a person."""

from typing import Annotated

import typer

from orderwatch.cli.order_actions import WAIT_S, CommandId, Wait
from orderwatch.support.terminal import CONFIG, AsJson, By, ConfigPath, actor, say, say_json, show, warn
from streams.order import CommandAction

app = typer.Typer(no_args_is_help=True, help="What waits for a person.")


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what was acknowledged.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Oldest first: who or what, why, since when."""
    from db.reads import queries
    from orderwatch.support.session import configured, database

    with database(configured(config)) as engine:
        rows = queries.attention(engine, tenant_id=tenant, everything=everything, limit=limit)
    if as_json:
        say_json({"attention": rows})
        return
    show(
        ("id", "code", "tenant", "order", "integration", "since", "acknowledged by", "message"),
        (
            (
                row["id"],
                row["code"],
                row["tenant_id"],
                row["order_id"],
                row["integration_id"],
                row["since"],
                row["acknowledged_by"],
                row["message"],
            )
            for row in rows
        ),
        empty="nothing waits for a person",
    )


@app.command("ack")
def ack(
    ids: Annotated[list[str], typer.Argument(help="Ids as `attention list` shows them.")],
    reason: Annotated[str, typer.Option(help="Why, for whoever reads it later.")] = "seen",
    by: By = None,
    command_id: CommandId = None,
    wait: Wait = WAIT_S,
    config: ConfigPath = CONFIG,
) -> None:
    """Say that a person has seen it. Changes nothing about the order itself."""
    who = actor(by)

    from orderwatch.support import command_client
    from orderwatch.support.session import configured, database

    settings = configured(config)
    wanted = list(dict.fromkeys(ids))
    with database(settings) as engine:
        told = command_client.on_queue(
            settings,
            engine,
            CommandAction.ACKNOWLEDGE,
            by=who,
            reason=reason.strip() or "seen",
            command_id=command_id,
            wait_s=wait,
            attentions=wanted,
        )
    for number in wanted:
        if number in told:
            say(f"{number}: acknowledged by {who}")
        else:
            warn(f"{number}: no such attention, or acknowledged already")
    raise typer.Exit(0 if len(told) == len(wanted) else 1)
