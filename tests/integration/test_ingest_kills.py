"""The dashboard is killed while a shop sends: what was answered is on the topic, and every order in one form only."""

import http.client
import json
import os
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from uuid import uuid4

import sqlalchemy as sa

from db.control import api_tokens
from db.engine import connect
from orderwatch.localservers.bundled import Broker, free_port
from orderwatch.localservers.child_process import ChildProcess
from streams import topics
from streams.config.loader import load
from streams.kafka.producer import apply_topics, follow
from tests.contract.command_line import CONFIG
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
ORDERS = 120
KILLS = 3


class Shop(threading.Thread):
    """Sends its orders one after the other, each until it is answered; the same key, the same body."""

    def __init__(self, port: int, token: str, numbers: range) -> None:
        super().__init__(daemon=True)
        self._port, self._token, self._numbers = port, token, numbers
        self.answered: list[str] = []

    def run(self) -> None:
        for number in self._numbers:
            while not self._placed(f"kill-{number}"):
                time.sleep(0.02)
            self.answered.append(f"kill-{number}")

    def _placed(self, order: str) -> bool:
        body = json.dumps({"tenant_id": "demo", "order_id": order, "package_id": "pubg-60", "user_identifier": "u"})
        headers = {
            "authorization": f"Bearer {self._token}",
            "idempotency-key": order,
            "content-type": "application/json",
        }
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            connection.request("POST", "/api/orders", body, headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return False  # killed in the middle: nothing is known
        finally:
            connection.close()
        assert status in (202, 503), status
        return status == 202


def serving(place: Path, port: int, environ: dict[str, str]) -> ChildProcess:
    command = [sys.executable, "-m", "orderwatch", "dashboard", "--port", str(port)]
    return ChildProcess(command, log=place / "dashboard.log", cwd=place, env=environ)


def test_a_killed_dashboard_loses_and_doubles_no_order(tmp_path: Path, database: str, broker: Broker) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG + "web: {rate: 10000/s}\n", encoding="utf-8")
    given = {"DATABASE_URL": database, "KAFKA_BOOTSTRAP_SERVERS": broker.address, "PREFIX": f"t{uuid4().hex[:8]}."}
    config = load(tmp_path / "config.yaml", given)
    apply_topics(config.kafka, topics.specs(config))
    engine = connect(database, 2)
    token = api_tokens.create(engine, "shop", ["orders:write"], "demo", "test").text
    port, environ = free_port(), {**given, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    running = serving(tmp_path, port, environ)
    shops = [Shop(port, token, range(first, ORDERS, 4)) for first in range(4)]
    try:
        for shop in shops:
            shop.start()
        for number in range(1, KILLS + 1):
            wait_until(lambda least=number: sum(len(shop.answered) for shop in shops) >= least * ORDERS // 5, 60)
            running.kill()
            running = serving(tmp_path, port, environ)
        for shop in shops:
            shop.join(60)
        answered = [order for shop in shops for order in shop.answered]
    finally:
        running.stop()

    forms: dict[str, set[bytes]] = defaultdict(set)
    for record in follow(config.kafka, topics.CREATED, from_start=True, until_end=True):
        forms[(record.key or b"").decode()].add(record.value or b"")
    assert len(answered) == ORDERS
    assert set(answered) == forms.keys()
    assert {len(values) for values in forms.values()} == {1}
    with engine.connect() as connection:
        left = connection.execute(sa.text("select count(*) from submissions where accepted_at is null")).scalar_one()
    assert left == 0
    engine.dispose()
