"""The command ``orderwatch``: one Typer app, and what an error looks like to the person who typed it.

Exit status: 0 done, 1 the thing asked about failed or does not exist, 2 wrong usage, configuration, or a server that
does not answer: one clear line per mistake on stderr, no traceback. Heavy libraries are imported inside the commands.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from orderwatch import (
    act_commands,
    attention_commands,
    bench_commands,
    codes_commands,
    config_commands,
    dashboard_commands,
    db_commands,
    dlq_commands,
    doctor_commands,
    integration_commands,
    order_commands,
    orders_commands,
    produce_commands,
    route_commands,
    run_commands,
    tail_commands,
    token_commands,
    topics_commands,
)
from orderwatch.terminal import warn
from streams.errors import AppError, OrderNotFound

app = typer.Typer(
    name="orderwatch",
    help="Order dispatch and monitoring: never bought twice, never lost, always explained.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich doubles the time that --help takes
    add_completion=False,
)
for commands in (
    run_commands, dashboard_commands, produce_commands, tail_commands, doctor_commands, integration_commands,
    bench_commands,
):  # fmt: skip
    commands.register(app)
app.add_typer(topics_commands.app, name="topics")
app.add_typer(db_commands.app, name="db")
app.add_typer(config_commands.app, name="config")
app.add_typer(orders_commands.app, name="orders")
act_commands.register(order_commands.app)
app.add_typer(order_commands.app, name="order")
app.add_typer(attention_commands.app, name="attention")
app.add_typer(dlq_commands.app, name="dlq")
app.add_typer(token_commands.app, name="token")
app.add_typer(codes_commands.app, name="codes")
app.add_typer(route_commands.app, name="route")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its status."""
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
