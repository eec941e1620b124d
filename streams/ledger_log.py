"""The topic in which workers write down which ledger they work on and how far it got.

One record per ledger counts, the newest: its key is the identity, its value the epoch. A ledger that was adopted in
place of another one leaves a tombstone for the other.
"""

from datetime import datetime
from uuid import UUID

import msgspec

from streams import events
from streams.config.loader import KafkaConfig
from streams.errors import ConfigError
from streams.kafka.producer import Outgoing, follow
from streams.topics import LEDGER


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """How far a ledger had got when a worker wrote this."""

    epoch: int
    at: datetime
    worker: str


def marks(kafka: KafkaConfig) -> dict[UUID, Mark]:
    """The newest mark of each ledger in the log; what cannot be read is passed over. Blocks; ``BrokerUnavailable``."""
    found: dict[UUID, Mark] = {}
    for told in follow(kafka, LEDGER, from_start=True, until_end=True):
        try:
            identity = UUID((told.key or b"").decode())
            mark = msgspec.json.decode(told.value, type=Mark) if told.value else None
        except (ValueError, msgspec.MsgspecError):
            continue
        if mark is None:
            found.pop(identity, None)
        elif identity not in found or mark.epoch >= found[identity].epoch:
            found[identity] = mark
    return found


def marked(identity: UUID, mark: Mark | None) -> Outgoing:
    """The record of a mark, or of None: this ledger does not count any more."""
    value = None if mark is None else msgspec.json.encode(mark)
    headers: events.Headers = [("content-type", events.CONTENT_TYPE.encode())]
    return Outgoing(LEDGER, str(identity).encode(), value, headers)


def refuse_other(found: dict[UUID, Mark], identity: UUID) -> None:
    """Raise ``ConfigError`` when the log belongs to another ledger than this one."""
    others = sorted(found.keys() - {identity}, key=str)
    if others:
        raise ConfigError(
            f"database.url: this database is ledger {identity}, but the workers of this Kafka cluster and prefix work"
            f" on ledger {others[0]}; expected the same database for all. If that one is gone for good, stop all"
            " workers and run `orderwatch db recover --adopt`"
        )


def behind(found: dict[UUID, Mark], identity: UUID, epoch: int) -> str:
    """Why this ledger is older than the log; empty when it is not."""
    mark = found.get(identity)
    if mark is None or mark.epoch <= epoch:
        return ""
    return f"the ledger is at epoch {epoch}, the log has seen epoch {mark.epoch} (at {events.rfc3339(mark.at)})"
