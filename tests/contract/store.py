"""The parts of the store on one database, for tests."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from db.clock import Clock
from db.control.stock import CodeStock
from db.engine import connect
from db.leader import Leader
from db.ledger import Ledger
from db.views import Views


@dataclass(frozen=True)
class Store:
    """One worker's view of a database."""

    engine: sa.Engine
    executor: ThreadPoolExecutor
    clock: Clock
    ledger: Ledger
    views: Views
    stock: CodeStock
    leader: Leader

    def rows(self, text: str, **values: Any) -> list[dict[str, Any]]:
        """What the database holds, read beside the code under test."""
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.text(text), values).mappings()]

    def run(self, text: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(text), values)

    def cut_off_others(self) -> None:
        """End every other session of this database."""
        self.run(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )


@contextmanager
def store_on(url: str, threads: int = 6, **settings: float) -> Iterator[Store]:
    """Opened for the length of a test; ``settings`` are those of ``db.engine.connect``."""
    engine, executor, clock = connect(url, threads, **settings), ThreadPoolExecutor(threads), Clock()
    try:
        yield Store(
            engine,
            executor,
            clock,
            Ledger(engine, executor, clock),
            Views(engine, executor),
            CodeStock(engine, executor, clock),
            Leader(engine, executor),
        )
    finally:
        executor.shutdown(wait=True)
        engine.dispose()
