"""Row 20: a host with a wrong clock checks nothing early and takes nothing over early."""

import pytest

from tests.chaos.orders import HOOKS, attempts, orders, owned
from tests.integration.conftest import Start
from tests.parts import Kafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
FIRST_AFTER_S = 3


@pytest.mark.parametrize("offset_s", ["300", "-300"])
def test_five_minutes_of_skew_change_no_time_and_no_owner(system_of: Start, kafka: Kafka, offset_s: str) -> None:
    system = system_of(kafka.address, settings={"checks": {"first_after": f"{FIRST_AFTER_S}s"}})
    for account in ("znet-main", "barakat-1"):
        system.control("PATCH", f"/accounts/{account}", {"latency": {"kind": "constant", "ms": 1200}})
    right = system.start_worker()
    wrong = system.start_worker(PYTHONPATH=HOOKS, CHAOS_CLOCK_OFFSET_S=offset_s)
    owned(right), owned(wrong)
    batch = orders("skew", 40, ["sixty", "batch"])
    system.send([*batch, *batch])  # the second one looks at the lease of the first
    system.wait_for_ends(120)
    verdict = system.books()
    assert verdict.agree and verdict.completed == 40, verdict.differences[:10]
    assert not system.rows("select 1 from order_events where step = 'lease_over'")
    asked = {row["reference"]: row["at_ns"] for row in reversed(system.control("GET", "/requests?operation=check"))}
    asked_under = {row["reference"]: row for row in system.control("GET", "/ledger") if row["account"] == "znet-main"}
    assert len(asked_under) == 20
    for reference, row in asked_under.items():  # barakat is asked in batches, which the request log does not split up
        early_s = FIRST_AFTER_S - (asked[reference] - row["executed_at_ns"]) / 1e9
        assert early_s <= 0, f"{reference} was asked about {early_s:.2f} s early"
    assert {len(attempts(system, one.order_id)) for one in batch} == {1}
