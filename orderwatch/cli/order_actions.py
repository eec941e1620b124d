"""``orderwatch order check|resolve|place-again|send-to|cancel``: what a person may do, carried out by a worker."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from orderwatch.cli.order import OrderId, Tenant
from orderwatch.support.terminal import CONFIG, AsJson, By, ConfigPath, actor, fail, say, say_json
from streams.order import CommandAction

Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]
Wait = Annotated[float, typer.Option("--wait", min=0.0, max=300.0, help="Seconds to wait for the answer.")]
CommandId = Annotated[
    str | None, typer.Option("--command-id", help="An id of your choice: the same one is carried out once.")
]
OfAttempt = Annotated[int | None, typer.Option("--attempt", min=1, help="Only this one, and only while it stands.")]
WAIT_S = 15.0


class Outcome(StrEnum):
    """What a person can know about an attempt whose outcome the engine does not know."""

    COMPLETED = "completed"
    FAILED = "failed"
    NOT_SENT = "not-sent"
    ACCEPTED = "accepted"


def register(app: typer.Typer) -> None:
    """Add the commands to the group of one order."""
    app.command("check")(check)
    app.command("resolve")(resolve)
    app.command("place-again")(place_again)
    app.command("send-to")(send_to)
    app.command("cancel")(cancel)


def check(
    tenant: Tenant,
    order: OrderId,
    reason: Reason = "asked for by hand",
    attempt: OfAttempt = None,
    by: By = None,
    command_id: CommandId = None,
    wait: Wait = WAIT_S,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Ask the provider now instead of at the planned time. Asks, and never buys what may have been bought."""
    _carry_out(CommandAction.CHECK, tenant, order, reason, by, command_id, wait, config, as_json, attempt=attempt)


def resolve(
    tenant: Tenant,
    order: OrderId,
    attempt: Annotated[
        int, typer.Option(min=0, help="Number of the attempt whose outcome is known now; 0: the order has none.")
    ],
    outcome: Annotated[Outcome, typer.Option("--as", help="What became of it.")],
    reason: Annotated[str, typer.Option(help="How you know; kept for ever.")],
    evidence: Annotated[str | None, typer.Option(help="The provider's words, a ticket number.")] = None,
    by: By = None,
    command_id: CommandId = None,
    wait: Wait = WAIT_S,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Settle what the engine cannot know, in your name: an attempt, or (attempt 0) an order without a live one.

    `not-sent` may lead to a new purchase.
    """
    _carry_out(
        CommandAction.RESOLVE,
        tenant,
        order,
        reason,
        by,
        command_id,
        wait,
        config,
        as_json,
        attempt=attempt,
        outcome=outcome.value.replace("-", "_"),
        evidence=evidence,
    )


def place_again(
    tenant: Tenant,
    order: OrderId,
    reason: Reason,
    attempt: OfAttempt = None,
    by: By = None,
    command_id: CommandId = None,
    wait: Wait = WAIT_S,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Buy again by the route as it is now, where the ledger proves that the last attempt bought nothing.

    Refused with the reason otherwise, and when the order has failed: then the buyer's money goes back.
    """
    _carry_out(CommandAction.PLACE_AGAIN, tenant, order, reason, by, command_id, wait, config, as_json, attempt=attempt)


def send_to(
    tenant: Tenant,
    order: OrderId,
    integration: Annotated[str, typer.Argument(help="Id of an integration.")],
    reason: Reason,
    attempt: OfAttempt = None,
    by: By = None,
    command_id: CommandId = None,
    wait: Wait = WAIT_S,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Buy at this integration, whatever the route says: what was not sent yet, or what `place-again` would take."""
    _carry_out(
        CommandAction.SEND_TO,
        tenant,
        order,
        reason,
        by,
        command_id,
        wait,
        config,
        as_json,
        attempt=attempt,
        integration_id=integration,
    )


def cancel(
    tenant: Tenant,
    order: OrderId,
    reason: Reason,
    by: By = None,
    command_id: CommandId = None,
    wait: Wait = WAIT_S,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Give up an order of which nothing was bought and nothing is on its way: it fails, the buyer's money goes back."""
    _carry_out(CommandAction.CANCEL, tenant, order, reason, by, command_id, wait, config, as_json)


def _carry_out(
    action: CommandAction,
    tenant: str,
    order: str,
    reason: str,
    by: str | None,
    command_id: str | None,
    wait_s: float,
    config: ConfigPath,
    as_json: bool,
    **words: Any,
) -> None:
    who = actor(by)
    if not reason.strip():
        fail("--reason is empty; expected a sentence for whoever reads it later", 2)

    from db.reads import queries
    from orderwatch.support import command_client
    from orderwatch.support.session import configured, database

    settings = configured(config)
    with database(settings) as engine:
        if queries.snapshot(engine, tenant, order, steps=0).order is None:
            fail(f"no order {order} of tenant {tenant} was ever accepted: see `orderwatch order why {tenant} {order}`")
        command = command_client.build(
            action,
            tenant,
            order,
            by=who,
            reason=reason.strip(),
            command_id=command_id or command_client.new_id(),
            issued_at=queries.database_now(engine),
            **words,
        )
        found = command_client.issue(settings, engine, command, wait_s)
    if found is not None and (found.tenant_id, found.order_id, found.action) != (tenant, order, action):
        fail(f"--command-id {command.command_id} was used for another command; expected a new id", 2)
    done = found.done if found is not None else None
    said = (
        found.said
        if found is not None and found.said is not None
        else (
            f"no worker answered within {wait_s:g} s: command {command.command_id} is carried out when one reads it"
            f" (`orderwatch order why {tenant} {order}`)"
        )
    )
    if as_json:
        say_json(
            {
                "command_id": command.command_id,
                "tenant_id": tenant,
                "order_id": order,
                "action": action.value,
                "attempt": command.attempt,
                "done": done,
                "said": said,
            }
        )
    elif done:
        say(said)
    else:
        fail(said)
    raise typer.Exit(0 if done else 1)
