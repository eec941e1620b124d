"""``orderwatch route``: what dispatch would do with an order, without sending it."""

from typing import Annotated

import typer

from orderwatch.support.terminal import CONFIG, AsJson, ConfigPath, fail, say, say_json, show

app = typer.Typer(no_args_is_help=True, help="How orders of a package travel.")


@app.callback()
def _route() -> None:
    """Without it Typer would make the only command the group itself."""


@app.command("test")
def test(
    tenant: Annotated[str, typer.Argument(help="Tenant id.")],
    package: Annotated[str, typer.Argument(help="Package id of the shop.")],
    user: Annotated[str, typer.Option("--user", help="Player id of the sample order.")] = "player-1",
    quantity: Annotated[int, typer.Option(min=1, max=1000, help="Units of the sample order.")] = 1,
    extra: Annotated[str, typer.Option("--extra", help="Its extra field.")] = "",
    phone: Annotated[str, typer.Option("--phone", help="Its customer's phone.")] = "",
    param: Annotated[list[str] | None, typer.Option("--param", help="NAME=VALUE, may be given several times.")] = None,
    order: Annotated[str, typer.Option("--order", help="Its order id: references are made of it.")] = "route-test",
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Each step of a dispatch and the exact request, credentials masked. Sends nothing; 1 when the order would wait."""
    import asyncio
    from dataclasses import asdict

    from agents.diagnosis.dry_run import dry_run_order
    from agents.providers.base import OrderFacts
    from orderwatch.support.session import configured, database, with_stored_catalog

    params = dict(word.partition("=")[::2] for word in param or ())
    if any("=" not in word for word in param or ()):
        fail("--param is not NAME=VALUE", 2)
    facts = OrderFacts(
        tenant_id=tenant,
        order_id=order,
        package_id=package,
        quantity=quantity,
        user_identifier=user,
        extra_field=extra,
        customer_phone=phone,
        params=params,
    )
    settings = configured(config)
    with database(settings) as engine:
        found = asyncio.run(dry_run_order(with_stored_catalog(settings, engine), facts))
    if as_json:
        say_json({"tenant_id": tenant, "package_id": package, **asdict(found)})
    else:
        marks = {True: "ok", False: "no", None: "-"}
        show(
            ("integration", "step", "ok", "what"),
            (
                (
                    step.integration,
                    step.name,
                    marks[step.ok],
                    ", ".join([step.says] * bool(step.says) + [f"{name} {text}" for name, text in step.shown.items()]),
                )
                for step in found.steps
            ),
            empty="no steps",
        )
        say(found.says)
    raise typer.Exit(0 if found.integration is not None else 1)
