"""Writes the views from the log: references, status changes, attention, dead letters. Only records, never acts."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from agents.handlers.context import HandlerContext
from agents.runtime.guard import Delivery
from db.views import Views
from streams.errors import EventError
from streams.events import Amount, Attention, Event, Referenced, StatusChanged, decode, event_id
from streams.kafka.producer import message
from streams.order import AttentionCode

E = TypeVar("E", bound=Event)


class _Spoken(msgspec.Struct):
    """The two ids of any event of ours, where they can be read."""

    order_id: str | None = None
    tenant_id: str | None = None


async def referenced(views: Views, deliveries: Sequence[Delivery]) -> None:
    """Attempts were placed."""
    await views.referenced(
        [
            {
                "tenant_id": event.tenant_id,
                "order_id": event.order_id,
                "attempt": event.attempt,
                "integration_id": event.integration_id,
                "provider": event.provider,
                "provider_referans": event.provider_referans,
                "external_order_id": event.external_order_id,
                **_money("cost", event.cost),
                **_money("balance", event.provider_balance),
                "sent_at": event.sent_at,
            }
            for event in _read(Referenced, deliveries)
        ]
    )


async def status_changed(views: Views, deliveries: Sequence[Delivery]) -> None:
    """Orders moved."""
    await views.status(
        [
            {
                "tenant_id": event.tenant_id,
                "order_id": event.order_id,
                "version": event.version,
                "status": event.status,
                "external_status": event.external_status,
                "reason": event.reason,
                "message": event.message,
                "attempt": event.attempt,
                "integration_id": event.integration_id,
                "provider_referans": event.provider_referans,
                "checks": event.checks,
                "occurred_at": event.occurred_at,
                "pins": event.pins,
                **_money("cost", event.cost),
            }
            for event in _read(StatusChanged, deliveries)
        ]
    )


async def attention(views: Views, deliveries: Sequence[Delivery]) -> None:
    """Something waits for a person."""
    await views.attention(
        [
            {
                "id": event_id(event),
                "tenant_id": event.tenant_id,
                "order_id": event.order_id,
                "integration_id": event.integration_id,
                "code": event.code,
                "message": event.message,
                "since": event.since,
            }
            for event in _read(Attention, deliveries)
        ]
    )


async def dead_letter(deps: HandlerContext, views: Views, delivery: Delivery) -> None:
    """An event was set aside: kept with its reason, and a person is told."""
    headers = {_text(name): _text((value or b"").decode("utf-8", "replace")) for name, value in delivery.headers}
    topic = headers.get("dlq.topic", delivery.topic)
    partition, offset = _number(headers, "dlq.partition"), _number(headers, "dlq.offset")
    agent, reason, at = headers.get("dlq.agent", "unknown"), headers.get("dlq.reason", "unknown"), _at(headers)
    spoken = _spoken(delivery.value)
    await views.dead_letter(
        topic=topic,
        partition=partition,
        offset=offset,
        agent=agent,
        reason=reason,
        error=headers.get("dlq.error", ""),
        key=delivery.key,
        value=delivery.value,
        headers={name: value for name, value in headers.items() if not name.startswith("dlq.")},
        at=at,
        tenant_id=spoken.tenant_id,
    )
    told = Attention(
        code=AttentionCode.DEAD_LETTER.value,
        message=f"{topic} [{partition}] offset {offset}: {reason}; see `orderwatch dlq list`",
        since=at,
        order_id=spoken.order_id,
        tenant_id=spoken.tenant_id,
        discriminator=f"{topic}:{partition}:{offset}:{agent}",
    )
    await deps.emitter.send([message(told, "orders.attention", at=at)])


def _read(kind: type[E], deliveries: Sequence[Delivery]) -> list[E]:
    return [decode(kind, delivery.value) for delivery in deliveries]


def _money(name: str, amount: Amount | None) -> dict[str, Any]:
    return {f"{name}_amount": amount and amount.amount, f"{name}_currency": amount and amount.currency}


def _text(text: str) -> str:
    """Without NUL, which PostgreSQL cannot store."""
    return text.replace("\x00", "\ufffd")


def _number(headers: dict[str, str], name: str) -> int:
    try:
        number = int(headers[name])
    except (KeyError, ValueError):
        return -1
    return number if 0 <= number < 2**31 or (name == "dlq.offset" and 0 <= number < 2**63) else -1


def _at(headers: dict[str, str]) -> datetime:
    try:
        return datetime.fromisoformat(headers["dlq.at"]).astimezone(UTC)
    except (KeyError, ValueError, OverflowError):
        return datetime.now(UTC)


def _spoken(value: bytes | None) -> _Spoken:
    """Whose event it is, where its ids are well formed; a malformed event often says at least that."""
    try:
        spoken = msgspec.json.decode(value or b"", type=_Spoken)
        told = msgspec.to_builtins(
            Attention(
                code="", message="", since=datetime.now(UTC), order_id=spoken.order_id, tenant_id=spoken.tenant_id
            )
        )
        msgspec.convert(told, Attention)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, EventError):
        return _Spoken()
    return spoken
