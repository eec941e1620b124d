"""Enumerates the points of every run and stops a process at each of them; finds the shortest run that goes wrong."""

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from orderwatch.crash.judge import Judge
from orderwatch.crash.process import Point
from orderwatch.crash.scenario import COMA, FAIL, FAULTS, KILL, NAP, SCENARIOS, Act, Fault, Scenario
from orderwatch.crash.world import Subject, World, open_states, virtual

#: (number of runs so far) -> whether to go on.
Progress = Callable[["Report"], None]


#: How often a person may have to say what happened to one order: each not_sent starts another attempt.
_VERDICTS = 4


@dataclass(frozen=True)
class Run:
    """One run, as it can be repeated."""

    subject: Subject
    scenario: Scenario
    fault: Fault
    plan: Mapping[int, Act] = field(default_factory=dict)

    def __str__(self) -> str:
        acts = ", ".join(f"{act} at point {number}" for number, act in sorted(self.plan.items())) or "undisturbed"
        return f"{self.subject.name} / {self.scenario.name} / fault {self.fault.name} / {acts}"


@dataclass(frozen=True)
class Seen:
    """What a run showed."""

    points: list[Point]
    objections: list[str]
    trace: list[str]
    ends: Counter[str]
    doubled: int
    asleep: int


@dataclass
class Report:
    """What an exploration covered, and the first wrong run of each kind, made as short as it goes."""

    runs: int = 0
    points: int = 0
    scenarios: int = 0
    seconds: float = 0.0
    acts: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    #: References that the provider executed twice by itself, and orders that only the sweeper woke.
    doubled: int = 0
    swept: int = 0
    wrong: int = 0
    #: Wrong runs by kind of objection; a run may show several.
    kinds: Counter[str] = field(default_factory=Counter)
    shortest: dict[str, tuple[Run, Seen]] = field(default_factory=dict)


def perform(run: Run) -> Seen:
    """One run from its start to its end, and what the judge has to say."""
    world = World(run.subject, run.scenario, run.fault, run.plan)
    judge = Judge(world)
    with virtual(world):
        world.run()
        counted = list(world.points)
        judge.at_rest()
        asleep = len(judge.asleep()) if run.scenario.ends else 0
        world.run_sweeps()
        judge.at_end()
        ends = Counter(_end(state.order.external_status, state.order.waiting) for state in world.ledger.states())
        for _ in range(_VERDICTS):
            for state in open_states(world):
                world.resolve(state.order.order_id)
            world.loop.run_to(world.loop.time() + run.scenario.hours * 3600)
        judge.after_people()
        return Seen(counted, world.objections, world.trace, ends, len(world.faults.doubled), asleep)


def _end(external_status: str, waiting: str | None) -> str:
    return external_status + (f" ({waiting})" if waiting else "")


def runs(
    subject: Subject, scenarios: Iterable[Scenario], faults: Iterable[Fault], acts: Iterable[Act], every: int = 1
) -> Iterator[tuple[Run, Point | None]]:
    """Each scenario under each fault: undisturbed, then disturbed by each act at every ``every``-th of its points."""
    faults, acts = list(faults), list(acts)
    for scenario in scenarios:
        for fault in faults:
            base = Run(subject, scenario, fault)
            points = perform(base).points
            yield base, None
            for number, point in enumerate(points):
                for which, act in enumerate(acts):
                    if (number + which) % every == 0 and (act.kind != "fail" or point.can_fail):
                        yield replace(base, plan={number: act}), point


def pairs(
    subject: Subject, scenarios: Iterable[Scenario], faults: Iterable[Fault], acts: Iterable[Act], count: int, seed: int
) -> Iterator[tuple[Run, Point | None]]:
    """Two disturbances in one run, drawn by ``seed``: the second one may hit what recovers from the first."""
    draw = random.Random(seed)  # noqa: S311 - to repeat it, not to hide it
    scenarios, faults, acts = list(scenarios), list(faults), list(acts)
    lengths: dict[tuple[str, str], int] = {}
    for _ in range(count):
        scenario, fault = draw.choice(scenarios), draw.choice(faults)
        base = Run(subject, scenario, fault)
        name = (scenario.name, fault.name)
        if name not in lengths:
            lengths[name] = len(perform(base).points)
        first = draw.randrange(lengths[name])
        second = first + 1 + min(draw.randrange(1, lengths[name] + 1), draw.randrange(1, lengths[name] + 1))
        yield replace(base, plan={first: draw.choice(acts), second: draw.choice(acts)}), None


def explore(
    todo: Iterable[tuple[Run, Point | None]],
    report: Report | None = None,
    *,
    shrink: bool = True,
    stop_after: int = 0,
    progress: Progress = lambda report: None,
) -> Report:
    """Perform runs; of those that go wrong the first of each kind is made short. ``stop_after`` wrong ones it ends."""
    report = report or Report()
    started = time.monotonic()
    for run, _ in todo:
        seen = perform(run)
        report.runs += 1
        report.points += len(seen.points) if not run.plan else 0
        report.scenarios += not run.plan
        report.acts.update(act.kind for act in run.plan.values())
        report.ends.update(seen.ends)
        report.doubled += seen.doubled
        report.swept += seen.asleep
        if seen.objections:
            report.wrong += 1
            _note(report, run, seen, shrink=shrink)
        progress(report)
        if stop_after and report.wrong >= stop_after:
            break
    report.seconds += time.monotonic() - started
    return report


def _note(report: Report, run: Run, seen: Seen, *, shrink: bool) -> None:
    """Every kind of objection of a run is counted, and the first run of each kind is kept."""
    for kind in dict.fromkeys(map(_kind, seen.objections)):
        report.kinds[kind] += 1
        if kind not in report.shortest:
            report.shortest[kind] = shortest(run, seen, kind) if shrink else (run, seen)


#: What differs between objections of one kind: quoted contents, references, numbers.
_NAMES = re.compile(r"""b'.*'|b".*"|\b[0-9a-f]{8}[0-9a-f-]*\b|\d+""", re.DOTALL)


def _kind(objection: str) -> str:
    """An objection without its names, numbers and quoted contents."""
    return _NAMES.sub("#", objection)


def shortest(run: Run, seen: Seen, kind: str | None = None) -> tuple[Run, Seen]:
    """The smallest run found that raises the same kind of objection (by default the first one of ``seen``): fewer
    disturbances, steps, units, no fault, less trace."""
    kind = kind or _kind(seen.objections[0])
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(run):
            found = perform(candidate)
            if kind in map(_kind, found.objections) and _length(candidate, found, kind) < _length(run, seen, kind):
                run, seen, smaller = candidate, found, True
                break
    return run, seen


def _length(run: Run, seen: Seen, kind: str) -> tuple[int, int, int]:
    return len(run.scenario.steps), len(run.plan), _first(seen, kind)


def _first(seen: Seen, kind: str | None) -> int:
    """Where the trace shows an objection of this kind (None: any) for the first time."""
    for number, line in enumerate(seen.trace):
        _, wrong, objection = line.partition("WRONG: ")
        if wrong and kind in (None, _kind(objection)):
            return number
    return len(seen.trace)


def _smaller(run: Run) -> Iterator[Run]:
    for number in run.plan:
        yield replace(run, plan={other: act for other, act in run.plan.items() if other != number})
    steps = run.scenario.steps
    for index in range(len(steps) if len(steps) > 1 else 0):
        fewer = replace(run, scenario=replace(run.scenario, steps=(*steps[:index], *steps[index + 1 :])))
        yield fewer
        yield from _earlier(fewer)
    if any(step.quantity > 1 for step in steps):
        yield replace(run, scenario=replace(run.scenario, steps=tuple(replace(step, quantity=1) for step in steps)))
    if run.scenario.busy:
        yield replace(run, scenario=replace(run.scenario, busy=0))
    if run.fault.name != "none":
        yield replace(run, fault=FAULTS["none"])
    yield from _earlier(run)


def _earlier(run: Run) -> Iterator[Run]:
    for number, act in run.plan.items():
        others = {other: kept for other, kept in run.plan.items() if other != number}
        for earlier in range(number):
            if earlier not in others:
                yield replace(run, plan={**others, earlier: act})


def told(run: Run, seen: Seen, kind: str | None = None) -> str:
    """A wrong run for people: what it was, what was wrong, and every step up to the first of it (of this kind)."""
    steps = "\n".join(f"  {step}" for step in run.scenario.steps)
    wrong = "\n".join(f"  {objection}" for objection in dict.fromkeys(seen.objections))
    return f"{run}\nSteps\n{steps}\nWrong\n{wrong}\nTrace\n" + "\n".join(seen.trace[: _first(seen, kind) + 1])


__all__ = ["COMA", "FAIL", "FAULTS", "KILL", "NAP", "SCENARIOS", "Report", "Run", "explore", "pairs", "perform", "told"]
