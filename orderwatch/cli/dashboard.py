"""``orderwatch dashboard``: the pages and the HTTP API."""

import os
from pathlib import Path
from typing import Annotated

import typer

from orderwatch.support.terminal import CONFIG, AsJson, ConfigPath, say, say_json


def register(app: typer.Typer) -> None:
    """Add the command to the root app."""
    app.command("dashboard")(dashboard)
    app.command("openapi")(openapi)


def dashboard(
    host: Annotated[str | None, typer.Option(help="Instead of web.host of the configuration.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Instead of web.port; 0: any free one.")] = None,
    config: ConfigPath = CONFIG,
) -> None:
    """Serve the pages and the HTTP API until SIGTERM or Ctrl-C. People log in with a token of `orderwatch token`."""
    import logging.config
    import sys

    from agents.maintenance.heartbeat import release
    from orderwatch.dashboard.context import gather
    from orderwatch.dashboard.serve import Server, address, listen
    from orderwatch.support.session import configured
    from streams import traces
    from streams.config.loader import secrets
    from streams.errors import ConfigError
    from streams.logs import hide, logging_config
    from streams.seal import VARIABLE, Sealer

    settings = configured(config)
    hide(secrets(settings))
    logging.config.dictConfig(logging_config(settings.worker.log_level, settings.worker.log_format))
    sealer = Sealer.from_environ(os.environ) if VARIABLE in os.environ else None
    where = (host or settings.web.host, settings.web.port if port is None else port)
    server = Server(gather(settings, sealer, os.environ))
    try:
        listening = listen(*where)
    except OSError as error:
        raise ConfigError(
            f"web.host, web.port: cannot listen on {where[0]} port {where[1]} ({error.strerror})"
        ) from None
    traces.start(settings.telemetry, "orderwatch-dashboard", release())
    with listening:
        say(f"dashboard at {address(where[0], listening)}")
        sys.stdout.flush()
        server.run([listening])


def openapi(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file, not to stdout.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the OpenAPI 3.1 document of the HTTP API. Needs no server."""
    from pydantic import SecretStr

    from orderwatch.dashboard.api.openapi import document, text
    from orderwatch.dashboard.app import create
    from orderwatch.dashboard.context import gather
    from streams.config.loader import Config, DatabaseConfig, KafkaConfig

    nowhere = Config(
        kafka=KafkaConfig(bootstrap_servers="127.0.0.1:1"), database=DatabaseConfig(url=SecretStr("postgresql://"))
    )
    made = document(create(gather(nowhere, None, {})))
    if output is not None:
        output.write_text(text(made), encoding="utf-8")
    elif as_json:
        say_json(made)
    else:
        say(text(made).rstrip())
