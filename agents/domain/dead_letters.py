"""Dead letters that go to their topics again: what one says, corrected or as it came, and the record to send. Pure."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from db.rows import Replay
from streams import topics
from streams.errors import EventError
from streams.events import Check, Created, Event, Id, decode
from streams.kafka.producer import Outgoing, message

Row = Mapping[str, Any]

_EVENTS: dict[str, type[Event] | None] = {promise.name: promise.event for promise in topics.PROMISES}


def event_of(letter: Row, prefix: str, value: bytes | None = None) -> Event:
    """What a letter says, or ``value`` in its place. Raises ``EventError`` naming the field that is wrong."""
    topic = str(letter["topic"]).removeprefix(prefix)
    kind = Check if topic.startswith(topics.RETRY) else _EVENTS.get(topic)
    if kind is None:
        raise EventError(f"topic {topic} is read by no agent; expected one of {', '.join(k for k in _EVENTS if k)}")
    return decode(kind, plain(letter["value"]) if value is None else value)


def corrected(letter: Row, prefix: str, fields: Mapping[str, Any]) -> Event:
    """A shop's order with these fields in place of those that came; None takes one away (RFC 7396).

    Whose order it is stays as it came, where that can be read. Raises ``EventError`` as ``event_of``, and for a letter
    of any other topic: what workers and operators say is not written by hand.
    """
    topic = str(letter["topic"]).removeprefix(prefix)
    if topic != topics.CREATED:
        raise EventError(f"{topic}: a letter of this topic cannot be corrected; only one of {topics.CREATED}")
    try:
        came = json.loads(plain(letter["value"]) or b"")
    except (ValueError, RecursionError):
        came = {}
    came = came if isinstance(came, dict) else {}
    for name in ("tenant_id", "order_id"):
        if _is_id(came.get(name)) and fields.get(name, came[name]) != came[name]:
            raise EventError(f"{Created.TYPE}: {name}: cannot be corrected; expected it as it came")
    merged = came | dict(fields)
    value = {name: field for name, field in merged.items() if field is not None}
    return event_of(letter, prefix, json.dumps(value).encode())


def _is_id(word: object) -> bool:
    try:
        msgspec.convert(word, Id)
    except msgspec.ValidationError:
        return False
    return True


def record(letter: Row, prefix: str, fixed: Event | None = None) -> Outgoing:
    """The letter as it came, or with a corrected event in its place: then under that one's own key and id."""
    topic = str(letter["topic"]).removeprefix(prefix)
    if fixed is not None:
        return message(fixed, topic)
    headers = [(name, str(text).encode()) for name, text in letter["headers"].items() if not name.startswith("dlq.")]
    return Outgoing(topic, plain(letter["key"]), plain(letter["value"]), headers)


def plain(value: bytes | memoryview | None) -> bytes | None:
    """A binary column as bytes."""
    return None if value is None else bytes(value)


def replay_of(letter: int, said: Event, sent: Outgoing, corrected: Iterable[str]) -> Replay:
    """What the audit says of a letter that goes out as ``sent``."""
    event_id = dict(sent.headers).get("ce_id")
    return Replay(
        letter,
        getattr(said, "tenant_id", None),
        getattr(said, "order_id", None),
        None if event_id is None else event_id.decode("utf-8", "replace"),
        sorted(corrected),
    )
