"""Files of a batch: loaded a portion at a time, so that a batch of large mails needs no more memory than a few.

A crash in between is that of any batch: what was not begun goes on when its lease ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

from notifier.message import MAX_MAIL_ATTACHMENTS
from notifier.providers.base import Attachment
from notifier.store.attachments import AttachmentBook
from notifier.store.values import Claimed

#: Files of the mails of a portion, each counted as often as it goes out: each mail holds a copy while it is sent.
#: Bytes.
PORTION_BYTES = 2 * MAX_MAIL_ATTACHMENTS

Portion = tuple[list[Claimed], Mapping[UUID, Attachment]]


def portions(claims: Sequence[Claimed], book: AttachmentBook) -> Iterator[Portion]:
    """The claims with their files, those without any first. A file that is not there is left out.

    Raises:
        ServiceUnavailable: the database is away.
    """
    plain = [claim for claim in claims if not claim.attachments]
    if plain:
        yield plain, {}
    sizes = book.sizes({value for claim in claims for value in claim.attachments})
    files: dict[UUID, Attachment] = {}
    for some in _divided([claim for claim in claims if claim.attachments], sizes):
        wanted = {value for claim in some for value in claim.attachments}
        # What goes with every mail of the batch is loaded once.
        files = {value: file for value, file in files.items() if value in wanted}
        for value, file in book.load(wanted - files.keys()).items() if wanted - files.keys() else ():
            files[value] = Attachment(file.name, file.content_type, file.content)
        yield some, files


def _divided(claims: Sequence[Claimed], sizes: Mapping[UUID, int]) -> Iterator[list[Claimed]]:
    portion: list[Claimed] = []
    used = 0
    for claim in claims:
        size = sum(sizes.get(value, 0) for value in claim.attachments)
        if portion and used + size > PORTION_BYTES:
            yield portion
            portion, used = [], 0
        portion.append(claim)
        used += size
    if portion:
        yield portion
