"""Loads the files of a batch a portion at a time, so that a batch of large mails needs no more memory than a few.

After a crash, mails that were not started go on when their lease ends, as in any batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from notifier.delivery.delivery import Delivery
from notifier.domain.message import MAX_MAIL_ATTACHMENTS
from notifier.providers.base import Attachment
from notifier.store.attachments import AttachmentRepository

#: Maximum bytes of files in a portion. A file counts for every mail: each mail holds a copy while it is sent.
PORTION_BYTES = MAX_MAIL_ATTACHMENTS
#: Portions that one process loads at the same time; other tasks wait.
PORTIONS_AT_ONCE = 2
#: Mails with files for which the process has no free thread are due again after this. Seconds.
AGAIN_SECONDS = 10.0


class Files:
    """The files of one batch. Every method raises `ServiceUnavailable`."""

    def __init__(self, repository: AttachmentRepository) -> None:
        self._repository = repository
        self._loaded: dict[UUID, Attachment] = {}

    def portions(self, deliveries: Sequence[Delivery]) -> Iterator[list[Delivery]]:
        sizes = self._repository.sizes(
            {value for delivery in deliveries for value in delivery.notification.attachments}
        )
        portion: list[Delivery] = []
        used = 0
        for delivery in deliveries:
            size = sum(sizes.get(value, 0) for value in delivery.notification.attachments)
            if portion and used + size > PORTION_BYTES:
                yield portion
                portion, used = [], 0
            portion.append(delivery)
            used += size
        if portion:
            yield portion

    def of(self, portion: Sequence[Delivery]) -> dict[UUID, Attachment]:
        """The files of a portion, without deleted ones. Files of the previous portion stay loaded if this one
        needs them, so a file that every mail of a batch has is loaded once."""
        wanted = {value for delivery in portion for value in delivery.notification.attachments}
        self._loaded = {value: file for value, file in self._loaded.items() if value in wanted}
        missing = wanted - self._loaded.keys()
        for value, file in self._repository.load(missing).items() if missing else ():
            self._loaded[value] = Attachment(file.name, file.content_type, file.content)
        return self._loaded
