"""The dashboard's metrics on a real database: money at risk, what is late, who waits, who lives."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from prometheus_client.parser import text_string_to_metric_families

from db import models as m
from db.control import worker_heartbeats
from streams.metrics import DECLARED
from tests.contract.ledger_rows import put, put_attempt, put_dead_letter, put_order
from tests.dashboard import Dashboard, dashboard, settings


def samples(site: Dashboard) -> dict[tuple[str, ...], float]:
    shown = site.get("/metrics", site.token("metrics"))
    assert shown.status == 200 and "player-123456" not in shown.text
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(shown.text)
        for sample in family.samples
    }


def test_the_dashboard_measures_what_is_in_the_database(database: str) -> None:
    now = datetime.now(UTC)
    with dashboard(settings(database)) as site:
        put_order(site.engine, "o-1", created_at=now)
        put_order(site.engine, "o-2", created_at=now, external_status="unknown")
        put_attempt(
            site.engine,
            "unknown",
            "o-2",
            cost_amount=Decimal("12.50"),
            cost_currency="TRY",
            next_check_at=now - timedelta(minutes=10),
        )
        put(site.engine, m.attention, id="a", code="expired", message="m", since=now - timedelta(hours=1))
        put_dead_letter(site.engine)
        worker_heartbeats.note(site.engine, "here:1", worker_heartbeats.Doc(release="0.1.0", started_at=now))

        found = samples(site)

    assert found["orderwatch_orders_open", "unknown"] == 1 and found["orderwatch_orders_open", "not_sent"] == 1
    assert found["orderwatch_money_at_risk", "TRY", "znet-main"] == 12.5
    assert found["orderwatch_attempts_at_risk", "znet-main", "unknown"] == 1
    assert found["orderwatch_checks_overdue",] == 1 and 590 < found["orderwatch_oldest_overdue_seconds",] < 700
    assert found["orderwatch_attention_open", "expired"] == 1
    assert found["orderwatch_attention_oldest_seconds",] > 3500
    assert found["orderwatch_dead_letters_open", "malformed"] == 1
    assert found["orderwatch_workers", "alive"] == 1 and found["orderwatch_workers", "silent"] == 0
    declared = {d.name for d in DECLARED if d.source == "dashboard"}
    never_here = {"orderwatch_sweep_age_seconds", "orderwatch_balance"}  # nobody swept, nobody told a balance
    assert declared - {name for name, *_ in found} == never_here
