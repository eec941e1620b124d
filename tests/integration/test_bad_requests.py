"""Requests that nobody should send, to the pages of a running worker; `make fuzz` sends many more."""

from orderwatch.localservers.bundled import Broker
from tests.fuzz import pages
from tests.integration.conftest import Start
from tests.system import http
from tests.waiting import wait_until


def test_bad_requests_are_refused_and_the_worker_goes_on(system_of: Start, broker: Broker) -> None:
    system = system_of(broker.address)
    pages.with_an_order(system)

    report = pages.fuzz(system, 400, seed=3)

    assert report.findings == {}
    system.send([pages.order("after")])
    system.wait_for_ends(30)
    port = system.workers[0].port  # type: ignore[attr-defined]
    wait_until(lambda: http("GET", f"http://127.0.0.1:{port}/orders/known/")["tenants"]["shop"]["status"], 20)
