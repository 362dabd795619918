"""The hash keys that notifications were accepted under. Revision: 0020, after 0019"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "hash_keys",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("first_used_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.Column("last_used_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_hash_keys")),
    )


def downgrade() -> None:
    op.drop_table("hash_keys")
