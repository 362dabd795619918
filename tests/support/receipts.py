"""Notifications that wait for receipts, and what providers report about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane, OnUnknown, Outcome, Status
from notifier.domain.validation import check
from notifier.providers.twilio.webhooks import report_of
from notifier.store.engine import transaction
from notifier.store.ledger import Ledger
from notifier.store.provider_reports import NewReport, ProviderReportRepository, RecordedReport
from notifier.store.records import DeliveryResult, NewAttempt, NewNotification, NotificationToSend
from notifier.store.search import Audit, Story
from tests.support.columns import set_columns

NUMBER = "+15550100123"
SID = "SM" + "0" * 32


def taken(claim: NotificationToSend, number: int = 1, sid: str = SID) -> DeliveryResult:
    """The worker's result for a message that the provider accepted."""
    return DeliveryResult(
        claim.id,
        claim.claim,
        Status.SENT,
        detail="queued",
        number=number,
        outcome=Outcome.ACCEPTED,
        provider="twilio",
        provider_message_id=sid,
        due_in_seconds=300,
    )


class Texts:
    """SMS in the record, at any point of their delivery."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ledger = Ledger(engine)
        self.audit = Audit(engine)
        self.book = ProviderReportRepository(engine)
        self._count = 0

    def accept(self, count: int = 1, **fields: Any) -> list[UUID]:
        news = []
        policy = fields.pop("on_unknown", OnUnknown.RESEND)
        for position in range(count):
            self._count += 1
            given = {"producer": "shop", "to": NUMBER, "template": "code", **fields}
            message = check(Message(idempotency_key=f"k{self._count}", **given), Channel.SMS, Lane.URGENT)
            news.append(NewNotification(message, Channel.SMS, Lane.URGENT, "v1", policy, position))
        return [answer.id for answer in self.ledger.accept(news)]

    def start(self, count: int = 1, provider: str = "twilio", **fields: Any) -> list[NotificationToSend]:
        """SMS in a worker's hands: the attempt's row is committed, and the call is in progress."""
        claims = self.ledger.claim(self.accept(count, **fields), lease_seconds=60)
        self.attempt(claims, provider)
        return claims

    def attempt(self, claims: Sequence[NotificationToSend], provider: str = "twilio") -> int:
        """Begin an attempt for each. Returns for how many that was allowed."""
        return len(self.ledger.start_attempts([NewAttempt(claim, provider) for claim in claims], margin_seconds=5))

    def accepted(self, claim: NotificationToSend, number: int = 1, *, sid: str = SID) -> None:
        """The worker writes that the provider accepted it."""
        self.ledger.finish([taken(claim, number, sid)])

    def send(self, **fields: Any) -> NotificationToSend:
        """An SMS that a provider accepted."""
        [claim] = self.start(**fields)
        self.accepted(claim)
        return claim

    def report(
        self, id_: UUID, word: str, code: str | None = None, attempt: int = 1, sid: str = SID, **more: Any
    ) -> RecordedReport:
        said = report_of(sid, word, code)
        return self.book.record(
            NewReport(
                id_,
                attempt,
                more.pop("providers", ["twilio"]),
                sid,
                said.words,
                said.status,
                said.reason,
                ask_in_seconds=300,
                **more,
            )
        )

    def become(self, id_: UUID, **columns: Any) -> None:
        """Put it into a state that it would otherwise reach only through many attempts."""
        with transaction(self.engine) as connection:
            set_columns(connection, [id_], **columns)

    def pass_time(self, id_: UUID, seconds: float = 1) -> None:
        """Make it as if it had been sent this much earlier, and its `due_at` had come."""
        query = text(
            "UPDATE states SET due_at = now() - interval '1 second', "
            "sent_at = sent_at - make_interval(secs => :seconds) WHERE id = :id"
        )
        with transaction(self.engine) as connection:
            connection.execute(query, {"id": id_, "seconds": seconds})

    def story(self, id_: UUID) -> Story:
        return self.audit.story(id_)

    def status(self, id_: UUID) -> str:
        return self.story(id_).notification.status

    def said(self, id_: UUID) -> list[str]:
        """The texts of the provider's events, sorted: what was reported, in whatever order."""
        return sorted(str(event.detail) for event in self.story(id_).events if event.kind == "provider")

    def count(self, table: str) -> int:
        with transaction(self.engine) as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())
