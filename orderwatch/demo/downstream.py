"""A downstream service as another team would write it: follows the status topic and keeps a book of its own."""

import threading
from collections import deque
from dataclasses import dataclass

from orderwatch.reconcile import FINAL, Key
from streams.clients import BadEvent, StatusChanges
from streams.config.loader import Config
from streams.seal import Sealer, mask

GROUP = "demo-downstream"


@dataclass(frozen=True, slots=True)
class News:
    """One order that reached its end, as a screen may show it."""

    key: Key
    status: str
    pins: tuple[str, ...]  # masked
    message: str


class Downstream(threading.Thread):
    """``book`` is the newest status of every order it heard of; ``heard`` counts the changes."""

    def __init__(self, config: Config, sealer: Sealer) -> None:
        super().__init__(name="downstream", daemon=True)
        self._changes = StatusChanges(config.kafka, GROUP, sealer, on_bad=self._bad)
        self.book: dict[Key, str] = {}
        self.heard = 0
        self.bad = 0
        self.news: deque[News] = deque(maxlen=5)
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with self._changes:
                for change in self._changes:
                    event = change.event
                    pins = change.pins_open()
                    self.heard += 1
                    key = (event.tenant_id, event.order_id)
                    self.book[key] = event.external_status
                    if event.external_status in FINAL:
                        shown = tuple(mask(pin) for pin in pins)
                        self.news.append(News(key, event.external_status, shown, event.message or ""))
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            self.error = error

    def stop(self) -> None:
        """Returns when the group was left."""
        self._changes.stop()
        if self.is_alive():
            self.join()
        elif self.ident is None:
            self._changes.close()

    def _bad(self, event: BadEvent) -> None:
        self.bad += 1
