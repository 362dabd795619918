"""Which database this is, so that a restored one is noticed. Revision: 0017, after 0016

The row comes from `store.migrating`, after the tables.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "database_identity",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("system_identifier", sa.BigInteger(), nullable=True),
        sa.Column("timeline", sa.BigInteger(), nullable=True),
        sa.Column("database_oid", sa.BigInteger(), nullable=True),
        sa.Column("table_oid", sa.BigInteger(), nullable=True),
        sa.Column("noted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_database_identity_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_database_identity")),
    )


def downgrade() -> None:
    op.drop_table("database_identity")
