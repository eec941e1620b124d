"""The way from a person's word to the ledger: the worker's own parts, opened for one act."""

import asyncio
import logging
from typing import NamedTuple

import structlog

from agents import operator, wiring
from db import queries
from orderwatch.session import database
from streams.config import Config
from streams.kafka import ping


class Done(NamedTuple):
    """Whether the ledger took it, and the sentence for the person."""

    done: bool
    said: str


def resolve_attempt(
    config: Config, tenant_id: str, order_id: str, attempt: int, outcome: str, by: str, reason: str,
    evidence: str | None,
) -> Done:
    """Settle an attempt in the name of ``by``; ``outcome`` is a word of ``AttemptState``. Logs go to stderr."""
    structlog.configure(
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )

    # A worker would wait for servers that are away; a person is told.
    ping(config.kafka)
    with database(config) as engine:
        queries.database_now(engine)

    async def act() -> Done:
        async with wiring.opened(config) as deps:
            made = await operator.resolve(deps, tenant_id, order_id, attempt, outcome, by, reason, evidence)
            return Done(made.done, made.said)

    return asyncio.run(act())
