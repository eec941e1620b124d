"""Compares the four books: what the shop sent, what the provider sold, what PostgreSQL says, what the topic said.

The provider's book is the judge. A difference is one line that names the order and the two books.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, str]

FINAL = ("completed", "failed")


@dataclass(frozen=True, slots=True)
class Bought:
    """One reference in a provider's ledger: how often it was executed, where it stands, and how many units it is."""

    account: str
    reference: str
    executed: int
    state: str
    quantity: int = 1


@dataclass(slots=True)
class Books:
    """The four books. ``attempts`` maps every reference of the ledger to its order, line and state."""

    sent: set[Key]
    bought: list[Bought]
    orders: dict[Key, str]
    attempts: dict[str, tuple[Key, int, str]]
    topic: dict[Key, str]
    units: Mapping[Key, int] = field(default_factory=dict)


@dataclass(slots=True)
class Verdict:
    """What the comparison found; ``agree`` when no line was written."""

    sent: int
    bought: int
    completed: int
    failed: int
    open: int
    differences: list[str]

    @property
    def agree(self) -> bool:
        """True when the four books say the same."""
        return not self.differences


def compare(books: Books, *, open_allowed: Iterable[Key] = ()) -> Verdict:
    """Every order once in every book, nothing bought twice, nothing settled that the provider does not confirm.

    Orders in ``open_allowed`` may still be open: they wait for a person by design.
    """
    lines: list[str] = []
    allowed = set(open_allowed)
    known = set(books.orders)
    lines += [f"{_name(key)}: sent by the shop, missing in PostgreSQL" for key in sorted(books.sent - known)]
    lines += [f"{_name(key)}: in PostgreSQL, never sent by the shop" for key in sorted(known - books.sent)]
    purchases: dict[tuple[Key, int], list[Bought]] = defaultdict(list)
    for row in books.bought:
        attempt = books.attempts.get(row.reference)
        if attempt is None:
            lines.append(f"{row.account}: bought {row.reference}, which is no attempt of ours")
            continue
        if row.executed > 1:
            lines.append(f"{_name(attempt[0])}: {row.account} executed {row.reference} {row.executed} times")
        if row.executed and row.state != "fail":
            purchases[attempt[0], attempt[1]].append(row)
    for (key, line), rows in sorted(purchases.items()):
        if len(rows) > 1:
            where = ", ".join(f"{row.account} {row.reference}" for row in rows)
            lines.append(f"{_name(key)}: line {line} was bought {len(rows)} times ({where})")
    delivered: Counter[Key] = Counter()
    kept: set[Key] = set()  # sold, and not taken back later
    for (key, _), rows in purchases.items():
        delivered[key] += rows[0].quantity
        if any(row.state != "reversed" for row in rows):
            kept.add(key)
    for key, status in sorted(books.orders.items()):
        if status == "completed" and delivered[key] != books.units.get(key, 1):
            lines.append(f"{_name(key)}: completed in PostgreSQL, but {delivered[key]} units bought")
        if status == "failed" and key in kept:
            lines.append(f"{_name(key)}: failed in PostgreSQL, but bought at the provider")
        if status not in FINAL and key not in allowed:
            lines.append(f"{_name(key)}: still {status}")
        said = books.topic.get(key)
        if status in FINAL and said != status:
            lines.append(f"{_name(key)}: {status} in PostgreSQL, {said or 'nothing'} on the status topic")
    lines += [f"{_name(key)}: on the status topic only" for key in sorted(set(books.topic) - known)]
    count = Counter(books.orders.values())
    return Verdict(
        sent=len(books.sent),
        bought=sum(row.executed for row in books.bought),
        completed=count["completed"],
        failed=count["failed"],
        open=sum(n for status, n in count.items() if status not in FINAL),
        differences=lines,
    )


def _name(key: Key) -> str:
    return f"{key[0]}/{key[1]}"


def from_ledger(rows: Iterable[Mapping[str, Any]]) -> list[Bought]:
    """The simulator's ledger, as ``GET /ledger`` gives it: one row per execution."""
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[row["account"], row["reference"]].append(row)
    return [
        Bought(account, reference, len(found), str(found[0]["state"]), int(found[0]["quantity"]))
        for (account, reference), found in grouped.items()
    ]
