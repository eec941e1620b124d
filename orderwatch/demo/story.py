"""What the shop sends: the orders of the shipped file, some of them twice, and one event that is no order."""

import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from orderwatch.support.order_files import read_orders
from orderwatch.support.session import emitting
from streams.clients import OrderProducer
from streams.config.loader import Config
from streams.events import Created
from streams.kafka.producer import Outgoing
from streams.topics import CREATED

ORDERS = Path(__file__).parents[1] / "demo_orders.csv"

#: Sent by a shop with a defect: its quantity is a word.
MALFORMED = Outgoing(
    CREATED,
    b"D-99999",
    b'{"order_id":"D-99999","tenant_id":"demo","package_id":"pubg-60","quantity":"two",'
    b'"user_identifier":"5100000000","created_at":"2026-01-01T00:00:00Z"}',
    [],
)

#: Answers that get lost whatever the probabilities of the scenario say, so that a short run tells the story too.
LOST_ANSWERS = (
    ("znet-main", {"kind": "hang_up_after", "player": "5000000004", "hidden_checks": 1}),
    ("barakat-b", {"kind": "error_after", "player": "5000000005", "status": 502}),
    ("znet-b", {"kind": "hang_up_before", "player": "5000000006"}),
)

_STOP_S = 5.0
_REPEAT_EVERY = 12
_REPEAT_AFTER = 10
_ARRIVAL_S = 8.0  # the file arrives within this time
_PACE_S = 0.05  # but no slower than this per order


def orders(count: int | None) -> list[Created]:
    """The shipped orders, or ``count`` of them; more than the file has are its orders again under new ids."""
    shipped = [line.created for line in read_orders(ORDERS, datetime.now(UTC), None) if line.created is not None]
    wanted = len(shipped) if count is None else count
    rounds = -(-wanted // len(shipped))
    made = shipped + [
        msgspec.structs.replace(order, order_id=f"{order.order_id}.{number}")
        for number in range(2, rounds + 1)
        for order in shipped
    ]
    return made[:wanted]


def with_repeats(placed: Sequence[Created]) -> list[Created]:
    """The orders as the shop sends them: every so many of them comes a second time, a little later."""
    sent: list[Created] = []
    for number, order in enumerate(placed):
        sent.append(order)
        first = number - _REPEAT_AFTER
        if first >= 0 and first % _REPEAT_EVERY == 0:
            sent.append(placed[first])
    return sent


class Shop(threading.Thread):
    """Sends everything through ``OrderProducer``. ``done`` counts what the broker acknowledged."""

    def __init__(self, config: Config, events: Sequence[Created]) -> None:
        super().__init__(name="shop", daemon=True)
        self._config = config
        self._events = events
        self._left = threading.Event()
        self.total = len(events)
        self.done = 0
        self.finished = False
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with emitting(self._config) as emit:
                emit([MALFORMED])
            with OrderProducer(self._config.kafka) as producer:
                placements = producer.place_many(self._arriving(), self._told)
            self.error = next((placement.error for placement in placements if placement.error is not None), None)
            self.finished = self.error is None
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits for the shop
            self.error = error

    def stop(self) -> None:
        """Send nothing more; returns when the producer is closed, or does not want to."""
        self._left.set()
        if self.is_alive():
            self.join(_STOP_S)

    def _arriving(self) -> Iterator[Created]:
        pace_s = min(_ARRIVAL_S / max(self.total, 1), _PACE_S)
        began = time.monotonic()
        for number, order in enumerate(self._events):
            if self._left.wait(max(began + number * pace_s - time.monotonic(), 0)):
                return
            yield order

    def _told(self, done: int, failed: int) -> None:
        self.done = done
