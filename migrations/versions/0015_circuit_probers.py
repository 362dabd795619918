"""Who opened or probed a circuit, and where a sender was refused. Revision: 0015, after 0014"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("circuits", sa.Column("probers", postgresql.ARRAY(sa.UUID()), nullable=True))
    op.add_column("circuits", sa.Column("refused_destinations", postgresql.ARRAY(sa.Text()), nullable=True))


def downgrade() -> None:
    op.drop_column("circuits", "refused_destinations")
    op.drop_column("circuits", "probers")
