"""Handles mails that come back: whose they are, what they say, and what follows.

Only the token in the return path says whose a bounce is. A mail without one of our tokens changes nothing, and is
not even read unless it quotes a mail of ours. A bounce moves the status as every provider report does. A complaint
moves no status, and suppresses more; it is also recognised by the Message-ID of the mail that it quotes, which
only its recipient has. Mail to a return path of ours that nothing can read is kept for people.

Crash points: everything is written before it is acknowledged, and the event in one transaction with a suppression
that follows from it. If the process dies between that and the acknowledgement, the mail comes again and its event
is found. Soft bounces are counted again then, so none is missed. A kept mail is recognised by its digest.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property, partial
from typing import assert_never
from uuid import UUID

from notifier.config.logs import log
from notifier.config.settings import Settings
from notifier.domain.recipient_identity import recipient_identity
from notifier.domain.statuses import Channel, SuppressionReason
from notifier.feedback.bounce_meaning import Meaning, Whose, is_believable, meaning_of
from notifier.feedback.bounce_parser import addresses_in, read_mail
from notifier.feedback.bounce_report import Bounce, Complaint, Read
from notifier.feedback.receipts import identity_of, template_of
from notifier.feedback.suppressions import GLOBAL, Suppressions, category_scope, sender_scope
from notifier.providers.redaction import mail_detail
from notifier.rendering import Renderer
from notifier.security.recipient_hash import HashKey
from notifier.security.tokens import Tokens
from notifier.store.provider_reports import NewReport, ProviderReportRepository, RecordedReport, Reported
from notifier.store.records import NewSuppression
from notifier.store.unread_bounces import UnreadBounceRepository

#: This many soft bounces …
SOFT_BOUNCES = 3
#: … of mails within this period, with no delivered mail in between, suppress the address for the same period.
#: After that it is tried again, and earlier bounces no longer count.
SOFT_PERIOD = timedelta(days=14)

_SOURCE = "bounce"
_MESSAGE_ID = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})@", re.IGNORECASE)
_MESSAGE_ID_BYTES = re.compile(_MESSAGE_ID.pattern.encode(), re.IGNORECASE)
#: A soft line break of quoted-printable.
_SOFT_LINE_END = re.compile(rb"=\r?\n")
#: Maximum bytes that are searched for a mail of ours.
_MAX_SEARCHED = 1024 * 1024


class Taken(StrEnum):
    """The result for a mail. Every result is acknowledged, because the same mail would end the same way again."""

    RECORDED = "recorded"  #: it is in its notification's story
    REPEATED = "repeated"  #: it was already there
    NO_REPORT = "no_report"  #: it reports nothing: an out-of-office reply, or spam to another address
    UNREAD = "unread"  #: it came to a return path of ours but cannot be read, so it is kept for people
    FORGED = "forged"  #: it has no token, or one that we did not make
    UNKNOWN = "unknown"  #: its notification is not in the record, or no longer
    CONTRADICTED = "contradicted"  #: a complaint that names somebody other than the mail's recipient


class Bounces:
    def __init__(
        self,
        reports: ProviderReportRepository,
        suppressions: Suppressions,
        renderer: Renderer,
        settings: Settings,
        tokens: Tokens,
        hash_key: HashKey,
        unread: UnreadBounceRepository,
    ) -> None:
        self._reports = reports
        self._suppressions = suppressions
        self._renderer = renderer
        self._settings = settings
        self._tokens = tokens
        self._hash_key = hash_key
        self._unread = unread

    def is_ours(self, address: str) -> bool:
        return self._tokens.is_bounce_address(address)

    def take(self, content: bytes, recipient: str = "") -> Taken:
        """Record what a mail says. `recipient` is the envelope's, if it is known.

        Raises:
            ServiceUnavailable: not everything was recorded, so the mail must come again.
        """
        addresses = (recipient, *addresses_in(content))
        token = next(filter(None, map(self._tokens.read_return_path, addresses)), None)
        if token is None and not self._quotes_us(content):
            # Nothing more of a stranger's mail is read.
            taken = Taken.FORGED if any(map(self._tokens.is_return_path, addresses)) else Taken.NO_REPORT
        else:
            taken = self._take_read(read_mail(content), token, content)
        told = log.warning if taken in (Taken.FORGED, Taken.CONTRADICTED) else log.info
        told("bounce", outcome=taken, size=len(content))
        return taken

    def _quotes_us(self, content: bytes) -> bool:
        """Whether it may contain a mail of ours, like a complaint to an address without a token."""
        quoted = _SOFT_LINE_END.sub(b"", content[:_MAX_SEARCHED])
        return self._tokens.has_return_path(quoted) or _MESSAGE_ID_BYTES.search(quoted) is not None

    def _take_read(self, read: Read, token: tuple[UUID, int] | None, content: bytes) -> Taken:
        match read.report:
            case None:
                return self._keep_unread(read, token, content)
            case Bounce():
                taken = self._bounce(read.report, token)
                return self._keep_unread(read, token, content) if taken is Taken.NO_REPORT else taken
            case Complaint():
                return self._complaint(read.report, token)
            case _:
                assert_never(read.report)

    def _bounce(self, bounce: Bounce, token: tuple[UUID, int] | None) -> Taken:
        if token is None:
            return Taken.FORGED
        found = self._reports.find(*token)
        if found is None:
            return Taken.UNKNOWN
        whose = partial(self._whose, found)
        if not is_believable(bounce, whose):
            return Taken.NO_REPORT
        meaning = meaning_of(bounce, whose)
        words = _words(bounce, meaning)
        report = NewReport(
            found.id,
            found.attempt,
            None,
            "",
            words,
            meaning.status,
            meaning.reason,
            occurred_at=bounce.occurred_at,
        )
        reason = SuppressionReason.HARD_BOUNCE
        recorded = self._reports.record(
            report, lambda about: self._suppression(about, GLOBAL, reason, words) if meaning.is_dead else None
        )
        # A report that moved nothing says nothing new, but a repeated one may not have been counted yet.
        if meaning.is_soft and recorded in (RecordedReport.MOVED, RecordedReport.REPEATED):
            self._count_soft(found, words)
        return _taken(recorded)

    def _keep_unread(self, read: Read, token: tuple[UUID, int] | None, content: bytes) -> Taken:
        found = None if token is None else self._reports.find(*token)
        if found is None:
            return Taken.NO_REPORT
        if read.is_reply:
            self._unread.note_reply(found.id, found.attempt)
            return Taken.NO_REPORT
        return Taken.UNREAD if self._unread.keep(found.id, found.attempt, content) else Taken.REPEATED

    def _whose(self, found: Reported, address: str) -> Whose:
        """Whose this address is. The record holds the recipient only sealed, so it is compared by hash.
        "@example.com" stands for a domain."""
        if address.startswith("@"):
            return Whose.OURS if address.lower() in self._domains else Whose.OTHERS
        if found.address_hash in self._hash_key.recipient_forms(Channel.EMAIL, address):
            return Whose.THEIRS
        is_ours = self._tokens.is_bounce_address(address) or recipient_identity(address) in self._senders
        return Whose.OURS if is_ours else Whose.OTHERS

    @cached_property
    def _senders(self) -> frozenset[str]:
        names = (None, *self._settings.structure.senders)
        emails = (self._settings.sender(name).email for name in names)
        return frozenset(recipient_identity(email) for email in emails if email)

    @cached_property
    def _domains(self) -> frozenset[str]:
        """The domains of the sender identities and of the bounce address, each with an "@" before it."""
        addresses = (*self._senders, self._settings.bounce_address or "")
        return frozenset("@" + address.rpartition("@")[2].lower() for address in addresses if address)

    def _count_soft(self, found: Reported, words: str) -> None:
        """Count soft bounces in a separate transaction, so that two concurrent bounces of one address see each
        other."""
        now = self._reports.now()
        count = self._reports.soft_bounces(found.address_hash, since=now - SOFT_PERIOD)
        if count >= SOFT_BOUNCES:
            detail = f"{count} soft bounces within {SOFT_PERIOD.days} days, the last: {words}"
            reason = SuppressionReason.HARD_BOUNCE
            self._suppressions.keep(self._suppression(found, GLOBAL, reason, detail, now + SOFT_PERIOD))

    def _complaint(self, complaint: Complaint, token: tuple[UUID, int] | None) -> Taken:
        paths = map(self._tokens.read_return_path, complaint.return_paths)
        token = token or next(filter(None, paths), None)
        by_id = _MESSAGE_ID.match(complaint.message_id)
        if token is not None:
            found = self._reports.find(*token)
        elif by_id is not None:
            found = self._reports.find(UUID(by_id[1]))
        else:
            return Taken.FORGED
        if found is None or found.channel is not Channel.EMAIL:
            return Taken.UNKNOWN
        # A token is proof enough, and mail providers often write an invalid address.
        if token is None and not self._may_be_about(complaint, found):
            return Taken.CONTRADICTED
        words = f"complaint: {complaint.kind}"
        report = NewReport(found.id, found.attempt, None, "", words, None)
        scope = self._scope(found)
        return _taken(
            self._reports.record(
                report, lambda about: self._suppression(about, scope, SuppressionReason.COMPLAINT, words)
            )
        )

    def _may_be_about(self, complaint: Complaint, found: Reported) -> bool:
        """Whether the complaint names the recipient, or nobody."""
        forms = (self._hash_key.recipient_forms(Channel.EMAIL, address) for address in complaint.recipients)
        named = {form for known in forms for form in known}
        return not named or found.address_hash in named

    def _scope(self, found: Reported) -> str:
        """The category of the mail, or otherwise its sender identity."""
        template = template_of(found.channel, found.template, self._renderer)
        if template is not None and template.category:
            return category_scope(template.category)
        return sender_scope(identity_of(found, self._renderer, self._settings))

    def _suppression(
        self,
        found: Reported,
        scope: str,
        reason: SuppressionReason,
        detail: str,
        expires_at: datetime | None = None,
    ) -> NewSuppression:
        return NewSuppression(
            hash_key=found.hash_key,
            channel=found.channel,
            address_hash=found.address_hash,
            scope=scope,
            reason=reason,
            source=_SOURCE,
            expires_at=expires_at,
            notification_id=found.id,
            detail=detail,
            provider=found.provider,
            sender=identity_of(found, self._renderer, self._settings),
        )


def _words(bounce: Bounce, meaning: Meaning) -> str:
    """The bounce in words, for the record: "failed 5.1.1, by mx.example.com: 550 5.1.1 no such user". Always the
    same for the same report."""
    by = f", by {bounce.remote}" if bounce.remote else ""
    behind = ", for an address behind theirs" if meaning.is_behind else ""
    said = mail_detail(bounce.answer.text, recipient=bounce.recipient)
    code = bounce.answer.enhanced or bounce.answer.basic
    return f"{bounce.action} {code}".rstrip() + f"{by}{behind}: {said}".removesuffix(": ")


def _taken(recorded: RecordedReport) -> Taken:
    match recorded:
        case RecordedReport.MOVED | RecordedReport.NOTED:
            return Taken.RECORDED
        case RecordedReport.REPEATED | RecordedReport.UNLISTED:
            return Taken.REPEATED
        case RecordedReport.UNKNOWN:
            return Taken.UNKNOWN
        case _:
            assert_never(recorded)
