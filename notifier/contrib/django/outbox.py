"""The relay's access to the outbox, through Django's ORM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import or_

from django.db import DatabaseError, InterfaceError, connections, router, transaction
from django.db.models import F, Q

from notifier.client.relay import OutboxRow, Pair, Passed
from notifier.contrib.django.models import OutboxMessage
from notifier.domain.errors import ConfigurationError, ServiceUnavailable
from notifier.domain.statuses import Channel, Lane


@dataclass(frozen=True, slots=True)
class DjangoOutbox:
    """The outbox table in the database `using` (default: where the router writes `OutboxMessage`)."""

    using: str | None = None

    @property
    def alias(self) -> str:
        return self.using or str(router.db_for_write(OutboxMessage))

    def check(self) -> None:
        """Raises `ConfigurationError` if the table is missing, `ServiceUnavailable` if the database is
        unreachable."""
        name = OutboxMessage._meta.db_table
        try:
            is_there = name in connections[self.alias].introspection.table_names()
        except (DatabaseError, InterfaceError) as error:
            raise self._unavailable(error) from error
        if not is_there:
            raise ConfigurationError(f"the database {self.alias!r} has no table {name}: run manage.py migrate")

    def pass_on(
        self, limit: int, pairs: Sequence[Pair], publish: Callable[[Sequence[OutboxRow]], Passed]
    ) -> Passed:
        with self._mapped():
            if not connections[self.alias].features.has_select_for_update_skip_locked:
                # On SQLite an open transaction would stop other writers.
                return self._note(publish(self._take(limit, pairs, lock=False)))
            with transaction.atomic(self.alias):
                return self._note(publish(self._take(limit, pairs, lock=True)))

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn temporary errors into `ServiceUnavailable`, and report a missing table as such."""
        try:
            yield
        except (DatabaseError, InterfaceError) as error:
            connections[self.alias].close_if_unusable_or_obsolete()
            self.check()
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> ServiceUnavailable:
        # Only the kind of error: its text may hold the row, and with it a recipient.
        return ServiceUnavailable(f"the database {self.alias!r} cannot be used ({type(error).__name__})")

    def _take(self, limit: int, pairs: Sequence[Pair], *, lock: bool) -> list[OutboxRow]:
        wanted = reduce(or_, (Q(channel=channel.value, lane=lane.value) for channel, lane in pairs))
        found = OutboxMessage.objects.using(self.alias).filter(wanted).order_by("id")
        if lock:
            found = found.select_for_update(skip_locked=True)
        values = found.values_list("id", "channel", "lane", "body")[:limit]
        return [OutboxRow(id_, Channel(channel), Lane(lane), body.encode()) for id_, channel, lane, body in values]

    def _note(self, passed: Passed) -> Passed:
        rows = OutboxMessage.objects.using(self.alias)
        if passed.published:
            rows.filter(id__in=passed.published).delete()
        if passed.failed:
            rows.filter(id__in=passed.failed).update(attempts=F("attempts") + 1, last_error=passed.error[:500])
        return passed
