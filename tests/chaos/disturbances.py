"""What goes wrong in a chaos run: each breaks something on entering, says what it was, and mends it on leaving."""

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.chaos.stage import ACCOUNTS, NEXT, THIS, Stage
from tests.proxy import Proxy
from tests.waiting import wait_until

SPARE = 2
_JOIN_S = 60.0
_OFFSET_S = 300.0

Break = Callable[[Stage, random.Random], AbstractContextManager[str]]


@dataclass(frozen=True)
class Disturbance:
    """``holds_s`` are the shortest and the longest time it lasts; in a short run ``short_s``."""

    title: str
    happens: Break
    holds_s: tuple[float, float]
    short_s: tuple[float, float] = (3.0, 6.0)

    def duration_s(self, chance: random.Random, *, short: bool) -> float:
        return round(chance.uniform(*(self.short_s if short else self.holds_s)), 1)


def _slot(stage: Stage, chance: random.Random) -> int:
    return chance.choice(sorted(slot for slot in stage.at if slot != SPARE))


@contextmanager
def worker_killed(stage: Stage, chance: random.Random) -> Iterator[str]:
    slot = _slot(stage, chance)
    stage.stop_in(slot, signal.SIGKILL)
    yield f"SIGKILL of worker {slot}"
    stage.start_in(slot)


@contextmanager
def all_workers_killed(stage: Stage, chance: random.Random) -> Iterator[str]:
    slots = sorted(stage.at)
    for slot in slots:
        stage.stop_in(slot, signal.SIGKILL)
    yield "SIGKILL of every worker"
    for slot in slots:
        stage.start_in(slot)


@contextmanager
def worker_frozen(stage: Stage, chance: random.Random) -> Iterator[str]:
    """Longer than its leases and its membership."""
    slot = _slot(stage, chance)
    stage.at[slot].send(signal.SIGSTOP)
    yield f"SIGSTOP of worker {slot}, later SIGCONT"
    stage.at[slot].send(signal.SIGCONT)


@contextmanager
def one_worker_more(stage: Stage, chance: random.Random) -> Iterator[str]:
    stage.start_in(SPARE)
    wait_until(lambda: stage.owned(SPARE) > 0, _JOIN_S)
    yield "a third worker joins, later leaves by SIGTERM"
    stage.stop_in(SPARE)


@contextmanager
def rolling_restart(stage: Stage, chance: random.Random) -> Iterator[str]:
    """By SIGTERM, one after the other, to the other release; both run side by side for a while."""
    stage.release = NEXT if stage.release == THIS else THIS
    first, *others = sorted(slot for slot in stage.at if slot != SPARE)
    stage.stop_in(first)
    stage.start_in(first)
    yield f"rolling restart to {stage.release}"
    for slot in others:
        stage.stop_in(slot)
        stage.start_in(slot)


@contextmanager
def broker_killed(stage: Stage, chance: random.Random) -> Iterator[str]:
    node = chance.choice(stage.cluster.nodes)
    stage.cluster.kill_node(node)
    yield f"SIGKILL of broker {node} of 3"
    stage.cluster.start_node(node)


@contextmanager
def broker_restarted(stage: Stage, chance: random.Random) -> Iterator[str]:
    node = chance.choice(stage.cluster.nodes)
    stage.cluster.stop_node(node)
    yield f"restart of broker {node} of 3"
    stage.cluster.start_node(node)


@contextmanager
def database_crashed(stage: Stage, chance: random.Random) -> Iterator[str]:
    stage.postgres.stop(immediate=True)
    yield "PostgreSQL stop -m immediate, later start"
    stage.postgres.start()


@contextmanager
def _broken(proxies: Sequence[Proxy], how: str) -> Iterator[None]:
    for proxy in proxies:
        getattr(proxy, how)()
    yield
    for proxy in proxies:
        proxy.heal()


@contextmanager
def database_unreachable(stage: Stage, chance: random.Random) -> Iterator[str]:
    slot, how = _slot(stage, chance), chance.choice(("cut", "hold", "drop"))
    with _broken([stage.databases[slot]], how):
        yield f"network {how} between worker {slot} and PostgreSQL"


@contextmanager
def brokers_unreachable(stage: Stage, chance: random.Random) -> Iterator[str]:
    slot, how = _slot(stage, chance), chance.choice(("cut", "hold", "drop"))
    with _broken([proxy for (_, there), proxy in stage.cluster.proxies.items() if there == slot], how):
        yield f"network {how} between worker {slot} and the brokers"


@contextmanager
def providers_unreachable(stage: Stage, chance: random.Random) -> Iterator[str]:
    """Not held: a placement that arrives later than the settle time of the profile is outside of the promise."""
    slot, how = _slot(stage, chance), chance.choice(("cut", "drop"))
    with _broken([stage.providers[account, slot] for account in ACCOUNTS], how):
        yield f"network {how} between worker {slot} and the providers"


@contextmanager
def slow_network(stage: Stage, chance: random.Random) -> Iterator[str]:
    slot = _slot(stage, chance)
    late = [stage.databases[slot], *(stage.providers[account, slot] for account in ACCOUNTS)]
    for proxy in late:
        proxy.delay(0.1)
    yield f"100 ms more each way between worker {slot}, PostgreSQL and the providers"
    for proxy in late:
        proxy.heal()


@contextmanager
def provider_refuses(stage: Stage, chance: random.Random) -> Iterator[str]:
    account = chance.choice(ACCOUNTS)
    with _broken([proxy for (name, _), proxy in stage.providers.items() if name == account], "cut"):
        yield f"outage of {account}: connections refused"


@contextmanager
def provider_silent(stage: Stage, chance: random.Random) -> Iterator[str]:
    stage.freeze_provider()
    yield "outage of both providers: connected, silent, working off what they were sent when they wake"
    stage.wake_provider()


@contextmanager
def wrong_clock(stage: Stage, chance: random.Random) -> Iterator[str]:
    slot, offset_s = _slot(stage, chance), chance.choice((-1, 1)) * _OFFSET_S
    stage.stop_in(slot)
    stage.start_in(slot, clock_offset_s=offset_s)
    wait_until(lambda: stage.owned(slot) > 0, _JOIN_S)
    yield f"clock of worker {slot} is {offset_s:+.0f} s off"
    stage.stop_in(slot)
    stage.start_in(slot)


ALL = (
    Disturbance("worker killed", worker_killed, (0.0, 8.0)),
    Disturbance("all workers killed", all_workers_killed, (0.0, 5.0)),
    Disturbance("worker frozen", worker_frozen, (6.0, 20.0), (6.0, 8.0)),
    Disturbance("rebalance", one_worker_more, (5.0, 15.0)),
    Disturbance("rolling restart, mixed releases", rolling_restart, (10.0, 20.0), (5.0, 8.0)),
    Disturbance("broker killed", broker_killed, (5.0, 20.0)),
    Disturbance("broker restarted", broker_restarted, (3.0, 10.0)),
    Disturbance("PostgreSQL crashed", database_crashed, (2.0, 12.0)),
    Disturbance("PostgreSQL unreachable", database_unreachable, (4.0, 15.0)),
    Disturbance("brokers unreachable", brokers_unreachable, (4.0, 20.0)),
    Disturbance("providers unreachable", providers_unreachable, (4.0, 15.0)),
    Disturbance("slow network", slow_network, (5.0, 15.0)),
    Disturbance("provider outage, refusing", provider_refuses, (60.0, 75.0), (8.0, 10.0)),
    Disturbance("provider outage, silent", provider_silent, (60.0, 75.0), (8.0, 10.0)),
    Disturbance("wrong clock", wrong_clock, (10.0, 20.0), (4.0, 6.0)),
)

_GROUPS: tuple[tuple[Break, ...], ...] = (
    (worker_killed, all_workers_killed),
    (worker_frozen,),
    (rolling_restart,),
    (broker_killed,),
    (database_crashed,),
    (database_unreachable, brokers_unreachable, providers_unreachable),
    (provider_refuses, provider_silent),
    (wrong_clock,),
)


def schedule(chance: random.Random, *, short: bool) -> Iterator[Disturbance]:
    """For ever: every kind once in an order of chance, then every kind again. Short: one of each group."""
    while True:
        happening = [chance.choice(group) for group in _GROUPS] if short else [kind.happens for kind in ALL]
        chance.shuffle(happening)
        for happens in happening:
            yield next(kind for kind in ALL if kind.happens is happens)
