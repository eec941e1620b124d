"""What people look for is found by an index, and a dead letter knows whose it is.

Safe while workers run: only additions. Each index is built under a lock that readers pass and writers wait for: about
two seconds per million orders, and events are held meanwhile.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INDEXES = (
    ("idx_ledger_orders_finished", "ledger_orders"),
    ("idx_ledger_orders_waiting", "ledger_orders"),
    ("idx_ledger_orders_trouble", "ledger_orders"),
    ("idx_orders_tenant_created", "orders"),
    ("idx_orders_integration", "orders"),
    ("idx_orders_number", "orders"),
    ("idx_orders_player", "orders"),
    ("idx_dead_letters_open", "dead_letters"),
)


def upgrade() -> None:
    op.create_index(
        "idx_ledger_orders_finished",
        "ledger_orders",
        ["finished_at"],
        postgresql_include=["external_status", "tenant_id"],
        postgresql_where=sa.text("finished_at is not null"),
    )
    op.create_index(
        "idx_ledger_orders_waiting",
        "ledger_orders",
        ["waiting", "tenant_id"],
        postgresql_where=sa.text("waiting is not null"),
    )
    op.create_index(
        "idx_ledger_orders_trouble",
        "ledger_orders",
        ["external_status", sa.text("accepted_at desc")],
        postgresql_where=sa.text("external_status in ('expired', 'failed', 'unknown')"),
    )
    op.create_index("idx_orders_tenant_created", "orders", ["tenant_id", sa.text("created_at desc"), "order_id"])
    op.create_index("idx_orders_integration", "orders", ["integration_id", sa.text("created_at desc")])
    op.create_index("idx_orders_number", "orders", ["order_id"])
    op.create_index("idx_orders_player", "orders", ["user_identifier", sa.text("created_at desc")])
    op.add_column(
        "dead_letters", sa.Column("tenant_id", sa.Text, comment="that the event spoke of, where that could be read")
    )
    op.create_index(
        "idx_dead_letters_open", "dead_letters", ["reason", "id"], postgresql_where=sa.text("replayed_at is null")
    )


def downgrade() -> None:
    for name, table in reversed(INDEXES):
        op.drop_index(name, table)
    op.drop_column("dead_letters", "tenant_id")
