"""Command ids belong to their tenant, callbacks and orders over HTTP are told apart, dead letters are found by key.

Safe while workers run: the new key of commands is built in moments, and workers of the release before can use it. The
index on dead letters is a hash: what was set aside may have a key of any length.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint("commands_pkey", "commands")
    op.create_primary_key("commands_pkey", "commands", ["command_id", "tenant_id"])
    op.create_index("idx_dead_letters_key", "dead_letters", ["key"], postgresql_using="hash")
    op.add_column("submissions", sa.Column("fingerprint", sa.Text, comment="of what was ordered"))
    op.create_index("idx_submissions_order", "submissions", ["tenant_id", "order_id"])
    op.create_table(
        "callbacks",
        sa.Column("integration_id", sa.Text, primary_key=True),
        sa.Column("number", sa.Text, primary_key=True, comment="webhook-id of the provider"),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    op.create_index("idx_callbacks_at", "callbacks", ["at"])


def downgrade() -> None:
    op.drop_table("callbacks")
    op.drop_index("idx_submissions_order", "submissions")
    op.drop_column("submissions", "fingerprint")
    op.drop_index("idx_dead_letters_key", "dead_letters")
    op.drop_constraint("commands_pkey", "commands")
    op.execute(
        "delete from commands c using commands d where c.command_id = d.command_id"
        " and (c.received_at, c.tenant_id) > (d.received_at, d.tenant_id)"
    )
    op.create_primary_key("commands_pkey", "commands", ["command_id"])
