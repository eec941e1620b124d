"""Memory of worker and broker while more and more checks wait."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench import history, throughput
from bench.contenders import WORKER, Orderwatch
from bench.options import Options
from bench.processes import Meter
from bench.stage import Scene, Stage
from bench.throughput import Progress
from orderwatch.support.terminal import show

WAIT_S = 3600.0
STEPS = (1_000, 10_000, 100_000, 1_000_000)
_SETTLE_S = 8.0
_MB = 2**20


@dataclass(frozen=True, slots=True)
class Reading:
    """Bytes with so many checks pending; ``at_start`` was read on a worker that was started with them."""

    pending: int
    worker: int
    broker: int
    at_start: bool = False


def run(stage: Stage, options: Options, most: int, progress: Progress) -> list[Reading]:
    """Fill up to ``most`` pending checks below one running worker; then start a fresh one on top of them."""
    contender, readings = Orderwatch(), []
    steps = sorted({step for step in STEPS if step < most} | {most})
    with stage.scene(options) as scene:
        contender.start(scene)
        throughput.warm(contender, scene, progress)
        seeded = 0
        for step in steps:
            history.pending(scene, seeded + 1, step, WAIT_S)
            seeded = step
            progress("pending checks", step, most)
            readings.append(_read(scene, step))
        scene.stop(WORKER)
        contender.start_worker(scene, options.workers)
        throughput.warm(contender, scene, progress, prefix="again")
        readings.append(_read(scene, seeded, at_start=True))
    return readings


def _read(scene: Scene, pending: int, *, at_start: bool = False) -> Reading:
    """After the worker has looked at every head and gone back to sleep."""
    time.sleep(_SETTLE_S)
    scene.refuse_dead()
    now = Meter(scene.roots()).memory()
    return Reading(pending, now[WORKER], now["broker"], at_start)


def per_check(readings: Sequence[Reading]) -> float:
    """Bytes of worker and broker that one more pending check costs, between the first reading and the last."""
    running = [reading for reading in readings if not reading.at_start]
    first, last = running[0], running[-1]
    more = last.pending - first.pending
    return (last.worker + last.broker - first.worker - first.broker) / more if more else 0.0


def show_readings(readings: Iterable[Reading]) -> None:
    """A table, and the cost of one check."""
    found = list(readings)
    show(
        ("pending checks", "worker MB", "broker MB", ""),
        [
            (r.pending, f"{r.worker / _MB:.0f}", f"{r.broker / _MB:.0f}", "started with them" if r.at_start else "")
            for r in found
        ]
        + [("one more check", f"{per_check(found) / 1024:.3f} KB", "", "worker and broker together")],
        empty="-",
    )
