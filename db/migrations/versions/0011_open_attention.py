"""An index of the orders whose attention still matters, so that the sweep never reads the finished ones.

Safe while workers run: readers pass, writers wait while the table is read once.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    where = """raised <> '[]' and (finished_at is null or raised @> '[{"code": "reversal"}]')"""
    op.create_index(
        "idx_ledger_orders_raised", "ledger_orders", ["tenant_id", "order_id"], postgresql_where=sa.text(where)
    )


def downgrade() -> None:
    op.drop_index("idx_ledger_orders_raised", "ledger_orders")
