"""A run in figures, as a table for people and as JSON for programs. Pure but for ``show_*``."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import Spread, repeated
from bench.options import Options
from bench.processes import Cost
from bench.profiling import Profile
from orderwatch.support.terminal import say, show


@dataclass(slots=True)
class Result:
    """One run of one contender. Rates are per second, ``cpu`` seconds per 1,000 orders, ``memory`` MB at the peak."""

    contender: str
    options: Options
    wall_s: float
    placed_rate: float
    ended_rate: float
    cpu: dict[str, float]
    memory: dict[str, float]
    wait_ms: Spread
    late_ms: Spread
    early: int
    per_order: dict[str, float]
    lag: int
    differences: list[str] = field(default_factory=list)
    notes: dict[str, float] = field(default_factory=dict)
    late_quantiles_ms: list[float] = field(default_factory=list)
    memory_over_time: list[float] = field(default_factory=list)
    profile: Profile | None = None

    @property
    def worker_cpu(self) -> float:
        """CPU seconds of all worker processes per 1,000 orders."""
        return self.cpu.get("worker", 0.0)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        said = asdict(self)
        del said["profile"]
        return {**said, "books_agree": not self.differences}


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure that is no run's, in words."""

    what: str
    found: str


def per_thousand(costs: Mapping[str, Cost], orders: int) -> dict[str, float]:
    """CPU seconds per 1,000 orders of each process."""
    return {name: cost.cpu_s * 1000 / orders for name, cost in costs.items()}


def megabytes(costs: Mapping[str, Cost]) -> dict[str, float]:
    """Peak memory of each process."""
    return {name: cost.memory / 2**20 for name, cost in costs.items()}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text("utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cores": os.cpu_count(),
        "cpu": model or platform.processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """One row per contender: medians over its runs, with the lowest and highest CPU figure."""
    table: list[tuple[str, ...]] = []
    for name in dict.fromkeys(result.contender for result in results):
        runs = [result for result in results if result.contender == name]
        cpu = repeated([run.worker_cpu for run in runs])

        def middle(values: Sequence[float]) -> float:
            return repeated(values).median

        table.append(
            (
                name,
                str(len(runs)),
                f"{cpu.median:.2f} ({cpu.low:.2f}-{cpu.high:.2f})",
                f"{middle([run.cpu.get('broker', 0) + run.cpu.get('redis', 0) for run in runs]):.2f}",
                f"{middle([run.cpu.get('PostgreSQL', 0) for run in runs]):.2f}",
                f"{middle([run.placed_rate for run in runs]):.0f}",
                f"{middle([run.ended_rate for run in runs]):.0f}",
                f"{middle([run.wait_ms.p50 for run in runs]):.1f} / {middle([run.wait_ms.p99 for run in runs]):.1f}",
                f"{middle([run.late_ms.p50 for run in runs]):.1f} / {middle([run.late_ms.p99 for run in runs]):.1f}",
                str(sum(run.early for run in runs)),
                f"{middle([run.memory.get('worker', 0) for run in runs]):.0f}",
            )
        )
    return table


HEADINGS = (
    "contender",
    "runs",
    "worker CPU s / 1000",
    "broker",
    "PostgreSQL",
    "placed/s",
    "ended/s",
    "wait ms p50 / p99",
    "late ms p50 / p99",
    "early",
    "worker MB",
)


def show_result(result: Result) -> None:
    """Everything about one run."""
    late, wait = result.late_ms, result.wait_ms
    pairs: list[tuple[str, str]] = [
        ("orders", f"{result.options.orders}, each completed after {result.options.checks} check(s)"),
        ("placed", f"{result.placed_rate:.0f}/s"),
        ("to their end", f"{result.ended_rate:.0f}/s, in {result.wall_s:.1f} s"),
        *((f"CPU of {name}", f"{value:.3f} s per 1,000 orders") for name, value in result.cpu.items()),
        *((f"memory of {name}", f"{value:.0f} MB at the peak") for name, value in result.memory.items()),
        ("append to provider", f"p50 {wait.p50:.1f} ms, p99 {wait.p99:.1f} ms, max {wait.most:.1f} ms"),
        ("lateness of checks", f"p50 {late.p50:.1f} ms, p99 {late.p99:.1f} ms, max {late.most:.1f} ms"),
        ("early checks", str(result.early)),
        *((f"{name} per order", f"{value:.2f}") for name, value in result.per_order.items()),
        ("lag at the end", str(result.lag)),
        *((name, f"{value:.2f}") for name, value in result.notes.items()),
        ("books", "agree" if not result.differences else "; ".join(result.differences[:5])),
    ]
    show(("figure", result.contender), pairs, empty="")


def show_profile(profile: Profile, lines: int = 40) -> None:
    """By thread, by library, and the functions that cost most, themselves and with what they call."""
    show(
        ("CPU s", "threads as the system names them"),
        [(f"{seconds:.2f}", name) for name, seconds in profile.cpu_s.most_common()],
        empty="-",
    )
    for title, counted, most in (
        ("thread", profile.threads, 12),
        ("library of the innermost function", profile.areas, 20),
        ("function by itself", profile.own, lines),
        ("function and what it calls", profile.whole, 2 * lines),
    ):
        say()
        show(("share", title), [(profile.share(n), _short(name)) for name, n in counted.most_common(most)], empty="-")


def _short(frame: str) -> str:
    """A frame without the directories above its package."""
    name, _, place = frame.partition(" (")
    return f"{name} ({'/'.join(place.split('/')[-3:])}" if place else frame


def show_results(results: Sequence[Result]) -> None:
    """One run in full, several as a table of medians."""
    for result in results:
        if result.profile is not None:
            show_profile(result.profile)
    if len(results) == 1:
        show_result(results[0])
        return
    show(HEADINGS, rows(results), empty="no run")
    for result in results:
        if result.differences:
            say(f"{result.contender}: books disagree: {'; '.join(result.differences[:3])}")
