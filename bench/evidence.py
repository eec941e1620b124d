"""What really happened in a run, read afterwards: from the simulator, the topics and the database."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from confluent_kafka.admin import AdminClient

from bench.figures import lateness
from bench.stage import Scene
from orderwatch.reconcile import Books, Verdict, compare, from_ledger
from streams.events import Check, StatusChanged, decode
from streams.kafka.producer import client_settings, follow, group_lag
from streams.topics import CHECK, CREATED, STATUS_CHANGED

_FINAL = ("completed", "failed")


@dataclass(slots=True)
class Evidence:
    """Unix times in seconds. ``appended`` and ``ended`` by order id, ``references`` from reference to order id,
    ``due`` the scheduled checks by reference; None where a contender keeps no record of its schedule."""

    appended: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    due: dict[str, list[float]] | None = None


@dataclass(slots=True)
class Requests:
    """What the providers heard, by reference: when the placement and each question about it arrived; and all calls."""

    placed: dict[str, float] = field(default_factory=dict)
    asked: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    questions: int = 0


def asked_of(scene: Scene) -> Requests:
    """What the run's providers heard."""
    names = {row["external_id"]: row["reference"] for row in scene.control("GET", "/ledger")}
    return heard(scene.control("GET", "/requests"), names)


def heard(rows: Iterable[Mapping[str, Any]], names: Mapping[str, str] = {}) -> Requests:
    """The simulator's request log, in order; a batch of look-ups is one call and as many questions.

    ``names`` are our references of the provider's own ids, by which some of them are asked.
    """
    found = Requests()
    for row in rows:
        operation, at = str(row["operation"]), row["at_ns"] / 1e9
        found.calls[operation] += 1
        if operation == "place":
            found.placed.setdefault(row["reference"], at)
        elif operation == "check":
            for name in _each(row["reference"]):
                reference = names.get(name, name)
                found.asked[reference].append(at)
                found.questions += 1
    return found


def _each(reference: str) -> list[str]:
    """The references of one question: a batch names them as a list, with or without brackets and quotes."""
    return [part.strip(' "') for part in reference.strip("[]").split(",") if part.strip(' "')]


def appends(scene: Scene, topic: str, prefix: str) -> dict[str, float]:
    """When the last record of each order was appended to a topic."""
    found: dict[str, float] = {}
    for record in follow(scene.config.kafka, topic, from_start=True, until_end=True):
        order_id = (record.key or b"").decode()
        if order_id.startswith(prefix) and record.at is not None:
            found[order_id] = record.at.timestamp()
    return found


def of_log(scene: Scene, prefix: str, rows: Iterable[Sequence[Any]]) -> Evidence:
    """Of a contender on the same topics whose table says (order id, reference)."""
    return Evidence(
        appended=appends(scene, CREATED, prefix),
        ended=appends(scene, STATUS_CHANGED, prefix),
        references={row[1]: row[0] for row in rows},
    )


def of_ours(scene: Scene, prefix: str) -> Evidence:
    """Ours from the topics and the ledger; only orders whose id begins with ``prefix``."""
    found = Evidence(appended=appends(scene, CREATED, prefix), due=defaultdict(list))
    kafka = scene.config.kafka
    for record in follow(kafka, STATUS_CHANGED, from_start=True, until_end=True):
        change = decode(StatusChanged, record.value)
        if change.order_id.startswith(prefix) and change.external_status in _FINAL and record.at is not None:
            found.ended[change.order_id] = record.at.timestamp()
    attempts = {(row["order_id"], row["attempt"]): row["reference"] for row in _attempts(scene, prefix)}
    found.references = {reference: order_id for (order_id, _), reference in attempts.items()}
    seen: set[tuple[str, int]] = set()
    assert found.due is not None
    for topic in (*_tiers(scene), CHECK):  # what is due when it is told goes straight to the second
        for record in follow(kafka, topic, from_start=True, until_end=True):
            check = decode(Check, record.value)
            reference = attempts.get((check.order_id, check.attempt))
            if reference is not None and (reference, check.check_number) not in seen:
                seen.add((reference, check.check_number))
                found.due[reference].append(check.due_at.timestamp())
    return found


def _tiers(scene: Scene) -> list[str]:
    return [scene.config.tier_name(delay_s) for delay_s in scene.config.tiers()]


def _attempts(scene: Scene, prefix: str) -> list[dict[str, Any]]:
    statement = sa.text(
        "select tenant_id, order_id, attempt, line, reference, state from attempts"
        " where tenant_id = 'shop' and order_id >= :first and order_id < :last"
    )
    with scene.engine.connect() as connection:
        rows = connection.execute(statement, {"first": prefix, "last": prefix + "~"})
        return [dict(row._mapping) for row in rows]


def late(evidence: Evidence, requests: Requests, check_after_s: float, latency_s: float) -> list[float]:
    """Seconds by which each check was later than due.

    Who keeps no record of its schedule is measured against the earliest possible answer to its last request.
    """
    found: list[float] = []
    for reference, asked in requests.asked.items():
        if evidence.due is not None:
            found += lateness(evidence.due.get(reference, ()), asked)
        elif reference in requests.placed:
            before = [requests.placed[reference], *asked[:-1]]
            found += [at - last - latency_s - check_after_s for last, at in zip(before, asked, strict=True)]
    return found


def waits(evidence: Evidence, requests: Requests) -> list[float]:
    """Seconds from the append of each order to the provider's receipt of its request."""
    return [
        at - evidence.appended[order_id]
        for reference, at in requests.placed.items()
        if (order_id := evidence.references.get(reference)) in evidence.appended
    ]


def records(scene: Scene) -> int:
    """Records in all topics of this run, those of the tables among them."""
    prefix = scene.config.kafka.topic_prefix
    known = AdminClient(client_settings(scene.config.kafka)).list_topics(timeout=10).topics
    names = [name.removeprefix(prefix) for name in known if name.startswith(prefix)]
    ends = group_lag(scene.config.kafka, f"{prefix}orderwatch-bench", names, 30.0)
    return sum(end for _, end in ends.values())


def transactions(scene: Scene) -> int:
    """Committed by everybody in the run's database so far."""
    statement = sa.text(
        "select pg_stat_clear_snapshot(), xact_commit from pg_stat_database where datname = current_database()"
    )
    with scene.engine.connect() as connection:
        return int(connection.execute(statement).one()[1])


def books(scene: Scene, prefix: str, evidence: Evidence) -> Verdict:
    """The four books of our run, compared."""
    statement = sa.text(
        "select order_id, external_status from orders where tenant_id = 'shop'"
        " and order_id >= :first and order_id < :last"
    )
    with scene.engine.connect() as connection:
        rows = connection.execute(statement, {"first": prefix, "last": prefix + "~"}).all()
    ledger = [row for row in scene.control("GET", "/ledger") if row["reference"] in evidence.references]
    attempts = {
        row["reference"]: (("shop", row["order_id"]), row["line"], row["state"]) for row in _attempts(scene, prefix)
    }
    said = {
        ("shop", order_id): status for order_id, status in _told(scene, prefix).items() if order_id in evidence.ended
    }
    return compare(
        Books(
            sent={("shop", order_id) for order_id in evidence.appended},
            bought=from_ledger(ledger),
            orders={("shop", row[0]): row[1] for row in rows},
            attempts=attempts,
            topic=said,
        )
    )


def _told(scene: Scene, prefix: str) -> dict[str, str]:
    newest: dict[str, tuple[int, str]] = {}
    for record in follow(scene.config.kafka, STATUS_CHANGED, from_start=True, until_end=True):
        change = decode(StatusChanged, record.value)
        if change.order_id.startswith(prefix) and change.version > newest.get(change.order_id, (0, ""))[0]:
            newest[change.order_id] = (change.version, change.external_status)
    return {order_id: status for order_id, (_, status) in newest.items()}
