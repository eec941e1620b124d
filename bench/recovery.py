"""What is away comes back: a worker that is killed while checks wait, a provider that does not answer for a while."""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

import psutil

from bench import evidence as ev
from bench import throughput
from bench.contenders import WORKER, Contender, Orderwatch, placing
from bench.figures import spread
from bench.options import Options
from bench.report import Finding
from bench.stage import Scene, Stage
from bench.throughput import MEASURED, Progress, until_ended
from orderwatch.localservers.bundled import PartError

KILL_CHECK_AFTER_S = 4.0
#: The provider goes away when the last order is placed, before the first check is due: so all of them are when it is
#: back, if orders were placed at this rate at least.
OUTAGE_CHECK_AFTER_S = 45.0
PLACED_PER_S = 150.0
OUTAGE_S = 60.0
CHECK_RATE = 500.0
NEW_ORDERS_RATE = 20.0
_NEW = "n"
#: What every order's id begins with.
_ANY = ""
_LOOK_S = 0.25
_AWAY = {"kind": "error_before", "status": 503, "times": None}


def worker_killed(stage: Stage, contender: Contender, options: Options, progress: Progress) -> list[Finding]:
    """SIGKILL of a worker just before its checks are due.

    With one worker a supervisor starts it again at once; with two, the other one takes over.
    """
    options = replace(options, first_after_s=KILL_CHECK_AFTER_S)
    with stage.scene(options) as scene:
        contender.start(scene)
        throughput.warm(contender, scene, progress)
        with placing(contender, scene, MEASURED, options.orders, options.rate) as shop:
            shop.result()
            _until_bought(scene, options, progress, contender.name)
            _kill(scene)
            if options.workers == 1 or not isinstance(contender, Orderwatch):
                scene.stop(WORKER)
                contender.start_worker(scene, options.workers)
            with suppress(PartError):
                until_ended(contender, scene, MEASURED, options.orders, progress)
        evidence = contender.evidence(scene, MEASURED)
        requests = ev.asked_of(scene)
        late = spread(ev.late(evidence, requests, KILL_CHECK_AFTER_S, options.latency_ms / 1000))
        ended = contender.ended(scene, MEASURED)
        differences = contender.differences(scene, MEASURED, evidence) if ended == options.orders else []
    who = f"{contender.name}, {options.workers} worker(s)"
    return [
        Finding(
            f"{who}: checks after SIGKILL, late by p50 / p99 / max",
            f"{late.p50:.1f} / {late.p99:.1f} / {late.most:.1f} s",
        ),
        Finding(f"{who}: orders that ended within {options.limit_s:g} s", f"{ended} of {options.orders}"),
        *(Finding(f"{who}: books", text) for text in differences[:5]),
    ]


def _until_bought(scene: Scene, options: Options, progress: Progress, what: str) -> None:
    give_up_at = time.monotonic() + options.limit_s
    while (bought := int(scene.control("GET", "/health")["executed"])) < options.orders:
        progress(what, bought, options.orders)
        scene.refuse_dead()
        if time.monotonic() > give_up_at:
            raise PartError(f"{bought} of {options.orders} orders were placed after {options.limit_s:g} s")
        time.sleep(_LOOK_S)


def _kill(scene: Scene) -> None:
    """One worker process of ours, or the whole tree of a peer's."""
    tree = [p for root in scene.roots()[WORKER] for p in (psutil.Process(root), *psutil.Process(root).children(True))]
    workers = [process for process in tree if "faust" in process.cmdline()]
    for process in workers[:1] or tree:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def provider_away(stage: Stage, options: Options, progress: Progress, outage_s: float = OUTAGE_S) -> list[Finding]:
    """Every check becomes due while the provider answers 503; new orders come in from the moment it is back."""
    check_after_s = OUTAGE_CHECK_AFTER_S + options.orders / PLACED_PER_S
    options = replace(options, first_after_s=check_after_s, check_rate=CHECK_RATE)
    contender = Orderwatch()
    with stage.scene(options) as scene:
        contender.start(scene)
        with placing(contender, scene, MEASURED, options.orders, 0.0) as shop:
            shop.result()
            _until_bought(scene, options, progress, contender.name)
        away = time.time()
        scene.control(
            "PATCH", "/accounts/znet-1", {"faults": [{**_AWAY, "operation": kind} for kind in ("place", "check")]}
        )
        _wait(check_after_s + outage_s, progress)
        back = time.time()
        scene.control("PATCH", "/accounts/znet-1", {"faults": []})
        new = int(NEW_ORDERS_RATE * (60 + options.orders / CHECK_RATE))
        with placing(contender, scene, _NEW, new, NEW_ORDERS_RATE) as shop:
            until_ended(contender, scene, _ANY, options.orders + new, progress)
            shop.result()
        evidence, fresh = ev.of_ours(scene, MEASURED), ev.of_ours(scene, _NEW)
        requests = ev.asked_of(scene)
        differences = ev.books(scene, MEASURED, evidence).differences + ev.books(scene, _NEW, fresh).differences
    due = sum(away < requests.placed[reference] + check_after_s < back for reference in evidence.references)
    asked = sorted(at for reference in evidence.references for at in requests.asked[reference] if at > back)
    full = busiest(asked)
    waits = [
        (at, at - fresh.appended[order])
        for reference, at in requests.placed.items()
        if (order := fresh.references.get(reference)) in fresh.appended
    ]
    opened, caught_up = (asked[0], asked[-1]) if asked else (back, back)
    while_busy = spread(1000 * wait for at, wait in waits if opened < at - wait < caught_up)
    return [
        Finding(f"checks that became due in an outage of {check_after_s + outage_s:.0f} s", str(due)),
        Finding("the first was asked", f"{opened - back:.1f} s after the provider was back"),
        Finding("all were asked", f"{caught_up - opened:.1f} s later" if asked else "never"),
        Finding(f"checks per second when the lane was open (its rate is {CHECK_RATE:g}/s)", f"{full:.0f}"),
        Finding(
            "new orders meanwhile, append to provider p50 / p99",
            f"{while_busy.p50:.0f} / {while_busy.p99:.0f} ms ({while_busy.count} orders)",
        ),
        Finding("books", "agree" if not differences else "; ".join(differences[:5])),
    ]


def busiest(instants: Iterable[float], window_s: int = 10) -> float:
    """The highest rate per second over any window of so many whole seconds."""
    counts = Counter(int(at) for at in instants)
    if not counts:
        return 0.0
    first, last = min(counts), max(counts)
    starts = range(first, max(last - window_s + 2, first + 1))
    return max(sum(counts[second] for second in range(start, start + window_s)) for start in starts) / window_s


def _wait(seconds: float, progress: Progress) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        progress("outage, seconds", int(seconds - left), int(seconds))
        time.sleep(min(left, 1.0))
