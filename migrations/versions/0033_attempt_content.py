"""The template version and the sender's address of each attempt. Revision: 0033, after 0032"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("template_version", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("sender_address", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "sender_address")
    op.drop_column("attempts", "template_version")
