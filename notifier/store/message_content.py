"""What a notification says, for people: its context, without the values of its secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, func, select

from notifier.domain.errors import NotFound
from notifier.store.personal_data import PersonalData
from notifier.store.repository import Repository
from notifier.store.schema.notifications import Attempt, Notification


@dataclass(frozen=True, slots=True)
class StoredContent:
    channel: str
    template: str
    #: Version of its last attempt; before the first attempt, the version that it was accepted against.
    template_version: str
    locale: str | None
    #: The context without the values of `secret_names`. None: it was redacted.
    context: dict[str, Any] | None
    #: Empty: the secrets were wiped, and their names with them. None: it had no secrets.
    secret_names: tuple[str, ...] | None


class ContentRepository(Repository):
    def __init__(self, engine: Engine, personal_data: PersonalData) -> None:
        super().__init__(engine)
        self._personal_data = personal_data

    def find(self, notification_id: UUID) -> StoredContent:
        """The content of this notification.

        Raises:
            NotFound: no notification has this id.
            CannotOpen: the key is missing; the error names it.
        """
        rows = self._rows(select(*_COLUMNS).where(Notification.id == notification_id))
        if not rows:
            raise NotFound(f"no notification has the id {notification_id}")
        [row] = rows
        is_redacted = row.recipient is None and row.sealed is None
        names = None if row.secret_names is None else tuple(row.secret_names)
        context = None if is_redacted else self._personal_data.open(row).context
        return StoredContent(
            channel=row.channel,
            template=row.template,
            template_version=row.version,
            locale=row.locale,
            context=context and {name: value for name, value in context.items() if name not in (names or ())},
            secret_names=names,
        )


_LAST_VERSION = (
    select(Attempt.template_version)
    .where(Attempt.notification_id == Notification.id, Attempt.number == Notification.attempt_count)
    .scalar_subquery()
)
_COLUMNS = (
    Notification.id,
    Notification.channel,
    Notification.template,
    func.coalesce(_LAST_VERSION, Notification.sent_version, Notification.template_version).label("version"),
    Notification.locale,
    Notification.recipient,
    Notification.context,
    Notification.sealed,
    Notification.secret_names,
)
