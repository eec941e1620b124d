"""The AsyncAPI 3.0 document: topics, messages and their schemas, generated from the code that reads and writes them."""

import inspect
from enum import StrEnum
from typing import Any

import msgspec
import yaml

from streams import events, topics
from streams.config.loader import Config
from streams.order import AttentionCode, CheckReason, ExternalStatus, Status, StatusReason
from streams.topics import TopicSpec

BINDING = "0.5.0"
#: What the engine waits for; everything else it only says.
_RECEIVED = (topics.CREATED, topics.CHECK, topics.COMMAND, topics.RETRY)
_SENT_BY_OTHERS = (topics.CREATED, topics.COMMAND)
#: Words a field holds today. Open sets: a reader must bear a new one.
_WORDS: dict[tuple[str, str], type[StrEnum]] = {
    ("Referenced", "external_status"): ExternalStatus,
    ("Check", "reason"): CheckReason,
    ("StatusChanged", "status"): Status,
    ("StatusChanged", "external_status"): ExternalStatus,
    ("StatusChanged", "previous_external_status"): ExternalStatus,
    ("StatusChanged", "reason"): StatusReason,
    ("Attention", "code"): AttentionCode,
}
_DEAD_LETTER = "DeadLetter"
_PLAIN = "CreatedPlain"

_Json = dict[str, Any]


def document(config: Config) -> _Json:
    """The document for this configuration's topics, partitions and tiers."""
    specs = [spec for spec in topics.specs(config) if spec.promise is not topics.LEDGER_PROMISE]  # among workers only
    tiers = [spec for spec in specs if _is_tier(spec)]
    channels: _Json = {_channel_id(spec): _channel(spec) for spec in specs if not _is_tier(spec)}
    if tiers:
        channels["retry"] = _retry_channel(tiers, config.kafka.topic_prefix)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Orderwatch",
            "version": "1",
            "description": "Order dispatch and monitoring. Delivery is at least once, ordered per key; the same fact "
            "sent twice carries the same ce_id. Readers ignore unknown fields; fields are only added.",
        },
        "defaultContentType": events.CONTENT_TYPE,
        "channels": channels,
        "operations": _operations(channels),
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def text(made: _Json) -> str:
    """The document as YAML."""
    return yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=110)


def _is_tier(spec: TopicSpec) -> bool:
    return spec.promise.name.startswith(topics.RETRY)


def _channel_id(spec: TopicSpec) -> str:
    return spec.promise.name.removeprefix("orders.").replace("-", "_")


def _message_names(spec: TopicSpec) -> list[str]:
    if spec.promise.event is None:
        return [_DEAD_LETTER]
    name = spec.promise.event.__name__
    return [name, _PLAIN] if spec.promise.name == topics.CREATED else [name]


def _channel(spec: TopicSpec) -> _Json:
    promise = spec.promise
    return {
        "address": spec.name,
        "description": f"Written by {promise.writers}; read by {promise.readers}. A duplicate: {promise.duplicate}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _message_names(spec)},
        "bindings": {
            "kafka": {
                "partitions": spec.partitions,
                "replicas": spec.replication,
                "topicConfiguration": {
                    "cleanup.policy": promise.cleanup.split(","),
                    "retention.ms": int(spec.settings()["retention.ms"]),
                },
                "bindingVersion": BINDING,
            }
        },
        "x-key": promise.key,
        "x-retention-seconds": promise.retention_s,
    }


def _retry_channel(tiers: list[TopicSpec], prefix: str) -> _Json:
    """One channel for all tiers: they differ by their delay, and keep records longer than it."""
    channel = _channel(tiers[0])
    del channel["bindings"]["kafka"]["topicConfiguration"]["retention.ms"], channel["x-retention-seconds"]
    stem = prefix + topics.RETRY
    channel["address"] = f"{stem}{{delay}}"
    channel["parameters"] = {
        "delay": {
            "description": "how long a check sleeps here",
            "enum": [tier.name.removeprefix(stem) for tier in tiers],
        }
    }
    channel["x-retention"] = f"the delay and {2 * topics.DAY_S:.0f} seconds"
    return channel


def _operations(channels: _Json) -> _Json:
    received = {name.removeprefix("orders.").rstrip(".") for name in _RECEIVED}
    sent_by_others = {name.removeprefix("orders.") for name in _SENT_BY_OTHERS}
    made: _Json = {}
    for channel_id, channel in channels.items():
        operation = {
            "channel": {"$ref": f"#/channels/{channel_id}"},
            "messages": [{"$ref": f"#/channels/{channel_id}/messages/{name}"} for name in channel["messages"]],
        }
        if channel_id in received:
            made[f"receive_{channel_id}"] = {"action": "receive", **operation}
        if channel_id not in sent_by_others:
            made[f"send_{channel_id}"] = {"action": "send", **operation}
    return made


def _messages() -> _Json:
    made: _Json = {kind.__name__: _message(kind) for kind in events.EVENTS}
    plain = _message(events.Created) | {"name": _PLAIN, "title": "An order of a shop that sends no CloudEvents headers"}
    made[_PLAIN] = {name: value for name, value in plain.items() if name != "headers"}
    made[_DEAD_LETTER] = {
        "name": _DEAD_LETTER,
        "title": "A record that could not be handled: original key, value and headers, and why",
        "headers": {
            "type": "object",
            "required": ["dlq.reason", "dlq.error", "dlq.topic", "dlq.partition", "dlq.offset", "dlq.at", "dlq.agent"],
            "properties": {
                "dlq.reason": {"type": "string", "description": "a machine word"},
                "dlq.error": {"type": "string", "description": "what was wrong and what was expected"},
                "dlq.topic": {"type": "string"},
                "dlq.partition": {"type": "string", "pattern": "^[0-9]+$"},
                "dlq.offset": {"type": "string", "pattern": "^[0-9]+$"},
                "dlq.at": {"type": "string", "format": "date-time"},
                "dlq.agent": {"type": "string"},
            },
        },
        "payload": {"description": "the original bytes"},
    }
    return made


def _message(kind: type[events.Event]) -> _Json:
    return {
        "name": kind.TYPE,
        "title": (kind.__doc__ or "").splitlines()[0],
        "contentType": events.CONTENT_TYPE,
        "headers": {
            "type": "object",
            "required": ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time"],
            "properties": {
                "ce_specversion": {"const": "1.0"},
                "ce_id": {"type": "string", "description": "deterministic: drop what you have seen"},
                "ce_source": {"type": "string"},
                "ce_type": {"const": kind.TYPE},
                "ce_time": {"type": "string", "format": "date-time"},
                "ce_subject": {"type": "string", "description": "the order id"},
                "content-type": {"const": events.CONTENT_TYPE},
                "traceparent": {"type": "string", "description": "W3C trace context"},
            },
        },
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": BINDING}},
    }


def _schemas() -> _Json:
    _, schemas = msgspec.json.schema_components(events.EVENTS, ref_template="#/components/schemas/{name}")
    for (kind, name), words in _WORDS.items():
        schemas[kind]["properties"][name]["x-values"] = [word.value for word in words]
    made = _without_indentation(_in_ecma(schemas))
    assert isinstance(made, dict)
    return made


def _in_ecma(node: Any) -> Any:
    r"""JSON Schema patterns are ECMAScript's, where Python's ``\Z`` is written ``$``."""
    if isinstance(node, dict):
        return {
            name: value.replace(r"\Z", "$") if name == "pattern" and isinstance(value, str) else _in_ecma(value)
            for name, value in node.items()
        }
    return [_in_ecma(item) for item in node] if isinstance(node, list) else node


def _without_indentation(node: Any) -> Any:
    """Descriptions come from docstrings, whose indentation Python keeps before 3.13 and strips since."""
    if isinstance(node, dict):
        return {
            name: inspect.cleandoc(value).rstrip()
            if name == "description" and isinstance(value, str)
            else _without_indentation(value)
            for name, value in node.items()
        }
    return [_without_indentation(item) for item in node] if isinstance(node, list) else node
