"""Makes a past: fills a database with notifications, as if the service had run for a year.

Each month is filled as a separate table and becomes a partition when it is complete. Its indexes are built at once
instead of row by row, which is ten times as fast. The contents are what the service itself would have written:
statuses, attempts, events and keys that belong together.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg import sql

from notifier.security.recipient_hash import PUBLIC_KEY
from notifier.store.schema.partitions import PARTITIONED, first_id, month_after

MONTHS = 12
#: Notifications for each recipient, on average.
PER_RECIPIENT = 12
#: Nothing in the past is younger, so that measurements have this time to themselves. Hours.
_HOURS_AGO = 1
#: There is one of each, for searches for something rare.
RARE_PRODUCER, RARE_TEMPLATE = "museum", "annual_report"
_RARE_EVERY = 50_000
#: Months that are filled concurrently.
_CONNECTIONS = 2

# A notification's number decides everything about it, so the past is the same each time.
_PAST = """
CREATE TEMPORARY TABLE past ON COMMIT DROP AS SELECT id,
  CASE WHEN n %% {rare} = 0 THEN {rare_producer} ELSE (ARRAY['shop', 'billing', 'accounts', 'tickets', 'press'])[1 + d %% 5] END
    AS producer,
  CASE WHEN d %% 10 < 7 THEN 'key-' || n END AS idempotency_key, channel,
  CASE WHEN d %% 20 = 0 THEN 'urgent' WHEN d %% 20 < 12 THEN 'normal' ELSE 'bulk' END AS lane,
  CASE WHEN channel = 'sms' THEN address ELSE 'Person ' || person || ' <' || address || '>' END AS recipient, address,
  sha256({outer}::bytea || sha256({inner}::bytea
    || convert_to('recipient', 'UTF8') || '\\x00' || convert_to(channel, 'UTF8') || '\\x00' || convert_to(address, 'UTF8'))) AS address_hash,
  CASE WHEN n %% {rare} = 0 THEN {rare_template} WHEN channel = 'sms' THEN 'code'
    ELSE (ARRAY['notice', 'receipt', 'password_reset', 'weekly_digest'])[1 + (d / 7) %% 4] END AS template,
  substr(md5('version'), 1, 16) AS template_version, CASE WHEN d %% 3 = 0 THEN 'fr' END AS locale,
  jsonb_build_object('name', 'Person ' || person, 'order', 'C-' || n, 'url', 'https://track.example.com/PX' || n) AS context,
  CASE WHEN d %% 5 > 0 THEN 'order-' || n / 2 END AS reference, status,
  CASE status WHEN 'failed' THEN 'provider_rejected' WHEN 'undelivered' THEN 'unreachable_recipient' WHEN 'unknown' THEN 'outcome_unknown'
    WHEN 'expired' THEN 'expired' END AS reason,
  CASE WHEN status = 'failed' THEN '550 5.1.1 no such user' END AS detail,
  CASE WHEN status IN ('cancelled', 'expired') THEN 0 ELSE 1 END AS attempt_count,
  CASE WHEN status IN ('sent', 'delivered', 'undelivered') THEN CASE channel WHEN 'sms' THEN 'twilio' ELSE 'smtp' END END
    AS provider,
  CASE WHEN status IN ('sent', 'delivered', 'undelivered') THEN 'r' || n END AS provider_message_id,
  at AS accepted_at, at + interval '40 milliseconds' AS updated_at,
  CASE WHEN status IN ('sent', 'delivered', 'undelivered') THEN at + interval '40 milliseconds' END AS sent_at
FROM (
  SELECT n, d, person, channel, at,
    CASE channel WHEN 'sms' THEN '+1555' || lpad(person::text, 8, '0') ELSE 'person' || person || '@example.com' END AS address,
    (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(h, 1, 3) || '8' || substr(h, 4, 15))::uuid AS id,
    CASE WHEN d %% 1000 < 935 THEN 'sent' WHEN d %% 1000 < 970 THEN 'delivered' WHEN d %% 1000 < 985 THEN 'failed'
      WHEN d %% 1000 < 992 THEN 'undelivered' WHEN d %% 1000 < 996 THEN 'expired' WHEN d %% 1000 < 999 THEN 'cancelled'
      ELSE 'unknown' END AS status
  FROM (
    SELECT n, h, d, d %% {people} AS person, CASE WHEN d %% 10 < 2 THEN 'sms' ELSE 'email' END AS channel,
      {start}::timestamptz + (n - {first}) * {step}::interval AS at
    FROM (
      SELECT n, md5(n::text) AS h, ('x' || substr(md5('d' || n), 1, 8))::bit(32)::bigint & 2147483647 AS d
      FROM generate_series({first}::bigint, {last}::bigint) AS n
    ) AS numbers
  ) AS people
) AS rows
"""

_MESSAGES = """
INSERT INTO {table} (id, producer, idempotency_key, channel, lane, recipient, address, address_hash, template,
  template_version, locale, context, reference, on_unknown, accepted_at)
SELECT id, producer, idempotency_key, channel, lane, recipient, address, address_hash, template, template_version,
  locale, context, reference, 'resend', accepted_at
FROM past
"""

_STATES = """
INSERT INTO {table} (id, channel, lane, status, reason, detail, claim, attempt_count, provider, provider_message_id, updated_at, sent_at)
SELECT id, channel, lane, status, reason, detail, 1, attempt_count, provider, provider_message_id, updated_at, sent_at FROM past
"""

_ATTEMPTS = """
INSERT INTO {table} (notification_id, number, provider, template_version, sender_address, started_at, finished_at, outcome, reason, code, provider_message_id)
SELECT id, 1, CASE channel WHEN 'sms' THEN 'twilio' ELSE 'smtp' END, template_version,
  CASE channel WHEN 'sms' THEN '+15550100100' ELSE 'Corner Shop <hello@shop.example.com>' END, accepted_at + interval '10 milliseconds', updated_at,
  CASE status WHEN 'failed' THEN 'rejected' WHEN 'unknown' THEN 'unknown' ELSE 'accepted' END, reason,
  CASE status WHEN 'failed' THEN '550' ELSE '250' END, provider_message_id
FROM past WHERE attempt_count = 1
"""

_EVENTS = """
INSERT INTO {table} (notification_id, id, recorded_at, kind, status, reason, attempt)
SELECT n.id, {first_event}::bigint + row_number() OVER (), n.accepted_at + step * interval '15 milliseconds',
  CASE step WHEN 0 THEN 'accepted' ELSE 'status' END,
  CASE step WHEN 0 THEN 'queued' WHEN 1 THEN 'sending' ELSE n.status END,
  CASE step WHEN 2 THEN n.reason END, CASE step WHEN 2 THEN 1 END
FROM past AS n CROSS JOIN generate_series(0, 2) AS step
"""

_KEYS = """
INSERT INTO idempotency_keys (producer, key, body_hash, notification_id, created_at)
SELECT producer, coalesce(idempotency_key, id::text), sha256(id::text::bytea), id, accepted_at FROM messages
"""


@dataclass(frozen=True, slots=True)
class Month:
    """One month of the past: notifications `first` to `last`."""

    start: datetime
    until: datetime
    first: int
    last: int


def fill(database_url: str, rows: int, *, days: int | None = None) -> None:
    """Put `rows` notifications into a migrated, empty database. Use a server with the settings FILLING.

    They are from the last `days`; None: from `MONTHS` calendar months.
    """
    now = datetime.now(UTC) - timedelta(hours=_HOURS_AGO)
    begin = month_after(now, 1 - MONTHS) if days is None else now - timedelta(days=days)
    months = list(_months(begin, now, rows))
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table in PARTITIONED:
            for month in months:
                connection.execute(f"DROP TABLE IF EXISTS {_name(table, month)}")
    with _built_at_once(database_url, "states"), ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(lambda month: _fill_month(database_url, month, rows), months))
    with _built_at_once(database_url, "idempotency_keys"), psycopg.connect(database_url) as connection:
        connection.execute(_KEYS)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT setval(pg_get_serial_sequence('events', 'id'), (SELECT coalesce(max(id), 1) FROM events))"
        )


def clean_up(database_url: str) -> None:
    """Update statistics and visibility maps, as autovacuum would have done in a year."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def people(rows: int) -> int:
    """The number of recipients in a past with this many notifications."""
    return max(10, rows // PER_RECIPIENT)


def _months(begin: datetime, now: datetime, rows: int) -> Iterator[Month]:
    """The months, each with a share of the rows in proportion to its length between the two times."""
    count = (now.year - begin.year) * 12 + now.month - begin.month
    starts = [begin, *(month_after(begin, number) for number in range(1, count + 1))]
    ends = [*starts[1:], now]
    whole = (now - starts[0]).total_seconds()
    last = 0
    for start, until in zip(starts, ends, strict=True):
        first = last + 1
        last = rows if until is now else round(rows * (until - starts[0]).total_seconds() / whole)
        yield Month(start, until, first, last)


def _fill_month(database_url: str, month: Month, rows: int) -> None:
    names = {table: _name(table, month) for table in PARTITIONED}
    step = (month.until - month.start) / max(1, month.last - month.first + 1)
    with psycopg.connect(database_url) as connection:
        # With `wal_level = minimal`, rows need no log in the transaction that creates their table.
        for table, name in names.items():
            _execute(connection, f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        parts = {
            "first": sql.Literal(month.first),
            "last": sql.Literal(month.last),
            "start": sql.Literal(month.start.isoformat()),
            "step": sql.Literal(f"{step.total_seconds():.9f} seconds"),
            "people": sql.Literal(people(rows)),
            "rare": sql.Literal(_RARE_EVERY),
            "rare_producer": sql.Literal(RARE_PRODUCER),
            "rare_template": sql.Literal(RARE_TEMPLATE),
            "first_event": sql.Literal(3 * month.first),
            # HMAC-SHA256 is two hashes, each over the padded key, as in `notifier.security.recipient_hash`.
            "inner": sql.Literal(_padded(0x36)),
            "outer": sql.Literal(_padded(0x5C)),
        }
        tables = {**names, "states": "states", "past": "past"}
        statements = {
            "past": _PAST,
            "messages": _MESSAGES,
            "states": _STATES,
            "attempts": _ATTEMPTS,
            "events": _EVENTS,
        }
        for table, statement in statements.items():
            text = sql.SQL(statement.replace("%%", "%")).format(table=sql.Identifier(tables[table]), **parts)
            connection.execute(text)
        _attach(connection, names, month)


def _attach(connection: psycopg.Connection, names: dict[str, str], month: Month) -> None:
    """Build the parent's indexes on each table, and make it a partition. The bounds are those of the whole
    month."""
    low, high = first_id(month_after(month.start, 0)), first_id(month_after(month.start, 1))
    for table, name in names.items():
        found = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s ORDER BY indexname", [table]
        ).fetchall()
        for number, (index, definition) in enumerate(found):
            made = definition.replace(f"INDEX {index} ON ONLY ", f"INDEX {name}_{number} ON ")
            _execute(connection, made.replace(f"public.{table} ", f"public.{name} "))
            if definition.startswith("CREATE UNIQUE INDEX pk_"):
                _execute(connection, f"ALTER TABLE {name} ADD PRIMARY KEY USING INDEX {name}_{number}")
        # Proves the bounds, so that attaching need not read every row.
        key = "id" if table == "messages" else "notification_id"
        bounds = f"CHECK ({key} >= '{low}' AND {key} < '{high}')"
        _execute(connection, f"ALTER TABLE {name} ADD CONSTRAINT bounds {bounds}")
        _execute(
            connection, f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{low}') TO ('{high}')"
        )
        _execute(connection, f"ALTER TABLE {name} DROP CONSTRAINT bounds")


@contextmanager
def _built_at_once(database_url: str, table: str) -> Iterator[None]:
    """During the block the table has no indexes; they are built afterwards."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        key = connection.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", [f"pk_{table}"]
        ).fetchone()
        assert key is not None
        others = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexname <> %s",
            [table, f"pk_{table}"],
        ).fetchall()
        _execute(connection, f"ALTER TABLE {table} DROP CONSTRAINT pk_{table}")
        for name, _ in others:
            _execute(connection, f"DROP INDEX {name}")
        yield
        _execute(connection, f"ALTER TABLE {table} ADD CONSTRAINT pk_{table} {key[0]}")
        for _, definition in others:
            _execute(connection, definition)


def _padded(pad: int) -> bytes:
    return bytes(byte ^ pad for byte in PUBLIC_KEY.encode().ljust(64, b"\0"))


def _name(table: str, month: Month) -> str:
    return f"{table}_y{month.start:%Y}m{month.start:%m}"


def _execute(connection: psycopg.Connection, statement: str) -> None:
    """Execute statements made here, from constants and dates: they contain nothing that somebody wrote."""
    connection.execute(statement.encode())
