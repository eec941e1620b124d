"""``orderwatch demo``: a shop's day in half a minute, and four books that must say the same at its end."""

import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from secrets import token_hex

from rich.console import Console

from agents.diagnosis.wording import count
from db.reads import queries
from orderwatch import reconcile as four
from orderwatch.demo import numbers, story, summary
from orderwatch.demo.downstream import Downstream, News
from orderwatch.demo.numbers import PERSON, Numbers
from orderwatch.demo.screen import Screen
from orderwatch.demo.stage import Stage
from orderwatch.demo.stopping import Asked, Stopping
from orderwatch.reconcile import Books, Key, Verdict
from orderwatch.support.terminal import aligned, say, say_json, show, warn
from streams.events import Created

SEED = 7
#: From the start of the worker; then the books are compared as they are.
TIME_LIMIT_S = 90.0

_LOOK_S = 0.25
_HANDLED_EVERY_S = 2.0  # costs two clients
_WIDTH = 110
_SPARE_CODES = 20
_MALFORMED = 1
_LEAST_RATE = 20
_RATE_SHARE = 10  # an account is asked this part of the orders per second: more orders do not take longer


def run(orders: int | None = None, *, as_json: bool = False, seed: int = SEED, keep: bool = False) -> int:
    """The exit status: 0 the books agree, 1 they do not, 128 and its number when a signal stopped it before.

    ``keep`` leaves everything running after the summary until a signal comes. Raises ``AppError``, with everything
    ended, when a part does not start or ends by itself.
    """
    tell = warn if as_json else say
    agreed: bool | None = None
    failed = True
    with Stopping() as stopping:
        demo = Demo(orders, as_json, stopping, tell)
        try:
            demo.set_up(seed)
            agreed = demo.play(keep=keep)
            failed = not agreed
            while keep:
                signal.pause()
        except Asked as asked:
            failed = agreed is False
            if agreed is None:
                tell("Stopped before its end.")
                return asked.status
        finally:
            stopping.over()
            demo.close(keep_files=failed)
    return 0 if agreed else 1


@dataclass(slots=True)
class Moment:
    """What the screen shows."""

    seconds: float
    sent: int
    to_send: int
    numbers: Numbers
    heard: int = 0
    news: Iterable[News] = field(default_factory=list)


class Demo:
    """One run. ``close`` ends whatever was started, from any point on."""

    def __init__(self, count: int | None, as_json: bool, stopping: Stopping, tell: Callable[[str], None]) -> None:
        self._as_json = as_json
        self._stopping = stopping
        self._tell = tell
        self._orders = story.orders(count)
        self._events = story.with_repeats(self._orders)
        self._sent = {_key(order) for order in self._orders}
        self._by_hand: set[Key] = set()
        self._stage: Stage | None = None
        self._shop: story.Shop | None = None
        self._downstream: Downstream | None = None
        self._began = 0.0

    @property
    def stage(self) -> Stage:
        assert self._stage is not None
        return self._stage

    def set_up(self, seed: int) -> None:
        """Start every part but the worker, and tell each."""
        self._tell("Setting up; everything listens on 127.0.0.1 and ends with this command.")
        with self._stopping.held():
            self._stage = Stage(self._stopping, lambda line: self._tell(f"  {line}"))
        stage = self.stage
        stage.open(seed, max(_LEAST_RATE, len(self._orders) // _RATE_SHARE))
        for order in self._orders:
            route = stage.config.route(order.tenant_id, order.package_id)
            if route is not None and route.mode == "manual":
                self._by_hand.add(_key(order))
        self._stock_up()
        for account, fault in story.LOST_ANSWERS:
            stage.control("POST", f"/accounts/{account}/faults", fault)

    def _stock_up(self) -> None:
        """Codes for every order that is delivered from stock, and some to spare."""
        wanted: dict[tuple[str, str], int] = {}
        for order in self._orders:
            route = self.stage.config.route(order.tenant_id, order.package_id)
            mapping = route and route.primary and self.stage.config.mapping(*_package(order), route.primary)
            if mapping and (group := mapping.wire.get("code_group")):
                place = (order.tenant_id, group)
                wanted[place] = wanted.get(place, _SPARE_CODES) + order.quantity
        for (tenant, group), needed in sorted(wanted.items()):
            loaded = self.stage.load_codes(tenant, group, [token_hex(8).upper() for _ in range(needed)])
            self._tell(f"  stock of {tenant}: {loaded} codes for {group}")

    def play(self, *, keep: bool) -> bool:
        """Send, watch, compare and explain; True when the books agree."""
        stage = self.stage
        repeats = len(self._events) - len(self._orders)
        self._tell(
            f"The shop sends {len(self._orders)} orders, {repeats} of them twice, and {_MALFORMED} event that is"
            " no order."
            " The providers are slow, refuse, and hang up after they have sold."
        )
        stage.start_dashboard()
        self._began = time.monotonic()
        stage.start_worker()
        with self._stopping.held():
            self._downstream = Downstream(stage.config, stage.sealer)
            self._shop = story.Shop(stage.config, self._events)
        self._downstream.start()
        self._shop.start()
        self._tell(f"See everything, and act: {stage.dashboard_link()}")
        in_time, last = self._watch(repeats)
        collected = self._books()
        verdict = four.compare(collected, open_allowed=self._by_hand)
        if not in_time:
            verdict.differences.append(f"not everything had ended after {TIME_LIMIT_S:.0f} s")
        if self._downstream.bad:
            verdict.differences.append(f"the status topic has {self._downstream.bad} events that cannot be read")
        self._report(collected, verdict, last)
        self._look_next(keep=keep)
        return verdict.agree

    def _watch(self, repeats: int) -> tuple[bool, Moment]:
        """Show until everything has ended, or the time is over."""
        assert self._shop is not None and self._downstream is not None
        handled, dropped, asked_at = 0, 0, float("-inf")
        with Screen(Console(stderr=self._as_json), self._tell) as screen:
            while True:
                self._refuse_trouble()
                if time.monotonic() - asked_at >= _HANDLED_EVERY_S:
                    handled, asked_at = numbers.handled(self.stage.config), time.monotonic()
                now = numbers.read(self.stage.engine, handled, _MALFORMED)
                dropped = now.repeats_dropped = max(now.repeats_dropped, dropped)
                moment = Moment(
                    seconds=time.monotonic() - self._began,
                    sent=self._shop.done,
                    to_send=len(self._events),
                    numbers=now,
                    heard=self._downstream.heard,
                    news=list(self._downstream.news),
                )
                ended = self._ended(now, repeats)
                over = moment.seconds > TIME_LIMIT_S
                screen.show(moment, last=ended or over)
                if ended or over:
                    return ended, moment
                time.sleep(_LOOK_S)

    def _ended(self, now: Numbers, repeats: int) -> bool:
        assert self._shop is not None and self._downstream is not None
        if not self._shop.finished or now.repeats_dropped < repeats or now.dead_letters < _MALFORMED:
            return False
        to_end = self._sent - self._by_hand
        return (
            now.total(PERSON) >= len(self._by_hand)
            and numbers.ended(numbers.statuses(self.stage.engine)) >= to_end
            and numbers.ended(dict(self._downstream.book)) >= to_end
        )

    def _refuse_trouble(self) -> None:
        """Raises what made a part or a thread of ours end."""
        self.stage.refuse_dead_parts()
        for thread in (self._shop, self._downstream):
            if thread is not None and thread.error is not None:
                raise thread.error

    def _books(self) -> Books:
        assert self._downstream is not None
        engine = self.stage.engine
        return Books(
            sent=self._sent,
            bought=[*four.from_ledger(self.stage.control("GET", "/ledger")), *numbers.codes_sold(engine)],
            orders=numbers.statuses(engine),
            attempts=numbers.attempts(engine),
            topic=dict(self._downstream.book),
            units={_key(order): order.quantity for order in self._orders},
        )

    def _report(self, collected: Books, verdict: Verdict, last: Moment) -> None:
        engine = self.stage.engine
        waiting = [summary.why(engine, key) for key in numbers.waiting(engine)]
        key = numbers.lost_and_found(engine)
        lost = summary.lost_answer(engine, key) if key is not None else None
        told = Counter(row["code"] for row in queries.attention(engine, limit=1000))
        if self._as_json:
            counts: dict[str, object] = {
                **asdict(last.numbers),
                "events_sent": last.sent,
                "status_changes": last.heard,
                "seconds": round(last.seconds, 1),
            }
            counts["attention_codes"] = told
            counts["places"] = [
                {"tenant_id": tenant, "integration_id": place, "orders": row}
                for (tenant, place), row in last.numbers.places.items()
            ]
            say_json(summary.document(collected, verdict, waiting, lost, counts))
            return
        header, rows = summary.books_table(collected, verdict, len(waiting))
        say()
        show(header, rows, empty="", title="The four books")
        say(summary.sales_line(collected.bought))
        for line in verdict.differences:
            say(f"DIFFERENCE  {line}")
        say(
            "The four books agree: nothing bought twice, nothing lost."
            if verdict.agree
            else f"The four books do not agree: {count(len(verdict.differences), 'difference')}."
        )
        if told:
            say("A person was told of: " + ", ".join(f"{code} {n}" for code, n in sorted(told.items())))
        for item in waiting:
            _explain("waits for a person", item)
        if lost is not None:
            _explain("its answer was lost", lost)

    def _look_next(self, *, keep: bool) -> None:
        """Three commands that work as they are printed."""
        name = sys.argv[0] if Path(sys.argv[0]).name == "orderwatch" else "orderwatch"
        if keep:
            tenant, order = min(self._by_hand, default=_key(self._orders[0]))
            self._tell("\nEverything still runs, until Ctrl-C. In another terminal:")
            lines = [
                (f"export ORDERWATCH_CONFIG={self.stage.config_path}", "then"),
                (f"{name} order why {tenant} {order}", "what one order is waiting for"),
                (f"{name} orders list", "all of them"),
                (f"{name} dlq list", "what could not be read, and why"),
            ]
        else:
            self._tell("\nWhere to look next")
            lines = [
                (f"{name} demo --keep", "the same, and everything stays up for your questions"),
                (f"{name} --help", "all commands"),
                (f"{name} config check", "reads config.yaml, where a real shop begins"),
            ]
        for line in aligned([["", command, words] for command, words in lines]):
            self._tell(line)

    def close(self, *, keep_files: bool) -> None:
        """End every thread and process."""
        if self._shop is not None:
            self._shop.stop()
        if self._downstream is not None:
            self._downstream.stop()
        if self._stage is not None:
            self._stage.close(keep_files=keep_files)
            if keep_files:
                self._tell(f"Configuration and logs are kept in {self._stage.directory}")


def _explain(what: str, item: summary.Explained) -> None:
    say()
    say(f"Order {item.order_id} of {item.tenant_id}: {what}")
    for line in (item.headline, *item.lines):
        say(textwrap.fill(line, _WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False))


def _key(order: Created) -> Key:
    return (order.tenant_id, order.order_id)


def _package(order: Created) -> tuple[str, str]:
    return (order.tenant_id, order.package_id)
