"""A dealer account at work: its money, its orders, and what the passing of checks and time does to them.

Nothing here awaits, so a placement is executed whole or not at all.
"""

import hashlib
import heapq
import random
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from orderwatch.simulator.faults import Fault, FaultKind, Faults
from orderwatch.simulator.orders import Package, Purchase
from orderwatch.simulator.scenario import AccountSpec, Constant, Latency, Life, Uniform, ZnetPackage

Clock = Callable[[], float]
FIRST_NUMBER = 166189
#: In the place of an extra state: the provider's word for "in work".
RELAPSED = "relapsed"


class Account:
    """A dealer account at work. ``spec`` is what it was last told to be; ``balance`` is what it has now."""

    def __init__(self, spec: AccountSpec, seed: int, clock: Clock) -> None:
        self.key = f"{seed}:{spec.id}"
        self.random = random.Random(self.key)  # noqa: S311 - a simulation, repeatable on purpose
        self.clock = clock
        self.orders: dict[str, list[Purchase]] = {}
        self.by_external_id: dict[str, Purchase] = {}
        self.requests: dict[str, int] = {}
        self.executed = 0
        self.spent = self.returned = Decimal(0)
        self._latest: Purchase | None = None
        self._timers: list[tuple[float, int, str, Purchase]] = []
        self.apply(spec)
        self.faults = Faults(self.key, spec.faults)

    def apply(self, spec: AccountSpec) -> None:
        """Take over new settings; orders keep the life they were bought with, faults keep their counts."""
        self.spec = spec
        self.balance = spec.balance
        self.packages: dict[str, Package] = {row.id: row for row in spec.catalogue}
        self.pairs = {(row.oyun, row.kupur): row for row in spec.catalogue if isinstance(row, ZnetPackage)}

    def settings(self) -> dict[str, Any]:
        """The account as plain data, with its present balance and its live faults, without credentials."""
        data: dict[str, Any] = msgspec.to_builtins(self.spec)
        del data["credentials"]
        return {**data, "balance": str(self.balance), "faults": self.faults.pending()}

    @property
    def spendable(self) -> Decimal:
        """What an order may cost at most."""
        return self.balance - (self.spec.debt or 0)

    def buy(
        self,
        reference: str,
        package: Package,
        player: str,
        quantity: int,
        life: Life,
        fault: Fault | None,
        data: Mapping[str, str],
    ) -> Purchase:
        """Execute the placement once and take the money; the caller has checked that it may."""
        purchases = self.orders.setdefault(reference, [])
        execution = len(purchases) + 1
        name = f"{self.spec.id}:{reference}:{execution}"
        if fault is not None:
            life = msgspec.structs.replace(life, **self._changes(fault))
        cost, now = package.price * quantity, self.clock()
        self.balance -= cost
        self.spent += cost
        purchase = Purchase(
            account=self.spec.id,
            reference=reference,
            execution=execution,
            number=FIRST_NUMBER + self.executed,
            external_id="ID_" + hashlib.blake2b(name.encode(), digest_size=8).hexdigest(),
            package=package,
            player=player,
            quantity=quantity,
            cost=cost,
            balance_after=self.balance,
            data=data,
            life=life,
            started=now,
            executed_at_ns=time.time_ns(),
        )
        if fault is not None:
            if fault.kind is FaultKind.SAME_ID and self._latest is not None:
                purchase.external_id = self._latest.external_id
            purchase.hidden_checks = fault.hidden_checks
            purchase.hidden_until = now + fault.hidden_ms / 1000
        self.executed += 1
        purchases.append(purchase)
        self.by_external_id[purchase.external_id] = purchase
        self._wind(purchase)
        self._latest = purchase
        return purchase

    def _changes(self, fault: Fault) -> dict[str, Any]:
        """What a fault of the placement changes in the life of the order."""
        match fault.kind:
            case FaultKind.REVERSE:
                return {"reversal_after_checks": 1}
            case FaultKind.RELAPSE:
                return {"reversal_after_checks": 1, "relapse_checks": 2}
            case FaultKind.LATE_PIN:
                return {"pin_after_checks": 2}
            case FaultKind.SAME_PIN if self._latest is not None:
                return {"pin": next(iter(self._latest.pins()), False)}
        return {}

    def advance(self) -> None:
        """Let the clock finish and reverse what is due, also where nobody asks."""
        now = self.clock()
        while self._timers and self._timers[0][0] <= now:
            _, _, what, purchase = heapq.heappop(self._timers)
            if what == "reverse":
                self.finish(purchase, "reversed")
            elif purchase.shown >= purchase.life.checks_needed():
                self.finish(purchase, purchase.life.final)

    def look_up(self, purchases: list[Purchase], fault: Fault | None) -> list[tuple[Purchase, str | None]]:
        """One status question about these executions: those it can see, each with the extra state to say, if any.

        A stale answer leaves them as they are; a reversing one calls them off first.
        """
        visible: list[tuple[Purchase, str | None]] = []
        for purchase in purchases:
            if not self.seen(purchase):
                continue
            if fault is not None and fault.kind is FaultKind.REVERSE:
                self.finish(purchase, "reversed")
            stale = fault is not None and fault.kind is FaultKind.STALE
            visible.append((purchase, None if stale else self.show(purchase)))
        return visible

    def seen(self, purchase: Purchase) -> bool:
        """Count one status question; False while the order is hidden from look-ups."""
        purchase.checks += 1
        if purchase.hidden_checks > 0:
            purchase.hidden_checks -= 1
            return False
        return self.clock() >= purchase.hidden_until

    def show(self, purchase: Purchase, check: bool = True) -> str | None:
        """Move the order along as far as an answer about it may show; the extra state to say instead, if one is due.

        ``check`` is False for the answer to a placement, which counts for nothing but the success it may state.
        """
        life = purchase.life
        if check:
            purchase.shown += 1
            if purchase.shown <= len(life.extra_states):
                return life.extra_states[purchase.shown - 1]
        self.ripen(purchase)
        if purchase.state == "success":
            limit = life.reversal_after_checks
            if limit is not None and purchase.successes >= limit and purchase.relapses < life.relapse_checks:
                purchase.relapses += check
                return RELAPSED
            if limit is not None and purchase.successes >= limit:
                self.finish(purchase, "reversed")
            else:
                purchase.successes += 1
        return None

    def ripen(self, purchase: Purchase) -> None:
        """End the order when checks and time allow it."""
        life = purchase.life
        elapsed_ms = (self.clock() - purchase.started) * 1000
        if purchase.shown >= life.checks_needed() and elapsed_ms >= (life.after_ms or 0):
            self.finish(purchase, life.final)

    def finish(self, purchase: Purchase, state: str) -> None:
        """Move along pending -> success | fail and success -> reversed; any other move does nothing."""
        if state == "pending" or (purchase.state != "pending" and (purchase.state, state) != ("success", "reversed")):
            return
        if purchase.state == "pending" and state == "reversed":
            state = "fail"
        purchase.state = state
        purchase.finished_at_ns = time.time_ns()
        if state != "success":
            self.balance += purchase.cost
            self.returned += purchase.cost

    def _wind(self, purchase: Purchase) -> None:
        life = purchase.life
        if life.after_ms is not None:
            self._timer(purchase, "finish", life.after_ms)
        if life.reversal_after_ms is not None:
            self._timer(purchase, "reverse", life.reversal_after_ms)

    def _timer(self, purchase: Purchase, what: str, ms: float) -> None:
        heapq.heappush(self._timers, (purchase.started + ms / 1000, purchase.number, what, purchase))

    def latency_s(self, latency: Latency | None) -> float:
        """The next answer time, in seconds, from the given distribution or the account's own."""
        chosen = latency or self.spec.latency
        if isinstance(chosen, Constant):
            return chosen.ms / 1000
        if isinstance(chosen, Uniform):
            return self.random.uniform(chosen.low_ms, chosen.high_ms) / 1000
        return min(chosen.median_ms * self.random.lognormvariate(0, chosen.sigma), chosen.max_ms) / 1000
