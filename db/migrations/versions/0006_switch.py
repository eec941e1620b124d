"""Who switched an integration off by hand, and why.

Safe while workers run: a column without a default is added at once. Down forgets the switch; the integration stays off
until the next import.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("integrations", sa.Column("switched_off", JSONB, comment="by hand: by, reason"))


def downgrade() -> None:
    op.drop_column("integrations", "switched_off")
