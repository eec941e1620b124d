"""The facts of one order as lines of text: masked as they are stored, shortened, oldest first."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from agents.diagnosis.wording import count, distance, instant
from db.reads.queries import Row, Snapshot
from db.rows import Attempt
from streams.order import AttemptState

STEPS_SHOWN = 8


def proof(state: Snapshot, now: datetime) -> Iterator[str]:
    """The facts behind an explanation, one per line: attempts, last answers, attention, dead letters, last steps."""
    for attempt in state.attempts:
        yield _attempt_line(attempt, now)
        for name, answer in attempt.evidence.items():
            yield f"  attempt {attempt.attempt} {name}: {_short(answer)}"
    for row in state.attention:
        seen = f"acknowledged by {row['acknowledged_by']}" if row["acknowledged_at"] else "not acknowledged"
        yield f"attention {row['code']} since {instant(row['since'])} ({seen}): {row['message']}"
    for row in state.dead_letters:
        seen = f"replayed by {row['replayed_by']}" if row["replayed_at"] else "not replayed"
        yield f"dead letter {row['id']} from {row['topic']}, {row['reason']} ({seen}): {row['error']}"
    if len(state.events) > STEPS_SHOWN:
        yield f"last {STEPS_SHOWN} of {len(state.events)} steps:"
    for row in state.events[-STEPS_SHOWN:]:
        yield step_line(row)


def step_line(row: Row) -> str:
    """One step of the timeline."""
    details = f" {_short(row['details'])}" if row["details"] else ""
    number = f" attempt {row['attempt']}" if row["attempt"] is not None else ""
    return f"{instant(row['at'])} {row['actor']}: {row['step']}{number}{details}"


def _attempt_line(attempt: Attempt, now: datetime) -> str:
    parts = [
        f"attempt {attempt.attempt}: {attempt.state.value} at {attempt.integration_id} ({attempt.provider})",
        f"reference {attempt.reference}",
    ]
    if attempt.external_order_id:
        parts.append(f"provider's id {attempt.external_order_id}")
    parts.append(f"sent {instant(attempt.sent_at)}" if attempt.sent_at else "not sent")
    if attempt.checks:
        parts.append(count(attempt.checks, "question") + " asked")
    if attempt.lease_until and attempt.state is AttemptState.SENDING:
        parts.append(f"lease until {instant(attempt.lease_until)}")
    if attempt.next_check_at:
        parts.append(
            f"check {attempt.check_number} at {instant(attempt.next_check_at)} ({distance(attempt.next_check_at, now)})"
        )
    if attempt.refusal:
        parts.append(f"refusal {attempt.refusal}")
    if attempt.message:
        parts.append(f"last words: {attempt.message[:200]}")
    return ", ".join(parts)


def _short(answer: object) -> str:
    if isinstance(answer, Mapping):
        parts = [f"{k}={_short(v)}" for k, v in answer.items() if v not in (None, "", [], {})]
        return " ".join(parts)[:300]
    return answer[:200] if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, default=str)[:200]


def flags(evidence: Any) -> Iterator[str]:
    """Every machine word that an answer was flagged with, wherever in the evidence it stands."""
    if isinstance(evidence, Mapping):
        for name, value in evidence.items():
            if name == "flags" and isinstance(value, list):
                yield from (word for word in value if isinstance(word, str))
            else:
                yield from flags(value)
    elif isinstance(evidence, list):
        for item in evidence:
            yield from flags(item)
