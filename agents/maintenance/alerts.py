"""Tells attention to a webhook and to a command of the operator's choice, each of them once.

Once means: a delivery that was confirmed is never repeated. A worker that dies between the receiver's answer and our
note of it sends the same ``webhook-id`` again, by which a receiver knows it. Nothing here holds an order up.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

import aiohttp
import msgspec
import sqlalchemy as sa
import structlog
from standardwebhooks import Webhook
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from db.control import alerts
from db.control.alerts import Alert
from streams import metrics
from streams.config.loader import AlertsConfig
from streams.errors import StoreUnavailable

log = structlog.get_logger(__name__)

_AT_ONCE = 8
#: Tries in one claim, close together: for a receiver that blinked. A longer outage is waited for in the database.
_QUICK_TRIES = 3
_QUICK_WAIT_S = 0.2
_AGAIN_S = (10.0, 60.0, 300.0, 1800.0)
#: What a command of the operator gets of our environment, which holds credentials.
_HANDED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")


class NotDelivered(Exception):
    """This try did not get through; the text holds no secret."""


Send = Callable[[Alert], Awaitable[None]]


async def alerts_forever(config: AlertsConfig, engine: sa.Engine, executor: ThreadPoolExecutor) -> None:
    """Deliver what is due, for ever; a store that is away is waited for."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=config.timeout), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    ) as session:
        senders = _senders(config, session)
        while True:
            try:
                sent = await deliver(config, senders, engine, executor)
            except StoreUnavailable as error:
                log.warning("alerts held", error=str(error))
                sent = 0
            if sent < _AT_ONCE:
                await asyncio.sleep(config.every)


def _senders(config: AlertsConfig, session: aiohttp.ClientSession) -> dict[str, Send]:
    made: dict[str, Send] = {}
    if config.webhook_url and config.webhook_secret:
        made["webhook"] = _webhook(session, config.webhook_url, Webhook(config.webhook_secret.get_secret_value()))
    if config.command:
        made["command"] = _command(config.command, config.timeout)
    return made


async def deliver(
    config: AlertsConfig, senders: Mapping[str, Send], engine: sa.Engine, executor: ThreadPoolExecutor
) -> int:
    """One round; how many were tried. Raises ``StoreUnavailable``."""
    loop = asyncio.get_running_loop()
    lease_s = _QUICK_TRIES * (config.timeout + 2) + 30
    due = await loop.run_in_executor(executor, alerts.claim, engine, config.targets, config.codes, lease_s, _AT_ONCE)

    async def one(alert: Alert) -> None:
        error = await _try(senders[alert.target], alert)
        if error is None:
            await loop.run_in_executor(executor, alerts.delivered, engine, alert)
            outcome = "delivered"
        else:
            again_s = _AGAIN_S[min(alert.tries, len(_AGAIN_S)) - 1]
            gone = await loop.run_in_executor(
                executor, alerts.failed, engine, alert, error, again_s, config.give_up_after
            )
            outcome = "given_up" if gone else "failed"
            log.warning(
                "alert not delivered",
                attention=alert.attention_id,
                code=alert.code,
                target=alert.target,
                tries=alert.tries,
                given_up=gone,
                error=error,
            )
        metrics.counter("orderwatch_alerts_total", alert.target, outcome).inc()

    results = await asyncio.gather(*map(one, due), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return len(due)


async def _try(send: Send, alert: Alert) -> str | None:
    """None when it got through, else why not."""
    try:
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(_QUICK_TRIES),
            retry=retry_if_exception_type(NotDelivered),
            reraise=True,
            wait=wait_random_exponential(multiplier=_QUICK_WAIT_S, max=2.0),
        ):
            with attempt:
                await send(alert)
    except NotDelivered as error:
        return str(error)
    return None


def body(alert: Alert) -> bytes:
    """What both targets get. ``data.id`` is the same in every repeat."""
    data = {
        name: getattr(alert, name)
        for name in ("code", "message", "since", "raised_at", "tenant_id", "order_id", "integration_id")
    }
    return msgspec.json.encode(
        {"type": "orderwatch.attention", "timestamp": alert.raised_at, "data": {"id": alert.attention_id, **data}}
    )


def _webhook(session: aiohttp.ClientSession, url: str, key: Webhook) -> Send:
    async def send(alert: Alert) -> None:
        content, at = body(alert), datetime.now(UTC)
        signed = {
            "webhook-id": alert.attention_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": key.sign(alert.attention_id, at, content.decode()),
            "content-type": "application/json",
            "user-agent": "orderwatch",
        }
        try:
            async with session.post(url, data=content, headers=signed, allow_redirects=False) as answer:
                status = answer.status
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NotDelivered(f"the webhook did not answer ({type(error).__name__})") from None
        if not 200 <= status < 300:
            raise NotDelivered(f"the webhook answered {status}")

    return send


def _command(argv: Sequence[str], timeout_s: float) -> Send:
    async def send(alert: Alert) -> None:
        environ = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env=environ,
                start_new_session=True,
            )
        except OSError as error:
            raise NotDelivered(f"the command cannot be run ({error.strerror})") from None
        try:
            await asyncio.wait_for(process.communicate(body(alert)), timeout_s)
        except TimeoutError:
            raise NotDelivered(f"the command did not end within {timeout_s:g} s") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with whatever it started
                await process.wait()
        if process.returncode != 0:
            raise NotDelivered(f"the command ended with status {process.returncode}")

    return send
