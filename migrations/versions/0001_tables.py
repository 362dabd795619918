"""The tables of the first release. Revision: 0001, the first one"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_PARTITIONED = ("messages", "attempts", "events")

# The id is a UUIDv7, as everywhere: a random UUID that begins with the milliseconds and has the version 7.
_NOTE = """
CREATE FUNCTION notifier_note_callback() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO callbacks (id, notification_id, producer, endpoint, status, reason, attempt)
  SELECT
    encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
      PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
      FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid,
    NEW.id,
    m.producer,
    -- A configured endpoint is known by its producer, those of single messages by their server, too.
    coalesce(m.producer || ' ' || lower(substring(m.callback_url FROM '^[^:]+://[^/?#]+')), m.producer),
    NEW.status,
    NEW.reason,
    nullif(NEW.attempt_count, 0)
  FROM messages AS m WHERE m.id = NEW.id;
  RETURN NULL;
END $$
"""

_ON_ACCEPT = """
CREATE TRIGGER note_callback_of_new AFTER INSERT ON states FOR EACH ROW
WHEN (NEW.callback_statuses IS NOT NULL AND NEW.status = ANY (NEW.callback_statuses))
EXECUTE FUNCTION notifier_note_callback()
"""

_ON_MOVE = """
CREATE TRIGGER note_callback AFTER UPDATE OF status ON states FOR EACH ROW
WHEN (NEW.callback_statuses IS NOT NULL AND NEW.status = ANY (NEW.callback_statuses)
  AND NEW.status IS DISTINCT FROM OLD.status)
EXECUTE FUNCTION notifier_note_callback()
"""

# For people. Programs use the two tables.
_NOTIFICATIONS = """
CREATE VIEW notifications AS
SELECT m.id, m.producer, m.idempotency_key, m.channel, m.lane, m.recipient, m.address, m.address_hash, m.template,
  coalesce(s.sent_version, m.template_version) AS template_version, m.locale, m.context, m.sealed, m.secrets,
  m.secret_names, m.sender, m.reply_to, m.reference, m.metadata, m.send_at, m.expires_at, m.callback_url,
  s.callback_statuses, m.on_unknown, s.status, s.reason, s.detail, s.due_at, s.claim, s.claim_token,
  s.confirmed_claim, s.crash_count, s.replayed_at, s.replayed_attempts, s.attempt_count, s.provider,
  s.provider_message_id, m.accepted_at, s.updated_at, s.sent_at, m.attachments, s.is_test, m.proof
FROM messages AS m JOIN states AS s ON s.id = m.id
"""


def upgrade() -> None:
    _create_notifications()
    _create_callbacks()
    _create_feedback()
    _create_providers()
    _create_operations()
    # Ids outside all months go here, so that an insert never fails for lack of a partition.
    for table in _PARTITIONED:
        op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
    # Triggers come after the tables that they read and write.
    op.execute(_NOTE)
    op.execute(_ON_ACCEPT)
    op.execute(_ON_MOVE)
    op.execute(_NOTIFICATIONS)


def _create_notifications() -> None:
    op.create_table(
        "messages",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("producer", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("address_hash", sa.LargeBinary(), nullable=True),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("template_version", sa.Text(), nullable=False),
        sa.Column("locale", sa.Text(), nullable=True),
        sa.Column("context", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("secrets", sa.LargeBinary(), nullable=True),
        sa.Column("secret_names", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("sender", sa.Text(), nullable=True),
        sa.Column("reply_to", sa.Text(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column(
            "metadata", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("send_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("callback_url", sa.Text(), nullable=True),
        sa.Column("on_unknown", sa.Text(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attachments", postgresql.ARRAY(sa.UUID()), nullable=True),
        sa.Column("proof", sa.Text(), nullable=True),
        sa.CheckConstraint("channel IN ('email', 'sms')", name=op.f("ck_messages_channel_known")),
        sa.CheckConstraint("lane IN ('urgent', 'normal', 'bulk')", name=op.f("ck_messages_lane_known")),
        sa.CheckConstraint("on_unknown IN ('resend', 'hold')", name=op.f("ck_messages_on_unknown_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        postgresql_partition_by="RANGE (id)",
    )
    op.create_index("ix_messages_producer_id", "messages", ["producer", "id"])
    op.create_index("ix_messages_template_id", "messages", ["template", "id"])
    op.create_index(
        "ix_messages_reference_id",
        "messages",
        ["reference", "id"],
        postgresql_where=sa.text("reference IS NOT NULL"),
    )
    op.create_index(
        "ix_messages_address_hash_id",
        "messages",
        ["address_hash", "id"],
        postgresql_where=sa.text("address_hash IS NOT NULL"),
    )
    op.create_table(
        "states",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("replayed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claim_token", sa.UUID(), nullable=True),
        sa.Column("claim", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("confirmed_claim", sa.Integer(), nullable=True),
        sa.Column("crash_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempt_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("replayed_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("is_test", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("has_secrets", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("provider_message_id", sa.Text(), nullable=True),
        sa.Column("sent_version", sa.Text(), nullable=True),
        sa.Column("callback_statuses", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.CheckConstraint(
            "status IN ('scheduled', 'queued', 'sending', 'retrying', 'unknown', 'sent', 'delivered', 'undelivered', 'failed', 'expired', 'cancelled', 'suppressed')",
            name=op.f("ck_states_status_known"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_states")),
        postgresql_with={"autovacuum_vacuum_scale_factor": "0.02"},
    )
    op.create_index("ix_states_due_at", "states", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL"))
    op.create_index(
        "ix_states_status_id",
        "states",
        ["status", "id"],
        postgresql_where=sa.text("status NOT IN ('queued', 'sending', 'sent', 'delivered')"),
    )
    op.create_table(
        "attempts",
        sa.Column("notification_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("provider_message_id", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('accepted', 'rejected', 'throttled', 'unavailable', 'unknown')",
            name=op.f("ck_attempts_outcome_known"),
        ),
        sa.PrimaryKeyConstraint("notification_id", "number", name=op.f("pk_attempts")),
        postgresql_partition_by="RANGE (notification_id)",
    )
    op.create_table(
        "events",
        sa.Column("notification_id", sa.UUID(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("notification_id", "id", name=op.f("pk_events")),
        postgresql_partition_by="RANGE (notification_id)",
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("producer", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("notification_id", sa.UUID(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("producer", "key", name=op.f("pk_idempotency_keys")),
    )
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
    op.create_table(
        "rejected_messages",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("producer", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_size", sa.BigInteger(), nullable=False),
        sa.Column("entry", sa.Integer(), nullable=True),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("faults", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("redelivered", sa.Boolean(), nullable=False),
        sa.Column("replayed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("broker_user", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejected_messages")),
    )
    op.create_index("ix_rejected_messages_received_at", "rejected_messages", ["received_at"])


def _create_callbacks() -> None:
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
        sa.CheckConstraint(
            "state IN ('waiting', 'given', 'calling', 'delivered', 'parked')",
            name=op.f("ck_callbacks_state_known"),
        ),
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


def _create_feedback() -> None:
    op.create_table(
        "suppressions",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("address_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash_key", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("notification_id", sa.UUID(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lifted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lifted_by", sa.Text(), nullable=True),
        sa.Column("lifted_detail", sa.Text(), nullable=True),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("sender", sa.Text(), nullable=True),
        sa.CheckConstraint("channel IN ('email', 'sms')", name=op.f("ck_suppressions_channel_known")),
        sa.CheckConstraint(
            "reason IN ('hard_bounce', 'invalid_recipient', 'opted_out', 'complaint', 'unsubscribed', 'manual')",
            name=op.f("ck_suppressions_reason_known"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suppressions")),
    )
    op.create_index(
        "uq_suppressions_address_hash",
        "suppressions",
        ["address_hash", "scope", "reason"],
        unique=True,
        postgresql_where=sa.text("lifted_at IS NULL"),
    )
    op.create_index("ix_suppressions_address_hash_id", "suppressions", ["address_hash", "id"])
    op.create_index("ix_suppressions_hash_key", "suppressions", ["hash_key"])
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
        "uq_held_suppressions_address_hash", "held_suppressions", ["address_hash", "scope", "reason"], unique=True
    )
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


def _create_providers() -> None:
    op.create_table(
        "provider_states",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("provider", name=op.f("pk_provider_states")),
    )
    op.create_table(
        "provider_outcomes",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("slice_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "slice_at", "outcome", name=op.f("pk_provider_outcomes")),
    )
    op.create_table(
        "circuits",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("openings", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("probe_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probed_by", sa.UUID(), nullable=True),
        sa.Column("refusals", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("refused_id", sa.UUID(), nullable=True),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probers", postgresql.ARRAY(sa.UUID()), nullable=True),
        sa.Column("refused_destinations", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("provider", "sender", name=op.f("pk_circuits")),
    )
    op.create_table(
        "rate_slots",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_rate_slots")),
    )
    op.create_table(
        "usage_counts",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("window_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "window_at", name=op.f("pk_usage_counts")),
    )


def _create_operations() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("producer", sa.Text(), nullable=True),
        sa.Column("scopes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("channels", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("templates", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("rate_per_second", sa.Double(), nullable=True),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("rotated_from", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_test", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_table(
        "attachments",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("producer", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("uploaded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("needed_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attachments")),
    )
    op.create_index(
        "uq_attachments_producer_sha256",
        "attachments",
        ["producer", "sha256", "name", "content_type"],
        unique=True,
    )
    op.create_table(
        "operator_records",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("operator", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("selection", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column(
            "result", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_records")),
    )
    op.create_table(
        "retention_marks",
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("reached", sa.UUID(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("task", name=op.f("pk_retention_marks")),
    )
    op.create_table(
        "upkeep_runs",
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_success_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_failure_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("step", name=op.f("pk_upkeep_runs")),
    )
    op.create_table(
        "database_identity",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("system_identifier", sa.BigInteger(), nullable=True),
        sa.Column("timeline", sa.BigInteger(), nullable=True),
        sa.Column("database_oid", sa.BigInteger(), nullable=True),
        sa.Column("table_oid", sa.BigInteger(), nullable=True),
        sa.Column("noted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_database_identity_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_database_identity")),
    )


def downgrade() -> None:
    for table in (
        "database_identity",
        "upkeep_runs",
        "retention_marks",
        "operator_records",
        "attachments",
        "api_keys",
        "usage_counts",
        "rate_slots",
        "circuits",
        "provider_outcomes",
        "provider_states",
        "unread_bounces",
        "bounce_alarms",
        "hard_bounces",
        "held_suppressions",
        "suppressions",
        "callback_endpoints",
        "callback_attempts",
        "callbacks",
        "rejected_messages",
        "provider_messages",
        "idempotency_keys",
        "events",
        "attempts",
        "notifications",
    ):
        op.drop_table(table)
    op.execute("DROP FUNCTION notifier_note_callback()")
