"""Small words of the tests of single rows: orders, and waiting for a worker or for what a database says."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streams.events import Created
from tests.system import System, http
from tests.waiting import wait_until

#: On the PYTHONPATH of a worker that is to suffer; see there.
HOOKS = str(Path(__file__).parent / "hooks")


def order(order_id: str, package: str = "sixty", player: str = "5550001", **fields: Any) -> Created:
    return Created(
        order_id=order_id,
        tenant_id="shop",
        package_id=package,
        user_identifier=player,
        created_at=datetime.now(UTC),
        **fields,
    )


def orders(name: str, count: int, packages: Sequence[str] = ("sixty", "batch", "gone")) -> list[Created]:
    return [order(f"{name}-{number}", packages[number % len(packages)]) for number in range(count)]


def assigned(worker: Any) -> int:
    """The number of partitions a worker has; 0 while it does not answer."""
    try:
        return int(http("GET", f"http://127.0.0.1:{worker.port}/health/")["assigned"])
    except OSError:
        return 0


def owned(worker: Any, timeout_s: float = 60) -> int:
    """The same, once it has some."""
    return wait_until(lambda: assigned(worker), timeout_s)


def attempts(system: System, order_id: str) -> list[dict[str, Any]]:
    """The attempts of an order, in order."""
    return system.rows("select * from attempts where order_id = :o order by attempt", o=order_id)


def steps(system: System, order_id: str) -> list[str]:
    """The timeline of an order."""
    rows = system.rows("select step from order_events where order_id = :o order by id", o=order_id)
    return [row["step"] for row in rows]


def attention(system: System, code: str) -> list[dict[str, Any]]:
    """What was raised with this code."""
    return system.rows("select * from attention where code = :c order by since", c=code)
