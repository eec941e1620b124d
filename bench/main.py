"""What ``orderwatch bench`` does: run, show, and say whether every order was bought once."""

from bench import report, throughput
from bench.contenders import Contender
from bench.options import Options
from bench.others import contenders
from bench.report import Result
from bench.screen import Screen
from bench.stage import Stage
from orderwatch.terminal import say_json
from streams.errors import ConfigError

MODES = ("throughput",)


def run(
    mode: str, options: Options, *, against: str = "", repeats: int = 1, profile: bool = False, keep: bool = False,
    as_json: bool = False,
) -> int:  # fmt: skip
    """The exit status: 0, or 1 when an order was lost or bought twice. Raises ``AppError`` when a part fails."""
    if mode not in MODES:
        raise ConfigError(f"bench: {mode!r} is no mode; expected {', '.join(MODES)}")
    chosen = contenders(against)
    with Screen() as screen, Stage(keep=keep) as stage:
        if keep:
            screen.say(f"logs and data: {stage.directory}")
        results = interleaved(stage, chosen, options, repeats, screen, profile=profile)
    if as_json:
        say_json({"machine": report.machine(), "mode": mode, "runs": [result.document() for result in results]})
    else:
        report.show_results(results)
    return 1 if any(result.differences for result in results) else 0


def interleaved(
    stage: Stage, contenders: list[Contender], options: Options, repeats: int, screen: Screen, *, profile: bool = False
) -> list[Result]:
    """Every contender once, then every contender again: whatever disturbs the machine disturbs them alike."""
    return [
        throughput.run(stage, contender, options, screen, profile=profile)
        for _ in range(repeats)
        for contender in contenders
    ]
