"""The tables that are not about one message: providers, limits, operators, keys, retention."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Index, Integer, LargeBinary, Text, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column

from notifier.domain.statuses import JobState
from notifier.store.schema.base import Base, one_of


class ProviderState(Base):
    """What operators set for a provider. A provider without a row is in use, with the weight of notifier.toml."""

    __tablename__ = "provider_states"

    #: The name in notifier.toml.
    provider: Mapped[str] = mapped_column(primary_key=True)
    paused: Mapped[bool] = mapped_column(server_default=text("false"))
    #: Replaces the configured weight. None: the configured one is used.
    weight: Mapped[int | None] = mapped_column(Integer)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Circuit(Base):
    """Whether a provider is called, in general or for one sender; shared by all workers."""

    __tablename__ = "circuits"

    #: The name in notifier.toml.
    provider: Mapped[str] = mapped_column(primary_key=True)
    #: The sender identity whose messages are held back there. "": this is the provider's own circuit.
    sender: Mapped[str] = mapped_column(primary_key=True)
    #: Open until then, then one probe at a time. None: closed.
    open_until: Mapped[datetime | None]
    #: Since when no message has got through.
    opened_at: Mapped[datetime | None]
    #: Why it opened.
    reason: Mapped[str | None]
    detail: Mapped[str | None]
    #: Number of openings without a success in between. Each doubles the pause.
    openings: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: A probe is under way until then.
    probe_until: Mapped[datetime | None]
    #: The notification that opened it, or that probed it last.
    probed_by: Mapped[UUID | None]
    #: All notifications that have opened or probed it since it opened: none of them probes again.
    probers: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid))
    #: Number of messages in a row that were refused for their sender.
    refusals: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: The last of these messages.
    refused_id: Mapped[UUID | None]
    #: Destinations of these messages, if the answer may be about the destination. Each counts once.
    refused_destinations: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    #: When the provider last accepted a message of this sender.
    accepted_at: Mapped[datetime | None]
    #: When it closed. Outcomes of calls before that no longer count.
    closed_at: Mapped[datetime | None]


class ProviderOutcome(Base):
    """Outcomes of the calls to a provider, counted in slices of ten seconds, to judge its health."""

    __tablename__ = "provider_outcomes"

    provider: Mapped[str] = mapped_column(primary_key=True)
    #: Start of the slice.
    slice_at: Mapped[datetime] = mapped_column(primary_key=True)
    outcome: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(Integer)
    #: Total duration of the calls. Seconds.
    seconds: Mapped[float]


class RateSlot(Base):
    """When the next call under a rate limit may begin."""

    __tablename__ = "rate_slots"

    #: "provider:relay-a", "sender:+15550100100".
    scope: Mapped[str] = mapped_column(primary_key=True)
    next_at: Mapped[datetime]
    #: When all that wait in this lane will have had their turns. None: none waits.
    urgent_until: Mapped[datetime | None]
    normal_until: Mapped[datetime | None]
    bulk_until: Mapped[datetime | None]


class UsageCount(Base):
    """How much of a cap or quota is used, in windows of its length."""

    __tablename__ = "usage_counts"

    #: "recipient:<hash>", "prefix:+1555", "producer:shop:sms".
    scope: Mapped[str] = mapped_column(primary_key=True)
    #: Start of the window.
    window_at: Mapped[datetime] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(Integer)


class OperatorRecord(Base):
    """An action of an operator and its result."""

    __tablename__ = "operator_records"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: A login name, or the name of an API key.
    operator: Mapped[str]
    #: "retry", "cancel", "resolve_sent", "resolve_resend", "replay_rejected", "purge_rejected", "pause", …
    action: Mapped[str]
    #: The filter or the ids.
    selection: Mapped[dict[str, Any]]
    #: The reason in the operator's own words.
    reason: Mapped[str | None]
    #: Counts, see `ActionCounts`.
    result: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    #: None while the action runs, or if it was interrupted.
    finished_at: Mapped[datetime | None]


class Job(Base):
    """A long action that workers carry out: what they need beside its operator record, see `store.jobs`."""

    __tablename__ = "jobs"

    #: The id of its operator record, which has the selection, the counts and the end.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(server_default=text("'waiting'"))
    #: Notifications that it selected when it was made.
    total: Mapped[int] = mapped_column(BigInteger)
    #: Everything up to this id is done.
    last_id: Mapped[UUID | None]
    #: When the next retry is due; now, if that is later.
    next_at: Mapped[datetime]
    #: When a worker must take it, or take it over. None: it has ended.
    due_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    #: How often a worker took it. A worker that holds an earlier number has lost it.
    lease: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: When an operator asked to stop it.
    stop_asked_at: Mapped[datetime | None]
    #: Why it failed, without personal data.
    failure: Mapped[str | None]

    __table_args__ = (
        one_of("state", JobState),
        Index(None, "due_at", postgresql_where=text("due_at IS NOT NULL")),
    )


class ApiKey(Base):
    """One key of the HTTP API. Its secret is not here, only the hash of the secret."""

    __tablename__ = "api_keys"

    #: The part of the token that is not secret: 12 hexadecimal digits.
    id: Mapped[str] = mapped_column(primary_key=True)
    #: Who holds it, in words.
    name: Mapped[str]
    #: The producer that it sends and reads for. None: it is an operator's key.
    producer: Mapped[str | None]
    #: A test key: what it sends reaches no provider, and it can read nothing else.
    is_test: Mapped[bool] = mapped_column(server_default=text("false"))
    #: Some of "send", "read", "operate", "admin".
    scopes: Mapped[list[Any]]
    #: The channels that it may send on. None: all.
    channels: Mapped[list[Any] | None]
    #: Patterns of the names of templates that it may send, as "order_*". None: all.
    templates: Mapped[list[Any] | None]
    #: Maximum requests and entries of batches in a second. None: no limit.
    rate_per_second: Mapped[float | None]
    #: SHA-256 of the secret.
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: The operator's login name.
    created_by: Mapped[str]
    #: Id of the key that it replaces.
    rotated_from: Mapped[str | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    #: To the minute.
    last_used_at: Mapped[datetime | None]


class RetentionMark(Base):
    """How far a task of retention has come: what lies before need not be looked at again."""

    __tablename__ = "retention_marks"

    #: "redact:email", "delete:sms".
    task: Mapped[str] = mapped_column(primary_key=True)
    #: Everything with a smaller id is done.
    reached: Mapped[UUID]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DailyStatistic(Base):
    """Numbers of notifications of one day that were alike when they were last counted, without those of test keys.
    A day without notifications has one row, with empty words and the count 0. A day without a row was not
    counted."""

    __tablename__ = "daily_statistics"

    #: The day in NOTIFIER_TIMEZONE, as that was at the last count, by the times in the ids.
    day: Mapped[date] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(primary_key=True)
    template: Mapped[str] = mapped_column(primary_key=True)
    #: The provider that took them, or was tried last. "": none was called.
    provider: Mapped[str] = mapped_column(primary_key=True)
    producer: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(primary_key=True)
    #: "": the day was counted before lanes were.
    lane: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    #: 95 % were sent within this time after they were accepted or, if later, due. None: none was sent.
    sent_seconds_p95: Mapped[float | None]
    #: How many were sent within ten seconds, counted in the same way. None: the day was counted before these were.
    sent_within_10s: Mapped[int | None] = mapped_column(BigInteger)
    counted_at: Mapped[datetime] = mapped_column(server_default=func.now())


class HashKeyRecord(Base):
    """A hash key under which notifications were accepted."""

    __tablename__ = "hash_keys"

    #: Distinguishes the key from others without revealing anything about it.
    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    first_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: Written at most once an hour.
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UpkeepRun(Base):
    """The last runs of one step of upkeep."""

    __tablename__ = "upkeep_runs"

    #: "partitions", "retention": see docs/how-to/operate.md.
    step: Mapped[str] = mapped_column(primary_key=True)
    #: When the last run began.
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: When a run last succeeded. None: none has.
    last_success_at: Mapped[datetime | None]
    last_failure_at: Mapped[datetime | None]
    #: Why that run failed, without personal data.
    failure: Mapped[str | None]
    #: When an operator last asked for a run. The step is due until a run begins after that.
    asked_at: Mapped[datetime | None]


class DatabaseIdentity(Base):
    """Which database this is, see `store.identity`. One row, written by `notifier db upgrade` and `after-restore`.

    A column that is NULL is not compared.
    """

    __tablename__ = "database_identity"

    #: Always 1.
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    #: Identifier of the cluster. NULL: our role may not ask for it.
    system_identifier: Mapped[int | None] = mapped_column(BigInteger)
    #: Timeline of its log. Each recovery and each failover begins a new one.
    timeline: Mapped[int | None] = mapped_column(BigInteger)
    database_oid: Mapped[int | None] = mapped_column(BigInteger)
    #: The oid of the table `messages`.
    table_oid: Mapped[int | None] = mapped_column(BigInteger)
    noted_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)


class ConsoleSession(Base):
    """Somebody who is signed in to the console. The token in the browser's cookie is kept only as a hash."""

    __tablename__ = "console_sessions"

    #: SHA-256 of the token.
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    #: The key that the person showed: when the key ends, so does the session. None: they came from an identity
    #: provider.
    key_id: Mapped[str | None] = mapped_column(Text)
    #: The name in the operator records.
    person: Mapped[str] = mapped_column(Text)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: Time of the last use. Written once a minute.
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MinuteCount(Base):
    """What the programs counted in one minute, for charts. Only the record is exact: a program that dies leaves
    its last seconds uncounted here."""

    __tablename__ = "minute_counts"

    #: The beginning of the minute.
    minute: Mapped[datetime] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(Text, primary_key=True)
    lane: Mapped[str] = mapped_column(Text, primary_key=True)
    #: Number of messages, without duplicates.
    accepted: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: Numbers of sent messages by the time since they were accepted: one for each bucket of `metrics.SENT_BOUNDS`.
    sent: Mapped[list[int]] = mapped_column(ARRAY(Integer), server_default=text("'{}'"))
    #: Number that had not ended when somebody looked. None: nobody looked.
    waiting: Mapped[int | None] = mapped_column(Integer)


class FailedCount(Base):
    """How many sends ended without success in one minute, as the programs counted: see `MinuteCount`."""

    __tablename__ = "failed_counts"

    #: The beginning of the minute.
    minute: Mapped[datetime] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(Text, primary_key=True)
    reason: Mapped[str] = mapped_column(Text, primary_key=True)
    count: Mapped[int] = mapped_column(Integer)
