"""``orderwatch db``: the schema of the database, and its way back after a restore."""

from typing import Annotated

import typer

from orderwatch.support.terminal import CONFIG, AsJson, By, ConfigPath, actor, counting, say, say_json, show, warn

app = typer.Typer(no_args_is_help=True, help="The schema of the database.")


@app.command("upgrade")
def upgrade(
    revision: Annotated[str, typer.Argument(help="Where to; default: the newest.")] = "head",
    config: ConfigPath = CONFIG,
) -> None:
    """Migrate up. Safe while workers run, and from several processes at once."""
    _migrate(config, revision, up=True)


@app.command("downgrade")
def downgrade(
    revision: Annotated[str, typer.Argument(help="Where to, as `db current` says it; `base` drops everything.")],
    config: ConfigPath = CONFIG,
) -> None:
    """Migrate down: stop the workers first. Tables that go take their rows with them."""
    _migrate(config, revision, up=False)


@app.command("current")
def current(config: ConfigPath = CONFIG, as_json: AsJson = False) -> None:
    """Which revision the database is at; 1 when it is not the one of this release."""
    from db import schema
    from orderwatch.support.session import configured, database

    with database(configured(config)) as engine:
        at, head = schema.current(engine), schema.head()
    if as_json:
        say_json({"current": at, "head": head})
    elif at == head:
        say(f"{at}: the schema of this release")
    else:
        say(f"{at or 'empty'}: this release expects {head}: run `orderwatch db upgrade`")
    raise typer.Exit(0 if at == head else 1)


@app.command("reseal")
def reseal(by: By = None, config: ConfigPath = CONFIG, as_json: AsJson = False) -> None:
    """Seal every stored PIN and code with the newest key of ORDERWATCH_PIN_KEYS, so that older keys can be dropped.

    First give the new key to every worker. It may be stopped and run again; 1 when something has no key here.
    """
    import os

    from db.control.key_rotation import Resealed
    from db.control.key_rotation import reseal as run
    from orderwatch.support.session import configured, database
    from streams.seal import Sealer

    who, sealer, done = actor(by), Sealer.from_environ(os.environ), Resealed()
    with database(configured(config)) as engine:
        for done in run(engine, sealer, who):
            if not as_json:
                warn(f"{done.orders} orders and {done.codes} codes looked at, {done.changed} sealed anew")
    if as_json:
        say_json({"orders": done.orders, "codes": done.codes, "changed": done.changed, "foreign": done.foreign})
    elif done.foreign:
        say(f"{done.foreign} are sealed with none of these keys: add the key they were sealed with, and run it again")
    else:
        say(
            f"everything stored is sealed with the newest key, {done.changed} of it anew; keep the older keys as long "
            "as orders.status-changed keeps events from before"
        )
    raise typer.Exit(1 if done.foreign else 0)


@app.command("recover")
def recover(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be done; write nothing.")] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="This database replaces the ledger that the log belongs to.")
    ] = False,
    by: By = None,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Reconcile a database that went back in time (restore, late replica) with the topics, then let workers send again.

    Every attempt that may have been sent becomes unknown and is looked up by its reference first; orders that the
    database forgot are opened again from orders.created. May be stopped and run again. 1 when the log speaks of orders
    that it does not hold any more: a person has to look at these.
    """
    from orderwatch.support import recover as recovery
    from orderwatch.support.session import configured, database, emitting

    who, settings = actor(by), configured(config)
    with database(settings, 4) as engine, emitting(settings) as send, counting(as_json) as progress:
        done = recovery.run(settings, engine, send, dry_run=dry_run, adopt=adopt, by=who, progress=progress)
    if as_json:
        say_json(recovery.as_json(done, dry_run))
        raise typer.Exit(1 if done.orphans else 0)
    show(
        ("what", "count"),
        (
            ("records of the log", done.records),
            ("orders opened again", done.reopened),
            ("orders compared", done.reconciled),
            ("of these final by the log", done.final),
            ("attempts to be looked up", done.doubted),
            ("orders that only the log knows", len(done.orphans)),
        ),
        empty="",
    )
    for tenant_id, order_id, says in done.orphans:
        warn(f"order {order_id} of {tenant_id}: {says}")
    say("nothing was written" if dry_run else f"the ledger is at epoch {done.epoch}; workers send again")
    raise typer.Exit(1 if done.orphans else 0)


def _migrate(config: ConfigPath, revision: str, *, up: bool) -> None:
    from db import preflight, schema
    from orderwatch.support.session import configured, database

    with database(configured(config)) as engine:
        if up:
            preflight.require(preflight.server_problems(engine))
        before = schema.current(engine)
        (schema.upgrade if up else schema.downgrade)(engine, revision)
        after = schema.current(engine)
    say(f"{before or 'empty'} -> {after or 'empty'}" if before != after else f"{after or 'empty'}: nothing to do")
