"""Recurring notifications and their recipients. Revision: 0024, after 0023"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment, json = sa.DateTime(timezone=True), postgresql.JSONB()
    count = {"server_default": sa.text("0"), "nullable": False}
    op.create_table(
        "recurring_notifications",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("producer", sa.Text(), nullable=False),
        sa.Column("is_test", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("until", moment, nullable=True),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("locale", sa.Text(), nullable=True),
        sa.Column("sender", sa.Text(), nullable=True),
        sa.Column("context", json, nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.Column("paused_at", moment, nullable=True),
        sa.Column("next_at", moment, nullable=True),
        sa.Column("run_at", moment, nullable=True),
        sa.Column("run_by_hand", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("run_position", sa.Integer(), **count),
        sa.Column("run_accepted", sa.Integer(), **count),
        sa.Column("run_refused", sa.Integer(), **count),
        sa.Column("run_faults", json, server_default=sa.text("'[]'"), nullable=False),
        sa.Column("run_moved_at", moment, nullable=True),
        sa.Column("run_finished_at", moment, nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("claim_token", sa.UUID(), nullable=True),
        sa.Column("leased_until", moment, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recurring_notifications")),
        sa.UniqueConstraint(
            "producer", "is_test", "name", name=op.f("uq_recurring_notifications_producer_is_test_name")
        ),
    )
    op.create_table(
        "recurring_recipients",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("recurring_id", sa.UUID(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=True),
        sa.Column("address_hash", sa.LargeBinary(), nullable=False),
        sa.Column("context", json, nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("locale", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recurring_recipients")),
        sa.ForeignKeyConstraint(
            ["recurring_id"],
            ["recurring_notifications.id"],
            name=op.f("fk_recurring_recipients_recurring_id_recurring_notifications"),
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint(
            "recurring_id", "position", name=op.f("uq_recurring_recipients_recurring_id_position")
        ),
        sa.UniqueConstraint(
            "recurring_id", "address_hash", name=op.f("uq_recurring_recipients_recurring_id_address_hash")
        ),
    )
    op.create_index("ix_recurring_recipients_address_hash", "recurring_recipients", ["address_hash"])


def downgrade() -> None:
    op.drop_table("recurring_recipients")
    op.drop_table("recurring_notifications")
