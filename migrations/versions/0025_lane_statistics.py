"""The lane in daily counts, and how many were sent within ten seconds. Revision: 0025, after 0024"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

not_additive = "no released version counts days"

_TABLE, _KEY = "daily_statistics", "pk_daily_statistics"
_KEYS = ["day", "channel", "template", "provider", "producer", "status"]


def upgrade() -> None:
    # Days that were counted before have the lane "" until they are counted again.
    op.add_column(_TABLE, sa.Column("lane", sa.Text(), server_default="", nullable=False))
    op.alter_column(_TABLE, "lane", server_default=None)
    op.add_column(_TABLE, sa.Column("sent_within_10s", sa.BigInteger(), nullable=True))
    op.drop_constraint(_KEY, _TABLE)
    op.create_primary_key(op.f(_KEY), _TABLE, [*_KEYS, "lane"])


def downgrade() -> None:
    # The lanes of each group become one row.
    keys = ", ".join(_KEYS)
    op.drop_constraint(_KEY, _TABLE)
    op.execute(
        f"WITH gone AS (DELETE FROM {_TABLE} RETURNING *)"  # noqa: S608 - constants
        f" INSERT INTO {_TABLE} ({keys}, lane, count, sent_seconds_p95, counted_at)"
        f" SELECT {keys}, '', sum(count), max(sent_seconds_p95), max(counted_at) FROM gone GROUP BY {keys}"
    )
    op.drop_column(_TABLE, "lane")
    op.drop_column(_TABLE, "sent_within_10s")
    op.create_primary_key(op.f(_KEY), _TABLE, _KEYS)
