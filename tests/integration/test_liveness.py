"""A handler that hangs for real: the worker notices, says where, and is started again; the order reaches its end."""

import json
import os
import sys
import time
from datetime import UTC, datetime
from urllib.error import HTTPError

import pytest
import sqlalchemy as sa
import yaml

from orderwatch.localservers.bundled import Broker, Postgres, free_port
from orderwatch.localservers.child_process import ChildProcess
from streams.events import Created
from streams.kafka.producer import group_lag
from streams.topics import PROMISES
from tests.chaos.orders import HOOKS
from tests.integration.conftest import Start
from tests.parts import Kafka
from tests.proxy import Proxy
from tests.system import ROOT, System, http
from tests.waiting import wait_until

PLAYER = "player-7781-planted"


def order(order_id: str, package: str = "sixty") -> Created:
    return Created(
        order_id=order_id, tenant_id="shop", package_id=package, user_identifier=PLAYER, created_at=datetime.now(UTC)
    )


def supervised(system: System, port: int, at: str) -> ChildProcess:
    """``orderwatch worker``, whose worker hangs at the first order that it opens, or at its first check."""
    log = system.directory / "worker-supervised.log"
    env = {
        **os.environ,
        "ORDERWATCH_PIN_KEYS": system.pin_keys,
        "PYTHONPATH": f"{HOOKS}:{ROOT}",
        "CHAOS_HANG": str(system.directory / "hung"),
        "CHAOS_HANG_AT": at,
    }
    worker = ChildProcess(
        [sys.executable, "-m", "orderwatch", "worker", "--config", str(system.config_path), "--web-port", str(port)],
        log=log,
        cwd=system.directory,
        env=env,
    )
    system.workers.append(worker)
    return worker


def health(port: int) -> tuple[int, list[str]]:
    try:
        return 200, http("GET", f"http://127.0.0.1:{port}/health/")["stuck"]
    except HTTPError as error:
        return error.code, json.loads(error.read())["stuck"]


@pytest.mark.parametrize(
    ("at", "told", "stack"),
    [
        ("open", "orders.created [", ("dispatch.py", "open_")),
        ("check", "what is due in the tiers", ("check.py", "apply_")),
    ],
)
def test_a_hanging_handler_is_seen_told_and_started_again(
    system_of: Start, broker: Broker, at: str, told: str, stack: tuple[str, str]
) -> None:
    system = system_of(
        broker.address, settings={"worker": {"stall_after": "4s", "drain": "1s"}, "dispatch": {"lease_margin": "1s"}}
    )
    port = free_port()
    worker = supervised(system, port, at)
    system.send([order("hangs"), order("follows")])

    def unhealthy() -> list[str]:
        try:
            status, stuck = health(port)
        except OSError:
            return []
        return stuck if status == 503 else []

    stuck = wait_until(unhealthy, 60)
    assert any(line.startswith(told) for line in stuck), stuck

    system.wait_for_ends(90)

    log = (system.directory / "worker-supervised.log").read_text(errors="replace")
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    stacks = ["\n".join(line["stack"]) for line in lines if line.get("event") == "task"]
    assert any(all(place in each for place in stack) for each in stacks), "the dump shows where it hung"
    assert any(line.get("event") == "worker restarts" and line["status"] == 75 for line in lines)
    assert "made no progress and ended itself; starting it again" in log
    assert PLAYER not in log
    wait_until(lambda: health(port) == (200, []), 30)
    verdict = system.books()
    assert verdict.agree, verdict.differences
    worker.stop()


def test_a_database_that_falls_silent_for_long_is_no_reason_to_restart(
    system_of: Start, broker: Broker, postgres: Postgres
) -> None:
    address = sa.make_url(postgres.url)
    assert address.port is not None, "the bundled server listens on TCP"
    with Proxy(address.port) as network:
        system = system_of(broker.address, settings={"worker": {"stall_after": "8s"}})
        url = sa.make_url(system.database).set(host="127.0.0.1", port=network.port)
        document = yaml.safe_load(system.config_path.read_text(encoding="utf-8"))
        document["database"]["url"] = url.render_as_string(hide_password=False)
        system.config_path.write_text(yaml.safe_dump(document), encoding="utf-8")
        worker = system.start_worker()
        port = worker.port  # type: ignore[attr-defined]
        system.send([order(f"before-{n}") for n in range(5)])
        system.wait_for_ends(60)
        network.drop()
        system.send([order(f"silent-{n}") for n in range(20)])

        silent_until = time.monotonic() + 20
        while time.monotonic() < silent_until:
            assert health(port) == (200, [])
            time.sleep(1)
        network.heal()

        system.wait_for_ends(90)
        assert "no progress" not in system.log_tail() and not worker.ended()
        assert system.books().agree


def test_a_worker_that_has_done_everything_is_healthy_however_long(system_of: Start, broker: Broker) -> None:
    stays_healthy(system_of(broker.address, settings={"worker": {"stall_after": "3s"}}))


def test_so_it_is_on_apache_kafka(system_of: Start, kafka: Kafka) -> None:
    stays_healthy(system_of(kafka.address, settings={"worker": {"stall_after": "3s"}}))


def stays_healthy(system: System) -> None:
    """Everything that was read is committed: an end that is never reached would look like a backlog for ever."""
    worker = system.start_worker()
    port = worker.port  # type: ignore[attr-defined]
    packages = ("sixty", "batch", "gone", "by-hand")
    system.send([order(f"{package}-{n}", package) for package in packages for n in range(9)])
    system.wait_for_ends(90, open_allowed={("shop", f"by-hand-{n}") for n in range(9)})
    group, topics = f"{system.prefix}orderwatch", [promise.name for promise in PROMISES]

    def lag() -> int:
        found = group_lag(system.config.kafka, group, topics).values()
        return sum(end - (committed or 0) for committed, end in found)

    wait_until(lambda: lag() == 0, 30)
    quiet_until = time.monotonic() + 12
    while time.monotonic() < quiet_until:
        assert health(port) == (200, [])
        time.sleep(1)
    assert "no progress" not in system.log_tail()
