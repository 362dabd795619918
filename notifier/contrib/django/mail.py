"""A Django mail backend that sends through the service: `send_mail`, password resets, `mail_admins`, apps' own
mails.

    EMAIL_BACKEND = "notifier.contrib.django.mail.EmailBackend"
    MAILERS = {"default": {"BACKEND": "notifier.contrib.django.mail.EmailBackend"}}  # from Django 6.1 on

Each recipient gets a separate mail, made from the template `raw_email` with the given subject, text and HTML.
Mails become rows of the outbox in the current transaction, as with `notifier.contrib.django.send`. If the
transaction is rolled back, they are not sent.

The backend refuses what a notification cannot carry (headers, a reply address that is not a sender identity,
pictures inside the HTML) instead of dropping it. To use more of the service, call `send` with a template.

Crash points: none of its own. A file that was uploaded for a mail that was not committed is deleted after a day.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from notifier.contrib.django.mail_draft import MailDraft
from notifier.contrib.django.settings import DjangoSettings
from notifier.domain.errors import ConfigurationError, InvalidMessage, NotifierError, ServiceUnavailable

log = logging.getLogger("notifier.contrib.django.mail")


class EmailBackend(BaseEmailBackend):  # type: ignore[misc]  # Django ships no types
    """Writes Django's mails into notifier's outbox."""

    def __init__(self, fail_silently: bool = False, *, alias: str | None = None, **options: Any) -> None:
        """`alias` and `options` come from MAILERS (Django 6.1), which refuses unknown options. Without MAILERS,
        `send_mail` passes the user and password of a mail server, which are not needed here."""
        super().__init__(**({} if alias is None else {"alias": alias, **options}))
        self.fail_silently = fail_silently

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Write the mails into the outbox. Returns the number of mails written, however many recipients they have.

        Unless `fail_silently` is set, all mails are written, or none. With it, a mail that raises one of these
        errors is left out, not counted, and named in the log. Database errors are raised in either case, because
        the transaction is broken.

        Raises:
            InvalidMessage: `faults` lists everything that is wrong; with several mails, each field begins with the
                mail's position, from 0. It is a `ValueError`, like Django's `BadHeaderError`.
            ConfigurationError: a setting is missing or wrong, or the service refuses the key.
            ServiceUnavailable: an attachment could not be uploaded.
        """
        given = list(email_messages)
        mails = {
            f"{position}." if len(given) > 1 else "": mail
            for position, mail in enumerate(given)
            if _has_recipients(mail)
        }
        if not self.fail_silently:
            self._write(mails)
            return len(mails)
        return sum(map(self._was_written, mails.values()))

    def _was_written(self, mail: EmailMessage) -> bool:
        try:
            self._write({"": mail})
        except (NotifierError, ValueError) as error:
            log.warning("a mail was left out, as it may fail silently: %s", _without_values(error))
            return False
        return True

    def _write(self, mails: Mapping[str, EmailMessage]) -> None:
        """Write mails. The keys are the prefixes for the fields of their faults."""
        if not mails:
            return
        # Imported here because models cannot be imported before Django's apps are ready.
        from notifier.contrib.django.sending import messages

        settings = DjangoSettings.read().require("NOTIFIER_PRODUCER", "NOTIFIER_SENDERS")
        outbox = messages(None)
        drafts = {prefix: MailDraft(mail, settings.senders, outbox) for prefix, mail in mails.items()}
        try:
            for draft in drafts.values():
                draft.upload_files()
        except (ConfigurationError, ServiceUnavailable):
            # Faults of the mails are reported first: they stay, even when the service answers again.
            if not any(draft.faults for draft in drafts.values()):
                raise
        faults = [
            replace(fault, field=f"{prefix}{fault.field}".rstrip("."))
            for prefix, draft in drafts.items()
            for fault in draft.faults
        ]
        if faults:
            raise InvalidMessage(faults)
        outbox.write([message for draft in drafts.values() for message in draft.messages()])


def _has_recipients(mail: EmailMessage) -> bool:
    """True also if the mail's recipients cannot be read: then the mail will be refused."""
    try:
        return bool(mail.recipients())
    except TypeError:
        return True


def _without_values(error: Exception) -> str:
    """The error's text without anything from the mail: Django's own errors repeat subjects and addresses."""
    return str(error) if isinstance(error, NotifierError) else type(error).__name__
