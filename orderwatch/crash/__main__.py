"""``python -m orderwatch.crash``: the explorer on the four kinds of provider, or on an adapter of yours."""

import importlib
import json
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, cast

import typer

from agents.providers.base import Provider
from orderwatch.crash import explore as explorer
from orderwatch.crash.process import Point
from orderwatch.crash.scenario import COMA, FAIL, FAULTS, FOR_ANY_SHOP, KILL, NAP, SCENARIOS
from orderwatch.crash.shop import CLASSES, Shop
from orderwatch.crash.world import Subject
from orderwatch.support.terminal import fail, say, show, warn

ACTS = {"kill": KILL, "fail": FAIL, "nap": NAP, "coma": COMA}

Adapter = Annotated[str, typer.Argument(help="MODULE:CLASS of an adapter, or none for the four kinds of provider.")]
ShopOf = Annotated[str, typer.Option("--shop", help="MODULE:CLASS of the shop that plays the provider's server.")]
Names = Annotated[list[str] | None, typer.Option(help="Only these; may be given several times.")]
Object = Annotated[str, typer.Option(metavar="JSON")]


def main(
    adapter: Adapter = "",
    shop: ShopOf = "",
    scenario: Names = None,
    fault: Names = None,
    act: Names = None,
    every: Annotated[int, typer.Option(min=1, help="Stop at every n-th point only.")] = 1,
    pairs: Annotated[int, typer.Option(min=0, help="Further runs with two disturbances each.")] = 0,
    seed: Annotated[int, typer.Option(help="Draws the pairs.")] = 1,
    mapping: Object = "{}",
    credentials: Object = "{}",
    options: Object = "{}",
) -> None:
    """Stop a process at every point of an order's life, in every way, and compare what was bought with the ledger."""
    scenarios = [SCENARIOS[name] for name in _chosen(scenario, list(SCENARIOS) if not adapter else list(FOR_ANY_SHOP))]
    faults = [FAULTS[name] for name in _chosen(fault, list(FAULTS))]
    acts = [ACTS[name] for name in _chosen(act, list(ACTS))]
    total, rows = explorer.Report(), []
    for subject in _subjects(adapter, shop, _object(mapping), _object(credentials), _object(options)):
        report = explorer.Report()
        todo: Iterator[tuple[explorer.Run, Point | None]] = chain(
            explorer.runs(subject, scenarios, faults, acts, every),
            explorer.pairs(subject, scenarios, faults, acts, pairs, seed),
        )
        explorer.explore(todo, report, progress=_progress(subject.name))
        rows.append(
            (
                subject.name,
                report.scenarios,
                report.points,
                report.runs,
                report.acts["kill"],
                report.acts["freeze"],
                report.acts["fail"],
                report.wrong,
                f"{report.seconds:.1f}",
            )
        )
        total.shortest = report.shortest | total.shortest
        total.wrong += report.wrong
        total.kinds.update(report.kinds)
        total.ends.update(report.ends)
        total.doubled += report.doubled
        total.swept += report.swept
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    show(("provider", "lives", "points", "runs", "kills", "freezes", "failures", "wrong", "seconds"), rows, empty="")
    say("ends: " + ", ".join(f"{count} {end}" for end, count in total.ends.most_common()))
    say(f"executed twice by the provider itself: {total.doubled}; woken by the sweeper only: {total.swept}")
    if total.wrong:
        for kind, (run, seen) in total.shortest.items():
            say()
            say(explorer.told(run, seen, kind))
        show(("wrong runs", "kind"), [(count, kind) for kind, count in total.kinds.most_common()], empty="")
        fail(f"{total.wrong} runs went wrong, in {len(total.shortest)} ways: their shortest traces are above")
    say("nothing was bought twice, nothing was lost")


def _subjects(
    adapter: str, shop: str, mapping: dict[str, Any], credentials: dict[str, Any], options: dict[str, Any]
) -> list[Subject]:
    if not adapter:
        return [Subject(name, kind, made) for name, (kind, made) in CLASSES.items()]
    if not shop:
        fail(f"--shop is missing; expected MODULE:CLASS of the shop that plays the server of {adapter}", 2)
    kind = cast("type[Provider]", _loaded(adapter))
    return [
        Subject(
            adapter.partition(":")[2],
            kind,
            cast("type[Shop]", _loaded(shop)),
            {key: f"10{n}" for n, key in enumerate(sorted(kind.mapping_keys))} | mapping,
            {key: f"kit-{key}" for key in kind.credentials} | credentials,
            options,
        )
    ]


def _loaded(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        fail(f"{name} cannot be loaded ({error}); expected MODULE:CLASS on the Python path", 2)


def _chosen(names: list[str] | None, known: list[str]) -> list[str]:
    for name in names or ():
        if name not in known:
            fail(f"{name!r} is not one of: {', '.join(known)}", 2)
    return names or known


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        fail("--mapping, --credentials and --options: expected a JSON object", 2)
    return value


def _progress(name: str) -> explorer.Progress:
    def tell(report: explorer.Report) -> None:
        if sys.stderr.isatty() and report.runs % 50 == 0:
            sys.stderr.write(f"\r{name}: {report.runs} runs, {report.wrong} wrong")
        elif report.wrong and report.runs % 1000 == 0:
            warn(f"{name}: {report.runs} runs, {report.wrong} wrong")

    return tell


if __name__ == "__main__":
    typer.run(main)
