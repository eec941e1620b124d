"""What ``python -m bench`` does: run, show, and say whether every order was bought once."""

import signal
import sys
from pathlib import Path

import msgspec

from bench import backlog, modes, report
from bench.modes import MODES, Outcome, Request
from bench.screen import Screen
from bench.stage import Stage
from orderwatch.support.terminal import say_json, show
from streams.errors import ConfigError


def run(mode: str, asked: Request, *, keep: bool = False, as_json: bool = False, output: Path | None = None) -> int:
    """The exit status: 0, or 1 when an order was lost or bought twice. Raises ``AppError`` when a part fails."""
    if mode not in MODES:
        raise ConfigError(f"bench: {mode!r} is no mode; expected {', '.join(MODES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through every clean-up
    with Screen() as screen, Stage(keep=keep) as stage:
        if keep:
            screen.say(f"logs and data: {stage.directory}")
        found = MODES[mode](stage, asked, screen)
    said = {"machine": report.machine(), "mode": mode, **modes.document(found)}
    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(said)))
    if as_json:
        say_json(said)
    else:
        _show(found)
    return 1 if any(result.differences for result in found.results) else 0


def _show(found: Outcome) -> None:
    if found.results:
        report.show_results(found.results)
    if found.readings:
        backlog.show_readings(found.readings)
    if found.findings:
        show(("figure", "found"), [(finding.what, finding.found) for finding in found.findings], empty="")
