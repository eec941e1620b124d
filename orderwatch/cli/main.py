"""The command ``orderwatch``: one Typer app, and what an error looks like to the person who typed it.

Exit status: 0 done, 1 the thing asked about failed or does not exist, 2 wrong usage, configuration, or a server that
does not answer: one clear line per mistake on stderr, no traceback. Heavy libraries are imported inside the commands.
"""

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

import typer

from orderwatch.cli import (
    attention,
    codes,
    config,
    dashboard,
    db,
    dlq,
    doctor,
    integration,
    order,
    order_actions,
    orders,
    produce,
    route,
    run,
    tail,
    token,
    topics,
)
from orderwatch.support.terminal import warn
from streams.errors import AppError, OrderNotFound

app = typer.Typer(
    name="orderwatch",
    help="Order dispatch and monitoring: never bought twice, never lost, always explained.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich doubles the time that --help takes
    add_completion=False,
)
for commands in (run, dashboard, produce, tail, doctor, integration):
    commands.register(app)
app.add_typer(topics.app, name="topics")
app.add_typer(db.app, name="db")
app.add_typer(config.app, name="config")
app.add_typer(orders.app, name="orders")
order_actions.register(order.app)
app.add_typer(order.app, name="order")
app.add_typer(attention.app, name="attention")
app.add_typer(dlq.app, name="dlq")
app.add_typer(token.app, name="token")
app.add_typer(codes.app, name="codes")
app.add_typer(route.app, name="route")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what a terminal cannot show is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        app(arguments, prog_name="orderwatch")
    except OrderNotFound as error:
        warn(str(error))
        sys.exit(1)
    except AppError as error:
        warn(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)
