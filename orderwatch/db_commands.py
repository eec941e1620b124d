"""``orderwatch db``: the schema of the database."""

from typing import Annotated

import typer

from orderwatch.terminal import CONFIG, AsJson, ConfigPath, say, say_json

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
    from orderwatch.session import configured, database

    with database(configured(config)) as engine:
        at, head = schema.current(engine), schema.head()
    if as_json:
        say_json({"current": at, "head": head})
    elif at == head:
        say(f"{at}: the schema of this release")
    else:
        say(f"{at or 'empty'}: this release expects {head}: run `orderwatch db upgrade`")
    raise typer.Exit(0 if at == head else 1)


def _migrate(config: ConfigPath, revision: str, *, up: bool) -> None:
    from db import schema
    from orderwatch.session import configured, database

    with database(configured(config)) as engine:
        before = schema.current(engine)
        (schema.upgrade if up else schema.downgrade)(engine, revision)
        after = schema.current(engine)
    say(f"{before or 'empty'} -> {after or 'empty'}" if before != after else f"{after or 'empty'}: nothing to do")
