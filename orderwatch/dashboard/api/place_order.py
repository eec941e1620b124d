"""Orders over HTTP: accepted when the broker has the event, once per Idempotency-Key."""

import hashlib
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar.params import HeaderParameter, JSONBody

from db.control import idempotency_keys
from orderwatch.dashboard.api.endpoints import CameFrom, Currency, Id, Money, Strict, Words, act
from orderwatch.dashboard.auth import Who
from orderwatch.dashboard.context import Inside
from orderwatch.dashboard.problems import Refused, unsure
from streams import events
from streams.clients import order_record
from streams.events import Created

_SOURCE = "api"

Key = Annotated[
    str,
    HeaderParameter(
        name="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="of your choice, one per order; the same key with the same body is the same order",
    ),
]


class Price(Strict, frozen=True):
    """What the customer paid."""

    amount: Money
    currency: Currency


class NewOrder(Strict, frozen=True, kw_only=True, omit_defaults=True):
    """An order as the shop places it. ``created_at`` is the instant of the request when it is left out."""

    tenant_id: Id
    order_id: Id
    package_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\u0000]*$")]
    user_identifier: Annotated[str, msgspec.Meta(max_length=500, pattern=r"^[^\u0000]*$", description="player id")]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    extra_field: Words | None = None
    customer_phone: Annotated[str, msgspec.Meta(max_length=100, pattern=r"^[^\u0000]*$")] | None = None
    params: dict[Annotated[str, msgspec.Meta(pattern=r"^[^\u0000]*$")], Words] | None = None
    sell_price: Price | None = None
    created_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class Placed(msgspec.Struct, frozen=True):
    """The broker has the order. ``event_id`` is its ``ce_id`` on ``orders.created``; ``href`` says how it goes on."""

    tenant_id: str
    order_id: str
    event_id: str
    href: str


@act("/api/orders", needs="orders:write", errors=(409,), status_code=202, summary="Place an order")
async def place_order(
    parts: Inside, who: Who, data: JSONBody[NewOrder], key: Key, came_from: CameFrom = None
) -> Placed:
    who.tenant(data.tenant_id)
    digest = hashlib.sha256(msgspec.json.encode(data, order="sorted")).hexdigest()
    wanted = _created(data, datetime.now().astimezone())
    order_record(wanted, _SOURCE)  # nothing is kept of an order that is wrong
    submission = await parts.ask(
        idempotency_keys.begin,
        parts.engine,
        who.owner,
        key,
        digest,
        data.tenant_id,
        data.order_id,
        wanted.fingerprint(),
    )
    if submission is None:
        raise Refused(
            409,
            f"order {data.order_id} of tenant {data.tenant_id} is known with another content",
            order_id="expected an id that was not used for another order",
        )
    if not submission.same:
        raise Refused(
            409,
            "this Idempotency-Key stands for another order",
            **{"Idempotency-Key": "expected a new one for every order"},
        )
    created = _created(data, submission.said_at)
    if not submission.accepted:
        with unsure("send it again with the same Idempotency-Key"):
            await parts.send(order_record(created, _SOURCE), data.order_id, data.tenant_id, came_from)
            await parts.ask(idempotency_keys.accepted, parts.engine, who.owner, key)
    return Placed(
        data.tenant_id, data.order_id, events.event_id(created), f"/api/orders/{data.tenant_id}/{data.order_id}"
    )


def _created(data: NewOrder, now: datetime) -> Created:
    """The event. Raises ``EventError`` for what only the event's own rules refuse, such as the year 0001."""
    said = {name: value for name, value in msgspec.to_builtins(data).items() if value is not None}
    said.setdefault("created_at", events.rfc3339(now))
    return events.decode(Created, msgspec.json.encode(said))


routes: list[Any] = [place_order]
