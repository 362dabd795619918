"""Which attempt a provider's message belongs to. Revision: 0012, after 0011"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Empty at first: what was sent before stands in `attempts` alone, where it is looked for, too.
    op.create_table(
        "provider_messages",
        sa.Column("id_space", sa.Text(), nullable=False),
        sa.Column("provider_message_id", sa.Text(), nullable=False),
        sa.Column("notification_id", sa.UUID(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("proof", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "proof IN ('answer', 'report', 'look_up')", name=op.f("ck_provider_messages_proof_known")
        ),
        sa.PrimaryKeyConstraint("id_space", "provider_message_id", name=op.f("pk_provider_messages")),
    )
    op.create_index("ix_provider_messages_notification_id", "provider_messages", ["notification_id"])


def downgrade() -> None:
    op.drop_table("provider_messages")
