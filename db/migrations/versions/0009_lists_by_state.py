"""The indexes behind lists of what is open or went wrong say tenant and state themselves, newest first.

Safe while workers run: each index is built anew, under a lock that readers pass and writers wait for, in well under a
second: neither holds orders that went well. The statistics say that state and end belong together: without them a
planner expects a hundredth of the open orders that there are, and looks each of them up.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TROUBLE = sa.text("external_status in ('expired', 'failed', 'unknown')")


def upgrade() -> None:
    _replace(
        "idx_ledger_orders_open",
        [sa.text("accepted_at desc"), "external_status", "tenant_id"],
        sa.text("finished_at is null"),
    )
    _replace("idx_ledger_orders_trouble", ["external_status", sa.text("accepted_at desc"), "tenant_id"], _TROUBLE)
    op.execute("create statistics ledger_orders_ends (mcv) on external_status, finished_at from ledger_orders")


def downgrade() -> None:
    op.execute("drop statistics ledger_orders_ends")
    _replace("idx_ledger_orders_trouble", ["external_status", sa.text("accepted_at desc")], _TROUBLE)
    _replace("idx_ledger_orders_open", ["accepted_at"], sa.text("finished_at is null"))


def _replace(name: str, columns: list[str | sa.TextClause], where: sa.TextClause) -> None:
    op.drop_index(name, "ledger_orders")
    op.create_index(name, "ledger_orders", columns, postgresql_where=where)
