"""Rules about notifications that several statements share; each is written here once.

SQL rules are about `states AS n` and `messages AS m`; rules for SQLAlchemy are about `Notification`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, ColumnElement, false, func, literal_column

from notifier.domain.statuses import LIVE_STATUSES
from notifier.store.schema.notifications import Notification, StoredMessage

#: A test whose outcome is unknown has ended when it is held: there is nothing to find out, and nobody decides.
HELD_TEST = "(n.is_test AND n.status = 'unknown' AND n.due_at IS NULL)"
#: It has not ended. The second condition is always true for these and helps the planner: one index finds rows with
#: a `due_at`, another one those in these three statuses.
LIVE = f"""(n.status IN ({", ".join(f"'{status}'" for status in LIVE_STATUSES)})
  AND (n.due_at IS NOT NULL OR n.status IN ('scheduled', 'retrying', 'unknown')) AND NOT {HELD_TEST})"""


def _gone(messages: str) -> str:
    return (
        f"(coalesce(cardinality({messages}.secret_names) = 0, false) "
        f"OR ({messages}.recipient IS NULL AND {messages}.sealed IS NULL))"
    )


#: It can no longer be sent, because its secrets were wiped or it was redacted.
GONE = _gone("m")
IS_GONE: ColumnElement[bool] = literal_column(_gone(StoredMessage.__tablename__), Boolean)
#: Why it is held, for people.
GONE_WORDS = "held: its secrets were wiped when it counted as sent, so it cannot be sent again"


def has_expired_by(moment: Any) -> ColumnElement[bool]:
    """Whether its `expires_at` has passed at that moment. SQL statements say `expires_at <= now()` instead."""
    return func.coalesce(Notification.expires_at <= moment, false())


HAS_EXPIRED = has_expired_by(func.now())
