"""A real worker at shops whose answers do not say what happened: one order per fault, judged by the shops' ledger."""

from collections.abc import Iterator
from typing import Any

import pytest

from orderwatch.localservers.bundled import Broker
from streams.events import Created
from tests.chaos.orders import attempts, attention, order
from tests.integration.conftest import Start
from tests.system import System
from tests.waiting import wait_until

SETTINGS = {"checks": {"first_after": "1s", "after_final": {"every": "1s", "until": "5m"}}}
PACKAGES = ("sixty", "batch")
CHECK = {"operation": "check"}

#: name -> (package, account, fault). The order is bought once, by this account, and completed without a person.
COMPLETED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "znet-401": ("sixty", "znet-main", {"kind": "error_after", "status": 401}),
    "znet-403": ("sixty", "znet-main", {"kind": "error_after", "status": 403, "text": "<html>403</html>"}),
    "znet-409": ("sixty", "znet-main", {"kind": "error_after", "status": 409, "text": "Conflict"}),
    "znet-filter": ("sixty", "znet-main", {"kind": "firewall", "executions": 1}),
    "znet-before": ("sixty", "znet-main", {"kind": "say", "text": "3|Daha &Ouml;nce G&ouml;nderilmi&#351; (166189)"}),
    "znet-package": ("sixty", "znet-main", {"kind": "say", "text": "3|Mükerrer paket talebi"}),
    "znet-unsure": ("sixty", "znet-main", {"kind": "say", "text": "3|İşleminiz alındı"}),
    "znet-form": ("sixty", "znet-main", {"kind": "contradiction"}),
    "znet-next": ("sixty", "znet-main", {"kind": "second_answer", "text": "3|Yetersiz Bakiye"}),
    "znet-408": ("sixty", "znet-main", {"kind": "late_408"}),
    "znet-late": ("sixty", "znet-main", {"kind": "late_pin"}),
    "znet-cost": ("sixty", "znet-main", {"kind": "cost"}),
    "znet-minus": ("sixty", "znet-main", {"kind": "cost", "factor": "-1"}),
    "znet-word": ("sixty", "znet-main", {**CHECK, "kind": "unknown_word"}),
    "znet-rows": ("sixty", "znet-main", {**CHECK, "kind": "two_rows"}),
    "znet-both": ("sixty", "znet-main", {**CHECK, "kind": "contradiction"}),
    "znet-null": ("sixty", "znet-main", {**CHECK, "kind": "placeholder"}),
    "znet-busy": ("sixty", "znet-main", {**CHECK, "kind": "say", "text": "3|Çok sık sorgulama yaptınız"}),
    "zdk-403": ("batch", "barakat-1", {"kind": "error_after", "status": 403}),
    "zdk-409": ("batch", "barakat-1", {"kind": "say", "status": 409, "text": '{"success":false,"message":"conflict"}'}),
    "zdk-before": ("batch", "barakat-1", {"kind": "say", "text": '{"status":"ERROR","message":"الطلب مكرر"}'}),
    "zdk-code": ("batch", "barakat-1", {"kind": "say", "text": '{"code":109,"message":"Duplicate order"}'}),
    "zdk-unsure": ("batch", "barakat-1", {"kind": "say", "text": '{"status":"ERROR","message":"حدث خطأ غير متوقع"}'}),
    "zdk-form": ("batch", "barakat-1", {"kind": "contradiction"}),
    "zdk-word": ("batch", "barakat-1", {**CHECK, "kind": "unknown_word"}),
    "zdk-rows": ("batch", "barakat-1", {**CHECK, "kind": "two_rows"}),
    "zdk-both": ("batch", "barakat-1", {**CHECK, "kind": "contradiction"}),
    "zdk-player": ("batch", "barakat-1", {**CHECK, "kind": "stranger", "field": "player"}),
    "zdk-product": ("batch", "barakat-1", {**CHECK, "kind": "stranger", "field": "product"}),
    "zdk-quantity": ("batch", "barakat-1", {**CHECK, "kind": "stranger", "field": "quantity"}),
    "zdk-null": ("batch", "barakat-1", {**CHECK, "kind": "placeholder", "text": "قيد الانتظار"}),
}
#: name -> (package, account, fault, code). Bought once, and a person is told with this code.
TOLD: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "znet-back": ("sixty", "znet-main", {"kind": "relapse"}, "reversal"),
    "zdk-back": ("batch", "barakat-1", {"kind": "relapse"}, "reversal"),
    "znet-beside": ("sixty", "znet-main", {**CHECK, "kind": "code_in_message", "times": None}, "pin_missing"),
    "zdk-beside": ("batch", "barakat-1", {**CHECK, "kind": "code_in_message", "times": None}, "pin_missing"),
    "znet-new": ("sixty", "znet-main", {"kind": "say", "text": "3|Açıklama"}, "reversal"),
    "zdk-new": ("batch", "barakat-1", {"kind": "say", "text": '{"success":false,"message":"Not today"}'}, "reversal"),
}


def of(name: str, package: str) -> Created:
    return order(name, package, player=f"player-{name}")


def give(system: System, name: str, account: str, fault: dict[str, Any]) -> None:
    system.control("POST", f"/accounts/{account}/faults", {**fault, "player": f"player-{name}"})


def told(system: System, name: str, code: str) -> list[dict[str, Any]]:
    return [row for row in attention(system, code) if row["order_id"] == name]


@pytest.fixture(scope="module")
def system(system_of: Start, broker: Broker) -> Iterator[System]:
    running = system_of(broker.address, settings=SETTINGS)
    for name, (_, account, fault) in COMPLETED.items():
        give(running, name, account, fault)
    running.start_worker()
    running.send([of(name, package) for name, (package, *_) in COMPLETED.items()])
    yield running


def bought(system: System, name: str) -> list[str]:
    return [row["account"] for row in system.control("GET", "/ledger") if row["player"] == f"player-{name}"]


@pytest.mark.parametrize("name", COMPLETED)
def test_an_order_is_bought_once_and_completed_whatever_one_answer_says(system: System, name: str) -> None:
    wait_until(lambda: system.statuses().get(("shop", name)) == "completed", 60)
    assert bought(system, name) == [COMPLETED[name][1]]
    [row] = attempts(system, name)
    assert row["state"] == "completed" and row["pins"]


@pytest.mark.parametrize("name", TOLD)
def test_a_person_is_told_and_nothing_more_is_bought(system: System, name: str) -> None:
    package, account, fault, code = TOLD[name]
    give(system, name, account, fault)
    system.send([of(name, package)])  # alone: a fault hits one batch of questions, whoever else is in it
    wait_until(lambda: told(system, name, code), 60)
    assert bought(system, name) == [account]
    assert len(attempts(system, name)) == 1


def test_a_firewall_that_knows_one_word_stops_one_order_and_no_other(system_of: Start, broker: Broker) -> None:
    system = system_of(broker.address, settings=SETTINGS)
    for account in ("znet-main", "barakat-1"):
        rule = {"kind": "firewall", "player_contains": "<script", "times": None}
        system.control("POST", f"/accounts/{account}/faults", rule)
    system.start_worker()
    poisoned = [order(f"poison-{n}", package, player="<script>1</script>") for n, package in enumerate(PACKAGES)]
    good = [order(f"good-{n}", PACKAGES[n % 2], player=f"player-{n}") for n in range(20)]
    system.send([*poisoned, *good])
    ends = {("shop", one.order_id): "completed" for one in good}
    wait_until(lambda: ends.items() <= system.statuses().items(), 60)
    assert "<script>1</script>" not in {row["player"] for row in system.control("GET", "/ledger")}
    assert len(system.control("GET", "/ledger")) == len(good)
