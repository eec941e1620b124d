"""Orders as fast as the shop can place them, or at a fixed rate; what they cost and how long they take."""

import time
from collections.abc import Callable

from bench import evidence as ev
from bench.contenders import WORKER, Contender, lag, placing
from bench.figures import quantiles, spread
from bench.options import Options
from bench.processes import Cost, Meter
from bench.profiling import Profiler
from bench.report import Result, megabytes, per_thousand
from bench.stage import Scene, Stage
from orderwatch.localservers.bundled import PartError

Progress = Callable[[str, int, int], None]

WARM_UP = "w"
MEASURED = "m"
_LOOK_S = 0.25


def run(
    stage: Stage,
    contender: Contender,
    options: Options,
    progress: Progress,
    *,
    profile: bool = False,
    label: str = "",
    before: Callable[[Scene], None] = lambda scene: None,
) -> Result:
    """One measured run on fresh topics, database and simulator, after a warm-up that does not count.

    ``before`` may prepare the scene once the contender has started; ``label`` is shown for the contender's name.
    """
    with stage.scene(options) as scene:
        contender.start(scene)
        before(scene)
        warm(contender, scene, progress)
        if not profile:
            result = measured(contender, scene, progress)
            result.contender = label or result.contender
            return result
        profiler = Profiler(scene.roots()[WORKER], scene.directory)
        result = measured(contender, scene, progress)
        result.profile = profiler.stop()
        return result


def warm(contender: Contender, scene: Scene, progress: Progress, prefix: str = WARM_UP) -> None:
    """Some orders placed, as the measured ones will be, and brought to their end. Then the simulator forgets them."""
    options = scene.options
    with placing(contender, scene, prefix, options.warm_up, options.rate) as shop:
        until_ended(contender, scene, prefix, options.warm_up, progress)
        shop.result()
    scene.control("POST", "/reset")


def measured(contender: Contender, scene: Scene, progress: Progress) -> Result:
    """The load of the scene's options, measured from the first order to the last commit."""
    options = scene.options
    records, transactions = contender.records(scene), ev.transactions(scene)
    meter = Meter(scene.roots())
    meter.start()
    with placing(contender, scene, MEASURED, options.orders, options.rate) as shop:
        until_ended(contender, scene, MEASURED, options.orders, progress)
        costs = meter.stop()
        said = shop.result()
    costs["shop"] = Cost(said["cpu_s"], 0)
    transactions = ev.transactions(scene) - transactions
    records = contender.records(scene) - records
    result = _result(contender, scene, costs, records / options.orders, transactions / options.orders)
    result.memory_over_time = [round(value / 2**20, 1) for value in meter.timeline(WORKER)]
    return result


def until_ended(contender: Contender, scene: Scene, prefix: str, orders: int, progress: Progress) -> None:
    """Returns when every order has ended and nothing is left to do. Raises ``PartError`` after the time limit."""
    give_up_at = time.monotonic() + scene.options.limit_s
    while True:
        bought = int(scene.control("GET", "/health")["executed"])
        progress(contender.name, bought, orders)
        if bought >= orders and contender.ended(scene, prefix) >= orders and contender.settled(scene):
            return
        scene.refuse_dead()
        if time.monotonic() > give_up_at:
            ended = contender.ended(scene, prefix)
            raise PartError(
                f"{contender.name}: {ended} of {orders} orders had ended after {scene.options.limit_s:g} s;"
                f" the end of its log:\n{scene.log_tail('worker')}"
            )
        time.sleep(_LOOK_S)


def _result(contender: Contender, scene: Scene, costs: dict[str, Cost], records: float, transactions: float) -> Result:
    options = scene.options
    evidence = contender.evidence(scene, MEASURED)
    requests = ev.asked_of(scene)
    late = ev.late(evidence, requests, options.check_after_s, options.latency_ms / 1000)
    first = min(evidence.appended.values(), default=0.0)
    ended = max(evidence.ended.values(), default=first)
    placed = max(requests.placed.values(), default=first)
    late_ms = spread(value * 1000 for value in late)
    checks = requests.calls["check"]
    return Result(
        contender=contender.name,
        options=options,
        wall_s=ended - first,
        placed_rate=options.orders / max(placed - first, 0.001),
        ended_rate=options.orders / max(ended - first, 0.001),
        cpu=per_thousand(costs, options.orders),
        memory=megabytes(costs),
        wait_ms=spread(value * 1000 for value in ev.waits(evidence, requests)),
        late_ms=late_ms,
        early=sum(value < 0 for value in late),
        per_order={
            "SQL transactions": transactions,
            "Kafka records": records,
            "HTTP calls": sum(requests.calls.values()) / options.orders,
        },
        lag=lag(scene) if contender.name == "orderwatch" else 0,
        differences=contender.differences(scene, MEASURED, evidence),
        notes={"questions per check call": requests.questions / checks} if checks else {},
        late_quantiles_ms=quantiles([value * 1000 for value in late]),
    )
