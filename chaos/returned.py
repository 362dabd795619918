"""Feedback on messages from outside, and whether it is in the record."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

import psycopg

from notifier.domain.statuses import Channel
from notifier.security.recipient_hash import HashKey

#: The category of the unsubscribes.
CATEGORY = "news"

Kind = Literal["bounce", "receipt", "unsubscribe"]


@dataclass(frozen=True, slots=True)
class Sent:
    """One piece of feedback on a notification."""

    kind: Kind
    notification: UUID
    attempt: int
    recipient: str
    provider_message_id: str


@dataclass(slots=True)
class Returned:
    sent: int = 0
    acknowledged: list[Sent] = field(default_factory=list)

    def problems(self, database_url: str, key: HashKey) -> list[str]:
        """Acknowledged feedback that is not in the record exactly once."""
        counts = Counter(sent.kind for sent in self.acknowledged)
        wrong = [
            f"no {kind} was acknowledged" for kind in ("bounce", "receipt", "unsubscribe") if not counts[kind]
        ]
        missing = self.sent - len(self.acknowledged)
        if missing:
            wrong.append(f"{missing} were not acknowledged")
        with psycopg.connect(database_url, connect_timeout=5) as connection:
            for sent in self.acknowledged:
                if sent.kind == "unsubscribe":
                    query = "SELECT count(*) FROM suppressions WHERE address_hash = %s AND scope = %s"
                    values: list[object] = [key.recipient(Channel.EMAIL, sent.recipient), f"category:{CATEGORY}"]
                else:
                    query = "SELECT count(*) FROM events WHERE notification_id = %s AND status = %s"
                    values = [sent.notification, "undelivered" if sent.kind == "bounce" else "delivered"]
                row = connection.execute(query, values).fetchone()
                if row != (1,):
                    wrong.append(
                        f"a {sent.kind} of {sent.notification} is in the record {row[0] if row else 0} times"
                    )
        return wrong[:10]
