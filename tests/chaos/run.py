"""``make chaos``: orders flow through real parts while a seeded schedule breaks them; then the books are compared.

Exit status 0 when nothing was lost, bought twice, settled wrongly or left unresolved; else 1, with the seed and the
command that repeats the run. Everything it starts listens on 127.0.0.1 and ends with it, also on Ctrl-C.
"""

import argparse
import os
import platform
import random
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import HTTPError

import sqlalchemy as sa

from agents.diagnosis.explain import explain
from db.reads import queries
from streams.clients import OrderProducer
from streams.config.loader import tier_name
from streams.events import Created
from streams.kafka.producer import group_lag
from tests import planted
from tests.chaos import market
from tests.chaos.disturbances import Disturbance, schedule
from tests.chaos.report import Findings, Happened, longest_stall, markdown, plain, progress_after
from tests.chaos.stage import Stage, opened
from tests.system import http
from tests.waiting import wait_until

SHORT_ORDERS, SHORT_MINUTES = 1500, 1.7
_BATCH_S = 0.25
_TELL_EVERY_S = 5.0
#: No status change of any order for so long, with nothing down, means that they will not end.
_PATIENCE_S = 180.0
_TABLE_SAMPLE = 100
_EXAMPLES = 20


class Shop(threading.Thread):
    """Sends the orders evenly over ``seconds`` and 5 % of them twice; what was not acknowledged it sends again."""

    def __init__(
        self, stage: Stage, wanted: Iterable[tuple[Created, str]], count: int, seconds: float, seed: int
    ) -> None:
        super().__init__(name="shop", daemon=True)
        self.ends: dict[tuple[str, str], str] = {}
        self.repeats = 0
        self.done = threading.Event()
        self.stop = threading.Event()
        self._stage = stage
        self._wanted = iter(wanted)
        self._count, self._seconds = count, seconds
        self._chance = random.Random(f"shop:{seed}")

    def run(self) -> None:
        again: deque[Created] = deque()
        began, taken = time.monotonic(), 0
        with OrderProducer(self._stage.config.kafka) as producer:
            while not self.stop.is_set() and (taken < self._count or again):
                due = min(int((time.monotonic() - began) / self._seconds * self._count) + 1, self._count)
                batch = [again.popleft() for _ in range(len(again))]
                for _ in range(taken, due):
                    order, ends = next(self._wanted)
                    self.ends[order.tenant_id, order.order_id] = ends
                    self._stage.units[order.tenant_id, order.order_id] = order.quantity
                    batch.append(order)
                    if self._chance.random() < 0.05:
                        self.repeats += 1
                        (batch if self._chance.random() < 0.5 else again).append(order)
                taken = max(taken, due)
                for order, placement in zip(batch, producer.place_many(batch), strict=True):
                    if placement.error is None:
                        self._stage.sent.add((order.tenant_id, order.order_id))
                    else:
                        again.append(order)
                self.stop.wait(_BATCH_S)
        self.done.set()


class Run:
    """One run on one stage."""

    def __init__(self, stage: Stage, given: argparse.Namespace, findings: Findings) -> None:
        self.stage = stage
        self.given = given
        self.findings = findings
        self.began = time.monotonic()
        self.began_at = datetime.now(UTC)
        wanted = market.orders(given.orders, given.seed)
        self.shop = Shop(stage, wanted, given.orders, given.minutes * 60, given.seed)

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.began:6.1f} s] {text}", flush=True)

    def go(self) -> None:
        for slot in (0, 1):
            self.stage.start_in(slot)
        for slot in (0, 1):
            wait_until(lambda s=slot: self.stage.owned(s) > 0, 60)
        self.say("2 workers have their partitions; orders flow")
        self.shop.start()
        try:
            self.disturb()
            self.say("the shop is done; waiting for the last orders")
            self.wait_for_ends()
            self.judge()
        finally:
            self.shop.stop.set()
            self.shop.join(30)

    def disturb(self) -> None:
        chance = random.Random(f"schedule:{self.given.seed}")
        kinds = schedule(chance, short=self.given.short)
        pause = (1.0, 3.0) if self.given.short else (3.0, 9.0)
        while not self.shop.done.is_set():
            self.wait(chance.uniform(*pause))
            if not self.shop.done.is_set():
                self.one(next(kinds), chance)

    def start_ended(self) -> None:
        """No worker may end by itself, whatever happens around it: a finding, and another one takes its place."""
        for slot, worker in sorted(self.stage.at.items()):
            if worker.ended():
                line = f"worker-{self.stage.workers.index(worker)} in place {slot} ended by itself; see its log"
                self.say(line)
                self.findings.other.append(line)
                self.stage.start_in(slot)

    def one(self, kind: Disturbance, chance: random.Random) -> None:
        self.start_ended()
        began_s = time.monotonic() - self.began
        with kind.happens(self.stage, chance) as what:
            hold_s = kind.duration_s(chance, short=self.given.short)
            self.say(f"{kind.title}: {what}, {hold_s:g} s")
            self.wait(hold_s)
        healed_s = time.monotonic() - self.began
        self.findings.happened.append(Happened(kind.title, what, began_s, healed_s))
        self.say(f"{kind.title}: over")

    def wait(self, seconds: float) -> None:
        """With a line of progress now and then."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if left > _TELL_EVERY_S / 2:
                self.tell()
            time.sleep(min(left, _TELL_EVERY_S))

    def tell(self) -> tuple[int, int]:
        """(orders that ended, status changes); says both."""
        try:
            [row] = self.stage.rows(
                "select count(*) as known, count(*) filter (where finished_at is not null) as ended,"
                " coalesce(sum(version), 0) as changes from ledger_orders"
            )
        except sa.exc.DBAPIError:
            self.say(f"sent {len(self.stage.sent)}; PostgreSQL does not answer")
            return (0, 0)
        ended = int(row["ended"])
        self.say(f"sent {len(self.stage.sent)}, accepted {row['known']}, ended {ended}")
        return ended, int(row["changes"])

    def wait_for_ends(self) -> None:
        """Until the view shows every end, or nothing has moved for too long."""
        changed_at, before = time.monotonic(), -1
        while True:
            self.start_ended()
            _, changes = self.tell()
            if changes != before:
                changed_at, before = time.monotonic(), changes
            statuses = self.stage.statuses()
            if all(statuses.get(key) in ("completed", "failed") for key in self.stage.sent):
                return
            if time.monotonic() - changed_at > _PATIENCE_S:
                self.say(f"nothing moved for {_PATIENCE_S:.0f} s; giving up")
                return
            time.sleep(_TELL_EVERY_S)

    def judge(self) -> None:
        """Compare the books with each other and with what each order had to become."""
        found, stage = self.findings, self.stage
        found.took_s = time.monotonic() - self.began
        found.sent, found.repeats, found.workers = len(stage.sent), self.shop.repeats, len(stage.workers)
        verdict = stage.books()
        found.completed, found.failed, found.bought = verdict.completed, verdict.failed, verdict.bought
        statuses = stage.statuses()
        for line in verdict.differences:
            if "missing in PostgreSQL" in line:
                found.lost.append(line)
            elif "was bought" in line or " executed " in line:
                found.bought_twice.append(line)
            elif ": still " in line:
                pass  # told below, with its reason
            else:
                found.wrong_states.append(line)
        for key, status in sorted(statuses.items()):
            ends = self.shop.ends.get(key)
            if status in ("completed", "failed") and status != ends:
                found.wrong_states.append(f"{'/'.join(key)}: {status}; it had to be {ends}")
        found.unresolved = [self.why(key) for key in sorted(stage.sent) if statuses.get(key) not in (None, *_ENDS)]
        found.other += self.other()
        found.leaks = list(self.leaks())[:_TABLE_SAMPLE]
        rows = stage.rows("select code, count(*) as n from attention group by code")
        found.attention = {row["code"]: int(row["n"]) for row in rows}
        hit = [(row["operation"], row["answered"].partition(":")[0]) for row in stage.control("GET", "/requests")]
        found.lost_answers = sum(kind in market.LOST_KINDS for operation, kind in hit if operation == "place")
        found.untrue_answers = sum(kind in market.UNTRUE_KINDS for _, kind in hit)
        self.stalls()

    def why(self, key: tuple[str, str]) -> str:
        snapshot = queries.snapshot(self.stage.engine, *key)
        return f"{'/'.join(key)}: {explain(snapshot, snapshot.now).headline}"

    def other(self) -> list[str]:
        """Dead letters, work that was left in a topic, and a table that says something else."""
        stage = self.stage
        wrong = [
            f"dead letter: {row['reason']}: {row['error']}"
            for row in stage.rows("select reason, error from dead_letters limit 20")
        ]
        tiers = [tier_name(seconds) for seconds in stage.config.tiers()]
        facts = ["orders.created", "orders.referenced", "orders.status-changed"]
        for group, topics in (("orderwatch", facts), ("orderwatch-delay", tiers)):
            try:
                wait_until(lambda g=group, t=topics: not self.behind(g, t), 30)
            except AssertionError:
                wrong += [
                    f"{topic} [{partition}] has a backlog of {lag} and nobody works on it"
                    for (topic, partition), lag in self.behind(group, topics).items()
                ]
        sample = random.Random(self.given.seed).sample(sorted(stage.sent), min(_TABLE_SAMPLE, len(stage.sent)))
        told = {key: self.in_table(key) for key in sample}
        wrong += [
            f"{'/'.join(key)}: {status} in the Faust table; it had to be {self.shop.ends[key]}"
            for key, status in told.items()
            if status != self.shop.ends[key]
        ]
        if len(set(stage.started)) > 1:
            release = [b'"release":' in record.value() for record in stage.read("orders.status-changed")]
            if len(set(release)) != 2:
                wrong.append("the two releases did not both write events")
        return wrong

    def leaks(self) -> Iterator[str]:
        """Credentials, PINs and player ids, wherever the contract forbids them."""
        stage = self.stage
        assert planted.leaks(stage.read("orders.created")[0].value()), "the search is blind"
        servers = [stage.postgres.log, *map(stage.cluster.log_of, stage.cluster.nodes)]
        yield from planted.in_logs(stage, servers)
        yield from planted.in_topics(stage)
        yield from planted.in_rows(stage)
        for worker in stage.at.values():
            yield from planted.in_pages(worker.port)  # type: ignore[attr-defined]

    def behind(self, group: str, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        lags = group_lag(self.stage.config.kafka, self.stage.prefix + group, topics)
        return {place: end - (done or 0) for place, (done, end) in lags.items() if end > (done or 0)}

    def in_table(self, key: tuple[str, str]) -> str:
        """What a worker's table says about an order; asked again while partitions still move."""
        port = next(iter(self.stage.at.values())).port  # type: ignore[attr-defined]

        def shown() -> str:
            try:
                answer = http("GET", f"http://127.0.0.1:{port}/orders/{key[1]}/")
            except HTTPError as error:
                error.close()
                return ""
            return str(answer["tenants"][key[0]]["external_status"])

        try:
            return wait_until(lambda: (status := shown()) in _ENDS and status, 10) or "open"
        except AssertionError:
            return shown() or "missing"

    def stalls(self) -> None:
        rows = self.stage.rows("select at from order_events where step = 'status' order by at")
        changes = [(row["at"] - self.began_at).total_seconds() for row in rows]
        down = [(one.began_s, one.healed_s) for one in self.findings.happened]
        self.findings.longest = longest_stall(changes, down)
        self.findings.longest_of_all = longest_stall(changes, [])
        for one in self.findings.happened:
            one.progress_s = progress_after(changes, one.healed_s)


_ENDS = ("completed", "failed")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos ARGS=...", description=__doc__)
    parser.add_argument("--orders", type=int, help=f"default 20000; {SHORT_ORDERS} with --short")
    parser.add_argument("--seed", type=int, help="of orders, faults and schedule; default: of chance, printed")
    parser.add_argument("--minutes", type=float, help=f"how long they take to come; default 12; {SHORT_MINUTES} short")
    parser.add_argument("--short", action="store_true", help="one disturbance of each group, short outages")
    parser.add_argument(
        "--repeat", choices=market.REPEATS, default=market.REPEATS[0], help="what znet does with a known reference"
    )
    parser.add_argument("--report", type=Path, help="write the tables as Markdown into this file")
    parser.add_argument("--keep", action="store_true", help="leave logs and data also after success")
    given = parser.parse_args(argv)
    given.orders = given.orders or (SHORT_ORDERS if given.short else 20_000)
    given.minutes = given.minutes or (SHORT_MINUTES if given.short else 12.0)
    given.seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    return given


def command_of(given: argparse.Namespace) -> str:
    """The command that repeats this run."""
    words = ["--orders", str(given.orders), "--minutes", f"{given.minutes:g}", "--seed", str(given.seed)]
    words += ["--repeat", given.repeat] if given.repeat != market.REPEATS[0] else []
    return f"make chaos ARGS={shlex.quote(' '.join(words + (['--short'] if given.short else [])))}"


def machine() -> str:
    """What the numbers were measured on."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {memory_gb:.0f} GB, {system}"


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    findings = Findings(given.seed, command_of(given))
    print(f"chaos: {given.orders} orders in {given.minutes:g} minutes, seed {given.seed}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="orderwatch-chaos-"))
    done = False
    try:
        with opened(directory, market.scenario(repeat=given.repeat)) as stage:
            Run(stage, given, findings).go()
        done = True
    except KeyboardInterrupt:
        print("chaos: interrupted", flush=True)
        return 130
    finally:
        if done and not findings.wrong and not given.keep:
            shutil.rmtree(directory)
        else:
            print(f"chaos: logs and data are in {directory}", flush=True)
        if not done:
            print(f"chaos: not finished; repeat it with: {findings.command}", flush=True)
    if given.report:
        given.report.write_text(markdown(findings, datetime.now(UTC), machine()), encoding="utf-8")
    print(plain(findings), flush=True)
    for line in findings.wrong[:_EXAMPLES]:
        print(f"  - {line}", flush=True)
    if findings.wrong:
        print(f"chaos: {len(findings.wrong)} findings; repeat it with: {findings.command}", flush=True)
        return 1
    print(f"chaos: nothing lost, nothing bought twice, every order ended as it had to; seed {given.seed}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
