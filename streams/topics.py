"""Every topic with its promise: who writes it, who reads it, its key, and what a reader does with a duplicate.

Delivery is at least once, and ordered per key. The promises are data: `topics apply`, the AsyncAPI document and the
agents all read this one table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from streams.config.loader import Config
from streams.events import Attention, Check, Command, Created, Event, Referenced, StatusChanged

CREATED = "orders.created"
REFERENCED = "orders.referenced"
CHECK = "orders.check"
COMMAND = "orders.command"
RETRY = "orders.retry."  # a prefix: see Config.tier_name
STATUS_CHANGED = "orders.status-changed"
ATTENTION = "orders.attention"
DEAD_LETTER = "orders.dead-letter"
LEDGER = "orders.ledger"  # not an order's event: see streams.ledger_log
#: Names of Faust's tables.
STATUS_TABLE, OUTCOME_TABLE = "order-status", "outcomes"

DAY_S = 86_400.0
#: A dead letter is the original record plus headers: it must fit wherever the original did.
RECORD_BYTES = 1_000_000
DEAD_LETTER_BYTES = 2_000_000


@dataclass(frozen=True, slots=True)
class Promise:
    """What one topic offers, before a configuration gives it partitions and a prefix."""

    name: str  # without prefix
    event: type[Event] | None  # None: the original bytes of whatever could not be handled
    writers: str
    readers: str
    duplicate: str
    retention_s: float  # 0: not set
    cleanup: str = "delete"  # as Kafka writes it
    key: str = "order_id"
    extra: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it must be on the broker."""

    name: str  # with prefix
    promise: Promise
    partitions: int
    replication: int

    def settings(self) -> dict[str, str]:
        """Topic settings in Kafka's names and units."""
        made = {"cleanup.policy": self.promise.cleanup}
        if self.promise.retention_s:
            made["retention.ms"] = str(int(self.promise.retention_s * 1000))
        if self.replication >= 3:
            made["min.insync.replicas"] = "2"  # with 1, an acknowledged order can be lost with its leader
        return made | dict(self.promise.extra)


PROMISES: tuple[Promise, ...] = (
    Promise(
        CREATED,
        Created,
        "the shop",
        "dispatch",
        "the same (tenant_id, order_id) is one order: no effect with the same content, attention with another",
        7 * DAY_S,
    ),
    Promise(
        REFERENCED,
        Referenced,
        "dispatch",
        "projection, downstream services",
        "same ce_id, same fact: the second is dropped",
        7 * DAY_S,
    ),
    Promise(
        CHECK,
        Check,
        "operators, the sweeper, callbacks",
        "check",
        "harmless: attempt and check_number are compared with the ledger before anything is asked",
        DAY_S,
    ),
    Promise(
        COMMAND,
        Command,
        "operators: the command line, the dashboard",
        "command",
        "the same command_id is carried out once; its first answer stays",
        7 * DAY_S,
        key="order_id, or command_id where no order is meant",
    ),
    Promise(
        STATUS_CHANGED,
        StatusChanged,
        "dispatch, check, the sweeper, operators",
        "projection, downstream services",
        "a version not above the last one seen of (tenant_id, order_id) is dropped",
        30 * DAY_S,
        "compact,delete",
        # The key is the order id alone: two tenants may share one. A week without compaction keeps them apart for
        # every reader that is at most a week behind.
        extra=(("min.compaction.lag.ms", str(int(7 * DAY_S * 1000))),),
    ),
    Promise(
        ATTENTION,
        Attention,
        "any agent",
        "operators, dashboard",
        "same ce_id, same request for a person: shown once",
        30 * DAY_S,
        key="order_id or integration_id",
    ),
    Promise(
        DEAD_LETTER,
        None,
        "any agent",
        "operators",
        "same dlq.topic, dlq.partition and dlq.offset: the same record, parked twice",
        30 * DAY_S,
        key="the original key",
        extra=(("max.message.bytes", str(DEAD_LETTER_BYTES)),),
    ),
)


#: Read by workers at their start, outside of any group; no public event.
LEDGER_PROMISE = Promise(
    LEDGER,
    None,
    "workers",
    "workers: is the ledger as new as the log?",
    "the newest record of a key counts",
    7 * DAY_S,
    "compact",
    key="identity of the ledger",
    extra=(("segment.ms", "3600000"),),  # only closed segments are compacted
)


def retry_promise(name: str, delay_s: float) -> Promise:
    """A tier keeps its records a day longer than their delay, and then some for clocks and segment rolls."""
    return Promise(
        name,
        Check,
        "dispatch, check",
        "the delay line, for check",
        "harmless: attempt and check_number are compared with the ledger before anything is asked",
        delay_s + 2 * DAY_S,
    )


def specs(config: Config) -> list[TopicSpec]:
    """Every topic of this configuration, one retry topic per tier, ready to be applied."""
    tiers = [retry_promise(config.tier_name(delay_s), delay_s) for delay_s in config.tiers()]
    kafka = config.kafka
    return [
        TopicSpec(kafka.topic_prefix + promise.name, promise, kafka.partitions, kafka.replication_factor)
        for promise in (*PROMISES, *tiers, LEDGER_PROMISE)
    ]


def tables(config: Config) -> list[TopicSpec]:
    """The changelogs of the workers' two tables, under the names that Faust gives them. Nobody else reads them."""
    kafka = config.kafka
    promises = [
        Promise(
            f"orderwatch-{table}-changelog",
            None,
            "projection",
            "the workers, when they start",
            "the last value of a key counts",
            kept_s,
            cleanup,
            key=key,
        )
        for table, key, kept_s, cleanup in (
            (STATUS_TABLE, "order_id", 0.0, "compact"),
            (OUTCOME_TABLE, "partition|integration|outcome", config.table.keep_windows, "compact,delete"),
        )
    ]
    return [
        TopicSpec(kafka.topic_prefix + promise.name, promise, kafka.partitions, kafka.replication_factor)
        for promise in promises
    ]


def every(config: Config) -> list[TopicSpec]:
    """All topics that are used: those of the contract, and the changelogs."""
    return [*specs(config), *tables(config)]


class Difference(NamedTuple):
    """One thing about a topic that is not as promised; ``applied``: it is now."""

    topic: str
    what: str  # topic, partitions, replication, or a setting in Kafka's name
    found: str
    wanted: str
    applied: bool = False
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        verb = "now" if self.applied else "expected"
        return f"{self.topic}: {self.what} {self.found}, {verb} {self.wanted}{note}"


def compare(
    spec: TopicSpec, partitions: int, replication: int, settings: Mapping[str, str | None] | None
) -> Iterator[Difference]:
    """How a topic on the broker differs from its promise. ``settings`` of None are not known, and not compared."""
    if partitions > spec.partitions:
        yield Difference(spec.name, "partitions", str(partitions), str(spec.partitions), note="never shrunk")
    elif partitions < spec.partitions:
        yield Difference(
            spec.name,
            "partitions",
            str(partitions),
            str(spec.partitions),
            note="growing moves keys to other partitions: drain first",
        )
    if replication != spec.replication:
        yield Difference(
            spec.name, "replication", str(replication), str(spec.replication), note="changed by the cluster's own tools"
        )
    if settings is None:
        return
    for name, wanted in spec.settings().items():
        found = settings.get(name)
        if found is None or _words(found) != _words(wanted):
            yield Difference(spec.name, name, found or "not set", wanted)


def _words(setting: str) -> set[str]:
    return {word.strip() for word in setting.split(",")}
