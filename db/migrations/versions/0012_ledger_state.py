"""The ledger gets an identity and an epoch, and an order says up to which attempt it is looked up before it is sent.

Safe while workers run: one small table and one column with a constant default, which rewrites nothing. Workers of the
release before neither read nor write them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_Instant = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "ledger_state",
        sa.Column("one_row", sa.Boolean, primary_key=True, server_default=sa.true(), comment="one row"),
        sa.Column(
            "identity",
            sa.Uuid,
            nullable=False,
            server_default=sa.func.gen_random_uuid(),
            comment="of this ledger, for ever; the log names the ledger that it belongs to",
        ),
        sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0", comment="only grows; told to the log"),
        sa.Column("behind_since", _Instant, comment="set: older than the log, nothing is sent"),
        sa.Column("behind_why", sa.Text, nullable=False, server_default=""),
        sa.Column("recoveries", sa.Integer, nullable=False, server_default="0", comment="how often db recover ended"),
        sa.Column("recovered_at", _Instant, comment="older orders are looked up before they are sent"),
        sa.CheckConstraint("one_row", "ledger_state_one_row"),
    )
    op.execute("insert into ledger_state default values")
    column = sa.Column(
        "look_up_to",
        sa.Integer,
        nullable=False,
        server_default="0",
        comment="new attempts up to this number are looked up before anything is sent",
    )
    op.add_column("ledger_orders", column)


def downgrade() -> None:
    op.drop_column("ledger_orders", "look_up_to")
    op.drop_table("ledger_state")
