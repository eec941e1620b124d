"""Which attention was told to which target, and which is still to be told; shared by every worker.

A delivery is claimed for the length of a try, so two workers never send the same one at once, and a worker that dies
in a try leaves it to the others. Every function raises ``StoreUnavailable``.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa

from db.engine import answering

#: Attention that is older when alerts are switched on, or when every worker was down, is not told any more.
_FRESH_S = 86_400.0


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One attention for one target. ``tries`` counts this one."""

    attention_id: str
    target: str
    tries: int
    code: str
    message: str
    since: datetime
    raised_at: datetime
    tenant_id: str | None
    order_id: str | None
    integration_id: str | None


_ENQUEUE = """
insert into alert_deliveries (attention_id, target)
select a.id, t.target from attention a cross join unnest(cast(:targets as text[])) as t(target)
where a.raised_at > now() - make_interval(secs => :fresh) and a.acknowledged_at is null
and (cardinality(cast(:codes as text[])) = 0 or a.code = any(cast(:codes as text[])))
and not exists (select 1 from alert_deliveries d where d.attention_id = a.id and d.target = t.target)
on conflict do nothing"""

_CLAIM = """
with due as materialized (
    select attention_id, target from alert_deliveries
    where delivered_at is null and given_up_at is null and next_at <= now() and target = any(cast(:targets as text[]))
    order by next_at limit :most for update skip locked
)
update alert_deliveries d set tries = d.tries + 1, next_at = now() + make_interval(secs => :lease)
from due join attention a on a.id = due.attention_id
where d.attention_id = due.attention_id and d.target = due.target
returning d.attention_id, d.target, d.tries, a.code, a.message, a.since, a.raised_at, a.tenant_id, a.order_id,
    a.integration_id"""

_DELIVERED = """
update alert_deliveries set delivered_at = now(), last_error = ''
where attention_id = :attention_id and target = :target"""

_FAILED = """
update alert_deliveries set last_error = :error, next_at = now() + make_interval(secs => :again),
    given_up_at = case when first_at < now() - make_interval(secs => :give_up) then now() end
where attention_id = :attention_id and target = :target and delivered_at is null
returning given_up_at is not null"""


def claim(engine: sa.Engine, targets: Sequence[str], codes: Sequence[str], lease_s: float, most: int) -> list[Alert]:
    """Up to ``most`` deliveries that are due, ours for ``lease_s``; new attention is among them."""
    asked = {"targets": list(targets), "codes": list(codes), "fresh": _FRESH_S, "lease": lease_s, "most": most}
    with answering(engine), engine.begin() as connection:
        connection.execute(sa.text(_ENQUEUE), asked)
        rows = connection.execute(sa.text(_CLAIM), asked).mappings().all()
    return [Alert(**{str(name): value for name, value in row.items()}) for row in rows]


def delivered(engine: sa.Engine, alert: Alert) -> None:
    """The target has it."""
    with answering(engine), engine.begin() as connection:
        connection.execute(sa.text(_DELIVERED), {"attention_id": alert.attention_id, "target": alert.target})


def failed(engine: sa.Engine, alert: Alert, error: str, again_s: float, give_up_after_s: float) -> bool:
    """It did not get through: tried again in ``again_s``, or given up (True) when it is older than that."""
    asked = {
        "attention_id": alert.attention_id,
        "target": alert.target,
        "error": error[:300],
        "again": again_s,
        "give_up": give_up_after_s,
    }
    with answering(engine), engine.begin() as connection:
        return bool(connection.execute(sa.text(_FAILED), asked).scalar_one_or_none())
