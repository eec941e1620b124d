"""Which ledger this is and how far it got: an identity for ever, and an epoch that only grows.

Workers write both into the log. A ledger whose epoch is below the one in the log was restored from a backup, or lost
its newest commits. Every function raises ``StoreUnavailable``.
"""

from datetime import datetime
from uuid import UUID

import msgspec
import sqlalchemy as sa

from db import models as m
from db.engine import answering


class LedgerState(msgspec.Struct, frozen=True, kw_only=True):
    """The row of ``ledger_state``. ``behind_since`` is set while nothing may be sent, ``behind_why`` says why.

    Orders that the shop made before ``recovered_at`` are looked up before they are sent.
    """

    identity: UUID
    epoch: int
    behind_since: datetime | None = None
    behind_why: str = ""
    recoveries: int = 0
    recovered_at: datetime | None = None


_COLUMNS = "identity, epoch, behind_since, behind_why, recoveries, recovered_at"
_READ = f"select {_COLUMNS} from ledger_state"
_ADVANCE = f"""
update ledger_state set epoch = epoch + 1 where epoch >= :seen and behind_since is null returning {_COLUMNS}"""
_BEHIND = """
update ledger_state set behind_since = clock_timestamp(), behind_why = :why where behind_since is null"""
_RECOVERED = f"""
update ledger_state set identity = :identity, epoch = greatest(epoch, :epoch) + 1, behind_since = null,
    behind_why = '', recoveries = recoveries + 1, recovered_at = clock_timestamp() returning {_COLUMNS}"""


def read(engine: sa.Engine) -> LedgerState:
    """The state as it stands. A row that somebody deleted is made again, as another ledger."""
    with answering(engine), engine.begin() as connection:
        row = connection.execute(sa.text(_READ)).mappings().one_or_none()
        if row is None:
            connection.execute(sa.text("insert into ledger_state default values on conflict do nothing"))
            row = connection.execute(sa.text(_READ)).mappings().one()
        return _state(row)


def advance(engine: sa.Engine, seen: int) -> LedgerState:
    """Let the epoch grow by one and return the state; nothing grows while the epoch is below ``seen`` or the ledger is
    behind, so that a ledger that went back never catches up by itself."""
    with answering(engine), engine.begin() as connection:
        row = connection.execute(sa.text(_ADVANCE), {"seen": seen}).mappings().one_or_none()
        return _state(row if row is not None else connection.execute(sa.text(_READ)).mappings().one())


def set_behind(engine: sa.Engine, why: str) -> None:
    """Let no worker send anything until ``recovered``; the first reason stays."""
    with answering(engine), engine.begin() as connection:
        connection.execute(sa.text(_BEHIND), {"why": why})


def recovered(engine: sa.Engine, identity: UUID, epoch: int, actor: str, counts: dict[str, int]) -> LedgerState:
    """The ledger was reconciled with the log up to ``epoch`` of ``identity``: workers may send again. Audited."""
    with answering(engine), engine.begin() as connection:
        values = {"identity": identity, "epoch": epoch}
        state = _state(connection.execute(sa.text(_RECOVERED), values).mappings().one())
        connection.execute(m.audit.insert().values(actor=actor, action="ledger_recovered", details={**counts}))
    return state


def _state(row: sa.RowMapping) -> LedgerState:
    return LedgerState(**{name: row[name] for name in LedgerState.__struct_fields__})
