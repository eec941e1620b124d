"""Tables, and the constraints that hold whatever the code does.

The ledger (``ledger_orders``, ``attempts``) is the only guard against buying twice. ``orders``, ``order_events``,
``attention`` and ``dead_letters`` are views for people: projections of the log and of the ledger's own steps.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from streams.order import LIVE, AttemptState, ExternalStatus, Status

metadata = sa.MetaData()

Instant = sa.DateTime(timezone=True)
_now = sa.func.now()


def _one_of(column: str, words: type[AttemptState] | type[ExternalStatus] | type[Status]) -> str:
    return f"{column} in ({', '.join(repr(word.value) for word in sorted(words))})"


#: The part of ``attempts`` in which money may still be spent.
LIVE_SQL = f"state in ({', '.join(repr(state.value) for state in sorted(LIVE))})"

#: Orders whose attention still matters: the open ones, and those that were contradicted after their end.
WORRYING_SQL = """raised <> '[]' and (finished_at is null or raised @> '[{"code": "reversal"}]')"""

ledger_orders = sa.Table(
    "ledger_orders",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("order_id", sa.Text, primary_key=True),
    sa.Column("rev", sa.Integer, nullable=False, server_default="0", comment="grows with every write: the CAS token"),
    sa.Column("fingerprint", sa.Text, nullable=False, comment="sha256 of what was ordered: tells repeat from clash"),
    sa.Column("request", JSONB, nullable=False, comment="the created event as accepted"),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("external_status", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False, server_default="0", comment="of the last status-changed event"),
    sa.Column("last_event", JSONB, comment="the last status-changed event, so that it can be said again"),
    sa.Column("last_event_at", Instant),
    sa.Column("lines", sa.Integer, nullable=False, server_default="0", comment="0 until routed"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("waiting", sa.Text, comment="attention code the order waits with while no attempt is live"),
    sa.Column("waiting_since", Instant),
    sa.Column("raised", JSONB, nullable=False, server_default="[]", comment="attentions raised, to be said again"),
    sa.Column("next_check_at", Instant, comment="next dispatch try while no attempt is live"),
    sa.Column("check_number", sa.Integer, nullable=False, server_default="0"),
    sa.Column("accepted_at", Instant, nullable=False, server_default=_now),
    sa.Column("deadline_at", Instant, nullable=False),
    sa.Column("finished_at", Instant),
    sa.Column(
        "look_up_to",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="new attempts up to this number are looked up before anything is sent",
    ),
    sa.CheckConstraint(_one_of("external_status", ExternalStatus), "ledger_orders_external_status"),
    sa.CheckConstraint(
        "(external_status in ('completed', 'failed')) = (finished_at is not null)", "ledger_orders_finished"
    ),
    sa.CheckConstraint("(status = 'approved') = (external_status = 'completed')", "ledger_orders_approved"),
    sa.CheckConstraint("(status = 'rejected') = (external_status = 'failed')", "ledger_orders_rejected"),
)
sa.Index(
    "idx_ledger_orders_due", ledger_orders.c.next_check_at, postgresql_where=ledger_orders.c.next_check_at.is_not(None)
)
sa.Index(
    "idx_ledger_orders_open",
    ledger_orders.c.accepted_at.desc(),
    ledger_orders.c.external_status,
    ledger_orders.c.tenant_id,
    postgresql_where=ledger_orders.c.finished_at.is_(None),
)
sa.Index("idx_ledger_orders_last_event", ledger_orders.c.last_event_at)
sa.Index(
    "idx_ledger_orders_raised",
    ledger_orders.c.tenant_id,
    ledger_orders.c.order_id,
    postgresql_where=sa.text(WORRYING_SQL),
)
sa.Index(
    "idx_ledger_orders_finished",
    ledger_orders.c.finished_at,
    postgresql_include=["external_status", "tenant_id"],
    postgresql_where=ledger_orders.c.finished_at.is_not(None),
)
sa.Index(
    "idx_ledger_orders_waiting",
    ledger_orders.c.waiting,
    ledger_orders.c.tenant_id,
    postgresql_where=ledger_orders.c.waiting.is_not(None),
)
# What is rare among the settled, and what worries: found without reading the orders that went well.
sa.Index(
    "idx_ledger_orders_trouble",
    ledger_orders.c.external_status,
    ledger_orders.c.accepted_at.desc(),
    ledger_orders.c.tenant_id,
    postgresql_where=sa.text("external_status in ('expired', 'failed', 'unknown')"),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("order_id", sa.Text, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("line", sa.Integer, nullable=False, server_default="1", comment="one line per unit where needed"),
    sa.Column("quantity", sa.Integer, nullable=False, server_default="1"),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("integration_id", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("reference", sa.Text, nullable=False, unique=True),
    sa.Column("external_order_id", sa.Text),
    sa.Column("wire", JSONB, nullable=False, comment="wire parameters as sent, without credentials"),
    sa.Column("delivers_pin", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("expected_cost", sa.Numeric, comment="from the mapping, when it says one"),
    sa.Column("cost_amount", sa.Numeric),
    sa.Column("cost_currency", sa.Text),
    sa.Column("balance_amount", sa.Numeric, comment="the provider's balance as told with the answer"),
    sa.Column("balance_currency", sa.Text),
    sa.Column("pins", ARRAY(sa.Text), nullable=False, server_default="{}", comment="sealed"),
    sa.Column("lease_token", sa.Text, comment="who may settle this sending"),
    sa.Column("lease_until", Instant),
    sa.Column("sends", sa.Integer, nullable=False, server_default="0", comment="requests that may have left"),
    sa.Column("sent_at", Instant, comment="of the first send"),
    sa.Column("next_check_at", Instant),
    sa.Column("check_number", sa.Integer, nullable=False, server_default="0"),
    sa.Column("checks", sa.Integer, nullable=False, server_default="0", comment="questions asked"),
    sa.Column("absent_answers", sa.Integer, nullable=False, server_default="0"),
    sa.Column("absent_since", Instant, comment="of the first consistent not-found answer"),
    sa.Column("refusal", sa.Text),
    sa.Column("message", sa.Text, nullable=False, server_default=""),
    sa.Column("evidence", JSONB, nullable=False, server_default="{}", comment="last answers, redacted"),
    sa.Column("created_at", Instant, nullable=False, server_default=_now),
    sa.Column("settled_at", Instant),
    sa.Column("watch_until", Instant, comment="settled attempts are still asked about until then"),
    sa.ForeignKeyConstraint(["tenant_id", "order_id"], ["ledger_orders.tenant_id", "ledger_orders.order_id"]),
    sa.CheckConstraint(_one_of("state", AttemptState), "attempts_state"),
    sa.CheckConstraint("(state = 'sending') = (lease_token is not null)", "attempts_lease"),
)
sa.Index(
    "idx_attempts_one_live",
    attempts.c.tenant_id,
    attempts.c.order_id,
    attempts.c.line,
    unique=True,
    postgresql_where=sa.text(LIVE_SQL),
)
sa.Index("idx_attempts_due", attempts.c.next_check_at, postgresql_where=attempts.c.next_check_at.is_not(None))
sa.Index("idx_attempts_external", attempts.c.external_order_id)

orders = sa.Table(
    "orders",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("order_id", sa.Text, primary_key=True),
    sa.Column("package_id", sa.Text, nullable=False),
    sa.Column("quantity", sa.Integer, nullable=False),
    sa.Column("user_identifier", sa.Text, nullable=False),
    sa.Column("extra_field", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("external_status", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("integration_id", sa.Text),
    sa.Column("provider", sa.Text),
    sa.Column("provider_referans", sa.String(255)),
    sa.Column("external_order_id", sa.Text),
    sa.Column("pins", ARRAY(sa.Text), nullable=False, server_default="{}", comment="sealed"),
    sa.Column("cost_amount", sa.Numeric),
    sa.Column("cost_currency", sa.Text),
    sa.Column("message", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("checks", sa.Integer, nullable=False, server_default="0"),
    sa.Column("version", sa.Integer, nullable=False, server_default="0"),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("sent_at", Instant),
    sa.Column("last_sync_at", Instant),
    sa.Column("completed_at", Instant),
    sa.Column("updated_at", Instant, nullable=False, server_default=_now),
    sa.CheckConstraint(_one_of("external_status", ExternalStatus), "orders_external_status"),
    sa.CheckConstraint(_one_of("status", Status), "orders_status"),
)
sa.Index("idx_orders_provider_referans", orders.c.provider_referans)
sa.Index("idx_orders_created", orders.c.created_at.desc(), orders.c.tenant_id, orders.c.order_id)
sa.Index("idx_orders_tenant_created", orders.c.tenant_id, orders.c.created_at.desc(), orders.c.order_id)
sa.Index("idx_orders_integration", orders.c.integration_id, orders.c.created_at.desc())
sa.Index("idx_orders_number", orders.c.order_id)
sa.Index("idx_orders_player", orders.c.user_identifier, orders.c.created_at.desc())

order_events = sa.Table(
    "order_events",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("order_id", sa.Text, nullable=False),
    sa.Column("at", Instant, nullable=False, server_default=sa.func.clock_timestamp()),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer),
    sa.Column("actor", sa.Text, nullable=False, comment="dispatch, check, sweep, projection, or operator:<name>"),
    sa.Column("details", JSONB, nullable=False, server_default="{}", comment="secrets masked"),
)
sa.Index("idx_order_events_order", order_events.c.tenant_id, order_events.c.order_id, order_events.c.id)

attention = sa.Table(
    "attention",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="ce_id of the event: once per order, code and threshold"),
    sa.Column("tenant_id", sa.Text),
    sa.Column("order_id", sa.Text),
    sa.Column("integration_id", sa.Text),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("since", Instant, nullable=False),
    sa.Column("raised_at", Instant, nullable=False, server_default=_now),
    sa.Column("acknowledged_at", Instant),
    sa.Column("acknowledged_by", sa.Text),
)
sa.Index("idx_attention_open", attention.c.since, postgresql_where=attention.c.acknowledged_at.is_(None))
sa.Index("idx_attention_order", attention.c.tenant_id, attention.c.order_id)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("topic", sa.Text, nullable=False, comment="where the event came from"),
    sa.Column("partition", sa.Integer, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("agent", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("key", sa.LargeBinary),
    sa.Column("value", sa.LargeBinary, comment="the original, untouched"),
    sa.Column("headers", JSONB, nullable=False, server_default="{}", comment="the original's, as text"),
    sa.Column("at", Instant, nullable=False),
    sa.Column("replayed_at", Instant),
    sa.Column("replayed_by", sa.Text),
    sa.Column("tenant_id", sa.Text, comment="that the event spoke of, where that could be read"),
    sa.UniqueConstraint("topic", "partition", "offset", "agent", name="dead_letters_once"),
)

sa.Index(
    "idx_dead_letters_open",
    dead_letters.c.reason,
    dead_letters.c.id,
    postgresql_where=dead_letters.c.replayed_at.is_(None),
)

# A hash, because what was set aside may have a key of any length.
sa.Index("idx_dead_letters_key", dead_letters.c.key, postgresql_using="hash")

# What people asked for: received, then decided in the same transaction as what follows from it.
commands = sa.Table(
    "commands",
    metadata,
    sa.Column("command_id", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.Text, primary_key=True, comment="empty: of no tenant alone"),
    sa.Column("order_id", sa.Text),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("issued_at", Instant, nullable=False),
    sa.Column("received_at", Instant, nullable=False, server_default=_now),
    sa.Column("done", sa.Boolean, comment="null until decided; false: refused"),
    sa.Column("said", sa.Text, comment="the sentence for the person"),
    sa.Column("asked", JSONB, comment="checks to say again: [[attempt, check_number], ...]"),
    sa.Column("decided_at", Instant),
    sa.Column("moved", JSONB, comment="ids of the attentions or letters it was carried out on"),
    sa.CheckConstraint("(done is null) = (decided_at is null)", "commands_decided"),
)
sa.Index("idx_commands_order", commands.c.tenant_id, commands.c.order_id, commands.c.received_at)

codes = sa.Table(
    "codes",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("code_group", sa.Text, nullable=False),
    sa.Column("sealed", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False, comment="keyed hash: the same code cannot be loaded twice"),
    sa.Column("reference", sa.Text, comment="of the attempt that took it"),
    sa.Column("loaded_at", Instant, nullable=False, server_default=_now),
    sa.Column("taken_at", Instant),
    sa.UniqueConstraint("tenant_id", "code_group", "fingerprint", name="codes_once"),
    sa.CheckConstraint("(reference is null) = (taken_at is null)", "codes_taken"),
)
sa.Index(
    "idx_codes_available",
    codes.c.tenant_id,
    codes.c.code_group,
    codes.c.id,
    postgresql_where=codes.c.reference.is_(None),
)
sa.Index("idx_codes_reference", codes.c.reference, postgresql_where=codes.c.reference.is_not(None))

# The configuration that a running system follows. ``doc`` is the block of config.yaml with its ${NAME} references
# unexpanded: no credential is ever stored.
integrations = sa.Table(
    "integrations",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("doc", JSONB, nullable=False),
    sa.Column("switched_off", JSONB(none_as_null=True), comment="by hand: by, reason"),
    sa.Column("updated_at", Instant, nullable=False, server_default=_now),
    sa.Column("updated_by", sa.Text, nullable=False),
)
routes = sa.Table(
    "routes",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("package_id", sa.Text, primary_key=True),
    sa.Column("doc", JSONB, nullable=False),
    sa.Column("updated_at", Instant, nullable=False, server_default=_now),
    sa.Column("updated_by", sa.Text, nullable=False),
)
mappings = sa.Table(
    "mappings",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("package_id", sa.Text, primary_key=True),
    sa.Column("integration", sa.Text, primary_key=True),
    sa.Column("doc", JSONB, nullable=False),
    sa.Column("updated_at", Instant, nullable=False, server_default=_now),
    sa.Column("updated_by", sa.Text, nullable=False),
)

integration_state = sa.Table(
    "integration_state",
    metadata,
    sa.Column("integration_id", sa.Text, primary_key=True),
    sa.Column("balance_amount", sa.Numeric),
    sa.Column("balance_currency", sa.Text),
    sa.Column("balance_at", Instant),
    sa.Column("catalogue", JSONB, comment="last good catalogue"),
    sa.Column("catalogue_at", Instant),
)

service_state = sa.Table(
    "service_state",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", JSONB, nullable=False),
    sa.Column("at", Instant, nullable=False, server_default=_now),
)

ledger_state = sa.Table(
    "ledger_state",
    metadata,
    sa.Column("one_row", sa.Boolean, primary_key=True, server_default=sa.true(), comment="one row"),
    sa.Column(
        "identity",
        sa.Uuid,
        nullable=False,
        server_default=sa.func.gen_random_uuid(),
        comment="of this ledger, for ever; the log names the ledger that it belongs to",
    ),
    sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0", comment="only grows; told to the log"),
    sa.Column("behind_since", Instant, comment="set: older than the log, nothing is sent"),
    sa.Column("behind_why", sa.Text, nullable=False, server_default=""),
    sa.Column("recoveries", sa.Integer, nullable=False, server_default="0", comment="how often db recover ended"),
    sa.Column("recovered_at", Instant, comment="older orders are looked up before they are sent"),
    sa.CheckConstraint("one_row", "ledger_state_one_row"),
)

worker_state = sa.Table(
    "worker_state",
    metadata,
    sa.Column("worker", sa.Text, primary_key=True, comment="host:pid"),
    sa.Column("at", Instant, nullable=False, comment="last sign of life, by the database's clock"),
    sa.Column("doc", JSONB, nullable=False, comment="what it is doing, see db/control/worker_heartbeats.py; no secret"),
)

alert_deliveries = sa.Table(
    "alert_deliveries",
    metadata,
    sa.Column("attention_id", sa.Text, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True, comment="webhook or command"),
    sa.Column("first_at", Instant, nullable=False, server_default=_now),
    sa.Column(
        "next_at",
        Instant,
        nullable=False,
        server_default=_now,
        comment="of the next try; a try under way moves it behind its own end",
    ),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("delivered_at", Instant),
    sa.Column("given_up_at", Instant),
    sa.Column("last_error", sa.Text, nullable=False, server_default="", comment="no secret"),
)
sa.Index(
    "idx_alert_deliveries_due",
    alert_deliveries.c.next_at,
    postgresql_where=alert_deliveries.c.delivered_at.is_(None) & alert_deliveries.c.given_up_at.is_(None),
)
sa.Index("idx_attention_raised", attention.c.raised_at)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("at", Instant, nullable=False, server_default=_now),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("tenant_id", sa.Text),
    sa.Column("order_id", sa.Text),
    sa.Column("details", JSONB, nullable=False, server_default="{}"),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, comment="who or what has it; the actor of its acts"),
    sa.Column("hash", sa.Text, nullable=False, comment="sha256 of the token"),
    sa.Column("scopes", ARRAY(sa.Text), nullable=False),
    sa.Column("tenant_id", sa.Text, comment="null: all tenants"),
    sa.Column("created_at", Instant, nullable=False, server_default=_now),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("revoked_at", Instant),
    sa.Column("revoked_by", sa.Text),
    sa.Column("last_used_at", Instant, comment="to the minute"),
)

submissions = sa.Table(
    "submissions",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True, comment="tenant of the token, or * for a token of all tenants"),
    sa.Column("key", sa.Text, primary_key=True, comment="the caller's Idempotency-Key"),
    sa.Column("digest", sa.Text, nullable=False, comment="sha256 of the request: tells repeat from clash"),
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("order_id", sa.Text, nullable=False),
    sa.Column("at", Instant, nullable=False, server_default=_now),
    sa.Column("accepted_at", Instant, comment="the broker acknowledged the event"),
    sa.Column("fingerprint", sa.Text, comment="of what was ordered"),
)
sa.Index("idx_submissions_at", submissions.c.at)
sa.Index("idx_submissions_order", submissions.c.tenant_id, submissions.c.order_id)

callbacks = sa.Table(
    "callbacks",
    metadata,
    sa.Column("integration_id", sa.Text, primary_key=True),
    sa.Column("number", sa.Text, primary_key=True, comment="webhook-id of the provider"),
    sa.Column("at", Instant, nullable=False, server_default=_now),
)
sa.Index("idx_callbacks_at", callbacks.c.at)
