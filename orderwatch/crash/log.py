"""The log in memory: topics in order, one position per topic that the group committed, redelivery from there."""

from collections.abc import Callable
from dataclasses import dataclass, field

from streams.kafka.producer import Outgoing


@dataclass(frozen=True, slots=True)
class Record:
    """One record. ``at`` is its timestamp in virtual seconds."""

    topic: str
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    at: float

    @property
    def ce_id(self) -> str:
        """The id of the event it carries."""
        return dict(self.headers).get("ce_id", b"").decode()


@dataclass(slots=True)
class Log:
    """One partition per topic, so that the order of everything is the hardest one for the readers."""

    now: Callable[[], float]
    topics: dict[str, list[Record]] = field(default_factory=dict)
    committed: dict[str, int] = field(default_factory=dict)
    listeners: list[Callable[[str], None]] = field(default_factory=list)

    def append(self, outgoing: Outgoing) -> None:
        """Write one record; readers that wait for its topic are woken."""
        records = self.topics.setdefault(outgoing.topic, [])
        headers = tuple(outgoing.headers)
        records.append(Record(outgoing.topic, len(records), outgoing.key, outgoing.value, headers, self.now()))
        for listener in list(self.listeners):
            listener(outgoing.topic)

    def commit(self, topic: str, offset: int) -> None:
        """The group is done with everything before ``offset``."""
        self.committed[topic] = max(self.committed.get(topic, 0), offset)

    def records(self, topic: str) -> list[Record]:
        """Everything that was ever written to a topic."""
        return self.topics.get(topic, [])
