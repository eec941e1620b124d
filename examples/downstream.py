"""A service that follows the status of orders until Ctrl-C.

    KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 python examples/downstream.py

With ORDERWATCH_PIN_KEYS it can open PINs; it says how many there are and hands them to nobody.
"""

import os
import signal

from streams.clients import Change, StatusChanges
from streams.seal import VARIABLE, Sealer


def handle(change: Change) -> None:
    """Commit your own work here, with the version: when this returns, the change is yours and does not come again."""
    event = change.event
    pins = f", {len(change.pins_open())} PIN" if change.sealer and event.pins else ""
    print(
        f"{event.tenant_id}/{event.order_id} v{event.version}: {event.previous_external_status} -> "
        f"{event.external_status} ({event.reason}){pins}",
        flush=True,
    )


keys = Sealer.from_environ(os.environ) if VARIABLE in os.environ else None
changes = StatusChanges(os.environ["KAFKA_BOOTSTRAP_SERVERS"], group="example-downstream", keys=keys)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: changes.stop())
changes.run(handle)
print(f"stopped; {changes.dropped} duplicates dropped")
