"""Mails that were sent with a return path of ours, and the bounces that come back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text

from notifier.bootstrap import Services
from notifier.config.limits import SuppressionTable
from notifier.config.settings import Settings
from notifier.config.structure import Sender, Structure
from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane, OnUnknown, Outcome, Status
from notifier.domain.validation import check
from notifier.feedback.bounces import Taken
from notifier.store.engine import transaction
from notifier.store.records import DeliveryResult, NewAttempt, NewNotification, NotificationToSend
from notifier.store.search import Story
from notifier.store.suppressions import SuppressionView

ADDRESS = "bounces@example.com"
KEY = "a hash key for tests only"


class Mails:
    """Mails in the record, at any point of their delivery, and their bounces."""

    def __init__(
        self, database_url: str, templates: Path, *, alarm: SuppressionTable | None = None, **more: Any
    ) -> None:
        senders = {"default": Sender(email="Shop <shop@example.com>"), "news": Sender(email="news@example.com")}
        structure = Structure(senders=senders, suppressions=alarm or SuppressionTable())
        given: dict[str, Any] = {"hash_key": KEY, "bounce_address": ADDRESS, **more}
        self.settings = Settings(database_url=database_url, templates=templates, structure=structure, **given)
        self.services = Services(self.settings)
        self._count = 0

    def accept(self, to: str = "Zoe <Zoe@example.net>", **fields: Any) -> UUID:
        """A mail in the record, ready to be sent."""
        self._count += 1
        given = {"producer": "shop", "to": to, "template": "hello", "context": {"name": "Zoe"}, **fields}
        message = check(Message(idempotency_key=f"k{self._count}", **given), Channel.EMAIL, Lane.NORMAL)
        new = NewNotification(message, Channel.EMAIL, Lane.NORMAL, "v1", OnUnknown.RESEND, 0)
        [accepted] = self.services.ledger.accept([new])
        return accepted.id

    def start(self, to: str = "Zoe <Zoe@example.net>", **fields: Any) -> NotificationToSend:
        """A mail in a worker's hands: the attempt's row is committed, and the call is in progress."""
        [claim] = self.services.ledger.claim([self.accept(to, **fields)], lease_seconds=60)
        assert self.services.ledger.start_attempts([NewAttempt(claim, "smtp")], margin_seconds=5)
        return claim

    def accepted(self, claim: NotificationToSend) -> None:
        """The worker writes that the relay accepted it."""
        result = DeliveryResult(
            claim.id,
            claim.claim,
            Status.SENT,
            number=1,
            outcome=Outcome.ACCEPTED,
            provider="smtp",
            provider_message_id="4F1A2",
            detail="250 queued as 4F1A2",
        )
        self.services.ledger.finish([result])

    def send(self, to: str = "Zoe <Zoe@example.net>", **fields: Any) -> UUID:
        """A mail that the relay accepted."""
        claim = self.start(to, **fields)
        self.accepted(claim)
        return claim.id

    def path(self, notification_id: UUID, attempt: int = 1) -> str:
        """The return path of an attempt."""
        path = self.services.tokens.return_path(notification_id, attempt)
        assert path is not None
        return path

    def mail(self, template: str, notification_id: UUID, **more: str) -> bytes:
        """What comes back about it."""
        values = {
            "to": self.path(notification_id),
            "path": self.path(notification_id),
            "id": f"{notification_id}@example.com",
            "recipient": "zoe@example.net",
            "date": "Mon, 23 Nov 2026 10:00:02 +0000",
        } | more
        for name, value in values.items():
            template = template.replace(f"{{{name}}}", value)
        return template.encode()

    def bounce(self, template: str, notification_id: UUID, envelope_to: str | None = None, **more: str) -> Taken:
        """Handle a bounce as it comes from the mail server."""
        to = self.path(notification_id) if envelope_to is None else envelope_to
        return self.services.bounces.take(self.mail(template, notification_id, **more), to)

    def story(self, notification_id: UUID) -> Story:
        return self.services.audit.story(notification_id)

    def state(self, notification_id: UUID) -> tuple[str, str | None]:
        found = self.story(notification_id).notification
        return found.status, found.reason

    def said(self, notification_id: UUID) -> list[str]:
        """The texts of the reports, in order of recording."""
        return [str(event.detail) for event in self.story(notification_id).events if event.kind == "provider"]

    def suppressed(self, address: str = "zoe@example.net") -> Sequence[SuppressionView]:
        found = self.services.suppressions.find(Channel.EMAIL, address)
        return [one for one in found if one.state == "active"]

    def age(self, notification_id: UUID, days: float) -> None:
        """Make it as old as if it had been sent this many days ago."""
        query = text("UPDATE states SET sent_at = now() - make_interval(secs => :seconds) WHERE id = :id")
        with transaction(self.services.engine) as connection:
            connection.execute(query, {"seconds": days * 86_400, "id": notification_id})
