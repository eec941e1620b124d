"""``python -m bench``: measures what an order costs on this machine, on real servers, beside peers if wanted."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from orderwatch.support.terminal import AsJson, warn
from streams.errors import AppError


def bench(
    mode: Annotated[
        str, typer.Argument(help="throughput, latency, backlog, recovery, outage, scale, growth, sweep, batch or soak.")
    ] = "throughput",
    orders: Annotated[int, typer.Option(min=1, help="Orders per run.")] = 20_000,
    checks: Annotated[int, typer.Option(min=1, help="Checks until an order is completed.")] = 1,
    latency_ms: Annotated[float, typer.Option(min=0, help="Of every answer of the provider.")] = 50.0,
    mix: Annotated[str, typer.Option(help="Providers and their shares, such as znet=8,barakat=2.")] = "znet",
    workers: Annotated[int, typer.Option(min=1, max=8, help="Worker processes.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, help="Calls at the same time, per integration and worker.")] = 200,
    rate: Annotated[float, typer.Option(min=0, help="Orders per second; 0: as fast as the broker takes them.")] = 0.0,
    against: Annotated[
        str, typer.Option(help="Peers to measure in the same run: floor, celery-{usual,lean}-{prefork,gevent}.")
    ] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each contender, interleaved.")] = 1,
    size: Annotated[
        int, typer.Option(min=0, help="Pending checks (backlog), checks due (outage), old orders (growth), minutes.")
    ] = 0,
    limit: Annotated[float, typer.Option(min=10, help="Seconds after which a run is given up.")] = 300.0,
    profile: Annotated[bool, typer.Option("--profile", help="Also show where the worker's CPU goes.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave logs and data in place.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write the JSON to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure on Apache Kafka, PostgreSQL with default durability and a simulated provider, all on this machine.

    Needs Java 17 and Maven for the broker. 1 when an order was lost or bought twice.
    """
    from bench.main import run
    from bench.modes import Request
    from bench.options import Options, mix_of
    from bench.others import contenders

    options = Options(
        orders=orders,
        checks=checks,
        latency_ms=latency_ms,
        mix=mix_of(mix),
        workers=workers,
        concurrency=concurrency,
        rate=rate,
        limit_s=limit,
    )
    asked = Request(options, contenders(against), repeats, size, profile)
    raise typer.Exit(run(mode, asked, keep=keep, as_json=as_json, output=output))


def main() -> NoReturn:
    """Run the benchmark named on the command line and exit with its status."""
    try:
        typer.run(bench)
    except AppError as error:
        warn(str(error))
        sys.exit(2)
    sys.exit(0)
