"""One lane per integration: rate, concurrency, circuit breaker with slow start, batched look-ups, separate budgets.

A lane that is full or open never blocks the others: it answers ``Busy`` and the event goes back to a tier.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from aiolimiter import AsyncLimiter

from agents.gateway.circuit_breaker import CLOSED, HALF_OPEN, OPEN, CircuitBreaker
from agents.providers.base import Ask, Placed, PlacedAnswer, Provider, Refusal, Seen, StatusAnswer
from agents.runtime import in_flight
from agents.runtime.in_flight import InFlight
from streams import metrics, traces
from streams.config.loader import BreakerConfig, LimitsConfig

#: Waiting room of a lane, in seconds of its rate, when ``limits.queue`` is 0: enough to stay busy until the events
#: that were sent away come back from the shortest tier.
_QUEUE_S = 2.0
_SLOW_START_STEPS = 10
#: A new order may wait so long for its place before anything of it is written down: then it is written down once.
_SOON_S = 0.5
#: Weight of the newest call in the running mean of call times.
_SMOOTHING = 0.1
#: Calls whose times are remembered for the percentiles.
_REMEMBERED = 200


class Busy(Exception):
    """The lane cannot take this now; ``why`` is a sentence for the order's timeline.

    ``reserve`` takes a turn behind everything that was sent away before, and says in how many seconds it comes. Who has
    a turn keeps it: to take another one at each refusal would put the end of the line farther off every time.
    """

    def __init__(self, why: str, reserve: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(why)
        self.why = why
        self.reserve = reserve


_Call = Literal["place", "check", "look_up"]

_sizes = {kind: metrics.histogram("orderwatch_batch_size", kind) for kind in get_args(_Call)}


class _Meter:
    """The calls of one integration: the times of the newest, and the counters of all."""

    def __init__(self, integration_id: str) -> None:
        self.recent_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._seconds = {
            kind: metrics.histogram("orderwatch_provider_call_seconds", integration_id, kind)
            for kind in get_args(_Call)
        }
        self._outcomes = {
            (kind, outcome): metrics.counter("orderwatch_provider_calls_total", integration_id, kind, outcome.value)
            for kind, outcomes in (("place", Placed), ("check", Seen), ("look_up", Seen))
            for outcome in outcomes
        }

    def took(self, kind: _Call, seconds: float) -> None:
        self.recent_s.append(seconds)
        self._seconds[kind].observe(seconds)

    def outcome(self, kind: _Call, outcome: Placed | Seen) -> None:
        self._outcomes[kind, outcome].inc()


#: For so long a healthy answer to the balance question holds: doubts about single orders ask no further.
_TRUST_S = 5.0


@dataclass(frozen=True, slots=True)
class Down:
    """The circuit breaker opened: told once per opening. ``access``: the account itself refuses us."""

    integration_id: str
    since: datetime
    message: str
    access: bool = False


class Lane:
    """The way to one integration. ``share`` is the part of its rate that this worker may use (0 to 1)."""

    def __init__(
        self,
        integration_id: str,
        provider: Provider,
        limits: LimitsConfig,
        breaker: BreakerConfig,
        batch: int,
        on_down: Callable[[Down], None],
    ) -> None:
        self.integration_id = integration_id
        self.provider = provider
        self.limits = limits
        self._on_down = on_down
        self._breaker_config = breaker
        self._breaker = CircuitBreaker(breaker.fail_max, breaker.reset_after)
        self._closed_at = float("-inf")
        self._trial = False
        self._probe: asyncio.Task[None] | None = None
        self._healthy_at = float("-inf")
        self._tells_balance = False
        self._refusals: deque[tuple[float, bool]] = deque()
        self.last_error = ""
        self.last_error_at: datetime | None = None
        self._share = 1.0
        self._meter = _Meter(integration_id)
        self._dispatch = _Budget(limits.rate, limits.concurrency, limits.queue)
        self._checks = _Budget(limits.check_rate or limits.rate, limits.concurrency, limits.queue, batch)
        self._batch = batch
        self._asked: dict[bool, deque[tuple[Ask, asyncio.Future[StatusAnswer]]]] = {False: deque(), True: deque()}
        self._askers: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> str:
        """closed, open or half-open, as the breaker says."""
        return self._breaker.state

    def set_share(self, share: float) -> None:
        """This worker owns ``share`` of the partitions, so it may use that part of the rate."""
        self._share = share
        self._dispatch.set_share(share)
        self._checks.set_share(share)

    def set_most(self, most: int) -> None:
        """Of the events in flight of one agent, so many may be this lane's while it is slow or not known to be fast:
        it leaves room for the others."""
        self._dispatch.most = most
        self._checks.most = most

    def view(self) -> dict[str, object]:
        """What people ask about a lane: rates per second of this worker's share, times in seconds, no secret."""
        times = sorted(self._meter.recent_s)
        return {
            "state": self.state,
            "share": self._share,
            "rate": round(self.limits.rate * self._share * self._scale(), 4),
            "check_rate": round((self.limits.check_rate or self.limits.rate) * self._share * self._scale(), 4),
            "concurrency": self.limits.concurrency,
            "in_flight": self._dispatch.in_flight + self._checks.in_flight,
            "waiting": self._dispatch.waiting + self._waiting_checks,
            "calls": len(times),
            "p50_s": _percentile(times, 0.5),
            "p95_s": _percentile(times, 0.95),
            "last_error": self.last_error[:300],
            "last_error_at": self.last_error_at,
            "reopens_in_s": self._breaker.reopens_in_s(),
        }

    async def place(self, reference: str, wire: Mapping[str, str]) -> PlacedAnswer:
        """One placement, seen by the breaker; within ``slot``."""
        if traces.tracer is None:
            return await self._place(reference, wire)
        with traces.calling("place", self.integration_id, reference) as span:
            answer = await self._place(reference, wire)
            span.set_attribute("orderwatch.outcome", answer.kind.value)
            return answer

    async def _place(self, reference: str, wire: Mapping[str, str]) -> PlacedAnswer:
        began = time.monotonic()
        answer = await self.provider.place(reference, wire)
        self._meter.took("place", time.monotonic() - began)
        self._meter.outcome("place", answer.kind)
        self.observe(answer)
        return answer

    @property
    def soon(self) -> bool:
        """True when ``slot`` is expected to give a place at once or in a moment."""
        return self._breaker.state == CLOSED and self._probe is None and self._dispatch.soon(self._scale())

    def slot(self) -> AbstractAsyncContextManager[None]:
        """A place for one placement. Raises ``Busy`` at once when the breaker is open or the waiting room is full."""
        return self._turn(self._dispatch)

    @asynccontextmanager
    async def _turn(self, budget: "_Budget") -> AsyncIterator[None]:
        await self._ready(budget)
        async with budget.slot(self._scale(), mine=in_flight.current()):
            await self._ready(budget)  # it may have opened while we waited
            with self._trial_run():
                yield

    async def ask(self, ask: Ask, *, look_up: bool) -> StatusAnswer:
        """The answer to one status question; questions that wait together travel together."""
        if traces.tracer is None:
            return await self._ask(ask, look_up=look_up)
        with traces.calling("look_up" if look_up else "check", self.integration_id, ask.reference) as span:
            answer = await self._ask(ask, look_up=look_up)
            span.set_attribute("orderwatch.outcome", answer.kind.value)
            return answer

    async def _ask(self, ask: Ask, *, look_up: bool) -> StatusAnswer:
        if self._batch == 1:
            async with self._turn(self._checks):
                return (await self._question([ask], look_up))[0]
        await self._ready(self._checks)
        if self._waiting_checks >= self._checks.room:
            raise Busy(f"{self.integration_id}: too many checks are waiting", self._checks.reserve)
        future: asyncio.Future[StatusAnswer] = asyncio.get_running_loop().create_future()
        self._asked[look_up].append((ask, future))
        # One asker per batch that is waiting, up to the concurrency.
        if len(self._askers) * self._batch < self._waiting_checks and len(self._askers) < self.limits.concurrency:
            task = asyncio.create_task(self._run_asker())
            self._askers.add(task)
            task.add_done_callback(self._askers.discard)
        if (mine := in_flight.current()) is None:
            return await future
        mine.waits_for = self._checks
        try:
            return await future
        finally:
            mine.touch()

    @property
    def _waiting_checks(self) -> int:
        return self._checks.waiting if self._batch == 1 else sum(map(len, self._asked.values()))

    async def _run_asker(self) -> None:
        while self._waiting_checks:
            try:
                async with self._checks.slot(self._scale(), wait=True):
                    await self._ready(self._checks)
                    look_up = bool(self._asked[True])
                    queue = self._asked[look_up]
                    batch = [queue.popleft() for _ in range(min(self._batch, len(queue)))]
                    if batch:
                        with self._trial_run():
                            await self._ask_together(batch, look_up)
            except Busy as busy:
                for queue in self._asked.values():
                    while queue:
                        _, future = queue.popleft()
                        if not future.done():
                            future.set_exception(Busy(busy.why, self._reserve(self._checks)))
        # Gone at once: the done callback comes too late for whoever asks right after.
        if (task := asyncio.current_task()) is not None:
            self._askers.discard(task)

    async def _ask_together(self, batch: Sequence[tuple[Ask, "asyncio.Future[StatusAnswer]"]], look_up: bool) -> None:
        try:
            answers = await self._question([ask for ask, _ in batch], look_up)
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def _question(self, asks: Sequence[Ask], look_up: bool) -> Sequence[StatusAnswer]:
        """One question about one or more attempts, seen by the breaker; one answer for each."""
        began = time.monotonic()
        answers = await (self.provider.look_up(asks) if look_up else self.provider.check(asks))
        if len(answers) != len(asks):
            raise RuntimeError(f"the adapter answered {len(answers)} of {len(asks)} questions")
        kind: _Call = "look_up" if look_up else "check"
        self._meter.took(kind, time.monotonic() - began)
        _sizes[kind].observe(len(asks))
        for answer in answers:
            self._meter.outcome(kind, answer.kind)
        # A well-formed "no such order" is an answer: it says nothing against the account.
        failed = all(a.kind is Seen.QUERY_ERROR and "negative" not in a.flags for a in answers)
        doubt = any(_doubtful(answer) for answer in answers)
        self._count(not failed, doubt=doubt, error=answers[0].message)
        return answers

    def observe(self, answer: PlacedAnswer) -> None:
        """Let the breaker see how a placement went; one that came too late here tells nothing about the provider."""
        if "late" in answer.flags:
            return
        bad = answer.kind in (Placed.NOT_SENT, Placed.AMBIGUOUS)
        self._count(not bad, doubt=_doubtful(answer), error=answer.message)
        buyers = answer.kind is Placed.REJECTED and answer.reason in _BUYERS_FAULT
        if answer.kind in (Placed.ACCEPTED, Placed.COMPLETED, Placed.REJECTED) and not buyers and not _doubtful(answer):
            self._count_refusal(answer.kind is Placed.REJECTED)

    def _count(self, good: bool, *, doubt: bool, error: str) -> None:
        """Count a call. A ``doubt`` may be about this order alone: only the balance question judges the account."""
        if not good or doubt:
            self.last_error, self.last_error_at = error, datetime.now(UTC)
        if doubt:
            self._start_probe(error)
            return
        before = self._breaker.state
        self._breaker.success() if good else self._breaker.failure()
        self._changed(before, error)

    def _changed(self, before: str, error: str, *, access: bool = False) -> None:
        now_state = self._breaker.state
        if before != OPEN and now_state == OPEN:
            what = "refuses our access" if access else "gives no usable answers"
            self._down(f"{self.integration_id} {what}: {error or 'no reason given'}", access=access)
        elif before != CLOSED and now_state == CLOSED:
            self._closed_at = time.monotonic()

    def _start_probe(self, error: str) -> None:
        if self._probe is None and time.monotonic() - self._healthy_at > _TRUST_S:
            self._probe = asyncio.create_task(self._ask_balance(error))

    async def _ask_balance(self, error: str) -> None:
        """Ask for the balance, and open or close the breaker by its answer."""
        try:
            balance = await self.provider.balance()
            before = self._breaker.state
            if balance.money is not None:
                self._tells_balance = True
                self._healthy_at = time.monotonic()
                if before != CLOSED:
                    self._breaker.close()
            elif balance.tripped:
                error = balance.reason or error
                self._breaker.open()
            elif before == OPEN and not self._tells_balance:
                self._breaker.half_open()  # this account never tells its balance: a call has to find out
            elif before == OPEN:
                self._breaker.open()
            else:
                self._breaker.failure()
            self._changed(before, error, access=balance.tripped)
        finally:
            self._probe = None

    def _count_refusal(self, refused: bool) -> None:
        """A mass of refusals is a sign about the account, not about the orders."""
        now = time.monotonic()
        self._refusals.append((now, refused))
        while self._refusals and self._refusals[0][0] < now - self._breaker_config.refusals_window:
            self._refusals.popleft()
        if not refused:
            return
        count = sum(was_refused for _, was_refused in self._refusals)
        if count >= self._breaker_config.refusals_max and 2 * count > len(self._refusals):
            self._refusals.clear()
            if self._breaker.state != OPEN:
                self._breaker.open()
                minutes = self._breaker_config.refusals_window / 60
                self.last_error = f"{count} refusals within {minutes:g} minutes"
                self._down(f"{self.integration_id} refuses most orders: {self.last_error}")

    def _down(self, message: str, *, access: bool = False) -> None:
        self._on_down(Down(self.integration_id, datetime.now(UTC), message, access))

    async def _ready(self, budget: "_Budget") -> None:
        """Returns when a call may leave; raises ``Busy`` while the circuit breaker is open.

        An open breaker is tried with the balance question, never with a waiting order.
        """
        if self._probe is not None:
            await asyncio.wait([self._probe])
        if self._breaker.state == OPEN and self._breaker.reopens_in_s() <= 0:
            if self._probe is None:
                self._probe = asyncio.create_task(self._ask_balance(self.last_error))
            await asyncio.wait([self._probe])
        if self._breaker.state == OPEN:
            why = f"the circuit breaker of {self.integration_id} is open: {self.last_error}"[:300]
            raise Busy(why, self._reserve(budget))
        if self._breaker.state == HALF_OPEN and self._trial:
            raise Busy(f"{self.integration_id} is being tried again", budget.reserve)

    def _reserve(self, budget: "_Budget") -> Callable[[], float]:
        """A turn after the breaker lets somebody try again."""
        return lambda: budget.reserve(self._breaker.reopens_in_s())

    def _trial_run(self) -> "_Trial":
        return _Trial(self)

    def _scale(self) -> float:
        """After an outage the rate grows from a tenth to all of it, so that the orders do not come back at once."""
        ramp_s = self._breaker_config.slow_start
        since = time.monotonic() - self._closed_at
        if ramp_s <= 0 or since >= ramp_s:
            return 1.0
        return (int(since / ramp_s * _SLOW_START_STEPS) + 1) / _SLOW_START_STEPS


#: Refusals that the buyer or the mapping causes: they say nothing about the account.
_BUYERS_FAULT = frozenset({Refusal.PLAYER, Refusal.QUANTITY, Refusal.PACKAGE})


def _doubtful(answer: PlacedAnswer | StatusAnswer) -> bool:
    """Whether an answer may be about this order or about the whole account."""
    return answer.tripped or any(flag.startswith("http_4") for flag in answer.flags)


class _Trial:
    """While the breaker is half open, one request at a time finds out."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._mine = False

    def __enter__(self) -> None:
        self._mine = self._lane.state == HALF_OPEN
        if self._mine:
            self._lane._trial = True

    def __exit__(self, *_: object) -> None:
        if self._mine:
            self._lane._trial = False


class _Limiter(AsyncLimiter):
    """Turns at ``rate`` per second, which may change: who waits goes on at the new one, in the same order."""

    def __init__(self, rate: float) -> None:
        super().__init__(*_bucket(rate))

    def change(self, rate: float) -> None:
        """From now on; what was handed out before counts. The library knows only rates that stay."""
        if self._level:
            self._leak()
        self.max_rate, self.time_period = _bucket(rate)
        self._rate_per_sec = rate
        if self._waiters:
            self._wake_next()


def _bucket(rate: float) -> tuple[float, float]:
    """A tenth of a second of burst keeps a fast lane smooth; a slow one hands out single places."""
    burst = max(1.0, rate / 10)
    return burst, burst / rate


class _Budget:
    """Rate and concurrency of one kind of call; each call carries up to ``batch`` questions."""

    def __init__(self, rate: float, concurrency: int, queue: int, batch: int = 1) -> None:
        self._rate = rate
        self._share = 1.0
        self._scale = 1.0
        self._slots = asyncio.Semaphore(concurrency)
        self._queue = queue
        self.moved_at = float("-inf")
        self.waiting = 0
        self.in_flight = 0
        self._concurrency = concurrency
        self._batch = batch
        self._call_s = 0.0
        self._reserved_until = 0.0
        self._limiter = _Limiter(self._allowed)
        self.most = sys.maxsize

    @property
    def room(self) -> int:
        """How many questions may wait at once: what the lane works off soon, or else its part of the events."""
        wanted = self._queue or max(self._concurrency, int(self._rate * self._share * _QUEUE_S), 1)
        soon = self._pace() * _QUEUE_S if self._call_s > 0 else 0.0
        return min(wanted * self._batch, int(max(self.most - self._concurrency, soon * self._batch, 1)))

    def _pace(self) -> float:
        """Calls per second, as far as is known."""
        pace = self._rate * self._share
        return min(pace, self._concurrency / self._call_s) if self._call_s > 0 else pace

    def reserve(self, not_before_s: float = 0.0) -> float:
        """Seconds until the turn of one more that is sent away, at the pace of the calls that were seen so far."""
        now = time.monotonic()
        turn = max(self._reserved_until, now + not_before_s)
        self._reserved_until = turn + 1 / (max(self._pace(), 0.001) * self._batch)
        return turn - now

    @property
    def _allowed(self) -> float:
        return max(self._rate * self._share * self._scale, 0.001)

    def set_share(self, share: float) -> None:
        if share != self._share:
            self._share = share
            self._limiter.change(self._allowed)

    def soon(self, scale: float) -> bool:
        """True when the next one need not wait, or for no longer than a moment."""
        self._set_scale(scale)
        if not self.waiting and not self._slots.locked() and self._limiter.has_capacity():
            return True
        turns = _SOON_S * self._pace() * scale if self._call_s > 0 else 0.0
        return self.waiting < min(turns, self.room)

    def _set_scale(self, scale: float) -> None:
        if scale != self._scale:
            self._scale = scale
            self._limiter.change(self._allowed)

    @asynccontextmanager
    async def slot(self, scale: float, *, wait: bool = False, mine: InFlight | None = None) -> AsyncIterator[None]:
        self._set_scale(scale)
        if not wait and self.waiting >= self.room:
            raise Busy("too many requests are waiting for this integration", self.reserve)
        self.waiting += 1
        if mine is not None:
            mine.waits_for = self
        try:
            await self._slots.acquire()
            try:
                await self._limiter.acquire()
            except BaseException:
                self._slots.release()
                raise
        finally:
            self.waiting -= 1
            if mine is not None:
                mine.touch()
        began = self.moved_at = time.monotonic()
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self._slots.release()
            self.moved_at = time.monotonic()
            took_s = self.moved_at - began
            self._call_s += _SMOOTHING * (took_s - self._call_s) if self._call_s else took_s


def _percentile(ordered: Sequence[float], part: float) -> float | None:
    return round(ordered[min(int(len(ordered) * part), len(ordered) - 1)], 4) if ordered else None
