"""Attention leaves a running system: a webhook that is down holds nothing up; a restart neither loses nor doubles."""

from datetime import UTC, datetime

from standardwebhooks import Webhook

from orderwatch.localservers.bundled import Broker
from streams.events import Created
from tests.integration.conftest import Start
from tests.receiver import SECRET, receiving
from tests.waiting import wait_until

PLAYER = "player-7781-planted"


def order(order_id: str, package: str) -> Created:
    return Created(
        order_id=order_id, tenant_id="shop", package_id=package, user_identifier=PLAYER, created_at=datetime.now(UTC)
    )


def test_attention_reaches_a_webhook_over_its_outage_and_a_restart_of_the_worker(
    system_of: Start, broker: Broker
) -> None:
    with receiving(503) as receiver:
        system = system_of(
            broker.address,
            settings={"alerts": {"webhook_url": receiver.url, "webhook_secret": SECRET, "every": "200ms"}},
        )
        worker = system.start_worker()
        people = [order("by-hand", "by-hand"), order("nowhere", "nowhere")]
        system.send([*people, *(order(f"goes-{n}", "sixty") for n in range(10))])
        system.wait_for_ends(60, open_allowed={("shop", one.order_id) for one in people})
        wait_until(lambda: len(receiver.got) >= 2, 30)
        system.stop_worker(worker)

        receiver.statuses, before = [200], len(receiver.got)
        told = "select attention_id from alert_deliveries where delivered_at is not null"
        with system.engine.begin() as connection:  # the next try is ten seconds away
            connection.exec_driver_sql("update alert_deliveries set next_at = now()")
        system.start_worker()
        wait_until(lambda: len(system.rows(told)) == 2, 60)

        ids = [headers["webhook-id"] for headers, _ in receiver.got[before:]]
        assert sorted(ids) == sorted(row["id"] for row in system.rows("select id from attention"))
        for headers, content in receiver.got:
            said = Webhook(SECRET).verify(content, headers)
            assert said["data"]["code"] in ("manual_route", "no_routing")
            assert PLAYER.encode() not in content
        assert {said["order_id"] for said in system.rows("select order_id from attention")} == {"by-hand", "nowhere"}
        assert SECRET not in system.log_tail()
