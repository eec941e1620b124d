"""What a running worker tells about itself, compared with what the ledger says."""

import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from db.control import worker_heartbeats
from db.engine import connect
from orderwatch.localservers.bundled import Broker
from streams.events import Created
from tests.integration.conftest import Start
from tests.system import System
from tests.waiting import wait_until

PLAYER = "player-7781-planted"
Labels = frozenset[tuple[str, str]]


@pytest.fixture(scope="module")
def system(system_of: Start, broker: Broker) -> Iterator[System]:
    running = system_of(broker.address)
    running.start_worker()
    yield running


def order(order_id: str, package: str = "sixty") -> Created:
    return Created(
        order_id=order_id, tenant_id="shop", package_id=package, user_identifier=PLAYER, created_at=datetime.now(UTC)
    )


def scrape(system: System) -> dict[str, dict[Labels, float]]:
    """Metric -> labels -> value."""
    url = f"http://127.0.0.1:{system.workers[0].port}/metrics/"  # type: ignore[attr-defined]
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    assert PLAYER not in text and "metric-" not in text
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def total(values: dict[Labels, float], **labels: str) -> float:
    return sum(value for found, value in values.items() if set(labels.items()) <= found)


def test_a_worker_counts_what_the_ledger_knows(system: System) -> None:
    system.send([order(f"metric-{n}", ["sixty", "batch", "gone"][n % 3]) for n in range(30)])
    system.wait_for_ends(60)
    attempts = system.rows("select integration_id, count(*) as n from attempts group by 1")
    wait_until(lambda: total(scrape(system)["orderwatch_events_total"], agent="dispatch", outcome="done") == 30)
    wait_until(lambda: total(scrape(system).get("orderwatch_assigned_partitions", {})) > 0)  # shown every two seconds

    found = scrape(system)

    calls = found["orderwatch_provider_calls_total"]
    for row in attempts:
        assert total(calls, integration=row["integration_id"], kind="place") == row["n"]
    completed = len([status for status in system.statuses().values() if status == "completed"])
    assert total(found["orderwatch_status_changes_total"], outcome="completed") == completed
    assert total(found["orderwatch_check_lateness_seconds_count"]) >= 20
    assert total(found["orderwatch_checks_early_total"]) == 0
    assert total(found["orderwatch_events_written_total"], topic="orders.status-changed") >= 30
    assert total(found["orderwatch_delay_forwarded_total"]) >= 20
    assert total(found["orderwatch_store_seconds_count"], kind="apply") > 0
    assert total(found["orderwatch_circuit_breaker_state"], integration="znet-main", state="closed") == 1
    assert total(found["orderwatch_assigned_partitions"], topic="orders.created") == 4


def test_a_worker_shows_its_lanes_to_everybody(system: System) -> None:
    engine = connect(system.database, 1)
    try:
        lanes = wait_until(lambda: worker_heartbeats.lanes(engine), 20)
        assert set(lanes) == {"znet-main", "barakat-1", "codes-1"}
        assert lanes["znet-main"].share == 1.0 and lanes["znet-main"].state == "closed"
    finally:
        engine.dispose()
