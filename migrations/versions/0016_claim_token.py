"""Whose claim it is, and whether its worker heard of it. Revision: 0016, after 0015"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("notifications", sa.Column("claim_token", sa.UUID(), nullable=True))
    op.add_column("notifications", sa.Column("confirmed_claim", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("notifications", "confirmed_claim")
    op.drop_column("notifications", "claim_token")
