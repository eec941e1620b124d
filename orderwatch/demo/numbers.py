"""Where the run stands, counted in PostgreSQL, on the broker and by the downstream service. Nothing is estimated."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import sqlalchemy as sa

from db.engine import answering
from orderwatch.reconcile import FINAL, Bought, Key
from streams.config.loader import Config
from streams.kafka.producer import group_lag
from streams.topics import CREATED

#: Columns of the live table: what it shows as, and the delivery statuses that it adds up.
STATES: Mapping[str, tuple[str, ...]] = {
    "queued": ("not_sent",),
    "sent": ("sent",),
    "in work": ("processing",),
    "unknown": ("unknown",),
    "done": ("completed",),
    "failed": ("failed", "expired"),
}
PERSON = "person"
NOWHERE = "(nobody yet)"

_BY_PLACE = """
select o.tenant_id, a.integration_id, o.external_status, l.waiting is not null as waits, count(*) as n
from orders o join ledger_orders l using (tenant_id, order_id)
left join lateral (
    select integration_id from attempts a where a.tenant_id = o.tenant_id and a.order_id = o.order_id
    order by attempt desc limit 1
) a on true
group by 1, 2, 3, 4"""

_COUNTS = """
with lost as (
    select distinct tenant_id, order_id, attempt from order_events
    where step = 'lease_over' or (step = 'answered' and details->>'outcome' in ('ambiguous', 'duplicate'))
), absent as (
    select distinct tenant_id, order_id, attempt from order_events where step = 'proven_absent'
), fate as (
    select a.state, b.attempt is not null as absent
    from lost join attempts a using (tenant_id, order_id, attempt)
    left join absent b using (tenant_id, order_id, attempt)
)
select
    (select count(*) from orders) as accepted,
    (select coalesce(sum(checks), 0) from attempts) as checks,
    (select count(*) from (select 1 from attempts group by tenant_id, order_id, line
        having count(distinct integration_id) > 1) as moved) as fallbacks,
    (select count(*) from fate) as lost,
    (select count(*) from fate where state in ('accepted', 'completed', 'failed') and not absent) as found,
    (select count(*) from fate where absent) as absent,
    (select coalesce(sum(cardinality(pins)), 0) from orders) as pins,
    (select count(*) from attention where acknowledged_at is null) as attention,
    (select count(*) from dead_letters) as dead_letters"""

_CODES_SOLD = """
select a.integration_id, c.reference, count(*) as quantity
from codes c left join attempts a using (reference) where c.reference is not null group by 1, 2"""

#: A lost answer whose purchase was found makes the best story; else any lost one.
_LOST_ORDERS = """
select tenant_id, order_id from order_events e join attempts a using (tenant_id, order_id, attempt)
join orders o using (tenant_id, order_id)
where e.step = 'answered' and e.details->>'outcome' = 'ambiguous' and o.external_status = 'completed'
order by a.state <> 'completed', a.checks desc, e.id limit 1"""


@dataclass(slots=True)
class Numbers:
    """One look at everything. ``places`` maps (tenant, integration) to column -> orders."""

    places: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    accepted: int = 0
    checks: int = 0
    fallbacks: int = 0
    lost: int = 0
    found: int = 0
    absent: int = 0
    pins: int = 0
    attention: int = 0
    dead_letters: int = 0
    repeats_dropped: int = 0

    def total(self, column: str) -> int:
        """Orders in one column, over all places."""
        return sum(row.get(column, 0) for row in self.places.values())


def read(engine: sa.Engine, handled: int, malformed: int) -> Numbers:
    """Count now. Dispatch was done with ``handled`` created events a moment ago, ``malformed`` ones among them.

    Raises ``StoreUnavailable``.
    """
    with answering(), engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        rows = connection.execute(sa.text(_BY_PLACE)).all()
        counts = connection.execute(sa.text(_COUNTS)).mappings().one()
    places: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    columns = {status: column for column, statuses in STATES.items() for status in statuses}
    for row in rows:
        column = PERSON if row.waits else columns[row.external_status]
        places[row.tenant_id, row.integration_id or NOWHERE][column] += row.n
    made = msgspec.convert(dict(counts), Numbers)
    made.places = {place: dict(places[place]) for place in sorted(places)}
    # What dispatch is done with became an order, a dead letter, or nothing. Orders accepted since ``handled`` was read
    # make this too small for a moment, never too large.
    made.repeats_dropped = max(handled - made.accepted - malformed, 0)
    return made


def handled(config: Config) -> int:
    """How many created events dispatch is done with: its committed offsets. Raises ``BrokerUnavailable``."""
    lag = group_lag(config.kafka, f"{config.kafka.topic_prefix}orderwatch", [CREATED])
    return sum(committed or 0 for committed, _ in lag.values())


def statuses(engine: sa.Engine) -> dict[Key, str]:
    """PostgreSQL's book: the delivery status of every order."""
    with answering(), engine.connect() as connection:
        rows = connection.execute(sa.text("select tenant_id, order_id, external_status from orders"))
        return {(row.tenant_id, row.order_id): row.external_status for row in rows}


def attempts(engine: sa.Engine) -> dict[str, tuple[Key, int, str]]:
    """Every reference we ever used: its order, line and state."""
    with answering(), engine.connect() as connection:
        rows = connection.execute(sa.text("select tenant_id, order_id, line, reference, state from attempts"))
        return {row.reference: ((row.tenant_id, row.order_id), row.line, row.state) for row in rows}


def codes_sold(engine: sa.Engine) -> list[Bought]:
    """The stock of codes is its own provider: what was taken from it, by reference."""
    with answering(), engine.connect() as connection:
        rows = connection.execute(sa.text(_CODES_SOLD))
        return [Bought(row.integration_id or "codes", row.reference, 1, "success", row.quantity) for row in rows]


def waiting(engine: sa.Engine) -> list[Key]:
    """Orders that wait for a person."""
    with answering(), engine.connect() as connection:
        rows = connection.execute(
            sa.text("select tenant_id, order_id from ledger_orders where waiting is not null order by 1, 2")
        )
        return [(row.tenant_id, row.order_id) for row in rows]


def lost_and_found(engine: sa.Engine) -> Key | None:
    """One order whose answer was lost and which was completed nevertheless."""
    with answering(), engine.connect() as connection:
        row = connection.execute(sa.text(_LOST_ORDERS)).one_or_none()
        return None if row is None else (row.tenant_id, row.order_id)


def ended(book: Mapping[Key, str]) -> set[Key]:
    """The orders that reached their end in this book."""
    return {key for key, status in book.items() if status in FINAL}
