"""``python -m bench.shop``: the shop in a process of its own, so that its cost is not ours.

Reads one JSON object from stdin and writes one to stdout when the broker has every order.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.options import Options, orders
from streams.clients import OrderProducer
from streams.config.loader import load
from streams.events import Created


def paced(batch: Iterable[Created], rate: float) -> Iterator[Created]:
    """The orders at ``rate`` per second, 0 for at once; one that is late does not delay those after it."""
    began = time.monotonic()
    for number, order in enumerate(batch):
        if rate > 0 and (left := began + number / rate - time.monotonic()) > 0:
            time.sleep(left)
        yield order


def place(wish: dict[str, Any]) -> dict[str, Any]:
    """Place the orders; how many the broker took, when, and for how much CPU."""
    options = Options(**wish["options"])
    config = load(Path(wish["config"]), os.environ)
    before = resource.getrusage(resource.RUSAGE_SELF)
    began_ns = time.time_ns()
    with OrderProducer(config.kafka) as producer:
        fates = producer.place_many(paced(orders(options, wish["prefix"], options.orders), options.rate))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    refused = [str(fate.error) for fate in fates if fate.error]
    return {
        "placed": len(fates) - len(refused),
        "errors": refused[:3],
        "began_ns": began_ns,
        "ended_ns": time.time_ns(),
        "cpu_s": cpu_s,
    }


if __name__ == "__main__":
    json.dump(place(json.load(sys.stdin)), sys.stdout)
