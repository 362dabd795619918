"""An index that finds the callbacks that are due among many endpoints. Revision: 0031, after 0030"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None
not_additive = (
    "Writers of callbacks wait while the index is built. It holds what waits, and the build reads the table once: less "
    "than a second for a million callbacks."
)


def upgrade() -> None:
    op.create_index(
        op.f("ix_callbacks_due_at"),
        "callbacks",
        ["due_at"],
        postgresql_where=sa.text("due_at IS NOT NULL AND sequence > 0"),
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_callbacks_due_at"), table_name="callbacks")
