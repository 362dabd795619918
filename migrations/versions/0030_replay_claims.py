"""Which replay holds a rejected message. Revision: 0030, after 0029"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rejected_messages", sa.Column("replay_id", sa.Uuid(), nullable=True))
    op.add_column("rejected_messages", sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("rejected_messages", "claimed_at")
    op.drop_column("rejected_messages", "replay_id")
