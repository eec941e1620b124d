"""The end: four books side by side, and two or three orders explained."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from agents.diagnosis.explain import explain
from agents.diagnosis.wording import count
from db.reads import queries
from orderwatch.reconcile import FINAL, Books, Bought, Key, Verdict

_ANSWERS = {
    "not_found": "not known there; one such answer proves nothing",
    "query_error": "the question failed, which says nothing of the order",
    "pending": "it was bought and is in work",
    "succeeded": "it was bought and is done",
    "failed": "it was bought and failed there",
}


@dataclass(frozen=True, slots=True)
class Explained:
    """One order in a few lines of text."""

    tenant_id: str
    order_id: str
    headline: str
    lines: Sequence[str] = field(default_factory=list)


def books_table(books: Books, verdict: Verdict, waiting: int) -> tuple[list[str], list[list[object]]]:
    """Header and rows. Equal numbers in one row are the point; a book that cannot know has no number."""
    sold = sold_orders(books)
    said = Counter(books.topic.values())
    finished = {key for key, status in books.orders.items() if status in FINAL}
    silent = len(set(books.orders) - finished - set(books.topic))
    heard = f"{len(books.topic)} + {silent} without news yet" if silent else len(books.topic)
    return ["", "the shop", "the providers", "PostgreSQL", "the status topic"], [
        ["orders", verdict.sent, None, len(books.orders), heard],
        ["bought, completed", None, len(sold), verdict.completed, said["completed"]],
        ["not bought, failed", None, len(finished - sold), verdict.failed, said["failed"]],
        ["waiting for a person", None, None, waiting, None],
        ["bought twice", None, bought_twice(books), None, None],
        ["lost", None, None, len(books.sent - set(books.orders)), None],
    ]


def bought_twice(books: Books) -> int:
    """References that were executed more than once, and lines that were sold under more than one reference."""
    lines = Counter(
        books.attempts[row.reference][:2]
        for row in books.bought
        if row.executed and stands(row) and row.reference in books.attempts
    )
    return sum(row.executed > 1 for row in books.bought) + sum(times > 1 for times in lines.values())


def sold_orders(books: Books) -> set[Key]:
    """The orders for which a provider holds a sale that was not called off."""
    return {
        books.attempts[row.reference][0]
        for row in books.bought
        if row.executed and stands(row) and row.reference in books.attempts
    }


def stands(row: Bought) -> bool:
    """False for a sale that the provider gave the money back for."""
    return row.state not in ("fail", "reversed")


def sales_line(bought: Sequence[Bought]) -> str:
    """The providers' book in one sentence."""
    units = sum(row.quantity * row.executed for row in bought)
    back = sum(not stands(row) for row in bought)
    return (
        f"The providers, our own stock of codes among them, sold {count(len(bought), 'time')}, {count(units, 'unit')}"
        + (f"; {back} of these sales failed there later, and the money came back." if back else ".")
    )


def why(engine: sa.Engine, key: Key) -> Explained:
    """What `orderwatch order why` says of an order, without its evidence."""
    found = queries.snapshot(engine, *key)
    said = explain(found, found.now)
    return Explained(*key, said.headline, [f"next: {said.next}", f"who acts: {said.actor}"])


def lost_answer(engine: sa.Engine, key: Key) -> Explained:
    """The life of an order whose answer was lost, from its timeline."""
    found = queries.snapshot(engine, *key)
    said = explain(found, found.now)
    return Explained(*key, said.headline, list(_timeline(found.events)))


def _timeline(events: Sequence[queries.Row]) -> Iterator[str]:
    began = events[0]["at"]
    for row in events:
        words = _words(row["step"], row["details"])
        if words:
            yield f"+{_seconds(began, row['at']):4.1f} s  {words}"
        if row["step"] == "status" and row["details"].get("external_status") in FINAL:
            return  # a question that was on its way comes after the end, and changes nothing


def _words(step: str, details: dict[str, Any]) -> str:
    """One step for a newcomer; empty for a step that adds nothing to the story."""
    message = f": {details['message']}" if details.get("message") else ""
    match step:
        case "accepted":
            return f"accepted {details.get('quantity', 1)} x {details.get('package')}"
        case "sending":
            return f"sent to {details.get('integration')} under our reference {details.get('reference')}"
        case "answered" if details.get("outcome") == "ambiguous":
            return f"no usable answer came{message}; it may have been bought, so it is not sent again"
        case "answered":
            return f"answered {details.get('outcome')}{message}"
        case "checked":
            said = _ANSWERS.get(str(details.get("outcome")), details.get("outcome"))
            return f"asked by that reference: {said}{message}"
        case "proven_absent":
            return f"{details.get('answers')} answers over {details.get('over_s')} s: proven not bought"
        case "fallback" | "again":
            return f"next: {details.get('integration')}"
        case "status":
            return f"status {details.get('previous')} -> {details.get('external_status')}"
    return ""


def _seconds(began: datetime, at: datetime) -> float:
    return float((at - began).total_seconds())


def document(
    books: Books, verdict: Verdict, waiting: Sequence[Explained], lost: Explained | None, counts: dict[str, object]
) -> dict[str, object]:
    """The whole result for a program."""
    said = Counter(books.topic.values())
    sold = sold_orders(books)
    return {
        "agree": verdict.agree,
        "differences": verdict.differences,
        "books": {
            "shop": {"orders": verdict.sent},
            "providers": {
                "orders": len(sold),
                "sales": len(books.bought),
                "executions": verdict.bought,
                "bought_twice": bought_twice(books),
                "called_off": sum(not stands(row) for row in books.bought),
            },
            "postgresql": {
                "orders": len(books.orders),
                "completed": verdict.completed,
                "failed": verdict.failed,
                "open": verdict.open,
            },
            "status_topic": {
                "orders": len(books.topic),
                "completed": said["completed"],
                "failed": said["failed"],
                "open": sum(n for status, n in said.items() if status not in FINAL),
            },
        },
        "waiting_for_a_person": [_plain(item) for item in waiting],
        "lost_answer": _plain(lost) if lost is not None else None,
        "counts": counts,
    }


def _plain(item: Explained) -> dict[str, object]:
    return {
        "tenant_id": item.tenant_id,
        "order_id": item.order_id,
        "headline": item.headline,
        "lines": list(item.lines),
    }
