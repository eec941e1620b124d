"""The ways to run the benchmark, each a list of runs or of findings."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from bench import backlog, history, recovery, throughput
from bench.contenders import Contender, Orderwatch
from bench.figures import repeated
from bench.options import Options
from bench.report import Finding, Result
from bench.screen import Screen
from bench.stage import Scene, Stage

CONCURRENCIES = (25, 50, 100, 200, 400)


@dataclass(slots=True)
class Outcome:
    """What a mode found."""

    results: list[Result] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    readings: list[backlog.Reading] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for: the load, who runs it, how often. ``size`` is a mode's own number: see each mode."""

    options: Options
    contenders: list[Contender]
    repeats: int
    size: int
    profile: bool


def compared(stage: Stage, asked: Request, screen: Screen) -> Outcome:
    """Every contender once, then every contender again: whatever disturbs the machine disturbs them alike."""
    return Outcome(
        [
            throughput.run(stage, contender, asked.options, screen, profile=asked.profile)
            for _ in range(asked.repeats)
            for contender in asked.contenders
        ]
    )


def latency(stage: Stage, asked: Request, screen: Screen) -> Outcome:
    """At a fixed arrival rate, 100 a second unless told otherwise, for 30 s.

    Three times as long before at the same rate, as a broker that has just started spends half a core on its compiler.
    """
    rate = asked.options.rate or 100.0
    orders = min(asked.options.orders, int(rate * 30))
    options = replace(asked.options, rate=rate, orders=orders, warm_up=3 * orders)
    return compared(stage, replace(asked, options=options), screen)


def sweep(stage: Stage, asked: Request, screen: Screen) -> Outcome:
    """Throughput over the calls that are allowed at the same time."""
    return Outcome(
        [
            throughput.run(
                stage,
                contender,
                replace(asked.options, concurrency=concurrency),
                screen,
                label=f"{contender.name}, {concurrency} at a time",
            )
            for _ in range(asked.repeats)
            for concurrency in CONCURRENCIES
            for contender in asked.contenders
        ]
    )


def scale(stage: Stage, asked: Request, screen: Screen) -> Outcome:
    """One worker process and two, each bound by its calls at a time, so that CPU is free."""
    options = asked.options
    found = Outcome(
        [
            throughput.run(stage, Orderwatch(), replace(options, workers=workers), screen, label=f"{workers} worker(s)")
            for _ in range(asked.repeats)
            for workers in (1, 2)
        ]
    )
    rates = {n: repeated([r.ended_rate for r in found.results if r.options.workers == n]).median for n in (1, 2)}
    found.findings.append(
        Finding(f"2 worker processes over 1, {options.concurrency} calls at a time each", f"{rates[2] / rates[1]:.2f}")
    )
    return found


def waiting(stage: Stage, asked: Request, screen: Screen) -> Outcome:
    """``size`` pending checks."""
    return Outcome(readings=backlog.run(stage, asked.options, asked.size or 1_000_000, screen))


def recovered(stage: Stage, asked: Request, screen: Screen) -> Outcome:
    """A worker killed, with one and with two processes."""
    found = Outcome()
    options = replace(asked.options, orders=min(asked.options.orders, 1000), limit_s=120.0)
    for contender in asked.contenders:
        for workers in (1, 2) if contender.name == "orderwatch" else (1,):
            found.findings += recovery.worker_killed(stage, contender, replace(options, workers=workers), screen)
    return found


def outage(stage: Stage, asked: Request, screen: Screen) -> Outcome:
    """A provider that was away comes back, with ``size`` checks due."""
    options = replace(asked.options, orders=asked.size or 20_000)
    return Outcome(findings=recovery.provider_away(stage, options, screen))


def growth(stage: Stage, asked: Request, screen: Screen) -> Outcome:
    """10,000 orders, the same after ``size`` old ones in the tables, and ``orders`` in one go."""
    short = replace(asked.options, orders=min(asked.options.orders, 10_000))

    def grown_old(scene: Scene) -> None:
        for first in range(1, asked.size + 1, 500_000):
            history.finished(scene, first, min(first + 499_999, asked.size))
            screen("old orders", min(first + 499_999, asked.size), asked.size)
        history.settle_statistics(scene)

    cases: list[tuple[str, Options, Callable[[Scene], None]]] = [(f"{short.orders} orders", short, lambda scene: None)]
    if asked.size:
        cases.append((f"{short.orders} orders over {asked.size} old ones", short, grown_old))
    if asked.options.orders > short.orders:
        cases.append((f"{asked.options.orders} orders", asked.options, lambda scene: None))
    found = Outcome(
        [
            throughput.run(stage, Orderwatch(), options, screen, label=label, before=before)
            for _ in range(asked.repeats)
            for label, options, before in cases
        ]
    )
    for label, _, _ in cases[1:]:
        cost = [
            repeated([r.worker_cpu for r in found.results if r.contender == name]).median
            for name in (cases[0][0], label)
        ]
        database = [
            repeated([r.cpu["PostgreSQL"] for r in found.results if r.contender == name]).median
            for name in (cases[0][0], label)
        ]
        found.findings += [
            Finding(f"worker CPU, {label} over {cases[0][0]}", f"{cost[1] / cost[0]:.2f}"),
            Finding(f"PostgreSQL CPU, {label} over {cases[0][0]}", f"{database[1] / database[0]:.2f}"),
        ]
    return found


def soak(stage: Stage, asked: Request, screen: Screen) -> Outcome:
    """A fixed rate for ``size`` minutes; memory after a tenth of it and at the end."""
    minutes, rate = asked.size or 60, asked.options.rate or 50.0
    options = replace(asked.options, rate=rate, orders=int(rate * 60 * minutes), limit_s=60.0 * minutes + 300)
    found = compared(stage, replace(asked, options=options, contenders=[Orderwatch()], repeats=1), screen)
    seen = found.results[0].memory_over_time
    grown = f"{seen[len(seen) // 10]:.0f}, {seen[-1]:.0f}"
    found.findings.append(Finding("worker MB after a tenth of the time, at the end", grown))
    return found


def batch(stage: Stage, asked: Request, screen: Screen) -> Outcome:
    """All orders at barakat, whose shop answers for many orders in one call."""
    return compared(stage, replace(asked, options=replace(asked.options, mix={"barakat": 1.0})), screen)


MODES: dict[str, Callable[[Stage, Request, Screen], Outcome]] = {
    "throughput": compared,
    "latency": latency,
    "backlog": waiting,
    "recovery": recovered,
    "outage": outage,
    "scale": scale,
    "growth": growth,
    "sweep": sweep,
    "batch": batch,
    "soak": soak,
}


def document(found: Outcome) -> dict[str, Any]:
    """For JSON."""
    return {
        "runs": [result.document() for result in found.results],
        "findings": [{"what": finding.what, "found": finding.found} for finding in found.findings],
        "backlog": [
            {"pending": r.pending, "worker": r.worker, "broker": r.broker, "at_start": r.at_start}
            for r in found.readings
        ],
    }
