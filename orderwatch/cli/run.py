"""``orderwatch demo``, ``worker``, ``simulator`` and ``asyncapi``."""

import os
from pathlib import Path
from typing import Annotated

import typer

from orderwatch.support.terminal import CONFIG, AsJson, ConfigPath, say, say_json


def register(app: typer.Typer) -> None:
    """Add the commands to the root app."""
    app.command("demo")(demo)
    app.command("worker")(worker)
    app.command(
        "simulator", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
    )(simulator)
    app.command("asyncapi")(asyncapi)


def demo(
    orders: Annotated[int | None, typer.Option(min=1, help="How many orders; default: the shipped file.")] = None,
    seed: Annotated[int, typer.Option(help="Of the simulated providers' faults.")] = 7,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Everything at once on bundled parts: orders, simulated providers, and four books that must agree.

    1 when they do not, or when not everything has ended after 90 s.
    """
    from orderwatch.demo.play import run

    raise typer.Exit(run(orders, as_json=as_json, seed=seed, keep=keep))


def worker(
    processes: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    web_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the first process; the others count up. 0: any free ones.")
    ] = 6066,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for broker and database.")] = 60.0,
    config: ConfigPath = CONFIG,
) -> None:
    """Run workers until SIGTERM or Ctrl-C; brings topics and schema up to date first. 1 when a process failed."""
    from orderwatch.worker.startup import run

    raise typer.Exit(run(config, processes, web_port, wait))


def simulator(context: typer.Context) -> None:
    """Run the provider simulator; its own options follow, see `orderwatch simulator --help`."""
    from orderwatch.simulator.__main__ import main

    raise typer.Exit(main(context.args))


def asyncapi(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file, not to stdout.")] = None,
    config: ConfigPath = CONFIG,
    as_json: AsJson = False,
) -> None:
    """Print the AsyncAPI 3 document of this configuration's topics and events."""
    from streams.asyncapi import document, text
    from streams.config.loader import load

    made = document(load(config, os.environ))
    if output is not None:
        output.write_text(text(made), encoding="utf-8")
    elif as_json:
        say_json(made)
    else:
        say(text(made).rstrip())
