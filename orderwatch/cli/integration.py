"""``orderwatch integration|balance|catalogue``: the emergency switch, and what the accounts at the providers say."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from orderwatch.support.terminal import CONFIG, AsJson, By, ConfigPath, actor, fail, say, say_json, show

if TYPE_CHECKING:
    from agents.providers.base import CatalogueItem

switching = typer.Typer(no_args_is_help=True, help="The emergency switch of an integration.")
catalogue = typer.Typer(no_args_is_help=True, help="What a provider sells.")

Reason = Annotated[str, typer.Option(help="Why; kept for ever.")]
Integration = Annotated[str, typer.Argument(help="Id of an integration.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the root app."""
    app.command("balance")(balance)
    app.add_typer(switching, name="integration")
    app.add_typer(catalogue, name="catalogue")


@switching.command("off")
def off(
    integration: Integration, reason: Reason, by: By = None, config: ConfigPath = CONFIG, as_json: AsJson = False
) -> None:
    """No new sends from now on; what was sent is followed, what was not waits. Running workers stop within a second."""
    _switch(integration, False, reason, by, config, as_json)


@switching.command("on")
def on(
    integration: Integration, reason: Reason, by: By = None, config: ConfigPath = CONFIG, as_json: AsJson = False
) -> None:
    """Send again; the orders that waited go on by themselves."""
    _switch(integration, True, reason, by, config, as_json)


def _switch(integration: str, enabled: bool, reason: str, by: str | None, config: ConfigPath, as_json: bool) -> None:
    who = actor(by)
    if not reason.strip():
        fail("--reason is empty; expected a sentence for whoever reads it later", 2)

    from db.control import kill_switch
    from orderwatch.support.session import configured, database

    with database(configured(config)) as engine:
        changed = kill_switch.set_enabled(engine, integration, enabled, who, reason.strip())
    if as_json:
        say_json({"integration_id": integration, "enabled": enabled, "changed": changed})
    elif not changed:
        say(f"{integration} was {'on' if enabled else 'off'} already")
    elif enabled:
        say(f"{integration} is on: orders that waited for it go on by themselves")
    else:
        say(f"{integration} is off: no new sends within a second, open orders are followed")


@catalogue.callback()
def _catalogue() -> None:
    """Without it Typer would make the only command the group itself."""


def balance(integration: Integration, config: ConfigPath = CONFIG, as_json: AsJson = False) -> None:
    """Ask for the balance of an account. 1 when it could not be read: unknown is not zero."""
    import asyncio

    from db.control import integration_state
    from orderwatch.support.adapters import adapters, integration_of
    from orderwatch.support.session import configured, database, with_stored_catalog

    settings = configured(config)
    with database(settings) as engine:
        item = integration_of(with_stored_catalog(settings, engine), integration)

        async def ask() -> Any:
            async with adapters((item,), engine) as made:
                return await made[integration].balance()

        answer = asyncio.run(ask())
        money = answer.money
        if money is not None:
            integration_state.store_balance(engine, integration, money.amount, money.currency)
    if as_json:
        say_json(
            {
                "integration_id": integration,
                "amount": money and money.amount,
                "currency": money and money.currency,
                "reason": answer.reason,
            }
        )
    elif money is not None:
        say(f"{integration}: {money.amount} {money.currency}")
    else:
        fail(f"{integration}: the balance is not known: {answer.reason or 'the provider told none'}")
    raise typer.Exit(0 if money is not None else 1)


@catalogue.command("sync")
def sync(integration: Integration, config: ConfigPath = CONFIG, as_json: AsJson = False) -> None:
    """Fetch the catalogue of an account, keep it, and say what is new, gone, or has another price."""
    import asyncio

    from db.control import integration_state
    from db.reads import queries
    from orderwatch.support.adapters import adapters, integration_of
    from orderwatch.support.session import configured, database, with_stored_catalog
    from streams.errors import ProviderError

    settings = configured(config)
    with database(settings) as engine:
        item = integration_of(with_stored_catalog(settings, engine), integration)

        async def ask() -> Any:
            async with adapters((item,), engine) as made:
                return await made[integration].catalogue()

        try:
            told = [as_document(entry) for entry in asyncio.run(ask())]
        except ProviderError as error:
            fail(f"{integration}: the catalogue could not be read, the last one is kept: {error}")
        before = queries.integration_states(engine).get(integration, {}).get("catalogue") or []
        integration_state.store_catalogue(engine, integration, told)
    changes = differences(before, told)
    if as_json:
        say_json({"integration_id": integration, "packages": len(told), "changes": changes})
        return
    show(
        ("change", "package", "name", "before", "now"),
        ((c["change"], c["package_id"], c["name"], c["before"], c["now"]) for c in changes),
        empty="nothing changed",
    )
    say(f"{integration}: {len(told)} packages, {len(changes)} changes")


def as_document(entry: "CatalogueItem") -> dict[str, Any]:
    """A catalogue entry as it is stored."""
    quantities = entry.quantities
    return {
        "package_id": entry.package_id,
        "name": entry.name,
        "price": None if entry.price is None else f"{entry.price.amount} {entry.price.currency}",
        "wire": dict(entry.wire),
        "orderable": entry.orderable,
        "available": entry.available,
        "category": entry.category,
        "quantities": sorted(quantities) if isinstance(quantities, frozenset) else quantities and list(quantities),
        "note": entry.note,
    }


def differences(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What changed between two stored catalogues: ``new``, ``gone``, ``price``, ``available``, in order of package."""
    old, new = ({_key(entry): entry for entry in entries} for entries in (before, now))
    found = []
    for key in sorted(old.keys() | new.keys()):
        entry = new.get(key) or old[key]

        def change(what: str, was: object, is_now: object, entry: dict[str, Any] = entry) -> dict[str, Any]:
            named = {"package_id": entry["package_id"], "name": entry["name"]}
            return {"change": what, **named, "before": was, "now": is_now}

        if key not in old:
            found.append(change("new", None, new[key]["price"]))
        elif key not in new:
            found.append(change("gone", old[key]["price"], None))
        else:
            found += [
                change(what, old[key][what], new[key][what])
                for what in ("price", "available")
                if old[key][what] != new[key][what]
            ]
    return found


def _key(entry: dict[str, Any]) -> tuple[str, ...]:
    """A znet package id alone is not unique; what goes on the wire is."""
    return (str(entry["package_id"]), *(f"{name}={value}" for name, value in sorted(entry["wire"].items())))
