"""An order that knows only HTTP: placed, called back about, followed, acted on and delivered, by a real worker."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from orderwatch.localservers.bundled import Broker
from streams.config.loader import load
from tests.contract.test_web_acts import signed
from tests.contract.test_web_live import Stream, stream
from tests.dashboard import Dashboard, dashboard
from tests.integration.conftest import Start
from tests.system import System
from tests.waiting import wait_until

SECRET = "a secret of the account"
#: Nothing is asked by itself while a test runs: what happens, happened because of the callback.
PATIENT = {"first_after": "5m", "backoff": {"base": "5m", "factor": 1, "max": "5m"}}


@dataclass
class Site:
    """A dashboard in front of a system with one worker."""

    system: System
    web: Dashboard
    token: str

    def place(self, order_id: str, key: str = "") -> None:
        order = {"tenant_id": "shop", "order_id": order_id, "package_id": "sixty", "user_identifier": "5551234567890"}
        headers = {"idempotency-key": key or order_id}
        answer = self.web.ask("POST", "/api/orders", order, token=self.token, headers=headers)
        assert answer.status == 202, answer.text

    def order(self, order_id: str) -> Any:
        return self.web.get(f"/api/orders/shop/{order_id}", self.token).document()

    def states(self, order_id: str) -> list[str]:
        """Of its attempts; none while dispatch has not read it."""
        return [row["state"] for row in self.order(order_id).get("attempts", ())]

    def act(self, order_id: str, **asked: Any) -> tuple[int, Any]:
        answer = self.web.ask(
            "POST", f"/api/orders/shop/{order_id}/commands", {"reason": "a test", **asked}, token=self.token
        )
        return answer.status, answer.document()


@pytest.fixture(scope="module")
def site(system_of: Start, broker: Broker) -> Iterator[Site]:
    system = system_of(broker.address, settings={"checks": PATIENT, "web": {"rate": "1000/s"}})
    document = yaml.safe_load(system.config_path.read_text("utf-8"))
    document["integrations"][0]["credentials"]["callback_secret"] = f"${{HOOK:-{SECRET}}}"
    system.config_path.write_text(yaml.safe_dump(document), encoding="utf-8")
    system.config = load(system.config_path, {})
    system.start_worker()
    with dashboard(system.config, keys=system.pin_keys) as web:
        made = Site(system, web, web.token(tenant="shop", name="ayse"))
        yield made


def reaches(heard: Stream, order_id: str, delivery: str) -> None:
    while heard.until("status", order_id)["external_status"] != delivery:
        pass


def test_an_order_is_placed_called_back_about_and_delivered(site: Site) -> None:
    with stream(site.web, site.token) as heard:
        site.place("http-1")
        reaches(heard, "http-1", "sent")
        [attempt] = site.order("http-1")["attempts"]
        assert attempt["state"] == "accepted"

        body = json.dumps({"reference": attempt["reference"], "status": "failed"}).encode()
        called = site.web.ask("POST", "/hooks/znet-main", body, headers=signed(body, SECRET))
        assert called.document() == {"asked": True}

        reaches(heard, "http-1", "completed")  # what the provider answers counts, not what the callback said
    assert site.order("http-1")["order"]["status"] == "approved"
    [pin] = site.web.ask("POST", "/api/orders/shop/http-1/pin", token=site.token).document()["pins"]
    assert pin and pin not in site.web.get("/api/orders/shop/http-1/timeline", site.token).text


def test_a_command_over_http_is_decided_by_a_worker_and_only_once(site: Site) -> None:
    site.place("http-2")
    wait_until(lambda: site.states("http-2") == ["accepted"], 30)
    assert "check" in {offer["action"] for offer in site.order("http-2")["acts"]}

    status, asked = site.act("http-2", action="check", command_id="http-2-check")
    assert (status, asked["done"], asked["by"]) == (200, True, "ayse")
    wait_until(lambda: site.order("http-2")["order"]["external_status"] == "completed", 30)
    assert site.act("http-2", action="check", command_id="http-2-check") == (200, asked)

    status, refused = site.act("http-2", action="cancel")
    assert (status, refused["done"]) == (200, False)
    assert refused["said"]
    assert "cancel" not in {offer["action"] for offer in site.order("http-2")["acts"]}


def test_an_order_placed_again_and_again_over_http_is_bought_once(site: Site) -> None:
    for _ in range(5):
        site.place("http-3")
    wait_until(lambda: site.states("http-3") == ["accepted"], 30)
    site.place("http-3", key="another")
    time.sleep(0.5)  # a second purchase would follow at once
    assert site.states("http-3") == ["accepted"]
