"""Which attention was told to whom: a row per attention and target.

Safe while workers run: it only creates; the index on attention is built in moments, attention being few.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "alert_deliveries",
        sa.Column("attention_id", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, primary_key=True, comment="webhook or command"),
        sa.Column("first_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column(
            "next_at",
            INSTANT,
            nullable=False,
            server_default=sa.func.now(),
            comment="of the next try; a try under way moves it behind its own end",
        ),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("delivered_at", INSTANT),
        sa.Column("given_up_at", INSTANT),
        sa.Column("last_error", sa.Text, nullable=False, server_default="", comment="no secret"),
    )
    op.create_index(
        "idx_alert_deliveries_due",
        "alert_deliveries",
        ["next_at"],
        postgresql_where=sa.text("delivered_at is null and given_up_at is null"),
    )
    op.create_index("idx_attention_raised", "attention", ["raised_at"])


def downgrade() -> None:
    op.drop_index("idx_attention_raised", "attention")
    op.drop_table("alert_deliveries")
