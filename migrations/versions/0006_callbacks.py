"""Status callbacks to producers. Revision: 0006, after 0005"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

not_additive = (
    "The triggers look at a new column, which only this version fills: for rows of the version before they do "
    "nothing, and what a program of that version does to a row of this one leaves its callback all the same."
)

_STATES = "state IN ('waiting', 'given', 'calling', 'delivered', 'parked')"

# An id is a UUIDv7, as everywhere: the milliseconds over a random UUID, and its version set to 7.
_NOTE = """
CREATE FUNCTION notifier_note_callback() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO callbacks (id, notification_id, producer, endpoint, status, reason, attempt)
  VALUES (
    encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
      PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
      FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid,
    NEW.id,
    NEW.producer,
    -- A configured endpoint is known by its producer, those of single messages by their server, too.
    coalesce(NEW.producer || ' ' || lower(substring(NEW.callback_url FROM '^[^:]+://[^/?#]+')), NEW.producer),
    NEW.status,
    NEW.reason,
    nullif(NEW.attempt_count, 0));
  RETURN NULL;
END $$
"""

_ON_ACCEPT = """
CREATE TRIGGER note_callback_of_new AFTER INSERT ON notifications FOR EACH ROW
WHEN (NEW.callback_statuses IS NOT NULL AND NEW.status = ANY (NEW.callback_statuses))
EXECUTE FUNCTION notifier_note_callback()
"""

_ON_MOVE = """
CREATE TRIGGER note_callback AFTER UPDATE OF status ON notifications FOR EACH ROW
WHEN (NEW.callback_statuses IS NOT NULL AND NEW.status = ANY (NEW.callback_statuses)
  AND NEW.status IS DISTINCT FROM OLD.status)
EXECUTE FUNCTION notifier_note_callback()
"""


def upgrade() -> None:
    op.create_table(
        "callbacks",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("notification_id", sa.UUID(), nullable=False),
        sa.Column("producer", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("begun_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempt_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("replayed_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(_STATES, name=op.f("ck_callbacks_state_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_callbacks")),
    )
    op.create_index(
        "ix_callbacks_due",
        "callbacks",
        ["endpoint", "due_at", "sequence"],
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index("ix_callbacks_notification_id_sequence", "callbacks", ["notification_id", "sequence"])
    op.create_index(
        "ix_callbacks_in_flight",
        "callbacks",
        ["endpoint"],
        postgresql_where=sa.text("state IN ('given', 'calling')"),
    )
    op.create_index(
        "ix_callbacks_parked", "callbacks", ["endpoint", "id"], postgresql_where=sa.text("state = 'parked'")
    )
    op.create_index(
        "ix_callbacks_settled_at", "callbacks", ["settled_at"], postgresql_where=sa.text("settled_at IS NOT NULL")
    )
    op.create_table(
        "callback_attempts",
        sa.Column("callback_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("callback_id", "number", name=op.f("pk_callback_attempts")),
    )
    op.create_table(
        "callback_endpoints",
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("producer", sa.Text(), nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("suspended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", name=op.f("pk_callback_endpoints")),
    )
    op.add_column("notifications", sa.Column("callback_statuses", postgresql.ARRAY(sa.Text()), nullable=True))
    op.execute(_NOTE)
    op.execute(_ON_ACCEPT)
    op.execute(_ON_MOVE)


def downgrade() -> None:
    op.execute("DROP TRIGGER note_callback ON notifications")
    op.execute("DROP TRIGGER note_callback_of_new ON notifications")
    op.execute("DROP FUNCTION notifier_note_callback()")
    op.drop_column("notifications", "callback_statuses")
    op.drop_table("callback_endpoints")
    op.drop_table("callback_attempts")
    op.drop_table("callbacks")
