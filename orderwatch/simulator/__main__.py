"""``python -m orderwatch.simulator``: both providers in one server program, until SIGTERM or Ctrl-C."""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from orderwatch.simulator.scenario import Scenario, ScenarioError, load
from orderwatch.simulator.server import Settings, start


def settings(argv: Sequence[str] | None = None) -> Settings:
    """The command line as settings. Exits with 2 on wrong usage; raises ``ScenarioError`` for a wrong file."""
    parser = argparse.ArgumentParser(prog="simulator", description="Simulated znet and ZDK shops with an exact ledger.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="the shops; 0 takes a free port")
    parser.add_argument("--control-port", type=int, default=0, help="the control API; 0 takes a free port")
    parser.add_argument("--seed", type=int, default=0, help="of every probability and answer time")
    parser.add_argument("--scenario", type=Path, help="accounts, lives and faults (YAML)")
    parser.add_argument("--no-request-log", action="store_true", help="keep the ledger only")
    given = parser.parse_args(argv)
    scenario = load(given.scenario) if given.scenario else Scenario()
    return Settings(given.host, given.port, given.control_port, given.seed, scenario, not given.no_request_log)


async def serve(chosen: Settings) -> None:
    """Print where it listens, as one JSON line, and serve until a signal comes."""
    running = await start(chosen)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    accounts = {name: running.base_url(name) for name in running.market.accounts}
    line = {"provider_url": running.provider_url, "control_url": running.control_url, "accounts": accounts}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    try:
        await stopped.wait()
    finally:
        await running.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 stopped by a signal, 1 a port is taken, 2 wrong usage or scenario."""
    try:
        uvloop.run(serve(settings(argv)))
    except ScenarioError as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"simulator: cannot listen: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
