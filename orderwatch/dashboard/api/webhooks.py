"""Callbacks of providers: a signed hint that asking is worth it now. Only the answer to our question settles anything.

Signed as Standard Webhooks says (HMAC-SHA256 over id, timestamp and raw body, good for five minutes), with the secret
that the integration has in ``credentials.callback_secret``.
"""

from typing import Annotated, Any

import msgspec
from litestar import Request, post
from litestar.exceptions import HTTPException
from litestar.params import HeaderParameter, JSONBody, RawBody
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from db.control import webhook_receipts
from db.reads import queries
from orderwatch.dashboard.api.endpoints import InPath, Words, problems
from orderwatch.dashboard.auth import PUBLIC
from orderwatch.dashboard.context import Inside, Parts
from orderwatch.dashboard.problems import Refused, unsure
from orderwatch.dashboard.stored_config import followed
from streams import topics
from streams.events import Check
from streams.kafka.producer import message
from streams.order import CheckReason

SECRET = "callback_secret"  # noqa: S105 - the name of it


class Called(msgspec.Struct, frozen=True):
    """Which attempt it is about, by our reference or by the provider's own id. Other fields are the provider's own."""

    reference: Words | None = None
    external_order_id: Words | None = None


class Heard(msgspec.Struct, frozen=True):
    """Whether the provider is asked now; not when the attempt has ended, or when this was said already."""

    asked: bool


@post(
    "/hooks/{integration:str}",
    needs=PUBLIC,
    exclude_from_csrf=True,
    status_code=202,
    security=[{}],
    tags=["hooks"],
    summary="A provider says that there is news of an order",
    responses=problems(404),
)
async def call_back(
    parts: Inside,
    request: Request[Any, Any, Any],
    integration: InPath,
    body: RawBody,
    data: JSONBody[Called],
    id_: Annotated[str, HeaderParameter(name="webhook-id", max_length=200)],
    timestamp: Annotated[str, HeaderParameter(name="webhook-timestamp", max_length=200)],
    signature: Annotated[str, HeaderParameter(name="webhook-signature", max_length=2000)],
) -> Heard:
    secret = await parts.ask(_secret, parts, integration)
    signed = {"webhook-id": id_, "webhook-timestamp": timestamp, "webhook-signature": signature}
    if secret is None or not _genuine(secret, body, signed):
        raise Refused(401, "there is no such integration, or the signature is not of its callback_secret")
    if data.reference is None and data.external_order_id is None:
        raise Refused(400, "the callback names no attempt", reference="expected this, or external_order_id")
    found = await parts.ask(queries.attempt_known_as, parts.engine, integration, data.reference, data.external_order_id)
    if found is None:
        raise Refused(404, f"{integration} has no attempt with this reference")
    if not found.open:
        return Heard(asked=False)
    now = await parts.ask(queries.database_now, parts.engine)
    if not await parts.ask(webhook_receipts.claim, parts.engine, integration, id_):
        return Heard(asked=False)
    check = Check(
        tenant_id=found.tenant_id,
        order_id=found.order_id,
        attempt=found.attempt,
        check_number=found.check_number,
        due_at=now,
        reason=CheckReason.CALLBACK.value,
    )
    try:
        with unsure("say it again"):
            await parts.send(message(check, topics.CHECK, at=now), found.order_id, found.tenant_id)
    except HTTPException:
        await parts.ask(webhook_receipts.release, parts.engine, integration, id_)
        raise
    return Heard(asked=True)


def _secret(parts: Parts, integration_id: str) -> str | None:
    known = followed(parts).integration(integration_id)
    secret = known.credentials.get(SECRET) if known is not None else None
    return secret.get_secret_value() if secret is not None else None


def _genuine(secret: str, body: bytes, headers: dict[str, str]) -> bool:
    """A secret that begins with ``whsec_`` is base64, as Standard Webhooks writes it; any other is taken as it is."""
    key: str | bytes = secret if secret.startswith("whsec_") else secret.encode()
    try:
        Webhook(key).verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):
        return False
    return True


routes: list[Any] = [call_back]
