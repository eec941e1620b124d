"""What people asked for, and the answers.

Safe while workers run: it only creates. Down forgets which commands were carried out, so no worker of this release may
run on what is left.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "commands",
        sa.Column("command_id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("order_id", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("issued_at", INSTANT, nullable=False),
        sa.Column("received_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("done", sa.Boolean, comment="null until decided; false: refused"),
        sa.Column("said", sa.Text, comment="the sentence for the person"),
        sa.Column("asked", JSONB, comment="checks to say again: [[attempt, check_number], ...]"),
        sa.Column("decided_at", INSTANT),
        sa.CheckConstraint("(done is null) = (decided_at is null)", "commands_decided"),
    )
    op.create_index("idx_commands_order", "commands", ["tenant_id", "order_id", "received_at"])


def downgrade() -> None:
    op.drop_table("commands")
