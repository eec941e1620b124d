"""``orderwatch order``: one order, what it waits for, and what a person may do about it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.diagnosis.redaction import without_personal
from orderwatch.support.terminal import CONFIG, AsJson, By, ConfigPath, actor, aligned, cell, fail, say, say_json, show

if TYPE_CHECKING:
    from agents.domain.operator_actions import Offer
    from db.reads.queries import Snapshot
    from streams.config.loader import Config

app = typer.Typer(no_args_is_help=True, help="One order.")

#: Of a sentence on the screen of ``order why``.
_WIDTH = 100

Tenant = Annotated[str, typer.Argument(help="Tenant id.")]
OrderId = Annotated[str, typer.Argument(metavar="ORDER", help="Order id.")]


@app.command("find")
def find(
    number: Annotated[str, typer.Argument(help="An order id, a reference, or the provider's own id.")],
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Which order has this number."""
    from db.reads import queries
    from orderwatch.support.session import configured, database

    with database(configured(config)) as engine:
        found = queries.find(engine, number)
    if as_json:
        say_json({"orders": [{"tenant_id": tenant, "order_id": order} for tenant, order in found]})
    else:
        show(("tenant", "order"), found, empty=f"no order is known under {number}")
    raise typer.Exit(0 if found else 1)


@app.command("show")
def show_one(
    tenant: Tenant,
    order: OrderId,
    raw: Annotated[bool, typer.Option("--raw", help="Show the customer's fields too.")] = False,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Everything stored about one order: its state, its attempts, its timeline. PINs stay sealed."""
    from agents.diagnosis.evidence import step_line

    found = _snapshot(tenant, order, config)
    if found.order is None and not found.dead_letters:
        fail(f"no order {order} of tenant {tenant} is known")
    document = _document(found, raw)
    if as_json:
        say_json(document)
        return
    head = {**document["order"], **{f"view {k}": v for k, v in (document["view"] or {}).items() if k == "version"}}
    for line in aligned([[name, cell(value)] for name, value in head.items()]) if head else ():
        say(line)
    for number, row in enumerate(document["attempts"], start=1):
        say(f"\nattempt {number} of {len(document['attempts'])}")
        for line in aligned([["  " + name, cell(value)] for name, value in row.items() if value not in (None, "", [])]):
            say(line)
    say(f"\ntimeline, {len(found.events)} steps")
    for row in found.events:
        say("  " + step_line(row))


@app.command("why")
def why(tenant: Tenant, order: OrderId, config: ConfigPath = CONFIG, as_json: AsJson = False) -> None:
    """What the order waits for, since when, what happens next and when, who must act, what you may do, the evidence."""
    from dataclasses import asdict, replace
    from textwrap import wrap

    from agents.diagnosis.dry_run import dry_routing
    from agents.diagnosis.explain import explain, offered
    from agents.diagnosis.wording import distance, instant
    from db.reads import queries
    from orderwatch.support.log_reader import heard_if_answering
    from orderwatch.support.session import configured, database, with_stored_catalog

    settings = configured(config)
    with database(settings) as engine:
        found = queries.snapshot(engine, tenant, order)
        stored = with_stored_catalog(settings, engine)
    found = replace(found, absent_needed=_absent_needed(stored))
    if found.order is None:
        key = (tenant, order)
        found = replace(found, heard=heard_if_answering(settings.kafka, {key}).get(key, ()))
    said = explain(found, found.now)
    may = offered(found, dry_routing(stored), found.now)
    if as_json:
        say_json({"tenant_id": tenant, "order_id": order, **asdict(said), "actions": [asdict(offer) for offer in may]})
        raise typer.Exit(0 if said.known else 1)
    say(said.headline)
    facts = {"order": f"{tenant} {order}"}
    if said.since is not None:
        facts["since"] = f"{instant(said.since)} ({distance(said.since, found.now)})"
    facts["next"] = said.next
    if said.when is not None:
        facts["when"] = f"{instant(said.when)} ({distance(said.when, found.now)})"
    facts["who acts"] = said.actor
    for name, text in facts.items():
        first, *others = wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
        say(f"  {name:10}{first}")
        for line in others:
            say(f"  {'':10}{line}")
    if may:
        say("you may")
    for offer in may:
        say("  " + _command(tenant, order, offer))
    if said.evidence:
        say("evidence")
    for line in said.evidence:
        say("  " + line)
    raise typer.Exit(0 if said.known else 1)


@app.command("replay")
def replay(
    tenant: Tenant,
    order: OrderId,
    by: By = None,
    reason: Annotated[str, typer.Option(help="Why; it is kept beside the name.")] = "asked for by hand",
    config: ConfigPath = CONFIG,
) -> None:
    """Send the order's created event again, as it was accepted. The same order twice is one order."""
    who = actor(by)

    import msgspec

    from db.control import integration_state
    from db.reads import queries
    from orderwatch.support.session import configured, database, emitting
    from streams import events, topics
    from streams.kafka.producer import message

    settings = configured(config)
    with database(settings) as engine:
        found = queries.snapshot(engine, tenant, order, steps=0)
        if found.order is None:
            fail(f"no order {order} of tenant {tenant} was ever accepted: its dead letter is sent with `dlq replay`")
        created = msgspec.convert(found.order.request, events.Created)
        integration_state.record(engine, who, "order.replay", tenant, order, {"reason": reason})
        with emitting(settings) as emit:
            emit([message(created, topics.CREATED, at=created.created_at)])
    say(f"sent the created event of order {order} of tenant {tenant} again; dispatch says again what follows from it")


@app.command("pin")
def pin(tenant: Tenant, order: OrderId, by: By = None, config: ConfigPath = CONFIG, as_json: AsJson = False) -> None:
    """The PINs of a completed order, in the open. Each release is written down with the name of who asked."""
    who = actor(by)

    import os

    from db.control import integration_state
    from orderwatch.support.session import configured, database
    from streams.seal import Sealer

    sealer = Sealer.from_environ(os.environ)
    with database(configured(config)) as engine:
        pins = integration_state.release_pins(engine, tenant, order, who, sealer.open)
    if not pins:
        fail(f"order {order} of tenant {tenant} has no PIN to release: see `orderwatch order why {tenant} {order}`")
    if as_json:
        say_json({"tenant_id": tenant, "order_id": order, "pins": pins})
        return
    for text in pins:
        say(text)


def _command(tenant: str, order: str, offer: "Offer") -> str:
    """An offer as the command that takes it."""
    words = ["orderwatch order", offer.action.value.replace("_", "-"), tenant, order]
    if offer.integrations:
        words.append("|".join(offer.integrations))
    if offer.attempt is not None:
        words.append(f"--attempt {offer.attempt}")
    if offer.outcomes:
        words.append("--as " + "|".join(outcome.replace("_", "-") for outcome in offer.outcomes))
    return " ".join(words if offer.action == "check" else [*words, "--reason ..."])


def _snapshot(tenant: str, order: str, path: ConfigPath) -> "Snapshot":
    from db.reads import queries
    from orderwatch.support.session import configured, database

    with database(configured(path)) as engine:
        return queries.snapshot(engine, tenant, order)


def _absent_needed(config: "Config") -> dict[str, int]:
    """Per integration, how many consistent absent answers prove that an order does not exist there."""
    from agents.providers.registry import profile_of

    return {item.id: profile_of(item.provider, item.profile).absent_answers for item in config.integrations}


def _document(found: "Snapshot", raw: bool) -> dict[str, Any]:
    import msgspec

    def shown(fields: dict[str, Any]) -> dict[str, Any]:
        if raw:
            return {**fields, "pins": [f"sealed ({len(fields['pins'])})"]} if fields.get("pins") else fields
        return without_personal(fields)

    order = msgspec.structs.asdict(found.order) if found.order is not None else {}
    return {
        "tenant_id": found.tenant_id,
        "order_id": found.order_id,
        "now": found.now,
        "order": shown(order),
        "view": shown(dict(found.view)) if found.view is not None else None,
        "attempts": [shown(msgspec.structs.asdict(row)) for row in found.attempts],
        "events": [dict(row) for row in found.events],
        "attention": [dict(row) for row in found.attention],
        "dead_letters": [
            {name: row[name] for name in ("id", "at", "topic", "reason", "error", "replayed_at", "replayed_by")}
            for row in found.dead_letters
        ],
    }
