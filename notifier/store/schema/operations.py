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
    """What operators set for one provider. One without a row is in use, with the weight of notifier.toml."""

    __tablename__ = "provider_states"

    #: As in notifier.toml.
    provider: Mapped[str] = mapped_column(primary_key=True)
    paused: Mapped[bool] = mapped_column(server_default=text("false"))
    #: Instead of the configured one.
    weight: Mapped[int | None] = mapped_column(Integer)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Circuit(Base):
    """Whether a provider is called, for anybody or for one sender; shared by all workers."""

    __tablename__ = "circuits"

    #: As in notifier.toml.
    provider: Mapped[str] = mapped_column(primary_key=True)
    #: Name of the sender identity whose messages are held back there; "": the provider's own circuit.
    sender: Mapped[str] = mapped_column(primary_key=True)
    #: Open until then, then one probe at a time; None: closed.
    open_until: Mapped[datetime | None]
    #: Since when no message got through.
    opened_at: Mapped[datetime | None]
    #: Why it opened.
    reason: Mapped[str | None]
    detail: Mapped[str | None]
    #: Openings without a success between them: each doubles the pause.
    openings: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: A probe is under way until then.
    probe_until: Mapped[datetime | None]
    #: The notification that opened it, or probed it last.
    probed_by: Mapped[UUID | None]
    #: Every one that did since it opened: none probes again.
    probers: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid))
    #: Messages in a row that were refused for their sender.
    refusals: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: The last of them.
    refused_id: Mapped[UUID | None]
    #: Their destinations, where the answer may be about the destination: each counts once.
    refused_destinations: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    #: When the provider last accepted a message of this sender.
    accepted_at: Mapped[datetime | None]
    #: When it closed: what calls came to before that is forgiven.
    closed_at: Mapped[datetime | None]


class ProviderOutcome(Base):
    """Outcomes of the calls to a provider, counted in slices of ten seconds, to judge its health."""

    __tablename__ = "provider_outcomes"

    provider: Mapped[str] = mapped_column(primary_key=True)
    #: Start of the slice.
    slice_at: Mapped[datetime] = mapped_column(primary_key=True)
    outcome: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(Integer)
    #: Sum over the calls. Seconds.
    seconds: Mapped[float]


class RateSlot(Base):
    """When the next call under a rate limit may begin."""

    __tablename__ = "rate_slots"

    #: "provider:relay-a", "sender:+15550100100".
    scope: Mapped[str] = mapped_column(primary_key=True)
    next_at: Mapped[datetime]
    #: By when those that wait in this lane will have had their turns; empty: none waits.
    urgent_until: Mapped[datetime | None]
    normal_until: Mapped[datetime | None]
    bulk_until: Mapped[datetime | None]


class UsageCount(Base):
    """Use of a cap or quota, in windows of its length."""

    __tablename__ = "usage_counts"

    #: "recipient:<hash>", "prefix:+1555", "producer:shop:sms".
    scope: Mapped[str] = mapped_column(primary_key=True)
    #: Start of the window.
    window_at: Mapped[datetime] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(Integer)


class OperatorRecord(Base):
    """An action of an operator, and its result."""

    __tablename__ = "operator_records"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: A login name, or the name of an API key.
    operator: Mapped[str]
    #: "retry", "cancel", "resolve_sent", "resolve_resend", "replay_rejected", "purge_rejected", "pause", …
    action: Mapped[str]
    #: The filter or the ids.
    selection: Mapped[dict[str, Any]]
    #: In the operator's words.
    reason: Mapped[str | None]
    #: Counts.
    result: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    #: None while it is under way, or if it was interrupted.
    finished_at: Mapped[datetime | None]


class Job(Base):
    """A long action, which workers carry out: what they need beside its operator record, see `store.jobs`."""

    __tablename__ = "jobs"

    #: That of its operator record, which has the selection, the counts and the end.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(server_default=text("'waiting'"))
    #: Notifications that it selected when it was made.
    total: Mapped[int] = mapped_column(BigInteger)
    #: Everything up to this id is done.
    last_id: Mapped[UUID | None]
    #: The next retry is due then, or now if that is later.
    next_at: Mapped[datetime]
    #: A worker must take it, or take it over, then; None: it has ended.
    due_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    #: How often a worker took it. Whoever holds an earlier number has lost it.
    lease: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: When an operator asked that it stop.
    stop_asked_at: Mapped[datetime | None]
    #: Why it failed, without personal data.
    failure: Mapped[str | None]

    __table_args__ = (
        one_of("state", JobState),
        Index(None, "due_at", postgresql_where=text("due_at IS NOT NULL")),
    )


class ApiKey(Base):
    """One key of the HTTP API. Its secret is not here, only the hash of it."""

    __tablename__ = "api_keys"

    #: The part of the token that is no secret: 12 hexadecimal digits.
    id: Mapped[str] = mapped_column(primary_key=True)
    #: Its holder, in words.
    name: Mapped[str]
    #: The producer it sends and reads for; None: it is an operator's.
    producer: Mapped[str | None]
    #: What is sent with it reaches no provider, and it can read nothing else.
    is_test: Mapped[bool] = mapped_column(server_default=text("false"))
    #: Of "send", "read", "operate", "admin".
    scopes: Mapped[list[Any]]
    #: It may send on these only; None: on all.
    channels: Mapped[list[Any] | None]
    #: Patterns of names, as "order_*": it may send these templates only; None: all.
    templates: Mapped[list[Any] | None]
    #: Requests, and entries of batches, a second; None: no limit.
    rate_per_second: Mapped[float | None]
    #: SHA-256 of the secret.
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: The operator's login name.
    created_by: Mapped[str]
    #: Id of the key that it takes over from.
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
    """Notifications of one day that were alike when they were last counted, without those of test keys. A day
    without any has one row, whose words are empty and whose count is 0; a day without a row was not counted."""

    __tablename__ = "daily_statistics"

    #: Of NOTIFIER_TIMEZONE as it was when they were last counted, by the time in their ids.
    day: Mapped[date] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(primary_key=True)
    template: Mapped[str] = mapped_column(primary_key=True)
    #: Who took them, or was tried last; "": nobody.
    provider: Mapped[str] = mapped_column(primary_key=True)
    producer: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(primary_key=True)
    #: "": of a day that was counted before lanes were.
    lane: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    #: 95 % were sent within this, counted from when they were accepted or, if later, due; None: none was sent.
    sent_seconds_p95: Mapped[float | None]
    #: How many were sent within ten seconds, counted likewise; None: the day was counted before these were.
    sent_within_10s: Mapped[int | None] = mapped_column(BigInteger)
    counted_at: Mapped[datetime] = mapped_column(server_default=func.now())


class HashKeyRecord(Base):
    """A hash key that notifications were accepted under."""

    __tablename__ = "hash_keys"

    #: Tells the key from others and reveals nothing about it.
    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    first_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: Written once an hour at the most.
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UpkeepRun(Base):
    """The last runs of one step of upkeep."""

    __tablename__ = "upkeep_runs"

    #: "partitions", "retention": see docs/how-to/operate.md.
    step: Mapped[str] = mapped_column(primary_key=True)
    #: When the last run began.
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: When one last ended well; None: none has.
    last_success_at: Mapped[datetime | None]
    last_failure_at: Mapped[datetime | None]
    #: Why that one failed, without personal data.
    failure: Mapped[str | None]
    #: When an operator last asked for a run; it is due until one begins after that.
    asked_at: Mapped[datetime | None]


class DatabaseIdentity(Base):
    """Which database this is, see `store.identity`. One row, written by `notifier db upgrade` and `after-restore`.

    A column that is NULL is not compared.
    """

    __tablename__ = "database_identity"

    #: 1.
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    #: Of the cluster; NULL where it may not be asked for.
    system_identifier: Mapped[int | None] = mapped_column(BigInteger)
    #: Of its log: a new one begins with each recovery and each failover.
    timeline: Mapped[int | None] = mapped_column(BigInteger)
    database_oid: Mapped[int | None] = mapped_column(BigInteger)
    #: Of `notifications`.
    table_oid: Mapped[int | None] = mapped_column(BigInteger)
    noted_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)


class ConsoleSession(Base):
    """Somebody signed in to the console. The token of the browser's cookie is kept as a hash."""

    __tablename__ = "console_sessions"

    #: SHA-256 of the token.
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    #: The key they showed: when it ends, so does the session. None: they came from an identity provider.
    key_id: Mapped[str | None] = mapped_column(Text)
    #: Whose name is in the operator records.
    person: Mapped[str] = mapped_column(Text)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: Written once a minute.
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MinuteCount(Base):
    """What the programs counted in one minute, for charts. The record is what is true: a program that dies leaves
    its last seconds uncounted here."""

    __tablename__ = "minute_counts"

    #: Its beginning.
    minute: Mapped[datetime] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(Text, primary_key=True)
    lane: Mapped[str] = mapped_column(Text, primary_key=True)
    #: Messages, without duplicates.
    accepted: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: Sent, by how long after they were accepted: a count for each bucket of `metrics.SENT_BOUNDS`.
    sent: Mapped[list[int]] = mapped_column(ARRAY(Integer), server_default=text("'{}'"))
    #: Not ended yet when it was looked at; None: nobody looked.
    waiting: Mapped[int | None] = mapped_column(Integer)


class FailedCount(Base):
    """How many sends ended without success in one minute, as the programs counted: see `MinuteCount`."""

    __tablename__ = "failed_counts"

    #: Its beginning.
    minute: Mapped[datetime] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(Text, primary_key=True)
    reason: Mapped[str] = mapped_column(Text, primary_key=True)
    count: Mapped[int] = mapped_column(Integer)
