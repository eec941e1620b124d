"""Every table of the first release.

Safe while workers run: it only creates. Down drops everything, with what is in it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)

# Written out: a migration says what was true on its day, whatever the words of the code become.
EXTERNAL_STATUSES = "('completed', 'expired', 'failed', 'not_sent', 'processing', 'sent', 'unknown')"
STATUSES = "('approved', 'pending', 'rejected')"
ATTEMPT_STATES = "('accepted', 'completed', 'failed', 'intent', 'not_sent', 'rejected', 'sending', 'unknown')"

TABLES = (
    "ledger_orders",
    "attempts",
    "orders",
    "order_events",
    "attention",
    "dead_letters",
    "codes",
    "integrations",
    "routes",
    "mappings",
    "integration_state",
    "service_state",
    "audit",
)


def upgrade() -> None:
    _ledger()
    _views()
    _stock()
    _configuration()
    _states()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


def _ledger() -> None:
    op.create_table(
        "ledger_orders",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column(
            "rev", sa.Integer, nullable=False, server_default="0", comment="grows with every write: the CAS token"
        ),
        sa.Column(
            "fingerprint", sa.Text, nullable=False, comment="sha256 of what was ordered: tells repeat from clash"
        ),
        sa.Column("request", JSONB, nullable=False, comment="the created event as accepted"),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("external_status", sa.Text, nullable=False),
        sa.Column(
            "version", sa.Integer, nullable=False, server_default="0", comment="of the last status-changed event"
        ),
        sa.Column("last_event", JSONB, comment="the last status-changed event, so that it can be said again"),
        sa.Column("last_event_at", INSTANT),
        sa.Column("lines", sa.Integer, nullable=False, server_default="0", comment="0 until routed"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("waiting", sa.Text, comment="attention code the order waits with while no attempt is live"),
        sa.Column("waiting_since", INSTANT),
        sa.Column("raised", JSONB, nullable=False, server_default="[]", comment="attentions raised, to be said again"),
        sa.Column("next_check_at", INSTANT, comment="next dispatch try while no attempt is live"),
        sa.Column("check_number", sa.Integer, nullable=False, server_default="0"),
        sa.Column("accepted_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("deadline_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT),
        sa.CheckConstraint(f"external_status in {EXTERNAL_STATUSES}", "ledger_orders_external_status"),
        sa.CheckConstraint(
            "(external_status in ('completed', 'failed')) = (finished_at is not null)", "ledger_orders_finished"
        ),
        sa.CheckConstraint("(status = 'approved') = (external_status = 'completed')", "ledger_orders_approved"),
        sa.CheckConstraint("(status = 'rejected') = (external_status = 'failed')", "ledger_orders_rejected"),
    )
    op.create_index(
        "idx_ledger_orders_due",
        "ledger_orders",
        ["next_check_at"],
        postgresql_where=sa.text("next_check_at is not null"),
    )
    op.create_index(
        "idx_ledger_orders_open", "ledger_orders", ["accepted_at"], postgresql_where=sa.text("finished_at is null")
    )
    op.create_index("idx_ledger_orders_last_event", "ledger_orders", ["last_event_at"])
    op.create_table(
        "attempts",
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
        sa.Column("lease_until", INSTANT),
        sa.Column("sends", sa.Integer, nullable=False, server_default="0", comment="requests that may have left"),
        sa.Column("sent_at", INSTANT, comment="of the first send"),
        sa.Column("next_check_at", INSTANT),
        sa.Column("check_number", sa.Integer, nullable=False, server_default="0"),
        sa.Column("checks", sa.Integer, nullable=False, server_default="0", comment="questions asked"),
        sa.Column("absent_answers", sa.Integer, nullable=False, server_default="0"),
        sa.Column("absent_since", INSTANT, comment="of the first consistent not-found answer"),
        sa.Column("refusal", sa.Text),
        sa.Column("message", sa.Text, nullable=False, server_default=""),
        sa.Column("evidence", JSONB, nullable=False, server_default="{}", comment="last answers, redacted"),
        sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("settled_at", INSTANT),
        sa.Column("watch_until", INSTANT, comment="settled attempts are still asked about until then"),
        sa.ForeignKeyConstraint(["tenant_id", "order_id"], ["ledger_orders.tenant_id", "ledger_orders.order_id"]),
        sa.CheckConstraint(f"state in {ATTEMPT_STATES}", "attempts_state"),
        sa.CheckConstraint("(state = 'sending') = (lease_token is not null)", "attempts_lease"),
    )
    op.create_index(
        "idx_attempts_one_live",
        "attempts",
        ["tenant_id", "order_id", "line"],
        unique=True,
        postgresql_where=sa.text("state in ('accepted', 'intent', 'sending', 'unknown')"),
    )
    op.create_index(
        "idx_attempts_due", "attempts", ["next_check_at"], postgresql_where=sa.text("next_check_at is not null")
    )
    op.create_index("idx_attempts_external", "attempts", ["external_order_id"])


def _views() -> None:
    op.create_table(
        "orders",
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
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("sent_at", INSTANT),
        sa.Column("last_sync_at", INSTANT),
        sa.Column("completed_at", INSTANT),
        sa.Column("updated_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint(f"external_status in {EXTERNAL_STATUSES}", "orders_external_status"),
        sa.CheckConstraint(f"status in {STATUSES}", "orders_status"),
    )
    op.create_index("idx_orders_provider_referans", "orders", ["provider_referans"])
    op.create_index("idx_orders_created", "orders", [sa.text("created_at desc"), "tenant_id", "order_id"])
    op.create_table(
        "order_events",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("order_id", sa.Text, nullable=False),
        sa.Column("at", INSTANT, nullable=False, server_default=sa.func.clock_timestamp()),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer),
        sa.Column("actor", sa.Text, nullable=False, comment="dispatch, check, sweep, projection, or operator:<name>"),
        sa.Column("details", JSONB, nullable=False, server_default="{}", comment="secrets masked"),
    )
    op.create_index("idx_order_events_order", "order_events", ["tenant_id", "order_id", "id"])
    op.create_table(
        "attention",
        sa.Column("id", sa.Text, primary_key=True, comment="ce_id of the event: once per order, code and threshold"),
        sa.Column("tenant_id", sa.Text),
        sa.Column("order_id", sa.Text),
        sa.Column("integration_id", sa.Text),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("raised_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("acknowledged_at", INSTANT),
        sa.Column("acknowledged_by", sa.Text),
    )
    op.create_index("idx_attention_open", "attention", ["since"], postgresql_where=sa.text("acknowledged_at is null"))
    op.create_index("idx_attention_order", "attention", ["tenant_id", "order_id"])
    op.create_table(
        "dead_letters",
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
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("replayed_at", INSTANT),
        sa.Column("replayed_by", sa.Text),
        sa.UniqueConstraint("topic", "partition", "offset", "agent", name="dead_letters_once"),
    )


def _stock() -> None:
    op.create_table(
        "codes",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("code_group", sa.Text, nullable=False),
        sa.Column("sealed", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False, comment="keyed hash: the same code cannot be loaded twice"),
        sa.Column("reference", sa.Text, comment="of the attempt that took it"),
        sa.Column("loaded_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("taken_at", INSTANT),
        sa.UniqueConstraint("tenant_id", "code_group", "fingerprint", name="codes_once"),
        sa.CheckConstraint("(reference is null) = (taken_at is null)", "codes_taken"),
    )
    op.create_index(
        "idx_codes_available", "codes", ["tenant_id", "code_group", "id"], postgresql_where=sa.text("reference is null")
    )
    op.create_index("idx_codes_reference", "codes", ["reference"], postgresql_where=sa.text("reference is not null"))


def _configuration() -> None:
    op.create_table(
        "integrations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("doc", JSONB, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("updated_by", sa.Text, nullable=False),
    )
    op.create_table(
        "routes",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("package_id", sa.Text, primary_key=True),
        sa.Column("doc", JSONB, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("updated_by", sa.Text, nullable=False),
    )
    op.create_table(
        "mappings",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("package_id", sa.Text, primary_key=True),
        sa.Column("integration", sa.Text, primary_key=True),
        sa.Column("doc", JSONB, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("updated_by", sa.Text, nullable=False),
    )


def _states() -> None:
    op.create_table(
        "integration_state",
        sa.Column("integration_id", sa.Text, primary_key=True),
        sa.Column("balance_amount", sa.Numeric),
        sa.Column("balance_currency", sa.Text),
        sa.Column("balance_at", INSTANT),
        sa.Column("catalogue", JSONB, comment="last good catalogue"),
        sa.Column("catalogue_at", INSTANT),
    )
    op.create_table(
        "service_state",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", JSONB, nullable=False),
        sa.Column("at", INSTANT, nullable=False, server_default=sa.func.now()),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("tenant_id", sa.Text),
        sa.Column("order_id", sa.Text),
        sa.Column("details", JSONB, nullable=False, server_default="{}"),
    )
