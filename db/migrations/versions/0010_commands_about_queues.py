"""A command may be about the attention queue or the dead letters instead of one order, and says what it moved.

Safe while workers run: only the catalogue changes. Workers of the release before set such a command aside as a dead
letter, so dashboards and command lines follow after the workers.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("commands", "order_id", nullable=True)
    op.alter_column("commands", "tenant_id", comment="empty: of no tenant alone")
    moved = sa.Column("moved", JSONB, comment="ids of the attentions or letters it was carried out on")
    op.add_column("commands", moved)


def downgrade() -> None:
    op.drop_column("commands", "moved")
    op.execute("delete from commands where order_id is null")
    op.alter_column("commands", "order_id", nullable=False)
    op.alter_column("commands", "tenant_id", comment=None)
