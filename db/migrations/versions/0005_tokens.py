"""Tokens of the HTTP API, and the orders that came in over it.

Safe while workers run: it only creates. Down ends every token.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, comment="who or what has it; the actor of its acts"),
        sa.Column("hash", sa.Text, nullable=False, comment="sha256 of the token"),
        sa.Column("scopes", ARRAY(sa.Text), nullable=False),
        sa.Column("tenant_id", sa.Text, comment="null: all tenants"),
        sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("expires_at", INSTANT),
        sa.Column("revoked_at", INSTANT),
        sa.Column("revoked_by", sa.Text),
        sa.Column("last_used_at", INSTANT, comment="to the minute"),
    )
    op.create_table(
        "submissions",
        sa.Column("owner", sa.Text, primary_key=True, comment="tenant of the token, or * for a token of all tenants"),
        sa.Column("key", sa.Text, primary_key=True, comment="the caller's Idempotency-Key"),
        sa.Column("digest", sa.Text, nullable=False, comment="sha256 of the request: tells repeat from clash"),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("order_id", sa.Text, nullable=False),
        sa.Column("at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("accepted_at", INSTANT, comment="the broker acknowledged the event"),
    )
    op.create_index("idx_submissions_at", "submissions", ["at"])


def downgrade() -> None:
    op.drop_table("submissions")
    op.drop_table("tokens")
