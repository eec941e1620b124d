"""Requests of any kind to the HTTP API; `make fuzz` sends many more."""

import pytest

from orderwatch.dashboard.api import commands
from tests.contract.ledger_rows import put_attempt, put_dead_letter, put_order
from tests.dashboard import Dashboard
from tests.fuzz import api
from tests.fuzz.engine import run_seeded


def test_any_request_is_answered_without_an_error_of_ours(site: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "WAIT_S", 0.0)
    put_order(site.engine)
    put_attempt(site.engine, "unknown")
    put_dead_letter(site.engine)

    report = run_seeded(api.target(site), 1500, seed=3)

    assert report.findings == {}
    assert site.get("/api/orders/demo/o-1", site.token()).status == 200
