"""A worker is killed while it carries out a command; the next one goes on from there, once."""

from datetime import UTC, datetime

import pytest

from db.control import commands
from orderwatch.support import command_client
from streams.events import StatusChanged, decode, header
from streams.order import CommandAction
from tests.chaos.hooks.sitecustomize import COMMAND_POINTS
from tests.chaos.orders import HOOKS, order, owned, steps
from tests.integration.conftest import Start
from tests.parts import Kafka
from tests.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

#: What the person's command looks like when the worker is dead.
LEFT = {"after receive": None, "after decided": True, "after command told": True}


@pytest.mark.parametrize("point", COMMAND_POINTS)
def test_a_kill_while_a_command_is_carried_out_loses_and_doubles_nothing(
    system_of: Start, kafka: Kafka, point: str
) -> None:
    system = system_of(kafka.address)
    doomed = system.start_worker(PYTHONPATH=HOOKS, CHAOS_KILL=point)
    owned(doomed)
    system.send([order("one", "by-hand")])
    wait_until(lambda: "not_routed" in steps(system, "one"), 60)
    cancel = command_client.build(
        CommandAction.CANCEL,
        "shop",
        "one",
        by="ayse",
        reason="the buyer asked",
        command_id="cancel-1",
        issued_at=datetime.now(UTC),
    )
    command_client.issue(system.config, system.engine, cancel, 0.0)
    wait_until(doomed.ended, 60)
    held = commands.result(system.engine, "shop", "cancel-1")
    assert held is not None and held.done is LEFT[point]

    system.start_worker()
    system.wait_for_ends(90)

    held = commands.wait(system.engine, "shop", "cancel-1", 30.0)
    assert held is not None and held.done and system.statuses() == {("shop", "one"): "failed"}
    assert steps(system, "one").count("cancelled") == 1
    told = [
        record
        for record in system.read("orders.status-changed")
        if decode(StatusChanged, record.value()).order_id == "one"
    ]
    assert len({header(record.headers(), "ce_id") for record in told}) == 1
    assert system.books().agree
