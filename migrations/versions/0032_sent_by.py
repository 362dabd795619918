"""Which key, broker user or operator sent a message. Revision: 0032, after 0031"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None
not_additive = (
    "The view is replaced by itself with one column more at its end: it keeps its grants, and no program reads it."
)

_VIEW = """
CREATE {replace} VIEW notifications AS
SELECT m.id, m.producer, m.idempotency_key, m.channel, m.lane, m.recipient, m.address, m.address_hash, m.template,
  coalesce(s.sent_version, m.template_version) AS template_version, m.locale, m.context, m.sealed, m.secrets,
  m.secret_names, m.sender, m.reply_to, m.reference, m.metadata, m.send_at, m.expires_at, m.callback_url,
  s.callback_statuses, m.on_unknown, s.status, s.reason, s.detail, s.due_at, s.claim, s.claim_token,
  s.confirmed_claim, s.crash_count, s.replayed_at, s.replayed_attempts, s.attempt_count, s.provider,
  s.provider_message_id, m.accepted_at, s.updated_at, s.sent_at, m.attachments, s.is_test, m.proof{more}
FROM messages AS m JOIN states AS s ON s.id = m.id
"""


def upgrade() -> None:
    op.add_column("messages", sa.Column("sent_by", sa.Text(), nullable=True))
    op.execute(_VIEW.format(replace="OR REPLACE", more=", m.sent_by"))


def downgrade() -> None:
    # A view cannot lose a column, so it is made again; the next deploy/postgres/rights.sql grants rights on it.
    op.execute("DROP VIEW notifications")
    op.execute(_VIEW.format(replace="", more=""))
    op.drop_column("messages", "sent_by")
