"""Compares the ledger with the log and with what this worker has seen: one that went back in time sends nothing.

Detected are a ledger below the epoch in the log (a restore, a late replica) at the start and all the time, an epoch
that falls while this worker runs, another ledger under the same log, and, by ``db.ledger`` at each write, the loss of
this worker's own newest commits. Not detected: the last ``_EVERY_S`` seconds of a worker that died with the server.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

import structlog

from db.identity import LedgerState
from streams import metrics
from streams.errors import BrokerUnavailable, ConfigError, StoreUnavailable
from streams.events import Attention
from streams.kafka.producer import Outgoing, message
from streams.ledger_log import Mark, behind, marked, refuse_other
from streams.order import AttentionCode

log = structlog.get_logger(__name__)

_EVERY_S = 2.0
#: The log is read again at every so many looks: another worker may have brought another ledger.
_LOG_EVERY = 30


class Guarded(Protocol):
    """What is needed of ``db.ledger.Ledger``."""

    behind: str

    @property
    def commits(self) -> int: ...

    def go_on(self) -> None: ...


class Sources(Protocol):
    """Where the state and the marks come from; each method blocks.

    Marks are read before the state: other workers let the epoch grow, and write it down only afterwards.
    """

    def read(self) -> LedgerState: ...

    def advance(self, seen: int) -> LedgerState: ...

    def set_behind(self, why: str) -> None: ...

    def marks(self) -> dict[UUID, Mark]: ...


class LedgerWatch:
    """``state`` is the ledger's row as it was read last."""

    state: LedgerState

    def __init__(
        self, sources: Sources, ledger: Guarded, send: Callable[[Sequence[Outgoing]], Awaitable[None]], worker: str
    ) -> None:
        self._sources = sources
        self._ledger = ledger
        self._send = send
        self._worker = worker
        self._commits = -1
        self._marked = -1
        self._told = ""

    @property
    def look_first_before(self) -> datetime | None:
        """Orders that the shop made before this instant are looked up before they are sent."""
        return self.state.recovered_at

    def start(self) -> None:
        """Compare ledger and log before anything is handled. Blocks. Raises ``ConfigError`` for another ledger."""
        found = self._sources.marks()
        self.state = self._sources.read()
        self._compare(found)
        self.state = self._sources.read()
        self._ledger.behind = self.state.behind_why if self.state.behind_since else ""

    async def forever(self) -> None:
        """Look every ``_EVERY_S``; a store or broker that is away is no reason to end. Raises ``ConfigError``."""
        looks = 0
        while True:
            try:
                await self.look(read_log=looks % _LOG_EVERY == 1)
            except (StoreUnavailable, BrokerUnavailable) as error:
                log.warning("ledger not compared", error=str(error))
            looks += 1
            await asyncio.sleep(_EVERY_S)

    async def look(self, *, read_log: bool = False) -> None:
        """Compare once, let the epoch grow if this worker has written, and tell what was found."""
        await asyncio.to_thread(self._look, read_log)
        state = self.state
        metrics.gauge("orderwatch_ledger_behind", float(bool(self._ledger.behind)))
        if self._ledger.behind:
            await self._tell()
        elif state.epoch > self._marked:
            await self._send(
                [marked(state.identity, Mark(epoch=state.epoch, at=datetime.now(UTC), worker=self._worker))]
            )
            self._marked = state.epoch

    def _look(self, read_log: bool) -> None:
        before, commits = self.state, self._ledger.commits
        found = self._sources.marks() if read_log else {}
        moved = commits != self._commits and not self._ledger.behind
        state = self._sources.advance(before.epoch) if moved else self._sources.read()
        if state.recoveries > before.recoveries:
            log.info("ledger reconciled", epoch=state.epoch)
            self._told = ""
            self._ledger.go_on()
        elif state.identity != before.identity:
            raise ConfigError(f"database.url: the database became ledger {state.identity}; it was {before.identity}")
        elif state.epoch < before.epoch:
            self._fall_behind(f"the ledger is at epoch {state.epoch}, this worker has seen epoch {before.epoch}")
            return
        self.state, self._commits = state, commits
        if state.behind_since is not None:
            self._ledger.behind = state.behind_why
        elif self._ledger.behind:
            self._fall_behind(self._ledger.behind)
        else:
            self._compare(found)

    def _compare(self, found: dict[UUID, Mark]) -> None:
        refuse_other(found, self.state.identity)
        if why := behind(found, self.state.identity, self.state.epoch):
            self._fall_behind(why)

    def _fall_behind(self, why: str) -> None:
        self._ledger.behind = why
        self._sources.set_behind(why)

    async def _tell(self) -> None:
        """One attention per ledger and epoch; every worker tells it under the same id."""
        why = self._ledger.behind
        if why == self._told:
            return
        log.error("ledger behind: nothing is sent until `orderwatch db recover`", why=why)
        since = self.state.behind_since or datetime.now(UTC)
        attention = Attention(
            code=AttentionCode.LEDGER_BEHIND.value,
            since=since,
            discriminator=f"{self.state.identity}:{self.state.epoch}",
            message=f"{why}; nothing is sent before `orderwatch db recover`",
        )
        await self._send([message(attention, "orders.attention", at=since)])
        self._told = why
