"""What both protocols have in common: a request as they read it, an answer as they say it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from orderwatch.simulator.faults import Fault, FaultKind, Operation


@dataclass(frozen=True, slots=True)
class Call:
    """One request below an account's prefix. ``parts`` are the segments of the path after it."""

    method: str
    parts: tuple[str, ...]
    query: Mapping[str, str]
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call wants, and the reference it speaks of: ours, or the whole list of a batch."""

    operation: Operation
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. ``label`` is what the request log keeps of it: never a PIN, never a credential."""

    body: bytes
    label: str
    status: int = 200
    content_type: str = "text/html"
    headers: Mapping[str, str] = field(default_factory=dict)


NOT_FOUND = Answer(b"<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>", "404", 404)
NOT_EXECUTED = Answer(b"", "not_executed", 500)


def refuses(fault: Fault | None) -> bool:
    """Whether the fault puts a business refusal in the place of the answer."""
    return fault is not None and fault.kind is FaultKind.REFUSE


def buys_nothing(fault: Fault | None) -> bool:
    """Whether a placement hit by this fault is not executed."""
    return fault is not None and fault.purchases == 0


def as_json(body: Any, label: str, status: int = 200) -> Answer:
    """UTF-8 JSON."""
    return Answer(msgspec.json.encode(body), label, status, "application/json")
