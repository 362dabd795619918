"""Where each lane's waiting line under a rate limit ends. Revision: 0034, after 0033"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

COLUMNS = ("urgent_until", "normal_until", "bulk_until")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("rate_slots", sa.Column(name, sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_column("rate_slots", name)
