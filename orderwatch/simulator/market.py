"""The provider's books: all accounts, the scripts, the purchase ledger and the request log.

The ledger is append-only: an entry is one execution, and only its state and its counters change afterwards.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from orderwatch.simulator.account import Account, Clock
from orderwatch.simulator.faults import Fault, Faults
from orderwatch.simulator.orders import Package, Purchase
from orderwatch.simulator.scenario import AccountSpec, Life, Scenario, ScenarioError, Script, merged, read

NO_DATA: Mapping[str, str] = {}


class Market:
    """All accounts, scripts, the purchase ledger and the request log."""

    def __init__(
        self, scenario: Scenario, seed: int = 0, request_log: bool = True, clock: Clock = time.monotonic
    ) -> None:
        self.scenario = scenario
        self.seed = seed
        self.clock = clock
        self.request_log = request_log
        self.reset()

    def reset(self) -> None:
        """Back to the scenario: empty ledger, first balances, every fault unused."""
        self.accounts: dict[str, Account] = {}
        self.ledger: list[Purchase] = []
        self.requests: list[tuple[str, str, str, int, str]] = []
        self._lives: dict[tuple[str | None, str, str], Life] = {}
        for spec in self.scenario.accounts:
            self.open(spec)
        for script in self.scenario.lives:
            self.script(script)

    def open(self, spec: AccountSpec) -> Account:
        """A new account. Raises ``ScenarioError`` when the id is taken."""
        if spec.id in self.accounts:
            raise ScenarioError(f"id: {spec.id!r} is taken; expected a new account id")
        account = self.accounts[spec.id] = Account(spec, self.seed, self.clock)
        return account

    def change(self, account: Account, patch: Any) -> None:
        """Merge settings (RFC 7396) into the account's; ``id`` and ``kind`` stay. Raises ``ScenarioError``."""
        if not isinstance(patch, dict):
            raise ScenarioError("body: expected an object of settings")
        base: dict[str, Any] = msgspec.to_builtins(account.spec) | {"balance": str(account.balance)}
        for fixed in ("id", "kind"):
            if patch.get(fixed, base[fixed]) != base[fixed]:
                raise ScenarioError(f"{fixed}: {patch[fixed]!r} differs; expected {base[fixed]!r}, or the key left out")
        spec = read(merged(base, patch), type(account.spec), "body")
        account.apply(spec)
        if "faults" in patch:
            account.faults = Faults(account.key, spec.faults)

    def script(self, script: Script) -> None:
        """From now on orders of that player or package live so; the latest word counts."""
        if script.account is not None and script.account not in self.accounts:
            raise ScenarioError(f"account: {script.account!r} does not exist; expected an account id")
        what, value = ("player", script.player) if script.player is not None else ("package", script.package)
        assert value is not None
        self._lives[script.account, what, value] = script

    def life(self, account: Account, package: str, player: str) -> Life:
        """How an order bought now will live."""
        if self._lives:
            for where in (account.spec.id, None):
                for key in ((where, "player", player), (where, "package", package)):
                    if key in self._lives:
                        return self._lives[key]
        return account.spec.life

    def buy(
        self,
        account: Account,
        reference: str,
        package: Package,
        player: str,
        quantity: int,
        fault: Fault | None,
        data: Mapping[str, str] = NO_DATA,
    ) -> Purchase:
        """Execute a placement as often as the fault says, at least once; the first execution is the order."""
        life = self.life(account, package.id, player)
        times = fault.purchases if fault else 1
        bought = [account.buy(reference, package, player, quantity, life, fault, data) for _ in range(times)]
        self.ledger += bought
        return bought[0]

    def log(self, account: str, operation: str, reference: str, at_ns: int, answered: str) -> None:
        """Note one request; without credentials, and not at all when the log is off."""
        if self.request_log:
            self.requests.append((account, operation, reference, at_ns, answered))

    def entries(self, account: str | None = None, reference: str | None = None) -> Iterator[Purchase]:
        """Ledger lines in the order of execution, after the clock has done its work."""
        for opened in self.accounts.values():
            opened.advance()
        for purchase in self.ledger:
            if account in (None, purchase.account) and reference in (None, purchase.reference):
                yield purchase

    def summary(self) -> dict[str, Any]:
        """Per account: references, executions, the references executed more than once, and the money."""
        return {name: self._summary_of(account) for name, account in self.accounts.items()}

    def _summary_of(self, account: Account) -> dict[str, Any]:
        account.advance()
        states: dict[str, int] = {}
        for purchases in account.orders.values():
            for purchase in purchases:
                states[purchase.state] = states.get(purchase.state, 0) + 1
        return {
            "references": len(account.orders),
            "executed": account.executed,
            "executed_twice": [reference for reference, purchases in account.orders.items() if len(purchases) > 1],
            "cost": str(account.spent),
            "returned": str(account.returned),
            "balance": str(account.balance),
            "currency": account.spec.currency,
            "states": states,
            "requests": dict(account.requests),
        }
