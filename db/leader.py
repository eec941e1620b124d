"""One worker at a time: a lock in the database that dies with its holder, and the time of the last pass."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from db.engine import answering
from streams.errors import StoreUnavailable

#: The open transaction says something so often: the server ends one that stands still, see ``db.engine.connect``.
_SIGN_S = 2.0


class Leader:
    """Runs a job on one of many workers, no more often than asked for. Raises ``StoreUnavailable``.

    A leader that freezes loses the lock, and what it does when it wakes is done twice.
    """

    def __init__(self, engine: sa.Engine, executor: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._executor = executor

    async def run(self, job: str, every_s: float, work: Callable[[], Awaitable[dict[str, Any]]]) -> bool:
        """Do ``work`` if nobody did within ``every_s`` and nobody is at it; its result is kept in ``service_state``."""
        loop = asyncio.get_running_loop()
        connection = await loop.run_in_executor(self._executor, self._acquire, job, every_s)
        if connection is None:
            return False
        try:
            working = asyncio.ensure_future(work())
            try:
                while not (await asyncio.wait([working], timeout=_SIGN_S))[0]:
                    await asyncio.to_thread(self._sign, connection)  # the executor may be full of who waits for locks
                result = working.result()
            finally:
                if working.cancel():
                    await asyncio.wait([working])
            await loop.run_in_executor(self._executor, self._note, connection, job, result)
        finally:
            with suppress(StoreUnavailable):  # it is noted, or an error is on its way, perhaps the end of this task
                await loop.run_in_executor(self._executor, self._release, connection)
        return True

    def _acquire(self, job: str, every_s: float) -> sa.Connection | None:
        """A connection whose open transaction holds the lock, so that it is freed however the holder ends."""
        with answering(self._engine):
            connection = self._engine.connect()
            try:
                mine = connection.execute(
                    sa.text(
                        "select pg_try_advisory_xact_lock(hashtextextended(:job, 0)) and not exists ("
                        "select 1 from service_state where key = :job and at > now() - make_interval(secs => :every))"
                    ),
                    {"job": job, "every": every_s},
                ).scalar_one()
            except BaseException:
                connection.close()
                raise
            if not mine:
                connection.close()
                return None
            return connection

    def _sign(self, connection: sa.Connection) -> None:
        with answering(self._engine):
            connection.execute(sa.text("select 1"))

    def _note(self, connection: sa.Connection, job: str, result: dict[str, Any]) -> None:
        with answering(self._engine):
            connection.execute(
                sa.text(
                    "insert into service_state (key, value, at) values (:job, cast(:value as jsonb), clock_timestamp())"
                    " on conflict (key) do update set value = excluded.value, at = excluded.at"
                ),
                {"job": job, "value": json.dumps(result)},
            )
            connection.commit()

    def _release(self, connection: sa.Connection) -> None:
        with answering(self._engine):  # it rolls back, which a server that is gone does not answer
            connection.close()
