"""The way from a person's word to the ledger: a command event, carried out by a worker, and the wait for its answer."""

import secrets
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from db.control import commands
from db.reads import queries
from db.rows import CommandRecord
from orderwatch.support.session import emitting
from orderwatch.support.terminal import fail
from streams import topics
from streams.config.loader import Config
from streams.events import Command, decode, encode
from streams.kafka.producer import message, ping
from streams.order import CommandAction


def new_id() -> str:
    """An id for a command whose caller brings none."""
    return secrets.token_hex(12)


def build(
    action: CommandAction,
    tenant_id: str | None,
    order_id: str | None,
    *,
    by: str,
    reason: str,
    command_id: str,
    issued_at: datetime,
    **words: Any,
) -> Command:
    """A command that a worker can read. ``words``: ``attempt``, ``outcome``, ``integration_id``, ``evidence``,
    ``attentions``, ``letters``, ``fix``.

    ``issued_at`` is by the database's clock. Raises ``EventError`` naming the field that is wrong.
    """
    made = Command(
        command_id=command_id,
        tenant_id=tenant_id,
        order_id=order_id,
        action=action,
        reason=reason,
        by=by,
        issued_at=issued_at,
        **words,
    )
    return decode(Command, encode(made))


def issue(config: Config, engine: sa.Engine, command: Command, wait_s: float) -> CommandRecord | None:
    """Send a command and wait for its answer: undecided or None when no worker answered within ``wait_s``.

    Raises ``BrokerUnavailable`` when it could not be sent, ``StoreUnavailable`` when nobody can see the answer.
    """
    ping(config.kafka)  # a producer would wait for a broker that is away; a person is told
    with emitting(config) as emit:
        emit([message(command, topics.COMMAND, at=command.issued_at)])
    return commands.wait(engine, command.tenant, command.command_id, wait_s)


def on_queue(
    config: Config,
    engine: sa.Engine,
    action: CommandAction,
    *,
    by: str,
    reason: str,
    command_id: str | None,
    wait_s: float,
    **words: Any,
) -> list[str | int]:
    """Act on attentions or dead letters of any tenant; the ids that it was carried out on.

    Ends the program when no worker answered in time, and when the id was used for something else.
    """
    command = build(
        action,
        None,
        None,
        by=by,
        reason=reason,
        command_id=command_id or new_id(),
        issued_at=queries.database_now(engine),
        **words,
    )
    found = issue(config, engine, command, wait_s)
    if found is not None and found.action != action:
        fail(f"--command-id {command.command_id} was used for another command; expected a new id", 2)
    if found is None or found.done is None:
        fail(f"no worker answered within {wait_s:g} s: command {command.command_id} is carried out when one reads it")
    return found.moved or []
