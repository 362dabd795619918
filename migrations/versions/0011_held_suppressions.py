"""Suppressions that a mass alarm holds back, bounces that nothing could read. Revision: 0011, after 0010"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("suppressions", sa.Column("provider", sa.Text(), nullable=True))
    op.add_column("suppressions", sa.Column("sender", sa.Text(), nullable=True))
    op.create_table(
        "hard_bounces",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "minute", name=op.f("pk_hard_bounces")),
    )
    op.create_table(
        "bounce_alarms",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("bounced", sa.Integer(), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_bounce_alarms")),
    )
    op.create_table(
        "held_suppressions",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("address_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash_key", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("notification_id", sa.UUID(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("sender", sa.Text(), nullable=True),
        sa.Column("held_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_held_suppressions")),
    )
    op.create_index(
        "uq_held_suppressions_address_hash",
        "held_suppressions",
        ["address_hash", "scope", "reason"],
        unique=True,
    )
    op.create_table(
        "unread_bounces",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("notification_id", sa.UUID(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_unread_bounces")),
    )
    op.create_index(
        "uq_unread_bounces_notification_id", "unread_bounces", ["notification_id", "digest"], unique=True
    )


def downgrade() -> None:
    op.drop_table("unread_bounces")
    op.drop_table("held_suppressions")
    op.drop_table("bounce_alarms")
    op.drop_table("hard_bounces")
    op.drop_column("suppressions", "sender")
    op.drop_column("suppressions", "provider")
