"""What each worker is doing, told by itself every few seconds.

Safe while workers run: it only creates. Down drops it; nothing decides by it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "worker_state",
        sa.Column("worker", sa.Text, primary_key=True, comment="host:pid"),
        sa.Column(
            "at", sa.DateTime(timezone=True), nullable=False, comment="last sign of life, by the database's clock"
        ),
        sa.Column(
            "doc", JSONB, nullable=False, comment="what it is doing, see db/control/worker_heartbeats.py; no secret"
        ),
    )


def downgrade() -> None:
    op.drop_table("worker_state")
