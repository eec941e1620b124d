"""Rows that were there before: pending orders with their checks in Kafka, and finished orders of years past.

Both are written in bulk with SQL and, for the checks, straight into the tier's topic; they look as if the engine had
written them.
"""

from datetime import datetime, timedelta

import sqlalchemy as sa

from bench.options import TENANT
from bench.stage import Scene
from orderwatch.support.session import emitting
from streams.events import Check
from streams.kafka.producer import message
from streams.order import CheckReason

_BATCH = 5000

_LEDGER = """
insert into ledger_orders (tenant_id, order_id, rev, fingerprint, request, status, external_status, version, lines,
    attempts, accepted_at, deadline_at, finished_at, last_event_at)
select :tenant, :prefix || i, 3, md5(i::text) || md5(i::text), json_build_object('order_id', :prefix || i,
    'tenant_id', :tenant, 'package_id', 'sixty', 'user_identifier', 'p' || i, 'created_at', now()), :status, :external,
    2, 1, 1, {at}, {at} + interval '24 hours', {finished}, {at}
from generate_series(cast(:first as int), cast(:last as int)) i"""

_ATTEMPTS = """
insert into attempts (tenant_id, order_id, attempt, line, quantity, state, integration_id, provider, reference, wire,
    delivers_pin, sends, sent_at, next_check_at, check_number, checks, created_at, settled_at)
select :tenant, :prefix || i, 1, 1, 1, :state, 'znet-1', 'znet', :prefix || (100000000000 + i),
    json_build_object('oyun', '1', 'kupur', '60', 'oyuncu_bilgi', 'p' || i), true, 1, {at}, {next}, 1, 0, {at},
    {finished}
from generate_series(cast(:first as int), cast(:last as int)) i"""

_ORDERS = """
insert into orders (tenant_id, order_id, package_id, quantity, user_identifier, status, external_status,
    integration_id, provider, provider_referans, cost_amount, cost_currency, message, attempts, checks, version,
    created_at, sent_at, last_sync_at, completed_at)
select :tenant, :prefix || i, 'sixty', 1, 'p' || i, :status, :external, 'znet-1', 'znet',
    :prefix || (100000000000 + i), 10.00, 'TRY', 'done', 1, 1, 2, {at}, {at}, {at}, {finished}
from generate_series(cast(:first as int), cast(:last as int)) i"""

_EVENTS = """
insert into order_events (tenant_id, order_id, at, step, attempt, actor, details)
select :tenant, :prefix || i, {at}, step, 1, 'dispatch', json_build_object('integration_id', 'znet-1')
from generate_series(cast(:first as int), cast(:last as int)) i,
    unnest(array['accepted', 'routed', 'intent', 'sending', 'answered', 'checked', 'status']) step"""


def pending(scene: Scene, first: int, last: int, due_in_s: float) -> None:
    """Orders ``first`` to ``last``, sent and open, whose next check is due then: the ledger, the view and the tier."""
    places = {"at": "now()", "next": "now() + make_interval(secs => :due)", "finished": "null"}
    values = {
        "tenant": TENANT,
        "prefix": "p",
        "status": "pending",
        "external": "sent",
        "state": "accepted",
        "due": due_in_s,
        "first": first,
        "last": last,
    }
    with scene.engine.begin() as connection:
        connection.execute(sa.text("set local statement_timeout = 0"))
        for statement in (_LEDGER, _ATTEMPTS, _ORDERS):
            text = statement.format(**places)
            names = {name: value for name, value in values.items() if f":{name}" in text}
            connection.execute(sa.text(text), names)
        due_at: datetime = connection.execute(
            sa.text("select next_check_at from attempts where order_id = :order"), {"order": f"p{last}"}
        ).scalar_one()
    _schedule(scene, first, last, due_at, due_in_s)


def _schedule(scene: Scene, first: int, last: int, due_at: datetime, due_in_s: float) -> None:
    tier, at = scene.config.tier_name(due_in_s), due_at - timedelta(seconds=due_in_s)
    with emitting(scene.config) as emit:
        for start in range(first, last + 1, _BATCH):
            emit(
                [
                    message(
                        Check(
                            order_id=f"p{number}",
                            tenant_id=TENANT,
                            attempt=1,
                            check_number=1,
                            due_at=due_at,
                            reason=CheckReason.FIRST.value,
                        ),
                        tier,
                        at=at,
                    )
                    for number in range(start, min(start + _BATCH, last + 1))
                ]
            )


def finished(scene: Scene, first: int, last: int) -> None:
    """Orders ``first`` to ``last``, completed in the two years before yesterday, with seven steps each."""
    at = "now() - interval '1 day' - make_interval(mins => i % 1000000)"
    places = {"at": at, "next": "null", "finished": at}
    values = {
        "tenant": TENANT,
        "prefix": "old",
        "status": "approved",
        "external": "completed",
        "state": "completed",
        "first": first,
        "last": last,
    }
    with scene.engine.begin() as connection:
        connection.execute(sa.text("set local statement_timeout = 0"))
        connection.execute(sa.text("set local synchronous_commit = off"))
        for statement in (_LEDGER, _ATTEMPTS, _ORDERS, _EVENTS):
            text = statement.format(**places)
            names = {name: value for name, value in values.items() if f":{name}" in text}
            connection.execute(sa.text(text), names)


def settle_statistics(scene: Scene) -> None:
    """What autovacuum does in quiet hours: statistics and visibility of everything that was loaded."""
    with scene.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("set statement_timeout = 0"))
        connection.execute(sa.text("vacuum analyze"))
