"""Past runs of recurring notifications. Revision: 0028, after 0027"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "recurring_runs",
        sa.Column("recurring_id", sa.UUID(), nullable=False),
        sa.Column("run_at", moment, nullable=False),
        sa.Column("by_hand", sa.Boolean(), nullable=False),
        sa.Column("finished_at", moment, nullable=False),
        sa.Column("accepted", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("recurring_id", "run_at", name=op.f("pk_recurring_runs")),
        sa.ForeignKeyConstraint(
            ["recurring_id"],
            ["recurring_notifications.id"],
            name=op.f("fk_recurring_runs_recurring_id_recurring_notifications"),
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    op.drop_table("recurring_runs")
