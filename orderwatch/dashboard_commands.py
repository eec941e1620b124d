"""``orderwatch dashboard``: the pages and the HTTP API."""

import os
from typing import Annotated

import typer

from orderwatch.terminal import CONFIG, ConfigPath, say


def register(app: typer.Typer) -> None:
    """Add the command to the root app."""
    app.command("dashboard")(dashboard)


def dashboard(
    host: Annotated[str | None, typer.Option(help="Instead of web.host of the configuration.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Instead of web.port; 0: any free one.")] = None,
    config: ConfigPath = CONFIG,
) -> None:
    """Serve the pages and the HTTP API until SIGTERM or Ctrl-C. People log in with a token of `orderwatch token`."""
    import logging.config
    import sys

    from orderwatch.session import configured
    from streams.errors import ConfigError
    from streams.logs import logging_config
    from streams.seal import VARIABLE, Sealer
    from web.parts import gather
    from web.serve import Server, address, listen

    settings = configured(config)
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
    with listening:
        say(f"dashboard at {address(where[0], listening)}")
        sys.stdout.flush()
        server.run([listening])
