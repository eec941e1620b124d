"""What a chaos run found: the longest stall, how soon each disturbance was over, and the tables that say so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

#: Seconds since the start of the run.
Span = tuple[float, float]


@dataclass
class Happened:
    """One disturbance. ``progress_s`` is the time from its end to the next status change of any order."""

    title: str
    what: str
    began_s: float
    healed_s: float
    progress_s: float | None = None


@dataclass
class Findings:
    """The result of one run; ``wrong`` holds one line per broken promise."""

    seed: int
    command: str
    sent: int = 0
    repeats: int = 0
    completed: int = 0
    failed: int = 0
    bought: int = 0
    lost: list[str] = field(default_factory=list)
    bought_twice: list[str] = field(default_factory=list)
    wrong_states: list[str] = field(default_factory=list)
    unresolved: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    attention: Mapping[str, int] = field(default_factory=dict)
    took_s: float = 0.0
    longest: tuple[float, float] = (0.0, 0.0)
    longest_of_all: tuple[float, float] = (0.0, 0.0)
    happened: list[Happened] = field(default_factory=list)
    lost_answers: int = 0
    untrue_answers: int = 0
    workers: int = 0

    @property
    def wrong(self) -> list[str]:
        return [*self.lost, *self.bought_twice, *self.wrong_states, *self.unresolved, *self.leaks, *self.other]


def longest_stall(changes: Sequence[float], down: Sequence[Span]) -> tuple[float, float]:
    """(seconds, when it began) of the longest time without a status change in which nothing was deliberately down."""
    worst = (0.0, 0.0)
    for before, after in pairwise(changes):
        start = before
        for began, healed in sorted(down):
            if healed <= start or began >= after:
                continue
            worst = max(worst, (began - start, start))
            start = max(start, healed)
        worst = max(worst, (after - start, start))
    return worst


def progress_after(changes: Sequence[float], moment: float) -> float | None:
    """Seconds from a moment to the next status change; None when there was none."""
    return next((change - moment for change in changes if change >= moment), None)


def results(found: Findings) -> list[tuple[str, str]]:
    """The rows of the table."""
    attention = ", ".join(f"{code} {count}" for code, count in sorted(found.attention.items()))
    return [
        ("orders sent", f"{found.sent:,}"),
        ("sent once more as duplicates", f"{found.repeats:,}"),
        ("completed / failed", f"{found.completed:,} / {found.failed:,}"),
        ("executions at the providers", f"{found.bought:,}"),
        ("answers to placements lost", f"{found.lost_answers:,}"),
        ("answers that did not say what happened", f"{found.untrue_answers:,}"),
        ("orders lost", str(len(found.lost))),
        ("bought twice", str(len(found.bought_twice))),
        ("final states wrong", str(len(found.wrong_states))),
        ("unresolved", str(len(found.unresolved))),
        ("secrets in clear", str(len(found.leaks))),
        ("other findings", str(len(found.other))),
        ("disturbances", str(len(found.happened))),
        ("worker processes started", str(found.workers)),
        ("longest stall with nothing down", f"{found.longest[0]:.1f} s (at {found.longest[1]:.0f} s)"),
        ("longest stall, outages included", f"{found.longest_of_all[0]:.1f} s (at {found.longest_of_all[1]:.0f} s)"),
        ("attention raised", attention or "none"),
        ("took", f"{found.took_s:.0f} s"),
    ]


def markdown(found: Findings, at: datetime, machine: str) -> str:
    """The report as a page."""
    lines = [
        f"Run of {at:%Y-%m-%d} with seed {found.seed} on {machine}. Repeat it:",
        "",
        "```",
        found.command,
        "```",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in results(found)),
        "",
        "| at | disturbance | for | next status change after it |",
        "|---|---|---|---|",
    ]
    for one in found.happened:
        next_ = "none was left to change" if one.progress_s is None else f"{one.progress_s:.1f} s"
        lines.append(f"| {one.began_s:.0f} s | {one.what} | {one.healed_s - one.began_s:.1f} s | {next_} |")
    lines += ["", *(f"- {line}" for line in found.wrong)]
    return "\n".join(lines).rstrip() + "\n"


def plain(found: Findings) -> str:
    """The table for a terminal."""
    rows = results(found)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)
