"""Callbacks of providers that were heard: one that comes again within ten minutes is a repeat.

The signature of a callback is good for five minutes, so nothing that is genuine outlives its row. Every function raises
``StoreUnavailable`` when the database does not answer.
"""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from db import models as m
from db.engine import answering

KEPT = timedelta(minutes=10)

c = m.callbacks.c


def claim(engine: sa.Engine, integration_id: str, number: str) -> bool:
    """Write it down; False when it was heard already."""
    new = insert(m.callbacks).values(integration_id=integration_id, number=number)
    again = new.on_conflict_do_update(
        index_elements=[c.integration_id, c.number], set_={"at": sa.func.now()}, where=c.at < sa.func.now() - KEPT
    )
    with answering(), engine.begin() as connection:
        return connection.execute(again.returning(c.number)).one_or_none() is not None


def release(engine: sa.Engine, integration_id: str, number: str) -> None:
    """Nothing came of it: the provider may say it again."""
    with answering(), engine.begin() as connection:
        connection.execute(sa.delete(m.callbacks).where(c.integration_id == integration_id, c.number == number))


def forget(engine: sa.Engine) -> None:
    """Drop what is older than ``KEPT``."""
    with answering(), engine.begin() as connection:
        connection.execute(sa.delete(m.callbacks).where(c.at < sa.func.now() - KEPT))
