"""Decides which files producers may upload, and stores them."""

from __future__ import annotations

import re

from notifier.config.settings import Settings
from notifier.domain.errors import Fault, InvalidMessage, QuotaExceeded
from notifier.store.attachments import AttachmentRepository, AttachmentView, NewAttachment
from notifier.store.records import TEST_KEYS

#: Every file system accepts names of this length. Bytes in UTF-8.
MAX_NAME_BYTES = 200

_TYPE = re.compile(
    r"([a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*)\s*(?:;(.*))?\Z", re.ASCII | re.IGNORECASE | re.DOTALL
)
_CHARSET = re.compile(r'(?:^|;)\s*charset="?([a-z0-9][a-z0-9_.-]{1,30})"?\s*(?:;|\Z)', re.ASCII | re.IGNORECASE)


class Attachments:
    """Stores uploaded files. Thread-safe: it holds nothing but the store. Every method raises
    `ServiceUnavailable`."""

    def __init__(self, repository: AttachmentRepository, settings: Settings) -> None:
        self._repository = repository
        self._types = frozenset(
            kind.strip().lower() for kind in settings.attachment_types.split(",") if kind.strip()
        )
        self._quota = settings.attachment_quota_bytes
        #: Maximum size of a file.
        self.max_bytes = settings.attachment_max_bytes

    def add(
        self, producer: str, name: str, content_type: str, content: bytes, *, is_test: bool = False
    ) -> AttachmentView:
        """Keep a file, which this producer's messages can then name. The same file again has the same id.
        `is_test`: only test messages may name it, and it does not use up room for live files.

        Raises:
            InvalidMessage: with everything that is wrong with the file.
        """
        kind = _kind(content_type)
        faults = [*_name_faults(name), *self._content_faults(content)]
        if kind is None or kind.partition(";")[0] not in self._types:
            fix = f"Send one of: {', '.join(sorted(self._types))}"
            faults.append(Fault("Content-Type", "attachment_type", "is not an accepted type of file", fix))
        if faults or kind is None:
            raise InvalidMessage(faults)
        try:
            owner = producer + TEST_KEYS if is_test else producer
            return self._repository.add(NewAttachment(owner, name, kind, content), quota=self._quota)
        except QuotaExceeded as error:
            fix = (
                "Wait until files that no message needs any more are deleted, send links, or ask the operator for "
                "a higher NOTIFIER_ATTACHMENT_QUOTA_BYTES"
            )
            raise InvalidMessage([Fault("", "attachment_quota", str(error), fix)]) from None

    def _content_faults(self, content: bytes) -> list[Fault]:
        if not content:
            return [Fault("", "attachment_empty", "it is empty", "Send the file as the body")]
        if len(content) > self.max_bytes:
            fix = f"Send at most {self.max_bytes} bytes, or a link"
            return [Fault("", "too_large", f"{len(content)} bytes", fix)]
        return []


def _kind(content_type: str) -> str | None:
    """The content type in lower case, with the charset if a text type names one; None if it is not a content
    type."""
    match = _TYPE.match(content_type.strip())
    if match is None:
        return None
    kind: str = match[1].lower()
    charset = _CHARSET.search(match[2] or "")
    return f"{kind}; charset={charset[1].lower()}" if charset and kind.startswith("text/") else kind


def _name_faults(name: str) -> list[Fault]:
    # This also excludes lone surrogates, which are not printable.
    is_plain = name.isprintable() and not set(name) & set('/\\:*?"<>|') and name.strip(" .") == name
    if name and is_plain and len(name.encode()) <= MAX_NAME_BYTES:
        return []
    fix = f'Give 1 to {MAX_NAME_BYTES} bytes of UTF-8 as filename*, without / \\ : * ? " < > |, as invoice.pdf'
    return [Fault("Content-Disposition", "bad_file_name", "names no file that every mail program can keep", fix)]
