"""Sealed values, hashes of recipients, secrets that are wiped, retention. Revision: 0009, after 0008"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

not_additive = (
    "Rows of the version before have no hash, so the new index is empty: making it reads the table once, and stops "
    "its writers for so long. The old index goes in the same step: until its programs are replaced, a search by "
    "recipient of the version before is slow. It fills the columns that may be empty now, and reads rows of this "
    "version while NOTIFIER_ENCRYPTION_KEYS and [retention] are not set. The two tables are changed in the order in "
    "which programs write them."
)


def upgrade() -> None:
    op.add_column("notifications", sa.Column("address_hash", sa.LargeBinary(), nullable=True))
    op.add_column("notifications", sa.Column("sealed", sa.LargeBinary(), nullable=True))
    op.add_column("notifications", sa.Column("secrets", sa.LargeBinary(), nullable=True))
    op.add_column("notifications", sa.Column("secret_names", postgresql.ARRAY(sa.Text()), nullable=True))
    for column in ("recipient", "address", "context"):
        op.alter_column("notifications", column, nullable=True)
    op.drop_index("ix_notifications_address_id", "notifications")
    op.create_index(
        "ix_notifications_address_hash_id",
        "notifications",
        ["address_hash", "id"],
        postgresql_where=sa.text("address_hash IS NOT NULL"),
    )
    op.add_column("rejected_messages", sa.Column("sealed", sa.LargeBinary(), nullable=True))
    op.create_table(
        "retention_marks",
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("reached", sa.UUID(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("task", name=op.f("pk_retention_marks")),
    )


def downgrade() -> None:
    # What is sealed or redacted has no recipient any more: it cannot go back, and the columns refuse it.
    op.drop_table("retention_marks")
    op.drop_column("rejected_messages", "sealed")
    op.drop_index("ix_notifications_address_hash_id", "notifications")
    op.create_index("ix_notifications_address_id", "notifications", ["address", "id"])
    for column in ("recipient", "address", "context"):
        op.alter_column("notifications", column, nullable=False)
    for column in ("secret_names", "secrets", "sealed", "address_hash"):
        op.drop_column("notifications", column)
