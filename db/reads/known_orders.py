"""What the ledger knows of the orders that dead letters speak of. Raises ``StoreUnavailable``."""

from collections.abc import Iterable
from typing import NamedTuple

import sqlalchemy as sa

from db import models as m
from db.engine import answering
from db.rows import Key

_AT_ONCE = 500


class Known(NamedTuple):
    """An order of the ledger; ``check_numbers`` by attempt, 0 for the order itself."""

    fingerprint: str
    external_status: str
    check_numbers: dict[int, int]


def known(engine: sa.Engine, keys: Iterable[Key]) -> dict[Key, Known]:
    """The orders among ``keys`` that were accepted."""
    left = sorted(keys)
    found: dict[Key, Known] = {}
    with answering(engine), engine.connect() as connection:
        while left:
            some, left = left[:_AT_ONCE], left[_AT_ONCE:]
            found |= _known(connection, some)
    return found


def _known(connection: sa.Connection, keys: list[Key]) -> dict[Key, Known]:
    ledger, a = m.ledger_orders.c, m.attempts.c
    orders = sa.select(
        ledger.tenant_id, ledger.order_id, ledger.fingerprint, ledger.external_status, ledger.check_number
    ).where(sa.tuple_(ledger.tenant_id, ledger.order_id).in_(keys))
    numbers = sa.select(a.tenant_id, a.order_id, a.attempt, a.check_number).where(
        sa.tuple_(a.tenant_id, a.order_id).in_(keys)
    )
    found = {
        (row.tenant_id, row.order_id): Known(row.fingerprint, row.external_status, {0: row.check_number})
        for row in connection.execute(orders)
    }
    for row in connection.execute(numbers):
        found[row.tenant_id, row.order_id].check_numbers[row.attempt] = row.check_number
    return found
