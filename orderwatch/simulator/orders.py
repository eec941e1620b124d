"""One purchase, and the codes it delivers."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from orderwatch.simulator.scenario import Life, ZdkPackage, ZnetPackage

Package = ZnetPackage | ZdkPackage

PIN_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


def pin_of(reference: str, execution: int = 1, unit: int = 1) -> str:
    """The code the simulator delivers for one unit of an order; 16 characters in four groups.

    It depends on the arguments alone. The second execution of the same reference brings another code.
    """
    digest = hashlib.blake2b(f"{reference}:{execution}:{unit}".encode(), digest_size=16).digest()
    letters = "".join(PIN_ALPHABET[byte % 32] for byte in digest)
    return "-".join(letters[at : at + 4] for at in range(0, 16, 4))


@dataclass(slots=True, eq=False)
class Purchase:
    """One execution. ``state`` is pending, success, fail or reversed; the last two gave the money back.

    ``number`` counts all purchases of the account, ``execution`` those under the same reference, from 1. ``checks``
    counts the status questions that named it, ``shown`` those that were answered with it, ``successes`` the answers
    that called it a success, ``relapses`` those that said afterwards that it is in work again. ``started`` and
    ``hidden_until`` are seconds of the account's clock.
    """

    account: str
    reference: str
    execution: int
    number: int
    external_id: str
    package: Package
    player: str
    quantity: int
    cost: Decimal
    balance_after: Decimal
    data: Mapping[str, str]
    life: Life
    started: float
    executed_at_ns: int
    hidden_checks: int = 0
    hidden_until: float = 0.0
    state: str = "pending"
    finished_at_ns: int | None = None
    checks: int = 0
    shown: int = 0
    successes: int = 0
    relapses: int = 0

    def pins(self) -> list[str]:
        """The codes this purchase delivers, one per unit; none when its life has none."""
        if self.life.pin is False:
            return []
        if isinstance(self.life.pin, str):
            return [self.life.pin]
        return [pin_of(self.reference, self.execution, unit) for unit in range(1, self.quantity + 1)]

    def released_pins(self) -> list[str]:
        """The codes an answer may show now."""
        return self.pins() if self.state == "success" and self.successes > self.life.pin_after_checks else []

    def entry(self) -> dict[str, Any]:
        """The ledger's line, as the control API shows it."""
        return {
            "account": self.account,
            "reference": self.reference,
            "external_id": self.external_id,
            "package": self.package.id,
            "player": self.player,
            "quantity": self.quantity,
            "cost": str(self.cost),
            "execution": self.execution,
            "executed_at_ns": self.executed_at_ns,
            "finished_at_ns": self.finished_at_ns,
            "state": self.state,
            "checks": self.checks,
        }
